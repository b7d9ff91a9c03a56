//! The operations that candle has no single operation for, as plain loops over contiguous rows.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, WithDType, bail};
use num_traits::Float;
use oto_graph::{Activation, Op};

/// One such operation and the shape it gives.
pub struct Kernel<'a> {
    pub op: &'a Op,
    pub shape: &'a [usize],
    /// Step count and learning rate where the operation is Adam's step, tau where it is Polyak averaging.
    pub scalars: [f64; 2],
}

/// f32 or f64.
pub trait Real:
    WithDType + Float + std::ops::Neg<Output = Self> + std::ops::AddAssign + std::ops::SubAssign
{
}
impl Real for f32 {}
impl Real for f64 {}

fn real<T: Real>(x: f64) -> T {
    <T as num_traits::NumCast>::from(x).expect("every f64 has a nearest float")
}

/// The elements that `layout` shows of `storage`, which must lie in order.
fn rows<'s, T: Real>(storage: &'s CpuStorage, layout: &Layout) -> Result<&'s [T]> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&storage.as_slice::<T>()?[from..to]),
        None => bail!("a kernel reads contiguous tensors"),
    }
}

/// A row number given as a float.
pub fn index<T: Real>(value: T, below: usize) -> Result<usize> {
    let v = WithDType::to_f64(value);
    if v >= 0.0 && v < below as f64 && v.fract() == 0.0 {
        return Ok(v as usize);
    }
    bail!("index {v} is not a whole number below {below}")
}

