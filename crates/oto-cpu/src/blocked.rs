//! Large matrix products. Parts of both sides are packed: the inner loop then reads them in order, a panel of columns from the
//! first-level cache and a block of rows from the second (Goto and van de Geijn, "Anatomy of High-Performance Matrix
//! Multiplication", 2008).
//!
//! Each element is one sum along `k` in order, as in small products: a block of the sums starts with the result of the block before
//! it. So neither blocks nor threads change a number.

use crate::matmul::{Finish, Panel, Scratch, Side, finished, multiply, put, registers};
use crate::simd::{Isa, Plain, copy, prefetch};

/// Length of the sums in a block. A panel of the widest registers then has 32 KiB.
const DEPTH: usize = 256;
/// Rows in a block: a multiple of each instruction set's tile.
const HEIGHT: usize = 960;
/// Columns in a block. One panel of them is packed and used at a time.
const WIDTH: usize = 1024;
/// Distance of packed rows. It is no power of two, so that the rows of a tile are in different sets of the cache.
const STRIDE: usize = DEPTH + LINE;
/// Numbers in a line of the cache.
const LINE: usize = 16;

/// Whether a product `[m, n]` with sums of length `k` is faster in blocks. A transposed right side must be packed in any case. All
/// numbers were measured, on a processor with AVX-512. In WebAssembly small products pack both sides, too, and are as fast as multiply-adds
/// on registers at 256 wide.
pub fn pays(m: usize, n: usize, k: usize, transposed: bool) -> bool {
    match transposed {
        _ if cfg!(target_arch = "wasm32") => false,
        true => m >= 32 && n >= 32 && k >= 32 && m * n * k >= 1 << 18,
        false => m >= 32 && n >= 32 && k >= 64 && m * n * k >= if m >= 100 { 1 << 21 } else { 1 << 23 },
    }
}

/// Numbers of packed rows and of packed columns that a product needs at most.
pub fn packed(m: usize, n: usize, k: usize) -> (usize, usize) {
    match pays(m, n, k, true) || pays(m, n, k, false) {
        true => {
            let height = even(m, HEIGHT, 1).next_multiple_of(8) + 8;
            (height * (even(k, DEPTH, 1).max(STRIDE) + LINE), even(k, DEPTH, 1) * 4 * LINE)
        }
        false => (0, 0),
    }
}

/// A block of the left side.
#[derive(Clone, Copy)]
struct Rows {
    first: usize,
    count: usize,
}

/// A part of the sums.
#[derive(Clone, Copy)]
struct Depth {
    first: usize,
    count: usize,
}

/// `out = finish(a b)` of large sides, without tanh and its derivative.
#[inline(always)]
pub fn product<I: Isa>(
    a: Side<'_>,
    b: Side<'_>,
    finish: Finish<'_>,
    n: usize,
    k: usize,
    out: &mut [f32],
    scratch: &mut Scratch,
) {
    match (a.turned, I::ROWS) {
        (false, 8) => blocks::<I, 8, STRIDE, 1>(a, b, finish, n, k, out, scratch),
        (false, 6) => blocks::<I, 6, STRIDE, 1>(a, b, finish, n, k, out, scratch),
        (false, 5) => blocks::<I, 5, STRIDE, 1>(a, b, finish, n, k, out, scratch),
        (false, _) => blocks::<I, 4, STRIDE, 1>(a, b, finish, n, k, out, scratch),
        (true, 8) => blocks::<I, 8, 1, 8>(a, b, finish, n, k, out, scratch),
        (true, 6) => blocks::<I, 6, 1, 6>(a, b, finish, n, k, out, scratch),
        (true, 5) => blocks::<I, 5, 1, 5>(a, b, finish, n, k, out, scratch),
        (true, _) => blocks::<I, 4, 1, 4>(a, b, finish, n, k, out, scratch),
    }
}

