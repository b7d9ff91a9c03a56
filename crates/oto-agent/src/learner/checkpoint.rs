//! A learner as one safetensors file: parameters, optimiser, each edge's share of the replay, and in its metadata all that is no tensor.

use super::edge_replay::EdgeReplay;
use super::train::{Counts, Learner, LearnerError};
use crate::safetensors::{self, File};
use oto_env::Space;
use oto_env::rng::Rng;
use oto_json::Writer;
use oto_proto::stream::{Flags, MAX_SEQUENCE, StreamId};
use oto_rl::algorithms::AlgorithmConfig;
use oto_rl::engine::{LearnError, NamedTensor};
use oto_rl::replay::ReplayCounters;

const FORMAT: &str = "oto.learner.v1";

/// What of a learner is no tensor.
struct Saved {
    algorithm: AlgorithmConfig,
    observation: Space,
    action: Space,
    draw: Rng,
    updates: u64,
    backlog: u64,
    counts: Counts,
    edges: Vec<SavedEdge>,
}

oto_json::json_object! {
    Saved: open { algorithm, observation, action, draw, updates, backlog, counts, edges }
}

/// What of an edge is no tensor.
struct SavedEdge {
    name: String,
    stream: StreamId,
    session: u32,
    next: u64,
    paused: bool,
    running: bool,
    flags: u8,
    score: f64,
    length: u64,
    rows: u64,
    steps: u64,
    left_out: u64,
    replay: ReplayCounters,
}

oto_json::json_object! {
    SavedEdge: open {
        name, stream, session, next, paused, running, flags, score, length, rows, steps, left_out, replay
    }
}

fn wrong(what: impl std::fmt::Display) -> LearnerError {
    LearnerError::Saved(what.to_string())
}

/// The name of an edge's array.
fn at(edge: usize, name: &str) -> String {
    format!("edge.{edge}.{name}")
}

impl Learner {
    /// The whole learner.
    ///
    /// # Errors
    /// Parameters that are not finite: no file could be loaded that has them.
    pub fn save(&self) -> Result<Vec<u8>, LearnerError> {
        self.file(&self.edges)
    }

    /// The learner without its edges and their replay: what [`Self::load_weights`] reads.
    ///
    /// # Errors
    /// Parameters that are not finite.
    pub fn save_weights(&self) -> Result<Vec<u8>, LearnerError> {
        self.file(&[])
    }

    fn file(&self, edges_of: &[EdgeReplay]) -> Result<Vec<u8>, LearnerError> {
        let mut tensors = self.agent.engine().state()?;
        if let Some(bad) = tensors.iter().find(|t| t.values.iter().any(|x| !x.is_finite())) {
            return Err(LearnError::NotFinite(bad.name.clone()).into());
        }
        let mut edges = Vec::new();
        for (i, edge) in edges_of.iter().enumerate() {
            let (replay, mut arrays) = edge.replay.save();
            arrays.extend(edge.sampler.save(&edge.replay));
            let before =
                [("observation", edge.before.observation.clone()), ("action", edge.before.action.clone())];
            tensors.extend(arrays.into_iter().chain(before).map(|(name, values)| NamedTensor {
                name: at(i, name),
                shape: vec![values.len()],
                values,
            }));
            edges.push(SavedEdge {
                name: edge.name.clone(),
                stream: edge.stream,
                session: edge.session,
                next: edge.next,
                paused: edge.paused,
                running: edge.before.is_there,
                flags: edge.before.flags.0,
                score: edge.score,
                length: edge.length,
                rows: edge.rows,
                steps: edge.steps,
                left_out: edge.left_out,
                replay,
            });
        }
        let saved = Saved {
            algorithm: self.config.algorithm.clone(),
            observation: self.spaces[0].clone(),
            action: self.spaces[1].clone(),
            draw: self.draw.clone(),
            updates: self.updates(),
            backlog: self.backlog,
            counts: self.counts,
            edges,
        };
        let metadata = Writer::object(|out| out.field("learner", &saved));
        Ok(safetensors::write(FORMAT, &metadata, &tensors))
    }

