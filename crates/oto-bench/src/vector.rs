//! The few vector operations that register tiles need, one type for each width: left to itself, the compiler splits tiles
//! of this size into single numbers.

/// Some numbers side by side.
///
/// Types wider than the target's minimum may only be used inside functions compiled for their instructions, into
/// which every method here is inlined; `kernels::Level` sees to that.
pub trait Vector: Copy {
    /// How many numbers.
    const LANES: usize;
    /// The same number everywhere.
    fn splat(x: f32) -> Self;
    /// The first [`Self::LANES`] numbers of `from`.
    fn load(from: &[f32]) -> Self;
    /// Puts them at the beginning of `to`.
    fn store(self, to: &mut [f32]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn min(self, other: Self) -> Self;
    fn max(self, other: Self) -> Self;
    /// `self * b + c`, rounded once where the processor can.
    fn mul_add(self, b: Self, c: Self) -> Self;
}

#[cfg(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128")))]
macro_rules! vector {
    ($name:ident, $lanes:literal, $splat:path, $load:path, $store:path, $add:path, $sub:path, $min:path, $max:path, $mul_add:expr) => {
        // SAFETY: loads and stores stay inside slices whose length is checked; the rest computes on registers.
        #[allow(unsafe_code, unused_unsafe)]
        impl Vector for $name {
            const LANES: usize = $lanes;
            #[inline(always)]
            fn splat(x: f32) -> Self {
                unsafe { $splat(x) }
            }
            #[inline(always)]
            fn load(from: &[f32]) -> Self {
                let from = &from[..$lanes];
                unsafe { $load(from.as_ptr().cast()) }
            }
            #[inline(always)]
            fn store(self, to: &mut [f32]) {
                let to = &mut to[..$lanes];
                unsafe { $store(to.as_mut_ptr().cast(), self) }
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                unsafe { $add(self, other) }
            }
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                unsafe { $sub(self, other) }
            }
            #[inline(always)]
            fn min(self, other: Self) -> Self {
                unsafe { $min(self, other) }
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                unsafe { $max(self, other) }
            }
            #[inline(always)]
            fn mul_add(self, b: Self, c: Self) -> Self {
                unsafe { $mul_add(self, b, c) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use std::arch::x86_64::*;

    vector!(
        __m128,
        4,
        _mm_set1_ps,
        _mm_loadu_ps,
        _mm_storeu_ps,
        _mm_add_ps,
        _mm_sub_ps,
        _mm_min_ps,
        _mm_max_ps,
        |a, b, c| _mm_add_ps(_mm_mul_ps(a, b), c)
    );
    vector!(
        __m256,
        8,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_min_ps,
        _mm256_max_ps,
        _mm256_fmadd_ps
    );
    vector!(
        __m512,
        16,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_add_ps,
        _mm512_sub_ps,
        _mm512_min_ps,
        _mm512_max_ps,
        _mm512_fmadd_ps
    );
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm {
    use super::Vector;
    use std::arch::wasm32::*;

    vector!(
        v128,
        4,
        f32x4_splat,
        v128_load,
        v128_store,
        f32x4_add,
        f32x4_sub,
        f32x4_pmin,
        f32x4_pmax,
        f32x4_relaxed_madd
    );
}

/// Four numbers on any other target, for the compiler to make vectors of.
#[cfg(not(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128"))))]
mod plain {
    use super::Vector;

    impl Vector for [f32; 4] {
        const LANES: usize = 4;
        #[inline(always)]
        fn splat(x: f32) -> Self {
            [x; 4]
        }
        #[inline(always)]
        fn load(from: &[f32]) -> Self {
            [from[0], from[1], from[2], from[3]]
        }
        #[inline(always)]
        fn store(self, to: &mut [f32]) {
            to[..4].copy_from_slice(&self);
        }
        #[inline(always)]
        fn add(self, other: Self) -> Self {
            std::array::from_fn(|i| self[i] + other[i])
        }
        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            std::array::from_fn(|i| self[i] - other[i])
        }
        #[inline(always)]
        fn min(self, other: Self) -> Self {
            std::array::from_fn(|i| self[i].min(other[i]))
        }
        #[inline(always)]
        fn max(self, other: Self) -> Self {
            std::array::from_fn(|i| self[i].max(other[i]))
        }
        #[inline(always)]
        fn mul_add(self, b: Self, c: Self) -> Self {
            // Every 64-bit ARM has fused vectors.
            let each = |i: usize| match cfg!(target_arch = "aarch64") {
                true => self[i].mul_add(b[i], c[i]),
                false => self[i] * b[i] + c[i],
            };
            std::array::from_fn(each)
        }
    }
}

/// What every processor of the target has.
#[cfg(target_arch = "x86_64")]
pub type Narrow = std::arch::x86_64::__m128;
#[cfg(target_arch = "x86_64")]
pub type Wide = std::arch::x86_64::__m256;
#[cfg(target_arch = "x86_64")]
pub type Widest = std::arch::x86_64::__m512;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub type Narrow = std::arch::wasm32::v128;
#[cfg(not(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128"))))]
pub type Narrow = [f32; 4];

/// A tile's row: two vectors.
pub type Pair<V> = [V; 2];

/// A row of `2 * V::LANES` numbers.
#[inline(always)]
pub fn load<V: Vector>(row: &[f32]) -> Pair<V> {
    [V::load(row), V::load(&row[V::LANES..])]
}

/// Puts a row back.
#[inline(always)]
pub fn store<V: Vector>(pair: Pair<V>, row: &mut [f32]) {
    pair[0].store(row);
    pair[1].store(&mut row[V::LANES..]);
}

#[inline(always)]
pub fn splat<V: Vector>(x: f32) -> Pair<V> {
    [V::splat(x); 2]
}

/// `a * b + c` for a row.
#[inline(always)]
pub fn mul_add<V: Vector>(a: V, b: Pair<V>, c: Pair<V>) -> Pair<V> {
    [a.mul_add(b[0], c[0]), a.mul_add(b[1], c[1])]
}
