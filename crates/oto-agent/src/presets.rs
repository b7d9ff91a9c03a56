//! Defaults: whole addresses of teachers, adapters of known pairs of environment and policy, and the settings of students for
//! environments with a preset (a file in configs/) and, from the registry of algorithms, without one. docs/presets.md lists the settings.

mod table;

use self::table::FILES;
use crate::config::{EvaluationConfig, Linear, PlateauDecay, StudentConfig, TransferConfig};
use crate::settings;
use crate::stage::{Ending, GiveUp, StagesConfig};
use oto_json::Json;
use oto_proto::{ActionMap, Adapter, ObservationMap};
use oto_rl::algorithms::ppo::{PpoConfig, ProximalPolicy};
use oto_rl::algorithms::{self, Algorithm, Defaults};
use oto_rl::replay::ReplayConfig;

pub use oto_rl::algorithms::Seen;

/// Where a teacher server answers students.
pub const TEACH_PATH: &str = "/v1/teach";

/// The address of a teacher's link: `host:port` and `ws://host:port` are completed, anything else stays as it is.
pub fn teacher_url(address: &str) -> String {
    let with_scheme = if address.contains("://") { address.to_string() } else { format!("ws://{address}") };
    let (scheme, rest) = with_scheme.split_once("://").unwrap_or(("ws", address));
    match rest.split_once('/') {
        None | Some((_, "")) => format!("{scheme}://{}{TEACH_PATH}", rest.trim_end_matches('/')),
        Some(_) => with_scheme,
    }
}

/// The adapter between a student's environment and a teacher's policy, where the pair is known: CartPole's observation
/// (x, x_dot, theta, theta_dot) in InvertedPendulum's order (x, theta, x_dot, theta_dot), and its force's sign as the push.
pub fn adapter(environment: &str, policy: &str) -> Option<Adapter> {
    let known = b"inverted_pendulum";
    let pair = environment.starts_with("CartPole-")
        && policy.as_bytes().windows(known.len()).any(|part| part == known);
    pair.then(|| Adapter {
        observation: Some(ObservationMap { permutation: Some(vec![0, 2, 1, 3]), scale: None, offset: None }),
        action: Some(ActionMap::Sign { component: 0, negative: 0, positive: 1 }),
    })
}

/// The mean return from which on an environment counts as solved (Gymnasium's `reward_threshold`), where it has one.
pub fn solved_return(environment: &str) -> Option<f64> {
    match environment {
        "CartPole-v0" => Some(195.0),
        "CartPole-v1" => Some(475.0),
        "MountainCar-v0" => Some(-110.0),
        "Acrobot-v1" => Some(-100.0),
        "InvertedPendulum-v5" => Some(950.0),
        _ => None,
    }
}

