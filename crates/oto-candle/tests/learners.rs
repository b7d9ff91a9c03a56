//! Whole students on every backend: the same curve over a thousand updates, steps that are reported later, and a lost device.

use oto_candle::Candle;
use oto_cpu::Cpu;
use oto_env::rng::Rng;
use oto_graph::Backend;
use oto_rl::actions::Actions;
use oto_rl::algorithms::a3c::A3cConfig;
use oto_rl::algorithms::bc::BcConfig;
use oto_rl::algorithms::cal_ql::CalQlConfig;
use oto_rl::algorithms::cql_ensemble::CqlEnsembleConfig;
use oto_rl::algorithms::ddpg::DdpgConfig;
use oto_rl::algorithms::edac::EdacConfig;
use oto_rl::algorithms::iql::IqlConfig;
use oto_rl::algorithms::ppo::PpoConfig;
use oto_rl::algorithms::qrdqn::{QrDqn, QrDqnConfig};
use oto_rl::algorithms::sac::{Sac, SacConfig};
use oto_rl::algorithms::td3::Td3Config;
use oto_rl::algorithms::td3_bc::Td3BcConfig;
use oto_rl::algorithms::{Agent, AlgorithmConfig, Settings, Sizes};
use oto_rl::aligner::Aligner;
use oto_rl::convolution::{Convolution, ConvolutionLayer};
use oto_rl::distillation::{AlignmentConfig, DistillationConfig, DistillationHead, DistillationTeacher};
use oto_rl::engine::{Learner, LossParts, Schedule};
use oto_rl::mlp::{self, Layer, Mlp};
use oto_rl::replay::{Batch, Distilled, Replay};
use oto_wgpu::{Gpu, Wgpu};

const SIZES: Sizes = Sizes { observation: 4, actions: Actions::Discrete(2), teachers: 1, weighted: false };

fn config() -> QrDqnConfig {
    QrDqnConfig { hidden: vec![32, 32], quantiles: 16, batch_size: 32, ..QrDqnConfig::default() }
}

fn schedule() -> Schedule<'static> {
    Schedule {
        lr: 1e-3,
        target_mix: 0.01,
        alpha_aikd: 1.0,
        delta: 0.5,
        eta: 0.5,
        alpha_task: 1.0,
        share: &[1.0],
    }
}

fn webgpu() -> Wgpu {
    let gpu = Gpu::wait().expect("a Vulkan driver, for instance Mesa's lavapipe");
    Wgpu { gpu, fallback: || Box::new(Cpu), now: oto_wgpu::now }
}

/// A batch of a made-up task: the reward is the first number of the state, the teacher goes where the second points.
#[allow(clippy::field_reassign_with_default)]
fn batch(rng: &mut Rng) -> Batch {
    let rows = config().batch_size;
    let observation = (0..rows * SIZES.observation).map(|_| rng.normal() as f32).collect::<Vec<_>>();
    let first = |i: usize, k: usize| observation[i * SIZES.observation + k];
    let mut order = (0..rows).collect::<Vec<_>>();
    rng.shuffle(&mut order);
    let mut batch = Batch::default();
    batch.next_observation = (0..rows * SIZES.observation).map(|_| rng.normal() as f32).collect();
    batch.action = (0..rows).map(|_| rng.below(2) as f32).collect();
    batch.reward = (0..rows).map(|i| first(i, 0)).collect();
    batch.discount = (0..rows).map(|_| if rng.below(10) == 0 { 0.0 } else { 0.9 }).collect();
    batch.teacher_action = (0..rows).map(|i| if first(i, 1) > 0.0 { 1.0 } else { 0.0 }).collect();
    batch.mask = (0..rows).map(|_| if rng.below(4) == 0 { 0.0 } else { 1.0 }).collect();
    batch.perm = order.into_iter().map(|i| i as f32).collect();
    batch.observation = observation;
    batch
}

/// The same task with continuous actions, for an actor-critic.
fn continuous(rng: &mut Rng) -> Batch {
    let mut batch = batch(rng);
    let rows = config().batch_size;
    let number = |rng: &mut Rng| rng.uniform(-0.9, 0.9) as f32;
    batch.action = (0..2 * rows).map(|_| number(rng)).collect();
    batch.teacher_action = (0..2 * rows).map(|_| number(rng)).collect();
    batch
}

