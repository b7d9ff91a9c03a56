//! Policy expansion (Zhang et al. 2023, "Policy Expansion for Bridging Offline-to-Online Reinforcement Learning") on implicit Q-learning: the
//! offline policy stays as it is, a new one learns beside it, and the softmax of their actions' Q-values chooses which of the two acts. It
//! begins with a run of [`super::iql`], whose policy becomes the frozen one; the new policy begins anew.
//!
//! The exported policy is the new one alone: a composition needs the critics.

use super::iql::{LOG_STD, Policy, noise, q_of, teach, twins, widths};
use super::ppo::categorical;
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes};
use crate::actions::Actions;
use crate::checks::Checks;
use crate::critics::{Critics, InitialParameters, initial, initial_critics, initial_mlp, least};
use crate::engine::{Adopted, Engine, FindTensor, LearnError, Learner, LossParts, Schedule, aikd_weights};
use crate::losses;
use crate::losses::deterministic::bellman_target;
use crate::losses::expansion::{chances, epsilon_greedy, expansion_weights, sampled};
use crate::losses::implicit::{LARGEST_WEIGHT, advantage_weight, expectile};
use crate::mlp::{self, Mlp};
use crate::network::Actor;
use crate::noise::Noise;
use crate::optimiser::{Adam, mlp as network, mlp_parameters};
use crate::replay::Batch;
use oto_env::rng::Rng;
use oto_env::within;
use oto_graph::{Activation, Backend, Program, Trace};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct PolicyExpansion;

impl Algorithm for PolicyExpansion {
    fn name(&self) -> &'static str {
        "pex"
    }

    fn title(&self) -> &'static str {
        "Policy expansion: a frozen offline policy and a new one, chosen by their Q-values, to continue iql online"
    }

    fn paper(&self) -> &'static str {
        "Zhang et al. 2023; IQL: Kostrikov et al. 2022"
    }

    fn actions(&self) -> &'static [ActionKind] {
        &[ActionKind::Continuous, ActionKind::Discrete]
    }

    fn data(&self) -> &'static [Data] {
        &[Data::Replay]
    }

    fn in_pages(&self) -> bool {
        false
    }

    /// The authors' settings: learning rate 3e-4, Polyak share 0.005, 5,000 steps before the first update, an update a step.
    fn defaults(&self, seen: Seen) -> Defaults {
        let environments = if seen.continuous { "continuous actions" } else { "discrete actions" };
        Defaults {
            steps: 20_000,
            buffer: 1_000_000,
            learning_starts: 5_000,
            evaluation: (1_000, 10),
            ..Defaults::new(PexConfig::default(), environments, "the authors' code (Haichao-Zhang/PEX)")
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<PexConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<PexConfig>(self, generator)
    }
}

/// Settings of policy expansion. Defaults are those of the authors' code; `samples` is ours.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct PexConfig {
    /// Widths of the hidden layers of all networks, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// The expectile that the value function learns. The authors use 0.9 for AntMaze.
    pub expectile: f64,
    /// Inverse temperature of the advantages' weights. The authors use 10 for AntMaze.
    pub inverse_temperature: f64,
    /// Inverse temperature of the choice between the two policies.
    pub choice: f64,
    /// Probability of a sampled choice, instead of the action with the larger value, in evaluations.
    pub evaluation_epsilon: f64,
    /// Sampled actions for each state in the sum over continuous actions of OTO eq. 10, from a uniform distribution.
    pub samples: usize,
    /// The optimiser's constants.
    pub adam: Adam,
}

oto_json::json_object! {
    PexConfig: settings {
        hidden, batch_size, expectile, inverse_temperature, choice, evaluation_epsilon, samples, adam
    }
}

impl Default for PexConfig {
    fn default() -> Self {
        Self {
            hidden: vec![256, 256],
            batch_size: 256,
            expectile: 0.7,
            inverse_temperature: 3.0,
            choice: 10.0,
            evaluation_epsilon: 0.1,
            samples: 8,
            adam: Adam::default(),
        }
    }
}

