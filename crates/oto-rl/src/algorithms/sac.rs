//! Soft actor-critic (Haarnoja et al. 2018) with the teachers' term of OTO eq. 14: settings, and for continuous actions the
//! program of one update and the agent; [`super::sac_discrete`] has those for discrete actions. Twin critics, a squashed
//! Gaussian actor, a temperature that finds itself.
//!
//! Actions go from -1 to 1 in every component here; whoever owns the environment scales them.

use super::sac_discrete::{self, SacDiscrete};
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes};
use crate::actions::Actions;
use crate::checks::Checks;
use crate::convolution::Convolution;
use crate::critics::{
    self, Base, Critics, Importance, InitialParameters, Params, SampledActions, each, frozen, initial,
    initial_critics, initial_mlp, least, q_value, repeated, sum, uniform,
};
use crate::engine::{Adopted, Engine, FindTensor, LearnError, Learner, LossParts, Schedule, aikd_weights};
use crate::losses;
use crate::losses::actor_critic::{sac_actor, soft_target, squashed_gaussian, temperature};
use crate::losses::offline::cql_continuous;
use crate::mlp::Mlp;
use crate::network::{Actor, Shape, SharedEncoder, initial_encoder, seen};
use crate::noise::{Noise, UNIFORM};
use crate::optimiser::{Adam, initial_layer, mlp_parameters};
use crate::replay::Batch;
use crate::schedule::Linear;
use oto_env::rng::Rng;
use oto_env::within;
use oto_graph::{Activation, Backend, Program, Tensor, Trace};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct SoftActorCritic;

impl Algorithm for SoftActorCritic {
    fn name(&self) -> &'static str {
        "sac"
    }

    fn title(&self) -> &'static str {
        "Soft actor-critic: the return and the policy's entropy, from replay"
    }

    fn paper(&self) -> &'static str {
        "Haarnoja et al. 2018; discrete actions: Christodoulou 2019"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Continuous, ActionKind::Discrete]
    }

    fn images(&self) -> bool {
        true
    }

    fn data(&self) -> &'static [Data] {
        &[Data::Replay]
    }

    fn defaults(&self, seen: Seen) -> Defaults {
        let rows = if seen.continuous { continuous() } else { discrete() };
        match seen.images {
            Some(shape) => images(shape, rows),
            None => rows,
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<SacConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<SacConfig>(self, generator)
    }
}

/// The settings of Stable-Baselines3 2.9: learning rate 3e-4, Polyak share 0.005, 100 random actions at the start, an update
/// a step.
fn continuous() -> Defaults {
    Defaults {
        steps: 20_000,
        buffer: 1_000_000,
        learning_starts: 100,
        epsilon: Linear { start: 1.0, end: 0.0, steps: 100 },
        evaluation: (1_000, 10),
        ..Defaults::new(SacConfig::default(), "continuous actions", "Stable-Baselines3 2.9's SAC")
    }
}

/// Learning rate, batch and Adam's epsilon of CleanRL's `sac_atari.py`; all else as for continuous actions, because its target
/// networks (replaced every 8,000 steps) and its long start are Atari's.
fn discrete() -> Defaults {
    let config = SacConfig { hidden: vec![64, 64], batch_size: 64, ..SacConfig::default() };
    let adam = Adam { epsilon: 1e-4, ..config.adam };
    Defaults {
        algorithm: SacConfig { adam, ..config }.into(),
        environments: "discrete actions",
        source: "Stable-Baselines3 2.9's SAC, with learning rate, batch and Adam's epsilon of CleanRL's sac_atari.py",
        ..continuous()
    }
}

