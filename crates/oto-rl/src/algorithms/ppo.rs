//! Proximal policy optimisation (Schulman et al. 2017) with the teachers' term of OTO eq. 14, and OTO's fusion policy for
//! on-policy students (section IV-C): settings, the program of one update, and the agent.
//!
//! PPO learns from rollouts and has a value function, but no Q-values. Alone it takes from teachers only what acts: RKD on its
//! policy, at the states of the rollout. With `fusion` it has twin critics besides, trained as soft actor-critic's from the
//! replay buffer: BASE shapes them, RKD the policy at the buffer's states, and an auxiliary loss brings what the critics know
//! into the policy. The paper draws this architecture without its equations; what is chosen here: the critics' targets are
//! SAC's with a fixed temperature, and the auxiliary loss is SAC's actor loss over the mean of |Q| (as TD3+BC weighs its Q),
//! so that its weight means the same whatever the rewards are.
//!
//! Continuous actions are Gaussian around -1 to 1 with a standard deviation that no state changes, as in Stable-Baselines3;
//! whoever owns the environment cuts off and scales what is beyond. Critics see them cut off.

use super::{
    ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, OnPolicy, Rollouts, Run, Seen, Settings,
    Sizes,
};
use crate::actions::Actions;
use crate::checks::Checks;
use crate::convolution::Convolution;
use crate::critics::{
    self, Base, Critics, InitialParameters, Params, each, frozen, initial, initial_critics, least, picked,
    q_value, q_values,
};
use crate::engine::{Engine, LearnError, Learner, LossParts, Schedule, aikd_weights};
use crate::losses::actor_critic::{
    categorical_entropy, clip_fraction, critic, gaussian_entropy, gaussian_log_prob, ppo_clip, sac_actor,
    soft_target, soft_value,
};
use crate::losses::offline::td3_bc_scale;
use crate::losses::{self, Aikd, AikdWeights, Labels};
use crate::mlp;
use crate::network::{Actor, Shape};
use crate::noise::{Noise, UNIFORM};
use crate::optimiser::{Adam, clipped};
use crate::replay::Batch;
use crate::schedule::Linear;
use oto_env::rng::Rng;
use oto_graph::{Backend, Program, Tensor, Trace, grad};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct ProximalPolicy;

impl Algorithm for ProximalPolicy {
    fn name(&self) -> &'static str {
        "ppo"
    }

    fn title(&self) -> &'static str {
        "Proximal policy optimisation: small steps of the policy, from its own rollouts"
    }

    fn paper(&self) -> &'static str {
        "Schulman et al. 2017"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Discrete, ActionKind::Continuous]
    }

    fn images(&self) -> bool {
        true
    }

    fn data(&self) -> &'static [Data] {
        &[Data::Rollouts]
    }

    /// The settings of Stable-Baselines3 2.9. RKD is all that PPO takes from a teacher, hence its weight.
    fn defaults(&self, seen: Seen) -> Defaults {
        if let Some(shape) = seen.images {
            return images(shape);
        }
        Defaults {
            steps: 100_000,
            eta: 5.0,
            evaluation: (2_000, 10),
            ..Defaults::new(PpoConfig::default(), "actions of either kind", "Stable-Baselines3 2.9's PPO")
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<PpoConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<PpoConfig>(self, generator)
    }
}

/// The network of Mnih et al. (2015), or for smaller images the one of [`Convolution::usual`], and RL Baselines3 Zoo's settings for
/// Atari games, whose eight environments with rollouts of 128 steps are one with 1,024 here, and whose learning rate and clipping
/// range stay where they begin.
fn images(shape: [usize; 3]) -> Defaults {
    let (convolution, units) = Convolution::usual(shape).unwrap_or((Convolution::atari(shape), 512));
    let config = PpoConfig {
        convolution: Some(convolution),
        hidden: vec![units],
        n_steps: 1024,
        batch_size: 256,
        epochs: 4,
        clip: 0.1,
        entropy_weight: 0.01,
        ..PpoConfig::default()
    };
    let source = "RL Baselines3 Zoo, hyperparams/ppo.yml, atari, with constant rates";
    Defaults {
        steps: 100_000,
        buffer: 10_000,
        learning_rate: Linear::constant(2.5e-4),
        eta: 5.0,
        evaluation: (10_000, 3),
        ..Defaults::new(config, "images of bytes", source)
    }
}

