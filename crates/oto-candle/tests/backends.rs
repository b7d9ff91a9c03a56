//! The compiled backends hold to the reference: the same programs, the same numbers, step after step.

use oto_candle::Candle;
use oto_cpu::Cpu;
use oto_env::rng::Rng;
use oto_graph::{Activation, Backend, Conv, Executable, InputId, Plan, Program, Role, Tensor, Trace, grad};
use oto_rl::actions::Actions;
use oto_rl::algorithms::a3c::{self, A3cConfig};
use oto_rl::algorithms::awac::AwacConfig;
use oto_rl::algorithms::cal_ql::CalQlConfig;
use oto_rl::algorithms::cql_ensemble::CqlEnsembleConfig;
use oto_rl::algorithms::edac::EdacConfig;
use oto_rl::algorithms::iql::IqlConfig;
use oto_rl::algorithms::ppo::{self, PpoConfig};
use oto_rl::algorithms::qrdqn::{QrDqnConfig, program};
use oto_rl::algorithms::sac::SacConfig;
use oto_rl::algorithms::sac_discrete;
use oto_rl::algorithms::td3_bc::Td3BcConfig;
use oto_rl::algorithms::{AlgorithmConfig, Sizes};
use oto_rl::aligner;
use oto_rl::convolution::{Convolution, ConvolutionLayer};
use oto_rl::distillation::{AlignmentConfig, DistillationConfig, DistillationHead, DistillationTeacher};
use oto_rl::losses::collaborative::AlignmentActivation;
use oto_rl::losses::distillation::Divergence;
use oto_rl::losses::ensemble::edac_diversity;
use oto_rl::optimiser::{Adam, Optimiser, Updates, clipped, ensemble_parameters, mlp, mlp_parameters};
use oto_wgpu::{Gpu, Wgpu};
use std::sync::{Arc, OnceLock};

fn close(a: &[f32], b: &[f32], tolerance: f32, what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{what}[{i}]: {a} here, {b} in candle");
    }
}

/// The device, the same for all tests of this process: a software one serves as well.
fn gpu() -> Arc<Gpu> {
    static GPU: OnceLock<Arc<Gpu>> = OnceLock::new();
    GPU.get_or_init(|| Gpu::wait().expect("a Vulkan driver, for instance Mesa's lavapipe")).clone()
}

/// The backends that are tried.
fn backends() -> Vec<Box<dyn Backend>> {
    vec![Box::new(Cpu), Box::new(Wgpu { gpu: gpu(), fallback: || Box::new(Cpu), now: oto_wgpu::now })]
}

fn pair(backend: &dyn Backend, program: &Program, rng: &mut Rng) -> [Box<dyn Executable>; 2] {
    let mut both = [backend.compile(program.clone()).unwrap(), Candle.compile(program.clone()).unwrap()];
    for (i, input) in program.inputs.iter().enumerate().filter(|(_, i)| i.role == Role::State) {
        // Moments and counters start as zeros.
        let scale = if input.name.starts_with("adam") { 0.0 } else { 0.5 };
        let values = (0..input.len()).map(|_| (rng.normal() * scale) as f32).collect::<Vec<_>>();
        both.iter_mut().for_each(|e| e.write(InputId(i), &values).unwrap());
    }
    both
}

fn outputs(program: &Program) -> Vec<Vec<f32>> {
    vec![Vec::new(); program.outputs.len()]
}

/// A batch as replay gives it, every value drawn; `actions` is how many there are where they are discrete.
fn draw(name: &str, len: usize, actions: Option<usize>, rng: &mut Rng) -> Vec<f32> {
    match name.strip_prefix("replay.").unwrap_or(name) {
        "action" | "teacher_action" => match actions {
            Some(n) => (0..len).map(|_| rng.below(n as u32) as f32).collect(),
            None => (0..len).map(|_| rng.uniform(-1.0, 1.0) as f32).collect(),
        },
        "mask" | "return_known" | "source" | "subset" | "lstm_keep" => {
            (0..len).map(|_| rng.below(2) as f32).collect()
        }
        "perm" => {
            let mut order = (0..len).collect::<Vec<_>>();
            rng.shuffle(&mut order);
            order.into_iter().map(|i| i as f32).collect()
        }
        "discount" => (0..len).map(|_| 0.99 * rng.below(2) as f32).collect(),
        "lr" => vec![1e-3],
        "every_2" | "every_3" => vec![rng.below(2) as f32],
        "target_mix" => vec![rng.below(3) as f32 * 0.5],
        "alpha_aikd" | "delta" | "eta" | "alpha_task" | "constraint" => vec![rng.f64() as f32],
        name if name.ends_with(".mask") => (0..len).map(|_| rng.below(2) as f32).collect(),
        name if name.starts_with("uniform.") => (0..len).map(|_| rng.uniform(-1.0, 1.0) as f32).collect(),
        _ => (0..len).map(|_| rng.normal() as f32).collect(),
    }
}