/// The network of Mnih et al. (2015), or for smaller images the one of [`Convolution::usual`], with batches of 64 and an update every
/// four steps, for the time they take; all else as for rows of numbers.
fn images(shape: [usize; 3], rows: Defaults) -> Defaults {
    let (convolution, units) = Convolution::usual(shape).unwrap_or((Convolution::atari(shape), 512));
    let algorithm = rows.algorithm.with(|sac: &mut SacConfig| {
        (sac.convolution, sac.hidden, sac.batch_size) = (Some(convolution), vec![units], 64);
    });
    Defaults {
        algorithm,
        environments: "images of bytes",
        source: "Stable-Baselines3 2.9's SAC on the network of Mnih et al. (2015), with smaller and fewer batches",
        steps: 100_000,
        buffer: 100_000,
        learning_starts: 1_000,
        train_every: 4,
        epsilon: Linear { start: 1.0, end: 0.0, steps: 1_000 },
        evaluation: (10_000, 3),
        ..rows
    }
}

/// What a SAC student is made of. Defaults are those of Stable-Baselines3 2.9 where it has one; `samples` is ours.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct SacConfig {
    /// Convolutional layers for image observations, before the hidden layers. Actor and critics share them, and the critics' loss
    /// trains them.
    pub convolution: Option<Convolution>,
    /// Widths of the hidden layers of actor and critics, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Initial temperature.
    pub initial_alpha: f64,
    /// Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution and from the policy
    /// each.
    pub samples: usize,
    /// Weight of the conservative term (CQL(H), OTO eq. 6) for offline training, over `samples` actions each of a uniform
    /// distribution, of the policy, and of the policy at the next state. 0: no such term. The authors' code uses 5, with 10
    /// samples.
    pub cql: f64,
    /// The optimiser's constants.
    pub adam: Adam,
}

oto_json::json_object! { SacConfig: settings { convolution omit none, hidden, batch_size, initial_alpha, samples, cql, adam } }

impl Default for SacConfig {
    fn default() -> Self {
        Self {
            convolution: None,
            hidden: vec![256, 256],
            batch_size: 256,
            initial_alpha: 1.0,
            samples: 4,
            cql: 0.0,
            adam: Adam::default(),
        }
    }
}

impl Settings for SacConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &SoftActorCritic
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        checks.hidden(&self.hidden);
        checks.convolution(self.convolution.as_ref());
        checks.batch_size(self.batch_size);
        checks.whole("samples", self.samples as u64, 1..=256, "1 to 256 actions a state");
        checks.weight("cql", self.cql);
        checks.real("initial_alpha", self.initial_alpha, 1e-6..=1e3, "1e-6 to 1000");
        checks.adam(self.adam);
    }

    fn convolution(&self) -> Option<&Convolution> {
        self.convolution.as_ref()
    }

    fn can_be_prioritised(&self) -> bool {
        true
    }

    fn program(&self, sizes: Sizes) -> Program {
        match sizes.actions {
            Actions::Continuous(_) => program(self, sizes),
            Actions::Discrete(_) => sac_discrete::program(self, sizes),
        }
    }

    fn agent(
        &self,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Box<dyn Agent>, LearnError> {
        Ok(match sizes.actions {
            Actions::Continuous(_) => Box::new(Sac::new(self, sizes, backend, rng)?),
            Actions::Discrete(_) => Box::new(SacDiscrete::new(self, sizes, backend, rng)?),
        })
    }
}

/// Where the logarithm of a standard deviation is cut off, as in Stable-Baselines3.
const LOG_STD: [f64; 2] = [-20.0, 2.0];

/// The policy's mean and log standard deviation, `[B, D]` each, for observations `[B, O]`.
pub(super) fn policy<'t>(params: &[(String, Tensor<'t>)], observation: Tensor<'t>) -> [Tensor<'t>; 2] {
    let (trunk, heads) = params.split_at(params.len() - 4);
    let hidden = trunk.chunks_exact(2).fold(observation, |x, p| x.linear(p[0].1, p[1].1, Activation::Relu));
    let head = |i: usize| hidden.linear(heads[i].1, heads[i + 1].1, Activation::Identity);
    let bound = |b| hidden.trace().constant(b, &[]);
    [head(0), head(2).maximum(bound(LOG_STD[0])).minimum(bound(LOG_STD[1]))]
}

