//! Matrix products: the small sizes that students have here, large ones in `blocked`. A tile of the result stays in registers while the sums run; what
//! surrounds the product (bias, activation, the activation's derivative) happens when the tile is written.

use crate::blocked;
use crate::math;
use crate::simd::{self, Isa, simd};
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

#[cfg(not(target_family = "wasm"))]
impl Side<'_> {
    /// The left side without its first rows.
    pub(crate) fn skip_rows(self, row: usize) -> Self {
        let first = if self.turned { row } else { row * self.columns };
        Side { values: &self.values[first..], ..self }
    }

    /// The right side without its first columns.
    pub(crate) fn skip_columns(self, column: usize) -> Self {
        self.turn().skip_rows(column).turn()
    }

    fn turn(self) -> Self {
        Side { turned: !self.turned, ..self }
    }
}

/// What happens to a sum: with ReLU before it is written, with tanh when all are.
#[derive(Clone, Copy)]
pub struct Finish<'a> {
    /// Added to each row, `[n]`.
    pub bias: Option<&'a [f32]>,
    /// What follows.
    pub activation: Activation,
    /// Times the derivative of the activation whose output this is, `[m, n]`.
    pub derivative: Option<(Activation, &'a [f32])>,
}

#[cfg(not(target_family = "wasm"))]
impl Finish<'_> {
    /// The same for a result without its first numbers, which are whole rows.
    pub(crate) fn skip(self, first: usize) -> Self {
        Finish { derivative: self.derivative.map(|(activation, y)| (activation, &y[first..])), ..self }
    }

    /// The same for `width` columns of a result without a derivative.
    pub(crate) fn skip_columns(self, column: usize, width: usize) -> Self {
        Finish { bias: self.bias.map(|bias| &bias[column..column + width]), ..self }
    }
}

/// Memory for packed lines of products; it grows to what the largest one needs.
#[derive(Default)]
pub struct Scratch {
    rows: Vec<f32>,
    columns: Vec<f32>,
}

impl Scratch {
    /// Makes space for a product `[m, n]` with sums of length `k`, if it is one in blocks.
    pub(crate) fn grow(&mut self, m: usize, n: usize, k: usize) {
        let (rows, columns) = blocked::packed(m, n, k);
        self.packed(rows, columns);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.rows.len(), self.columns.len())
    }

    /// Memory for packed rows and packed columns, which begins at a line of the cache.
    pub(crate) fn packed(&mut self, rows: usize, columns: usize) -> (&mut [f32], &mut [f32]) {
        (aligned(&mut self.rows, rows), aligned(&mut self.columns, columns))
    }
}

/// Bytes of a line of the cache.
const LINE: usize = 64;

fn aligned(memory: &mut Vec<f32>, len: usize) -> &mut [f32] {
    grown(memory, len + LINE / size_of::<f32>());
    let skipped = memory.as_ptr().align_offset(LINE).min(LINE / size_of::<f32>());
    &mut memory[skipped..skipped + len]
}

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

/// What the sums run along: rows of the left side, columns of the right one. One of the two distances is 1, unless they are
/// [`PACKED`].
#[derive(Clone, Copy)]
struct Lines<'a> {
    values: &'a [f32],
    /// From a line to the next.
    down: usize,
    /// From a number of a line to the next.
    along: usize,
}

impl<'a> Lines<'a> {
    fn rows(Side { values, columns, turned }: Side<'a>) -> Self {
        let (down, along) = if turned { (1, columns) } else { (columns, 1) };
        Self { values, down, along }
    }

    fn columns(side: Side<'a>) -> Self {
        Self::rows(Side { turned: !side.turned, ..side })
    }

    fn from(self, line: usize) -> Self {
        Self { values: &self.values[line * self.down..], ..self }
    }
}

/// In place of a distance: lines lie in blocks, as [`pack_rows`] puts them.
const PACKED: usize = 0;

/// From a row to the next, in numbers (measured in Chromium).
const NEAR: usize = 64;

