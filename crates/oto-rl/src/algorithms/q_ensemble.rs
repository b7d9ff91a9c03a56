//! Balanced replay and a pessimistic Q-ensemble (Lee et al. 2021) for discrete actions, which the paper does not have: programs of
//! [`super::cql_ensemble`] (offline) and [`super::balanced_replay`] (online), and their agent.
//!
//! A member is a Q-network of all actions, trained by double Q-learning (van Hasselt et al. 2016) with CQL's term. The action with the largest mean over
//! all members acts: offline each member's target follows its own best action, online all follow the ensemble's.

use super::balanced_replay::{self, BalancedReplayConfig};
use super::cql_ensemble::CqlEnsembleConfig;
use super::side_by_side::SideBySide;
use super::{Agent, Sizes};
use crate::actions::Actions;
use crate::critics::{Critics, InitialParameters, each, initial, initial_critics, picked, q_values, sum};
use crate::engine::{Engine, LearnError, Learner, LossParts, Schedule};
use crate::losses::deterministic::bellman_target;
use crate::losses::ensemble::spread_of_critics;
use crate::losses::offline::cql_discrete;
use crate::mlp;
use crate::network::Actor;
use crate::optimiser::{Optimiser, Updates, mlp_parameters};
use crate::replay::Batch;
use oto_env::rng::Rng;
use oto_graph::{Backend, Program, Tensor, Trace};

/// The loss of N critics, the sum over members of their mean squared errors: values `[N, B]`, targets `[N, B]`.
fn squared_error<'t>(values: Tensor<'t>, targets: Tensor<'t>) -> Tensor<'t> {
    (values - targets).square().mean_last().sum()
}

/// Records one update from recorded data: state and batch in, new state and [`LossParts`] out. All gradients are taken at the old parameters.
pub(super) fn offline(config: &CqlEnsembleConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let (n, batch, actions) = (config.agents, config.batch_size, sizes.actions.outputs());
    let row = |name: &str| t.data(name, &[batch]);
    let rows = |name: &str| t.data(name, &[batch, sizes.observation]);
    let scalar = |name: &str| t.data(name, &[]);

    let critics = Critics::discrete(t, n, sizes.observation, &config.hidden, actions);
    let (next, action) = (rows("next_observation"), row("action"));
    let own = q_values(&critics.params, next).stop_gradient().reshape(&[n * batch, actions]).argmax_last();
    let then = q_values(&critics.targets, next).reshape(&[n * batch, actions]).pick(own).reshape(&[n, batch]);
    let target = bellman_target(row("reward"), row("discount"), then).stop_gradient();
    let all = q_values(&critics.params, rows("observation"));
    let known = picked(all, action);
    let critic_loss = squared_error(known, target);
    let terms = each(all).into_iter().map(|q| cql_discrete(q, action)).collect::<Vec<_>>();
    let conservative = sum(&terms);

    let loss = critic_loss + conservative * config.weight;
    let mut updates = config.adam.step(t, &critics.params, loss, scalar("lr"));
    critics.follow(&mut updates, scalar("target_mix"));
    let own = [
        ("critic_loss", critic_loss),
        ("conservative", conservative),
        ("spread", spread_of_critics(known).mean()),
    ];
    let none = t.constant(0.0, &[]);
    let outputs = LossParts::outputs(t, loss, loss, &[], none, known.mean());
    t.finish(&updates, &[&outputs[..], &own].concat())
}

