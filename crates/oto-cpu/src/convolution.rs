//! Convolutions as matrix products: what the kernel sees at each place of an image becomes a row, image by image, so that the
//! rows stay in the cache until the product has used them.

use crate::matmul::{Finish, Scratch, Side, matmul};
use oto_graph::{Activation, Conv};

/// A tensor's elements and shape.
pub type Shaped<'a> = (&'a [f32], &'a [usize]);

/// Room for one image's rows and a product of them; grows once.
#[derive(Default)]
pub struct Room {
    patches: Vec<f32>,
    product: Vec<f32>,
    scratch: Scratch,
}

/// How a kernel lies over an image `[channels, height, width]`; it has `down` times `across` places there.
#[derive(Clone, Copy)]
struct Places {
    channels: usize,
    height: usize,
    width: usize,
    kernel: usize,
    down: usize,
    across: usize,
    conv: Conv,
}

impl Places {
    /// From the shapes of image, weight and result.
    fn new(x: &[usize], w: &[usize], y: &[usize], conv: Conv) -> Self {
        let [channels, height, width] = [x[1], x[2], x[3]];
        Self { channels, height, width, kernel: w[2], down: y[2], across: y[3], conv }
    }

    fn count(self) -> usize {
        self.down * self.across
    }

    /// How many numbers a place sees.
    fn seen(self) -> usize {
        self.channels * self.kernel * self.kernel
    }

    fn image(self) -> usize {
        self.channels * self.height * self.width
    }

    /// Rows `[places, seen]` of an image.
    fn gather(self, image: &[f32], rows: &mut [f32]) {
        let copy = |to: &mut [f32], from: &[f32]| to.copy_from_slice(from);
        match (self.conv.padding, self.kernel) {
            (0, 3) => self.runs::<3>(|row, at| *run::<3>(rows, row) = image[at..][..3].try_into().unwrap()),
            (0, 4) => self.runs::<4>(|row, at| *run::<4>(rows, row) = image[at..][..4].try_into().unwrap()),
            (0, 8) => self.runs::<8>(|row, at| *run::<8>(rows, row) = image[at..][..8].try_into().unwrap()),
            _ => {
                // Places beyond the image are zeros.
                rows.fill(0.0);
                self.clipped(|row, at, len| copy(&mut rows[row..row + len], &image[at..at + len]));
            }
        }
    }

    /// Adds rows `[places, seen]` to the image that they were seen in.
    fn scatter(self, rows: &[f32], image: &mut [f32]) {
        let add = |to: &mut [f32], from: &[f32]| to.iter_mut().zip(from).for_each(|(to, x)| *to += x);
        match (self.conv.padding, self.kernel) {
            (0, 3) => self.runs::<3>(|row, at| add(run::<3>(image, at), &rows[row..][..3])),
            (0, 4) => self.runs::<4>(|row, at| add(run::<4>(image, at), &rows[row..][..4])),
            (0, 8) => self.runs::<8>(|row, at| add(run::<8>(image, at), &rows[row..][..8])),
            _ => self.clipped(|row, at, len| add(&mut image[at..at + len], &rows[row..row + len])),
        }
    }

    /// Where each line of a kernel of `K` pixels without padding lies: in the rows and in the image.
    #[inline(always)]
    fn runs<const K: usize>(self, mut f: impl FnMut(usize, usize)) {
        let mut row = 0;
        for place in 0..self.count() {
            let (i, j) = (place / self.across, place % self.across);
            let corner = (i * self.width + j) * self.conv.stride;
            for channel in 0..self.channels {
                for line in 0..K {
                    f(row, corner + (channel * self.height + line) * self.width);
                    row += K;
                }
            }
        }
    }

    /// The same for any kernel and padding, with the length of what lies inside the image.
    fn clipped(self, mut f: impl FnMut(usize, usize, usize)) {
        let Conv { stride, padding } = self.conv;
        for place in 0..self.count() {
            let (top, left) = (place / self.across * stride, place % self.across * stride);
            let first = padding.saturating_sub(left).min(self.kernel);
            let end = (self.width + padding).saturating_sub(left).clamp(first, self.kernel);
            for channel in 0..self.channels {
                for line in 0..self.kernel {
                    let y = top + line;
                    if y < padding || y - padding >= self.height || first == end {
                        continue;
                    }
                    let row = ((place * self.channels + channel) * self.kernel + line) * self.kernel + first;
                    let at = (channel * self.height + y - padding) * self.width + left + first - padding;
                    f(row, at, end - first);
                }
            }
        }
    }
}