/// Columns `j..j + width` of the result, whose rows have `n` and whose sums `k` numbers.
#[derive(Clone, Copy)]
pub(crate) struct Panel {
    pub j: usize,
    pub width: usize,
    pub n: usize,
    pub k: usize,
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
    match blocked::pays(out.len() / n, n, k, b.turned) {
        true => blocked::product::<I>(a, b, finish, n, k, out, scratch),
        false => small::<I>(a, b, finish, n, k, out, scratch),
    }
    if finish.activation == Activation::Tanh {
        out.iter_mut().for_each(|s| *s = math::tanh::<I>(*s));
    }
    if let Some((Activation::Tanh, y)) = finish.derivative {
        out.iter_mut().zip(y).for_each(|(s, y)| *s *= 1.0 - y * y);
    }
}

/// `out = finish(a b)` of small sides, most of which are read where they lie, without tanh and its derivative.
#[inline(always)]
pub(crate) fn small<I: Isa>(
    a: Side<'_>,
    b: Side<'_>,
    finish: Finish<'_>,
    n: usize,
    k: usize,
    out: &mut [f32],
    Scratch { rows, columns }: &mut Scratch,
) {
    let (mut a, b) = (Lines::rows(a), Lines::columns(b));
    if I::PACKS && a.down != 1 {
        let m = out.len() / n;
        pack_rows::<I>(a, m, k, grown(rows, m * k));
        a = Lines { values: rows, down: k, along: PACKED };
    }
    let mut j = 0;
    // Wide panels first, then one that is narrower if that is enough; what is missing in it is filled up with zeros.
    while j < n {
        let left = n - j;
        let at = |most: usize| Panel { j, width: left.min(most), n, k };
        j += match left {
            _ if left <= I::LANES => panel::<I, 1>(a, b, finish, at(left), out, columns),
            _ if I::WIDE > 2 && left > 2 * I::LANES => {
                panel::<I, 3>(a, b, finish, at(3 * I::LANES), out, columns)
            }
            _ => panel::<I, 2>(a, b, finish, at(2 * I::LANES), out, columns),
        };
    }
}

/// How many rows a tile takes where so many are left.
#[inline(always)]
fn height<I: Isa>(left: usize) -> usize {
    match left {
        8.. if I::ROWS >= 8 => 8,
        // Two blocks of four are better than six and two.
        6.. if I::ROWS >= 6 && left != 8 => 6,
        5.. if I::ROWS == 5 => 5,
        4.. => 4,
        2.. => 2,
        _ => 1,
    }
}

/// A panel `V` registers wide.
#[inline(always)]
fn panel<I: Isa, const V: usize>(
    a: Lines<'_>,
    b: Lines<'_>,
    finish: Finish<'_>,
    at: Panel,
    out: &mut [f32],
    memory: &mut Vec<f32>,
) -> usize {
    let wide = V * I::LANES;
    let b = b.from(at.j);
    // In place where a row of the panel lies side by side, else packed so. Narrow registers come by so often that rows far
    // apart, which share few lines of the cache, are better packed, too.
    let near = !I::PACKS || b.along <= NEAR;
    let columns = if near && b.down == 1 && at.width == wide {
        b
    } else {
        let memory = grown(memory, at.k * wide);
        pack(b, at.width, wide, memory);
        Lines { values: memory, down: 1, along: wide }
    };
    let m = out.len() / at.n;
    let mut i = 0;
    while i < m {
        i += match height::<I>(m - i) {
            8 => tile::<I, V, 8>(a, columns, finish, i, at, out),
            6 => tile::<I, V, 6>(a, columns, finish, i, at, out),
            5 => tile::<I, V, 5>(a, columns, finish, i, at, out),
            4 => tile::<I, V, 4>(a, columns, finish, i, at, out),
            2 => tile::<I, V, 2>(a, columns, finish, i, at, out),
            _ => tile::<I, V, 1>(a, columns, finish, i, at, out),
        };
    }
    at.width
}

fn grown(memory: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if memory.len() < len {
        memory.resize(len, 0.0);
    }
    &mut memory[..len]
}