/// What a PPO student is made of. Defaults are those of Stable-Baselines3 2.9's PPO where it has one; `temperature` is that of
/// Tianshou's SAC, `auxiliary` and `samples` are ours.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct PpoConfig {
    /// Convolutional layers for image observations, before the hidden layers: for the policy and for the value function each.
    pub convolution: Option<Convolution>,
    /// Widths of the hidden layers of policy and value function (tanh after each, ReLU after convolutions), and of a fusion
    /// policy's critics (ReLU).
    pub hidden: Vec<usize>,
    /// Environment steps between rounds of updates.
    pub n_steps: usize,
    /// Steps in an update; divides `n_steps`.
    pub batch_size: usize,
    /// Epochs over each rollout.
    pub epochs: usize,
    /// Clipping range of the probability ratio (Schulman et al. 2017, eq. 7).
    pub clip: f64,
    /// Lambda of generalised advantage estimation.
    pub gae_lambda: f64,
    /// Weight of the value function's squared error.
    pub value_weight: f64,
    /// Weight of the policy's entropy.
    pub entropy_weight: f64,
    /// Limit of the gradient's norm, over policy and value function together.
    pub max_grad_norm: f64,
    /// Initial logarithm of the standard deviation.
    pub initial_log_std: f64,
    /// Train auxiliary critics: OTO's fusion policy.
    pub fusion: bool,
    /// Temperature of the critics' targets and of the auxiliary loss.
    pub temperature: f64,
    /// Weight of the auxiliary loss.
    pub auxiliary: f64,
    /// Sampled actions for each state in the sum over continuous actions of OTO eq. 10.
    pub samples: usize,
    /// The optimiser's constants.
    pub adam: Adam,
}

oto_json::json_object! {
    PpoConfig: settings {
        convolution omit none, hidden, n_steps, batch_size, epochs, clip, gae_lambda, value_weight, entropy_weight, max_grad_norm, initial_log_std,
        fusion, temperature, auxiliary, samples, adam
    }
}

impl Default for PpoConfig {
    fn default() -> Self {
        Self {
            convolution: None,
            hidden: vec![64, 64],
            n_steps: 2048,
            batch_size: 64,
            epochs: 10,
            clip: 0.2,
            gae_lambda: 0.95,
            value_weight: 0.5,
            entropy_weight: 0.0,
            max_grad_norm: 0.5,
            initial_log_std: 0.0,
            fusion: false,
            temperature: 0.2,
            auxiliary: 1.0,
            samples: 8,
            adam: Adam { epsilon: 1e-5, ..Adam::default() },
        }
    }
}