/// Records one update from both buffers: state and batch in, new state and [`LossParts`] out. All gradients are taken at the old parameters.
pub(super) fn online(config: &BalancedReplayConfig, sizes: Sizes) -> Program {
    let t = &Trace::new();
    let (n, batch, actions) = (config.agents, config.batch_size, sizes.actions.outputs());
    let row = |name: &str| t.data(name, &[batch]);
    let rows = |name: &str| t.data(name, &[batch, sizes.observation]);

    let critics = Critics::discrete(t, n, sizes.observation, &config.hidden, actions);
    let widths = [&[sizes.observation + actions], &config.hidden[..], &[1]].concat();
    let density = mlp_parameters(t, "density.", &widths);
    let (observation, next, action) = (rows("observation"), rows("next_observation"), row("action"));

    // The largest sum over members is the largest mean.
    let best = sum(&each(q_values(&critics.params, next).stop_gradient())).argmax_last();
    let then = picked(q_values(&critics.targets, next), best);
    let target = bellman_target(row("reward"), row("discount"), then).stop_gradient();
    let known = picked(q_values(&critics.params, observation), action);
    let critic_loss = squared_error(known, target);

    let seen = t.data("replay.observation", &[2 * batch, sizes.observation]);
    let taken = t.data("replay.action", &[2 * batch]).one_hot(actions);
    let rating = balanced_replay::rate(
        &density,
        [seen, taken],
        [observation, action.one_hot(actions)],
        config.density_temperature,
    );

    let lr = t.data("lr", &[]);
    let mut updates = Updates::new(t);
    updates.minimise(&Optimiser::new("", config.adam, lr), &critics.params, critic_loss);
    updates.minimise(&Optimiser::new("density", config.adam, lr), &density, rating.loss);
    updates.follow(&critics.targets, &critics.params, t.data("target_mix", &[]), 1);
    let own = [("critic_loss", critic_loss), ("spread", spread_of_critics(known).mean())];
    let none = t.constant(0.0, &[]);
    let outputs = LossParts::outputs(t, critic_loss, critic_loss, &[], none, known.mean());
    t.finish(&updates.pairs(), &[&outputs[..], &own, &rating.outputs()].concat())
}

/// An ensemble of Q-networks: owns its parameters, improves them, acts with them.
pub struct QEnsemble {
    agents: usize,
    hidden: Vec<usize>,
    sizes: Sizes,
    engine: Engine,
    networks: SideBySide,
    /// The mean value of each action.
    values: Vec<f32>,
}

impl QEnsemble {
    /// Members of these hidden layers with parameters drawn from `rng`; the target networks start as copies.
    pub(super) fn of(
        program: Program,
        (agents, hidden): (usize, &[usize]),
        sizes: Sizes,
        backend: &dyn Backend,
        rng: &mut Rng,
    ) -> Result<Self, LearnError> {
        let engine = Engine::new(program, "critics.", backend)?;
        let actions = sizes.actions.outputs();
        let networks = SideBySide::new(agents, &[&[sizes.observation], hidden, &[actions]].concat());
        let hidden = hidden.to_vec();
        let mut ensemble = Self { agents, hidden, sizes, engine, networks, values: vec![0.0; actions] };
        ensemble.start_over(rng)?;
        Ok(ensemble)
    }
}

impl Agent for QEnsemble {
    fn actions(&self) -> Actions {
        self.sizes.actions
    }

    /// The action with the largest mean over all members; the first of equals.
    fn act(&mut self, observation: &[f32], action: &mut [f32]) {
        let share = 1.0 / self.agents as f32;
        self.values.fill(0.0);
        for one in self.networks.forward(observation).chunks_exact(self.values.len()) {
            self.values.iter_mut().zip(one).for_each(|(sum, value)| *sum += value * share);
        }
        action[0] = mlp::choice(&self.values);
    }

    fn update(&mut self, batch: &Batch, schedule: &Schedule, _: &mut Rng) -> Result<(), LearnError> {
        match self.engine.update(|name: &str| batch.input(name).or_else(|| schedule.input(name)))? {
            true => self.hand_over(),
            false => Ok(()),
        }
    }

    /// One network that gives the mean of all members' values.
    fn policy(&self) -> Actor {
        self.networks.mean(self.sizes.observation, self.sizes.actions.outputs())
    }
}

impl Learner for QEnsemble {
    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    fn hand_over(&mut self) -> Result<(), LearnError> {
        self.networks.take(&mut self.engine)
    }

    fn start_over(&mut self, rng: &mut Rng) -> Result<(), LearnError> {
        let (sizes, actions) = (self.sizes, self.sizes.actions.outputs());
        let mut values = InitialParameters::new();
        let widths = [&[sizes.observation], &self.hidden[..], &[actions]].concat();
        initial_critics(rng, self.agents, &widths, &mut values);
        if self.engine.program().input("density.0.weight").is_some() {
            let widths = [&[sizes.observation + actions], &self.hidden[..], &[1]].concat();
            balanced_replay::initial_density(rng, &widths, &mut values);
        }
        let value = |input: &oto_graph::Input| {
            initial(&values, &input.name).unwrap_or_else(|| vec![0.0; input.len()])
        };
        self.engine.start(value)?;
        self.hand_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithms::AlgorithmConfig;

    fn sizes() -> Sizes {
        Sizes { observation: 2, actions: Actions::Discrete(3), teachers: 0, weighted: false }
    }

    fn agent(config: &AlgorithmConfig) -> Box<dyn Agent> {
        config.agent(sizes(), &oto_cpu::Cpu, &mut Rng::new(3)).unwrap()
    }

    const SCHEDULE: Schedule<'static> = Schedule {
        lr: 3e-3,
        target_mix: 0.05,
        alpha_aikd: 0.0,
        delta: 0.0,
        eta: 0.0,
        alpha_task: 1.0,
        share: &[],
    };