/// A tile has `R` rows. In a packed tile `DOWN` is the distance of rows, and `ALONG` the distance of a row's numbers.
#[inline(always)]
fn blocks<I: Isa, const R: usize, const DOWN: usize, const ALONG: usize>(
    a: Side<'_>,
    b: Side<'_>,
    finish: Finish<'_>,
    n: usize,
    k: usize,
    out: &mut [f32],
    scratch: &mut Scratch,
) {
    let m = out.len() / n;
    let wide = I::WIDE * I::LANES;
    let (height, width) = (even(m, HEIGHT, R), even(n, WIDTH, wide));
    let depth = even(k, DEPTH, 1);
    let tile = tile_len::<R, DOWN, ALONG>(depth);
    let (rows, columns) = scratch.packed(height / R * tile, depth * wide);
    for j in (0..n).step_by(width) {
        for first in (0..m).step_by(height) {
            let block = Rows { first, count: height.min(m - first) };
            for first in (0..k).step_by(depth) {
                let part = Depth { first, count: depth.min(k - first) };
                pack_rows::<R, DOWN, ALONG>(a, block, part, tile, rows);
                for j in (j..n.min(j + width)).step_by(wide) {
                    let at = Panel { j, width: wide.min(n - j), n, k };
                    let panel = &mut columns[..part.count * wide];
                    pack_columns::<I>(b, at, part, wide, panel);
                    let tiles = Tiles { rows, tile, panel, wide, block, part };
                    match at.width.div_ceil(I::LANES) {
                        1 => tiles.run::<I, 1, R, DOWN, ALONG>(finish, at, out),
                        2 => tiles.run::<I, 2, R, DOWN, ALONG>(finish, at, out),
                        _ => tiles.run::<I, 3, R, DOWN, ALONG>(finish, at, out),
                    }
                }
            }
        }
    }
}

/// The length of equal parts of `all`, at most `most` each, as a multiple of `unit`.
fn even(all: usize, most: usize, unit: usize) -> usize {
    all.div_ceil(all.div_ceil(most)).next_multiple_of(unit)
}

/// Distance of packed tiles.
const fn tile_len<const R: usize, const DOWN: usize, const ALONG: usize>(depth: usize) -> usize {
    if ALONG == 1 { R * DOWN } else { depth * ALONG + LINE }
}

/// Packs a block of the left side, tile by tile: row after row, or column after column of a transposed side. Zeros complete the last
/// tile.
#[inline(always)]
fn pack_rows<const R: usize, const DOWN: usize, const ALONG: usize>(
    a: Side<'_>,
    block: Rows,
    part: Depth,
    tile: usize,
    to: &mut [f32],
) {
    let tiles = block.count.div_ceil(R);
    if ALONG == 1 {
        for r in 0..tiles * R {
            let to = &mut to[r * DOWN..][..part.count];
            match r < block.count {
                true => copy(&a.values[(block.first + r) * a.columns + part.first..][..part.count], to),
                false => to.fill(0.0),
            }
        }
        return;
    }
    for p in 0..part.count {
        let from = &a.values[(part.first + p) * a.columns + block.first..][..block.count];
        let (whole, rest) = from.as_chunks::<R>();
        for (t, numbers) in whole.iter().enumerate() {
            to[t * tile + p * R..][..R].copy_from_slice(numbers);
        }
        if !rest.is_empty() {
            let to = &mut to[whole.len() * tile + p * R..][..R];
            to.fill(0.0);
            to[..rest.len()].copy_from_slice(rest);
        }
    }
}

/// Packs a panel of the right side, row after row. Zeros complete each row.
#[inline(always)]
fn pack_columns<I: Isa>(b: Side<'_>, at: Panel, part: Depth, wide: usize, to: &mut [f32]) {
    let Panel { j, width, .. } = at;
    if !b.turned {
        for (p, to) in to.chunks_exact_mut(wide).enumerate() {
            let from = &b.values[(part.first + p) * b.columns + j..][..width];
            copy(from, &mut to[..width]);
            to[width..].fill(0.0);
        }
        return;
    }
    let mut c = 0;
    while c < width {
        c += match width - c {
            left if left >= I::LANES => turn::<I>(b, c, at, part, wide, to),
            left if left >= Plain::LANES => turn::<Plain>(b, c, at, part, wide, to),
            _ => turn_one(b, c, at, part.first, wide, to),
        };
    }
    if width < wide {
        to.chunks_exact_mut(wide).for_each(|to| to[width..].fill(0.0));
    }
}