/// What a rollout has besides, and with it a draw from the buffer.
fn of_rollout(mut batch: Batch, replay: Batch, rng: &mut Rng) -> Batch {
    let rows = config().batch_size;
    batch.old_log_prob = (0..rows).map(|_| -0.7 + 0.2 * rng.normal() as f32).collect();
    batch.advantage = (0..rows).map(|i| (batch.action[i] - 0.5) * batch.observation[4 * i]).collect();
    batch.target = (0..rows).map(|i| batch.observation[4 * i]).collect();
    batch.replay = Some(Box::new(replay));
    batch
}

fn discrete_rollout(rng: &mut Rng) -> Batch {
    let (steps, replay) = (batch(rng), batch(rng));
    of_rollout(steps, replay, rng)
}

fn continuous_rollout(rng: &mut Rng) -> Batch {
    let (steps, replay) = (continuous(rng), continuous(rng));
    of_rollout(steps, replay, rng)
}

/// Collects until nothing is on its way any more.
fn catch_up(student: &mut dyn Agent) {
    while student.engine_mut().behind() > 0 {
        student.collect().unwrap();
        std::thread::yield_now();
    }
}

fn qrdqn(backend: &dyn Backend, rng: &mut Rng) -> Box<dyn Agent> {
    config().agent(SIZES, backend, rng).unwrap()
}

fn actor_critic(backend: &dyn Backend, rng: &mut Rng) -> Box<dyn Agent> {
    let config = SacConfig { hidden: vec![24, 24], batch_size: 32, ..SacConfig::default() };
    config.agent(Sizes { actions: Actions::Continuous(2), ..SIZES }, backend, rng).unwrap()
}

fn on_policy(backend: &dyn Backend, rng: &mut Rng, actions: Actions, fusion: bool) -> Box<dyn Agent> {
    let config = PpoConfig {
        hidden: vec![16, 16],
        n_steps: 32,
        batch_size: 32,
        entropy_weight: 0.01,
        fusion,
        ..PpoConfig::default()
    };
    config.agent(Sizes { actions, ..SIZES }, backend, rng).unwrap()
}

/// The loss after every tenth of so many updates.
fn curve(mut student: Box<dyn Agent>, updates: usize, batch: fn(&mut Rng) -> Batch) -> Vec<LossParts> {
    let rng = &mut Rng::new(11);
    let mut curve = Vec::new();
    for i in 1..=updates {
        let next = batch(rng);
        student.update(&next, &schedule(), rng).unwrap();
        if i % 10 == 0 {
            catch_up(&mut *student);
            curve.push(student.engine().last_loss().unwrap().clone());
        }
    }
    assert_eq!(student.engine().updates(), updates as u64);
    curve
}

/// Every backend must give the reference's curve.
fn agree(
    make: impl Fn(&dyn Backend, &mut Rng) -> Box<dyn Agent>,
    updates: usize,
    batch: fn(&mut Rng) -> Batch,
) {
    let made = |backend: &dyn Backend| make(backend, &mut Rng::new(10));
    let reference = curve(made(&Candle), updates, batch);
    for backend in [&Cpu as &dyn Backend, &webgpu()] {
        for (i, (ours, theirs)) in curve(made(backend), updates, batch).iter().zip(&reference).enumerate() {
            let name = backend.name();
            for (part, b) in theirs.iter() {
                let a = ours.get(part).unwrap();
                // A share of the batch jumps by whole rows.
                let tolerance = if part.ends_with("_fraction") { 0.1 } else { 5e-3 };
                assert!(
                    (a - b).abs() <= tolerance * (1.0 + b.abs()),
                    "{name}, update {}0, {part}: {a}, {b} in candle",
                    i + 1
                );
            }
        }
    }
    let loss = |parts: &LossParts| parts.get("loss").unwrap();
    let first = loss(&reference[0]);
    let moved = reference.iter().map(|parts| (loss(parts) - first).abs()).fold(0.0, f32::max);
    assert!(moved > 0.02, "what is compared moves: the loss was {first}, and at most {moved} away from it");
}

#[test]
fn a_thousand_updates_give_the_same_curve() {
    agree(qrdqn, 1000, batch);
}

