//! TD3 (Fujimoto et al. 2018): twin critics, target policy smoothing, and an actor that moves at every second update. With the teachers'
//! term of OTO eq. 14. Settings, the program of one update, and the agent.
//!
//! Actions have components from -1 to 1 here; the trainer scales them to the environment's range.

use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Run, Seen, Settings, Sizes};
use crate::actions::Actions;
use crate::checks::Checks;
use crate::critics::{
    self, Base, Critics, Importance, InitialParameters, Params, frozen, initial, initial_critics,
    initial_mlp, least, q_value, uniform,
};
use crate::engine::{Engine, LearnError, Learner, LossParts, Schedule, aikd_weights};
use crate::exploration::ActionNoise;
use crate::losses;
use crate::losses::deterministic::{bellman_target, deterministic_actor, smoothed_action};
use crate::mlp::{self, Mlp};
use crate::network::Actor;
use crate::noise::{Noise, UNIFORM};
use crate::normaliser::Normaliser;
use crate::optimiser::{Adam, Optimiser, Updates, mlp, mlp_parameters};
use crate::replay::{Batch, Replay};
use crate::schedule::Linear;
use oto_env::rng::Rng;
use oto_graph::{Activation, Backend, Program, Tensor, Trace};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct TwinDelayed;

impl Algorithm for TwinDelayed {
    fn name(&self) -> &'static str {
        "td3"
    }

    fn title(&self) -> &'static str {
        "Twin delayed deterministic policy gradient: twin critics, a smoothed target, a delayed actor"
    }

    fn paper(&self) -> &'static str {
        "Fujimoto et al. 2018"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Continuous]
    }

    fn data(&self) -> &'static [Data] {
        &[Data::Replay]
    }

    /// The settings of Stable-Baselines3 2.9: learning rate 1e-3, Polyak share 0.005, 100 random actions at the start, an update a step.
    fn defaults(&self, _: Seen) -> Defaults {
        Defaults {
            steps: 20_000,
            buffer: 1_000_000,
            learning_starts: 100,
            learning_rate: Linear::constant(1e-3),
            epsilon: Linear { start: 1.0, end: 0.0, steps: 100 },
            evaluation: (1_000, 10),
            ..Defaults::new(
                Td3Config::default(),
                "continuous actions",
                "Stable-Baselines3 2.9's TD3, with the exploration noise of the paper",
            )
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<Td3Config>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<Td3Config>(self, generator)
    }
}

/// Settings of a TD3 student. Defaults are those of Stable-Baselines3 2.9, and of the paper where it has none (exploration); `samples`
/// is ours.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct Td3Config {
    /// Widths of the hidden layers of actor and critics, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Standard deviation of the noise on actions that explore.
    pub exploration: f64,
    /// Factor of `exploration` over environment steps.
    pub exploration_factor: Linear,
    /// Correlation time of this noise in environment steps: Ornstein-Uhlenbeck noise. 0: independent noise.
    pub correlation_time: f64,
    /// Standard deviation of the noise on the target's action.
    pub smoothing: f64,
    /// Largest noise on the target's action.
    pub smoothing_clip: f64,
    /// Updates from one step of the actor and all target networks to the next.
    pub policy_period: u64,
    /// Environment steps before the actor's first update (N_a of Cao et al. 2022, section III-B), at least the run's `learning_starts`
    /// (N_c), from which on the critics learn. Absent: the actor learns from the beginning, too.
    pub actor_starts: Option<u64>,
    /// Sampled actions for each state in the sum over actions of OTO eq. 10, from a uniform distribution.
    pub samples: usize,
    /// The optimisers' constants.
    pub adam: Adam,
}

oto_json::json_object! {
    Td3Config: settings {
        hidden, batch_size, exploration, exploration_factor, correlation_time, smoothing, smoothing_clip, policy_period,
        actor_starts omit none, samples, adam
    }
}

