//! Matrix products of the small sizes that students have: 4 x 16 tiles kept in registers, sides packed first where they
//! are read transposed.

const ROWS: usize = 4;
const COLUMNS: usize = 16;

/// Room for packed sides; grows once.
#[derive(Default)]
pub struct Scratch {
    a: Vec<f32>,
    b: Vec<f32>,
}

/// One side of a product: row-major `[rows, columns]`, read transposed where `turned` says so.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// The elements.
    pub values: &'a [f32],
    /// As stored.
    pub rows: usize,
    /// As stored.
    pub columns: usize,
    /// Whether it is read transposed.
    pub turned: bool,
}

/// `out = a b`, row-major.
pub fn matmul(a: Side<'_>, b: Side<'_>, out: &mut [f32], scratch: &mut Scratch) {
    let (m, k) = if a.turned { (a.columns, a.rows) } else { (a.rows, a.columns) };
    let n = if b.turned { b.rows } else { b.columns };
    let a = upright(a, &mut scratch.a);
    let b = upright(b, &mut scratch.b);
    debug_assert_eq!(out.len(), m * n);
    dispatch(a, b, out, k, n);
}

fn upright<'s>(side: Side<'s>, scratch: &'s mut Vec<f32>) -> &'s [f32] {
    if !side.turned {
        return side.values;
    }
    scratch.resize(side.values.len(), 0.0);
    transpose(side.values, side.rows, side.columns, scratch);
    scratch
}

/// `[rows, columns]` to `[columns, rows]`.
fn transpose(from: &[f32], rows: usize, columns: usize, to: &mut [f32]) {
    for (c, to) in to.chunks_exact_mut(rows).enumerate() {
        to.iter_mut().zip(from[c..].iter().step_by(columns)).for_each(|(t, f)| *t = *f);
    }
}

#[cfg(target_arch = "x86_64")]
fn dispatch(a: &[f32], b: &[f32], out: &mut [f32], k: usize, n: usize) {
    #[target_feature(enable = "avx2,fma")]
    fn with_avx2(a: &[f32], b: &[f32], out: &mut [f32], k: usize, n: usize) {
        product(a, b, out, k, n, f32::mul_add)
    }
    if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
        // SAFETY: the processor was just asked for both features.
        #[allow(unsafe_code)]
        unsafe {
            with_avx2(a, b, out, k, n)
        }
    } else {
        product(a, b, out, k, n, |a, b, c| a * b + c)
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn dispatch(a: &[f32], b: &[f32], out: &mut [f32], k: usize, n: usize) {
    product(a, b, out, k, n, |a, b, c| a * b + c)
}

#[inline(always)]
fn product(
    a: &[f32],
    b: &[f32],
    out: &mut [f32],
    k: usize,
    n: usize,
    fma: impl Fn(f32, f32, f32) -> f32 + Copy,
) {
    let m = out.len() / n;
    let mut i = 0;
    while i + ROWS <= m {
        tile_rows::<ROWS>(&a[i * k..], b, &mut out[i * n..(i + ROWS) * n], k, n, fma);
        i += ROWS;
    }
    while i < m {
        tile_rows::<1>(&a[i * k..], b, &mut out[i * n..(i + 1) * n], k, n, fma);
        i += 1;
    }
}

#[inline(always)]
fn tile_rows<const R: usize>(
    a: &[f32],
    b: &[f32],
    out: &mut [f32],
    k: usize,
    n: usize,
    fma: impl Fn(f32, f32, f32) -> f32 + Copy,
) {
    let mut j = 0;
    while j + COLUMNS <= n {
        let mut sums = [[0.0f32; COLUMNS]; R];
        for p in 0..k {
            let row: &[f32; COLUMNS] = b[p * n + j..p * n + j + COLUMNS].try_into().expect("sixteen columns");
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = a[r * k + p];
                for c in 0..COLUMNS {
                    sums[c] = fma(x, row[c], sums[c]);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            out[r * n + j..r * n + j + COLUMNS].copy_from_slice(sums);
        }
        j += COLUMNS;
    }
    for r in 0..R {
        for j in j..n {
            out[r * n + j] = (0..k).fold(0.0, |sum, p| fma(a[r * k + p], b[p * n + j], sum));
        }
    }
}
