//! The settings of a learner.

use crate::actor::explore::Exploration;
use crate::config::check_learning;
use oto_rl::algorithms::{self, AlgorithmConfig, Data, Defaults, Run, Seen};
use oto_rl::checks::{Checks, ConfigError};
use oto_rl::replay::{ReplayConfig, SamplerName};
use oto_rl::schedule::Linear;

/// One learner. Steps are the transitions that it learns from, of all its edges.
#[derive(Clone, Debug, PartialEq)]
pub struct LearnerConfig {
    /// Seed of initial parameters and batches.
    pub seed: u64,
    /// The environment whose spaces the edges have.
    pub env: String,
    /// The reward function.
    pub reward: String,
    /// "cpu", or another backend of the program.
    pub backend: String,
    /// The algorithm and its settings; one that learns from replay.
    pub algorithm: AlgorithmConfig,
    /// Discount factor.
    pub gamma: f64,
    /// Rewards summed before the bootstrap.
    pub n_step: usize,
    /// Transitions that the replay holds, over all edges.
    pub buffer: usize,
    /// How batches are chosen from the replay.
    pub replay: ReplayConfig,
    /// Edges at most; each has an equal share of the replay.
    pub edges: usize,
    /// Steps before the first update.
    pub learning_starts: u64,
    /// Updates for each step.
    pub updates: u64,
    /// Learning rate over steps.
    pub learning_rate: Linear,
    /// Updates between hard updates of the target network; 0: soft updates by `target_tau`.
    pub target_every: u64,
    /// Coefficient of the target network's soft update, at every update, if `target_every` is 0.
    pub target_tau: f64,
    /// Rows with a sensor fault are left out.
    pub leave_out_faulty: bool,
    /// How the edges explore.
    pub exploration: Exploration,
    /// Steps per second that the edges are to make; absent: each edge chooses.
    pub hz: Option<f64>,
    /// Rows at most that an edge may have sent and the learner has not acknowledged.
    pub ring: u32,
    /// Seconds between two checkpoints.
    pub checkpoint_seconds: f64,
}

oto_json::json_object! {
    LearnerConfig: settings {
        seed, env, reward, backend, algorithm, gamma, n_step, buffer, replay, edges, learning_starts, updates, learning_rate, target_every,
        target_tau, leave_out_faulty, exploration, hz omit none, ring, checkpoint_seconds
    }
}

impl Default for LearnerConfig {
    fn default() -> Self {
        let seen = Seen { continuous: true, images: None };
        Self::new(algorithms::find("ddpg").expect("it is one of the registry").defaults(seen))
    }
}

impl LearnerConfig {
    /// An algorithm's defaults. Its random actions become the edges' exploration.
    pub fn new(defaults: Defaults) -> Self {
        Self {
            seed: 0,
            env: String::new(),
            reward: String::new(),
            backend: "cpu".into(),
            algorithm: defaults.algorithm,
            gamma: defaults.gamma,
            n_step: defaults.n_step,
            buffer: defaults.buffer,
            replay: ReplayConfig::default(),
            edges: 1,
            learning_starts: defaults.learning_starts,
            updates: 1,
            learning_rate: defaults.learning_rate,
            target_every: defaults.target_every,
            target_tau: defaults.target_tau,
            leave_out_faulty: true,
            exploration: Exploration { epsilon: defaults.epsilon, ..Exploration::default() },
            hz: None,
            ring: 4_096,
            checkpoint_seconds: 60.0,
        }
    }

    /// Checks every setting before anything is built from it.
    ///
    /// # Errors
    /// The first setting that is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut c = Checks::default();
        let algorithm = self.algorithm.algorithm();
        let replays = algorithms::ALGORITHMS.iter().copied().filter(|one| one.data().contains(&Data::Replay));
        let expected = format!("{}: a learner learns from replay", algorithms::listed(replays));
        let good = algorithm.data().contains(&Data::Replay);
        c.that(good, "algorithm.name", || format!("{:?}", algorithm.name()), &expected);
        c.within("algorithm", |c| self.algorithm.check(c));
        let vectors = self.algorithm.convolution().is_none();
        c.that(vectors, "algorithm.convolution", || "given".into(), "none: edges send rows of numbers");
        check_learning(&mut c, self.gamma, self.n_step, self.target_tau, &self.learning_rate);
        c.whole("buffer", self.buffer as u64, 1..=16_000_000, "1 to 16000000 transitions");
        let (n_step, buffer, learning_starts) = (self.n_step, self.buffer, self.learning_starts);
        self.algorithm.check_run(Run { n_step, buffer, learning_starts }, &mut c);
        c.within("replay", |c| {
            self.replay.check(c);
            let sampler = self.replay.sampler;
            let got = || oto_json::write(&sampler);
            let recorded = sampler == SamplerName::Shares;
            c.that(
                !recorded,
                "sampler",
                got,
                "one of \"uniform\", \"combined\" and \"prioritised\": a learner has no recorded transitions",
            );
            let fits = !self.replay.weighted() || self.algorithm.can_be_prioritised();
            let expected = format!(
                "\"uniform\" or \"combined\": {} does not weigh the transitions of a batch",
                algorithm.name()
            );
            c.that(fits, "sampler", got, &expected);
            let alone = !self.replay.weighted() || self.edges == 1;
            c.that(alone, "sampler", got, "\"uniform\" or \"combined\" for several edges");
        });
        c.whole("edges", self.edges as u64, 1..=1_024, "1 to 1024 edges");
        let shared = self.edges <= self.buffer;
        c.that(shared, "edges", || self.edges.to_string(), "at most as many as the buffer has transitions");
        c.whole("updates", self.updates, 0..=1_024, "0 to 1024 updates a step");
        c.within("exploration", |c| self.exploration.check(c));
        if let Some(hz) = self.hz {
            c.real("hz", hz, 1.0 / 60.0..=1e5, "1/60 to 100000 steps a second");
        }
        c.whole("ring", self.ring.into(), 1..=1 << 20, "1 to 1048576 rows");
        c.real("checkpoint_seconds", self.checkpoint_seconds, 0.1..=86_400.0, "0.1 to 86400 seconds");
        c.done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<LearnerConfig, String> {
        let config = oto_json::read::<LearnerConfig>(json).map_err(|error| error.to_string())?;
        config.validate().map_err(|error| error.to_string()).map(|()| config)
    }

    #[test]
    fn the_default_is_valid_and_survives_json() {
        let config = LearnerConfig::default();
        assert_eq!(read(&oto_json::write(&config)), Ok(config));
    }

    #[test]
    fn settings_out_of_their_range_are_named() {
        for (json, says) in [
            (r#"{"algorithm":"ppo"}"#, "a learner learns from replay"),
            (r#"{"algorithm":"bc"}"#, "algorithm.name"),
            (r#"{"edges":0}"#, "edges is 0"),
            (r#"{"buffer":2,"edges":3}"#, "edges is 3"),
            (r#"{"hz":-1}"#, "hz is -1"),
            (r#"{"replay":{"sampler":"shares"}}"#, "no recorded transitions"),
            (r#"{"edges":2,"replay":{"sampler":"prioritised"}}"#, "for several edges"),
            (r#"{"exploration":{"noise":-0.1}}"#, "exploration.noise"),
            (r#"{"rewards":"pendulum"}"#, "rewards"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(says), "{json}: {error}");
        }
    }
}