impl Default for Td3Config {
    fn default() -> Self {
        Self {
            hidden: vec![400, 300],
            batch_size: 256,
            exploration: 0.1,
            exploration_factor: Linear::constant(1.0),
            correlation_time: 0.0,
            smoothing: 0.2,
            smoothing_clip: 0.5,
            policy_period: 2,
            actor_starts: None,
            samples: 8,
            adam: Adam::default(),
        }
    }
}

impl Settings for Td3Config {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &TwinDelayed
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        checks.hidden(&self.hidden);
        checks.batch_size(self.batch_size);
        check_exploration((self.exploration, self.exploration_factor, self.correlation_time), checks);
        checks.real("smoothing", self.smoothing, 0.0..=2.0, "0 to 2");
        checks.real("smoothing_clip", self.smoothing_clip, 0.0..=2.0, "0 to 2");
        checks.whole("policy_period", self.policy_period, 1..=1024, "1 to 1024 updates");
        checks.whole("samples", self.samples as u64, 1..=256, "1 to 256 actions a state");
        checks.adam(self.adam);
    }

    fn check_run(&self, run: Run, checks: &mut Checks) {
        check_actor_starts(self.actor_starts, run, checks);
    }

    fn can_be_prioritised(&self) -> bool {
        true
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
        let parts = Parts {
            critics: 2,
            hidden: &self.hidden,
            exploration: ActionNoise::new(self.exploration, self.exploration_factor, self.correlation_time),
            policy_period: self.policy_period,
            actor_starts: self.actor_starts,
            normalised: false,
            constraint: Constraint::Fixed(0.0),
        };
        let noise = noise(self.batch_size, self.samples, sizes);
        Ok(Box::new(Deterministic::new(program(self, sizes), parts, noise, sizes, backend, rng)?))
    }
}

/// Records one update: state and batch in, new state and [`LossParts`] out. All gradients are taken at the old parameters.
pub fn program(config: &Td3Config, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let (batch, width) = (config.batch_size, sizes.actions.width());
    let row = |name: &str| t.data(name, &[batch]);
    let rows = |name: &str| t.data(name, &[batch, sizes.observation]);
    let actions = |name: &str| t.data(name, &[batch, width]);
    let scalar = |name: &str| t.data(name, &[]);

    let widths = [&[sizes.observation], &config.hidden[..], &[width]].concat();
    let [actor, target_actor] = ["actor.", "target.actor."].map(|prefix| mlp_parameters(t, prefix, &widths));
    let twins = Critics::continuous(t, 2, sizes.observation, &config.hidden, width);
    let (observation, next) = (rows("observation"), rows("next_observation"));

    let (sigma, clip) = (config.smoothing, config.smoothing_clip);
    let then = smoothed_action(act(&target_actor, next), actions("next_noise"), sigma, clip, 1.0);
    let next_q = least(q_value(&twins.targets, next, then));
    let target = bellman_target(row("reward"), row("discount"), next_q).stop_gradient();
    let values = q_value(&twins.params, observation, actions("action"));
    let importance = Importance::new(t, sizes, batch);
    let [critic_loss, q] = Critics::weighted_error(values, target, importance);

    let action = act(&actor, observation);
    let actor_loss = deterministic_actor(q_value(&frozen(&twins.params), observation, action).member(0));

    let weights = aikd_weights(t, sizes.teachers);
    let aikd = taught(t, &twins, observation, action, config.samples, (sizes.teachers, weights));
    let loss = losses::transfer(&aikd, critic_loss + actor_loss, weights);

    let (lr, mix, period) = (scalar("lr"), scalar("target_mix"), config.policy_period);
    let mut updates = Updates::new(t);
    updates.minimise(&Optimiser::new("critics", config.adam, lr), &twins.params, loss);
    let of_actor = Optimiser::new("actor", config.adam, lr).every(period);
    updates.minimise(&starting(of_actor, t, config.actor_starts), &actor, loss);
    updates.follow(&twins.targets, &twins.params, mix, period);
    updates.follow(&target_actor, &actor, mix, period);

    let actor_loss = updates.hold("actor_loss", actor_loss, period);
    let task = critic_loss + actor_loss;
    let loss = losses::transfer(&aikd, task, weights);
    let own = [("actor_loss", actor_loss), ("critic_loss", critic_loss)].into_iter();
    let own = own.chain(importance.output(values, target)).collect::<Vec<_>>();
    let outputs = LossParts::outputs(t, loss, task, &aikd, weights.share, q);
    t.finish(&updates.pairs(), &[&outputs[..], &own].concat())
}