#[test]
fn an_actor_critic_gives_the_same_curve() {
    agree(actor_critic, 300, continuous);
}

fn twin_delayed(backend: &dyn Backend, rng: &mut Rng) -> Box<dyn Agent> {
    let config = Td3Config { hidden: vec![24, 24], batch_size: 32, ..Td3Config::default() };
    config.agent(Sizes { actions: Actions::Continuous(2), ..SIZES }, backend, rng).unwrap()
}

#[test]
fn a_delayed_actor_gives_the_same_curve() {
    agree(twin_delayed, 300, continuous);
}

#[test]
fn a_deterministic_actor_gives_the_same_curve() {
    let made = |backend: &dyn Backend, rng: &mut Rng| {
        let config = DdpgConfig { hidden: vec![24, 24], batch_size: 32, ..DdpgConfig::default() };
        config.agent(Sizes { actions: Actions::Continuous(2), ..SIZES }, backend, rng).unwrap()
    };
    agree(made, 300, continuous);
}

fn weighted(mut batch: Batch, rng: &mut Rng) -> Batch {
    batch.weights = (0..config().batch_size).map(|_| rng.uniform(0.1, 1.0) as f32).collect();
    batch
}

/// Programs that weigh the rows of a batch, and an actor with a start of its own.
#[test]
fn prioritised_learners_give_the_same_curve_and_the_same_errors() {
    let batches: [fn(&mut Rng) -> Batch; 2] =
        [|rng| weighted(batch(rng), rng), |rng| weighted(continuous(rng), rng)];
    let sizes = Sizes { weighted: true, ..SIZES };
    let vectors = Sizes { actions: Actions::Continuous(2), ..sizes };
    let td3 = Td3Config { hidden: vec![24], batch_size: 32, actor_starts: Some(0), ..Td3Config::default() };
    type Case<'c> = (&'c dyn Settings, Sizes, fn(&mut Rng) -> Batch);
    let learners: [Case<'_>; 2] = [(&config(), sizes, batches[0]), (&td3, vectors, batches[1])];
    for (config, sizes, batch) in learners {
        agree(|backend, rng| config.agent(sizes, backend, rng).unwrap(), 100, batch);
        let errors = [&Candle as &dyn Backend, &Cpu, &webgpu()].map(|backend| {
            let rng = &mut Rng::new(12);
            let mut student = config.agent(sizes, backend, rng).unwrap();
            assert!(student.engine().td_errors().is_none(), "before the first update");
            for _ in 0..5 {
                let next = batch(rng);
                student.update(&next, &schedule(), rng).unwrap();
                catch_up(&mut *student);
            }
            let (update, errors) = student.engine().td_errors().unwrap();
            assert_eq!((update, errors.len()), (5, 32));
            errors.to_vec()
        });
        for (row, error) in errors[0].iter().enumerate() {
            let near = errors.iter().all(|others| (others[row] - error).abs() < 1e-3 * (1.0 + error));
            assert!(near && *error >= 0.0, "row {row}: {:?}", errors.each_ref().map(|e| e[row]));
        }
    }
}

/// Actor, target networks and the actor's moments move at every second update only; the critics at each.
#[test]
fn a_delayed_actor_moves_at_every_second_update() {
    let rng = &mut Rng::new(3);
    for backend in [&Candle as &dyn Backend, &Cpu, &webgpu()] {
        let mut student = twin_delayed(backend, rng);
        let state = |student: &mut Box<dyn Agent>| {
            while !student.sync().unwrap() {
                std::thread::yield_now();
            }
            let delayed =
                |name: &str| name.contains("actor.") || name.starts_with("target.") || name == "adam.t.actor";
            student
                .engine()
                .state()
                .unwrap()
                .into_iter()
                .partition::<Vec<_>, _>(|tensor| delayed(&tensor.name))
        };
        let mut before = state(&mut student);
        for update in 1..=4 {
            let next = continuous(rng);
            student.update(&next, &schedule(), rng).unwrap();
            let after = state(&mut student);
            assert_eq!(
                after.0 != before.0,
                update % 2 == 0,
                "{}: the actor, update {update}",
                backend.name()
            );
            assert_ne!(after.1, before.1, "{}: the critics, update {update}", backend.name());
            before = after;
        }
    }
}