#[test]
fn train_steps_agree_on_many_shapes() {
    for backend in backends() {
        train_steps(backend.as_ref());
    }
}

fn train_steps(backend: &dyn Backend) {
    for (seed, hidden, quantiles, batch, actions, teachers, double) in [
        (1, vec![64, 64], 32, 64, 2, 1, false),
        (2, vec![17], 5, 7, 3, 2, true),
        (3, vec![8, 33, 5], 1, 1, 2, 0, false),
        (4, vec![16], 20, 12, 6, 3, false),
    ] {
        let config = QrDqnConfig { hidden, quantiles, batch_size: batch, double, ..QrDqnConfig::default() };
        let sizes = Sizes { observation: 4, actions: Actions::Discrete(actions), teachers, weighted: false };
        let program = program(&config, sizes);
        same_steps(backend, &program, Some(actions), seed, 60);
    }
}

#[test]
fn steps_of_discrete_sac_agree() {
    for (seed, actions, teachers) in [(10, 2, 1), (11, 5, 0)] {
        let config = SacConfig { hidden: vec![9, 8], batch_size: 12, ..SacConfig::default() };
        let sizes = Sizes { observation: 4, actions: Actions::Discrete(actions), teachers, weighted: false };
        let program = sac_discrete::program(&config, sizes);
        backends().iter().for_each(|b| same_steps(b.as_ref(), &program, Some(actions), seed, 60));
    }
}

#[test]
fn steps_of_ppo_agree() {
    for (seed, actions, fusion, teachers) in [
        (5, Actions::Discrete(3), false, 1),
        (7, Actions::Discrete(2), true, 2),
        (8, Actions::Continuous(3), true, 1),
    ] {
        let config =
            PpoConfig { hidden: vec![9, 8], batch_size: 12, fusion, samples: 3, ..PpoConfig::default() };
        let program = ppo::program(&config, Sizes { observation: 4, actions, teachers, weighted: false });
        let discrete = match actions {
            Actions::Discrete(n) => Some(n),
            Actions::Continuous(_) => None,
        };
        backends().iter().for_each(|b| same_steps(b.as_ref(), &program, discrete, seed, 60));
    }
}

#[test]
fn steps_of_a3c_agree() {
    for (seed, actions, teachers, max_grad_norm, lstm) in
        [(5, 3, 0, 40.0, None), (7, 2, 2, 0.5, None), (8, 3, 1, 40.0, Some(6)), (9, 2, 0, 0.5, Some(33))]
    {
        // A rollout of an LSTM layer is many kernels, which a software device runs slowly.
        let (t_max, steps) = if lstm.is_some() { (5, 10) } else { (12, 60) };
        let config = A3cConfig { hidden: vec![9, 8], lstm, t_max, max_grad_norm, ..A3cConfig::default() };
        let sizes = Sizes { observation: 4, actions: Actions::Discrete(actions), teachers, weighted: false };
        let program = a3c::program(&config, sizes);
        backends().iter().for_each(|b| same_steps(b.as_ref(), &program, Some(actions), seed, steps));
    }
}

/// A distillation onto the policy and onto heads, with alignment networks and without, and the alignment network's own steps.
#[test]
fn steps_of_distillation_agree() {
    let teachers = [3, 4].map(|actions| DistillationTeacher { actions, weight: 0.5 }).to_vec();
    for (seed, to, align, divergence) in [
        (5, DistillationHead::Policy, None, Divergence::Printed),
        (6, DistillationHead::Head, None, Divergence::BothTempered),
        (7, DistillationHead::Head, Some(AlignmentActivation::Relu), Divergence::Printed),
        (8, DistillationHead::Policy, Some(AlignmentActivation::Elu), Divergence::OfficialCode),
    ] {
        let alignment = align.map(|activation| AlignmentConfig {
            hidden: vec![9, 8],
            activation,
            ..AlignmentConfig::default()
        });
        let config = DistillationConfig {
            teachers: teachers.clone(),
            to,
            match_by_index: true,
            temperature: 2.0,
            divergence,
            task_weight: 0.5,
            alignment: alignment.clone(),
            ..DistillationConfig::default()
        };
        let sizes = Sizes { observation: 4, actions: Actions::Discrete(3), teachers: 1, weighted: false };
        let student = A3cConfig {
            hidden: vec![9, 8],
            t_max: 12,
            distillation: Some(config.clone()),
            ..A3cConfig::default()
        };
        for backend in backends() {
            same_steps(backend.as_ref(), &a3c::program(&student, sizes), Some(3), seed, 60);
            if alignment.is_some() {
                same_steps(backend.as_ref(), &aligner::program(&config, [4, 3], 12), None, seed, 60);
            }
        }
    }
}