impl Kernel<'_> {
    fn done<T: Real>(&self, values: Vec<T>) -> Result<(CpuStorage, Shape)> {
        Ok((T::to_cpu_storage_owned(values), Shape::from(self.shape)))
    }

    fn one<T: Real>(&self, x: &[T], last: usize) -> Result<(CpuStorage, Shape)> {
        match self.op {
            Op::LogSumExp(_) => self.done(x.chunks_exact(last).map(log_sum_exp).collect()),
            Op::LogSoftmax(_) => {
                let mut out = x.to_vec();
                for row in out.chunks_exact_mut(last) {
                    let lse = log_sum_exp(row);
                    row.iter_mut().for_each(|v| *v -= lse);
                }
                self.done(out)
            }
            Op::LayerNorm { epsilon, .. } => {
                let mut out = x.to_vec();
                for row in out.chunks_exact_mut(last) {
                    let (mean, scale) = spread(row, *epsilon);
                    row.iter_mut().for_each(|v| *v = (*v - mean) * scale);
                }
                self.done(out)
            }
            other => bail!("no kernel of one operand for {other:?}"),
        }
    }

    fn two<T: Real>(
        &self,
        a: &[T],
        a_shape: &[usize],
        b: &[T],
        b_shape: &[usize],
    ) -> Result<(CpuStorage, Shape)> {
        match *self.op {
            Op::ActivationGrad { activation, .. } => {
                let through = |(y, g): (&T, &T)| match activation {
                    Activation::Identity => *g,
                    Activation::Relu if *y > T::zero() => *g,
                    Activation::Relu => T::zero(),
                    Activation::Tanh => *g * (T::one() - *y * *y),
                };
                self.done(a.iter().zip(b).map(through).collect())
            }
            Op::LogSoftmaxGrad { .. } => {
                let last = a_shape[a_shape.len() - 1];
                let mut out = Vec::with_capacity(a.len());
                for (y, g) in a.chunks_exact(last).zip(b.chunks_exact(last)) {
                    let sum = g.iter().fold(T::zero(), |s, g| s + *g);
                    out.extend(y.iter().zip(g).map(|(y, g)| *g - y.exp() * sum));
                }
                self.done(out)
            }
            Op::LayerNormGrad { epsilon, .. } => {
                let last = a_shape[a_shape.len() - 1];
                let n = real::<T>(last as f64);
                let mut out = Vec::with_capacity(a.len());
                for (x, g) in a.chunks_exact(last).zip(b.chunks_exact(last)) {
                    let (mean, scale) = spread(x, epsilon);
                    let total = g.iter().fold(T::zero(), |s, g| s + *g) / n;
                    let along = x.iter().zip(g).fold(T::zero(), |s, (x, g)| s + (*x - mean) * scale * *g) / n;
                    let each = x.iter().zip(g);
                    out.extend(each.map(|(x, g)| (*g - total - (*x - mean) * scale * along) * scale));
                }
                self.done(out)
            }
            Op::Pick { .. } => {
                let (choices, inner) = (a_shape[1], a_shape[2]);
                let mut out = Vec::with_capacity(b.len() * inner);
                for (row, i) in a.chunks_exact(choices * inner).zip(b) {
                    let from = index(*i, choices)? * inner;
                    out.extend_from_slice(&row[from..from + inner]);
                }
                self.done(out)
            }
            Op::Unpick { .. } => {
                let (choices, inner) = (self.shape[1], self.shape[2]);
                let mut out = vec![T::zero(); self.shape.iter().product()];
                for ((row, g), i) in out.chunks_exact_mut(choices * inner).zip(a.chunks_exact(inner)).zip(b) {
                    let from = index(*i, choices)? * inner;
                    row[from..from + inner].copy_from_slice(g);
                }
                self.done(out)
            }
            Op::Rows { .. } => {
                let width = a.len() / a_shape[0];
                let mut out = Vec::with_capacity(b.len() * width);
                for i in b {
                    let from = index(*i, a_shape[0])? * width;
                    out.extend_from_slice(&a[from..from + width]);
                }
                self.done(out)
            }
            Op::AddRows { .. } => {
                let mut out = vec![T::zero(); self.shape.iter().product()];
                let width = out.len() / self.shape[0];
                for (g, i) in a.chunks_exact(width).zip(b) {
                    let from = index(*i, self.shape[0])? * width;
                    out[from..from + width].iter_mut().zip(g).for_each(|(o, g)| *o += *g);
                }
                self.done(out)
            }
            Op::QuantileHuber { kappa, .. } => {
                let (n, m) = (a_shape[1], b_shape[1]);
                let pairs = a.chunks_exact(n).zip(b.chunks_exact(m));
                self.done(pairs.map(|(theta, target)| quantile_huber(theta, target, kappa)).collect())
            }
            Op::QuantileHuberGrad { kappa, .. } => {
                let (n, m) = (a_shape[1], b_shape[1]);
                let mut out = vec![T::zero(); a.len()];
                let rows = a.chunks_exact(n).zip(b.chunks_exact(m)).zip(out.chunks_exact_mut(n));
                rows.for_each(|((theta, target), out)| quantile_huber_grad(theta, target, kappa, out));
                self.done(out)
            }
            Op::Moment { beta, squared, .. } => {
                let (keep, take) = (real::<T>(beta), real::<T>(1.0 - beta));
                let mix = |(m, g): (&T, &T)| *m * keep + if squared { *g * *g } else { *g } * take;
                self.done(a.iter().zip(b).map(mix).collect())
            }
            Op::Polyak { .. } => {
                let tau = real::<T>(self.scalars[0]);
                // tau 1 must copy exactly, and an infinity must not become NaN where tau is 0.
                match self.scalars[0] {
                    0.0 => self.done(a.to_vec()),
                    1.0 => self.done(b.to_vec()),
                    _ => self.done(a.iter().zip(b).map(|(t, p)| *t + tau * (*p - *t)).collect()),
                }
            }
            ref other => bail!("no kernel of two operands for {other:?}"),
        }
    }

    fn three<T: Real>(&self, p: &[T], m: &[T], v: &[T]) -> Result<(CpuStorage, Shape)> {
        let Op::AdamStep { beta1, beta2, epsilon, .. } = *self.op else {
            bail!("no kernel of three operands for {:?}", self.op)
        };
        let [t, lr] = self.scalars;
        let size = real::<T>(lr / (1.0 - beta1.powf(t)));
        let (scale, epsilon) = (real::<T>(1.0 / (1.0 - beta2.powf(t)).sqrt()), real::<T>(epsilon));
        let step = |((p, m), v): ((&T, &T), &T)| *p - size * *m / (v.sqrt() * scale + epsilon);
        self.done(p.iter().zip(m).zip(v).map(step).collect())
    }
}