impl Settings for PpoConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &ProximalPolicy
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        checks.hidden(&self.hidden);
        checks.convolution(self.convolution.as_ref());
        let fits = !self.fusion || self.convolution.is_none();
        let expected = "false with a convolution: a fusion policy's critics see rows of numbers";
        checks.that(fits, "fusion", || "true".into(), expected);
        checks.whole("n_steps", self.n_steps as u64, 1..=1 << 20, "1 to 1048576 steps");
        checks.whole("batch_size", self.batch_size as u64, 1..=65_536, "1 to 65536 steps");
        let rest = self.n_steps % self.batch_size.max(1);
        let expected = format!("a whole number of batches, each of {} steps", self.batch_size);
        checks.that(rest == 0, "n_steps", || self.n_steps.to_string(), &expected);
        checks.whole("epochs", self.epochs as u64, 1..=1024, "1 to 1024 passes");
        checks.real("clip", self.clip, 1e-6..=1.0, "above 0, at most 1");
        checks.real("gae_lambda", self.gae_lambda, 0.0..=1.0, "0 to 1");
        checks.weight("value_weight", self.value_weight);
        checks.weight("entropy_weight", self.entropy_weight);
        checks.real("max_grad_norm", self.max_grad_norm, 1e-6..=1e12, "a length above 0");
        checks.real("initial_log_std", self.initial_log_std, -20.0..=2.0, "-20 to 2");
        checks.real("temperature", self.temperature, 0.0..=1e3, "0 to 1000");
        checks.weight("auxiliary", self.auxiliary);
        checks.whole("samples", self.samples as u64, 1..=256, "1 to 256 actions a state");
        checks.adam(self.adam);
    }

    fn check_run(&self, run: Run, checks: &mut Checks) {
        let (n_step, held) = (run.n_step, run.buffer);
        let expected = "1 for ppo, which learns from single steps";
        checks.that(n_step == 1, "n_step", || n_step.to_string(), expected);
        let expected = "at least algorithm.n_steps transitions";
        checks.that(held >= self.n_steps, "buffer", || held.to_string(), expected);
    }

    fn convolution(&self) -> Option<&Convolution> {
        self.convolution.as_ref()
    }

    fn program(&self, sizes: Sizes) -> Program {
        program(self, sizes)
    }

    fn agent(
        &self,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Box<dyn Agent>, LearnError> {
        Ok(Box::new(Ppo::new(self, sizes, backend, rng)?))
    }
}

/// What a policy says of its states.
#[derive(Clone, Copy)]
enum Distribution<'t> {
    /// Logits `[B, A]`.
    Categorical(Tensor<'t>),
    /// Means `[B, D]` and the logarithm of the standard deviation `[D]`.
    Gaussian(Tensor<'t>, Tensor<'t>),
}

impl<'t> Distribution<'t> {
    /// Logarithm of the actions' probability or density, `[B]`.
    fn log_prob(self, action: Tensor<'t>) -> Tensor<'t> {
        match self {
            Distribution::Categorical(logits) => logits.log_softmax().pick(action),
            Distribution::Gaussian(mean, log_std) => gaussian_log_prob(mean, log_std, action),
        }
    }

    /// Mean entropy, `[]`.
    fn entropy(self) -> Tensor<'t> {
        match self {
            Distribution::Categorical(logits) => categorical_entropy(logits).mean(),
            Distribution::Gaussian(_, log_std) => gaussian_entropy(log_std),
        }
    }

    /// One teacher's part of OTO eq. 13, with BASE `[]` as it is given: RKD on what acts.
    fn aikd(
        self,
        base: Tensor<'t>,
        labels: Labels<'t>,
        perm: Tensor<'t>,
        weights: AikdWeights<'t>,
    ) -> Aikd<'t> {
        match self {
            Distribution::Categorical(logits) => {
                let zero = base.trace().constant(0.0, &[]);
                let rkd = losses::aikd(logits, labels, perm, zero, weights.eta);
                Aikd { base, total: weights.delta * base + rkd.total, ..rkd }
            }
            Distribution::Gaussian(mean, _) => losses::aikd_continuous(base, mean, labels, perm, weights),
        }
    }
}

/// The policy's parameters; they and the value function's act, and their names begin with [`ACTING`].
struct Policy<'t, 'c> {
    shape: Shape<'c>,
    layers: Params<'t>,
    log_std: Option<Tensor<'t>>,
}

const ACTING: &str = "agent.";
/// The beginning of the policy's names.
pub(super) const POLICY: &str = "agent.policy.";

impl<'t, 'c> Policy<'t, 'c> {
    fn new(t: &'t Trace, config: &'c PpoConfig, sizes: Sizes) -> Self {
        let shape = shape(config, sizes, sizes.actions.outputs());
        let layers = shape.parameters(t, POLICY);
        let log_std = match sizes.actions {
            Actions::Discrete(_) => None,
            Actions::Continuous(width) => Some(t.state("agent.log_std", &[width])),
        };
        Self { shape, layers, log_std }
    }

