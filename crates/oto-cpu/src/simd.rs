//! One source for every instruction set: kernels are written over an [`Isa`], compiled once for each set, and the best that
//! the processor has is chosen at run time. wasm has one set, chosen when it is compiled.
//!
//! Most kernels are plain loops that the compiler vectorises. Matrix products must keep their sums in registers, which it does
//! not do by itself, and so must quantile losses: they use the vectors here.

#![allow(unsafe_code)]

/// What differs between instruction sets.
pub trait Isa: Copy {
    /// A register of numbers.
    type Vector: Copy;
    /// Numbers in a register.
    const LANES: usize;
    /// Rows of a matrix product held in registers.
    const ROWS: usize;
    /// Registers beside each other in such a row.
    const WIDE: usize;
    /// Whether products read their left side packed, too: wasm's addresses have constant offsets and no more.
    const PACKS: bool = cfg!(target_arch = "wasm32");

    /// `a * b + c`, in one rounding where that is one instruction.
    fn fma(a: f32, b: f32, c: f32) -> f32;
    /// The same number in every lane.
    fn splat(x: f32) -> Self::Vector;
    /// The numbers from `x` on.
    ///
    /// # Safety
    /// A register's worth of numbers must lie there.
    unsafe fn load(x: *const f32) -> Self::Vector;
    /// Writes the first numbers of `x`, which has as many.
    fn store(v: Self::Vector, x: &mut [f32]);
    /// `a * b + c` in every lane.
    fn fma_each(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `a + b` in every lane.
    fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a - b` in every lane.
    fn sub(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The larger in every lane; NaN in `a` stays.
    fn max(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The smaller in every lane; NaN in `a` stays.
    fn min(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Without its sign, in every lane.
    fn abs(x: Self::Vector) -> Self::Vector;
    /// `x` in lanes where `y` is above 0, else 0.
    fn where_positive(y: Self::Vector, x: Self::Vector) -> Self::Vector;
    /// Four numbers from each of as many places as there are lanes, `stride` apart, transposed: the first of each, then the second of each.
    ///
    /// # Safety
    /// Four numbers must lie at each place.
    unsafe fn turned(from: *const f32, stride: usize) -> [Self::Vector; 4];
}

/// What every target has: 128-bit vectors.
#[derive(Clone, Copy)]
pub struct Plain;

/// 256-bit vectors and joined products.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx2;

/// 512-bit vectors.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx512;

macro_rules! vectors {
    (
        $isa:ty, $vector:ty, lanes $lanes:literal, rows $rows:literal, wide $wide:literal,
        fma $fma:expr, splat $splat:expr, load $load:expr, store $store:expr, each $each:expr,
        add $add:expr, sub $sub:expr, max $max:expr, min $min:expr,
        abs $abs:expr, positive $positive:expr, turned $turned:expr
    ) => {
        impl Isa for $isa {
            type Vector = $vector;
            const LANES: usize = $lanes;
            const ROWS: usize = $rows;
            const WIDE: usize = $wide;
            #[inline(always)]
            fn fma(a: f32, b: f32, c: f32) -> f32 {
                $fma(a, b, c)
            }
            // SAFETY of them all: only reached from functions compiled for this instruction set (`simd!`); lengths are checked.
            #[allow(unused_unsafe)]
            #[inline(always)]
            fn splat(x: f32) -> $vector {
                unsafe { $splat(x) }
            }
            #[inline(always)]
            unsafe fn load(x: *const f32) -> $vector {
                unsafe { $load(x.cast()) }
            }
            #[inline(always)]
            fn store(v: $vector, x: &mut [f32]) {
                let x = &mut x[..$lanes];
                unsafe { $store(x.as_mut_ptr().cast(), v) }
            }
            #[allow(unused_unsafe)]
            #[inline(always)]
            fn fma_each(a: $vector, b: $vector, c: $vector) -> $vector {
                unsafe { $each(a, b, c) }
            }
            #[allow(unused_unsafe)]
            #[inline(always)]
            fn add(a: $vector, b: $vector) -> $vector {
                unsafe { $add(a, b) }
            }
            #[allow(unused_unsafe)]
            #[inline(always)]
            fn sub(a: $vector, b: $vector) -> $vector {
                unsafe { $sub(a, b) }
            }
            #[allow(unused_unsafe)]
            #[inline(always)]
            fn max(a: $vector, b: $vector) -> $vector {
                unsafe { $max(a, b) }
            }
            #[allow(unused_unsafe)]
            #[inline(always)]
            fn min(a: $vector, b: $vector) -> $vector {
                unsafe { $min(a, b) }
            }
            #[allow(unused_unsafe)]
            #[inline(always)]
            fn abs(x: $vector) -> $vector {
                unsafe { $abs(x) }
            }
            #[allow(unused_unsafe)]
            #[inline(always)]
            fn where_positive(y: $vector, x: $vector) -> $vector {
                unsafe { $positive(y, x) }
            }
            #[inline(always)]
            unsafe fn turned(from: *const f32, stride: usize) -> [$vector; 4] {
                unsafe { $turned(from, stride) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Avx2, Avx512, Isa, Plain};
    use std::arch::x86_64::*;

    /// Four numbers of each of `L` times four places in registers, of which register `i` has those of place `i`, `i + 4` and so on.
    macro_rules! turn {
        ($four:expr, $low:ident, $high:ident, $shuffle:ident) => {{
            let [a, b, c, d] = $four;
            let (ab, cd, high_ab, high_cd) = ($low(a, b), $low(c, d), $high(a, b), $high(c, d));
            [
                $shuffle::<0b01_00_01_00>(ab, cd),
                $shuffle::<0b11_10_11_10>(ab, cd),
                $shuffle::<0b01_00_01_00>(high_ab, high_cd),
                $shuffle::<0b11_10_11_10>(high_ab, high_cd),
            ]
        }};
    }

    // SAFETY of the three: four numbers lie at each place; the instructions are those of the `Isa` that calls.
    #[inline(always)]
    unsafe fn turned4(from: *const f32, stride: usize) -> [__m128; 4] {
        let four = std::array::from_fn(|i| unsafe { _mm_loadu_ps(from.add(i * stride)) });
        unsafe { turn!(four, _mm_unpacklo_ps, _mm_unpackhi_ps, _mm_shuffle_ps) }
    }

    #[inline(always)]
    unsafe fn turned8(from: *const f32, stride: usize) -> [__m256; 4] {
        let at = |i: usize| unsafe { _mm_loadu_ps(from.add(i * stride)) };
        let four = std::array::from_fn(|i| unsafe {
            _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(at(i)), at(i + 4))
        });
        unsafe { turn!(four, _mm256_unpacklo_ps, _mm256_unpackhi_ps, _mm256_shuffle_ps) }
    }

    #[inline(always)]
    unsafe fn turned16(from: *const f32, stride: usize) -> [__m512; 4] {
        let at = |i: usize| unsafe { _mm_loadu_ps(from.add(i * stride)) };
        let four = std::array::from_fn(|i| unsafe {
            let two = _mm512_insertf32x4::<1>(_mm512_castps128_ps512(at(i)), at(i + 4));
            _mm512_insertf32x4::<3>(_mm512_insertf32x4::<2>(two, at(i + 8)), at(i + 12))
        });
        unsafe { turn!(four, _mm512_unpacklo_ps, _mm512_unpackhi_ps, _mm512_shuffle_ps) }
    }

    vectors! {
        Plain, __m128, lanes 4, rows 4, wide 2,
        fma |a, b, c| a * b + c, splat _mm_set1_ps, load _mm_loadu_ps, store _mm_storeu_ps,
        each |a, b, c| _mm_add_ps(_mm_mul_ps(a, b), c),
        add _mm_add_ps, sub _mm_sub_ps, max |a, b| _mm_max_ps(b, a), min |a, b| _mm_min_ps(b, a),
        abs |x| _mm_andnot_ps(_mm_set1_ps(-0.0), x),
        positive |y, x| _mm_and_ps(_mm_cmpgt_ps(y, _mm_setzero_ps()), x), turned turned4
    }
    vectors! {
        Avx2, __m256, lanes 8, rows 6, wide 2,
        fma f32::mul_add, splat _mm256_set1_ps, load _mm256_loadu_ps, store _mm256_storeu_ps, each _mm256_fmadd_ps,
        add _mm256_add_ps, sub _mm256_sub_ps, max |a, b| _mm256_max_ps(b, a), min |a, b| _mm256_min_ps(b, a),
        abs |x| _mm256_andnot_ps(_mm256_set1_ps(-0.0), x),
        positive |y, x| _mm256_and_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(y, _mm256_setzero_ps()), x), turned turned8
    }
    vectors! {
        Avx512, __m512, lanes 16, rows 8, wide 2,
        fma f32::mul_add, splat _mm512_set1_ps, load _mm512_loadu_ps, store _mm512_storeu_ps, each _mm512_fmadd_ps,
        add _mm512_add_ps, sub _mm512_sub_ps, max |a, b| _mm512_max_ps(b, a), min |a, b| _mm512_min_ps(b, a),
        abs _mm512_abs_ps,
        positive |y, x| _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(y, _mm512_setzero_ps()), x),
        turned turned16
    }
}

#[cfg(target_arch = "wasm32")]
mod wasm {
    use super::{Isa, Plain};
    use std::arch::wasm32::*;

    // SAFETY: four numbers lie at each place.
    #[inline(always)]
    unsafe fn turned4(from: *const f32, stride: usize) -> [v128; 4] {
        let [a, b, c, d] = std::array::from_fn(|i| unsafe { v128_load(from.add(i * stride).cast()) });
        let (ab, cd) = (i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<0, 4, 1, 5>(c, d));
        let (high_ab, high_cd) = (i32x4_shuffle::<2, 6, 3, 7>(a, b), i32x4_shuffle::<2, 6, 3, 7>(c, d));
        [
            i32x4_shuffle::<0, 1, 4, 5>(ab, cd),
            i32x4_shuffle::<2, 3, 6, 7>(ab, cd),
            i32x4_shuffle::<0, 1, 4, 5>(high_ab, high_cd),
            i32x4_shuffle::<2, 3, 6, 7>(high_ab, high_cd),
        ]
    }

    vectors! {
        Plain, v128, lanes 4, rows 5, wide 2,
        fma |a, b, c| a * b + c, splat f32x4_splat, load v128_load, store v128_store,
        each f32x4_relaxed_madd,
        add f32x4_add, sub f32x4_sub, max f32x4_pmax, min f32x4_pmin,
        abs f32x4_abs,
        positive |y, x| v128_and(f32x4_gt(y, f32x4_splat(0.0)), x), turned turned4
    }
}

/// Four numbers from each of four places, transposed.
///
/// # Safety
/// Four numbers must lie at each place.
#[cfg(not(any(target_arch = "x86_64", target_arch = "wasm32")))]
unsafe fn gathered(from: *const f32, stride: usize) -> [[f32; 4]; 4] {
    // SAFETY: the caller's.
    std::array::from_fn(|p| std::array::from_fn(|l| unsafe { *from.add(l * stride + p) }))
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::{Isa, Plain};
    use std::arch::aarch64::*;

    vectors! {
        Plain, float32x4_t, lanes 4, rows 6, wide 3,
        fma f32::mul_add, splat vdupq_n_f32, load vld1q_f32, store vst1q_f32, each |a, b, c| vfmaq_f32(c, a, b),
        add vaddq_f32, sub vsubq_f32, max vmaxq_f32, min vminq_f32,
        abs vabsq_f32,
        positive |y, x| vreinterpretq_f32_u32(vandq_u32(vcgtzq_f32(y), vreinterpretq_u32_f32(x))),
        turned |from: *const f32, stride: usize| super::gathered(from, stride).map(|x| vld1q_f32(x.as_ptr()))
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "wasm32", target_arch = "aarch64")))]
mod other {
    use super::{Isa, Plain};

    vectors! {
        Plain, [f32; 4], lanes 4, rows 4, wide 2,
        fma |a, b, c| a * b + c, splat |x| [x; 4], load |x: *const [f32; 4]| *x, store |to: *mut [f32; 4], v| *to = v,
        each |a: [f32; 4], b: [f32; 4], c: [f32; 4]| std::array::from_fn(|i| a[i] * b[i] + c[i]),
        add |a: [f32; 4], b: [f32; 4]| std::array::from_fn(|i| a[i] + b[i]),
        sub |a: [f32; 4], b: [f32; 4]| std::array::from_fn(|i| a[i] - b[i]),
        max |a: [f32; 4], b: [f32; 4]| std::array::from_fn(|i| if b[i] > a[i] { b[i] } else { a[i] }),
        min |a: [f32; 4], b: [f32; 4]| std::array::from_fn(|i| if b[i] < a[i] { b[i] } else { a[i] }),
        abs |x: [f32; 4]| x.map(f32::abs),
        positive |y: [f32; 4], x: [f32; 4]| std::array::from_fn(|i| if y[i] > 0.0 { x[i] } else { 0.0 }),
        turned |from: *const f32, stride: usize| super::gathered(from, stride)
    }
}

/// Defines a function that runs `$inner::<Isa>` with the best instruction set.
macro_rules! simd {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) = $inner:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        // The smaller a function, the more of it a browser's compiler keeps in registers.
        #[cfg_attr(target_arch = "wasm32", inline(never))]
        $vis fn $name($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn with_avx512($($arg: $type),*) {
                    $inner::<$crate::simd::Avx512>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn with_avx2($($arg: $type),*) {
                    $inner::<$crate::simd::Avx2>($($arg),*)
                }
                // SAFETY: the processor was just asked.
                #[allow(unsafe_code)]
                match $crate::simd::level() {
                    $crate::simd::Level::Avx512 => return unsafe { with_avx512($($arg),*) },
                    $crate::simd::Level::Avx2 => return unsafe { with_avx2($($arg),*) },
                    $crate::simd::Level::Plain => {}
                }
            }
            $inner::<$crate::simd::Plain>($($arg),*)
        }
    };
}
pub(crate) use simd;

/// The instruction sets of x86-64 that are told apart.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Avx512,
    Avx2,
    Plain,
}

/// The best set that this processor has.
#[cfg(target_arch = "x86_64")]
#[inline]
pub fn level() -> Level {
    use std::is_x86_feature_detected as has;
    let avx2 = has!("avx2") && has!("fma");
    let avx512 = avx2 && has!("avx512f") && has!("avx512vl") && has!("avx512bw") && has!("avx512dq");
    match (avx512, avx2) {
        (true, _) => Level::Avx512,
        (_, true) => Level::Avx2,
        _ => Level::Plain,
    }
}

/// Four numbers from each of four places, turned over: the first of each, then the second of each, `wide` numbers further on.
///
/// # Safety
/// Four numbers must lie at each place of `from`, and `3 * wide + 4` at `to`.
#[allow(unsafe_code)]
#[inline(always)]
pub unsafe fn transpose_square(from: [*const f32; 4], to: *mut f32, wide: usize) {
    // SAFETY of both: the caller's.
    #[cfg(target_arch = "wasm32")]
    unsafe {
        use std::arch::wasm32::{i32x4_shuffle as shuffle, v128_load, v128_store};
        let [a, b, c, d] = from.map(|x| v128_load(x.cast()));
        let (ab, cd) = (shuffle::<0, 4, 1, 5>(a, b), shuffle::<0, 4, 1, 5>(c, d));
        v128_store(to.cast(), shuffle::<0, 1, 4, 5>(ab, cd));
        v128_store(to.add(wide).cast(), shuffle::<2, 3, 6, 7>(ab, cd));
        let (ab, cd) = (shuffle::<2, 6, 3, 7>(a, b), shuffle::<2, 6, 3, 7>(c, d));
        v128_store(to.add(2 * wide).cast(), shuffle::<0, 1, 4, 5>(ab, cd));
        v128_store(to.add(3 * wide).cast(), shuffle::<2, 3, 6, 7>(ab, cd));
    }
    #[cfg(not(target_arch = "wasm32"))]
    for p in 0..4 {
        for (c, x) in from.iter().enumerate() {
            unsafe { *to.add(p * wide + c) = *x.add(p) };
        }
    }
}

/// Fetches the line of the cache that `x[at]` would be in.
#[inline(always)]
pub fn prefetch(x: &[f32], at: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing, at any address.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(x.as_ptr().wrapping_add(at).cast())
        };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (x, at);
}

/// Copies a short row. A browser's own copy is a call out of the program, many times as long as this.
#[inline(always)]
pub fn copy(from: &[f32], to: &mut [f32]) {
    #[cfg(target_arch = "wasm32")]
    {
        use std::arch::wasm32::{v128_load, v128_store};
        let n = from.len();
        assert_eq!(n, to.len());
        let (from, to) = (from.as_ptr(), to.as_mut_ptr());
        let mut i = 0;
        // SAFETY: all places are below n, which both have.
        #[allow(unsafe_code)]
        unsafe {
            // Two registers a round: of a loop with one, the compiler would make the call.
            while i + 8 <= n {
                let (a, b) = (v128_load(from.add(i).cast()), v128_load(from.add(i + 4).cast()));
                v128_store(to.add(i).cast(), a);
                v128_store(to.add(i + 4).cast(), b);
                i += 8;
            }
            if i + 4 <= n {
                v128_store(to.add(i).cast(), v128_load(from.add(i).cast()));
                i += 4;
            }
            if i + 2 <= n {
                let (a, b) = (*from.add(i), *from.add(i + 1));
                (*to.add(i), *to.add(i + 1)) = (a, b);
                i += 2;
            }
            if i < n {
                *to.add(i) = *from.add(i);
            }
        }
    }
    #[cfg(not(target_arch = "wasm32"))]
    to.copy_from_slice(from);
}

/// Numbers in the registers that kernels use here.
pub fn lanes() -> usize {
    #[cfg(target_arch = "x86_64")]
    match level() {
        Level::Avx512 => return Avx512::LANES,
        Level::Avx2 => return Avx2::LANES,
        Level::Plain => {}
    }
    Plain::LANES
}