/// Algorithms that learn from datasets and go on online, with teachers and without.
#[test]
fn steps_of_learners_from_data_agree() {
    let (hidden, batch_size, samples) = (vec![9, 8], 12, 3);
    let td3_bc = Td3BcConfig { hidden: hidden.clone(), batch_size, samples, ..Td3BcConfig::default() };
    let printed = Td3BcConfig { scale_by_data: true, normalise: false, ..td3_bc.clone() };
    let iql = IqlConfig { hidden: hidden.clone(), batch_size, samples, ..IqlConfig::default() };
    let deterministic = IqlConfig { deterministic: true, ..iql.clone() };
    let awac = AwacConfig { hidden: hidden.clone(), batch_size, samples, ..AwacConfig::default() };
    let cal_ql = CalQlConfig { hidden: hidden.clone(), batch_size, samples, ..CalQlConfig::default() };
    let expected = CalQlConfig { printed: true, max_target: false, ..cal_ql.clone() };
    let ensemble =
        CqlEnsembleConfig { agents: 2, hidden: hidden.clone(), batch_size, samples, ..Default::default() };
    let edac = EdacConfig { hidden, batch_size, samples, critics: 3, ..EdacConfig::default() };
    let many = EdacConfig { eta: 0.0, ..edac.clone() };
    let (line, choice) = (Actions::Continuous(2), Actions::Discrete(3));
    let cases: [(AlgorithmConfig, Actions, usize); 14] = [
        (td3_bc.into(), line, 0),
        (printed.into(), line, 1),
        (iql.clone().into(), line, 1),
        (deterministic.into(), line, 0),
        (iql.into(), choice, 1),
        (awac.clone().into(), line, 0),
        (awac.into(), choice, 0),
        (edac.into(), line, 0),
        (many.into(), line, 1),
        (cal_ql.clone().into(), line, 1),
        (expected.clone().into(), line, 0),
        (cal_ql.into(), choice, 1),
        (expected.into(), choice, 0),
        (ensemble.into(), line, 0),
    ];
    for (seed, (config, actions, teachers)) in cases.into_iter().enumerate() {
        let program = config.program(Sizes { observation: 4, actions, teachers, weighted: false });
        let discrete = (actions == choice).then_some(3);
        backends().iter().for_each(|b| same_steps(b.as_ref(), &program, discrete, 20 + seed as u64, 20));
    }
}