impl Settings for PexConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &PolicyExpansion
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        checks.hidden(&self.hidden);
        checks.batch_size(self.batch_size);
        checks.real("expectile", self.expectile, 1e-6..=1.0 - 1e-6, "above 0 and below 1");
        checks.real("inverse_temperature", self.inverse_temperature, 0.0..=1e6, "0 to 1e6");
        checks.real("choice", self.choice, 1e-6..=1e6, "1e-6 to 1e6");
        checks.real("evaluation_epsilon", self.evaluation_epsilon, 0.0..=1.0, "a probability from 0 to 1");
        checks.whole("samples", self.samples as u64, 1..=256, "1 to 256 actions a state");
        checks.adam(self.adam);
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
        Ok(Box::new(Expanded::new(self, sizes, backend, rng)?))
    }
}

/// Records one update: state and batch in, new state and [`LossParts`] out. All gradients are taken at the old parameters.
pub fn program(config: &PexConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let batch = config.batch_size;
    let row = |name: &str| t.data(name, &[batch]);
    let rows = |name: &str| t.data(name, &[batch, sizes.observation]);
    let scalar = |name: &str| t.data(name, &[]);

    let policy = Policy::record(t, &config.hidden, false, sizes);
    let offline = mlp_parameters(t, "offline.actor.", &widths(&config.hidden, sizes));
    let value = mlp_parameters(t, "value.", &[&[sizes.observation], &config.hidden[..], &[1]].concat());
    let twins = twins(t, &config.hidden, sizes);
    let (observation, next) = (rows("observation"), rows("next_observation"));
    let action = t.data("action", &sizes.actions.shape(batch));
    let value_of = |x| network(&value, x, Activation::Relu).reshape(&[batch]);

    let known = least(q_of(&twins.targets, observation, action, sizes.actions)).stop_gradient();
    let now = value_of(observation);
    let value_loss = expectile(known, now, config.expectile);
    let target = bellman_target(row("reward"), row("discount"), value_of(next)).stop_gradient();
    let [errors, q] = Critics::error(q_of(&twins.params, observation, action, sizes.actions), target);
    let critic_loss = errors * 0.5;

    // Actions are drawn anew: the offline policy's best one, one of the new policy, and a choice of the two.
    let out = policy.answer(observation);
    let own = network(&offline, observation, Activation::Relu);
    let [old, new] = match sizes.actions {
        Actions::Continuous(width) => [own.tanh(), policy.sampled(out, t.data("noise", &[batch, width]))],
        Actions::Discrete(count) => {
            // Adding such noise to logits samples their softmax (Gumbel-max).
            let least = t.constant(1e-7, &[]);
            let even = t.data("uniform.gumbel", &[batch, count]).affine(0.5, 0.5).maximum(least);
            let gumbel = -(-even.log()).maximum(least).log();
            [own.argmax_last(), (out + gumbel).argmax_last()]
        }
    };
    let each = |action| least(q_of(&twins.params, observation, action, sizes.actions)).reshape(&[batch, 1]);
    let weights = expansion_weights(each(old).concat(each(new)), 1.0 / config.choice);
    let takes_new =
        (row("uniform.choice").affine(0.5, 0.5) - weights.slice_last(0, 1).reshape(&[batch])).step();
    let chosen = match sizes.actions {
        Actions::Continuous(_) => old + takes_new.reshape(&[batch, 1]) * (new - old),
        Actions::Discrete(_) => old + takes_new * (new - old),
    }
    .stop_gradient();
    let worth = least(q_of(&twins.targets, observation, chosen, sizes.actions));
    let advantage = worth.stop_gradient() - now.stop_gradient();
    let weight = advantage_weight(advantage, config.inverse_temperature, LARGEST_WEIGHT);
    let actor_loss = policy.imitation(weight, out, chosen);

    let aikd_weights = aikd_weights(t, sizes.teachers);
    let aikd = teach(t, &twins, observation, out, config.samples, sizes, aikd_weights);
    let task = critic_loss + value_loss + actor_loss;
    let loss = losses::transfer(&aikd, task, aikd_weights);

    let params = [&policy.params[..], &value, &twins.params].concat();
    let mut updates = config.adam.step(t, &params, loss, scalar("lr"));
    twins.follow(&mut updates, scalar("target_mix"));
    let own = [
        ("actor_loss", actor_loss),
        ("critic_loss", critic_loss),
        ("value_loss", value_loss),
        ("advantage", advantage.mean()),
        ("new_policy", takes_new.mean()),
    ];
    let outputs = LossParts::outputs(t, loss, task, &aikd, aikd_weights.share, q);
    t.finish(&updates, &[&outputs[..], &own].concat())
}

