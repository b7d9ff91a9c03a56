//! Loops over panels: a panel holds some features of `C` samples as `[features][C]`, so that a vector instruction does the
//! same for `C` samples at once (`C` is two vectors). Each loop is written once and compiled for every level of instructions, with tiles of
//! `R` rows of `C` numbers that just fit its registers.

use crate::vector::{Vector, load, mul_add, splat, store};

/// Which instructions the loops may use. Made by [`Level::best`] only, which asks the processor first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What every processor of the target has (in wasm: simd128 if the build says so, and relaxed multiply-adds).
    Plain,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512F.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// All levels that this processor has, the widest last.
    pub fn all() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut levels = vec![Self::Plain];
        #[cfg(target_arch = "x86_64")]
        if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
            levels.push(Self::Avx2);
            if std::is_x86_feature_detected!("avx512f") {
                levels.push(Self::Avx512);
            }
        }
        levels
    }

    /// The widest.
    pub fn best() -> Self {
        Self::all().last().copied().unwrap_or(Self::Plain)
    }

    /// Rows and columns of its register tile.
    pub fn tile(self) -> (usize, usize) {
        match self {
            Self::Plain => PLAIN,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => AVX2,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => AVX512,
        }
    }

    /// Samples in a panel.
    pub fn lanes(self) -> usize {
        self.tile().1
    }

    /// From how many quantiles on sorting is faster than visiting every pair: measured, on a Xeon of the Skylake
    /// generation; wide vectors visit faster, and sorting gains little from them.
    pub fn sorts_from(self) -> usize {
        match self {
            Self::Plain => 64,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => 160,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => 300,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
        }
    }
}

/// Rows and columns of a register tile. 16 vector registers of 4 numbers:
pub const PLAIN: (usize, usize) = (4, 8);
/// 16 registers of 8 numbers.
#[cfg(target_arch = "x86_64")]
pub const AVX2: (usize, usize) = (6, 16);
/// 32 registers of 16 numbers.
#[cfg(target_arch = "x86_64")]
pub const AVX512: (usize, usize) = (8, 32);

/// Compiles `$body::<V, R, C>` for each level and chooses at run time.
macro_rules! kernel {
    ($name:ident = $body:ident; $($arg:ident: $type:ty),* $(,)?) => {
        #[allow(clippy::too_many_arguments)]
        pub fn $name(level: $crate::kernels::Level, $($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            #[allow(clippy::too_many_arguments)]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $type),*) {
                $body::<$crate::vector::Wide, { $crate::kernels::AVX2.0 }, { $crate::kernels::AVX2.1 }>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[allow(clippy::too_many_arguments)]
            #[target_feature(enable = "avx2,fma,avx512f")]
            fn avx512($($arg: $type),*) {
                $body::<$crate::vector::Widest, { $crate::kernels::AVX512.0 }, { $crate::kernels::AVX512.1 }>($($arg),*)
            }
            #[allow(clippy::too_many_arguments)]
            #[cfg_attr(target_arch = "wasm32", target_feature(enable = "relaxed-simd"))]
            fn plain($($arg: $type),*) {
                $body::<$crate::vector::Narrow, { $crate::kernels::PLAIN.0 }, { $crate::kernels::PLAIN.1 }>($($arg),*)
            }
            match level {
                $crate::kernels::Level::Plain => plain($($arg),*),
                // SAFETY: this level exists only where the processor has these instructions.
                #[cfg(target_arch = "x86_64")]
                #[allow(unsafe_code)]
                $crate::kernels::Level::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                #[allow(unsafe_code)]
                $crate::kernels::Level::Avx512 => unsafe { avx512($($arg),*) },
            }
        }
    };
}
pub(crate) use kernel;

kernel!(forward = forward_body; weight: &[f32], bias: &[f32], relu: bool, x: &[f32], y: &mut [f32]);
kernel!(backward = backward_body; weight: &[f32], g: &[f32], y: &[f32], dx: &mut [f32]);
kernel!(weight_gradient = weight_gradient_body; g: &[f32], outputs: usize, x: &[f32], rows: &[f32], dw: &mut [f32], db: &mut [f32]);
kernel!(to_rows = to_rows_body; x: &[f32], rows: &mut [f32]);
kernel!(to_panel = to_panel_body; rows: &[f32], x: &mut [f32]);
kernel!(means = means_body; y: &[f32], group: usize, out: &mut [f32]);
kernel!(choose = choose_body; y: &[f32], group: usize, index: &[f32], out: &mut [f32]);
kernel!(bellman = bellman_body; reward: &[f32], discount: &[f32], next: &mut [f32]);
kernel!(spread = spread_body; every: &[f32], index: &[f32], chosen: &[f32], scale: f32, out: &mut [f32]);
kernel!(adam = adam_body; p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], step: AdamStep);
kernel!(multiply_add_loop = multiply_add_loop_body; rounds: u32, out: &mut f32);
kernel!(polyak = polyak_body; target: &mut [f32], p: &[f32], tau: f32);

