//! The differentiation of oto-graph, proved two ways on random shapes and values: by central differences of the program
//! itself, and by candle's own autograd on the same formula written in candle.

use candle_core::{D, DType, Device, Tensor as Candle, Var};
use oto_candle::{Precision, evaluate};
use oto_graph::{Activation, Conv, Tensor, Trace, grad};
use oto_rl::lstm::{self, Lstm};
use proptest::prelude::*;

type Values = Vec<Vec<f64>>;

/// The derivative of two critics' squared values towards their input.
fn second<'t>(x: &[Tensor<'t>], activation: Activation) -> Tensor<'t> {
    let q = x[0].linear(x[1], x[2], activation).linear(x[3], x[4], Activation::Identity);
    grad(q.square().sum(), &[x[0]])[0]
}

/// An LSTM layer of inputs, state, parameters and where episodes begin.
fn recurrent<'t>(x: &[Tensor<'t>]) -> Tensor<'t> {
    let params = [2, 3, 4].map(|i| (String::new(), x[i]));
    lstm::unrolled(&params, x[0], x[1], x[5])
}

/// Records `f` of inputs of these shapes, reduced to one number by fixed weights, and its gradients.
fn record(shapes: &[Vec<usize>], f: &dyn for<'t> Fn(&[Tensor<'t>]) -> Tensor<'t>) -> oto_graph::Program {
    let t = Trace::new();
    let x = shapes.iter().enumerate().map(|(i, s)| t.data(format!("x{i}"), s)).collect::<Vec<_>>();
    let y = f(&x);
    let loss = (y * y.tanh().affine(0.3, 1.0).stop_gradient()).sum();
    let gradients = grad(loss, &x);
    let names = (0..x.len()).map(|i| format!("g{i}")).collect::<Vec<_>>();
    let outputs = names.iter().map(String::as_str).zip(gradients);
    let weights = y.tanh().affine(0.3, 1.0);
    let outputs = [("loss", loss), ("weights", weights)].into_iter().chain(outputs).collect::<Vec<_>>();
    t.finish(&[], &outputs)
}

/// Central differences of `sum(weights * f(x))` with the weights held still, for every element of the first `wrt` inputs.
fn central(
    shapes: &[Vec<usize>],
    wrt: usize,
    f: &dyn for<'t> Fn(&[Tensor<'t>]) -> Tensor<'t>,
    x: &Values,
) -> Result<(), TestCaseError> {
    let program = record(shapes, f);
    let at = evaluate(&program, x, Precision::Double).unwrap();
    let (weights, gradients) = (&at[1], &at[2..]);
    let t = Trace::new();
    let inputs = shapes.iter().enumerate().map(|(i, s)| t.data(format!("x{i}"), s)).collect::<Vec<_>>();
    let values = t.finish(&[], &[("y", f(&inputs))]);
    let loss = |x: &Values| {
        let y = evaluate(&values, x, Precision::Double).unwrap();
        y[0].iter().zip(weights).map(|(y, w)| y * w).sum::<f64>()
    };
    let h = 1e-5;
    for (i, gradient) in gradients.iter().enumerate().take(wrt) {
        for (j, g) in gradient.iter().enumerate() {
            let (mut up, mut down) = (x.clone(), x.clone());
            up[i][j] += h;
            down[i][j] -= h;
            let d = (loss(&up) - loss(&down)) / (2.0 * h);
            prop_assert!(
                (d - g).abs() <= 1e-6 * (1.0 + d.abs()),
                "input {i}[{j}]: {g} recorded, {d} by differences"
            );
        }
    }
    Ok(())
}

fn values(n: usize) -> impl Strategy<Value = Vec<f64>> {
    // Away from 0, where absolute values and ramps have corners.
    prop::collection::vec(
        (0.05..2.0, any::<bool>()).prop_map(|(x, s): (f64, bool)| if s { x } else { -x }),
        n,
    )
}