/// The data input that is 1 where the actor steps, for an actor that starts later than the critics.
const ACTOR_DUE: &str = "actor_due";

/// The actor's optimiser, which leaves parameters and moments alone until the actor starts.
pub(super) fn starting<'t>(optimiser: Optimiser<'t>, t: &'t Trace, starts: Option<u64>) -> Optimiser<'t> {
    match starts {
        Some(_) => optimiser.when(t.shared_data(ACTOR_DUE, &[])),
        None => optimiser,
    }
}

/// Checks the noise on actions: its deviation, the factor of it, its correlation time.
pub(super) fn check_exploration((deviation, factor, time): (f64, Linear, f64), checks: &mut Checks) {
    checks.real("exploration", deviation, 0.0..=2.0, "0 to 2");
    factor.check("exploration_factor", 1.0, "a factor from 0 to 1", checks);
    checks.real("correlation_time", time, 0.0..=1e6, "0 to 1e6 steps");
}

/// The actor learns from the critics, so that it cannot start before them (Cao et al. 2022: N_a >= N_c).
pub(super) fn check_actor_starts(starts: Option<u64>, run: Run, checks: &mut Checks) {
    let critics = run.learning_starts;
    let expected = format!("at least learning_starts, {critics}: the actor learns from the critics");
    let good = starts.is_none_or(|starts| starts >= critics);
    checks
        .within("algorithm", |c| c.that(good, "actor_starts", || starts.unwrap_or(0).to_string(), &expected));
}

/// The actor's actions `[B, D]` for observations `[B, O]`.
pub(super) fn act<'t>(actor: &Params<'t>, observation: Tensor<'t>) -> Tensor<'t> {
    mlp(actor, observation, Activation::Relu).tanh()
}

/// What each teacher's labels give (OTO eq. 10 to 12), for the critics and for the actor's actions `[B, D]`.
pub(super) fn taught<'t>(
    t: &'t Trace,
    critics: &Critics<'t>,
    observation: Tensor<'t>,
    action: Tensor<'t>,
    samples: usize,
    (teachers, weights): (usize, losses::AikdWeights<'t>),
) -> Vec<losses::Aikd<'t>> {
    if teachers == 0 {
        return Vec::new();
    }
    let (batch, width) = (action.size(0), action.size(1));
    let base = Base::new(critics.params.clone(), observation, &[uniform(t, batch, samples, width)]);
    critics::labelled(t, "", teachers, &[batch, width], |labels, perm| {
        losses::aikd_continuous(base.of(labels), action, labels, perm, weights)
    })
}

/// Random numbers of an update: the smoothing's, and the actions of OTO eq. 10 where there are teachers.
pub(super) fn noise(rows: usize, samples: usize, sizes: Sizes) -> Noise {
    let sampled = (sizes.teachers > 0).then_some((UNIFORM, rows * samples));
    Noise::new([("next_noise", rows)].into_iter().chain(sampled), sizes.actions.width())
}

/// The parts of an agent with a deterministic actor.
pub(super) struct Parts<'a> {
    /// The number of critics.
    pub critics: usize,
    /// Widths of the hidden layers of actor and critics.
    pub hidden: &'a [usize],
    /// The noise on actions that explore.
    pub exploration: ActionNoise,
    /// Updates from one step of the actor to the next.
    pub policy_period: u64,
    /// Environment steps before the actor's first update; none: no program asks.
    pub actor_starts: Option<u64>,
    /// Whether the program normalises observations.
    pub normalised: bool,
    /// The weight of a constraint, which the program reads as [`CONSTRAINT`]; 0 where it has none.
    pub constraint: Constraint,
}

/// The data input that holds the weight of an actor's constraint.
pub(super) const CONSTRAINT: &str = "constraint";

