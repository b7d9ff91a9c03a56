//! Who computes the steps of a plan: one thread, or several where the plan is large.

use crate::kernels::{self, AdamConstants};
use crate::matmul::{Finish, Scratch, Side, matmul};
#[cfg(not(target_family = "wasm"))]
use crate::threads::Pool;
use oto_graph::plan::{Kernel, Plan};
use std::num::NonZeroUsize;
#[cfg(not(target_family = "wasm"))]
use std::sync::{Mutex, PoisonError};

/// Plans with fewer floating-point operations have one thread: they take less than half a millisecond.
const LARGE_PLAN: usize = 64_000_000;
/// Products with fewer multiply-adds are not divided: they take less than 40 microseconds.
const LARGE_PRODUCT: usize = 1 << 21;
/// Rows of a product's part at least.
const ROWS: usize = 64;
/// An optimiser with fewer parameters is not divided.
const LARGE_OPTIMISER: usize = 1 << 15;

/// The threads of a plan, and the memory in which each packs its products.
pub struct Team {
    scratch: Scratch,
    #[cfg(not(target_family = "wasm"))]
    others: Option<(Pool, Vec<Mutex<Scratch>>)>,
}

impl Team {
    /// A team of `threads` for a large plan, of one for a small one.
    pub fn new(plan: &Plan, threads: NonZeroUsize) -> Self {
        let scratch = || {
            let mut scratch = Scratch::default();
            for kernel in &plan.kernels {
                if let Kernel::Matmul(p) = kernel {
                    scratch.grow(p.m, p.n, p.k);
                }
            }
            scratch
        };
        #[cfg(target_family = "wasm")]
        let _ = (threads, LARGE_PLAN, LARGE_PRODUCT, ROWS, LARGE_OPTIMISER);
        Self {
            scratch: scratch(),
            #[cfg(not(target_family = "wasm"))]
            others: {
                let flop = (0..plan.kernels.len()).map(|k| plan.cost(k).flop).sum::<usize>();
                let pool = if flop >= LARGE_PLAN { Pool::new(threads) } else { None };
                pool.map(|pool| {
                    let scratches = (0..pool.threads()).map(|_| Mutex::new(scratch())).collect();
                    (pool, scratches)
                })
            },
        }
    }

    /// `out = finish(a b)`, row-major `[m, n]`; the sums have length `k`.
    pub fn matmul(
        &mut self,
        a: Side<'_>,
        b: Side<'_>,
        finish: Finish<'_>,
        n: usize,
        k: usize,
        out: &mut [f32],
    ) {
        #[cfg(not(target_family = "wasm"))]
        if let Some((pool, scratches)) = &mut self.others
            && out.len() * k >= LARGE_PRODUCT
            && out.len() / n >= 2 * ROWS
        {
            // Whole tiles of every instruction set.
            pool.divide([out], ROWS * n, &|thread, first, [out]| {
                let scratch = &mut *scratches[thread].lock().unwrap_or_else(PoisonError::into_inner);
                matmul(a.skip_rows(first / n), b, finish.skip(first), n, k, out, scratch);
            });
            return;
        }
        matmul(a, b, finish, n, k, out, &mut self.scratch);
    }

    /// Adam's step of parameters, in place: parameters, first and second moments, and slow copies or an empty slice.
    pub fn optimise(
        &mut self,
        [p, m, v, slow]: [&mut [f32]; 4],
        g: &[f32],
        tau: f32,
        constants: AdamConstants,
    ) {
        #[cfg(not(target_family = "wasm"))]
        if let Some((pool, _)) = &mut self.others
            && p.len() >= LARGE_OPTIMISER
        {
            let len = p.len();
            let slow = if slow.is_empty() { slow } else { &mut slow[..len] };
            pool.divide([p, &mut m[..len], &mut v[..len], slow], 1024, &|_, first, [p, m, v, slow]| {
                kernels::optimise(p, m, v, &g[first..], slow, tau, constants);
            });
            return;
        }
        kernels::optimise(p, m, v, g, slow, tau, constants);
    }
}