/// Environments that share settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environments {
    /// By the part of their ids before the version, such as `CartPole`.
    Named(&'static str),
    /// All without settings of their own that have what these words say.
    Others(&'static str),
}

/// Default settings of a student, and their source.
#[derive(Clone, Debug, PartialEq)]
pub struct Preset {
    /// The environments that these settings are for.
    pub environments: Environments,
    /// Where the settings come from.
    pub source: &'static str,
    /// The settings.
    pub student: StudentConfig,
    /// Whether exploration and learning rate take a share of the run, and not a number of steps.
    pub stretches: bool,
    /// Whether the student learns more slowly, and leaves a teacher, by the return at which an environment counts as solved.
    pub decays: bool,
}

impl Preset {
    /// The same for a run of this many steps.
    pub fn for_steps(mut self, steps: u64) -> Self {
        let usual = u128::from(self.student.steps.max(1));
        let stretch = |l: &mut Linear| {
            let scaled = u128::from(l.steps) * u128::from(steps) / usual;
            l.steps = u64::try_from(scaled).unwrap_or(u64::MAX);
        };
        if self.stretches {
            [&mut self.student.epsilon, &mut self.student.learning_rate].into_iter().for_each(stretch);
        }
        self.student.steps = steps;
        self
    }

    /// Which environments and which algorithm the settings are for.
    pub fn title(&self) -> String {
        let algorithm = self.student.algorithm.name();
        match self.environments {
            Environments::Named(name) => format!("{name}, {algorithm}"),
            Environments::Others(with) => format!("any environment with {with}, {algorithm}"),
        }
    }

    /// One line that says whose settings a student in this environment begins with.
    pub fn line(&self, environment: &str) -> String {
        let (title, source) = (self.title(), self.source);
        match self.environments {
            Environments::Named(_) => format!("{environment} has a preset ({title}): {source}"),
            Environments::Others(_) => {
                format!("{environment} has no preset, the defaults are those for {title}: {source}")
            }
        }
    }
}

/// The default settings for an environment, and for one algorithm if it is named. `environment` is an id, empty for an
/// environment without one.
pub fn preset(environment: &str, seen: Seen, algorithm: Option<&'static dyn Algorithm>) -> Preset {
    let algorithm = algorithm.unwrap_or_else(|| algorithms::usual(algorithms::online(), seen));
    let family = environment.split('-').next().unwrap_or_default();
    let fits = |file: &&File| file.environment == family && file.algorithm == algorithm.name();
    match FILES.iter().find(fits).and_then(File::preset) {
        Some(preset) => settling(environment, preset),
        None => general(algorithm.defaults(seen)),
    }
}

/// Every preset: those of environments, then those for all others.
pub fn all() -> Vec<Preset> {
    let images = Seen { images: Some([4, 84, 84]), continuous: false };
    let kinds = [Seen::default(), images, Seen { continuous: true, images: None }];
    let mut all = FILES.iter().filter_map(File::preset).collect::<Vec<_>>();
    for algorithm in algorithms::online() {
        for preset in kinds
            .into_iter()
            .filter(|kind| algorithm.accepts(*kind))
            .map(|kind| general(algorithm.defaults(kind)))
        {
            if all.iter().all(|known| known.title() != preset.title()) {
                all.push(preset);
            }
        }
    }
    all
}

/// A preset of an environment, as its file has it.
struct File {
    environment: &'static str,
    algorithm: &'static str,
    /// Whether absent settings are the algorithm's defaults for continuous actions.
    continuous: bool,
    decays: bool,
    source: &'static str,
    /// JSON.
    settings: &'static str,
}

impl File {
    /// `None` for settings that cannot be read; a test reads all of them.
    fn preset(&self) -> Option<Preset> {
        let seen = Seen { continuous: self.continuous, images: None };
        let Json::Object(settings) = oto_json::parse(self.settings).ok()? else { return None };
        let usual = general(algorithms::find(self.algorithm)?.defaults(seen));
        Some(Preset {
            environments: Environments::Named(self.environment),
            source: self.source,
            student: settings::over(&usual.student, settings).ok()?,
            stretches: false,
            decays: self.decays,
        })
    }
}

/// The preset for environments without settings of their own.
fn general(defaults: Defaults) -> Preset {
    let Defaults { algorithm, environments, source, stretches, .. } = defaults;
    let (every, episodes) = defaults.evaluation;
    let usual = StudentConfig::default().replay;
    let sampler = algorithm.sampler().unwrap_or(usual.sampler);
    let student = StudentConfig {
        algorithm,
        replay: ReplayConfig { sampler, ..usual },
        steps: defaults.steps,
        gamma: defaults.gamma,
        n_step: defaults.n_step,
        buffer: defaults.buffer,
        learning_starts: defaults.learning_starts,
        train_every: defaults.train_every,
        updates: defaults.updates,
        learning_rate: defaults.learning_rate,
        epsilon: defaults.epsilon,
        target_every: defaults.target_every,
        target_tau: defaults.target_tau,
        transfer: TransferConfig { eta: defaults.eta, learning_rate: None, ..TransferConfig::default() },
        evaluation: EvaluationConfig { every, episodes },
        ..StudentConfig::default()
    };
    Preset { environments: Environments::Others(environments), source, student, stretches, decays: false }
}

/// Where it is known what solved means, the student decays there, and leaves a teacher under whom it was not there within
/// 5,000 steps.
fn settling(environment: &str, preset: Preset) -> Preset {
    let Some(solved) = solved_return(environment).filter(|_| preset.decays) else { return preset };
    let give_up = Some(GiveUp { after_steps: 5_000, below_return: solved });
    let student = StudentConfig {
        plateau_decay: Some(PlateauDecay { at_return: solved, factor: 0.7, floor: 0.001, setbacks: 3 }),
        stages: StagesConfig {
            transfer: Some(Ending { give_up, ..Ending::default() }),
            ..StagesConfig::default()
        },
        ..preset.student
    };
    Preset { student, ..preset }
}

/// The properties of a built-in environment; an unknown one has discrete actions.
pub fn built_in(environment: &str) -> Seen {
    let images = oto_env::images(environment);
    oto_env::make(environment)
        .map_or(Seen::default(), |made| Seen { images, ..Seen::actions(made.action_space()) })
}

/// The default student for a built-in environment.
pub fn student(environment: &str) -> StudentConfig {
    preset(environment, built_in(environment), None).student
}

/// The default student for a built-in environment that learns by this algorithm.
pub fn learner(environment: &str, algorithm: &'static dyn Algorithm) -> StudentConfig {
    preset(environment, built_in(environment), Some(algorithm)).student
}

/// The default PPO student for an environment.
pub fn on_policy(environment: &str) -> StudentConfig {
    preset(environment, Seen::default(), Some(&ProximalPolicy)).student
}

/// The same with auxiliary critics, OTO's fusion policy; they learn between rollouts only, hence shorter ones.
pub fn fusion(environment: &str) -> StudentConfig {
    let mut student = on_policy(environment);
    if let Some(ppo) = student.algorithm.of_mut::<PpoConfig>() {
        (ppo.fusion, ppo.n_steps) = (true, ppo.n_steps.min(1024));
    }
    student
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_made_whole() {
        for (given, whole) in [
            ("127.0.0.1:8080", "ws://127.0.0.1:8080/v1/teach"),
            ("ws://127.0.0.1:8080", "ws://127.0.0.1:8080/v1/teach"),
            ("wss://teach.example/", "wss://teach.example/v1/teach"),
            ("wss://teach.example/a/b", "wss://teach.example/a/b"),
        ] {
            assert_eq!(teacher_url(given), whole);
        }
    }

    #[test]
    fn every_algorithm_has_a_valid_default() {
        for environment in ["CartPole-v1", "Pendulum-v1", "Unknown-v0"] {
            for algorithm in algorithms::online() {
                let config = learner(environment, algorithm);
                config.validate().unwrap();
                assert_eq!(config.algorithm.name(), algorithm.name());
            }
            fusion(environment).validate().unwrap();
        }
        for preset in all() {
            for steps in [1, 1_000, u64::MAX] {
                preset.clone().for_steps(steps).student.validate().unwrap();
            }
        }
    }

    #[test]
    fn an_environment_without_a_preset_has_no_other_environments_settings() {
        let cartpole = StudentConfig::default();
        for id in ["LunarLander-v3", "", "my_envs:CartPole-v1", "CartPole2-v0", "Taxi-v3"] {
            let found = preset(id, Seen::default(), None);
            assert!(matches!(found.environments, Environments::Others(_)), "{id}");
            assert_ne!(found.student.learning_rate, cartpole.learning_rate, "{id}");
            assert!(found.line(id).contains("has no preset") && found.line(id).contains(found.source));
        }
        let known = preset("CartPole-v1", Seen::default(), None);
        assert!(known.line("CartPole-v1").starts_with("CartPole-v1 has a preset (CartPole, qrdqn)"));
    }

    #[test]
    fn the_kind_of_actions_and_not_the_name_chooses_what_can_act_in_them() {
        let continuous = Seen { continuous: true, images: None };
        for id in ["LunarLander-v3", "CartPole-v1", "Pendulum-v1", ""] {
            assert_eq!(preset(id, continuous, None).student.algorithm.name(), "sac");
            assert_eq!(preset(id, Seen::default(), None).student.algorithm.name(), "qrdqn");
            let soft = preset(id, Seen::default(), algorithms::find("sac")).student;
            assert_eq!(soft.algorithm.batch_size(), 64, "{id}: discrete actions");
        }
    }

    #[test]
    fn exploration_is_a_share_of_the_run_where_the_environment_is_unknown() {
        let of = |id, seen, steps| preset(id, seen, None).for_steps(steps).student;
        let share = |student: StudentConfig| student.epsilon.steps as f64 / student.steps as f64;
        let usual = share(preset("", Seen::default(), None).student);
        for steps in [1_000, 200_000, 10_000_000] {
            assert!((share(of("", Seen::default(), steps)) - usual).abs() < 1e-3);
        }
        assert_eq!(of("CartPole-v1", Seen::default(), 200_000).epsilon, StudentConfig::default().epsilon);
        let continuous = Seen { continuous: true, images: None };
        assert_eq!(of("", continuous, 1_000_000).epsilon.steps, 100);
    }

    #[test]
    fn every_file_of_a_preset_is_read() {
        for file in FILES {
            let preset = file.preset().unwrap_or_else(|| panic!("{}, {}", file.environment, file.algorithm));
            assert_eq!(preset.title(), format!("{}, {}", file.environment, file.algorithm));
            preset.student.validate().unwrap();
        }
        assert!(FILES.len() >= 6);
    }

    #[test]
    fn only_known_pairs_have_an_adapter() {
        assert!(adapter("CartPole-v1", "sac_inverted_pendulum_v5").is_some());
        assert!(adapter("CartPole-v1", "ppo_cartpole_v1").is_none());
        assert!(adapter("Acrobot-v1", "sac_inverted_pendulum_v5").is_none());
    }
}