    /// Goes on from a saved learner of the same algorithm and spaces.
    ///
    /// # Errors
    /// A foreign or damaged file, and a number that no learner has. The learner is as it was then.
    pub fn load(&mut self, file: &[u8]) -> Result<(), LearnerError> {
        let file = File::read(file).map_err(wrong)?;
        let text = safetensors::entry(&file, FORMAT, &[]).map_err(wrong)?;
        let tree = oto_json::parse(text).map_err(wrong)?;
        let saved = tree.get("learner").ok_or_else(|| wrong("its metadata have no entry learner"))?;
        let saved: Saved = oto_json::from_tree(saved).map_err(wrong)?;
        if saved.algorithm != self.config.algorithm {
            let [theirs, ours] = [&saved.algorithm, &self.config.algorithm].map(oto_json::write);
            return Err(wrong(format!("expected {ours}, got {theirs}")));
        }
        if [&saved.observation, &saved.action] != [&self.spaces[0], &self.spaces[1]] {
            return Err(wrong("expected the spaces of this learner's environment, got others"));
        }
        if saved.edges.len() > self.config.edges {
            let (expected, got) = (self.config.edges, saved.edges.len());
            return Err(wrong(format!("expected at most {expected} edges, got {got}: set edges")));
        }
        let edges = saved.edges.iter().enumerate().map(|(i, edge)| self.edge(i, edge, &file));
        let edges = edges.collect::<Result<Vec<_>, _>>()?;
        self.agent.restore(saved.updates, &mut |name| file.floats(name))?;
        (self.edges, self.draw, self.counts) = (edges, saved.draw, saved.counts);
        self.backlog = saved.backlog;
        Ok(())
    }

    /// Takes parameters and the optimiser's state from a file: a learner's, or a student's of the same algorithm. Steps, updates and
    /// replay begin anew: training in simulation, then on a plant with an empty replay.
    ///
    /// # Errors
    /// A damaged file, and one of another network or algorithm. The learner is as it was then.
    pub fn load_weights(&mut self, file: &[u8]) -> Result<(), LearnerError> {
        let file = File::read(file).map_err(wrong)?;
        Ok(self.agent.restore(0, &mut |name| file.floats(name))?)
    }

    fn edge(&self, i: usize, saved: &SavedEdge, file: &File<'_>) -> Result<EdgeReplay, LearnerError> {
        let mut edge = EdgeReplay::new(&saved.name, self.share.empty(), self.config.replay.make());
        if !edge.replay.restore(&saved.replay, |name| file.floats(&at(i, name))) {
            return Err(wrong(format!("edge {:?}: its replay does not fit buffer and edges", saved.name)));
        }
        let EdgeReplay { replay, sampler, .. } = &mut edge;
        if !sampler.restore(replay, &mut |name| file.floats(&at(i, name))) {
            return Err(wrong(format!("edge {:?}: its priorities do not fit its replay", saved.name)));
        }
        let takes = |action: &[f32]| self.agent.takes(action);
        edge.replay.check(takes, |_| false).map_err(|e| wrong(format!("edge {:?}: {e}", saved.name)))?;
        if saved.next > MAX_SEQUENCE || saved.flags & !Flags::ALL.0 != 0 || !saved.score.is_finite() {
            return Err(wrong(format!("edge {:?}: expected a row's number, flags and a return", saved.name)));
        }
        if saved.running {
            let widths = [self.spaces[0].width(), self.spaces[1].width()];
            for (name, to, width) in [
                ("observation", &mut edge.before.observation, widths[0]),
                ("action", &mut edge.before.action, widths[1]),
            ] {
                let sound = |values: &Vec<f32>| values.len() == width && values.iter().all(|x| x.is_finite());
                let values = file.floats(&at(i, name)).filter(sound);
                *to = values.ok_or_else(|| {
                    wrong(format!("edge {:?}: expected {width} finite numbers as {name}", saved.name))
                })?;
            }
        }
        (edge.before.is_there, edge.before.flags) = (saved.running, Flags(saved.flags));
        (edge.stream, edge.session, edge.next) = (saved.stream, saved.session, saved.next);
        (edge.paused, edge.score, edge.length) = (saved.paused, saved.score, saved.length);
        (edge.rows, edge.steps, edge.left_out) = (saved.rows, saved.steps, saved.left_out);
        Ok(edge)
    }
}
