//! One source for every instruction set: kernels are written as plain loops over an [`Isa`], compiled once for each set, and
//! the best that the processor has is chosen at run time. wasm has one set, chosen when it is compiled.

/// What differs between instruction sets.
pub trait Isa: Copy {
    /// Rows of a matrix product held in registers.
    const ROWS: usize;
    /// `a * b + c`, in one rounding where that is one instruction.
    fn fma(a: f32, b: f32, c: f32) -> f32;
}

/// What every target has: 128-bit vectors at best, product and sum apart.
#[derive(Clone, Copy)]
pub struct Plain;

impl Isa for Plain {
    const ROWS: usize = 4;
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        // aarch64 always has the joined instruction; elsewhere it would be a call into a library.
        if cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { a * b + c }
    }
}

/// 256-bit vectors and joined products.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Isa for Avx2 {
    const ROWS: usize = 6;
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

/// Defines a function that runs `$inner::<Isa>` with the best instruction set.
macro_rules! simd {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) = $inner:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn with_avx2($($arg: $type),*) {
                    $inner::<$crate::simd::Avx2>($($arg),*)
                }
                if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                    // SAFETY: the processor was just asked for both features.
                    #[allow(unsafe_code)]
                    return unsafe { with_avx2($($arg),*) };
                }
            }
            $inner::<$crate::simd::Plain>($($arg),*)
        }
    };
}
pub(crate) use simd;