/// A panel as rows of `C` samples.
#[inline(always)]
pub fn panel<const C: usize>(x: &[f32]) -> &[[f32; C]] {
    x.as_chunks::<C>().0
}

#[inline(always)]
pub fn panel_mut<const C: usize>(x: &mut [f32]) -> &mut [[f32; C]] {
    x.as_chunks_mut::<C>().0
}

/// `y = weight x + bias`, then ReLU if asked: weight `[O, I]`, x `[I][C]`, y `[O][C]`.
#[inline(always)]
fn forward_body<V: Vector, const R: usize, const C: usize>(
    weight: &[f32],
    bias: &[f32],
    relu: bool,
    x: &[f32],
    y: &mut [f32],
) {
    let (x, y) = (panel::<C>(x), panel_mut::<C>(y));
    let done = forward_tiles::<V, R, C>(0, weight, bias, relu, x, y);
    let done = forward_tiles::<V, 2, C>(done, weight, bias, relu, x, y);
    forward_tiles::<V, 1, C>(done, weight, bias, relu, x, y);
}

#[inline(always)]
fn forward_tiles<V: Vector, const R: usize, const C: usize>(
    mut row: usize,
    weight: &[f32],
    bias: &[f32],
    relu: bool,
    x: &[[f32; C]],
    y: &mut [[f32; C]],
) -> usize {
    let inputs = x.len();
    while row + R <= y.len() {
        let weights: [&[f32]; R] = std::array::from_fn(|r| &weight[(row + r) * inputs..][..inputs]);
        let mut sums: [_; R] = std::array::from_fn(|r| splat::<V>(bias[row + r]));
        for p in 0..inputs {
            let x = load::<V>(&x[p]);
            for r in 0..R {
                sums[r] = mul_add(V::splat(weights[r][p]), x, sums[r]);
            }
        }
        for r in 0..R {
            let floor = V::splat(if relu { 0.0 } else { f32::NEG_INFINITY });
            store(sums[r].map(|s| s.max(floor)), &mut y[row + r]);
        }
        row += R;
    }
    row
}

/// `dx = weight^T g` where `y > 0`, else 0: weight `[O, I]`, g `[O][C]`, y and dx `[I][C]`.
#[inline(always)]
fn backward_body<V: Vector, const R: usize, const C: usize>(
    weight: &[f32],
    g: &[f32],
    y: &[f32],
    dx: &mut [f32],
) {
    let (g, y, dx) = (panel::<C>(g), panel::<C>(y), panel_mut::<C>(dx));
    let done = backward_tiles::<V, R, C>(0, weight, g, y, dx);
    let done = backward_tiles::<V, 2, C>(done, weight, g, y, dx);
    backward_tiles::<V, 1, C>(done, weight, g, y, dx);
}

#[inline(always)]
fn backward_tiles<V: Vector, const R: usize, const C: usize>(
    mut row: usize,
    weight: &[f32],
    g: &[[f32; C]],
    y: &[[f32; C]],
    dx: &mut [[f32; C]],
) -> usize {
    let inputs = dx.len();
    while row + R <= inputs {
        let mut sums = [splat::<V>(0.0); R];
        for (weights, g) in weight.chunks_exact(inputs).zip(g) {
            let (weights, g) = (&weights[row..row + R], load::<V>(g));
            for r in 0..R {
                sums[r] = mul_add(V::splat(weights[r]), g, sums[r]);
            }
        }
        for r in 0..R {
            let (dx, y) = (&mut dx[row + r], &y[row + r]);
            store(sums[r], dx);
            for c in 0..C {
                dx[c] = if y[c] > 0.0 { dx[c] } else { 0.0 };
            }
        }
        row += R;
    }
    row
}