/// Transposes a register's worth of lines of `b` into columns `c..` of a panel; how many.
#[inline(always)]
fn turn<I: Isa>(b: Side<'_>, c: usize, at: Panel, part: Depth, wide: usize, to: &mut [f32]) -> usize {
    let from = |c: usize| &b.values[(at.j + c) * b.columns + part.first..];
    let done = part.count / 4 * 4;
    assert!(from(c + I::LANES - 1).len() >= done);
    for p in (0..done).step_by(4) {
        // SAFETY: each of these lines has four numbers from p on; the last line was checked above.
        #[allow(unsafe_code)]
        let four = unsafe { I::turned(from(c).as_ptr().add(p), b.columns) };
        for (q, numbers) in four.into_iter().enumerate() {
            I::store(numbers, &mut to[(p + q) * wide + c..]);
        }
    }
    for p in done..part.count {
        (0..I::LANES).for_each(|l| to[p * wide + c + l] = from(c + l)[p]);
    }
    I::LANES
}

/// The same of one line.
#[inline(always)]
fn turn_one(b: Side<'_>, c: usize, at: Panel, first: usize, wide: usize, to: &mut [f32]) -> usize {
    let from = &b.values[(at.j + c) * b.columns + first..];
    to.chunks_exact_mut(wide).zip(from).for_each(|(to, x)| to[c] = *x);
    1
}

/// A packed block and a packed panel.
struct Tiles<'a> {
    rows: &'a [f32],
    /// Distance of tiles.
    tile: usize,
    panel: &'a [f32],
    /// Distance of the panel's rows.
    wide: usize,
    block: Rows,
    part: Depth,
}