/// Records one update: state and batch in, new state and [`LossParts`] out. All gradients are taken at the old parameters.
pub fn program(config: &SacConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let (batch, width) = (config.batch_size, sizes.actions.width());
    let row = |name: &str| t.data(name, &[batch]);
    let rows = |name: &str| t.data(name, &[batch, sizes.observation]);
    let actions = |name: &str| t.data(name, &[batch, width]);
    let scalar = |name: &str| t.data(name, &[]);

    let encoder = SharedEncoder::new(t, config.convolution.as_ref());
    let behind = Sizes { observation: seen(config.convolution.as_ref(), sizes.observation), ..sizes };
    let actor = actor_parameters(t, &config.hidden, behind);
    let twins = Critics::continuous(t, 2, behind.observation, &config.hidden, width);
    let Critics { params: critics, targets } = &twins;
    let log_alpha = t.state("log_alpha", &[]);
    let alpha = log_alpha.stop_gradient().exp();
    let (observation, next) = (rows("observation"), rows("next_observation"));
    let slow = encoder.see_slowly(next);
    let (observation, next) = (encoder.see(observation), encoder.held(encoder.see(next)));
    let held = encoder.held(observation);

    let [mean, log_std] = policy(&actor, next);
    let then = squashed_gaussian(mean, log_std, actions("next_noise"));
    let next_q = least(q_value(targets, slow, then.action));
    let target = soft_target(row("reward"), row("discount"), next_q, then.log_prob, alpha).stop_gradient();
    let taken = actions("action");
    let values = q_value(critics, observation, taken);
    let importance = Importance::new(t, sizes, batch);
    let [learnt, q] = Critics::weighted_error(values, target, importance);

    let [mean, log_std] = policy(&actor, held);
    let now = squashed_gaussian(mean, log_std, actions("noise"));
    let fixed = q_value(&frozen(critics), held, now.action);
    let acted = sac_actor(least(fixed), now.log_prob, alpha);
    let entropy = -(width as f64);
    let own = [
        ("actor_loss", acted),
        ("critic_loss", learnt),
        ("temperature", alpha),
        ("entropy", -now.log_prob.mean()),
    ];
    let own = own.into_iter().chain(importance.output(values, target)).collect::<Vec<_>>();
    let mut task = learnt + acted + temperature(log_alpha, now.log_prob, entropy);

    let weights = aikd_weights(t, sizes.teachers);
    let (count, many) = (sizes.teachers, [batch, config.samples]);
    let base = (count > 0 || config.cql > 0.0).then(|| {
        let uniform = uniform(t, batch, config.samples, width);
        let own = drawn(&actor, held, "sample_noise", many, width);
        Base::new(critics.clone(), observation, &[uniform, own])
    });
    if let (Some(base), true) = (&base, config.cql > 0.0) {
        let then = drawn(&actor, next, "next_sample_noise", many, width);
        let then = then.groups(critics, observation);
        let own = each(values);
        let each = base.groups().iter().zip(then).zip(&own);
        let conservative = each.map(|((own, then), q)| cql_continuous(&[&own[..], &[then]].concat(), *q));
        task = task + sum(&conservative.collect::<Vec<_>>()) * config.cql;
    }
    let aikd = match &base {
        Some(base) if count > 0 => {
            let action = mean.tanh();
            critics::labelled(t, "", count, &[batch, width], |labels, perm| {
                losses::aikd_continuous(base.of(labels), action, labels, perm, weights)
            })
        }
        _ => Vec::new(),
    };
    let loss = losses::transfer(&aikd, task, weights);

    let mut params = [&encoder.params[..], &actor, critics].concat();
    params.push(("log_alpha".into(), log_alpha));
    let mut updates = config.adam.step(t, &params, loss, scalar("lr"));
    let mix = scalar("target_mix");
    twins.follow(&mut updates, mix);
    encoder.follow(&mut updates, mix);
    let outputs = LossParts::outputs(t, loss, task, &aikd, weights.share, q);
    t.finish(&updates, &[&outputs[..], &own].concat())
}

