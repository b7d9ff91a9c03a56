//! Balanced replay with a pessimistic Q-ensemble (Lee et al. 2021, "Offline-to-Online Reinforcement Learning via Balanced Replay and
//! Pessimistic Q-Ensemble"), the online half: it begins with a run of [`super::cql_ensemble`], acts with the Gaussian of all its policies, and
//! learns from the mean of its critics. A density network tells the run's own transitions from recorded ones; the sampler `balanced` takes
//! those first that look like the run's own.
//!
//! Discrete actions: `q_ensemble.rs`.
//!
//! Where the authors' code makes ten times the updates in the first 1,000 steps, a run's `updates` is the same for all steps.

use super::cql_ensemble::{CqlEnsemble, actor_widths, for_both, policies, values};
use super::q_ensemble::{self, QEnsemble};
use super::{ActionKind, Agent, Algorithm, AlgorithmConfig, Data, Defaults, Seen, Settings, Sizes};
use crate::actions::Actions;
use crate::checks::Checks;
use crate::critics::{Critics, InitialParameters, Params, frozen, initial_mlp};
use crate::engine::{LearnError, LossParts, TD_ERROR, aikd_weights};
use crate::losses::actor_critic::{sac_actor, soft_target, squashed_gaussian, temperature};
use crate::losses::balanced_replay::{density_ratio, mixture, mixture_std, pessimistic_q};
use crate::losses::ensemble::spread_of_critics;
use crate::noise::Noise;
use crate::optimiser::{Adam, Optimiser, Updates, ensemble_parameters, mlp, mlp_parameters};
use crate::replay::SamplerName;
use crate::schedule::Linear;
use oto_env::rng::Rng;
use oto_graph::{Activation, Backend, Program, Tensor, Trace};
use oto_json::{At, Failure};

/// The registry's entry.
pub struct BalancedReplay;

impl Algorithm for BalancedReplay {
    fn name(&self) -> &'static str {
        "balanced-replay"
    }

    fn title(&self) -> &'static str {
        "Balanced replay and a pessimistic Q-ensemble: recorded transitions that look like the run's own, to continue cql-ensemble online"
    }

    fn paper(&self) -> &'static str {
        "Lee et al. 2021"
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

    /// The authors' settings: learning rate 3e-4, an online buffer of 250,000 transitions, 1,000 steps before the first update. The share of random
    /// discrete actions is ours: their greedy policy does not explore.
    fn defaults(&self, seen: Seen) -> Defaults {
        Defaults {
            epsilon: Linear::constant(if seen.continuous { 0.0 } else { 0.05 }),
            steps: 20_000,
            buffer: 250_000,
            learning_starts: 1_000,
            evaluation: (1_000, 10),
            ..Defaults::new(
                BalancedReplayConfig::default(),
                if seen.continuous { "continuous actions" } else { "discrete actions" },
                "the authors' code (shlee94/Off2OnRL), with the Polyak share of soft actor-critic",
            )
        }
    }

    fn read(&self, at: At<'_>) -> Result<AlgorithmConfig, Failure> {
        super::config::read::<BalancedReplayConfig>(at)
    }

    #[cfg(feature = "schema")]
    fn schema(&self, generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        super::config::schema::<BalancedReplayConfig>(self, generator)
    }
}

/// Settings of balanced replay with a pessimistic ensemble. Defaults are those of the authors' code.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct BalancedReplayConfig {
    /// Agents, as many as the run of `cql-ensemble` has.
    pub agents: usize,
    /// Widths of the hidden layers of actors, critics and the density network, ReLU after each.
    pub hidden: Vec<usize>,
    /// Transitions in an update.
    pub batch_size: usize,
    /// Temperature of density ratios: the larger, the more alike are the priorities.
    pub density_temperature: f64,
    /// Continuous actions: initial temperature of the policy.
    pub initial_alpha: f64,
    /// The optimisers' constants.
    pub adam: Adam,
}

oto_json::json_object! {
    BalancedReplayConfig: settings { agents, hidden, batch_size, density_temperature, initial_alpha, adam }
}

impl Default for BalancedReplayConfig {
    fn default() -> Self {
        Self {
            agents: 5,
            hidden: vec![256, 256],
            batch_size: 256,
            density_temperature: 5.0,
            initial_alpha: 1.0,
            adam: Adam::default(),
        }
    }
}