/// An agent of two policies: owns its parameters, improves the new one, acts with both.
struct Expanded {
    config: PexConfig,
    sizes: Sizes,
    engine: Engine,
    /// Gives logits, or the action before its tanh.
    new: Mlp,
    /// Empty where actions are discrete.
    log_std: Vec<f32>,
    offline: Mlp,
    critics: [Mlp; 2],
    /// Twin parameters on their way into the two networks.
    part: Vec<f32>,
    /// Both candidates, one after the other, and an observation with an action behind it.
    candidates: Vec<f32>,
    seen: Vec<f32>,
    noise: Noise,
}

impl Expanded {
    fn new(
        config: &PexConfig,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Self, LearnError> {
        let engine =
            Engine::acting_with(program(config, sizes), &["actor.", "offline.", "critics."], backend)?;
        let policy = || Mlp::zeros(&widths(&config.hidden, sizes), mlp::Activation::Relu);
        let critic = || Mlp::zeros(&critic_widths(config, sizes), mlp::Activation::Relu);
        let width = sizes.actions.width();
        let spread = if matches!(sizes.actions, Actions::Continuous(_)) { width } else { 0 };
        let gumbel = match sizes.actions {
            Actions::Continuous(_) => None,
            Actions::Discrete(count) => Some(config.batch_size * count),
        };
        let mut noise = noise(&["noise"], config.batch_size, config.samples, sizes);
        noise = noise.and("uniform.choice", config.batch_size);
        if let Some(numbers) = gumbel {
            noise = noise.and("uniform.gumbel", numbers);
        }
        let mut agent = Self {
            config: config.clone(),
            sizes,
            engine,
            new: policy(),
            log_std: vec![0.0; spread],
            offline: policy(),
            critics: [critic(), critic()],
            part: Vec::new(),
            candidates: vec![0.0; 2 * width],
            seen: Vec::new(),
            noise,
        };
        agent.start_over(rng)?;
        Ok(agent)
    }

    /// Puts the offline policy's best action and one of the new policy's side by side: the mean, or with `rng` a sampled one.
    fn propose(&mut self, observation: &[f32], rng: Option<&mut Rng>) {
        let (old, new) = self.candidates.split_at_mut(self.sizes.actions.width());
        let (known, out) = (self.offline.forward(observation), self.new.forward(observation));
        match (self.sizes.actions, rng) {
            (Actions::Discrete(_), Some(rng)) => {
                (old[0], new[0]) = (mlp::choice(known), categorical(out, rng));
            }
            (Actions::Discrete(_), None) => (old[0], new[0]) = (mlp::choice(known), mlp::choice(out)),
            (Actions::Continuous(_), rng) => {
                old.iter_mut().zip(known).for_each(|(a, x)| *a = x.tanh());
                new.iter_mut().zip(out).for_each(|(a, x)| *a = x.tanh());
                let Some(rng) = rng else { return };
                for (a, log_std) in new.iter_mut().zip(&self.log_std) {
                    let std = within(*log_std, LOG_STD[0] as f32, LOG_STD[1] as f32).exp();
                    *a = within(*a + std * rng.normal() as f32, -1.0, 1.0);
                }
            }
        }
    }

    /// The smaller Q-value of each candidate.
    fn values(&mut self, observation: &[f32]) -> [f64; 2] {
        let width = self.sizes.actions.width();
        let Self { critics, candidates, seen, sizes, .. } = self;
        [0, 1].map(|i| {
            let action = &candidates[i * width..(i + 1) * width];
            let each = critics.each_mut().map(|critic| match sizes.actions {
                Actions::Discrete(count) => critic.forward(observation)[(action[0] as usize).min(count - 1)],
                Actions::Continuous(_) => {
                    seen.clear();
                    seen.extend_from_slice(observation);
                    seen.extend_from_slice(action);
                    critic.forward(seen)[0]
                }
            });
            f64::from(each[0].min(each[1]))
        })
    }

    fn take(&self, i: usize, action: &mut [f32]) {
        let width = action.len();
        action.copy_from_slice(&self.candidates[i * width..(i + 1) * width]);
    }
}

fn critic_widths(config: &PexConfig, sizes: Sizes) -> Vec<usize> {
    let (inputs, outputs) = match sizes.actions {
        Actions::Continuous(width) => (sizes.observation + width, 1),
        Actions::Discrete(count) => (sizes.observation, count),
    };
    [&[inputs], &config.hidden[..], &[outputs]].concat()
}

/// Two numbers from \[0, 1) that depend on the observation alone: an evaluation repeats its choices after any other.
fn draws(observation: &[f32]) -> [f64; 2] {
    let hash = |hash: u64, x: &f32| (hash ^ u64::from(x.to_bits())).wrapping_mul(0x0100_0000_01b3);
    let mut rng = Rng::new(observation.iter().fold(0xcbf2_9ce4_8422_2325, hash));
    [rng.f64(), rng.f64()]
}

impl Agent for Expanded {
    fn actions(&self) -> Actions {
        self.sizes.actions
    }