fn discrete_actor_critic(backend: &dyn Backend, rng: &mut Rng) -> Box<dyn Agent> {
    let config = SacConfig { hidden: vec![24, 24], batch_size: 32, ..SacConfig::default() };
    config.agent(SIZES, backend, rng).unwrap()
}

#[test]
fn an_actor_critic_of_discrete_actions_gives_the_same_curve() {
    agree(discrete_actor_critic, 300, batch);
}

#[test]
fn ppo_gives_the_same_curve() {
    agree(|b, rng| on_policy(b, rng, Actions::Discrete(2), false), 300, discrete_rollout);
    agree(|b, rng| on_policy(b, rng, Actions::Continuous(2), false), 300, continuous_rollout);
}

#[test]
fn an_actor_critic_of_short_rollouts_gives_the_same_curve() {
    let student = |backend: &dyn Backend, rng: &mut Rng| {
        let config = A3cConfig { hidden: vec![16, 16], t_max: 32, ..A3cConfig::default() };
        config.agent(Sizes { actions: Actions::Discrete(2), ..SIZES }, backend, rng).unwrap()
    };
    agree(student, 300, discrete_rollout);
}

/// A rollout with the logits of a teacher of three actions, who leaves some states out.
fn distilled_rollout(rng: &mut Rng) -> Batch {
    let mut batch = discrete_rollout(rng);
    let states = batch.observation.chunks_exact(SIZES.observation);
    let logits = states.flat_map(|s| [2.0 * s[0], 2.0 * s[1], s[2]]).collect();
    batch.distilled = vec![Distilled { logits, mask: batch.mask.clone() }];
    batch
}

#[test]
fn a_distillation_gives_the_same_curve() {
    let student = |backend: &dyn Backend, rng: &mut Rng| {
        let teachers = vec![DistillationTeacher { actions: 3, weight: 0.5 }];
        let to = DistillationHead::Head;
        let distillation =
            DistillationConfig { teachers, to, temperature: 2.0, ..DistillationConfig::default() };
        let (hidden, distillation) = (vec![16, 16], Some(distillation));
        let config = A3cConfig { hidden, t_max: 32, distillation, ..A3cConfig::default() };
        config.agent(SIZES, backend, rng).unwrap()
    };
    agree(student, 300, distilled_rollout);
}

/// The plain copy that maps logits has the weights that a device has computed, too.
#[test]
fn an_alignment_network_learns_the_same_on_every_backend() {
    let alignment =
        AlignmentConfig { hidden: vec![16, 16], learning_rate: 3e-3, ..AlignmentConfig::default() };
    let config = DistillationConfig { alignment: Some(alignment), ..DistillationConfig::default() };
    let aligned = |backend: &dyn Backend| {
        let mut aligner = Aligner::new(&config, [3, 2], 32, backend, &mut Rng::new(10)).unwrap();
        let rng = &mut Rng::new(11);
        for _ in 0..200 {
            let logits = (0..32 * 3).map(|_| rng.normal() as f32).collect::<Vec<_>>();
            let student = logits.chunks_exact(3).flat_map(|z| [z[1] - z[0], z[2]]).collect::<Vec<_>>();
            let mask = (0..32).map(|_| rng.below(2) as f32).collect::<Vec<_>>();
            aligner.learn(&logits, &student, &mask).unwrap();
            while aligner.engine_mut().behind() > 0 {
                aligner.collect().unwrap();
                std::thread::yield_now();
            }
        }
        let mapped = aligner.align(&[1.0, -1.0, 0.0, -1.0, 2.0, 0.5, 0.0, 0.0, 3.0]).to_vec();
        (mapped, aligner.loss().unwrap())
    };
    let (expected, loss) = aligned(&Candle);
    assert!(
        expected[0] < expected[1] && expected[2] > expected[3] && expected[4] < expected[5],
        "{expected:?}"
    );
    for backend in [&Cpu as &dyn Backend, &webgpu()] {
        let (mapped, own) = aligned(backend);
        let close = |a: f32, b: f32| (a - b).abs() <= 1e-2 * (1.0 + b.abs());
        let same = mapped.iter().zip(&expected).all(|(a, b)| close(*a, *b)) && close(own, loss);
        assert!(same, "{}: {mapped:?}, {own}; in candle {expected:?}, {loss}", backend.name());
    }
}