impl Settings for BalancedReplayConfig {
    fn algorithm(&self) -> &'static dyn Algorithm {
        &BalancedReplay
    }

    fn batch_size(&self) -> usize {
        self.batch_size
    }

    fn check(&self, checks: &mut Checks) {
        checks.whole("agents", self.agents as u64, 2..=64, "2 to 64 agents: one alone is sac");
        checks.hidden(&self.hidden);
        checks.batch_size(self.batch_size);
        let expected = "a temperature from 0.01 to 1000";
        checks.real("density_temperature", self.density_temperature, 0.01..=1e3, expected);
        checks.real("initial_alpha", self.initial_alpha, 1e-6..=1e3, "1e-6 to 1000");
        checks.adam(self.adam);
    }

    fn sampler(&self) -> Option<SamplerName> {
        Some(SamplerName::Balanced)
    }

    /// A teacher's terms are on one policy and its critics.
    fn fits(&self, sizes: Sizes) -> Result<(), String> {
        match sizes.teachers {
            0 => Ok(()),
            _ => Err("learns without teachers; set algorithm to \"sac\", \"rlpd\" or \"wsrl\"".into()),
        }
    }

    fn program(&self, sizes: Sizes) -> Program {
        match sizes.actions {
            Actions::Continuous(_) => program(self, sizes),
            Actions::Discrete(_) => q_ensemble::online(self, sizes),
        }
    }

    fn agent(
        &self,
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Box<dyn Agent>, LearnError> {
        if let Actions::Discrete(_) = sizes.actions {
            let members = (self.agents, &self.hidden[..]);
            return Ok(Box::new(QEnsemble::of(self.program(sizes), members, sizes, backend, rng)?));
        }
        let noise =
            Noise::new([("noise", self.batch_size), ("next_noise", self.batch_size)], sizes.actions.width());
        let members = (self.agents, &self.hidden[..], self.initial_alpha);
        Ok(Box::new(CqlEnsemble::of(program(self, sizes), members, noise, sizes, backend, rng)?))
    }
}

/// What the authors' code adds where a number may be 0.
const EPSILON: f64 = 1e-10;

/// Records one update for continuous actions: state and batch in, new state and [`LossParts`] out. All gradients are taken at the old parameters.
pub fn program(config: &BalancedReplayConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let (n, batch, width) = (config.agents, config.batch_size, sizes.actions.width());
    let row = |name: &str| t.data(name, &[batch]);
    let rows = |name: &str| t.data(name, &[batch, sizes.observation]);
    let actions = |name: &str| t.data(name, &[batch, width]);

    let actors = ensemble_parameters(t, "actors.", n, &actor_widths(&config.hidden, sizes));
    let critics = Critics::continuous(t, 2 * n, sizes.observation, &config.hidden, width);
    let widths = [&[sizes.observation + width], &config.hidden[..], &[1]].concat();
    let density = mlp_parameters(t, "density.", &widths);
    let log_alpha = t.state("log_alpha", &[]);
    let alpha = log_alpha.stop_gradient().exp();
    let (observation, next, known) = (rows("observation"), rows("next_observation"), actions("action"));
    // One action for all members: of the Gaussian with the mean and the variance of their mixture.
    let act = |observation, noise: &str| {
        let [mean, log_std] = policies(&actors, observation);
        let [mean, variance] = mixture(mean, log_std.exp());
        squashed_gaussian(mean, mixture_std(variance).log(), actions(noise))
    };
    let twins = |params, observation, action| {
        values(params, observation, for_both(for_all(action, n))).reshape(&[2, n, batch])
    };
    let held = frozen(&critics.params);

    let then = act(next, "next_noise");
    let next_q = twins(&critics.targets, next, then.action);
    let next_q = next_q.member(0).minimum(next_q.member(1));
    let target = soft_target(row("reward"), row("discount"), next_q, then.log_prob, alpha).stop_gradient();
    let learnt = twins(&critics.params, observation, known);
    let critic_loss = (learnt - target).square().mean_last().sum();

    let now = act(observation, "noise");
    let actor_loss = sac_actor(pessimistic_q(twins(&held, observation, now.action)), now.log_prob, alpha);
    let tempered = temperature(log_alpha, now.log_prob, -(width as f64));

    let seen = t.data("replay.observation", &[2 * batch, sizes.observation]);
    let taken = t.data("replay.action", &[2 * batch, width]);
    let rating = rate(&density, [seen, taken], [observation, known], config.density_temperature);

    let weights = aikd_weights(t, sizes.teachers);
    let task = critic_loss + actor_loss + tempered;
    let loss = crate::losses::transfer(&[], task, weights);
    let lr = t.data("lr", &[]);
    let mut params = [&actors[..], &critics.params].concat();
    params.push(("log_alpha".into(), log_alpha));
    let mut updates = Updates::new(t);
    updates.minimise(&Optimiser::new("", config.adam, lr), &params, loss);
    updates.minimise(&Optimiser::new("density", config.adam, lr), &density, rating.loss);
    updates.follow(&critics.targets, &critics.params, t.data("target_mix", &[]), 1);
    let own = [
        ("actor_loss", actor_loss),
        ("critic_loss", critic_loss),
        ("spread", spread_of_critics(learnt.member(0)).mean()),
        ("temperature", alpha),
        ("entropy", -now.log_prob.mean()),
    ];
    let outputs = LossParts::outputs(t, loss, task, &[], weights.share, learnt.mean());
    t.finish(&updates.pairs(), &[&outputs[..], &own, &rating.outputs()].concat())
}