    fn at(&self, observation: Tensor<'t>) -> Distribution<'t> {
        let out = self.shape.forward(&self.layers, observation);
        match self.log_std {
            None => Distribution::Categorical(out),
            Some(log_std) => Distribution::Gaussian(out, log_std),
        }
    }

    fn parameters(&self) -> Params<'t> {
        let log_std = self.log_std.map(|p| ("agent.log_std".to_string(), p));
        self.layers.iter().cloned().chain(log_std).collect()
    }
}

/// The network between observations and the outputs of the policy or the value function.
fn shape(config: &PpoConfig, sizes: Sizes, outputs: usize) -> Shape<'_> {
    let shape = Shape::new(config.convolution.as_ref(), sizes.observation, &config.hidden, outputs);
    if config.convolution.is_some() { shape } else { shape.tanh() }
}

/// Records one update: state, a minibatch of a rollout and with `fusion` one of the buffer (`replay.*`) in, new state and
/// [`LossParts`] out. All gradients are taken at the old parameters.
pub fn program(config: &PpoConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let batch = config.batch_size;
    let row = |name: &str| t.data(name, &[batch]);
    let scalar = |name: &str| t.data(name, &[]);

    let policy = Policy::new(t, config, sizes);
    let valuing = shape(config, sizes, 1);
    let value = valuing.parameters(t, "agent.value.");
    let observation = t.data("observation", &[batch, sizes.observation]);
    let now = policy.at(observation);
    let log_prob = now.log_prob(t.data("action", &sizes.actions.shape(batch)));
    let before = row("old_log_prob");
    let acted = ppo_clip(log_prob, before, row("advantage"), config.clip);
    let known = valuing.forward(&value, observation).reshape(&[batch]);
    let valued = critic(known, row("target"));
    let entropy = now.entropy();
    let ppo = acted + valued * config.value_weight - entropy * config.entropy_weight;
    let mut reported = vec![
        ("policy_loss", acted),
        ("value_loss", valued),
        ("entropy", entropy),
        ("clip_fraction", clip_fraction(log_prob, before, config.clip)),
    ];

    let weights = aikd_weights(t, sizes.teachers);
    let fusion = config.fusion.then(|| Fusion::new(t, config, sizes, &policy));
    let (task, q) = match &fusion {
        None => (ppo, known.mean()),
        Some(fusion) => (ppo + fusion.loss, fusion.q),
    };
    let (count, shape) = (sizes.teachers, sizes.actions.shape(batch));
    let aikd = match &fusion {
        None => {
            let none = t.constant(0.0, &[]);
            critics::labelled(t, "", count, &shape, |labels, perm| now.aikd(none, labels, perm, weights))
        }
        Some(fusion) if count > 0 => {
            let base = fusion.base(t, config, sizes);
            critics::labelled(t, "replay.", count, &shape, |labels, perm| {
                fusion.policy.aikd(base.of(labels), labels, perm, weights)
            })
        }
        Some(_) => Vec::new(),
    };
    let loss = losses::transfer(&aikd, task, weights);

    let mut params = [policy.parameters(), value].concat();
    let own = params.len();
    params.extend(fusion.iter().flat_map(|f| f.twins.params.clone()));
    let gradients = grad(loss, &params.iter().map(|(_, p)| *p).collect::<Vec<_>>());
    let (own, critics) = gradients.split_at(own);
    let gradients = [&clipped(own, config.max_grad_norm), critics].concat();
    let mut updates = config.adam.descend(t, &params, &gradients, scalar("lr"));
    if let Some(fusion) = &fusion {
        fusion.twins.follow(&mut updates, scalar("target_mix"));
    }
    reported.extend(fusion.iter().flat_map(|f| [("critic_loss", f.learnt), ("auxiliary_loss", f.acted)]));
    let outputs = LossParts::outputs(t, loss, task, &aikd, weights.share, q);
    t.finish(&updates, &[outputs, reported].concat())
}

/// The auxiliary critics and what they bring.
struct Fusion<'t> {
    twins: Critics<'t>,
    observation: Tensor<'t>,
    /// The policy at the buffer's states.
    policy: Distribution<'t>,
    /// The critics' errors and the auxiliary loss, `[]`, and both alone.
    loss: Tensor<'t>,
    learnt: Tensor<'t>,
    acted: Tensor<'t>,
    /// Mean Q of the actions taken, `[]`.
    q: Tensor<'t>,
}