#[test]
fn a_fusion_policy_gives_the_same_curve() {
    agree(|b, rng| on_policy(b, rng, Actions::Discrete(2), true), 200, discrete_rollout);
    agree(|b, rng| on_policy(b, rng, Actions::Continuous(2), true), 200, continuous_rollout);
}

#[test]
fn conservative_learners_give_the_same_curve() {
    let discrete = |backend: &dyn Backend, rng: &mut Rng| {
        let config = QrDqnConfig { cql: 10.0, ..config() };
        config.agent(Sizes { teachers: 0, ..SIZES }, backend, rng).unwrap()
    };
    agree(discrete, 100, batch);
    let actor_critic = |backend: &dyn Backend, rng: &mut Rng| {
        let config =
            SacConfig { hidden: vec![24, 24], batch_size: 32, samples: 2, cql: 5.0, ..SacConfig::default() };
        let sizes = Sizes { observation: 4, actions: Actions::Continuous(2), teachers: 0, weighted: false };
        config.agent(sizes, backend, rng).unwrap()
    };
    agree(actor_critic, 60, continuous);
}

/// The same task with returns, of which every other one is known.
fn with_returns(mut batch: Batch) -> Batch {
    batch.return_to_go = batch.reward.iter().map(|reward| 2.0 * reward).collect();
    batch.return_known = (0..batch.reward.len()).map(|i| (i % 2) as f32).collect();
    batch
}

/// The policy that an ensemble exports is the mean of its members', each of which sees only its own layers.
#[test]
fn an_ensemble_acts_as_its_members_together() {
    let config = CqlEnsembleConfig { agents: 3, hidden: vec![5, 4], batch_size: 2, ..Default::default() };
    let sizes = Sizes { observation: 3, actions: Actions::Continuous(2), teachers: 0, weighted: false };
    let mut ensemble = config.agent(sizes, &Cpu, &mut Rng::new(4)).unwrap();
    let state = ensemble.engine().state().unwrap();
    let part = |name: &str, i: usize| {
        let values = &state.iter().find(|t| t.name == format!("actors.{name}")).unwrap().values;
        let len = values.len() / 3;
        values[i * len..(i + 1) * len].to_vec()
    };
    let observation = [0.3, -0.7, 1.1];
    let mut expected = [0.0_f32; 2];
    for i in 0..3 {
        let layer = |layer: usize| Layer {
            weight: part(&format!("{layer}.weight"), i),
            bias: part(&format!("{layer}.bias"), i),
            activation: if layer == 2 { mlp::Activation::Identity } else { mlp::Activation::Relu },
        };
        let mut member = Mlp::new(3, vec![layer(0), layer(1), layer(2)]).unwrap();
        let mean = member.forward(&observation);
        (0..2).for_each(|d| expected[d] += mean[d] / 3.0);
    }
    let mut action = [0.0; 2];
    ensemble.act(&observation, &mut action);
    let mut policy = ensemble.policy();
    let near = |a: f32, b: f32| (a - b).abs() < 1e-6;
    let exported = policy.forward(&observation);
    for ((action, exported), expected) in action.iter().zip(exported).zip(expected) {
        assert!(
            near(*action, expected.tanh()) && near(*exported, expected),
            "{action} {exported} {expected}"
        );
    }
    let mut drawn = [0.0; 2];
    ensemble.sample(&observation, &mut Rng::new(1), &mut drawn);
    assert!(drawn != action && ensemble.takes(&drawn), "{drawn:?}");
}

/// A run of an algorithm that learns from data.
fn from_data(
    config: &AlgorithmConfig,
    actions: Actions,
) -> impl Fn(&dyn Backend, &mut Rng) -> Box<dyn Agent> + '_ {
    move |backend, rng| config.agent(Sizes { actions, teachers: 0, ..SIZES }, backend, rng).unwrap()
}