/// All rows in the blocks that tiles take.
#[inline(always)]
fn pack_rows<I: Isa>(a: Lines<'_>, m: usize, k: usize, memory: &mut [f32]) {
    let mut i = 0;
    while i < m {
        let count = height::<I>(m - i);
        pack(a.from(i), count, count, &mut memory[i * k..(i + count) * k]);
        i += count;
    }
}

/// The first `count` lines side by side: one number of each, then the next of each, `wide` apart and filled up with zeros.
#[cfg_attr(target_arch = "wasm32", inline(never))]
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
fn pack(lines: Lines<'_>, count: usize, wide: usize, memory: &mut [f32]) {
    let Lines { values, down, along } = lines;
    if count < wide {
        memory.fill(0.0);
    }
    if down == 1 {
        for (p, to) in memory.chunks_exact_mut(wide).enumerate() {
            simd::copy(&values[p * along..][..count], &mut to[..count]);
        }
        return;
    }
    let k = memory.len() / wide;
    let line = |c: usize| &values[c * down..][..k];
    let mut c = 0;
    while c + 4 <= count {
        transpose(std::array::from_fn(|i| line(c + i)), &mut memory[c..], wide);
        c += 4;
    }
    for c in c..count {
        memory[c..].iter_mut().step_by(wide).zip(line(c)).for_each(|(to, x)| *to = *x);
    }
}

/// Four lines side by side, `wide` apart.
#[inline(always)]
fn transpose(lines: [&[f32]; 4], memory: &mut [f32], wide: usize) {
    let k = lines[0].len();
    assert!(lines.iter().all(|line| line.len() == k) && memory.len() >= (k - 1) * wide + 4);
    let squares = k / 4;
    let (mut from, mut to) = (lines.map(<[f32]>::as_ptr), memory.as_mut_ptr());
    for _ in 0..squares {
        // SAFETY: whole squares fit into both, as was just checked.
        #[allow(unsafe_code)]
        unsafe {
            simd::transpose_square(from, to, wide)
        };
        from = from.map(|x| x.wrapping_add(4));
        to = to.wrapping_add(4 * wide);
    }
    for p in 4 * squares..k {
        memory[p * wide..][..4].copy_from_slice(&lines.map(|line| line[p]));
    }
}

/// `R` rows from row `i` of a panel.
///
/// In wasm it is a function of its own: inside a large one a browser's compiler keeps the sums in memory.
#[cfg_attr(target_arch = "wasm32", inline(never), target_feature(enable = "relaxed-simd"))]
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
fn tile<I: Isa, const V: usize, const R: usize>(
    a: Lines<'_>,
    columns: Lines<'_>,
    finish: Finish<'_>,
    i: usize,
    at: Panel,
    out: &mut [f32],
) -> usize {
    let Panel { j, width, n, k } = at;
    let first = finish.bias.map_or([I::splat(0.0); V], |bias| registers::<I, V>(&bias[j..j + width]));
    let sums = sums::<I, V, R>(first, a.from(i), columns, k);
    for (r, row) in sums.into_iter().enumerate() {
        let from = (i + r) * n + j;
        put::<I, V>(finished::<I, V>(row, finish, from, width), &mut out[from..from + width]);
    }
    R
}

/// `width` sums that belong at `from`, after ReLU and ReLU's derivative.
#[inline(always)]
pub(crate) fn finished<I: Isa, const V: usize>(
    mut row: [I::Vector; V],
    finish: Finish<'_>,
    from: usize,
    width: usize,
) -> [I::Vector; V] {
    if finish.activation == Activation::Relu {
        row = row.map(|s| I::max(s, I::splat(0.0)));
    }
    if let Some((Activation::Relu, y)) = finish.derivative {
        let y = registers::<I, V>(&y[from..from + width]);
        row = std::array::from_fn(|v| I::where_positive(y[v], row[v]));
    }
    row
}

