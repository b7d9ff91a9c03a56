//! Matrix products of the small sizes that students have. A tile of the result stays in registers while the sums run; what
//! surrounds the product (bias, activation, the activation's derivative) happens when the tile is written.

use crate::math;
use crate::simd::{Isa, simd};
use oto_graph::Activation;

/// One side of a product: row-major `[rows, columns]`, read transposed where `turned` says so.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// The elements.
    pub values: &'a [f32],
    /// Length of a stored row.
    pub columns: usize,
    /// Whether it is read transposed.
    pub turned: bool,
}

/// What happens to a sum before it is written.
#[derive(Clone, Copy)]
pub struct Finish<'a> {
    /// Added to each row, `[n]`.
    pub bias: Option<&'a [f32]>,
    /// What follows.
    pub activation: Activation,
    /// Times the derivative of the activation whose output this is, `[m, n]`.
    pub derivative: Option<(Activation, &'a [f32])>,
}

/// Room for packed columns; grows once.
pub type Scratch = Vec<f32>;

simd! {
    /// `out = finish(a b)`, row-major `[m, n]`; the sums have length `k`.
    pub fn matmul(
        a: Side<'_>, b: Side<'_>, finish: Finish<'_>, n: usize, k: usize, out: &mut [f32], scratch: &mut Scratch,
    ) = product
}

simd! {
    /// Sums of the rows of `x` `[rows, out.len()]`.
    pub fn sum_rows(x: &[f32], out: &mut [f32]) = rows_summed
}

#[inline(always)]
fn rows_summed<I: Isa>(x: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    for row in x.chunks_exact(out.len()) {
        out.iter_mut().zip(row).for_each(|(o, x)| *o += x);
    }
}

#[inline(always)]
fn product<I: Isa>(
    a: Side<'_>,
    b: Side<'_>,
    finish: Finish<'_>,
    n: usize,
    k: usize,
    out: &mut [f32],
    scratch: &mut Scratch,
) {
    let mut j = 0;
    // Wide panels first, then one that is narrower if that is enough; what is missing in it is filled up with zeros.
    while j < n {
        let left = n - j;
        j += match left {
            _ if left <= I::LANES => {
                panel::<I, 1>(a, b, finish, Panel { j, width: left, n, k }, out, scratch)
            }
            _ if I::WIDE > 2 && left > 2 * I::LANES => {
                panel::<I, 3>(a, b, finish, Panel { j, width: left.min(3 * I::LANES), n, k }, out, scratch)
            }
            _ => panel::<I, 2>(a, b, finish, Panel { j, width: left.min(2 * I::LANES), n, k }, out, scratch),
        };
    }
}

/// Columns `j..j + width` of the result.
#[derive(Clone, Copy)]
struct Panel {
    j: usize,
    width: usize,
    n: usize,
    k: usize,
}

/// A panel `V` registers wide.
#[inline(always)]
fn panel<I: Isa, const V: usize>(
    a: Side<'_>,
    b: Side<'_>,
    finish: Finish<'_>,
    at: Panel,
    out: &mut [f32],
    scratch: &mut Scratch,
) -> usize {
    let wide = V * I::LANES;
    // Rows of the panel as the tile reads them: in place where they lie side by side, else packed.
    let (columns, stride) = if !b.turned && at.width == wide {
        (&b.values[at.j..], b.columns)
    } else {
        pack(b, at, wide, scratch);
        (&scratch[..], wide)
    };
    let m = out.len() / at.n;
    let mut i = 0;
    while i < m {
        let left = m - i;
        i += match left {
            _ if I::ROWS >= 8 && left >= 8 => tile::<I, V, 8>(a, columns, stride, finish, i, at, out),
            // Two blocks of four are better than six and two.
            _ if I::ROWS >= 6 && left >= 6 && left != 8 => {
                tile::<I, V, 6>(a, columns, stride, finish, i, at, out)
            }
            4.. => tile::<I, V, 4>(a, columns, stride, finish, i, at, out),
            2.. => tile::<I, V, 2>(a, columns, stride, finish, i, at, out),
            _ => tile::<I, V, 1>(a, columns, stride, finish, i, at, out),
        };
    }
    at.width
}