#[test]
fn learners_from_data_give_the_same_curve() {
    let (hidden, batch_size) = (vec![24, 24], 32);
    let td3_bc = Td3BcConfig { hidden: hidden.clone(), batch_size, ..Td3BcConfig::default() };
    agree(from_data(&td3_bc.into(), Actions::Continuous(2)), 100, continuous);
    let iql = AlgorithmConfig::from(IqlConfig { hidden: hidden.clone(), batch_size, ..IqlConfig::default() });
    agree(from_data(&iql, Actions::Continuous(2)), 100, continuous);
    agree(from_data(&iql, Actions::Discrete(2)), 100, batch);
    let edac = EdacConfig { hidden, batch_size, critics: 3, ..EdacConfig::default() };
    agree(from_data(&edac.into(), Actions::Continuous(2)), 60, continuous);
    let (hidden, samples) = (vec![24, 24], 2);
    let cal_ql = CalQlConfig { hidden: hidden.clone(), batch_size, samples, ..CalQlConfig::default() };
    agree(from_data(&cal_ql.into(), Actions::Continuous(2)), 60, |rng| with_returns(continuous(rng)));
    let ensemble = CqlEnsembleConfig { agents: 2, hidden, batch_size, samples, ..Default::default() };
    agree(from_data(&ensemble.into(), Actions::Continuous(2)), 60, continuous);
}

/// An agent that normalises observations acts as its program's actor does: the statistics are in the network that acts, in the
/// policy that it exports, and in its state.
#[test]
fn a_normalised_agent_acts_as_its_policy_does() {
    let config = Td3BcConfig { hidden: vec![8], batch_size: 4, ..Td3BcConfig::default() };
    let sizes = Sizes { observation: 2, actions: Actions::Continuous(1), teachers: 0, weighted: false };
    let mut data = Replay::new(64, [2, 1], 0, 1, 0.9);
    let rng = &mut Rng::new(5);
    for _ in 0..64 {
        let row = [100.0 + rng.normal() as f32, -3.0 + 0.01 * rng.normal() as f32];
        data.push(&row, &[0.1], 1.0, &row, true, false, |_, _| {});
    }
    for backend in [&Candle as &dyn Backend, &Cpu, &webgpu()] {
        let mut agent = config.agent(sizes, backend, &mut Rng::new(6)).unwrap();
        let observation = [101.0, -3.01];
        let (mut before, mut after) = ([0.0], [0.0]);
        agent.act(&observation, &mut before);
        agent.prepare(&data).unwrap();
        agent.act(&observation, &mut after);
        assert!((before[0] - after[0]).abs() > 1e-3, "{}: {before:?} and {after:?}", backend.name());

        let state = agent.engine().state().unwrap();
        let tensor = |name: &str| state.iter().find(|t| t.name == name).unwrap().values.clone();
        let (mean, scale) = (tensor("actor.observation.mean"), tensor("actor.observation.scale"));
        assert!((mean[0] - 100.0).abs() < 1.0 && scale[1] > 50.0, "{mean:?} {scale:?}");
        let seen = [0, 1].map(|i| (observation[i] - mean[i]) * scale[i]);
        let layer = |i: usize, activation| Layer {
            weight: tensor(&format!("actor.{i}.weight")),
            bias: tensor(&format!("actor.{i}.bias")),
            activation,
        };
        let layers = vec![layer(0, mlp::Activation::Relu), layer(1, mlp::Activation::Identity)];
        let expected = Mlp::new(2, layers).unwrap().forward(&seen)[0].tanh();
        assert!((after[0] - expected).abs() < 1e-3, "{}: {after:?}, {expected}", backend.name());
        assert_eq!(agent.policy().forward(&observation)[0].tanh(), after[0]);

        let mut restored = config.agent(sizes, backend, &mut Rng::new(7)).unwrap();
        let mut find = |name: &str| Some(tensor(name));
        restored.restore(3, &mut find).unwrap();
        restored.act(&observation, &mut before);
        assert_eq!(before, after, "{}", backend.name());
    }
}

/// The same task seen as two small images, whose first pixel the teacher goes by.
fn images(rng: &mut Rng) -> Batch {
    let mut batch = batch(rng);
    let rows = config().batch_size;
    let width = convolution().inputs();
    let mut draw = || (0..rows * width).map(|_| rng.below(256) as f32).collect::<Vec<_>>();
    (batch.observation, batch.next_observation) = (draw(), draw());
    let first = |i: usize| batch.observation[i * width];
    batch.reward = (0..rows).map(|i| first(i) / 128.0 - 1.0).collect();
    batch.teacher_action = (0..rows).map(|i| f32::from(first(i) > 127.0)).collect();
    batch.action.clone_from(&batch.teacher_action);
    batch
}

