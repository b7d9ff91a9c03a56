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
    // Wide panels first, then whatever is left in narrower ones; the last is filled up with zeros.
    while j < n {
        let left = n - j;
        let at = |width| Panel { j, width: left.min(width), n, k };
        j += match left {
            // Two registers wide where registers are short.
            _ if left >= 16 && I::ROWS > 4 => panel::<I, 16>(a, b, finish, at(16), out, scratch),
            _ if left > 4 => panel::<I, 8>(a, b, finish, at(8), out, scratch),
            _ => panel::<I, 4>(a, b, finish, at(4), out, scratch),
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

#[inline(always)]
fn panel<I: Isa, const W: usize>(
    a: Side<'_>,
    b: Side<'_>,
    finish: Finish<'_>,
    at: Panel,
    out: &mut [f32],
    scratch: &mut Scratch,
) -> usize {
    let Panel { j, width, n, k } = at;
    // Rows of the panel as the tile reads them: in place where they lie side by side, else packed.
    let (columns, stride) = if !b.turned && width == W {
        (&b.values[j..], b.columns)
    } else {
        pack::<W>(b, at, scratch);
        (&scratch[..], W)
    };
    let m = out.len() / n;
    let mut i = 0;
    while i < m {
        let left = m - i;
        i += match left {
            _ if left >= 6 && I::ROWS >= 6 => tile::<I, W, 6>(a, columns, stride, finish, i, at, out),
            _ if left >= 4 => tile::<I, W, 4>(a, columns, stride, finish, i, at, out),
            2.. => tile::<I, W, 2>(a, columns, stride, finish, i, at, out),
            _ => tile::<I, W, 1>(a, columns, stride, finish, i, at, out),
        };
    }
    debug_assert!(k > 0);
    width
}

/// Columns of `b` as rows of `W` numbers.
#[inline(always)]
fn pack<const W: usize>(b: Side<'_>, at: Panel, scratch: &mut Scratch) {
    let Panel { j, width, k, .. } = at;
    if scratch.len() < k * W {
        scratch.resize(k * W, 0.0);
    }
    let rows = scratch[..k * W].as_chunks_mut::<W>().0;
    if !b.turned {
        for (p, row) in rows.iter_mut().enumerate() {
            row[..width].copy_from_slice(&b.values[p * b.columns + j..][..width]);
            row[width..].fill(0.0);
        }
        return;
    }
    if width < W {
        rows.as_flattened_mut().fill(0.0);
    }
    for (c, from) in b.values[j * k..].chunks_exact(k).take(width).enumerate() {
        rows.iter_mut().zip(from).for_each(|(row, x)| row[c] = *x);
    }
}

/// `R` rows from row `i` of a panel.
#[inline(always)]
fn tile<I: Isa, const W: usize, const R: usize>(
    a: Side<'_>,
    columns: &[f32],
    stride: usize,
    finish: Finish<'_>,
    i: usize,
    at: Panel,
    out: &mut [f32],
) -> usize {
    let Panel { j, width, n, k } = at;
    let mut sums = [[0.0f32; W]; R];
    let (down, along) = if a.turned { (1, a.columns) } else { (a.columns, 1) };
    // One check here spares one for every number: rows i..i + R, all k columns.
    let a = &a.values[i * down..][..(R - 1) * down + (k - 1) * along + 1];
    let columns = &columns[..(k - 1) * stride + W];
    for p in 0..k {
        let row: &[f32; W] = columns[p * stride..p * stride + W].try_into().expect("a whole row");
        for r in 0..R {
            let x = a[r * down + p * along];
            for c in 0..W {
                sums[r][c] = I::fma(x, row[c], sums[r][c]);
            }
        }
    }
    for (r, sums) in sums.iter_mut().enumerate() {
        let from = (i + r) * n + j;
        let out = &mut out[from..from + width];
        if let Some(bias) = finish.bias {
            sums.iter_mut().zip(&bias[j..j + width]).for_each(|(s, b)| *s += b);
        }
        match finish.activation {
            Activation::Identity => {}
            Activation::Relu => sums.iter_mut().for_each(|s| *s = math::relu(*s)),
            Activation::Tanh => sums.iter_mut().for_each(|s| *s = math::tanh::<I>(*s)),
        }
        if let Some((activation, y)) = finish.derivative {
            let each = sums.iter_mut().zip(&y[from..from + width]);
            match activation {
                Activation::Identity => {}
                Activation::Relu => each.for_each(|(s, y)| *s = if *y > 0.0 { *s } else { 0.0 }),
                Activation::Tanh => each.for_each(|(s, y)| *s *= 1.0 - y * y),
            }
        }
        out.copy_from_slice(&sums[..width]);
    }
    R
}