/// Sums over all samples: `dw = g x^T`, `db = g 1`. g `[panels][O][C]`; x twice: `[panels][I][C]` and as `rows` `[samples][I]`.
#[inline(always)]
fn weight_gradient_body<V: Vector, const R: usize, const C: usize>(
    g: &[f32],
    outputs: usize,
    x: &[f32],
    rows: &[f32],
    dw: &mut [f32],
    db: &mut [f32],
) {
    let (g, x) = (panel::<C>(g), panel::<C>(x));
    let done = gradient_tiles::<V, R, C>(0, g, outputs, rows, dw);
    let done = gradient_tiles::<V, 2, C>(done, g, outputs, rows, dw);
    gradient_tiles::<V, 1, C>(done, g, outputs, rows, dw);
    narrow_gradient::<V, C>(g, outputs, x, dw);
    for (o, db) in db.iter_mut().enumerate() {
        let mut sums = splat::<V>(0.0);
        for g in g.chunks_exact(outputs) {
            let g = load::<V>(&g[o]);
            sums = [sums[0].add(g[0]), sums[1].add(g[1])];
        }
        *db = total::<V, C>(sums);
    }
}

/// The columns of `dw` that fill whole tiles.
#[inline(always)]
fn gradient_tiles<V: Vector, const R: usize, const C: usize>(
    mut o: usize,
    g: &[[f32; C]],
    outputs: usize,
    rows: &[f32],
    dw: &mut [f32],
) -> usize {
    let inputs = dw.len() / outputs;
    while o + R <= outputs {
        for j in (0..inputs / C * C).step_by(C) {
            let mut sums = [splat::<V>(0.0); R];
            for (g, rows) in g.chunks_exact(outputs).zip(rows.chunks_exact(C * inputs)) {
                let g = &g[o..o + R];
                for lane in 0..C {
                    let row = load::<V>(&rows[lane * inputs + j..][..C]);
                    for r in 0..R {
                        sums[r] = mul_add(V::splat(g[r][lane]), row, sums[r]);
                    }
                }
            }
            for r in 0..R {
                store(sums[r], &mut dw[(o + r) * inputs + j..][..C]);
            }
        }
        o += R;
    }
    o
}

/// The sum of a row: halves added to each other, because a chain of additions waits for each one.
#[inline(always)]
fn total<V: Vector, const C: usize>(row: [V; 2]) -> f32 {
    let mut numbers = [0.0; C];
    row[0].add(row[1]).store(&mut numbers);
    let mut width = V::LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            numbers[i] += numbers[i + width];
        }
    }
    numbers[0]
}

/// The columns that are left, as sums along the samples.
#[inline(always)]
fn narrow_gradient<V: Vector, const C: usize>(
    g: &[[f32; C]],
    outputs: usize,
    x: &[[f32; C]],
    dw: &mut [f32],
) {
    let inputs = dw.len() / outputs;
    for o in 0..outputs {
        for i in inputs / C * C..inputs {
            let mut sums = splat::<V>(0.0);
            for (g, x) in g.chunks_exact(outputs).zip(x.chunks_exact(inputs)) {
                let (g, x) = (load::<V>(&g[o]), load::<V>(&x[i]));
                sums = [g[0].mul_add(x[0], sums[0]), g[1].mul_add(x[1], sums[1])];
            }
            dw[o * inputs + i] = total::<V, C>(sums);
        }
    }
}

/// `[I][C]` to `[C][I]`.
#[inline(always)]
fn to_rows_body<V: Vector, const R: usize, const C: usize>(x: &[f32], rows: &mut [f32]) {
    let x = panel::<C>(x);
    for (lane, row) in rows.chunks_exact_mut(x.len()).enumerate().take(C) {
        for (to, from) in row.iter_mut().zip(x) {
            *to = from[lane];
        }
    }
}

/// `[C][I]` to `[I][C]`.
#[inline(always)]
fn to_panel_body<V: Vector, const R: usize, const C: usize>(rows: &[f32], x: &mut [f32]) {
    let x = panel_mut::<C>(x);
    for (lane, row) in rows.chunks_exact(x.len()).enumerate().take(C) {
        for (to, from) in x.iter_mut().zip(row) {
            to[lane] = *from;
        }
    }
}

/// Means of `group` rows each: y `[A * group][C]`, out `[A][C]`.
#[inline(always)]
fn means_body<V: Vector, const R: usize, const C: usize>(y: &[f32], group: usize, out: &mut [f32]) {
    for (rows, out) in panel::<C>(y).chunks_exact(group).zip(panel_mut::<C>(out)) {
        let mut sums = splat::<V>(0.0);
        for row in rows {
            let row = load::<V>(row);
            sums = [sums[0].add(row[0]), sums[1].add(row[1])];
        }
        store(sums, out);
        out.iter_mut().for_each(|s| *s *= 1.0 / group as f32);
    }
}

