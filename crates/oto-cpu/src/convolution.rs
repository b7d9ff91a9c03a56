//! Convolutions written out: correct first; pixel students will want them blocked.

use oto_graph::Conv;

/// Calls `f` with (image index, kernel index, output index) of every product in the convolution of `x` `[B, C, H, W]` by `w`
/// `[O, C, K, K]` into `y` `[B, O, H', W']`.
fn products(x: &[usize], w: &[usize], y: &[usize], conv: Conv, mut f: impl FnMut(usize, usize, usize)) {
    let [channels, height, width] = [x[1], x[2], x[3]];
    let [outputs, kernel] = [w[0], w[2]];
    for b in 0..x[0] {
        for o in 0..outputs {
            for i in 0..y[2] {
                for j in 0..y[3] {
                    let to = ((b * outputs + o) * y[2] + i) * y[3] + j;
                    for c in 0..channels {
                        for ki in 0..kernel {
                            let row = i * conv.stride + ki;
                            if row < conv.padding || row - conv.padding >= height {
                                continue;
                            }
                            for kj in 0..kernel {
                                let column = j * conv.stride + kj;
                                if column < conv.padding || column - conv.padding >= width {
                                    continue;
                                }
                                let (row, column) = (row - conv.padding, column - conv.padding);
                                let from = ((b * channels + c) * height + row) * width + column;
                                f(from, ((o * channels + c) * kernel + ki) * kernel + kj, to);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A tensor's elements and shape.
pub type Shaped<'a> = (&'a [f32], &'a [usize]);

pub fn conv2d(x: Shaped<'_>, w: Shaped<'_>, bias: &[f32], conv: Conv, y: &[usize], out: &mut [f32]) {
    let plane = y[2] * y[3];
    out.chunks_exact_mut(plane).enumerate().for_each(|(i, p)| p.fill(bias[i % bias.len()]));
    products(x.1, w.1, y, conv, |i, k, o| out[o] += x.0[i] * w.0[k]);
}

pub fn conv2d_grad_input(g: Shaped<'_>, w: Shaped<'_>, conv: Conv, x: &[usize], out: &mut [f32]) {
    out.fill(0.0);
    products(x, w.1, g.1, conv, |i, k, o| out[i] += g.0[o] * w.0[k]);
}

pub fn conv2d_grad_weight(x: Shaped<'_>, g: Shaped<'_>, conv: Conv, w: &[usize], out: &mut [f32]) {
    out.fill(0.0);
    products(x.1, w, g.1, conv, |i, k, o| out[k] += g.0[o] * x.0[i]);
}