/// The weight of an actor's constraint over a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Constraint {
    /// Always the same.
    Fixed(f64),
    /// From `start` to `end` over a number of steps, by a factor a step (Beeson and Montana 2022).
    #[cfg(feature = "every-algorithm")]
    Relaxed { start: f64, end: f64, steps: u64 },
    /// By the returns of episodes (Zhao et al. 2022).
    #[cfg(feature = "every-algorithm")]
    Adaptive(super::adaptive_bc::Adaptive),
}

impl Constraint {
    /// The weight at an environment's step.
    fn at(&self, step: u64) -> f64 {
        let _ = step;
        match self {
            Self::Fixed(weight) => *weight,
            #[cfg(feature = "every-algorithm")]
            Self::Relaxed { start, end, steps } => {
                crate::losses::constraint::relaxed_alpha(*start, *end, *steps, step.min(*steps))
            }
            #[cfg(feature = "every-algorithm")]
            Self::Adaptive(adaptive) => adaptive.weight(),
        }
    }
}

/// An agent with a deterministic actor: owns its parameters, improves them, acts with them.
pub(super) struct Deterministic {
    critics: usize,
    hidden: Vec<usize>,
    exploration: ActionNoise,
    policy_period: u64,
    actor_starts: u64,
    /// The environment's step.
    step: u64,
    /// Whether the actor steps in the update being made.
    actor_due: f32,
    sizes: Sizes,
    engine: Engine,
    /// Gives the action before its tanh, `[D]`.
    actor: Mlp,
    /// Random numbers of an update, by the program's data inputs.
    noise: Noise,
    normaliser: Option<Normaliser>,
    constraint: Constraint,
    /// The constraint's weight in the update being made.
    weight: f32,
}

impl Deterministic {
    /// An agent with parameters drawn from `rng`; its targets start as copies.
    pub fn new(
        program: Program,
        parts: Parts<'_>,
        noise: Noise,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Self, LearnError> {
        let Parts { critics, hidden, exploration, policy_period, actor_starts, normalised, constraint } =
            parts;
        let normaliser = normalised.then(|| Normaliser::none(sizes.observation));
        let engine = Engine::new(program, "actor.", backend)?;
        let widths = [&[sizes.observation], hidden, &[sizes.actions.width()]].concat();
        let actor = Mlp::zeros(&widths, mlp::Activation::Relu);
        let mut agent = Self {
            critics,
            hidden: hidden.to_vec(),
            exploration,
            policy_period,
            actor_starts: actor_starts.unwrap_or(0),
            step: 0,
            actor_due: 0.0,
            sizes,
            engine,
            actor,
            noise,
            normaliser,
            constraint,
            weight: 0.0,
        };
        agent.start_over(rng)?;
        Ok(agent)
    }
}

impl Agent for Deterministic {
    fn actions(&self) -> Actions {
        self.sizes.actions
    }

    fn act(&mut self, observation: &[f32], action: &mut [f32]) {
        let out = self.actor.forward(observation);
        action.iter_mut().zip(out).for_each(|(a, x)| *a = x.tanh());
    }

    /// The best action with noise, cut off at -1 and 1.
    fn sample(&mut self, observation: &[f32], rng: &mut Rng, action: &mut [f32]) {
        self.act(observation, action);
        self.exploration.add(rng, action);
    }

    fn at_step(&mut self, step: u64) {
        self.step = step;
        self.exploration.at_step(step);
    }

    fn noise(&self) -> Option<&ActionNoise> {
        Some(&self.exploration)
    }

    fn noise_mut(&mut self) -> Option<&mut ActionNoise> {
        Some(&mut self.exploration)
    }

    fn update(&mut self, batch: &Batch, schedule: &Schedule, rng: &mut Rng) -> Result<(), LearnError> {
        self.noise.draw(rng);
        let turn = (self.engine.updates() + 1).is_multiple_of(self.policy_period);
        self.actor_due = f32::from(turn && self.step >= self.actor_starts);
        self.weight = self.constraint.at(self.step) as f32;
        let [due, weight] = [&self.actor_due, &self.weight].map(std::slice::from_ref);
        let noise = |name: &str| match name {
            ACTOR_DUE => Some(due),
            CONSTRAINT => Some(weight),
            name => self.noise.input(name),
        };
        let find = |name: &str| batch.input(name).or_else(|| schedule.input(name)).or_else(|| noise(name));
        match self.engine.update(find)? {
            true => self.hand_over(),
            false => Ok(()),
        }
    }