/// The density network's ratings of transitions.
pub(super) struct Rating<'t> {
    /// Its loss.
    pub loss: Tensor<'t>,
    /// How many times likelier each transition of the run's own is of the run's own, and each recorded one, `[B]`.
    online: Tensor<'t>,
    offline: Tensor<'t>,
    /// The priorities of the batch, `[B]`.
    priority: Tensor<'t>,
}

impl<'t> Rating<'t> {
    /// The numbers of an update's report.
    pub fn outputs(&self) -> [(&'static str, Tensor<'t>); 6] {
        [
            ("density_loss", self.loss),
            ("density_online", self.online.mean()),
            ("density_offline", self.offline.mean()),
            // The share of recorded transitions that the density network says are never the run's own: 1 where it has collapsed.
            ("density_zero", self.offline.step().affine(-1.0, 1.0).mean()),
            ("priority", self.priority.mean()),
            (TD_ERROR, self.priority),
        ]
    }
}

/// Rates the transitions of a batch: `both` are observations and actions `[2 B, ..]`, the run's own first, `batch` those of the batch `[B, ..]`.
pub(super) fn rate<'t>(
    density: &Params<'t>,
    both: [Tensor<'t>; 2],
    batch: [Tensor<'t>; 2],
    temperature: f64,
) -> Rating<'t> {
    let rows = batch[0].size(0);
    let ratios = ratio(density, both[0], both[1]).reshape(&[2, rows]);
    let (online, offline) = (ratios.member(0), ratios.member(1));
    let power = |w| power(w, 1.0 / temperature);
    let normaliser = power(offline).mean() + EPSILON;
    let bound = |b| online.trace().constant(b, &[]);
    let priority =
        (power(ratio(density, batch[0], batch[1])) / normaliser).maximum(bound(1e-3)).minimum(bound(1e3));
    Rating { loss: density_ratio(online, offline, EPSILON), online, offline, priority }
}

/// First parameters of the density network. The first ratios are near 1, those of equal densities: at 0 a ReLU would learn nothing.
pub(super) fn initial_density(rng: &mut Rng, widths: &[usize], values: &mut InitialParameters) {
    initial_mlp(rng, "density.", widths, values);
    values.last_mut().into_iter().for_each(|(_, bias)| bias.fill(1.0));
}

/// The same action `[B, D]` for all of n members: `[N, B, D]`.
fn for_all(action: Tensor<'_>, n: usize) -> Tensor<'_> {
    let (batch, width) = (action.size(0), action.size(1));
    action.reshape(&[1, batch, width]).broadcast(&[n, batch, width]) + 0.0
}

/// How many times likelier a transition is of the run's own than recorded, `[R]`.
fn ratio<'t>(density: &Params<'t>, observation: Tensor<'t>, action: Tensor<'t>) -> Tensor<'t> {
    let rows = observation.size(0);
    mlp(density, observation.concat(action), Activation::Relu).reshape(&[rows]).relu()
}

