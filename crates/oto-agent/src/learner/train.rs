//! The learner: rows of edges become transitions, each transition owes an update, and the acting network's weights go back.
//!
//! Free of sockets, files and clocks. Its host gives it rows ([`Learner::take`]) and time ([`Learner::work`]). Rows that
//! come faster than updates are made leave a backlog, which is worked off while the plants reset or are evaluated.

use super::config::LearnerConfig;
use super::edge_replay::EdgeReplay;
use super::reward::{self, Reward, RewardError, Step};
use crate::config::ConfigError;
use crate::trainer::{from_units, take_errors};
use oto_env::rng::Rng;
use oto_env::{Action, Space};
use oto_graph::Backend;
use oto_proto::stream::{Flags, Row, StreamId};
use oto_proto::weights::{Activation, Model, Output};
use oto_rl::algorithms::{Agent, Misfit, Sizes};
use oto_rl::engine::{LearnError, LossParts, Schedule};
use oto_rl::mlp;
use oto_rl::replay::{Batch, Columns, Replay, Request};

/// Why a learner cannot be made, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LearnerError {
    /// A setting out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A reward function that there is not, or not for these spaces.
    #[error(transparent)]
    Reward(#[from] RewardError),
    /// Spaces that the algorithm cannot learn in.
    #[error("{0}")]
    Space(#[from] Misfit),
    /// The update's failure.
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// More edges than the replay has shares.
    #[error("expected at most {0} edges, got one more: drop one, or set edges")]
    Edges(usize),
    /// No edge of this name.
    #[error("expected an edge that the learner knows, got {0:?}")]
    UnknownEdge(String),
    /// No memory for a transition.
    #[error(
        "there is no memory for more than the {0} transitions that the replay holds: a smaller buffer fits"
    )]
    Memory(usize),
    /// A saved learner that cannot be used.
    #[error("the saved learner: {0}")]
    Saved(String),
}

/// What a learner counts, over all edges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows that were taken.
    pub rows: u64,
    /// Transitions that are learned from.
    pub steps: u64,
    /// Transitions of evaluations: left out.
    pub evaluation: u64,
    /// Transitions with a sensor fault: left out.
    pub faulty: u64,
    /// Transitions whose reward is no finite number: left out.
    pub not_finite: u64,
    /// Rows that were lost at an edge, whose ring was full.
    pub lost: u64,
    /// Episodes that ended.
    pub episodes: u64,
}

oto_json::json_object! { Counts: open { rows, steps, evaluation, faulty, not_finite, lost, episodes } }

/// An episode that ended at an edge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Episode {
    /// Undiscounted return.
    pub score: f64,
    /// Steps.
    pub length: u64,
    /// Whether it was an evaluation.
    pub evaluation: bool,
}

/// Trains from the rows of edges.
pub struct Learner {
    pub(super) config: LearnerConfig,
    pub(super) spaces: [Space; 2],
    reward: &'static Reward,
    pub(super) agent: Box<dyn Agent>,
    /// A replay without transitions, of one edge's share.
    pub(super) share: Replay,
    pub(super) edges: Vec<EdgeReplay>,
    /// Draws batches.
    pub(super) draw: Rng,
    batch: Batch,
    part: Batch,
    own: Vec<f32>,
    pub(super) counts: Counts,
    /// Updates that are owed.
    pub(super) backlog: u64,
}

impl Learner {
    /// A learner for edges with these spaces.
    ///
    /// # Errors
    /// Settings out of their range, an unknown reward function, spaces that do not fit, the backend's failure.
    pub fn new(
        config: &LearnerConfig,
        observation: &Space,
        action: &Space,
        backend: &dyn Backend,
    ) -> Result<Self, LearnerError> {
        config.validate()?;
        let reward = reward::find(&config.reward, [observation.width(), action.width()])?;
        let sizes = config.algorithm.sizes(observation, action, 0)?;
        let sizes = Sizes { weighted: config.replay.weighted(), ..sizes };
        let mut rng = Rng::new(config.seed);
        let agent = config.algorithm.agent(sizes, backend, &mut rng)?;
        let (width, numbers) = (observation.width(), agent.action_width());
        let columns = Columns::read_by(agent.engine().program());
        let capacity = config.buffer / config.edges;
        let share =
            Replay::new(capacity, [width, numbers], 0, config.n_step, config.gamma).with_columns(columns);
        Ok(Learner {
            reward,
            agent,
            share,
            edges: Vec::new(),
            draw: Rng::new(rng.next_u64()),
            batch: Batch::default(),
            part: Batch::default(),
            own: Vec::with_capacity(numbers),
            counts: Counts::default(),
            backlog: 0,
            spaces: [observation.clone(), action.clone()],
            config: config.clone(),
        })
    }

