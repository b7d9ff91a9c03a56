//! Soft actor-critic (Haarnoja et al. 2018) for continuous actions, with the teachers' term of OTO eq. 14: the program of one
//! update, and its learner. Twin critics, a squashed Gaussian actor, a temperature that finds itself.
//!
//! Actions go from -1 to 1 in every component here; whoever owns the environment scales them.

use crate::engine::{Engine, LearnError, Learner, LossParts, Schedule, aikd_weights};
use crate::losses::actor_critic::{Squashed, critic, sac_actor, soft_target, squashed_gaussian, temperature};
use crate::losses::offline::cql_continuous;
use crate::losses::{self, Aikd, AikdWeights};
use crate::mlp::{self, Layer, Mlp};
use crate::optimiser::{Adam, initial_layer, mlp as network, mlp_parameters};
use crate::replay::Batch;
use oto_env::rng::Rng;
use oto_graph::{Activation, Backend, Program, Tensor, Trace};

/// What a SAC student is made of. Defaults are those of Stable-Baselines3 2.9 where it has one; `samples` is ours.
#[derive(Clone, Debug, PartialEq)]
pub struct SacConfig {
    /// Widths of the hidden layers of actor and critics, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Temperature at the start.
    pub initial_alpha: f64,
    /// Actions drawn for each state in the sum over actions of OTO eq. 10, from a uniform and from the policy each.
    pub samples: usize,
    /// Weight of the conservative term (CQL(H), OTO eq. 6) for learning from a dataset, over `samples` actions of a uniform, of
    /// the policy and of the policy at the next state. 0 leaves it out; the authors' code has 5 and 10 samples.
    pub cql: f64,
    /// The optimiser's constants.
    pub adam: Adam,
}

oto_json::json_object! { SacConfig: settings { hidden, batch_size, initial_alpha, samples, cql, adam } }

impl Default for SacConfig {
    fn default() -> Self {
        Self {
            hidden: vec![256, 256],
            batch_size: 256,
            initial_alpha: 1.0,
            samples: 4,
            cql: 0.0,
            adam: Adam::default(),
        }
    }
}

/// The sizes a program is recorded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Width of an observation.
    pub observation: usize,
    /// Components of an action.
    pub action: usize,
    /// Number of teachers.
    pub teachers: usize,
}

/// Where the logarithm of a standard deviation is cut off, as in Stable-Baselines3.
const LOG_STD: [f64; 2] = [-20.0, 2.0];
/// The critics' names.
const CRITICS: [&str; 2] = ["q1.", "q2."];

type Params<'t> = Vec<(String, Tensor<'t>)>;

/// A network of observation and action: its first layer has a weight for each.
fn critic_parameters<'t>(t: &'t Trace, prefix: &str, hidden: &[usize], sizes: Sizes) -> Params<'t> {
    let widths = [&[sizes.observation], hidden, &[1]].concat();
    let mut params = mlp_parameters(t, prefix, &widths);
    let name = format!("{prefix}0.action");
    params.push((name.clone(), t.state(name, &[hidden[0], sizes.action])));
    params
}

/// Q-values `[B]` of observations `[B, O]` and actions `[B, D]`.
fn q_value<'t>(params: &[(String, Tensor<'t>)], observation: Tensor<'t>, action: Tensor<'t>) -> Tensor<'t> {
    let (acting, layers) = params.split_last().expect("a critic has parameters");
    let (first, rest) = layers.split_at(2);
    let seen = observation.linear(first[0].1, first[1].1, Activation::Identity);
    let hidden = (seen + action.matmul(acting.1, false, true)).relu();
    network(rest, hidden, Activation::Relu).reshape(&[observation.size(0)])
}

/// The policy's mean and log standard deviation, `[B, D]` each, for observations `[B, O]`.
fn policy<'t>(params: &[(String, Tensor<'t>)], observation: Tensor<'t>) -> [Tensor<'t>; 2] {
    let (trunk, heads) = params.split_at(params.len() - 4);
    let hidden = trunk.chunks_exact(2).fold(observation, |x, p| x.linear(p[0].1, p[1].1, Activation::Relu));
    let head = |i: usize| hidden.linear(heads[i].1, heads[i + 1].1, Activation::Identity);
    let bound = |b| hidden.trace().constant(b, &[]);
    [head(0), head(2).maximum(bound(LOG_STD[0])).minimum(bound(LOG_STD[1]))]
}