    /// A bandit: the reward of action 1 is 1, that of the others 0; action 2 is not in the data.
    fn bandit(rows: usize, rng: &mut Rng) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..rows {
            let (x, action) = ([rng.f64() as f32, rng.f64() as f32], rng.below(2) as f32);
            batch.observation.extend(x);
            batch.next_observation.extend(x);
            batch.action.push(action);
            batch.reward.push(action);
            batch.discount.push(0.0);
        }
        batch
    }

    #[test]
    fn the_best_recorded_action_wins_and_the_exported_network_agrees() {
        let config = CqlEnsembleConfig {
            agents: 3,
            hidden: vec![16],
            batch_size: 32,
            weight: 1.0,
            ..Default::default()
        };
        let (mut agent, rng) = (agent(&config.into()), &mut Rng::new(5));
        for _ in 0..300 {
            agent.update(&bandit(32, rng), &SCHEDULE, rng).unwrap();
        }
        let (mut policy, mut action) = (agent.policy(), [0.0]);
        for x in [[0.1, 0.9], [0.8, 0.2], [0.5, 0.5]] {
            agent.act(&x, &mut action);
            assert_eq!(action, [1.0]);
            let values = policy.forward(&x).to_vec();
            assert_eq!(mlp::choice(&values), 1.0);
            assert!(
                values[2] < values[1] - 0.2,
                "CQL's term keeps what the data do not show low: {values:?}"
            );
        }
        let loss = agent.engine().last_loss().unwrap();
        assert!(loss.get("spread").unwrap() > 0.0, "members differ");
    }

    /// Names and shapes agree, so that a run of one continues as the other.
    #[test]
    fn the_online_half_has_the_networks_of_the_offline_half() {
        let online =
            BalancedReplayConfig { agents: 3, hidden: vec![16], batch_size: 8, ..Default::default() };
        let offline = CqlEnsembleConfig { agents: 3, hidden: vec![16], batch_size: 8, ..Default::default() };
        let [online, offline] = [agent(&online.into()), agent(&offline.into())];
        let shapes = |agent: &dyn Agent| {
            let all = agent.engine().shapes();
            let critics = all.filter(|(name, _)| name.contains("critics."));
            critics.map(|(name, shape)| (name.to_string(), shape.to_vec())).collect::<Vec<_>>()
        };
        assert_eq!(shapes(&*online), shapes(&*offline));
        assert!(online.engine().shapes().any(|(name, _)| name == "density.0.weight"));
    }

    /// Online the values follow the batch, and the density network's report is the same as for continuous actions.
    #[test]
    fn the_online_half_learns_and_rates_its_transitions() {
        let config =
            BalancedReplayConfig { agents: 2, hidden: vec![16], batch_size: 32, ..Default::default() };
        let (mut agent, rng) = (agent(&config.into()), &mut Rng::new(5));
        for _ in 0..300 {
            let mut batch = bandit(32, rng);
            // As many of the run's own as recorded ones, which are alike: their ratios are near 1.
            batch.replay = Some(Box::new(bandit(64, rng)));
            agent.update(&batch, &SCHEDULE, rng).unwrap();
        }
        let mut action = [0.0];
        agent.act(&[0.5, 0.5], &mut action);
        assert_eq!(action, [1.0]);
        let loss = agent.engine().last_loss().unwrap();
        let said = |name: &str| loss.get(name).unwrap();
        assert!((0.5..2.0).contains(&said("density_online")) && said("density_zero") == 0.0, "{loss:?}");
        let (_, priorities) = agent.engine().td_errors().unwrap();
        assert!(
            priorities.len() == 32 && priorities.iter().all(|one| (0.5..2.0).contains(one)),
            "{priorities:?}"
        );
    }
}