    /// Begins a session of an edge, whose first row will have the number `next`; the edge becomes known. Rows of its stream between the
    /// last one that was taken and that one are lost.
    ///
    /// # Errors
    /// If the learner has all its edges already.
    pub fn join(
        &mut self,
        (name, session): (&str, u32),
        stream: StreamId,
        next: u64,
    ) -> Result<(), LearnerError> {
        let known = self.edges.iter().position(|edge| edge.name == name);
        let at = match known {
            Some(at) => at,
            None if self.edges.len() >= self.config.edges => {
                return Err(LearnerError::Edges(self.config.edges));
            }
            None => {
                self.edges.push(EdgeReplay::new(name, self.share.empty(), self.config.replay.make()));
                self.edges.len() - 1
            }
        };
        self.counts.lost += self.edges[at].join(session, stream, next);
        Ok(())
    }

    /// Rows below `first` are lost at the edge.
    pub fn dropped(&mut self, session: (&str, u32), first: u64) {
        if let Some(edge) = find(&mut self.edges, session) {
            self.counts.lost += edge.skip_to(first);
        }
    }

    /// Takes the next row of an edge. Rows that were taken before, and those of a session that was replaced, change nothing: false. Gives
    /// the episode if one ended.
    ///
    /// # Errors
    /// No memory: the row is not taken.
    pub fn take(
        &mut self,
        session: (&str, u32),
        row: Row<'_>,
    ) -> Result<(bool, Option<Episode>), LearnerError> {
        let held = self.transitions();
        let Some(edge) = find(&mut self.edges, session).filter(|edge| edge.next == row.sequence) else {
            return Ok((false, None));
        };
        let room = edge.replay.make_room().and_then(|()| edge.sampler.make_room(&edge.replay));
        room.map_err(|_| LearnerError::Memory(held))?;
        edge.next = row.sequence + 1;
        self.counts.rows += 1;
        edge.rows += 1;
        if row.flags.has(Flags::FIRST) {
            edge.cut();
        }
        let mut ended = None;
        if edge.before.is_there {
            let flags = edge.before.flags | row.flags;
            let step = Step {
                observation: &edge.before.observation,
                action: &edge.before.action,
                next_observation: row.observation,
                terminated: row.flags.has(Flags::TERMINATED),
            };
            let reward = (self.reward.of)(step);
            edge.score += reward;
            edge.length += 1;
            let left_out = if edge.before.flags.has(Flags::EVALUATION) || row.flags.has(Flags::EVALUATION) {
                Some(&mut self.counts.evaluation)
            } else if self.config.leave_out_faulty && flags.has(Flags::FAULTY) {
                Some(&mut self.counts.faulty)
            } else if !(reward as f32).is_finite() {
                Some(&mut self.counts.not_finite)
            } else if edge.paused {
                Some(&mut edge.left_out)
            } else {
                None
            };
            match left_out {
                Some(count) => {
                    *count += 1;
                    // Rewards are not summed across a gap.
                    edge.replay.forget_pending();
                }
                None => {
                    action(&self.spaces[1], &edge.before.action, &mut self.own);
                    let truncated = row.flags.has(Flags::TRUNCATED) && !step.terminated;
                    let (before, next) = (step.observation, step.next_observation);
                    let reward = reward as f32;
                    edge.replay.push(before, &self.own, reward, next, step.terminated, truncated, |_, _| {});
                    self.counts.steps += 1;
                    edge.steps += 1;
                    if self.counts.steps >= self.config.learning_starts {
                        self.backlog += self.config.updates;
                    }
                }
            }
            if row.flags.ends() {
                let evaluation = flags.has(Flags::EVALUATION);
                let episode = Episode { score: edge.score, length: edge.length, evaluation };
                self.counts.episodes += 1;
                edge.last = Some(episode);
                ended = Some(episode);
            }
        }
        match row.flags.ends() {
            true => edge.cut(),
            false => edge.before.set(row),
        }
        Ok((true, ended))
    }

    /// Makes one update, if one is owed and there is something to learn from. False: there is nothing to do.
    ///
    /// # Errors
    /// The update's failure.
    pub fn work(&mut self) -> Result<bool, LearnerError> {
        if self.backlog == 0 || self.transitions() == 0 {
            return Ok(false);
        }
        let updates = self.updates() + 1;
        self.draw(updates);
        let c = &self.config;
        let hard = if updates.is_multiple_of(c.target_every.max(1)) { 1.0 } else { 0.0 };
        let schedule = Schedule {
            lr: c.learning_rate.at(self.counts.steps) as f32,
            target_mix: if c.target_every > 0 { hard } else { c.target_tau as f32 },
            alpha_aikd: 0.0,
            delta: 0.0,
            eta: 0.0,
            alpha_task: 1.0,
            share: &[],
        };
        // An actor that starts after its critics counts steps.
        self.agent.at_step(self.counts.steps);
        self.agent.update(&self.batch, &schedule, &mut self.draw)?;
        // Only one edge has priorities.
        if let [edge] = &mut self.edges[..] {
            take_errors(&mut *edge.sampler, &*self.agent);
        }
        self.backlog -= 1;
        Ok(true)
    }