/// The actor's trunk and its two heads.
pub(super) fn actor_parameters<'t>(t: &'t Trace, hidden: &[usize], sizes: Sizes) -> Params<'t> {
    let trunk = [&[sizes.observation], hidden].concat();
    let mut params = mlp_parameters(t, "actor.", &trunk);
    let last = trunk[trunk.len() - 1];
    for head in ["mean", "log_std"] {
        for (part, shape) in
            [("weight", vec![sizes.actions.width(), last]), ("bias", vec![sizes.actions.width()])]
        {
            let name = format!("actor.{head}.{part}");
            params.push((name.clone(), t.state(name, &shape)));
        }
    }
    params
}

/// So many actions of the policy for each of its observations x `[B, O]`, which no gradient reaches.
pub(super) fn drawn<'t>(
    actor: &[(String, Tensor<'t>)],
    x: Tensor<'t>,
    noise: &str,
    [batch, count]: [usize; 2],
    width: usize,
) -> SampledActions<'t> {
    let [mean, log_std] = policy(&frozen(actor), repeated(x, count));
    let own = squashed_gaussian(mean, log_std, x.trace().data(noise, &[batch * count, width]));
    SampledActions { action: own.action, log_density: own.log_prob.reshape(&[batch, count]) }
}

/// A SAC student: owns its parameters, improves them, acts with them.
pub struct Sac {
    convolution: Option<Convolution>,
    hidden: Vec<usize>,
    critics: usize,
    initial_alpha: f64,
    sizes: Sizes,
    engine: Engine,
    /// Gives the policy's mean, then its log standard deviation, `[2 D]`.
    actor: Actor,
    /// Random numbers of an update, by the program's data inputs.
    noise: Noise,
    /// The beginnings of the names of parameters that another run's never replace.
    own: &'static [&'static str],
}

impl Sac {
    /// A student with parameters drawn from `rng`; its target critics start as copies.
    pub fn new(
        config: &SacConfig,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Self, LearnError> {
        let (rows, width) = (config.batch_size, sizes.actions.width());
        let names = [("noise", rows), ("next_noise", rows)].into_iter();
        let many = rows * config.samples;
        let sampled = [(UNIFORM, many), ("sample_noise", many)];
        let names = names.chain(sampled.into_iter().filter(|_| sizes.teachers > 0 || config.cql > 0.0));
        let names = names.chain([("next_sample_noise", many)].into_iter().filter(|_| config.cql > 0.0));
        let noise = Noise::new(names, width);
        let critics = (2, config.initial_alpha);
        let network = (config.convolution.as_ref(), &config.hidden[..]);
        Self::of(program(config, sizes), network, critics, noise, sizes, backend, rng)
    }

    /// The same with a program of another algorithm, which has so many critics and starts at this temperature.
    pub(super) fn of(
        program: Program,
        (convolution, hidden): (Option<&Convolution>, &[usize]),
        (critics, initial_alpha): (usize, f64),
        noise: Noise,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Self, LearnError> {
        let engine = Engine::new(program, "actor.", backend)?;
        let actor = Shape::new(convolution, sizes.observation, hidden, 2 * sizes.actions.width()).actor();
        let (convolution, hidden) = (convolution.cloned(), hidden.to_vec());
        let own: &[&str] = &[];
        let mut student =
            Self { convolution, hidden, critics, initial_alpha, sizes, engine, actor, noise, own };
        student.start_over(rng)?;
        Ok(student)
    }
}

impl Sac {
    /// The same for actor-critic alignment, which keeps parameters with such names when it begins with another run's.
    #[cfg(feature = "every-algorithm")]
    pub(super) fn with_own(self, own: &'static [&'static str]) -> Self {
        Self { own, ..self }
    }
}

impl Agent for Sac {
    fn actions(&self) -> Actions {
        self.sizes.actions
    }

    /// The action without noise.
    fn act(&mut self, observation: &[f32], action: &mut [f32]) {
        let out = self.actor.forward(observation);
        action.iter_mut().zip(out).for_each(|(a, mean)| *a = mean.tanh());
    }