    #[cfg(feature = "every-algorithm")]
    fn end_episode(&mut self, score: f64, length: u64) {
        if let Constraint::Adaptive(adaptive) = &mut self.constraint {
            adaptive.end_episode(score, length);
        }
    }

    #[cfg(feature = "every-algorithm")]
    fn memory(&self) -> Vec<f32> {
        match &self.constraint {
            Constraint::Adaptive(adaptive) => adaptive.memory(),
            _ => Vec::new(),
        }
    }

    #[cfg(feature = "every-algorithm")]
    fn recall(&mut self, memory: &[f32]) -> bool {
        match &mut self.constraint {
            Constraint::Adaptive(adaptive) => adaptive.recall(memory),
            _ => memory.is_empty(),
        }
    }

    fn prepare(&mut self, data: &Replay) -> Result<(), LearnError> {
        let Some(normaliser) = &mut self.normaliser else { return Ok(()) };
        normaliser.measure(data);
        let state = self.engine.state()?;
        let old = |name: &str| Some(state.iter().find(|tensor| tensor.name == name)?.values.clone());
        let mut new = |name: &str| normaliser.state(name).map(<[f32]>::to_vec).or_else(|| old(name));
        self.engine.restore(self.engine.updates(), &mut new)?;
        self.hand_over()
    }

    /// The action before its tanh.
    fn policy(&self) -> Actor {
        self.actor.clone().into()
    }
}

impl Learner for Deterministic {
    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    fn hand_over(&mut self) -> Result<(), LearnError> {
        let next = self.engine.acting_layers(0, &mut self.actor)?;
        if let Some(normaliser) = &mut self.normaliser {
            normaliser.hand_over(&mut self.engine, next)?;
            normaliser.fold(&mut self.actor.layers_mut()[0]);
        }
        Ok(())
    }