/// Teacher `i`'s part of what all gave, of this shape.
fn teacher<'t>(x: Tensor<'t>, i: usize, shape: &[usize]) -> Tensor<'t> {
    x.rows(x.trace().constant(i as f64, &[1])).reshape(shape)
}

/// The same values, which no gradient reaches.
fn frozen<'t>(params: &[(String, Tensor<'t>)]) -> Params<'t> {
    params.iter().map(|(name, p)| (name.clone(), p.stop_gradient())).collect()
}

/// Each row `count` times, one after the other: `[B, W]` gives `[B * count, W]`.
fn repeated(x: Tensor<'_>, count: usize) -> Tensor<'_> {
    let (rows, width) = (x.size(0), x.size(1));
    x.reshape(&[rows, 1, width]).broadcast(&[rows, count, width]).reshape(&[rows * count, width])
}

/// Q of a group of sampled actions and the log density each was drawn with, `[B, M]`.
type Group<'t> = (Tensor<'t>, Tensor<'t>);

/// What of a student the teachers shape.
struct Student<'t> {
    critics: [Params<'t>; 2],
    /// For each critic.
    groups: [[Group<'t>; 2]; 2],
    observation: Tensor<'t>,
    /// The action it would take without noise, `[B, D]`.
    action: Tensor<'t>,
    perm: Tensor<'t>,
}

impl<'t> Student<'t> {
    /// One teacher's part of OTO eq. 13 for a student with continuous actions: BASE shapes the critics, RKD the actor.
    fn aikd(&self, teacher: Tensor<'t>, mask: Tensor<'t>, weights: AikdWeights<'t>) -> Aikd<'t> {
        let base = |i: usize| {
            let taught = q_value(&self.critics[i], self.observation, teacher);
            losses::masked_mean(losses::aikd_base_sampled(&self.groups[i], taught), mask)
        };
        let base = (base(0) + base(1)) * 0.5;
        let rkd_d = losses::masked_mean(losses::rkd_d_continuous(self.action, teacher), mask);
        let both = mask * mask.rows(self.perm);
        let rkd_a = losses::masked_mean(losses::rkd_a(self.action, teacher, self.perm), both);
        Aikd { base, rkd_d, rkd_a, total: weights.delta * base + weights.eta * (rkd_d + rkd_a) }
    }
}

/// Records one update: state and batch in, new state and [`LossParts`] out. All gradients are taken at the old parameters.
pub fn program(config: &SacConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let (batch, width) = (config.batch_size, sizes.action);
    let row = |name: &str| t.data(name, &[batch]);
    let rows = |name: &str| t.data(name, &[batch, sizes.observation]);
    let actions = |name: &str| t.data(name, &[batch, width]);
    let scalar = |name: &str| t.data(name, &[]);

    let actor = actor_parameters(t, &config.hidden, sizes);
    let critics = CRITICS.map(|prefix| critic_parameters(t, prefix, &config.hidden, sizes));
    let targets =
        CRITICS.map(|prefix| critic_parameters(t, &format!("target.{prefix}"), &config.hidden, sizes));
    let log_alpha = t.state("log_alpha", &[]);
    let alpha = log_alpha.stop_gradient().exp();
    let (observation, next) = (rows("observation"), rows("next_observation"));

    let [mean, log_std] = policy(&actor, next);
    let then = squashed_gaussian(mean, log_std, actions("next_noise"));
    let next_q = q_value(&targets[0], next, then.action).minimum(q_value(&targets[1], next, then.action));
    let target = soft_target(row("reward"), row("discount"), next_q, then.log_prob, alpha).stop_gradient();
    let taken = actions("action");
    let values = [0, 1].map(|i| q_value(&critics[i], observation, taken));
    let learnt = critic(values[0], target) + critic(values[1], target);

    let [mean, log_std] = policy(&actor, observation);
    let now = squashed_gaussian(mean, log_std, actions("noise"));
    let fixed = [0, 1].map(|i| q_value(&frozen(&critics[i]), observation, now.action));
    let acted = sac_actor(fixed[0].minimum(fixed[1]), now.log_prob, alpha);
    let entropy = -(width as f64);
    let mut task = learnt + acted + temperature(log_alpha, now.log_prob, entropy);

    let weights = aikd_weights(t, sizes.teachers);
    let count = sizes.teachers;
    let labels = (count > 0).then(|| {
        (t.data("teacher_action", &[count, batch, width]), t.data("mask", &[count, batch]), mean.tanh())
    });
    let drawn = (count > 0 || config.cql > 0.0).then(|| Drawn::new(config, sizes, observation, &actor));
    let groups = drawn.as_ref().map(|drawn| [0, 1].map(|i| drawn.groups(&critics[i])));
    if let (Some(drawn), Some(groups), true) = (&drawn, &groups, config.cql > 0.0) {
        let then = draw(&actor, repeated(next, config.samples), "next_sample_noise", width);
        let conservative = |i: usize| {
            let [uniform, own] = groups[i];
            cql_continuous(&[uniform, own, drawn.group(&critics[i], then)], values[i])
        };
        task = task + (conservative(0) + conservative(1)) * config.cql;
    }
    let aikd = match (labels, groups) {
        (Some((labels, masks, action)), Some(groups)) => {
            let (perm, critics) = (t.data("perm", &[batch]), critics.clone());
            let student = Student { critics, groups, observation, action, perm };
            let one =
                |i| student.aikd(teacher(labels, i, &[batch, width]), teacher(masks, i, &[batch]), weights);
            (0..count).map(one).collect()
        }
        _ => Vec::new(),
    };
    let loss = losses::transfer(&aikd, task, weights);

    let mut params = [actor, critics.concat()].concat();
    params.push(("log_alpha".into(), log_alpha));
    let mut updates = config.adam.step(t, &params, loss, scalar("lr"));
    let mix = scalar("target_mix");
    for ((_, target), (_, p)) in targets.iter().flatten().zip(critics.iter().flatten()) {
        let new = updates.iter().find(|(old, _)| old.id() == p.id()).expect("every parameter is updated").1;
        updates.push((*target, target.polyak(new, mix)));
    }
    let q = (values[0] + values[1]).mean() * 0.5;
    t.finish(&updates, &LossParts::outputs(t, loss, task, &aikd, weights.share, q))
}

/// The actor's trunk and its two heads.
fn actor_parameters<'t>(t: &'t Trace, hidden: &[usize], sizes: Sizes) -> Params<'t> {
    let trunk = [&[sizes.observation], hidden].concat();
    let mut params = mlp_parameters(t, "actor.", &trunk);
    let last = trunk[trunk.len() - 1];
    for head in ["mean", "log_std"] {
        for (part, shape) in [("weight", vec![sizes.action, last]), ("bias", vec![sizes.action])] {
            let name = format!("actor.{head}.{part}");
            params.push((name.clone(), t.state(name, &shape)));
        }
    }
    params
}

/// The actions that stand for all in OTO eq. 7 and 10: as many uniform as from the policy as it is.
struct Drawn<'t> {
    /// Each of the batch's observations `M` times, `[B M, O]`.
    many: Tensor<'t>,
    /// `[B, M]`.
    shape: [usize; 2],
    /// `[B M, D]`.
    uniform: Tensor<'t>,
    own: Squashed<'t>,
}

impl<'t> Drawn<'t> {
    fn new(
        config: &SacConfig,
        sizes: Sizes,
        observation: Tensor<'t>,
        actor: &[(String, Tensor<'t>)],
    ) -> Self {
        let shape = [config.batch_size, config.samples];
        let many = repeated(observation, config.samples);
        let uniform = observation.trace().data("uniform", &[shape[0] * shape[1], sizes.action]);
        let own = draw(actor, many, "sample_noise", sizes.action);
        Self { many, shape, uniform, own }
    }

    /// What a critic says of them, for each group.
    fn groups(&self, critic: &[(String, Tensor<'t>)]) -> [Group<'t>; 2] {
        let density = -(self.uniform.size(1) as f64) * std::f64::consts::LN_2;
        let q = q_value(critic, self.many, self.uniform).reshape(&self.shape);
        [(q, q.trace().constant(density, &self.shape)), self.group(critic, self.own)]
    }

    /// What a critic says of other actions at the same observations.
    fn group(&self, critic: &[(String, Tensor<'t>)], drawn: Squashed<'t>) -> Group<'t> {
        let q = q_value(critic, self.many, drawn.action).reshape(&self.shape);
        (q, drawn.log_prob.reshape(&self.shape))
    }
}

/// Actions of the policy for observations x `[N, O]`, which no gradient reaches.
fn draw<'t>(actor: &[(String, Tensor<'t>)], x: Tensor<'t>, noise: &str, width: usize) -> Squashed<'t> {
    let [mean, log_std] = policy(&frozen(actor), x);
    squashed_gaussian(mean, log_std, x.trace().data(noise, &[x.size(0), width]))
}

/// A SAC student: owns its parameters, improves them, acts with them.
pub struct Sac {
    config: SacConfig,
    sizes: Sizes,
    engine: Engine,
    /// Gives the policy's mean, then its log standard deviation, `[2 D]`.
    actor: Mlp,
    /// Random numbers of an update, by the program's data inputs.
    noise: Vec<(&'static str, Vec<f32>)>,
}

impl Sac {
    /// A student with parameters drawn from `rng`; its target critics start as copies.
    pub fn new(
        config: &SacConfig,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Self, LearnError> {
        let engine = Engine::new(program(config, sizes), "actor.", backend)?;
        let mut widths = vec![sizes.observation];
        widths.extend(&config.hidden);
        widths.push(2 * sizes.action);
        let layer = |pair: &[usize]| Layer {
            weight: vec![0.0; pair[1] * pair[0]],
            bias: vec![0.0; pair[1]],
            activation: mlp::Activation::Relu,
        };
        let mut layers = widths.windows(2).map(layer).collect::<Vec<_>>();
        layers.last_mut().expect("a network has a last layer").activation = mlp::Activation::Identity;
        let actor = Mlp::new(sizes.observation, layers).expect("the widths come from one list");
        let (rows, width) = (config.batch_size, sizes.action);
        let names = [("noise", rows), ("next_noise", rows)].into_iter();
        let many = rows * config.samples;
        let sampled = [("uniform", many), ("sample_noise", many)];
        let names = names.chain(sampled.into_iter().filter(|_| sizes.teachers > 0 || config.cql > 0.0));
        let names = names.chain([("next_sample_noise", many)].into_iter().filter(|_| config.cql > 0.0));
        let noise = names.map(|(name, rows)| (name, vec![0.0; rows * width])).collect();
        let mut student = Self { config: config.clone(), sizes, engine, actor, noise };
        student.start_over(rng)?;
        Ok(student)
    }

    /// The sizes it was made for.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// One update from a batch; `rng` draws the actions it compares. New weights act from now on, or once
    /// [`Learner::collect`] has them.
    pub fn update(&mut self, batch: &Batch, schedule: &Schedule, rng: &mut Rng) -> Result<(), LearnError> {
        for (name, values) in &mut self.noise {
            match *name {
                "uniform" => values.iter_mut().for_each(|v| *v = rng.uniform(-1.0, 1.0) as f32),
                _ => values.iter_mut().for_each(|v| *v = rng.normal() as f32),
            }
        }
        let mut data: [&[f32]; 20] = [&[]; 20];
        let mut count = 0;
        for (_, input) in self.engine.program().data() {
            let drawn =
                || self.noise.iter().find(|(name, _)| *name == input.name).map(|(_, values)| &values[..]);
            let given = batch.input(&input.name).or_else(|| schedule.input(&input.name)).or_else(drawn);
            data[count] = given.unwrap_or_else(|| unreachable!("the program has no input {}", input.name));
            count += 1;
        }
        match self.engine.update(&data[..count])? {
            true => self.hand_over(),
            false => Ok(()),
        }
    }

    /// The action without noise, `[D]`, each component from -1 to 1.
    pub fn act(&mut self, observation: &[f32], action: &mut [f32]) {
        let out = self.actor.forward(observation);
        action.iter_mut().zip(out).for_each(|(a, mean)| *a = mean.tanh());
    }

    /// The weights it acts with now: those of the mean before its tanh.
    pub fn actor(&self) -> Mlp {
        let mut layers = self.actor.layers().to_vec();
        let heads = layers.last_mut().expect("a network has a last layer");
        heads.weight.truncate(heads.weight.len() / 2);
        heads.bias.truncate(heads.bias.len() / 2);
        Mlp::new(self.sizes.observation, layers).expect("its layers fit as they did")
    }

    /// An action drawn from the policy, `[D]`.
    pub fn sample(&mut self, observation: &[f32], rng: &mut Rng, action: &mut [f32]) {
        let (mean, log_std) = self.actor.forward(observation).split_at(action.len());
        for ((a, mean), log_std) in action.iter_mut().zip(mean).zip(log_std) {
            let std = log_std.clamp(LOG_STD[0] as f32, LOG_STD[1] as f32).exp();
            *a = (mean + std * rng.normal() as f32).tanh();
        }
    }
}

impl Learner for Sac {
    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// Copies the policy's parameters into the actor, whose last layer holds both heads, one below the other.
    fn hand_over(&mut self) -> Result<(), LearnError> {
        let (heads, trunk) = self.actor.layers_mut().split_last_mut().expect("a network has a last layer");
        let trunk = trunk.iter_mut().flat_map(|l| [&mut l.weight[..], &mut l.bias[..]]);
        let (weights, biases) = (heads.weight.len() / 2, heads.bias.len() / 2);
        let (mean_weight, std_weight) = heads.weight.split_at_mut(weights);
        let (mean_bias, std_bias) = heads.bias.split_at_mut(biases);
        for (i, part) in trunk.chain([mean_weight, mean_bias, std_weight, std_bias]).enumerate() {
            self.engine.acting(i, part)?;
        }
        Ok(())
    }

    fn start_over(&mut self, rng: &mut Rng) -> Result<(), LearnError> {
        let mut drawn: Vec<(String, Vec<f32>)> = Vec::new();
        let (hidden, sizes) = (&self.config.hidden, self.sizes);
        let mut draw = |prefix: &str, inputs: usize, outputs: usize, rng: &mut Rng| {
            let (weight, bias) = initial_layer(rng, inputs, outputs);
            drawn.extend([(format!("{prefix}.weight"), weight), (format!("{prefix}.bias"), bias)]);
        };
        let trunk = [&[sizes.observation], &hidden[..]].concat();
        for (i, pair) in trunk.windows(2).enumerate() {
            draw(&format!("actor.{i}"), pair[0], pair[1], rng);
        }
        for head in ["actor.mean", "actor.log_std"] {
            draw(head, trunk[trunk.len() - 1], sizes.action, rng);
        }
        let widths = [&[sizes.observation + sizes.action], &hidden[..], &[1]].concat();
        for prefix in CRITICS {
            for (i, pair) in widths.windows(2).enumerate() {
                draw(&format!("{prefix}{i}"), pair[0], pair[1], rng);
            }
        }
        let log_alpha = self.config.initial_alpha.ln() as f32;
        let find = |name: &str| drawn.iter().find(|(n, _)| n == name).map(|(_, values)| values);
        self.engine.start(|input| {
            let name = input.name.strip_prefix("target.").unwrap_or(&input.name);
            // A critic's first layer was drawn for observation and action together.
            let (name, part) = match name.strip_suffix(".0.action") {
                Some(critic) => (format!("{critic}.0.weight"), Some(sizes.observation)),
                None => {
                    (name.to_string(), CRITICS.iter().any(|c| name == format!("{c}0.weight")).then_some(0))
                }
            };
            match (find(&name), part) {
                (Some(values), Some(from)) => {
                    let width = input.shape[1];
                    let rows = values.chunks_exact(sizes.observation + sizes.action);
                    rows.flat_map(|row| &row[from..from + width]).copied().collect()
                }
                (Some(values), None) => values.clone(),
                (None, _) if input.name == "log_alpha" => vec![log_alpha],
                _ => vec![0.0; input.len()],
            }
        })?;
        self.hand_over()
    }
}