/// BASE on the auxiliary critics.
enum FusionBase<'t> {
    Discrete(Vec<Tensor<'t>>),
    Continuous(Base<'t>),
}

impl<'t> FusionBase<'t> {
    fn of(&self, labels: Labels<'t>) -> Tensor<'t> {
        let Labels { action, mask } = labels;
        match self {
            FusionBase::Discrete(q) => {
                let one = |q: &Tensor<'t>| losses::masked_mean(losses::aikd_base(*q, action), mask);
                critics::sum(&q.iter().map(one).collect::<Vec<_>>()) * (1.0 / q.len() as f64)
            }
            FusionBase::Continuous(base) => base.of(labels),
        }
    }
}

impl<'t> Fusion<'t> {
    fn new(t: &'t Trace, config: &PpoConfig, sizes: Sizes, policy: &Policy<'t, '_>) -> Self {
        let batch = config.batch_size;
        let row = |name: &str| t.data(name, &[batch]);
        let [observation, next] = ["replay.observation", "replay.next_observation"]
            .map(|name| t.data(name, &[batch, sizes.observation]));
        let taken = t.data("replay.action", &sizes.actions.shape(batch));
        let (reward, discount) = (row("replay.reward"), row("replay.discount"));
        let alpha = t.constant(config.temperature, &[]);
        let (now, then) = (policy.at(observation), policy.at(next));
        let (twins, values, target, min_q, acted) = match (now, then) {
            (Distribution::Categorical(logits), Distribution::Categorical(next_logits)) => {
                let actions = sizes.actions.outputs();
                let twins = Critics::discrete(t, 2, sizes.observation, &config.hidden, actions);
                let next_q = least(q_values(&twins.targets, next));
                let future = soft_value(next_q, next_logits.log_softmax(), alpha);
                let known = q_values(&twins.params, observation);
                let values = picked(known, taken);
                let min_q = least(q_values(&frozen(&twins.params), observation));
                let acted = -soft_value(min_q, logits.log_softmax(), alpha).mean();
                (twins, values, reward + discount * future, min_q, acted)
            }
            (Distribution::Gaussian(mean, log_std), Distribution::Gaussian(next_mean, _)) => {
                let width = sizes.actions.width();
                let twins = Critics::continuous(t, 2, sizes.observation, &config.hidden, width);
                let drawn = |mean: Tensor<'t>, noise: &str| {
                    let action = mean + log_std.exp() * t.data(noise, &[batch, width]);
                    (cut_off(action), gaussian_log_prob(mean, log_std, action))
                };
                let (action, log_prob) = drawn(next_mean, "next_noise");
                let next_q = least(q_value(&twins.targets, next, action));
                let target = soft_target(reward, discount, next_q, log_prob, alpha);
                let taken = cut_off(taken);
                let values = q_value(&twins.params, observation, taken);
                let (action, log_prob) = drawn(mean, "noise");
                let min_q = least(q_value(&frozen(&twins.params), observation, action));
                (twins, values, target, min_q, sac_actor(min_q, log_prob, alpha))
            }
            _ => unreachable!("one policy gives one kind of distribution"),
        };
        let [learnt, q] = Critics::error(values, target.stop_gradient());
        let loss = learnt + td3_bc_scale(min_q, config.auxiliary) * acted;
        Self { twins, observation, policy: now, loss, learnt, acted, q }
    }

    fn base(&self, t: &'t Trace, config: &PpoConfig, sizes: Sizes) -> FusionBase<'t> {
        let critics = &self.twins.params;
        match sizes.actions {
            Actions::Discrete(_) => FusionBase::Discrete(each(q_values(critics, self.observation))),
            // The policy's own actions may lie outside the range that the sum is over.
            Actions::Continuous(width) => {
                let draw = critics::uniform(t, config.batch_size, config.samples, width);
                FusionBase::Continuous(Base::new(critics.clone(), self.observation, &[draw]))
            }
        }
    }
}

/// Actions as an environment takes them: from -1 to 1.
fn cut_off(action: Tensor<'_>) -> Tensor<'_> {
    let bound = |b| action.trace().constant(b, &[]);
    action.maximum(bound(-1.0)).minimum(bound(1.0))
}

/// A PPO student: owns its parameters, improves them, acts with them.
pub struct Ppo {
    config: PpoConfig,
    sizes: Sizes,
    engine: Engine,
    /// Gives logits or means.
    policy: Actor,
    log_std: Vec<f32>,
    value: Actor,
    /// Random numbers of an update, by the program's data inputs.
    noise: Noise,
}

impl Ppo {
    /// A student with parameters drawn from `rng`: orthogonal layers of gain sqrt 2, the policy's last of 0.01, the value
    /// function's last of 1 (Stable-Baselines3, `ortho_init`); critics as PyTorch's layers.
    pub fn new(
        config: &PpoConfig,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Self, LearnError> {
        let engine = Engine::new(program(config, sizes), ACTING, backend)?;
        let plain = |outputs| shape(config, sizes, outputs).actor();
        let (policy, value) = (plain(sizes.actions.outputs()), plain(1));
        let (rows, width) = (config.batch_size, sizes.actions.width());
        let continuous = matches!(sizes.actions, Actions::Continuous(_));
        let log_std = if continuous { vec![0.0; width] } else { Vec::new() };
        let drawn = [("noise", rows), ("next_noise", rows)].into_iter();
        let drawn = drawn.chain((sizes.teachers > 0).then_some((UNIFORM, rows * config.samples)));
        let noise = Noise::new(drawn.filter(|_| continuous && config.fusion), width);
        let mut student = Self { config: config.clone(), sizes, engine, policy, log_std, value, noise };
        student.start_over(rng)?;
        Ok(student)
    }
}

impl Agent for Ppo {
    fn actions(&self) -> Actions {
        self.sizes.actions
    }

    /// The likeliest action: an index, or components that may lie beyond -1 and 1.
    fn act(&mut self, observation: &[f32], action: &mut [f32]) {
        let out = self.policy.forward(observation);
        match self.sizes.actions {
            Actions::Continuous(_) => action.copy_from_slice(out),
            Actions::Discrete(_) => action[0] = mlp::choice(out),
        }
    }

    /// A continuous action may lie beyond its box: the environment gets it cut off.
    fn takes(&self, action: &[f32]) -> bool {
        match self.sizes.actions {
            Actions::Continuous(width) => action.len() == width && action.iter().all(|a| a.is_finite()),
            actions => actions.contains(action),
        }
    }

    /// An action drawn from the policy.
    fn sample(&mut self, observation: &[f32], rng: &mut Rng, action: &mut [f32]) {
        let out = self.policy.forward(observation);
        match self.sizes.actions {
            Actions::Continuous(_) => {
                for ((a, mean), log_std) in action.iter_mut().zip(out).zip(&self.log_std) {
                    *a = mean + log_std.exp() * rng.normal() as f32;
                }
            }
            Actions::Discrete(_) => action[0] = categorical(out, rng),
        }
    }

    /// Only its own actions say how good its policy is: `epsilon` does not count, but its draw is made.
    fn explore(&mut self, observation: &[f32], _: f64, rng: &mut Rng, action: &mut [f32]) {
        rng.f64();
        self.sample(observation, rng, action);
    }

    fn update(&mut self, batch: &Batch, schedule: &Schedule, rng: &mut Rng) -> Result<(), LearnError> {
        self.noise.draw(rng);
        let noise = |name: &str| self.noise.input(name);
        let find = |name: &str| batch.input(name).or_else(|| schedule.input(name)).or_else(|| noise(name));
        match self.engine.update(find)? {
            true => self.hand_over(),
            false => Ok(()),
        }
    }

    fn policy(&self) -> Actor {
        self.policy.clone()
    }

    fn squashes(&self) -> bool {
        false
    }

    fn on_policy(&mut self) -> Option<&mut dyn OnPolicy> {
        Some(self)
    }
}

impl OnPolicy for Ppo {
    fn rollouts(&self) -> Rollouts {
        let PpoConfig { n_steps, batch_size, epochs, gae_lambda, fusion, .. } = self.config;
        Rollouts { length: n_steps, batch_size, epochs, gae_lambda, normalise: true, replay: fusion }
    }

    fn log_prob(&mut self, observations: &[f32], actions: &[f32], out: &mut Vec<f32>) {
        let said = self.policy.forward(observations);
        match self.sizes.actions {
            Actions::Continuous(width) => {
                let rows = said.chunks_exact(width).zip(actions.chunks_exact(width));
                out.extend(rows.map(|(mean, action)| {
                    let components = mean.iter().zip(action).zip(&self.log_std);
                    let density = components.map(|((mean, a), log_std)| {
                        let z = (a - mean) * (-log_std).exp();
                        -0.5 * z * z - log_std - 0.5 * std::f32::consts::TAU.ln()
                    });
                    density.sum::<f32>()
                }));
            }
            Actions::Discrete(n) => {
                let rows = said.chunks_exact(n).zip(actions);
                out.extend(rows.map(|(logits, a)| logits[*a as usize] - log_sum_exp(logits)));
            }
        }
    }

    fn value(&mut self, observations: &[f32]) -> &[f32] {
        self.value.forward(observations)
    }
}

pub(crate) fn log_sum_exp(logits: &[f32]) -> f32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    most + logits.iter().map(|l| (l - most).exp()).sum::<f32>().ln()
}

/// An index drawn from a softmax; no number where the logits have no finite sum.
pub fn categorical(logits: &[f32], rng: &mut Rng) -> f32 {
    let all = log_sum_exp(logits);
    if !all.is_finite() {
        return f32::NAN;
    }
    let mut left = rng.f64();
    for (i, logit) in logits.iter().enumerate() {
        left -= f64::from((logit - all).exp());
        if left < 0.0 {
            return i as f32;
        }
    }
    // What rounding left over.
    (logits.len() - 1) as f32
}

impl Learner for Ppo {
    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    fn hand_over(&mut self) -> Result<(), LearnError> {
        let Self { engine, policy, log_std, value, .. } = self;
        let deviation = (!log_std.is_empty()).then_some(&mut log_std[..]);
        let parts = policy.parameters_mut().chain(deviation).chain(value.parameters_mut());
        for (i, part) in parts.enumerate() {
            engine.acting(i, part)?;
        }
        Ok(())
    }

    fn start_over(&mut self, rng: &mut Rng) -> Result<(), LearnError> {
        let (config, sizes) = (&self.config, self.sizes);
        let mut initial_values = InitialParameters::new();
        for (name, outputs, gain) in [(POLICY, sizes.actions.outputs(), 0.01), ("agent.value.", 1, 1.0)] {
            shape(config, sizes, outputs).orthogonal(rng, name, gain, &mut initial_values);
        }
        if config.fusion {
            let [inputs, outputs] = match sizes.actions {
                Actions::Discrete(choices) => [sizes.observation, choices],
                Actions::Continuous(action) => [sizes.observation + action, 1],
            };
            let widths = [&[inputs], &config.hidden[..], &[outputs]].concat();
            initial_critics(rng, 2, &widths, &mut initial_values);
        }
        let log_std = self.config.initial_log_std as f32;
        initial_values.push(("agent.log_std".into(), vec![log_std; sizes.actions.width()]));
        self.engine
            .start(|input| initial(&initial_values, &input.name).unwrap_or_else(|| vec![0.0; input.len()]))?;
        self.hand_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_softmax() {
        let logits = [0.0, 2f32.ln(), f32::NEG_INFINITY];
        let rng = &mut Rng::new(4);
        let mut counts = [0; 3];
        (0..9_000).for_each(|_| counts[categorical(&logits, rng) as usize] += 1);
        assert!((2_800..3_200).contains(&counts[0]) && counts[2] == 0, "{counts:?}");
    }
}
