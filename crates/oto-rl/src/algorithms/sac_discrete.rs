//! Soft actor-critic for discrete actions (Christodoulou 2019, "Soft Actor-Critic for Discrete Action Settings") with the
//! teachers' term of OTO eq. 14: the program of one update, and the agent; [`super::sac`] has the settings. Critics give a value for each action, so that
//! expectations over actions are sums; teachers shape the critics, as they do QR-DQN, and the actor follows those.

use super::ppo::categorical;
use super::sac::SacConfig;
use super::{Agent, Sizes};
use crate::actions::Actions;
use crate::critics::{
    self, Critics, Importance, InitialParameters, each, frozen, initial, initial_critics, initial_mlp, least,
    picked, q_values, sum,
};
use crate::engine::{Engine, LearnError, Learner, LossParts, Schedule, aikd_weights};
use crate::losses;
use crate::losses::actor_critic::{categorical_entropy, soft_value, temperature};
use crate::mlp;
use crate::network::{Actor, Shape, SharedEncoder, initial_encoder, seen};
use crate::optimiser::{mlp as network, mlp_parameters};
use crate::replay::Batch;
use oto_env::rng::Rng;
use oto_graph::{Activation, Backend, Program, Trace};

/// The entropy that the temperature holds the policy to, as a share of that of chance (Christodoulou 2019, table 2;
/// CleanRL's `sac_atari.py` has 0.89).
pub(super) const TARGET_ENTROPY: f64 = 0.98;

/// Records one update: state and batch in, new state and [`LossParts`] out. All gradients are taken at the old parameters.
pub fn program(config: &SacConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let batch = config.batch_size;
    let row = |name: &str| t.data(name, &[batch]);
    let rows = |name: &str| t.data(name, &[batch, sizes.observation]);
    let scalar = |name: &str| t.data(name, &[]);

    let encoder = SharedEncoder::new(t, config.convolution.as_ref());
    let inputs = seen(config.convolution.as_ref(), sizes.observation);
    let actor = mlp_parameters(t, "actor.", &widths(config, sizes));
    let logits = |x| network(&actor, x, Activation::Relu);
    let twins = Critics::discrete(t, 2, inputs, &config.hidden, sizes.actions.outputs());
    let log_alpha = t.state("log_alpha", &[]);
    let alpha = log_alpha.stop_gradient().exp();
    let (observation, next) = (rows("observation"), rows("next_observation"));
    let slow = encoder.see_slowly(next);
    let (observation, next) = (encoder.see(observation), encoder.held(encoder.see(next)));
    let held = encoder.held(observation);

    let next_q = least(q_values(&twins.targets, slow));
    let future = soft_value(next_q, logits(next).log_softmax(), alpha);
    let target = (row("reward") + row("discount") * future).stop_gradient();
    let taken = row("action");
    let known = q_values(&twins.params, observation);
    let importance = Importance::new(t, sizes, batch);
    let values = picked(known, taken);
    let [learnt, q] = Critics::weighted_error(values, target, importance);

    let fixed = least(q_values(&frozen(&twins.params), held));
    let now = logits(held);
    let acted = -soft_value(fixed, now.log_softmax(), alpha).mean();
    let entropy = TARGET_ENTROPY * (sizes.actions.outputs() as f64).ln();
    let spread = categorical_entropy(now);
    let task = learnt + acted + temperature(log_alpha, -spread, entropy);
    let own =
        [("actor_loss", acted), ("critic_loss", learnt), ("temperature", alpha), ("entropy", spread.mean())];
    let own = own.into_iter().chain(importance.output(values, target)).collect::<Vec<_>>();

    let weights = aikd_weights(t, sizes.teachers);
    let both = sum(&each(known)) * (1.0 / known.size(0) as f64);
    let aikd = critics::labelled(t, "", sizes.teachers, &[batch], |labels, perm| {
        losses::aikd(both, labels, perm, weights.delta, weights.eta)
    });
    let loss = losses::transfer(&aikd, task, weights);

    let mut params = [&encoder.params[..], &actor, &twins.params].concat();
    params.push(("log_alpha".into(), log_alpha));
    let mut updates = config.adam.step(t, &params, loss, scalar("lr"));
    let mix = scalar("target_mix");
    twins.follow(&mut updates, mix);
    encoder.follow(&mut updates, mix);
    let outputs = LossParts::outputs(t, loss, task, &aikd, weights.share, q);
    t.finish(&updates, &[&outputs[..], &own].concat())
}

pub(super) fn widths(config: &SacConfig, sizes: Sizes) -> Vec<usize> {
    let inputs = seen(config.convolution.as_ref(), sizes.observation);
    [&[inputs], &config.hidden[..], &[sizes.actions.outputs()]].concat()
}

/// A SAC student with discrete actions: owns its parameters, improves them, acts with them.
pub struct SacDiscrete {
    config: SacConfig,
    sizes: Sizes,
    engine: Engine,
    /// Gives logits.
    actor: Actor,
}

impl SacDiscrete {
    /// A student with parameters drawn from `rng`; its target critics start as copies.
    pub fn new(
        config: &SacConfig,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Self, LearnError> {
        Self::of(program(config, sizes), config, sizes, backend, rng)
    }

    /// The same with a program of another algorithm.
    pub(super) fn of(
        program: Program,
        config: &SacConfig,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Self, LearnError> {
        let engine = Engine::new(program, "actor.", backend)?;
        let (convolution, outputs) = (config.convolution.as_ref(), sizes.actions.outputs());
        let actor = Shape::new(convolution, sizes.observation, &config.hidden, outputs).actor();
        let mut student = Self { config: config.clone(), sizes, engine, actor };
        student.start_over(rng)?;
        Ok(student)
    }
}

impl Agent for SacDiscrete {
    fn actions(&self) -> Actions {
        self.sizes.actions
    }

    /// The likeliest action; the first of equals.
    fn act(&mut self, observation: &[f32], action: &mut [f32]) {
        action[0] = mlp::choice(self.actor.forward(observation));
    }

    /// An action drawn from the policy.
    fn sample(&mut self, observation: &[f32], rng: &mut Rng, action: &mut [f32]) {
        action[0] = categorical(self.actor.forward(observation), rng);
    }

    fn update(&mut self, batch: &Batch, schedule: &Schedule, _: &mut Rng) -> Result<(), LearnError> {
        let find = |name: &str| batch.input(name).or_else(|| schedule.input(name));
        match self.engine.update(find)? {
            true => self.hand_over(),
            false => Ok(()),
        }
    }

    fn policy(&self) -> Actor {
        self.actor.clone()
    }
}

impl Learner for SacDiscrete {
    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    fn hand_over(&mut self) -> Result<(), LearnError> {
        let Self { engine, actor, .. } = self;
        actor.parameters_mut().enumerate().try_for_each(|(i, part)| engine.acting(i, part))
    }

    fn start_over(&mut self, rng: &mut Rng) -> Result<(), LearnError> {
        let (config, sizes) = (&self.config, self.sizes);
        let mut initial_values = InitialParameters::new();
        initial_encoder(rng, config.convolution.as_ref(), &mut initial_values);
        initial_mlp(rng, "actor.", &widths(config, sizes), &mut initial_values);
        initial_critics(rng, 2, &widths(config, sizes), &mut initial_values);
        initial_values.push(("log_alpha".into(), vec![config.initial_alpha.ln() as f32]));
        self.engine
            .start(|input| initial(&initial_values, &input.name).unwrap_or_else(|| vec![0.0; input.len()]))?;
        self.hand_over()
    }
}
