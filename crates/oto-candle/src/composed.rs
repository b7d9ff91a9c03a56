//! The operations of `kernels`, made of candle's own operations: for graphics cards, on which oto has no kernels.

use crate::kernels::index;
use candle_core::{D, DType, Result, Tensor, bail};
use oto_graph::{Activation, Op};

/// Computes an operation; `scalars` as in [`crate::kernels::Kernel`].
pub fn composed(op: &Op, shape: &[usize], operands: &[&Tensor], scalars: [f64; 2]) -> Result<Tensor> {
    match (op, operands) {
        (Op::LogSumExp(_), [x]) => log_sum_exp(x),
        (Op::LogSoftmax(_), [x]) => x.broadcast_sub(&log_sum_exp(x)?),
        (Op::LogSoftmaxGrad { .. }, [y, g]) => *g - y.exp()?.broadcast_mul(&g.sum_keepdim(D::Minus1)?)?,
        (Op::LayerNorm { epsilon, .. }, [x]) => {
            let (centred, scale) = spread(x, *epsilon)?;
            centred.broadcast_mul(&scale)
        }
        (Op::LayerNormGrad { epsilon, .. }, [x, g]) => {
            let (centred, scale) = spread(x, *epsilon)?;
            let normal = centred.broadcast_mul(&scale)?;
            let along = (&normal * *g)?.mean_keepdim(D::Minus1)?;
            let rest = g.broadcast_sub(&g.mean_keepdim(D::Minus1)?)? - normal.broadcast_mul(&along)?;
            rest?.broadcast_mul(&scale)
        }
        (Op::ActivationGrad { activation, .. }, [y, g]) => match activation {
            Activation::Identity => Ok((*g).clone()),
            Activation::Relu => y.gt(0.0)?.where_cond(g, &g.zeros_like()?),
            Activation::Tanh => *g * y.sqr()?.affine(-1.0, 1.0)?,
        },
        (Op::Pick { .. }, [x, at]) => {
            let [rows, choices, width] = x.dims() else { bail!("expected 3 axes, got {:?}", x.shape()) };
            let at = indices(at, *choices)?.reshape((*rows, 1, 1))?.broadcast_as((*rows, 1, *width))?;
            x.gather(&at.contiguous()?, 1)?.squeeze(1)
        }
        (Op::Unpick { .. }, [g, at]) => {
            let (rows, width) = g.dims2()?;
            let at = indices(at, shape[1])?.reshape((rows, 1, 1))?.broadcast_as((rows, 1, width))?;
            zeros(shape, g)?.scatter_add(&at.contiguous()?, &g.unsqueeze(1)?, 1)
        }
        (Op::Rows { .. }, [x, at]) => x.index_select(&indices(at, x.dim(0)?)?, 0),
        (Op::AddRows { .. }, [g, at]) => zeros(shape, g)?.index_add(&indices(at, shape[0])?, g, 0),
        (Op::QuantileHuber { kappa, .. }, [theta, target]) => {
            let (difference, weight) = quantiles(theta, target)?;
            let size = difference.abs()?;
            let small = size.minimum(*kappa)?;
            let loss = ((weight * &small)? * (size - small.affine(0.5, 0.0)?)?)?;
            loss.sum(2)?.mean(1)
        }
        (Op::QuantileHuberGrad { kappa, .. }, [theta, target]) => {
            let (difference, weight) = quantiles(theta, target)?;
            let row = (weight * difference.clamp(-kappa, *kappa)?)?.sum(2)?;
            row.affine(-1.0 / theta.dim(1)? as f64, 0.0)
        }
        (Op::Moment { beta, squared, .. }, [m, g]) => {
            let new = if *squared { g.sqr()? } else { (*g).clone() };
            m.affine(*beta, 0.0)? + new.affine(1.0 - beta, 0.0)?
        }
        // Tau 1 must copy exactly, and an infinity must not become NaN where tau is 0.
        (Op::Polyak { .. }, [target, p]) => match scalars[0] {
            0.0 => Ok((*target).clone()),
            1.0 => Ok((*p).clone()),
            tau => *target + (*p - *target)?.affine(tau, 0.0)?,
        },
        (Op::AdamStep { beta1, beta2, epsilon, .. }, [p, m, v]) => {
            let [t, rate] = scalars;
            let (size, scale) = (rate / (1.0 - beta1.powf(t)), (1.0 - beta2.powf(t)).sqrt().recip());
            *p - m.affine(size, 0.0)?.div(&v.sqrt()?.affine(scale, *epsilon)?)?
        }
        (other, operands) => bail!("no composition of {} operands for {other:?}", operands.len()),
    }
}

fn log_sum_exp(x: &Tensor) -> Result<Tensor> {
    let most = x.max_keepdim(D::Minus1)?;
    x.broadcast_sub(&most)?.exp()?.sum_keepdim(D::Minus1)?.log()? + most
}

/// Rows less their means, and what brings their spread to 1.
fn spread(x: &Tensor, epsilon: f64) -> Result<(Tensor, Tensor)> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let scale = centred.sqr()?.mean_keepdim(D::Minus1)?.affine(1.0, epsilon)?.sqrt()?.recip()?;
    Ok((centred, scale))
}