/// `K` numbers from `at` on.
#[inline(always)]
fn run<const K: usize>(numbers: &mut [f32], at: usize) -> &mut [f32; K] {
    numbers[at..].first_chunk_mut().expect("a kernel lies inside its image")
}

fn grown(room: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if room.len() < len {
        room.resize(len, 0.0);
    }
    &mut room[..len]
}

const PLAIN: Finish<'static> = Finish { bias: None, activation: Activation::Identity, derivative: None };

/// `activation(x * w + bias)` of images x `[B, C, H, W]`, w `[O, C, K, K]`: `[B, O, H', W']`.
pub fn conv2d(
    x: Shaped<'_>,
    w: Shaped<'_>,
    bias: &[f32],
    (conv, activation): (Conv, Activation),
    y: &[usize],
    out: &mut [f32],
    room: &mut Room,
) {
    let places = Places::new(x.1, w.1, y, conv);
    let (count, seen, outputs) = (places.count(), places.seen(), y[1]);
    let patches = grown(&mut room.patches, count * seen);
    let product = grown(&mut room.product, count * outputs);
    let finish = Finish { bias: Some(bias), activation, derivative: None };
    for (image, out) in x.0.chunks_exact(places.image()).zip(out.chunks_exact_mut(outputs * count)) {
        places.gather(image, patches);
        let a = Side { values: patches, columns: seen, turned: false };
        let b = Side { values: w.0, columns: seen, turned: true };
        matmul(a, b, finish, outputs, seen, product, &mut room.scratch);
        transpose(product, outputs, out);
    }
}

/// The gradient towards the images `[B, C, H, W]`, from that of the result, g `[B, O, H', W']`.
pub fn conv2d_grad_input(
    g: Shaped<'_>,
    w: Shaped<'_>,
    conv: Conv,
    x: &[usize],
    out: &mut [f32],
    room: &mut Room,
) {
    let places = Places::new(x, w.1, g.1, conv);
    let (count, seen, outputs) = (places.count(), places.seen(), g.1[1]);
    let product = grown(&mut room.product, count * seen);
    out.fill(0.0);
    for (g, out) in g.0.chunks_exact(outputs * count).zip(out.chunks_exact_mut(places.image())) {
        let a = Side { values: g, columns: count, turned: true };
        let b = Side { values: w.0, columns: seen, turned: false };
        matmul(a, b, PLAIN, seen, outputs, product, &mut room.scratch);
        places.scatter(product, out);
    }
}

/// The gradient towards the weight `[O, C, K, K]`.
pub fn conv2d_grad_weight(
    x: Shaped<'_>,
    g: Shaped<'_>,
    conv: Conv,
    w: &[usize],
    out: &mut [f32],
    room: &mut Room,
) {
    let places = Places::new(x.1, w, g.1, conv);
    let (count, seen, outputs) = (places.count(), places.seen(), g.1[1]);
    let patches = grown(&mut room.patches, count * seen);
    let product = grown(&mut room.product, out.len());
    out.fill(0.0);
    for (image, g) in x.0.chunks_exact(places.image()).zip(g.0.chunks_exact(outputs * count)) {
        places.gather(image, patches);
        let a = Side { values: g, columns: count, turned: false };
        let b = Side { values: patches, columns: seen, turned: false };
        matmul(a, b, PLAIN, seen, count, product, &mut room.scratch);
        out.iter_mut().zip(&*product).for_each(|(out, x)| *out += x);
    }
}

/// Numbers of a line of the cache.
const LINE: usize = 16;