fn convolution() -> Convolution {
    let layer = |channels, kernel, stride| ConvolutionLayer { channels, kernel, stride };
    Convolution { shape: [2, 7, 6], layers: vec![layer(4, 3, 2), layer(6, 2, 1)] }
}

#[test]
fn learners_that_see_images_give_the_same_curve() {
    let sizes = Sizes { observation: convolution().inputs(), teachers: 0, ..SIZES };
    let seeing = || Some(convolution());
    let qrdqn = |cql, teachers| {
        move |backend: &dyn Backend, rng: &mut Rng| {
            let config =
                QrDqnConfig { convolution: seeing(), hidden: vec![16], quantiles: 8, cql, ..config() };
            config.agent(Sizes { teachers, ..sizes }, backend, rng).unwrap()
        }
    };
    agree(qrdqn(0.0, 1), 60, images);
    agree(qrdqn(4.0, 0), 60, images);
    let clone = |backend: &dyn Backend, rng: &mut Rng| {
        let config =
            BcConfig { convolution: seeing(), hidden: vec![16], batch_size: 32, ..BcConfig::default() };
        config.agent(sizes, backend, rng).unwrap()
    };
    agree(clone, 60, images);
}

/// The same task where the data's actions are the teacher's.
fn demonstrated(mut batch: Batch) -> Batch {
    batch.action = batch.teacher_action.clone();
    batch
}

#[test]
fn clones_give_the_same_curve() {
    let clone = |actions, backend: &dyn Backend, rng: &mut Rng| {
        let config = BcConfig { hidden: vec![32, 32], batch_size: 32, ..BcConfig::default() };
        config.agent(Sizes { actions, teachers: 0, ..SIZES }, backend, rng).unwrap()
    };
    agree(|backend, rng| clone(Actions::Discrete(2), backend, rng), 100, |rng| demonstrated(batch(rng)));
    agree(
        |backend, rng| clone(Actions::Continuous(2), backend, rng),
        100,
        |rng| demonstrated(continuous(rng)),
    );
}

/// A task of one step: the reward is highest where the action is half the state.
#[test]
fn an_actor_critic_finds_the_best_action() {
    let config = SacConfig { hidden: vec![32, 32], batch_size: 64, ..SacConfig::default() };
    let sizes = Sizes { observation: 1, actions: Actions::Continuous(1), teachers: 0, weighted: false };
    let rng = &mut Rng::new(5);
    let mut student = Sac::new(&config, sizes, &Cpu, rng).unwrap();
    let schedule = Schedule { lr: 3e-3, target_mix: 0.01, ..schedule() };
    for _ in 0..1500 {
        let mut batch = Batch::default();
        for _ in 0..config.batch_size {
            let state = rng.uniform(-1.0, 1.0) as f32;
            let mut action = [0.0];
            student.sample(&[state], rng, &mut action);
            batch.observation.push(state);
            batch.action.push(action[0]);
            batch.reward.push(-(action[0] - 0.5 * state).powi(2) * 10.0);
        }
        batch.next_observation = batch.observation.clone();
        batch.discount = vec![0.0; config.batch_size];
        student.update(&batch, &schedule, rng).unwrap();
    }
    for state in [-0.8, -0.2, 0.3, 0.9] {
        let mut action = [0.0];
        student.act(&[state], &mut action);
        assert!((action[0] - 0.5 * state).abs() < 0.1, "state {state}: {}", action[0]);
    }
}

/// The Q-values of what acts.
fn values(student: &dyn Agent, observation: &[f32]) -> Vec<f32> {
    student.policy().forward(observation).to_vec()
}