/// A row's mean, and what brings its spread to 1.
fn spread<T: Real>(row: &[T], epsilon: f64) -> (T, T) {
    let n = real::<T>(row.len() as f64);
    let mean = row.iter().fold(T::zero(), |s, v| s + *v) / n;
    let variance = row.iter().fold(T::zero(), |s, v| s + (*v - mean) * (*v - mean)) / n;
    (mean, (variance + real::<T>(epsilon)).sqrt().recip())
}

fn log_sum_exp<T: Real>(row: &[T]) -> T {
    let max = row.iter().fold(T::neg_infinity(), |m, v| Float::max(m, *v));
    if max.is_infinite() {
        return max;
    }
    row.iter().fold(T::zero(), |s, v| s + (*v - max).exp()).ln() + max
}

/// Dabney et al. 2018, eq. 10: mean over theta's quantiles of the sum over targets.
fn quantile_huber<T: Real>(theta: &[T], target: &[T], kappa: f64) -> T {
    let (n, kappa, half) = (theta.len() as f64, real::<T>(kappa), real::<T>(0.5));
    let mut sum = T::zero();
    for (i, theta) in theta.iter().enumerate() {
        let tau = real::<T>((i as f64 + 0.5) / n);
        let row = target.iter().fold(T::zero(), |s, t| {
            let d = *t - *theta;
            let small = Float::min(Float::abs(d), kappa);
            let weight = if d < T::zero() { T::one() - tau } else { tau };
            s + weight * small * (Float::abs(d) - half * small)
        });
        sum += row;
    }
    sum / real::<T>(n)
}

fn quantile_huber_grad<T: Real>(theta: &[T], target: &[T], kappa: f64, out: &mut [T]) {
    let (n, kappa) = (theta.len() as f64, real::<T>(kappa));
    for (i, (theta, out)) in theta.iter().zip(out).enumerate() {
        let tau = real::<T>((i as f64 + 0.5) / n);
        let row = target.iter().fold(T::zero(), |s, t| {
            let d = *t - *theta;
            let weight = if d < T::zero() { T::one() - tau } else { tau };
            s - weight * Float::max(Float::min(d, kappa), -kappa)
        });
        *out = row / real::<T>(n);
    }
}

macro_rules! by_type {
    ($first:expr, $call:ident) => {
        match $first {
            CpuStorage::F32(_) => $call!(f32),
            CpuStorage::F64(_) => $call!(f64),
            _ => bail!("kernels run in f32 and f64"),
        }
    };
}

impl CustomOp1 for Kernel<'_> {
    fn name(&self) -> &'static str {
        "oto"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let last = l.dims().last().copied().unwrap_or(1);
        macro_rules! call {
            ($t:ty) => {
                self.one::<$t>(rows(x, l)?, last)
            };
        }
        by_type!(x, call)
    }
}

impl CustomOp2 for Kernel<'_> {
    fn name(&self) -> &'static str {
        "oto"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        macro_rules! call {
            ($t:ty) => {
                self.two::<$t>(rows(a, la)?, la.dims(), rows(b, lb)?, lb.dims())
            };
        }
        by_type!(a, call)
    }
}

impl CustomOp3 for Kernel<'_> {
    fn name(&self) -> &'static str {
        "oto"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
        c: &CpuStorage,
        lc: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        macro_rules! call {
            ($t:ty) => {
                self.three::<$t>(rows(a, la)?, rows(b, lb)?, rows(c, lc)?)
            };
        }
        by_type!(a, call)
    }
}
