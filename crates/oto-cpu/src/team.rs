//! Who computes the steps of a plan: one thread, or several where the plan is large.

use crate::kernels::{self, AdamConstants};
use crate::matmul::{Finish, Scratch, Side, matmul};
use crate::row::{self, row_product};
#[cfg(not(target_family = "wasm"))]
use crate::threads::Pool;
use oto_graph::plan::{Kernel, Plan};
use std::num::NonZeroUsize;
#[cfg(not(target_family = "wasm"))]
use std::sync::{Mutex, PoisonError};

/// Plans with fewer floating-point operations have one thread: they take less than half a millisecond.
const LARGE_PLAN: usize = 64_000_000;
/// Products with fewer multiply-adds are not divided: they take less than five microseconds.
const LARGE_PRODUCT: usize = 1 << 18;
/// Rows of a product's part at least: whole tiles of every instruction set.
const ROWS: usize = 32;
/// A product with too few rows is divided between columns of this multiple: whole vectors of every instruction set.
const COLUMNS: usize = 16;
/// Columns of such a product at least.
const WIDE: usize = 128;
/// An optimiser with fewer parameters is not divided.
const LARGE_OPTIMISER: usize = 1 << 15;

/// The threads of a plan, and the memory in which each packs its products.
pub struct Team {
    scratch: Scratch,
    #[cfg(not(target_family = "wasm"))]
    others: Option<Others>,
}

/// The other threads, the memory of each thread, and memory for the parts of a product that is divided by columns.
#[cfg(not(target_family = "wasm"))]
struct Others {
    pool: Pool,
    scratches: Vec<Mutex<Scratch>>,
    parts: Vec<f32>,
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
        let _ = (threads, LARGE_PLAN, LARGE_PRODUCT, ROWS, COLUMNS, WIDE, LARGE_OPTIMISER);
        Self {
            scratch: scratch(),
            #[cfg(not(target_family = "wasm"))]
            others: {
                let flop = (0..plan.kernels.len()).map(|k| plan.cost(k).flop).sum::<usize>();
                let pool = if flop >= LARGE_PLAN { Pool::new(threads) } else { None };
                pool.map(|pool| {
                    let scratches = (0..pool.threads()).map(|_| Mutex::new(scratch())).collect();
                    let parts = vec![0.0; plan.kernels.iter().map(by_columns).max().unwrap_or(0)];
                    Others { pool, scratches, parts }
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
        if row::is_one(out.len() / n, n, k, b) {
            return row_product(a.values, b, finish, k, out);
        }
        #[cfg(not(target_family = "wasm"))]
        if let Some(others) = &mut self.others
            && out.len() * k >= LARGE_PRODUCT
        {
            let rows = out.len() / n;
            if rows >= 2 * ROWS {
                return others.by_rows(a, b, finish, n, k, out);
            }
            if n >= WIDE && finish.derivative.is_none() && out.len() <= others.parts.len() {
                return others.by_columns(a, b, finish, n, k, out);
            }
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
        if let Some(Others { pool, .. }) = &mut self.others
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

/// Numbers of the result of a product that may be divided by columns; 0 of any other kernel.
#[cfg(not(target_family = "wasm"))]
fn by_columns(kernel: &Kernel) -> usize {
    match kernel {
        Kernel::Matmul(p) if p.m < 2 * ROWS && p.n >= WIDE => p.m * p.n,
        _ => 0,
    }
}

#[cfg(not(target_family = "wasm"))]
impl Others {
    /// Each thread computes rows of a product.
    fn by_rows(&mut self, a: Side<'_>, b: Side<'_>, finish: Finish<'_>, n: usize, k: usize, out: &mut [f32]) {
        let scratches = &self.scratches;
        self.pool.divide([out], ROWS * n, &|thread, first, [out]| {
            let scratch = &mut *scratches[thread].lock().unwrap_or_else(PoisonError::into_inner);
            matmul(a.skip_rows(first / n), b, finish.skip(first), n, k, out, scratch);
        });
    }

    /// Each thread computes columns of a product. They lie together until all are there.
    fn by_columns(
        &mut self,
        a: Side<'_>,
        b: Side<'_>,
        finish: Finish<'_>,
        n: usize,
        k: usize,
        out: &mut [f32],
    ) {
        let rows = out.len() / n;
        let (scratches, parts) = (&self.scratches, &mut self.parts[..out.len()]);
        self.pool.divide([&mut *parts], COLUMNS * rows, &|thread, first, [part]| {
            let scratch = &mut *scratches[thread].lock().unwrap_or_else(PoisonError::into_inner);
            let (column, width) = (first / rows, part.len() / rows);
            matmul(a, b.skip_columns(column), finish.skip_columns(column, width), width, k, part, scratch);
        });
        let width = self.pool.share(n, COLUMNS);
        for column in (0..n).step_by(width) {
            let wide = width.min(n - column);
            let part = parts[column * rows..][..wide * rows].chunks_exact(wide);
            let lines = out.chunks_exact_mut(n).map(|line| &mut line[column..column + wide]);
            lines.zip(part).for_each(|(line, part)| line.copy_from_slice(part));
        }
    }
}