/// Each target less each quantile of theta, and the weight of that difference: `[B, N, M]`.
fn quantiles(theta: &Tensor, target: &Tensor) -> Result<(Tensor, Tensor)> {
    let n = theta.dim(1)?;
    let difference = target.unsqueeze(1)?.broadcast_sub(&theta.unsqueeze(2)?)?;
    let midpoints: Vec<f32> = (0..n).map(|i| (i as f32 + 0.5) / n as f32).collect();
    let tau = Tensor::from_vec(midpoints, (1, n, 1), theta.device())?.to_dtype(theta.dtype())?;
    let negative = difference.lt(0.0)?.to_dtype(theta.dtype())?;
    let weight = negative.broadcast_mul(&tau.affine(-2.0, 1.0)?)?.broadcast_add(&tau)?;
    Ok((difference, weight))
}

/// Row numbers that were given as floats; they are checked on the processor.
fn indices(at: &Tensor, below: usize) -> Result<Tensor> {
    let numbers = at.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let checked =
        numbers.into_iter().map(|at| index(at, below).map(|at| at as u32)).collect::<Result<Vec<_>>>()?;
    let count = checked.len();
    Tensor::from_vec(checked, count, at.device())
}

fn zeros(shape: &[usize], like: &Tensor) -> Result<Tensor> {
    Tensor::zeros(shape, like.dtype(), like.device())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Kernel;
    use candle_core::Device;
    use oto_graph::NodeId;

    /// An operation, the shape of its result, its operands and scalars.
    type Case<'a> = (Op, &'a [usize], Vec<&'a Tensor>, [f64; 2]);

    fn some(shape: &[usize], seed: f64) -> Tensor {
        let count = shape.iter().product::<usize>();
        let values: Vec<f64> = (0..count).map(|i| (seed + 1.7 * i as f64).sin()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn compositions_equal_the_kernels() {
        let id = NodeId(0);
        let (x, y) = (some(&[4, 6], 0.1), some(&[4, 6], 0.9));
        let at = Tensor::new(&[2.0, 0.0, 1.0, 2.0], &Device::Cpu).unwrap();
        let pixels = some(&[4, 3, 6], 0.3);
        let squares = x.sqr().unwrap();
        let none = [0.0; 2];
        let activation = |activation| Op::ActivationGrad { y: id, g: id, activation };
        let huber = Op::QuantileHuber { theta: id, target: id, kappa: 0.5 };
        let huber_grad = Op::QuantileHuberGrad { theta: id, target: id, kappa: 0.5 };
        let moment = |squared| Op::Moment { m: id, g: id, beta: 0.9, squared };
        let polyak = || Op::Polyak { target: id, p: id, tau: id };
        let adam =
            Op::AdamStep { p: id, m: id, v: id, t: id, lr: id, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
        let cases: Vec<Case<'_>> = vec![
            (Op::LogSumExp(id), &[4, 1], vec![&x], none),
            (Op::LogSoftmax(id), &[4, 6], vec![&x], none),
            (Op::LogSoftmaxGrad { y: id, g: id }, &[4, 6], vec![&x, &y], none),
            (Op::LayerNorm { x: id, epsilon: 1e-3 }, &[4, 6], vec![&x], none),
            (Op::LayerNormGrad { x: id, g: id, epsilon: 1e-3 }, &[4, 6], vec![&x, &y], none),
            (activation(Activation::Identity), &[4, 6], vec![&x, &y], none),
            (activation(Activation::Relu), &[4, 6], vec![&x, &y], none),
            (activation(Activation::Tanh), &[4, 6], vec![&x, &y], none),
            (Op::Pick { x: id, index: id }, &[4, 6], vec![&pixels, &at], none),
            (Op::Unpick { g: id, index: id }, &[4, 3, 6], vec![&x, &at], none),
            (Op::Rows { x: id, index: id }, &[4, 3, 6], vec![&pixels, &at], none),
            (Op::AddRows { g: id, index: id }, &[3, 6], vec![&x, &at], none),
            (huber, &[4], vec![&x, &y], none),
            (huber_grad, &[4, 6], vec![&x, &y], none),
            (moment(false), &[4, 6], vec![&x, &y], none),
            (moment(true), &[4, 6], vec![&x, &y], none),
            (polyak(), &[4, 6], vec![&x, &y], [0.0; 2]),
            (polyak(), &[4, 6], vec![&x, &y], [0.25, 0.0]),
            (polyak(), &[4, 6], vec![&x, &y], [1.0, 0.0]),
            (adam, &[4, 6], vec![&x, &y, &squares], [3.0, 0.01]),
        ];
        for (op, shape, operands, scalars) in cases {
            let kernel = Kernel { op: &op, shape, scalars };
            let expected = match operands[..] {
                [a] => a.apply_op1_no_bwd(&kernel),
                [a, b] => a.apply_op2_no_bwd(b, &kernel),
                [a, b, c] => a.apply_op3_no_bwd(b, c, &kernel),
                _ => unreachable!("one to three operands"),
            };
            let got = composed(&op, shape, &operands, scalars).unwrap();
            assert_eq!(got.dims(), shape, "{op:?}");
            let numbers = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for (a, b) in numbers(&expected.unwrap()).into_iter().zip(numbers(&got)) {
                assert!((a - b).abs() < 1e-6, "{op:?}: {a} {b}");
            }
        }
    }

    #[test]
    fn an_index_outside_is_an_error() {
        for wrong in [3.0, -1.0, 0.5, f64::NAN] {
            let at = Tensor::new(&[0.0, wrong], &Device::Cpu).unwrap();
            let op = Op::Rows { x: NodeId(0), index: NodeId(0) };
            assert!(composed(&op, &[2, 2], &[&some(&[3, 2], 0.0), &at], [0.0; 2]).is_err(), "{wrong}");
        }
    }
}