/// Columns of `b` as rows of `wide` numbers.
#[inline(always)]
fn pack(b: Side<'_>, at: Panel, wide: usize, scratch: &mut Scratch) {
    let Panel { j, width, k, .. } = at;
    if scratch.len() < k * wide {
        scratch.resize(k * wide, 0.0);
    }
    let packed = &mut scratch[..k * wide];
    if width < wide {
        packed.fill(0.0);
    }
    if !b.turned {
        for (p, row) in packed.chunks_exact_mut(wide).enumerate() {
            row[..width].copy_from_slice(&b.values[p * b.columns + j..][..width]);
        }
        return;
    }
    // Four columns at a time: their rows are read side by side.
    let columns = &b.values[j * k..(j + width) * k];
    let mut c = 0;
    while c + 4 <= width {
        let [w, x, y, z] = std::array::from_fn(|i| &columns[(c + i) * k..(c + i + 1) * k]);
        for (p, row) in packed.chunks_exact_mut(wide).enumerate() {
            row[c..c + 4].copy_from_slice(&[w[p], x[p], y[p], z[p]]);
        }
        c += 4;
    }
    for c in c..width {
        let from = &columns[c * k..(c + 1) * k];
        packed[c..].iter_mut().step_by(wide).zip(from).for_each(|(to, x)| *to = *x);
    }
}

/// `R` rows from row `i` of a panel.
#[inline(always)]
fn tile<I: Isa, const V: usize, const R: usize>(
    a: Side<'_>,
    columns: &[f32],
    stride: usize,
    finish: Finish<'_>,
    i: usize,
    at: Panel,
    out: &mut [f32],
) -> usize {
    let Panel { j, width, n, k } = at;
    let mut sums = [[I::splat(0.0); V]; R];
    let (down, along) = if a.turned { (1, a.columns) } else { (a.columns, 1) };
    // Checked here once, so that the loop need not: rows i..i + R, all k columns.
    let a = &a.values[i * down..][..(R - 1) * down + (k - 1) * along + 1];
    let columns = &columns[..(k - 1) * stride + V * I::LANES];
    let (mut a, mut columns) = (a.as_ptr(), columns.as_ptr());
    for _ in 0..k {
        // SAFETY: the largest index of each slice is the one checked above, with r = R - 1, the last round and v = V - 1.
        #[allow(unsafe_code)]
        unsafe {
            let row: [I::Vector; V] = std::array::from_fn(|v| I::load(columns.add(v * I::LANES)));
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = I::splat(*a.add(r * down));
                for (sum, b) in sums.iter_mut().zip(row) {
                    *sum = I::fma_each(x, b, *sum);
                }
            }
        }
        (a, columns) = (a.wrapping_add(along), columns.wrapping_add(stride));
    }
    for (r, sums) in sums.iter().enumerate() {
        let from = (i + r) * n + j;
        let out = &mut out[from..from + width];
        if width == V * I::LANES {
            stored::<I, V>(sums, out);
        } else {
            // Room for the widest row there is.
            let mut row = [0.0f32; 32];
            stored::<I, V>(sums, &mut row);
            out.copy_from_slice(&row[..width]);
        }
        finished::<I>(out, finish, j, from);
    }
    R
}

#[inline(always)]
fn stored<I: Isa, const V: usize>(sums: &[I::Vector; V], out: &mut [f32]) {
    for (v, sum) in sums.iter().enumerate() {
        I::store(*sum, &mut out[v * I::LANES..]);
    }
}

/// What surrounds the product, for a piece of a row that begins at column `j` and place `from`.
#[inline(always)]
fn finished<I: Isa>(sums: &mut [f32], finish: Finish<'_>, j: usize, from: usize) {
    if let Some(bias) = finish.bias {
        sums.iter_mut().zip(&bias[j..]).for_each(|(s, b)| *s += b);
    }
    match finish.activation {
        Activation::Identity => {}
        Activation::Relu => sums.iter_mut().for_each(|s| *s = math::relu(*s)),
        Activation::Tanh => sums.iter_mut().for_each(|s| *s = math::tanh::<I>(*s)),
    }
    if let Some((activation, y)) = finish.derivative {
        let each = sums.iter_mut().zip(&y[from..]);
        match activation {
            Activation::Identity => {}
            Activation::Relu => each.for_each(|(s, y)| *s = if *y > 0.0 { *s } else { 0.0 }),
            Activation::Tanh => each.for_each(|(s, y)| *s *= 1.0 - y * y),
        }
    }
}
