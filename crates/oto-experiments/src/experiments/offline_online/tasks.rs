//! The environments of the experiment: their data, their networks, and how much runs in each.

use oto_agent::config::StudentConfig;
use oto_agent::environments;
use oto_agent::levels;
use oto_data::{Level, Reference};
use oto_rl::algorithms::Seen;
use oto_rl::algorithms::sac::SacConfig;

/// An environment of the experiment.
#[derive(Debug, PartialEq)]
pub struct Task {
    /// Its name on the command line.
    pub name: &'static str,
    /// The environment.
    pub environment: &'static str,
    /// The heading of its report.
    pub title: &'static str,
    /// Widths of the hidden layers.
    pub hidden: &'static [usize],
    /// Transitions in an update.
    pub batch: usize,
    /// Updates of the offline part.
    pub updates: u64,
    /// Environment steps of the online part.
    pub steps: u64,
    /// Seeds of each method.
    pub seeds: u64,
    /// Evaluations of the offline part and of the online part.
    pub evaluations: [u64; 2],
    /// Episodes in an evaluation.
    pub episodes: u32,
    /// Levels of the data.
    pub levels: &'static [Level],
    /// The methods; none: all.
    pub methods: &'static [&'static str],
    /// Mean returns of random actions and of an expert.
    pub reference: Reference,
    /// The seed of the training behind the levels.
    pub data_seed: u64,
    /// The algorithm of this training as JSON; none: the usual one.
    training: Option<&'static str>,
    /// Steps of the training at most.
    pub training_steps: u64,
    /// Least number of steps of each policy of a level.
    pub level_steps: usize,
}

/// All tasks; the first is the usual one.
pub const TASKS: &[Task] = &[
    Task {
        name: "pendulum",
        environment: "Pendulum-v1",
        title: "Offline, then online",
        hidden: &[64, 64],
        batch: 128,
        updates: 5_000,
        steps: 5_000,
        seeds: 5,
        evaluations: [10, 50],
        episodes: 10,
        levels: &[Level::Random, Level::MediumReplay, Level::MediumExpert],
        methods: &[],
        reference: Reference { random: -1166.4, expert: -145.3 },
        data_seed: 0,
        training: None,
        training_steps: 20_000,
        level_steps: 20_000,
    },
    body("hopper", "mujoco:Hopper-v5", "Offline, then online: Hopper", [-20.3, 3234.3], 1),
    body("halfcheetah", "mujoco:HalfCheetah-v5", "Offline, then online: HalfCheetah", [-280.2, 12_135.0], 1),
    body("walker2d", "mujoco:Walker2d-v5", "Offline, then online: Walker2d", [1.6, 4592.3], 1),
    MOUNTAIN_CAR,
];

/// A reward at the goal alone, beside a small cost of force: 100 for the car on the hill. SAC stands still there, so noise with a correlation
/// time of 20 steps trains the data's policy. The expert's return is Gymnasium's threshold, that of random actions 999 times their mean cost.
const MOUNTAIN_CAR: Task = Task {
    name: "mountain-car",
    environment: "MountainCarContinuous-v0",
    title: "Offline, then online: a sparse reward",
    hidden: &[64, 64],
    batch: 128,
    updates: 5_000,
    steps: 10_000,
    seeds: 3,
    evaluations: [5, 25],
    episodes: 5,
    levels: &[Level::MediumReplay],
    methods: &[
        "sac from scratch",
        "sac with data",
        "rlpd",
        "cql as it is",
        "cql then sac",
        "cql served",
        "iql",
        "awac",
        "cal-ql",
        "wsrl",
        "pex",
    ],
    reference: Reference { random: -33.3, expert: 90.0 },
    data_seed: 0,
    training: Some(
        r#"{"name":"td3","hidden":[64,64],"batch_size":128,"exploration":0.6,"correlation_time":20}"#,
    ),
    training_steps: 50_000,
    level_steps: 20_000,
};

/// One of MuJoCo's bodies, with the returns that D4RL scores by.
const fn body(
    name: &'static str,
    environment: &'static str,
    title: &'static str,
    [random, expert]: [f64; 2],
    data_seed: u64,
) -> Task {
    Task {
        name,
        environment,
        title,
        hidden: &[128, 128],
        batch: 128,
        updates: 10_000,
        steps: 10_000,
        seeds: 3,
        evaluations: [5, 25],
        episodes: 5,
        levels: &[Level::MediumReplay, Level::Medium],
        methods: &[],
        reference: Reference { random, expert },
        data_seed,
        training: None,
        training_steps: 300_000,
        level_steps: 100_000,
    }
}

impl Task {
    /// The names of its files, and of its section of the report.
    pub fn files(&self) -> String {
        self.with("offline-to-online")
    }

    /// The beginning of the names of its folders in the cache.
    pub fn folder(&self) -> String {
        self.with("offline-online")
    }

    fn with(&self, prefix: &str) -> String {
        if *self == TASKS[0] { prefix.into() } else { format!("{prefix}-{}", self.name) }
    }

    /// The command of its report.
    pub fn command(&self) -> String {
        let command = "oto report offline-to-online";
        if *self == TASKS[0] { command.into() } else { format!("{command} --environment {}", self.name) }
    }

    /// The training behind the levels. A body's networks and batch are those of the experiment.
    ///
    /// # Panics
    /// If a task's algorithm has settings that there are not; a test reads them all.
    pub fn student(&self) -> StudentConfig {
        let of_a_library = self.environment.contains(':');
        let seen = Seen { continuous: true, images: None };
        let usual = levels::student(environments::id(self.environment), seen, of_a_library, self.data_seed);
        let small = |one: &mut SacConfig| (one.hidden, one.batch_size) = (self.hidden.to_vec(), self.batch);
        let algorithm =
            if of_a_library { usual.algorithm.clone().with(small) } else { usual.algorithm.clone() };
        StudentConfig { algorithm, ..usual }
    }
}

/// Widths of layers: 64-64.
pub fn joined(hidden: &[usize]) -> String {
    hidden.iter().map(usize::to_string).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_has_a_valid_training_files_of_its_own_and_methods_that_there_are() {
        for (i, task) in TASKS.iter().enumerate() {
            task.student().validate().unwrap_or_else(|error| panic!("{}: {error}", task.name));
            assert_eq!(TASKS.iter().position(|other| other.files() == task.files()), Some(i));
            assert_eq!(task.reference.checked(), Some(task.reference));
            let known = |name: &&str| super::super::names().any(|known| known == *name);
            assert!(task.methods.iter().all(known), "{}", task.name);
        }
        assert_eq!(TASKS[0].command(), "oto report offline-to-online");
        assert_eq!(joined(TASKS[1].hidden), "128-128");
    }
}