    /// Draws a batch: from each edge an equal share.
    fn draw(&mut self, update: u64) {
        let (size, step) = (self.config.algorithm.batch_size(), self.counts.steps);
        let Self { edges, batch, part, draw, .. } = self;
        let count = edges.iter().filter(|edge| !edge.replay.is_empty()).count();
        let filled = edges.iter_mut().filter(|edge| !edge.replay.is_empty());
        if count > 1 {
            columns(batch).into_iter().for_each(Vec::clear);
        }
        for (i, EdgeReplay { replay, sampler, .. }) in filled.enumerate() {
            let buffers = &[&*replay];
            if count == 1 {
                return sampler.sample(&Request { buffers, size, update, step }, draw, batch);
            }
            // What does not divide goes to another edge at each update.
            let rows = size / count + usize::from((i + update as usize) % count < size % count);
            if rows > 0 {
                sampler.sample(&Request { buffers, size: rows, update, step }, draw, part);
                columns(batch)
                    .into_iter()
                    .zip(columns(part))
                    .for_each(|(to, from)| to.extend_from_slice(from));
            }
        }
        batch.perm.clear();
        batch.perm.extend((0..size).map(|i| i as f32));
        draw.shuffle(&mut batch.perm);
    }

    /// The architecture of the network that acts.
    pub fn model(&self) -> Model {
        let network = self.agent.policy();
        let layers = network.layers();
        let inputs = layers[0].weight.len() / layers[0].bias.len();
        let widths = std::iter::once(inputs).chain(layers.iter().map(|layer| layer.bias.len()));
        let activation = match layers[0].activation {
            mlp::Activation::Tanh => Activation::Tanh,
            _ => Activation::Relu,
        };
        let output = match (&self.spaces[1], self.agent.squashes()) {
            (Space::Discrete { .. }, _) => Output::Argmax,
            (_, true) => Output::Tanh,
            (_, false) => Output::Clip,
        };
        Model::mlp(widths.map(|width| width as u32).collect(), activation, output)
    }

    /// The weights of the network that acts, in the order of its model's layers.
    pub fn weights(&self, out: &mut Vec<f32>) {
        out.clear();
        self.agent.policy().parameters().for_each(|part| out.extend_from_slice(part));
    }

    /// Leaves what an edge sends out, or no more.
    ///
    /// # Errors
    /// If there is no such edge.
    pub fn pause(&mut self, name: &str, paused: bool) -> Result<(), LearnerError> {
        let edge = self.edges.iter_mut().find(|edge| edge.name == name);
        edge.ok_or_else(|| LearnerError::UnknownEdge(name.into()))?.paused = paused;
        Ok(())
    }

    /// Forgets an edge, and what was learned from it in the replay. Its share is free.
    ///
    /// # Errors
    /// If there is no such edge.
    pub fn drop_edge(&mut self, name: &str) -> Result<(), LearnerError> {
        let at = self.edges.iter().position(|edge| edge.name == name);
        self.edges.remove(at.ok_or_else(|| LearnerError::UnknownEdge(name.into()))?);
        Ok(())
    }

    /// The edges that joined.
    pub fn edges(&self) -> &[EdgeReplay] {
        &self.edges
    }

    /// Updates so far.
    pub fn updates(&self) -> u64 {
        self.agent.engine().updates()
    }

    /// No update is owed any more.
    pub fn forgive(&mut self) {
        self.backlog = 0;
    }

    /// Updates that are owed.
    pub fn backlog(&self) -> u64 {
        self.backlog
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Transitions that the replay holds.
    pub fn transitions(&self) -> usize {
        self.edges.iter().map(|edge| edge.replay.len()).sum()
    }

    /// The parts of the last update's loss.
    pub fn last_loss(&self) -> Option<&LossParts> {
        self.agent.engine().last_loss()
    }

    /// The settings.
    pub fn config(&self) -> &LearnerConfig {
        &self.config
    }

    /// The edges' observations and actions.
    pub fn spaces(&self) -> &[Space; 2] {
        &self.spaces
    }
}

/// The edge of this name in its newest session.
fn find<'e>(edges: &'e mut [EdgeReplay], (name, session): (&str, u32)) -> Option<&'e mut EdgeReplay> {
    edges.iter_mut().find(|edge| edge.name == name && edge.session == session)
}

/// An action on the wire as the learner has it.
fn action(space: &Space, units: &[f32], own: &mut Vec<f32>) {
    own.clear();
    let action = match space {
        Space::Discrete { .. } => Action::Discrete(units[0] as u32),
        Space::Box { .. } => Action::Continuous(units),
    };
    from_units(space, action, own);
}

/// The columns of a batch that edges fill together.
fn columns(batch: &mut Batch) -> [&mut Vec<f32>; 9] {
    let Batch {
        observation,
        next_observation,
        action,
        reward,
        discount,
        weights,
        return_to_go,
        return_known,
        source,
        ..
    } = batch;
    [observation, next_observation, action, reward, discount, weights, return_to_go, return_known, source]
}