/// `first` plus the sums for the first `R` of `rows`.
#[inline(always)]
fn sums<I: Isa, const V: usize, const R: usize>(
    first: [I::Vector; V],
    rows: Lines<'_>,
    columns: Lines<'_>,
    k: usize,
) -> [[I::Vector; V]; R] {
    let mut sums = [first; R];
    // Packed or read transposed, rows lie side by side: in wasm a constant distance costs nothing.
    let down = if I::PACKS { 1 } else { rows.down };
    let (step, stride) = (if rows.along == PACKED { R } else { rows.along }, columns.along);
    // Checked here once, so that the loop need not: R rows, all k columns.
    let rows = &rows.values[..(R - 1) * down + (k - 1) * step + 1];
    let columns = &columns.values[..(k - 1) * stride + V * I::LANES];
    // As numbers: of a pointer that advances by a variable the compiler forgets that its other offsets are constant.
    let (mut row, mut column) = (rows.as_ptr().expose_provenance(), columns.as_ptr().expose_provenance());
    for _ in 0..k {
        // SAFETY: the largest index of each slice is the one checked above, with r = R - 1, the last round and v = V - 1.
        #[allow(unsafe_code)]
        unsafe {
            let at = std::ptr::with_exposed_provenance::<f32>(row);
            multiply::<I, V, R>(&mut sums, std::ptr::with_exposed_provenance(column), |r| *at.add(r * down))
        };
        row += step * size_of::<f32>();
        column += stride * size_of::<f32>();
    }
    sums
}

/// Numbers in registers; where there are fewer, the rest is 0.
#[inline(always)]
pub(crate) fn registers<I: Isa, const V: usize>(x: &[f32]) -> [I::Vector; V] {
    if x.len() < V * I::LANES {
        return registers_of_few::<I, V>(x);
    }
    // SAFETY: `x` has as many numbers as the registers.
    #[allow(unsafe_code)]
    std::array::from_fn(|v| unsafe { I::load(x.as_ptr().add(v * I::LANES)) })
}

/// The other way: as many numbers as `out` has.
#[inline(always)]
pub(crate) fn put<I: Isa, const V: usize>(row: [I::Vector; V], out: &mut [f32]) {
    if out.len() < V * I::LANES {
        return put_few::<I, V>(row, out);
    }
    row.iter().enumerate().for_each(|(v, s)| I::store(*s, &mut out[v * I::LANES..]));
}

/// Room for the widest row of registers there is.
const WIDEST: usize = 32;

#[cfg_attr(target_arch = "wasm32", inline(never))]
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
fn registers_of_few<I: Isa, const V: usize>(x: &[f32]) -> [I::Vector; V] {
    let mut memory = [0.0f32; WIDEST];
    memory[..x.len()].copy_from_slice(x);
    registers::<I, V>(&memory)
}

#[cfg_attr(target_arch = "wasm32", inline(never))]
#[cfg_attr(not(target_arch = "wasm32"), inline(always))]
fn put_few<I: Isa, const V: usize>(row: [I::Vector; V], out: &mut [f32]) {
    let mut memory = [0.0f32; WIDEST];
    put::<I, V>(row, &mut memory);
    out.copy_from_slice(&memory[..out.len()]);
}

/// Adds the products of a row of `columns` with one number for each row of sums.
///
/// # Safety
/// `V` registers' worth of numbers must lie at `columns`, and `x` must be sound for each row.
#[allow(unsafe_code)]
#[inline(always)]
pub(crate) unsafe fn multiply<I: Isa, const V: usize, const R: usize>(
    sums: &mut [[I::Vector; V]; R],
    columns: *const f32,
    x: impl Fn(usize) -> f32,
) {
    // SAFETY: the caller's.
    let row: [I::Vector; V] = std::array::from_fn(|v| unsafe { I::load(columns.add(v * I::LANES)) });
    for (r, sums) in sums.iter_mut().enumerate() {
        let x = I::splat(x(r));
        for (sum, b) in sums.iter_mut().zip(row) {
            *sum = I::fma_each(x, b, *sum);
        }
    }
}