/// Rows `[rows, columns]` of `from` as columns, a few at a time that stay in the cache.
fn transpose(from: &[f32], columns: usize, to: &mut [f32]) {
    let rows = from.len() / columns;
    for first in (0..rows).step_by(LINE) {
        let end = (first + LINE).min(rows);
        for column in 0..columns {
            let to = &mut to[column * rows + first..column * rows + end];
            let from = from[first * columns + column..].iter().step_by(columns);
            to.iter_mut().zip(from).for_each(|(to, x)| *to = *x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `f` with (image index, kernel index, output index) of every product, as a convolution is defined.
    fn products(x: &[usize], w: &[usize], y: &[usize], conv: Conv, mut f: impl FnMut(usize, usize, usize)) {
        let [channels, height, width] = [x[1], x[2], x[3]];
        let inside = |at: usize, size: usize| at.checked_sub(conv.padding).filter(|at| *at < size);
        for to in 0..y.iter().product() {
            let (b, o) = (to / (y[1] * y[2] * y[3]), to / (y[2] * y[3]) % y[1]);
            let (i, j) = (to / y[3] % y[2] * conv.stride, to % y[3] * conv.stride);
            for k in 0..channels * w[2] * w[2] {
                let (c, ki, kj) = (k / (w[2] * w[2]), k / w[2] % w[2], k % w[2]);
                if let (Some(row), Some(column)) = (inside(i + ki, height), inside(j + kj, width)) {
                    f(
                        ((b * channels + c) * height + row) * width + column,
                        o * channels * w[2] * w[2] + k,
                        to,
                    );
                }
            }
        }
    }

    /// Small whole numbers: all sums are exact, whatever their order.
    fn numbers(shape: &[usize], seed: usize) -> Vec<f32> {
        (0..shape.iter().product()).map(|i: usize| ((i * 7 + seed * 13) % 11) as f32 - 5.0).collect()
    }

    #[test]
    fn products_of_rows_are_convolutions() {
        let room = &mut Room::default();
        for ([channels, height, width], outputs, kernel, stride, padding) in [
            ([4, 20, 20], 32, 8, 4, 0),
            ([3, 9, 11], 5, 4, 2, 0),
            ([2, 7, 5], 17, 3, 1, 0),
            ([2, 7, 5], 3, 3, 2, 2),
            ([1, 4, 4], 1, 4, 1, 3),
            ([3, 6, 6], 2, 5, 3, 1),
            ([2, 3, 3], 2, 1, 1, 0),
            ([1, 1, 1], 2, 3, 1, 1),
            ([1, 2, 2], 1, 2, 1, 5),
        ] {
            let conv = Conv { stride, padding };
            let (x, w) = (&[2, channels, height, width], &[outputs, channels, kernel, kernel]);
            let y = &[2, outputs, conv.output(height, kernel), conv.output(width, kernel)];
            let (image, weight, g) = (numbers(x, 1), numbers(w, 2), numbers(y, 3));
            let bias = numbers(&w[..1], 4);
            let what = format!("{x:?} under {w:?}, {conv:?}");

            let plane = y[2] * y[3];
            let mut expected = (0..g.len()).map(|i| bias[i / plane % outputs]).collect::<Vec<_>>();
            products(x, w, y, conv, |i, k, o| expected[o] += image[i] * weight[k]);
            expected.iter_mut().for_each(|y| *y = y.max(0.0));
            let mut out = vec![f32::NAN; g.len()];
            conv2d((&image, x), (&weight, w), &bias, (conv, Activation::Relu), y, &mut out, room);
            assert_eq!(out, expected, "{what}");

            let mut expected = vec![0.0; image.len()];
            products(x, w, y, conv, |i, k, o| expected[i] += g[o] * weight[k]);
            let mut out = vec![f32::NAN; image.len()];
            conv2d_grad_input((&g, y), (&weight, w), conv, x, &mut out, room);
            assert_eq!(out, expected, "{what}, towards the image");

            let mut expected = vec![0.0; weight.len()];
            products(x, w, y, conv, |i, k, o| expected[k] += g[o] * image[i]);
            let mut out = vec![f32::NAN; weight.len()];
            conv2d_grad_weight((&image, x), (&g, y), conv, w, &mut out, room);
            assert_eq!(out, expected, "{what}, towards the weight");
        }
    }
}