impl Tiles<'_> {
    #[inline(always)]
    fn run<I: Isa, const V: usize, const R: usize, const DOWN: usize, const ALONG: usize>(
        &self,
        finish: Finish<'_>,
        at: Panel,
        out: &mut [f32],
    ) {
        for i in (0..self.block.count).step_by(R) {
            self.one::<I, V, R, DOWN, ALONG>(i, finish, at, out);
        }
    }

    /// The tile at row `i` of the block.
    ///
    /// In wasm it is a function of its own: inside a large one a browser's compiler keeps the sums in memory.
    #[cfg_attr(target_arch = "wasm32", inline(never), target_feature(enable = "relaxed-simd"))]
    #[cfg_attr(not(target_arch = "wasm32"), inline(always))]
    fn one<I: Isa, const V: usize, const R: usize, const DOWN: usize, const ALONG: usize>(
        &self,
        i: usize,
        finish: Finish<'_>,
        at: Panel,
        out: &mut [f32],
    ) {
        let Panel { j, width, n, k } = at;
        let (rows, first) = (R.min(self.block.count - i), self.block.first + i);
        let place = |r: usize| (first + r) * n + j;
        // The next tile's part of the result, while this one's sums run.
        for r in R..2 * R {
            prefetch(out, place(r));
            prefetch(out, place(r) + LINE);
        }
        let mut sums = [[I::splat(0.0); V]; R];
        if self.part.first > 0 {
            for (r, sums) in sums.iter_mut().enumerate().take(rows) {
                *sums = registers::<I, V>(&out[place(r)..][..width]);
            }
        } else if let Some(bias) = finish.bias {
            sums = [registers::<I, V>(&bias[j..j + width]); R];
        }
        sums = self.sums::<I, V, R, DOWN, ALONG>(i / R, sums);
        let last = self.part.first + self.part.count == k;
        for (r, row) in sums.into_iter().enumerate().take(rows) {
            let row = if last { finished::<I, V>(row, finish, place(r), width) } else { row };
            put::<I, V>(row, &mut out[place(r)..][..width]);
        }
    }

    /// `sums` plus this part's for tile `t`.
    #[inline(always)]
    fn sums<I: Isa, const V: usize, const R: usize, const DOWN: usize, const ALONG: usize>(
        &self,
        t: usize,
        mut sums: [[I::Vector; V]; R],
    ) -> [[I::Vector; V]; R] {
        let count = self.part.count;
        // One check for the whole loop.
        let rows = &self.rows[t * self.tile..][..(R - 1) * DOWN + (count - 1) * ALONG + 1];
        let panel = &self.panel[..(count - 1) * self.wide + V * I::LANES];
        let wide = if V == I::WIDE { V * I::LANES } else { self.wide };
        let (mut row, mut column) = (rows.as_ptr(), panel.as_ptr());
        for _ in 0..count {
            // SAFETY: the largest indices, those of r = R - 1 and v = V - 1 in the last round, were checked above.
            #[allow(unsafe_code)]
            unsafe {
                multiply::<I, V, R>(&mut sums, column, |r| *row.add(r * DOWN))
            };
            row = row.wrapping_add(ALONG);
            column = column.wrapping_add(wide);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matmul::small;
    use crate::simd::simd;
    use oto_graph::Activation;

    simd! {
        fn in_blocks(
            a: Side<'_>, b: Side<'_>, finish: Finish<'_>, n: usize, k: usize, out: &mut [f32], scratch: &mut Scratch,
        ) = product
    }
    simd! {
        fn at_once(
            a: Side<'_>, b: Side<'_>, finish: Finish<'_>, n: usize, k: usize, out: &mut [f32], scratch: &mut Scratch,
        ) = small
    }

    /// Numbers between -0.5 and 0.5.
    fn some(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed) % 1009) as f32 / 1009.0 - 0.5).collect()
    }

    type Product = fn(Side<'_>, Side<'_>, Finish<'_>, usize, usize, &mut [f32], &mut Scratch);

    /// Both ways must give the same bits.
    fn compare(ways: [Product; 2], [m, n, k]: [usize; 3], (ta, tb): (bool, bool)) {
        let (mut a, b, bias, y) = (some(m * k, 1), some(k * n, 2), some(n, 3), some(m * n, 4));
        a[m * k / 2] = f32::NAN;
        let a = Side { values: &a, columns: if ta { m } else { k }, turned: ta };
        let b = Side { values: &b, columns: if tb { k } else { n }, turned: tb };
        let plain = Finish { bias: None, activation: Activation::Identity, derivative: None };
        let all = Finish {
            bias: Some(&bias),
            activation: Activation::Relu,
            derivative: Some((Activation::Relu, &y)),
        };
        for finish in [plain, all] {
            let [blocks, once] = ways.map(|way| {
                let mut out = vec![7.0; m * n];
                way(a, b, finish, n, k, &mut out, &mut Scratch::default());
                out.iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect::<Vec<_>>()
            });
            assert!(blocks == once, "{m} {n} {k} {ta} {tb} {:?}", finish.activation);
        }
    }

    #[test]
    fn blocks_change_no_bit() {
        let shapes =
            [[64, 64, 64], [37, 45, 300], [33, 1030, 20], [1000, 33, 17], [8, 16, 513], [5, 3, 2], [1, 1, 1]];
        for shape in shapes {
            for turned in [(false, false), (false, true), (true, false), (true, true)] {
                compare([in_blocks, at_once], shape, turned);
                compare([product::<Plain>, small::<Plain>], shape, turned);
                #[cfg(target_arch = "x86_64")]
                if crate::simd::level() != crate::simd::Level::Plain {
                    compare([avx2::<true>, avx2::<false>], shape, turned);
                }
            }
        }
    }

    /// The kernels of AVX2: in blocks or at once.
    #[cfg(target_arch = "x86_64")]
    fn avx2<const BLOCKS: bool>(
        a: Side<'_>,
        b: Side<'_>,
        finish: Finish<'_>,
        n: usize,
        k: usize,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) {
        #[target_feature(enable = "avx2,fma")]
        fn run<const BLOCKS: bool>(
            (a, b): (Side<'_>, Side<'_>),
            finish: Finish<'_>,
            (n, k): (usize, usize),
            out: &mut [f32],
            scratch: &mut Scratch,
        ) {
            match BLOCKS {
                true => product::<crate::simd::Avx2>(a, b, finish, n, k, out, scratch),
                false => small::<crate::simd::Avx2>(a, b, finish, n, k, out, scratch),
            }
        }
        // SAFETY: the test asked the processor.
        #[allow(unsafe_code)]
        unsafe {
            run::<BLOCKS>((a, b), finish, (n, k), out, scratch)
        }
    }

    #[test]
    fn memory_is_known_beforehand() {
        for [m, n, k] in [[32, 32, 1024], [255, 256, 257], [1024, 1024, 1024], [961, 1025, 256]] {
            let mut scratch = Scratch::default();
            scratch.grow(m, n, k);
            let before = scratch.len();
            for ta in [false, true] {
                let (a, b, mut out) = (some(m * k, 1), some(k * n, 2), vec![0.0; m * n]);
                let a = Side { values: &a, columns: if ta { m } else { k }, turned: ta };
                let b = Side { values: &b, columns: n, turned: false };
                let finish = Finish { bias: None, activation: Activation::Identity, derivative: None };
                crate::matmul::matmul(a, b, finish, n, k, &mut out, &mut scratch);
            }
            assert_eq!(scratch.len(), before, "{m} {n} {k}");
        }
    }
}