fn index(n: usize, below: usize) -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec((0..below).prop_map(|i| i as f64), n)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn element_by_element(a in values(6), b in values(6)) {
        let s = vec![vec![2, 3]; 2];
        let x = vec![a.clone(), b.clone()];
        central(&s, 2, &|x| x[0].exp() * x[1].tanh() + x[0].square() - x[1].softplus(), &x)?;
        central(&s, 2, &|x| x[0].abs().sqrt() / x[1] + x[1].relu() * x[0].recip() + x[0].abs().log(), &x)?;
        if a.iter().zip(&b).all(|(a, b)| (a - b).abs() > 1e-3) {
            central(&s, 2, &|x| x[0].maximum(x[1]) * x[0] + x[0].minimum(x[1]).affine(2.0, 1.0), &x)?;
        }
    }

    #[test]
    fn shapes_and_reductions(a in values(12), b in values(3), c in values(4)) {
        let s = vec![vec![4, 3], vec![3], vec![4, 1]];
        let x = vec![a, b, c];
        central(&s, 3, &|x| (x[0] + x[1]) * x[2], &x)?;
        central(&s, 3, &|x| x[0].sum_last() * x[2].reshape(&[4]) + x[1].mean() * x[0].mean_last(), &x)?;
        central(&s, 3, &|x| x[0].sum_to(&[1, 3]).reshape(&[3]) * x[1], &x)?;
    }

    #[test]
    fn matrices(m in 1usize..4, k in 1usize..5, n in 1usize..4, ta: bool, tb: bool, seed in values(40)) {
        let a = if ta { vec![k, m] } else { vec![m, k] };
        let b = if tb { vec![n, k] } else { vec![k, n] };
        let x = vec![seed[..m * k].to_vec(), seed[20..20 + k * n].to_vec()];
        central(&[a, b], 2, &|x| x[0].matmul(x[1], ta, tb), &x)?;
    }

    #[test]
    fn layers(rows in 1usize..4, seed in values(60)) {
        for activation in [Activation::Identity, Activation::Tanh, Activation::Relu] {
            let s = [vec![rows, 3], vec![2, 3], vec![2]];
            let x = vec![seed[..rows * 3].to_vec(), seed[30..36].to_vec(), seed[50..52].to_vec()];
            let z = |r: usize, o: usize| (0..3).map(|i| x[0][r * 3 + i] * x[1][o * 3 + i]).sum::<f64>() + x[2][o];
            prop_assume!((0..rows).all(|r| (0..2).all(|o| z(r, o).abs() > 1e-3)));
            central(&s, 3, &|x| x[0].linear(x[1], x[2], activation), &x)?;
        }
    }

    /// Products of several matrices, either side one for all.
    #[test]
    fn several_matrices(n in 1usize..4, m in 1usize..3, k in 1usize..4, ta: bool, tb: bool, sides in 0usize..3, seed in values(80)) {
        let shape = |several: bool, turned: bool, rows, columns| {
            let matrix = if turned { [columns, rows] } else { [rows, columns] };
            if several { vec![n, matrix[0], matrix[1]] } else { matrix.to_vec() }
        };
        let s = [shape(sides != 1, ta, m, k), shape(sides != 2, tb, k, 2)];
        let size = |s: &[usize]| s.iter().product::<usize>();
        let x = vec![seed[..size(&s[0])].to_vec(), seed[40..40 + size(&s[1])].to_vec()];
        central(&s, 2, &|x| x[0].matmul(x[1], ta, tb), &x)?;
    }

    #[test]
    fn ensembles(n in 1usize..4, rows in 1usize..3, each: bool, seed in values(60)) {
        for activation in [Activation::Identity, Activation::Tanh, Activation::Relu] {
            let s = [if each { vec![n, rows, 3] } else { vec![rows, 3] }, vec![n, 2, 3], vec![n, 2]];
            let size = |s: &[usize]| s.iter().product::<usize>();
            let x = vec![seed[..size(&s[0])].to_vec(), seed[30..30 + 6 * n].to_vec(), seed[50..50 + 2 * n].to_vec()];
            let input = |e: usize, r: usize, i: usize| x[0][if each { (e * rows + r) * 3 + i } else { r * 3 + i }];
            let z = |e: usize, r: usize, o: usize| {
                (0..3).map(|i| input(e, r, i) * x[1][(e * 2 + o) * 3 + i]).sum::<f64>() + x[2][e * 2 + o]
            };
            prop_assume!((0..n).all(|e| (0..rows).all(|r| (0..2).all(|o| z(e, r, o).abs() > 1e-3))));
            central(&s, 3, &|x| x[0].linear(x[1], x[2], activation), &x)?;
            central(&s, 3, &|x| x[0].linear(x[1], x[2], activation).member(n - 1), &x)?;
        }
    }

    /// An LSTM layer over a rollout in which an episode begins: the gradients of inputs, state and parameters, and the same outputs step by
    /// step on plain weights.
    #[test]
    fn recurrent_layers(steps in 1usize..6, begins in 0usize..6, seed in values(100)) {
        let (inputs, units) = (2, 2);
        let sizes = [vec![steps, inputs], vec![2, units], vec![8, inputs], vec![8, units], vec![8], vec![steps]];
        let mut rest = &seed[..];
        let mut x: Values = sizes.iter().map(|s| {
            let (mine, other) = rest.split_at(s.iter().product());
            rest = other;
            mine.to_vec()
        }).collect();
        x[5] = (0..steps).map(|step| if step == begins { 0.0 } else { 1.0 }).collect();
        central(&sizes, 5, &recurrent, &x)?;

        let t = Trace::new();
        let recorded = sizes.iter().enumerate().map(|(i, s)| t.data(format!("x{i}"), s)).collect::<Vec<_>>();
        let program = t.finish(&[], &[("hidden", recurrent(&recorded))]);
        let hidden = evaluate(&program, &x, Precision::Double).unwrap().remove(0);
        let single = |x: &[f64]| x.iter().map(|x| *x as f32).collect::<Vec<_>>();
        let mut layer = Lstm::new(inputs, units, [2, 3, 4].map(|i| single(&x[i]))).unwrap();
        let mut state = single(&x[1]);
        for step in 0..steps {
            state.iter_mut().for_each(|s| *s *= x[5][step] as f32);
            layer.step(&single(&x[0][step * inputs..][..inputs]), &mut state);
            for (plain, recorded) in state[..units].iter().zip(&hidden[step * units..]) {
                prop_assert!((f64::from(*plain) - recorded).abs() < 1e-5, "step {step}: {plain}, {recorded} recorded");
            }
        }
    }

    #[test]
    fn columns_and_choices(a in values(12), b in values(8), when in -1.0..1.0f64) {
        let s = [vec![2, 2, 3], vec![2, 2, 2], vec![]];
        let x = vec![a, b, vec![when]];
        central(&s, 2, &|x| x[0].concat(x[1]).square(), &x)?;
        central(&s, 2, &|x| x[0].slice_last(1, 2) * x[1] + x[0].slice_last(0, 2), &x)?;
        central(&s, 2, &|x| x[0].slice_last(0, 2).select(x[2], x[1]) * x[1], &x)?;
        central(&s, 2, &|x| x[0].reshape(&[12]).concat(x[1].reshape(&[8])).slice_last(5, 9).exp(), &x)?;
    }

    #[test]
    fn layer_normalisation(x in values(12), gain in values(4)) {
        let rows = x.chunks_exact(4).map(|row| row.iter().map(|v| (v - row[0]).powi(2)).sum::<f64>());
        prop_assume!(rows.into_iter().all(|spread| spread > 0.1));
        central(&[vec![3, 4], vec![4]], 2, &|x| x[0].layer_norm(1e-5) * x[1], &vec![x, gain])?;
    }

    /// Derivatives of derivatives, each by central differences of the first one.
    #[test]
    fn gradients_of_gradients(seed in values(60), action in index(3, 4)) {
        for activation in [Activation::Identity, Activation::Tanh, Activation::Relu] {
            // Two critics of three inputs and two hidden units, and what the second of two layers says of them.
            let s = [vec![2, 3], vec![2, 2, 3], vec![2, 2], vec![2, 1, 2], vec![2, 1]];
            let (mut from, mut x) = (0, Vec::new());
            for s in &s {
                let n = s.iter().product::<usize>();
                x.push(seed[from..from + n].to_vec());
                from += n;
            }
            let z = |e: usize, r: usize, o: usize| {
                (0..3).map(|i| x[0][r * 3 + i] * x[1][(e * 2 + o) * 3 + i]).sum::<f64>() + x[2][e * 2 + o]
            };
            prop_assume!((0..2).all(|e| (0..2).all(|r| (0..2).all(|o| z(e, r, o).abs() > 1e-3))));
            central(&s, 5, &|x| second(x, activation), &x)?;
        }
        let s = [vec![3, 4], vec![3]];
        let x = vec![seed[..12].to_vec(), action];
        central(&s, 1, &|x| grad((x[0].log_softmax() * x[0]).sum(), &[x[0]])[0], &x)?;
        central(&s, 1, &|x| grad(x[0].softmax().square().sum() + x[0].pick(x[1]).exp().sum(), &[x[0]])[0], &x)?;
        central(&s, 1, &|x| grad((x[0].logsumexp() * x[0].relu().sum_last()).sum(), &[x[0]])[0], &x)?;
        central(&s, 1, &|x| grad((x[0].tanh() * x[0].abs().sqrt()).sum(), &[x[0]])[0], &x)?;
        central(&s, 1, &|x| grad((x[0].layer_norm(0.1) * x[0]).sum(), &[x[0]])[0], &x)?;
        central(&s, 1, &|x| grad(x[0].square().concat(x[0].slice_last(1, 2).exp()).square().sum(), &[x[0]])[0], &x)?;
        let conv = Conv { stride: 2, padding: 1 };
        let s = [vec![1, 1, 3, 4], vec![2, 1, 2, 2], vec![2]];
        let x = vec![seed[..12].to_vec(), seed[20..28].to_vec(), seed[30..32].to_vec()];
        for towards in [0, 1] {
            central(&s, 3, &|x| {
                let y = x[0].conv2d(x[1], x[2], conv, Activation::Tanh);
                grad(y.square().sum(), &[x[towards]])[0]
            }, &x)?;
        }
    }

    #[test]
    fn log_softmax_family(x in values(12), action in index(4, 3)) {
        let s = [vec![4, 3], vec![4]];
        let x = vec![x, action];
        central(&s, 1, &|x| x[0].log_softmax() * x[0] + x[0].softmax(), &x)?;
        central(&s, 1, &|x| x[0].logsumexp() - x[0].pick(x[1]), &x)?;
    }

    #[test]
    fn gathers(x in values(24), action in index(4, 3), rows in index(5, 4)) {
        let s = [vec![4, 3, 2], vec![4], vec![5]];
        let x = vec![x, action, rows];
        central(&s, 1, &|x| x[0].pick(x[1]), &x)?;
        central(&s, 1, &|x| x[0].rows(x[2]).square(), &x)?;
        central(&s, 1, &|x| x[0].rows(x[2]).sum_last().sum_last() * x[0].sum().exp().recip(), &x)?;
    }

    #[test]
    fn quantile_huber(theta in values(10), target in values(14), kappa in 0.3..1.5f64) {
        let corner = |d: f64| d.abs() < 1e-3 || (d.abs() - kappa).abs() < 1e-3_f64;
        prop_assume!((0..2).all(|b| (0..5).all(|i| (0..7).all(|j| !corner(target[b * 7 + j] - theta[b * 5 + i])))));
        let s = [vec![2, 5], vec![2, 7]];
        central(&s, 1, &|x| x[0].quantile_huber(x[1].stop_gradient(), kappa), &vec![theta, target])?;
    }

    #[test]
    fn convolutions(size in 4usize..7, kernel in 1usize..4, stride in 1usize..3, padding in 0usize..2, seed in values(400)) {
        prop_assume!(padding < kernel);
        let conv = Conv { stride, padding };
        let s = [vec![2, 2, size, size + 1], vec![3, 2, kernel, kernel], vec![3]];
        let n = |s: &[usize]| s.iter().product::<usize>();
        let x = vec![seed[..n(&s[0])].to_vec(), seed[200..200 + n(&s[1])].to_vec(), seed[390..393].to_vec()];
        central(&s, 3, &|x| x[0].conv2d(x[1], x[2], conv, Activation::Tanh), &x)?;
    }

    /// A two-layer QR-DQN loss with BASE, written in candle with candle's pairwise quantile loss and differentiated by candle.
    #[test]
    fn candle_autograd_agrees(seed in values(200), action in index(5, 2), teacher in index(5, 2), target in values(20)) {
        let (batch, actions, quantiles, hidden) = (5, 2, 4, 6);
        let s = [vec![batch, 3], vec![hidden, 3], vec![hidden], vec![actions * quantiles, hidden], vec![actions * quantiles]];
        let mut from = 0;
        let mut x = s.iter().map(|s| {
            let n = s.iter().product::<usize>();
            from += n;
            seed[from - n..from].to_vec()
        }).collect::<Vec<_>>();
        x.extend([action.clone(), teacher.clone(), target.clone()]);

        let t = Trace::new();
        let shapes = s.iter().cloned().chain([vec![batch], vec![batch], vec![batch, quantiles]]);
        let i = shapes.enumerate().map(|(i, s)| t.data(format!("x{i}"), &s)).collect::<Vec<_>>();
        let theta = i[0].linear(i[1], i[2], Activation::Relu).linear(i[3], i[4], Activation::Identity);
        let theta = theta.reshape(&[batch, actions, quantiles]);
        let q = theta.mean_last();
        let loss = theta.pick(i[5]).quantile_huber(i[7], 1.0).mean() + (q.logsumexp() - q.pick(i[6])).mean();
        let gradients = grad(loss, &i[1..5]);
        let program = t.finish(&[], &[("loss", loss), ("w0", gradients[0]), ("b0", gradients[1]), ("w1", gradients[2]), ("b1", gradients[3])]);
        let ours = evaluate(&program, &x, Precision::Double).unwrap();

        let reference = || -> candle_core::Result<Values> {
            let tensor = |i: usize, s: &[usize]| Candle::from_slice(&x[i], s, &Device::Cpu);
            let vars = (1..5).map(|i| Var::from_tensor(&tensor(i, &s[i])?)).collect::<candle_core::Result<Vec<_>>>()?;
            let layer = |x: &Candle, w: &Var, b: &Var| x.matmul(&w.as_tensor().t()?)?.broadcast_add(b.as_tensor());
            let h = layer(&tensor(0, &s[0])?, &vars[0], &vars[1])?.relu()?;
            let theta = layer(&h, &vars[2], &vars[3])?.reshape((batch, actions, quantiles))?;
            let index = |a: &[f64]| Candle::from_slice(a, (batch, 1, 1), &Device::Cpu)?.to_dtype(DType::U32);
            let chosen = theta.gather(&index(&action)?.broadcast_as((batch, 1, quantiles))?.contiguous()?, 1)?.squeeze(1)?;
            let target = Candle::from_slice(&target, (batch, 1, quantiles), &Device::Cpu)?;
            let d = target.broadcast_sub(&chosen.unsqueeze(2)?)?;
            let small = d.abs()?.minimum(1.0)?;
            let huber = (&small * (d.abs()? - (&small * 0.5)?)?)?;
            let tau = (Candle::arange(0.0, quantiles as f64, &Device::Cpu)? + 0.5)?.affine(1.0 / quantiles as f64, 0.0)?;
            let weight = tau.reshape((1, quantiles, 1))?.broadcast_sub(&d.lt(0.0)?.to_dtype(DType::F64)?)?.abs()?;
            let task = (weight.detach() * huber)?.sum(2)?.mean_all()?;
            let q = theta.mean(2)?;
            let picked = q.gather(&index(&teacher)?.squeeze(2)?, 1)?.squeeze(1)?;
            let loss = (task + (q.log_sum_exp(D::Minus1)? - picked)?.mean_all()?)?;
            let store = loss.backward()?;
            let mut all = vec![vec![loss.to_scalar()?]];
            for v in &vars {
                all.push(store.get(v.as_tensor()).expect("a gradient").flatten_all()?.to_vec1()?);
            }
            Ok(all)
        };
        for (ours, reference) in ours.iter().zip(reference().unwrap()) {
            for (a, b) in ours.iter().zip(reference) {
                prop_assert!((a - b).abs() < 1e-9 * (1.0 + b.abs()), "{a} here, {b} in candle");
            }
        }
    }

    /// Convolution's gradients against candle's autograd, on the Atari network's kinds of layers in small.
    #[test]
    fn candle_autograd_agrees_on_convolution(seed in values(400), stride in 1usize..4, kernel in 1usize..5) {
        let (x, w) = ([2usize, 2, 7, 7], [3usize, 2, kernel, kernel]);
        let (n, m) = (196, 6 * kernel * kernel);
        let values = vec![seed[..n].to_vec(), seed[n..n + m].to_vec(), seed[350..353].to_vec()];
        let t = Trace::new();
        let i = [t.data("x", &x), t.data("w", &w), t.data("b", &[3])];
        let loss = i[0].conv2d(i[1], i[2], Conv { stride, padding: 0 }, Activation::Identity).square().mean();
        let g = grad(loss, &i);
        let program = t.finish(&[], &[("x", g[0]), ("w", g[1]), ("b", g[2])]);
        let ours = evaluate(&program, &values, Precision::Double).unwrap();
        let var = |i: usize, s: &[usize]| Var::from_tensor(&Candle::from_slice(&values[i], s, &Device::Cpu).unwrap()).unwrap();
        let (x, w, b) = (var(0, &x), var(1, &w), var(2, &[1, 3, 1, 1]));
        let y = x.as_tensor().conv2d(w.as_tensor(), 0, stride, 1, 1).unwrap().broadcast_add(b.as_tensor()).unwrap();
        let store = y.sqr().unwrap().mean_all().unwrap().backward().unwrap();
        for (ours, v) in ours.iter().zip([&x, &w, &b]) {
            let reference = store.get(v.as_tensor()).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for (a, b) in ours.iter().zip(reference) {
                prop_assert!((a - b).abs() < 1e-9 * (1.0 + b.abs()), "{a} here, {b} in candle");
            }
        }
    }
}

#[test]
fn an_index_outside_is_an_error() {
    let t = Trace::new();
    let y = t.data("x", &[2, 3]).pick(t.data("i", &[2]));
    let program = t.finish(&[], &[("y", y)]);
    for bad in [3.0, -1.0, 0.5, f64::NAN] {
        let e = evaluate(&program, &[vec![0.0; 6], vec![0.0, bad]], Precision::Single).unwrap_err();
        assert!(e.to_string().contains("index"), "{e}");
    }
}

#[test]
fn nothing_flows_where_nothing_leads() {
    let t = Trace::new();
    let (x, z) = (t.data("x", &[2]), t.data("z", &[3]));
    let g = grad((x.stop_gradient() * x).sum(), &[x, z]);
    let program = t.finish(&[], &[("x", g[0]), ("z", g[1])]);
    let values = evaluate(&program, &[vec![2.0, 5.0], vec![1.0; 3]], Precision::Single).unwrap();
    assert_eq!(values, [vec![2.0, 5.0], vec![0.0; 3]]);
}