/// For each sample the group that its index names: y `[A * group][C]`, index `[C]`, out `[group][C]`.
#[inline(always)]
fn choose_body<V: Vector, const R: usize, const C: usize>(
    y: &[f32],
    group: usize,
    index: &[f32],
    out: &mut [f32],
) {
    let (index, out) = (panel::<C>(index)[0], panel_mut::<C>(out));
    for (a, rows) in panel::<C>(y).chunks_exact(group).enumerate() {
        for (out, row) in out.iter_mut().zip(rows) {
            for c in 0..C {
                out[c] = if index[c] == a as f32 { row[c] } else { out[c] };
            }
        }
    }
}

/// `next = reward + discount next` for every quantile.
#[inline(always)]
fn bellman_body<V: Vector, const R: usize, const C: usize>(
    reward: &[f32],
    discount: &[f32],
    next: &mut [f32],
) {
    let (reward, discount) = (panel::<C>(reward)[0], panel::<C>(discount)[0]);
    for row in panel_mut::<C>(next) {
        for c in 0..C {
            row[c] = reward[c] + discount[c] * row[c];
        }
    }
}

/// The adjoint of means and choice: `every[a]` to each of a group's rows, and `scale chosen` to the group that was chosen.
#[inline(always)]
fn spread_body<V: Vector, const R: usize, const C: usize>(
    every: &[f32],
    index: &[f32],
    chosen: &[f32],
    scale: f32,
    out: &mut [f32],
) {
    let (index, chosen) = (panel::<C>(index)[0], panel::<C>(chosen));
    let groups = panel_mut::<C>(out).chunks_exact_mut(chosen.len());
    for ((a, rows), every) in groups.enumerate().zip(panel::<C>(every)) {
        for (row, chosen) in rows.iter_mut().zip(chosen) {
            for c in 0..C {
                let own = if index[c] == a as f32 { chosen[c] } else { 0.0 };
                row[c] = every[c] + scale * own;
            }
        }
    }
}

/// Adam's constants and this step's scales.
#[derive(Clone, Copy)]
pub struct AdamStep {
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
    /// `lr / (1 - beta1^t)`.
    pub size: f32,
    /// `1 / sqrt(1 - beta2^t)`.
    pub scale: f32,
}

/// One step of Adam, moments included (Kingma and Ba 2015, algorithm 1).
#[inline(always)]
fn adam_body<V: Vector, const R: usize, const C: usize>(
    p: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
    g: &[f32],
    s: AdamStep,
) {
    let moments = m.iter_mut().zip(v);
    for ((p, (m, v)), g) in p.iter_mut().zip(moments).zip(g) {
        // Numbers that are too small for the processor's fast path become 0.
        let normal = |x: f32| if x.abs() < f32::MIN_POSITIVE { 0.0 } else { x };
        let seen = if g.abs() < 1.1e-19 { 0.0 } else { *g };
        *m = normal(s.beta1 * *m + (1.0 - s.beta1) * g);
        *v = normal(s.beta2 * *v + (1.0 - s.beta2) * seen * seen);
        *p -= s.size * *m / (v.sqrt() * s.scale + s.epsilon);
    }
}

#[inline(always)]
fn polyak_body<V: Vector, const R: usize, const C: usize>(target: &mut [f32], p: &[f32], tau: f32) {
    for (target, p) in target.iter_mut().zip(p) {
        *target += tau * (p - *target);
    }
}

/// `2 R C` floating-point operations a round, on registers alone: what [`Level::tile`] is for.
#[inline(always)]
fn multiply_add_loop_body<V: Vector, const R: usize, const C: usize>(rounds: u32, out: &mut f32) {
    // Values settle at 1, so that none becomes subnormal.
    let (keep, add) = (std::hint::black_box(0.75f32), std::hint::black_box(0.25f32));
    let (keep, add) = (V::splat(keep), V::splat(add));
    let mut sums = [splat::<V>(0.0); R];
    for _ in 0..rounds {
        for sums in &mut sums {
            *sums = sums.map(|s| s.mul_add(keep, add));
        }
    }
    *out = sums.into_iter().map(total::<V, C>).sum();
}