    /// The candidate with the larger value, in a share `evaluation_epsilon` of states a sampled choice.
    fn act(&mut self, observation: &[f32], action: &mut [f32]) {
        self.propose(observation, None);
        let mut values = self.values(observation);
        chances(&mut values, 1.0 / self.config.choice);
        let [uniform, draw] = draws(observation);
        self.take(epsilon_greedy(&values, uniform, self.config.evaluation_epsilon, draw), action);
    }

    /// A sampled choice of the offline policy's best action and a sampled one of the new policy.
    fn sample(&mut self, observation: &[f32], rng: &mut Rng, action: &mut [f32]) {
        self.propose(observation, Some(rng));
        let mut values = self.values(observation);
        chances(&mut values, 1.0 / self.config.choice);
        self.take(sampled(&values, rng.f64()), action);
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

    /// The new policy: logits, or the mean before its tanh.
    fn policy(&self) -> Actor {
        self.new.clone().into()
    }
}

impl Learner for Expanded {
    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    fn hand_over(&mut self) -> Result<(), LearnError> {
        let mut next = self.engine.acting_layers(0, &mut self.new)?;
        if !self.log_std.is_empty() {
            self.engine.acting(next, &mut self.log_std)?;
            next += 1;
        }
        next = self.engine.acting_layers(next, &mut self.offline)?;
        let [first, second] = &mut self.critics;
        let layers = first.layers_mut().iter_mut().zip(second.layers_mut());
        let parts = layers.flat_map(|(a, b)| [(&mut a.weight, &mut b.weight), (&mut a.bias, &mut b.bias)]);
        for (i, (a, b)) in parts.enumerate() {
            self.part.resize(2 * a.len(), 0.0);
            self.engine.acting(next + i, &mut self.part)?;
            let (one, two) = self.part.split_at(a.len());
            a.copy_from_slice(one);
            b.copy_from_slice(two);
        }
        Ok(())
    }

    /// Another algorithm's policy becomes the frozen one, and the new policy stays fresh; a run of this algorithm has both.
    fn adopt(&mut self, tensor: &mut FindTensor<'_>) -> Result<Adopted, LearnError> {
        let shape = |engine: &Engine| {
            let mut shapes = engine.shapes();
            shapes.find(|(name, _)| *name == "offline.actor.0.weight").map(|(_, shape)| shape.to_vec())
        };
        let expanded =
            shape(&self.engine).is_some_and(|shape| tensor("offline.actor.0.weight", &shape).is_some());
        self.engine.needs("value.0.weight", ["pex", "iql"], tensor)?;
        self.engine.needs("critics.0.weight", ["pex", "iql"], tensor)?;
        let mut find = |name: &str, shape: &[usize]| {
            let parameter = name.strip_prefix("adam.m.").or(name.strip_prefix("adam.v.")).unwrap_or(name);
            match name.strip_prefix("offline.") {
                Some(of) if !expanded => tensor(of, shape),
                None if !expanded && parameter.starts_with("actor.") => None,
                _ => tensor(name, shape),
            }
        };
        let adopted = self.engine.adopt(&mut find)?;
        self.hand_over()?;
        Ok(adopted)
    }