#[test]
fn a_lost_device_is_replaced_from_its_last_snapshot() {
    let backend = webgpu();
    let rng = &mut Rng::new(12);
    let mut student = qrdqn(&backend, rng);
    for _ in 0..450 {
        student.update(&batch(rng), &schedule(), &mut Rng::new(0)).unwrap();
        student.collect().unwrap();
    }
    catch_up(&mut *student);
    while !student.sync().unwrap() {}
    let before = student.engine().state().unwrap();
    let observation = [0.1, 0.2, 0.3, 0.4];
    let q = values(&*student, &observation);
    backend.gpu.destroy();
    for _ in 0..100 {
        std::thread::sleep(std::time::Duration::from_millis(2));
        student.collect().unwrap();
        if student.engine().backend() == "cpu" {
            break;
        }
    }
    assert_eq!(student.engine().backend(), "cpu");
    let told = student.engine().lost().unwrap();
    assert!(told.starts_with("the device of the backend \"webgpu\" was lost ("), "{told}");
    assert!(told.ends_with("); \"cpu\" goes on from update 450"), "{told}");
    assert_eq!(student.engine().updates(), 450, "the newest snapshot was the newest state");
    assert_eq!(student.engine().state().unwrap(), before);
    assert_eq!(values(&*student, &observation), q);
    student.update(&batch(rng), &schedule(), &mut Rng::new(0)).unwrap();
    assert_eq!(student.engine().updates(), 451);
}

#[test]
fn a_lost_device_takes_no_state_with_it_that_is_put_later() {
    let backend = webgpu();
    let rng = &mut Rng::new(14);
    let (mut here, mut there) = (qrdqn(&Cpu, rng), qrdqn(&backend, rng));
    here.update(&batch(rng), &schedule(), &mut Rng::new(0)).unwrap();
    let state = here.engine().state().unwrap();
    backend.gpu.destroy();
    there.collect().unwrap();
    let mut find = |name: &str| state.iter().find(|t| t.name == name).map(|t| t.values.clone());
    there.restore(here.engine().updates(), &mut find).unwrap();
    while !there.sync().unwrap() {}
    assert_eq!((there.engine().backend(), there.engine().updates()), ("cpu", 1));
    assert_eq!(there.engine().state().unwrap(), state);
}

#[test]
fn state_moves_between_backends() {
    let rng = &mut Rng::new(13);
    let mut there = qrdqn(&webgpu(), rng);
    for _ in 0..40 {
        there.update(&batch(rng), &schedule(), &mut Rng::new(0)).unwrap();
    }
    while !there.sync().unwrap() {}
    let state = there.engine().state().unwrap();
    let mut here = qrdqn(&Cpu, rng);
    let mut find = |name: &str| state.iter().find(|t| t.name == name).map(|t| t.values.clone());
    here.restore(there.engine().updates(), &mut find).unwrap();
    assert_eq!(here.engine().state().unwrap(), state);
    let next = batch(rng);
    for student in [&mut here, &mut there] {
        student.update(&next, &schedule(), &mut Rng::new(0)).unwrap();
        catch_up(&mut **student);
    }
    let [a, b] = [&here, &there].map(|student| student.engine().last_loss().unwrap().get("loss").unwrap());
    assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "{a} {b}");
}

/// What acts on plain weights sees what the program sees.
#[test]
fn a_student_that_sees_images_acts_as_its_program_says() {
    let layer = |channels, kernel, stride| ConvolutionLayer { channels, kernel, stride };
    let convolution = Convolution { shape: [2, 10, 9], layers: vec![layer(4, 4, 2), layer(6, 2, 1)] };
    let sizes = Sizes { observation: convolution.inputs(), teachers: 0, ..SIZES };
    let config = QrDqnConfig {
        convolution: Some(convolution),
        hidden: vec![16],
        quantiles: 3,
        batch_size: 1,
        act_with_target: false,
        ..QrDqnConfig::default()
    };
    let rng = &mut Rng::new(15);
    let mut student = QrDqn::new(&config, sizes, &Cpu, rng).unwrap();
    for _ in 0..5 {
        let observation = (0..sizes.observation).map(|_| rng.below(256) as f32).collect::<Vec<_>>();
        let q = student.q_values(&observation).to_vec();
        let mut batch = Batch::default();
        batch.next_observation.clone_from(&observation);
        batch.observation = observation;
        batch.action = vec![rng.below(2) as f32];
        (batch.reward, batch.discount, batch.perm) = (vec![1.0], vec![0.5], vec![0.0]);
        student.update(&batch, &schedule(), rng).unwrap();
        let reported = student.engine().last_loss().unwrap().get("q").unwrap();
        let acted = q[batch.action[0] as usize];
        assert!((reported - acted).abs() < 1e-5, "{reported} in the program, {acted} acting");
    }
}