/// A ratio's power; of 0 a number next to it.
fn power(w: Tensor<'_>, exponent: f64) -> Tensor<'_> {
    let least = w.trace().constant(1e-30, &[]);
    (w.maximum(least).log() * exponent).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actions::Actions;
    use crate::engine::Schedule;
    use crate::replay::{Batch, Replay, Request};

    const SCHEDULE: Schedule<'static> = Schedule {
        lr: 1e-2,
        target_mix: 0.1,
        alpha_aikd: 0.0,
        delta: 0.0,
        eta: 0.0,
        alpha_task: 1.0,
        share: &[],
    };

    fn buffer(at: f32, source: f32) -> Replay {
        let mut replay = Replay::new(64, [1, 1], 0, 1, 0.9);
        replay.set_source(source);
        (0..64).for_each(|i| {
            let x = at + (i % 8) as f32 / 16.0;
            replay.push(&[x], &[0.0], 0.0, &[x], i % 2 == 0, false, |_, _| {});
        });
        replay
    }

    /// Half of the recorded data are like the run's own: these are rated higher, and are sampled more.
    #[test]
    fn recorded_transitions_that_look_like_the_own_ones_come_first() {
        let sizes = Sizes { observation: 1, actions: Actions::Continuous(1), teachers: 0, weighted: false };
        let config =
            BalancedReplayConfig { agents: 2, hidden: vec![16], batch_size: 32, ..Default::default() };
        let rng = &mut Rng::new(3);
        let mut agent = config.agent(sizes, &oto_cpu::Cpu, rng).unwrap();
        let own = buffer(1.0, 0.0);
        let mut recorded = buffer(1.0, 1.0);
        let far = buffer(-2.0, 1.0);
        let mut room = Default::default();
        (0..32).for_each(|slot| {
            let row = far.transition(slot, &mut room).unwrap();
            recorded.push(
                row.observation,
                row.action,
                row.reward,
                row.next_observation,
                true,
                false,
                |_, _| {},
            );
        });
        let mut sampler =
            crate::replay::ReplayConfig { sampler: SamplerName::Balanced, ..Default::default() }.make();
        let (mut batch, mut near, mut all) = (Batch::default(), 0, 0);
        for update in 1..=400 {
            let request = Request { buffers: &[&own, &recorded], size: 32, update, step: 0 };
            sampler.sample(&request, rng, &mut batch);
            agent.update(&batch, &SCHEDULE, rng).unwrap();
            let (number, priorities) = agent.engine().td_errors().unwrap();
            assert!(priorities.iter().all(|priority| (1e-3..=1e3).contains(priority)));
            sampler.learned(number, priorities);
            if update > 300 {
                let rows = batch.source.iter().zip(&batch.observation).filter(|(source, _)| **source == 1.0);
                rows.for_each(|(_, x)| (near, all) = (near + usize::from(*x > 0.0), all + 1));
            }
        }
        assert!(near as f32 > 0.75 * all as f32, "{near} of {all} recorded rows are like the run's own");
        let loss = agent.engine().last_loss().unwrap();
        assert!(loss.get("density_zero").unwrap() > 0.2, "{loss:?}");
    }

    /// A density network that says 0 of everything: priorities are at their least, and training continues.
    #[test]
    fn a_density_network_that_collapses_is_reported_and_training_continues() {
        let sizes = Sizes { observation: 1, actions: Actions::Continuous(1), teachers: 0, weighted: false };
        let config = BalancedReplayConfig { agents: 2, hidden: vec![4], batch_size: 8, ..Default::default() };
        let rng = &mut Rng::new(3);
        let mut agent = config.agent(sizes, &oto_cpu::Cpu, rng).unwrap();
        let state = agent.engine().state().unwrap();
        let dead = |name: &str| {
            let mut values = state.iter().find(|tensor| tensor.name == name)?.values.clone();
            match name {
                "density.1.bias" => values.fill(-1e6),
                "density.1.weight" => values.fill(0.0),
                _ => {}
            }
            Some(values)
        };
        agent.restore(0, &mut |name| dead(name)).unwrap();
        let (own, recorded, mut batch) = (buffer(0.0, 0.0), buffer(1.0, 1.0), Batch::default());
        let mut sampler =
            crate::replay::ReplayConfig { sampler: SamplerName::Balanced, ..Default::default() }.make();
        for update in 1..=20 {
            sampler.sample(
                &Request { buffers: &[&own, &recorded], size: 8, update, step: 0 },
                rng,
                &mut batch,
            );
            agent.update(&batch, &SCHEDULE, rng).unwrap();
            let (number, priorities) = agent.engine().td_errors().unwrap();
            assert!(priorities.iter().all(|priority| (1e-3..=1e3).contains(priority)), "{priorities:?}");
            sampler.learned(number, priorities);
        }
        assert_eq!(agent.engine().last_loss().unwrap().get("density_zero"), Some(1.0));
    }

    #[test]
    fn settings_out_of_their_range_are_named() {
        let wrong =
            |config: BalancedReplayConfig| AlgorithmConfig::from(config).validate().unwrap_err().to_string();
        let config = BalancedReplayConfig::default;
        assert!(
            wrong(BalancedReplayConfig { agents: 1, ..config() })
                .starts_with("algorithm.agents is 1: 2 to 64")
        );
        let cold = BalancedReplayConfig { density_temperature: 0.0, ..config() };
        assert!(wrong(cold).starts_with("algorithm.density_temperature is 0"));
    }
}