    /// An action drawn from the policy.
    fn sample(&mut self, observation: &[f32], rng: &mut Rng, action: &mut [f32]) {
        let (mean, log_std) = self.actor.forward(observation).split_at(action.len());
        for ((a, mean), log_std) in action.iter_mut().zip(mean).zip(log_std) {
            let std = within(*log_std, LOG_STD[0] as f32, LOG_STD[1] as f32).exp();
            *a = (mean + std * rng.normal() as f32).tanh();
        }
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

    /// The mean before its tanh.
    fn policy(&self) -> Actor {
        let mut layers = self.actor.layers().to_vec();
        let heads = layers.last_mut().expect("a network has a last layer");
        heads.weight.truncate(heads.weight.len() / 2);
        heads.bias.truncate(heads.bias.len() / 2);
        let inputs = seen(self.convolution.as_ref(), self.sizes.observation);
        let layers = Mlp::new(inputs, layers).expect("its layers fit as they did");
        Actor::new(self.actor.encoder().cloned(), layers)
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
        let (encoder, layers) = self.actor.parts_mut();
        let (heads, trunk) = layers.split_last_mut().expect("a network has a last layer");
        let trunk = trunk.iter_mut().flat_map(|l| [&mut l.weight[..], &mut l.bias[..]]);
        let (weights, biases) = (heads.weight.len() / 2, heads.bias.len() / 2);
        let (mean_weight, std_weight) = heads.weight.split_at_mut(weights);
        let (mean_bias, std_bias) = heads.bias.split_at_mut(biases);
        let heads = [mean_weight, mean_bias, std_weight, std_bias];
        for (i, part) in encoder.chain(trunk).chain(heads).enumerate() {
            self.engine.acting(i, part)?;
        }
        Ok(())
    }

    fn adopt(&mut self, tensor: &mut FindTensor<'_>) -> Result<Adopted, LearnError> {
        let own = self.own;
        #[cfg(feature = "every-algorithm")]
        if !own.is_empty() {
            self.engine.needs("residual.0.weight", ["aca", "sac-ml"], tensor)?;
        }
        let mut find = |name: &str, shape: &[usize]| {
            let parameter = name.strip_prefix("adam.m.").or(name.strip_prefix("adam.v.")).unwrap_or(name);
            let kept = own.iter().any(|prefix| parameter.starts_with(prefix));
            if kept { None } else { tensor(name, shape) }
        };
        let adopted = self.engine.adopt(&mut find)?;
        self.hand_over()?;
        Ok(adopted)
    }

    fn start_over(&mut self, rng: &mut Rng) -> Result<(), LearnError> {
        let mut initial_values = InitialParameters::new();
        let (hidden, sizes) = (&self.hidden, self.sizes);
        let inputs = seen(self.convolution.as_ref(), sizes.observation);
        initial_encoder(rng, self.convolution.as_ref(), &mut initial_values);
        let trunk = [&[inputs], &hidden[..]].concat();
        initial_mlp(rng, "actor.", &trunk, &mut initial_values);
        for head in ["mean", "log_std"] {
            let (weight, bias) = initial_layer(rng, trunk[trunk.len() - 1], sizes.actions.width());
            initial_values
                .extend([(format!("actor.{head}.weight"), weight), (format!("actor.{head}.bias"), bias)]);
        }
        let widths = [&[inputs + sizes.actions.width()], &hidden[..], &[1]].concat();
        initial_critics(rng, self.critics, &widths, &mut initial_values);
        #[cfg(feature = "every-algorithm")]
        {
            super::aca::initial_residuals(rng, &self.engine, &widths, sizes.observation, &mut initial_values);
            super::mopo::initial_models(rng, &self.engine, &mut initial_values);
        }
        initial_values.push(("log_alpha".into(), vec![self.initial_alpha.ln() as f32]));
        self.engine
            .start(|input| initial(&initial_values, &input.name).unwrap_or_else(|| vec![0.0; input.len()]))?;
        self.hand_over()
    }
}