    fn start_over(&mut self, rng: &mut Rng) -> Result<(), LearnError> {
        let (observation, width) = (self.sizes.observation, self.sizes.actions.width());
        let mut initial_values = InitialParameters::new();
        initial_mlp(
            rng,
            "actor.",
            &[&[observation], &self.hidden[..], &[width]].concat(),
            &mut initial_values,
        );
        let widths = [&[observation + width], &self.hidden[..], &[1]].concat();
        initial_critics(rng, self.critics, &widths, &mut initial_values);
        let normaliser = &self.normaliser;
        let known = |name: &str| normaliser.as_ref()?.state(name).map(<[f32]>::to_vec);
        self.engine.start(|input| {
            let value = initial(&initial_values, &input.name).or_else(|| known(&input.name));
            value.unwrap_or_else(|| vec![0.0; input.len()])
        })?;
        self.hand_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(teachers: usize) -> Sizes {
        Sizes { observation: 3, actions: Actions::Continuous(2), teachers, weighted: false }
    }

    fn small() -> Td3Config {
        Td3Config { hidden: vec![8, 8], batch_size: 4, ..Td3Config::default() }
    }

    /// The actor, its moments and all targets have a period; the critics have none.
    #[test]
    fn a_delayed_actor_needs_its_period() {
        assert!(small().program(sizes(1)).input("every_2").is_some());
        let always = Td3Config { policy_period: 1, ..small() };
        assert!(always.program(sizes(1)).input("every_1").is_none());
    }

    /// Parameters, moments and step count of the actor stay bit by bit until it starts; the critics learn from the beginning.
    #[test]
    fn an_actor_that_starts_later_is_left_alone_before() {
        use crate::algorithms::ddpg::DdpgConfig;
        let starts = Some(5);
        let configs = [
            AlgorithmConfig::from(Td3Config { actor_starts: starts, ..small() }),
            Td3Config { actor_starts: starts, policy_period: 1, ..small() }.into(),
            DdpgConfig { actor_starts: starts, hidden: vec![8, 8], batch_size: 4, ..DdpgConfig::default() }
                .into(),
        ];
        let schedule = Schedule {
            lr: 1e-2,
            target_mix: 0.1,
            alpha_aikd: 0.0,
            delta: 0.0,
            eta: 0.0,
            alpha_task: 1.0,
            share: &[],
        };
        for (config, period) in configs.iter().zip([2, 1, 1]) {
            assert!(config.program(sizes(0)).input(ACTOR_DUE).is_some());
            let rng = &mut Rng::new(2);
            let mut agent = config.agent(sizes(0), &oto_cpu::Cpu, rng).unwrap();
            let mut replay = crate::replay::Replay::new(16, [3, 2], 0, 1, 0.9);
            (0..16).for_each(|i| {
                replay.push(&[i as f32 / 9.0; 3], &[0.1; 2], i as f32, &[0.5; 3], false, false, |_, _| {})
            });
            let state = |agent: &dyn Agent, of: &dyn Fn(&str) -> bool| {
                let state = agent.engine().state().unwrap();
                state.into_iter().filter(|t| of(&t.name)).map(|t| (t.name, t.values)).collect::<Vec<_>>()
            };
            let actor =
                |name: &str| name.contains("actor.") && !name.contains("target") || name == "adam.t.actor";
            let critics = |name: &str| name.starts_with("critics.");
            let (mut steps, mut batch) = (0.0, Batch::default());
            for step in 1..=9 {
                let before = [state(&*agent, &actor), state(&*agent, &critics)];
                agent.at_step(step);
                replay.sample(rng, 4, &mut batch);
                agent.update(&batch, &schedule, rng).unwrap();
                let due = step >= 5 && step.is_multiple_of(period);
                steps += f32::from(due);
                let after = [state(&*agent, &actor), state(&*agent, &critics)];
                assert_eq!(after[0] != before[0], due, "{} at step {step}", config.name());
                assert_ne!(after[1], before[1], "{}: critics learn at step {step}", config.name());
                let count = after[0].iter().find(|(name, _)| name == "adam.t.actor").unwrap();
                assert_eq!(count.1, [steps], "{}", config.name());
            }
        }
        assert!(small().program(sizes(0)).input(ACTOR_DUE).is_none(), "today's programs do not read it");
    }

    #[test]
    fn an_actor_cannot_start_before_the_critics() {
        let refused = |actor_starts, learning_starts| {
            let mut checks = Checks::default();
            let config = Td3Config { actor_starts, ..small() };
            config.check_run(Run { n_step: 1, buffer: 10, learning_starts }, &mut checks);
            checks.done().map_err(|e| e.to_string())
        };
        assert_eq!(
            [refused(None, 3500), refused(Some(3500), 3500), refused(Some(5000), 3500)],
            [Ok(()), Ok(()), Ok(())]
        );
        let said = refused(Some(128), 3500).unwrap_err();
        assert!(said.starts_with("algorithm.actor_starts is 128: at least learning_starts, 3500"), "{said}");
        assert!(refused(Some(0), 1).is_err());
    }

    #[test]
    fn settings_out_of_their_range_are_named() {
        let wrong = |config: Td3Config| AlgorithmConfig::from(config).validate().unwrap_err().to_string();
        assert!(wrong(Td3Config { policy_period: 0, ..small() }).starts_with("algorithm.policy_period is 0"));
        assert!(
            wrong(Td3Config { smoothing: f64::NAN, ..small() }).starts_with("algorithm.smoothing is NaN")
        );
        let late = Td3Config { correlation_time: f64::INFINITY, ..small() };
        assert!(wrong(late).starts_with("algorithm.correlation_time is"));
        let rising = Linear { start: 0.0, end: 2.0, steps: 9 };
        let rising = Td3Config { exploration_factor: rising, ..small() };
        assert!(wrong(rising).starts_with("algorithm.exploration_factor is 2"));
        assert!(wrong(Td3Config { samples: 0, ..small() }).starts_with("algorithm.samples is 0"));
    }
}