    fn start_over(&mut self, rng: &mut Rng) -> Result<(), LearnError> {
        let (config, sizes) = (&self.config, self.sizes);
        let mut initial_values = InitialParameters::new();
        initial_mlp(rng, "actor.", &widths(&config.hidden, sizes), &mut initial_values);
        initial_critics(rng, 2, &critic_widths(config, sizes), &mut initial_values);
        let value = [&[sizes.observation], &config.hidden[..], &[1]].concat();
        initial_mlp(rng, "value.", &value, &mut initial_values);
        self.engine
            .start(|input| initial(&initial_values, &input.name).unwrap_or_else(|| vec![0.0; input.len()]))?;
        self.hand_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithms::iql::IqlConfig;

    fn sizes(actions: Actions) -> Sizes {
        Sizes { observation: 3, actions, teachers: 0, weighted: false }
    }

    /// The offline run's policy is one of the two, and stays as it is while the other one learns.
    #[test]
    fn an_offline_policy_stays_while_a_new_one_learns_beside_it() {
        for actions in [Actions::Continuous(2), Actions::Discrete(3)] {
            let rng = &mut Rng::new(4);
            let before = IqlConfig { hidden: vec![6], batch_size: 4, ..IqlConfig::default() };
            let before = before.agent(sizes(actions), &oto_cpu::Cpu, rng).unwrap();
            let run = before.engine().state().unwrap();
            let find = |name: &str| run.iter().find(|tensor| tensor.name == name).map(|t| t.values.clone());
            let config = PexConfig { hidden: vec![6], batch_size: 4, ..PexConfig::default() };
            let mut agent = Expanded::new(&config, sizes(actions), &oto_cpu::Cpu, rng).unwrap();
            agent.adopt(&mut |name, _| find(name)).unwrap();
            let now = |agent: &Expanded, name: &str| {
                let state = agent.engine().state().unwrap();
                state.into_iter().find(|tensor| tensor.name == name).unwrap().values
            };
            let fresh = now(&agent, "actor.0.weight");
            assert_eq!(Some(now(&agent, "offline.actor.0.weight")), find("actor.0.weight"));
            assert_eq!(Some(now(&agent, "critics.0.weight")), find("critics.0.weight"));
            assert_ne!(Some(fresh.clone()), find("actor.0.weight"));

            let mut replay = crate::replay::Replay::new(8, [3, actions.width()], 0, 1, 0.9);
            let action = vec![0.0; actions.width()];
            (0..8).for_each(|i| {
                replay.push(&[i as f32 / 8.0; 3], &action, i as f32, &[0.5; 3], false, false, |_, _| {})
            });
            let schedule = Schedule {
                lr: 1e-2,
                target_mix: 0.1,
                alpha_aikd: 0.0,
                delta: 0.0,
                eta: 0.0,
                alpha_task: 1.0,
                share: &[],
            };
            let mut batch = Batch::default();
            for _ in 0..3 {
                replay.sample(rng, 4, &mut batch);
                agent.update(&batch, &schedule, rng).unwrap();
            }
            assert_eq!(Some(now(&agent, "offline.actor.0.weight")), find("actor.0.weight"));
            assert_ne!(now(&agent, "actor.0.weight"), fresh);

            // What acts is one of the two candidates: here the one with the larger value.
            let (mut action, mut again) = (vec![0.0; actions.width()], vec![0.0; actions.width()]);
            agent.config.evaluation_epsilon = 0.0;
            agent.act(&[0.1, 0.2, 0.3], &mut action);
            let values = agent.values(&[0.1, 0.2, 0.3]);
            agent.take(usize::from(values[1] > values[0]), &mut again);
            assert_eq!(action, again);
            agent.sample(&[0.1, 0.2, 0.3], rng, &mut action);
            assert!(agent.takes(&action));

            // A run of this algorithm keeps both.
            let state = agent.engine().state().unwrap();
            let mut other = Expanded::new(&config, sizes(actions), &oto_cpu::Cpu, rng).unwrap();
            let of = |name: &str| state.iter().find(|tensor| tensor.name == name).map(|t| t.values.clone());
            assert!(other.adopt(&mut |name, _| of(name)).unwrap().fresh.is_empty());
            assert_eq!(other.engine().state().unwrap(), state);
        }
    }

    #[test]
    fn settings_out_of_their_range_are_named() {
        let wrong = |config: PexConfig| AlgorithmConfig::from(config).validate().unwrap_err().to_string();
        let config = PexConfig::default;
        assert!(wrong(PexConfig { choice: 0.0, ..config() }).starts_with("algorithm.choice is 0"));
        assert!(wrong(PexConfig { expectile: 1.0, ..config() }).starts_with("algorithm.expectile is 1"));
        assert!(
            wrong(PexConfig { evaluation_epsilon: 1.5, ..config() }).contains("evaluation_epsilon is 1.5")
        );
    }
}