/// Algorithms that continue offline agents in an environment, and those that make such agents: the CPU and candle.
#[test]
fn steps_of_learners_that_continue_online_agree() {
    let (line, choice) = (Actions::Continuous(2), Actions::Discrete(3));
    let few = r#","critics":3,"samples":3,"policy_period":3"#;
    let conservative = r#","critics":3,"samples":3,"conservative_samples":2"#;
    let models = r#","models":3,"model_hidden":[7],"horizon":2,"samples":3"#;
    for (seed, (name, settings, actions, teachers)) in [
        ("redq", few, line, 1),
        ("rlpd", few, line, 0),
        ("wsrl", few, line, 0),
        ("pex", r#","samples":3"#, line, 1),
        ("pex", "", choice, 0),
        ("sac-ml", r#","samples":3"#, line, 0),
        ("aca", "", line, 0),
        ("balanced-replay", r#","agents":2"#, line, 0),
        ("balanced-replay", r#","agents":2"#, choice, 0),
        ("cql-ensemble", r#","agents":2"#, choice, 0),
        ("upq", conservative, line, 0),
        ("gcql", conservative, line, 0),
        ("adaptive-bc", r#","critics":3,"samples":3"#, line, 1),
        ("td3-bc-refined", r#","refine":5,"samples":3"#, line, 0),
        ("gctd3bc", r#","samples":3"#, line, 0),
        ("mopo", models, line, 0),
        ("bc", r#","for_ppo":true"#, line, 0),
        ("bc", r#","for_ppo":true"#, choice, 0),
    ]
    .into_iter()
    .enumerate()
    {
        let text = format!(r#"{{"name":"{name}","hidden":[9,8],"batch_size":12{settings}}}"#);
        let config: AlgorithmConfig = oto_json::read(&text).unwrap();
        let program = config.program(Sizes { observation: 4, actions, teachers, weighted: false });
        let discrete = (actions == choice).then_some(3);
        same_steps(&Cpu, &program, discrete, 50 + seed as u64, 9);
    }
}

/// Students that see images: the losses are the same, and so must be the steps.
#[test]
fn train_steps_that_see_images_agree() {
    let layer = |channels, kernel, stride| ConvolutionLayer { channels, kernel, stride };
    for (seed, shape, layers, double) in [
        (5, [2, 12, 11], vec![layer(5, 4, 2), layer(3, 3, 1)], false),
        (6, [1, 6, 6], vec![layer(17, 2, 2)], true),
    ] {
        let convolution = Convolution { shape, layers };
        let observation = convolution.inputs();
        let config = QrDqnConfig {
            convolution: Some(convolution),
            hidden: vec![12],
            quantiles: 6,
            batch_size: 5,
            double,
            ..QrDqnConfig::default()
        };
        for backend in backends() {
            let sizes = Sizes { observation, actions: Actions::Discrete(3), teachers: 1, weighted: false };
            let program = program(&config, sizes);
            same_steps(backend.as_ref(), &program, Some(3), seed, 20);
        }
    }
    let convolution = Convolution { shape: [2, 7, 6], layers: vec![layer(4, 3, 2)] };
    let observation = convolution.inputs();
    let sac = SacConfig {
        convolution: Some(convolution.clone()),
        hidden: vec![12],
        batch_size: 8,
        ..SacConfig::default()
    };
    let a3c = A3cConfig {
        convolution: Some(convolution.clone()),
        hidden: vec![12],
        t_max: 8,
        ..A3cConfig::default()
    };
    let config = PpoConfig {
        convolution: Some(convolution),
        hidden: vec![12],
        n_steps: 8,
        batch_size: 8,
        ..PpoConfig::default()
    };
    for backend in backends() {
        let sizes = Sizes { observation, actions: Actions::Continuous(2), teachers: 0, weighted: false };
        same_steps(backend.as_ref(), &ppo::program(&config, sizes), None, 7, 6);
        let sizes = Sizes { teachers: 1, ..sizes };
        same_steps(backend.as_ref(), &oto_rl::algorithms::sac::program(&sac, sizes), None, 8, 4);
        let sizes = Sizes { actions: Actions::Discrete(3), ..sizes };
        same_steps(backend.as_ref(), &sac_discrete::program(&sac, sizes), Some(3), 9, 4);
        same_steps(backend.as_ref(), &a3c::program(&a3c, sizes), Some(3), 10, 6);
        let recurrent = A3cConfig { lstm: Some(5), t_max: 4, ..a3c.clone() };
        same_steps(backend.as_ref(), &a3c::program(&recurrent, sizes), Some(3), 11, 6);
    }
}

/// So many steps here and in candle, from the same state on the same data.
fn same_steps(backend: &dyn Backend, program: &Program, actions: Option<usize>, seed: u64, steps: usize) {
    let rng = &mut Rng::new(seed);
    let [mut ours, mut reference] = pair(backend, program, rng);
    let (mut a, mut b) = (outputs(program), outputs(program));
    let sees_images = program.inputs.iter().any(|i| i.name.contains(".encoder."));
    for step in 0..steps {
        let mut data = program.data().map(|(_, i)| draw(&i.name, i.len(), actions, rng)).collect::<Vec<_>>();
        if sees_images {
            let seen =
                data.iter_mut().zip(program.data()).filter(|(_, (_, i))| i.name.ends_with("observation"));
            seen.for_each(|(x, _)| x.iter_mut().for_each(|x| *x = rng.below(256) as f32));
        }
        let data = data.iter().map(Vec::as_slice).collect::<Vec<_>>();
        ours.run(&data, &mut a).unwrap();
        reference.run(&data, &mut b).unwrap();
        for ((a, b), (name, _)) in a.iter().zip(&b).zip(&program.outputs) {
            close(a, b, 1e-3, &format!("{}, seed {seed}, step {step}, {name}", backend.name()));
        }
    }
    for (i, input) in program.inputs.iter().enumerate().filter(|(_, i)| i.role == Role::State) {
        let (mut a, mut b) = (vec![0.0; input.len()], vec![0.0; input.len()]);
        ours.read(InputId(i), &mut a).unwrap();
        reference.read(InputId(i), &mut b).unwrap();
        close(&a, &b, 2e-3, &format!("{}, seed {seed}, {}", backend.name(), input.name));
    }
}

#[test]
fn long_gradients_are_cut_and_short_ones_left() {
    let t = Trace::new();
    let (x, y) = (t.data("x", &[2]), t.data("y", &[1, 1]));
    let cut = clipped(&[x, y], 0.5);
    let program = t.finish(&[], &[("x", cut[0]), ("y", cut[1])]);
    for backend in backends() {
        let run = |x: [f32; 2], y: f32| {
            let mut out = outputs(&program);
            backend.compile(program.clone()).unwrap().run(&[&x, &[y]], &mut out).unwrap();
            out.concat()
        };
        close(&run([2.0, 4.0], 4.0), &[1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0], 1e-5, "a length of 6");
        close(&run([0.1, 0.2], 0.2), &[0.1, 0.2, 0.2], 1e-6, "a length of 0.3");
        close(&run([0.0, 0.0], 0.0), &[0.0, 0.0, 0.0], 0.0, "no length");
    }
}

/// Value and gradients of a formula on drawn inputs.
fn check(shapes: &[&[usize]], f: impl for<'t> Fn(&[Tensor<'t>]) -> Tensor<'t>) {
    backends().iter().for_each(|b| check_one(b.as_ref(), shapes, &f));
}

fn check_one(backend: &dyn Backend, shapes: &[&[usize]], f: impl for<'t> Fn(&[Tensor<'t>]) -> Tensor<'t>) {
    let t = Trace::new();
    let x = shapes.iter().enumerate().map(|(i, s)| t.data(format!("x{i}"), s)).collect::<Vec<_>>();
    let y = f(&x);
    let gradients = grad((y * y.tanh()).sum(), &x);
    let names = (0..x.len()).map(|i| format!("gradient {i}")).collect::<Vec<_>>();
    let named = names.iter().map(String::as_str).zip(gradients).chain([("y", y)]).collect::<Vec<_>>();
    let program = t.finish(&[], &named);
    let rng = &mut Rng::new(7);
    let [mut ours, mut reference] = pair(backend, &program, rng);
    let data =
        shapes.iter().map(|s| (0..s.iter().product()).map(|_| rng.normal() as f32).collect::<Vec<_>>());
    let data = data.collect::<Vec<_>>();
    let data = data.iter().map(Vec::as_slice).collect::<Vec<_>>();
    let (mut a, mut b) = (outputs(&program), outputs(&program));
    ours.run(&data, &mut a).unwrap();
    reference.run(&data, &mut b).unwrap();
    for ((a, b), (name, _)) in a.iter().zip(&b).zip(&program.outputs) {
        close(a, b, 1e-4, &format!("{} {name} of {shapes:?}", backend.name()));
    }
}

#[test]
fn operations_agree() {
    check(&[&[5, 3], &[5, 3]], |x| x[0].exp() * x[1].softplus() + x[0].square().recip() - x[1].abs().sqrt());
    check(&[&[5, 3], &[3]], |x| x[0].maximum(x[1]) + x[0].minimum(x[1]) / x[1].square().affine(1.0, 1.0));
    check(&[&[2, 3, 4], &[3, 1], &[1, 1, 4]], |x| x[0] * x[1] + x[2].relu());
    check(&[&[5, 19], &[19, 21]], |x| x[0].matmul(x[1], false, false));
    check(&[&[19, 5], &[21, 19]], |x| x[0].matmul(x[1], true, true));
    check(&[&[4, 7]], |x| x[0].log_softmax() + x[0].square().affine(1.0, 1.0).log());
    check(&[&[4, 7]], |x| x[0].logsumexp() * x[0].max_last().stop_gradient() + x[0].mean_last());
    check(&[&[9, 6], &[33, 6], &[33]], |x| x[0].linear(x[1], x[2], Activation::Tanh));
    check(&[&[3, 5, 4], &[3, 5, 2]], |x| x[0].concat(x[1]).slice_last(1, 4) * x[0]);
    check(&[&[5, 33], &[5, 18]], |x| x[0].concat(x[1].square()).slice_last(20, 31).tanh());
    check(&[&[7], &[4]], |x| x[0].exp().concat(x[1]).slice_last(3, 5));
    check(&[&[6, 20], &[20], &[20]], |x| x[0].layer_norm(1e-5) * x[1] + x[2]);
    check(&[&[9]], |x| x[0].layer_norm(1e-3));
    check(&[&[6, 3], &[6, 3], &[]], |x| x[0].exp().select(x[2], x[1].square()) + x[1]);
    check(&[&[], &[], &[]], |x| x[0].exp().select(x[2], x[1].square()) + x[1]);
    check(&[&[2, 5, 3], &[2, 5, 3]], |x| {
        let [a, b] = [x[0], x[1]].map(|x| x.member(1).sum_last());
        a.minimum(b) + x[0].member(0).max_last().stop_gradient()
    });
    for (stride, padding) in [(1, 0), (2, 1), (3, 0)] {
        let conv = Conv { stride, padding };
        check(&[&[2, 3, 9, 8], &[4, 3, 3, 3], &[4]], |x| x[0].conv2d(x[1], x[2], conv, Activation::Relu));
    }
}

/// Products and layers of several matrices, of shapes that are drawn: either side one for all, or each its own.
#[test]
fn several_products_agree() {
    let rng = &mut Rng::new(21);
    let mut size = |most: u32| 1 + rng.below(most) as usize;
    for round in 0..4 {
        let (n, m, k, c) = (size(5), size(20), size(40), size(40));
        let (ta, tb) = (round % 2 == 0, round % 3 == 0);
        let matrix = |turned: bool, rows, columns| if turned { [columns, rows] } else { [rows, columns] };
        let (a, b) = (matrix(ta, m, k), matrix(tb, k, c));
        let several = |s: [usize; 2]| vec![n, s[0], s[1]];
        check(&[&several(a), &several(b)], |x| x[0].matmul(x[1], ta, tb));
        check(&[&a, &several(b)], |x| x[0].matmul(x[1], ta, tb));
        check(&[&several(a), &b], |x| x[0].matmul(x[1], ta, tb));
        let activation = [Activation::Identity, Activation::Relu, Activation::Tanh][round % 3];
        check(&[&[m, k], &[n, c, k], &[n, c], &[n, 1, c], &[n, 1]], |x| {
            x[0].linear(x[1], x[2], activation).linear(x[3], x[4], activation)
        });
        check(&[&[n, m, k], &[n, c, k], &[n, c]], |x| x[0].linear(x[1], x[2], activation).member(n - 1));
    }
}

#[test]
fn gradients_of_gradients_agree() {
    for activation in [Activation::Relu, Activation::Tanh] {
        check(&[&[4, 3], &[2, 9, 3], &[2, 9], &[2, 1, 9], &[2, 1]], |x| {
            let q = x[0].linear(x[1], x[2], activation).linear(x[3], x[4], Activation::Identity);
            grad(q.square().sum(), &[x[0]])[0]
        });
    }
    check(&[&[4, 7]], |x| grad((x[0].log_softmax() * x[0]).sum(), &[x[0]])[0]);
}

/// A delayed actor-critic on three critics with layer normalisation and EDAC's diversity: an optimiser at every update with its
/// gradients cut, one at every second, slow copies at every third or second, and an actor's loss on the critics' newest values.
fn delayed(newest: bool, slow: u64) -> Program {
    let t = &Trace::new();
    let [n, batch, observed, acted] = [3, 6, 4, 2];
    let sizes = [observed + acted, 9, 1];
    let critics = ensemble_parameters(t, "critics.", n, &sizes);
    let targets = ensemble_parameters(t, "target.critics.", n, &sizes);
    let actor = mlp_parameters(t, "actor.", &[observed, 7, acted]);
    let slow_actor = mlp_parameters(t, "target.actor.", &[observed, 7, acted]);
    let [observation, next] =
        ["observation", "next_observation"].map(|name| t.data(name, &[batch, observed]));
    let (taken, reward) = (t.data("taken", &[n, batch, acted]), t.data("reward", &[batch]));
    let policy = |params: &[_], x| mlp(params, x, Activation::Relu).tanh();
    let future = critic(&targets, next.concat(policy(&slow_actor, next)));
    let target = (0..n).map(|i| future.member(i)).reduce(Tensor::minimum).unwrap() * 0.9 + reward;
    let repeated = observation.reshape(&[1, batch, observed]).broadcast(&[n, batch, observed]);
    let known = critic(&critics, repeated.concat(taken));
    let slopes = grad(known.sum(), &[taken])[0];
    let critic_loss = (known - target.stop_gradient()).square().mean() + edac_diversity(slopes) * 0.1;

    let (lr, mix) = (t.data("lr", &[]), t.data("target_mix", &[]));
    let mut updates = Updates::new(t);
    updates.minimise(&Optimiser::new("critic", Adam::default(), lr).clip(0.5), &critics, critic_loss);
    let judges = critics.iter().map(|(name, p)| {
        let p = if newest { updates.latest(*p) } else { *p };
        (name.clone(), p.stop_gradient())
    });
    let judged = critic(&judges.collect::<Vec<_>>(), observation.concat(policy(&actor, observation)));
    let actor_loss = -judged.member(0).mean();
    updates.minimise(&Optimiser::new("actor", Adam::default(), lr).every(2), &actor, actor_loss);
    updates.follow(&targets, &critics, mix, slow);
    updates.follow(&slow_actor, &actor, mix, slow);
    let held = updates.hold("actor_loss", actor_loss, 2);
    t.finish(&updates.pairs(), &[("loss", critic_loss), ("actor_loss", held), ("q", known.mean())])
}

/// Each critic's values `[N, B]`, a layer normalised before its ReLU.
fn critic<'t>(params: &[(String, Tensor<'t>)], x: Tensor<'t>) -> Tensor<'t> {
    let first = x.linear(params[0].1, params[1].1, Activation::Identity);
    let [n, batch, width] = first.shape()[..] else { panic!("an ensemble") };
    let hidden = first.reshape(&[n * batch, width]).layer_norm(1e-5).relu().reshape(&[n, batch, width]);
    hidden.linear(params[2].1, params[3].1, Activation::Identity).reshape(&[n, batch])
}

#[test]
fn steps_of_several_optimisers_agree() {
    for (seed, newest, slow) in [(31, false, 2), (32, false, 1), (33, false, 3), (34, true, 2)] {
        let program = delayed(newest, slow);
        backends().iter().for_each(|b| same_steps(b.as_ref(), &program, None, seed, 20));
    }
}

/// Where an optimiser is not due its parameters, moments, count and slow copies are the same bits as before, and what is computed for
/// them alone is not computed.
#[test]
fn what_is_not_due_stays_as_it_is() {
    let program = delayed(false, 2);
    let plan = Plan::new(&program);
    let conditional = plan.conditions.iter().flatten().count();
    assert!(conditional >= 5, "an actor's pass and its way back wait: {conditional} of\n{plan}");
    let candle: Box<dyn Backend> = Box::new(Candle);
    for backend in backends().into_iter().chain([candle]) {
        let rng = &mut Rng::new(9);
        let mut ours = backend.compile(program.clone()).unwrap();
        let states = program.inputs.iter().enumerate().filter(|(_, i)| i.role == Role::State);
        let states = states.map(|(i, input)| (InputId(i), input)).collect::<Vec<_>>();
        for (id, input) in &states {
            let values = (0..input.len()).map(|_| (rng.normal() * 0.5).abs() as f32).collect::<Vec<_>>();
            ours.write(*id, &values).unwrap();
        }
        let read = |ours: &dyn Executable| {
            let of = |(id, input): &(InputId, &oto_graph::Input)| {
                let mut values = vec![0.0; input.len()];
                ours.read(*id, &mut values).unwrap();
                values.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            states.iter().map(of).collect::<Vec<_>>()
        };
        for due in [0.0, 1.0, 0.0] {
            let before = read(ours.as_ref());
            let data = program.data().map(|(_, i)| match i.name.as_str() {
                "every_2" => vec![due],
                "target_mix" => vec![0.5],
                _ => draw(&i.name, i.len(), None, rng),
            });
            let data = data.collect::<Vec<_>>();
            let mut out = outputs(&program);
            ours.run(&data.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut out).unwrap();
            let after = read(ours.as_ref());
            for (((_, input), before), after) in states.iter().zip(before).zip(after) {
                let waits = ["actor", "target"].iter().any(|part| input.name.contains(part));
                let name = format!("{}, due {due}: {}", backend.name(), input.name);
                assert_eq!(before != after, due > 0.0 || !waits, "{name}");
            }
        }
    }
}

/// An update of `n` critics towards given targets, their slow copies included.
fn ensemble(n: usize) -> Program {
    let t = &Trace::new();
    let [critics, targets] =
        ["critics.", "target."].map(|name| ensemble_parameters(t, name, n, &[5, 33, 17, 1]));
    let x = t.data("observation", &[12, 3]).concat(t.data("action", &[12, 2]));
    let q = mlp(&critics, x, Activation::Relu).reshape(&[n, 12]);
    let loss = (q - t.data("target", &[12])).square().sum_last().sum();
    let mut updates = Updates::new(t);
    updates.minimise(&Optimiser::new("", Adam::default(), t.data("lr", &[])), &critics, loss);
    updates.follow(&targets, &critics, t.data("target_mix", &[]), 1);
    t.finish(&updates.pairs(), &[("loss", loss), ("q", q)])
}

/// The same bits: on the CPU members are computed one after the other, in memory that they share.
#[test]
fn an_ensemble_learns_as_its_members_do_alone() {
    let (together, alone) = (ensemble(3), ensemble(1));
    let rng = &mut Rng::new(41);
    let mut all = Cpu.compile(together.clone()).unwrap();
    let mut each = [0, 1, 2].map(|_| Cpu.compile(alone.clone()).unwrap());
    let states = |program: &Program| {
        let of = program.inputs.iter().enumerate().filter(|(_, i)| i.role == Role::State);
        of.map(|(i, input)| (InputId(i), input.len())).collect::<Vec<_>>()
    };
    for (id, len) in states(&together) {
        let values = (0..len).map(|_| (rng.normal() * 0.3).abs() as f32).collect::<Vec<_>>();
        all.write(id, &values).unwrap();
        let part = if len % 3 == 0 { len / 3 } else { len };
        each.iter_mut().zip(values.chunks(part).cycle()).for_each(|(e, v)| e.write(id, v).unwrap());
    }
    for _ in 0..20 {
        let data = together.data().map(|(_, i)| draw(&i.name, i.len(), None, rng)).collect::<Vec<_>>();
        let data = data.iter().map(Vec::as_slice).collect::<Vec<_>>();
        let mut out = outputs(&together);
        all.run(&data, &mut out).unwrap();
        for (i, e) in each.iter_mut().enumerate() {
            let mut own = outputs(&alone);
            e.run(&data, &mut own).unwrap();
            assert_eq!(own[1], out[1][12 * i..12 * (i + 1)], "critic {i}");
        }
    }
    for ((id, len), (_, part)) in states(&together).into_iter().zip(states(&alone)) {
        let mut values = vec![0.0; len];
        all.read(id, &mut values).unwrap();
        for (e, values) in each.iter().zip(values.chunks(part).cycle()) {
            let mut own = vec![0.0; part];
            e.read(id, &mut own).unwrap();
            assert_eq!(own, values, "{}", together.inputs[id.0].name);
        }
    }
}

#[test]
fn an_error_leaves_the_state_as_it_was() {
    backends().iter().for_each(|b| refused(b.as_ref()));
}

fn refused(backend: &dyn Backend) {
    let config = QrDqnConfig { hidden: vec![8], quantiles: 4, batch_size: 3, ..QrDqnConfig::default() };
    let sizes = Sizes { observation: 2, actions: Actions::Discrete(2), teachers: 0, weighted: false };
    let program = program(&config, sizes);
    let rng = &mut Rng::new(5);
    let [mut ours, _] = pair(backend, &program, rng);
    let id = program.input("q.0.weight").unwrap();
    let (mut before, mut after) = (vec![0.0; 16], vec![0.0; 16]);
    ours.read(id, &mut before).unwrap();
    let mut data = program.data().map(|(_, i)| draw(&i.name, i.len(), Some(2), rng)).collect::<Vec<_>>();
    let action = program.data().position(|(_, i)| i.name == "action").unwrap();
    data[action][1] = 2.0;
    let slices = data.iter().map(Vec::as_slice).collect::<Vec<_>>();
    let e = ours.run(&slices, &mut outputs(&program)).unwrap_err();
    assert!(e.to_string().contains("index 2 is not a whole number below 2"), "{e}");
    assert!(ours.run(&slices[1..], &mut outputs(&program)).is_err());
    ours.read(id, &mut after).unwrap();
    assert_eq!(before, after);
}

#[test]
fn what_is_no_number_stays_visible() {
    let t = Trace::new();
    let [x, weight, bias, floor] =
        [("x", &[2, 3][..]), ("weight", &[9, 3]), ("bias", &[9]), ("floor", &[2, 9])]
            .map(|(name, shape)| t.data(name, shape));
    let hidden = x.linear(weight, bias, Activation::Relu);
    let program = t.finish(&[], &[("hidden", hidden), ("bounded", hidden.maximum(floor).minimum(floor))]);
    let numbers = [vec![f32::NAN, 1.0, 2.0, 3.0, 4.0, 5.0], vec![0.5; 27], vec![0.25; 9], vec![1.0; 18]];
    let data = numbers.iter().map(Vec::as_slice).collect::<Vec<_>>();
    for backend in backends() {
        let mut out = outputs(&program);
        backend.compile(program.clone()).unwrap().run(&data, &mut out).unwrap();
        for out in out {
            let (first, second) = out.split_at(9);
            assert!(first.iter().all(|x| x.is_nan()), "{}: {first:?}", backend.name());
            assert!(second.iter().all(|x| x.is_finite()), "{}: {second:?}", backend.name());
        }
    }
}
