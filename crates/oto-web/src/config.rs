//! The configuration a page's student is created from, and the environment of a student or an actor.

use crate::error::CoreError;
use crate::share::{FIELDS, ShareConfig};
use oto_agent::config::StudentConfig;
use oto_agent::origin::Origin;
use oto_agent::presets::{self, Seen};
use oto_agent::settings;
use oto_agent::stage::StagesConfig;
use oto_agent::student::{Environments, TeacherConfig};
use oto_agent::trainer::TrainError;
use oto_env::{Space, SpaceError, SpaceTree};
use oto_json::{At, Failure, FromJson, Json, JsonError};

/// Everything a student is made of.
#[derive(Debug)]
pub struct CoreConfig {
    /// The run.
    pub student: StudentConfig,
    /// Where the student acts.
    pub env: EnvConfig,
    /// Who teaches it.
    pub teachers: Vec<TeacherConfig>,
    /// The shared agent that it works for.
    pub share: Option<ShareConfig>,
    /// Settings that were given and change nothing.
    pub unused: Vec<&'static str>,
}

/// The same as `web/student/src/options.ts` gives it.
struct Given {
    student: Vec<(String, Json)>,
    env: EnvConfig,
    teachers: Vec<TeacherConfig>,
    share: Option<ShareConfig>,
}

/// A built-in environment, or the spaces of one that lives on the page.
#[derive(Debug)]
pub enum EnvConfig {
    /// By its id, as in `CartPole-v1`.
    BuiltIn(String),
    /// The page's own.
    Page {
        /// What it shows.
        observation: SpaceTree,
        /// What it takes.
        action: SpaceTree,
        /// Whether the page makes a second one for evaluations.
        evaluates: bool,
    },
}

impl FromJson for Given {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        let fields = at.fields()?;
        fields.only(FIELDS)?;
        let student = match fields.get("student")? {
            Json::Object(settings) => settings,
            _ => return Err(at.wrong(&"expected `student` to be an object")),
        };
        let share = ShareConfig::read(&fields)?;
        Ok(Self { student, env: fields.get("env")?, teachers: fields.get("teachers")?, share })
    }
}

impl FromJson for EnvConfig {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        match at.value {
            Json::Text(id) => Ok(Self::BuiltIn(id.clone())),
            _ => {
                let fields = at.fields()?;
                let evaluates = fields.get_or("evaluates", false)?;
                let (observation, action) = (fields.get("observation")?, fields.get("action")?);
                Ok(Self::Page { observation, action, evaluates })
            }
        }
    }
}

impl CoreConfig {
    /// Reads what the page gives and names the place of a value that does not fit. A setting that is left out is the run's that the
    /// student begins with, or else that of the preset of environment and algorithm; without teachers the student learns alone, and a
    /// known pair of environments has its adapter.
    pub fn read(given: &Json, origin: Option<&Origin>) -> Result<Self, CoreError> {
        let Given { mut student, env, mut teachers, share } = oto_json::from_tree(given).map_err(unread)?;
        let id = if let EnvConfig::BuiltIn(id) = &env { id } else { "" };
        let seen = match &env {
            EnvConfig::Page { action, .. } => {
                Seen { continuous: matches!(action, SpaceTree::Box { .. }), images: None }
            }
            EnvConfig::BuiltIn(id) => presets::built_in(id),
        };
        if let Some(share) = &share {
            share.prepare(&mut student, [!teachers.is_empty(), origin.is_some()])?;
        }
        let stages = student.iter().any(|(key, _)| key == "stages");
        let mut student = settings::student(id, seen, student, origin).map_err(unread)?;
        student.validate().map_err(TrainError::from)?;
        let unused = settings::unused(id, seen, &student, origin, !teachers.is_empty());
        if teachers.is_empty() && !stages {
            student.stages = StagesConfig::SOLO;
        }
        for teacher in &mut teachers {
            teacher.adapter = teacher.adapter.take().or_else(|| presets::adapter(id, &teacher.policy));
        }
        Ok(Self { student, env, teachers, share, unused })
    }

    /// The environment that `env` describes.
    pub fn environment(&self) -> Result<Environments, CoreError> {
        match &self.env {
            EnvConfig::BuiltIn(id) => Environments::built_in(id).map_err(not_made),
            EnvConfig::Page { evaluates, .. } => {
                let (observation, action) = self.env.spaces()?;
                Ok(Environments::Outside { observation, action, evaluates: *evaluates })
            }
        }
    }
}

impl EnvConfig {
    /// Its observations in one row, and its actions as one choice or one vector.
    pub fn spaces(&self) -> Result<(Space, Space), CoreError> {
        match self {
            EnvConfig::BuiltIn(id) => {
                let env = oto_env::make_classic(id).map_err(not_made)?;
                Ok((env.observation_space().clone(), env.action_space().clone()))
            }
            EnvConfig::Page { observation, action, .. } => {
                let refused =
                    |which: &str, e: SpaceError| CoreError::config(which, format!("cannot be used: {e}"));
                observation.validate().map_err(|e| refused("env.observation_space", e))?;
                let action = action.action().map_err(|e| refused("env.action_space", e))?;
                Ok((observation.flat(), action))
            }
        }
    }
}

fn not_made(error: impl std::fmt::Display) -> CoreError {
    CoreError::config("env", format!("cannot be made: {error}"))
}

/// The error of what cannot be read; the page has the settings of `student` and `actor` beside `env`.
pub fn unread(error: JsonError) -> CoreError {
    let path = &error.path;
    let field = path.strip_prefix("student.").or(path.strip_prefix("actor.")).unwrap_or(path);
    CoreError::config(field, format!("cannot be read: {}", error.message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oto_rl::algorithms::qrdqn::QrDqnConfig;
    use oto_rl::algorithms::sac::{SacConfig, SoftActorCritic};

    fn read(json: &str) -> Result<CoreConfig, CoreError> {
        CoreConfig::read(&oto_json::parse(json).unwrap(), None)
    }

    fn fails(json: &str) -> (String, String) {
        let CoreError { field, message, .. } = read(json).unwrap_err();
        (field.unwrap(), message)
    }

    #[test]
    fn what_is_left_out_is_as_the_preset_says() {
        let given = |env: &str, teachers: &str| {
            let json = format!(r#"{{"student":{{"seed":7}},"env":"{env}","teachers":[{teachers}]}}"#);
            read(&json).unwrap()
        };
        let teacher = r#"{"url":"ws://127.0.0.1:1","policy":"sac_inverted_pendulum_v5"}"#;
        let taught = given("CartPole-v1", teacher);
        assert_eq!(taught.student, StudentConfig { seed: 7, ..presets::student("CartPole-v1") });
        assert!(taught.teachers[0].adapter.is_some());
        assert!(matches!(taught.environment().unwrap(), Environments::Inside { .. }));
        let rollouts = r#"{"student":{"algorithm":"ppo"},"env":"Pendulum-v1","teachers":[]}"#;
        assert_eq!(read(rollouts).unwrap().student.gamma, 0.9);
        assert!(given("Acrobot-v1", teacher).teachers[0].adapter.is_none());
        assert_eq!(given("CartPole-v1", "").student.stages, StagesConfig::SOLO);
    }

    #[test]
    fn what_is_given_replaces_the_preset() {
        let json = r#"{"student":{"stages":{"transfer":{"steps":9}},"plateau_decay":null,"algorithm":{"quantiles":3}},
            "env":"CartPole-v1","teachers":[]}"#;
        let student = read(json).unwrap().student;
        assert_eq!(student.stages.transfer.unwrap().steps, Some(9));
        assert!(student.stages.transfer.unwrap().give_up.is_none() && student.plateau_decay.is_none());
        assert_eq!(student.algorithm.of::<QrDqnConfig>().unwrap().quantiles, 3);
    }

    #[test]
    fn what_is_left_out_of_a_group_is_as_the_preset_says() {
        let student = |env: &str, student: &str| {
            read(&format!(r#"{{"student":{student},"env":"{env}","teachers":[]}}"#)).unwrap().student
        };
        let cell = StudentConfig { stages: StagesConfig::SOLO, ..presets::student("MobileCell-5G-v0") };
        assert_eq!(student("MobileCell-5G-v0", r#"{"transfer":{},"algorithm":{}}"#), cell);
        let given = student(
            "MobileCell-5G-v0",
            r#"{"transfer":{"eta":3},"algorithm":{"quantiles":3},"evaluation":{"every":7}}"#,
        );
        assert_eq!((given.transfer.eta, given.transfer.alpha_aikd), (3.0, cell.transfer.alpha_aikd));
        let algorithm = cell.algorithm.with(|q: &mut QrDqnConfig| q.quantiles = 3);
        assert_eq!(given.algorithm, algorithm);
        assert_eq!((given.evaluation.every, given.evaluation.episodes), (7, cell.evaluation.episodes));
        let soft = student("CartPole-v1", r#"{"algorithm":{"name":"sac","adam":{"beta1":0.5}}}"#);
        let usual = presets::learner("CartPole-v1", &SoftActorCritic);
        let algorithm = usual.algorithm.with(|sac: &mut SacConfig| sac.adam.beta1 = 0.5);
        assert!(soft.algorithm == algorithm && soft.transfer == usual.transfer);
    }

    #[test]
    fn settings_that_change_nothing_are_known() {
        let unused = |student: &str, teachers: &str| {
            let json = format!(r#"{{"student":{student},"env":"CartPole-v1","teachers":[{teachers}]}}"#);
            read(&json).unwrap().unused
        };
        let teacher = r#"{"url":"ws://127.0.0.1:1","policy":"p"}"#;
        assert_eq!(unused(r#"{"algorithm":"ppo","epsilon":0.3}"#, teacher), ["epsilon"]);
        assert_eq!(unused(r#"{"request_batch":16}"#, ""), ["request_batch"]);
        assert_eq!(unused(r#"{"request_batch":16}"#, teacher), [""; 0]);
        assert_eq!(unused("{}", ""), [""; 0]);
    }

    #[test]
    fn a_value_that_does_not_fit_is_named() {
        let (field, message) = fails(r#"{"student":{"gamma":"high"},"env":"CartPole-v1","teachers":[]}"#);
        assert_eq!(field, "gamma");
        assert!(message.contains("expected a number, got \"high\""), "{message}");
        let field = |settings: &str| {
            fails(&format!(r#"{{"student":{{{settings}}},"env":"CartPole-v1","teachers":[]}}"#)).0
        };
        assert_eq!(field(r#""algorithm":{"hidden":[64,-1]}"#), "algorithm.hidden[1]");
        assert_eq!(field(r#""algorithm":{"name":"sac","quantiles":3}"#), "algorithm.quantiles");
        let (old, message) =
            fails(r#"{"student":{"qrdqn":{"hidden":[64]}},"env":"CartPole-v1","teachers":[]}"#);
        assert!(old == "qrdqn" && message.contains("format 1"), "{message}");
    }

    #[test]
    fn an_unknown_environment_is_refused_with_the_known_ones() {
        let config = read(r#"{"student":{},"env":"Cartpole","teachers":[]}"#).unwrap();
        let error = config.environment().err().unwrap();
        assert_eq!(error.field.as_deref(), Some("env"));
        assert!(
            error.message.contains("Cartpole") && error.message.contains("CartPole-v1"),
            "{}",
            error.message
        );
    }

    #[test]
    fn a_page_describes_its_environment_by_its_spaces() {
        let json = r#"{"student":{},"env":{"observation":{"kind":"box","low":[-1,null],"high":[1,null]},
            "action":{"kind":"multi_discrete","nvec":[3,2]}},"teachers":[]}"#;
        let Environments::Outside { observation, action, .. } = read(json).unwrap().environment().unwrap()
        else {
            panic!("expected an environment outside");
        };
        assert_eq!((observation.width(), action), (2, Space::Discrete { n: 6 }));
    }

    #[test]
    fn the_parts_of_an_observation_make_one_row_and_what_cannot_be_used_is_named() {
        let environment = |observation: &str, action: &str| {
            let json = format!(
                r#"{{"student":{{}},"env":{{"observation":{observation},"action":{action}}},"teachers":[]}}"#
            );
            read(&json).unwrap().environment()
        };
        let parts = r#"{"kind":"dict","spaces":[["a",{"kind":"discrete","n":3}],["b",{"kind":"multi_binary","n":2}]]}"#;
        let choice = r#"{"kind":"discrete","n":2}"#;
        let Environments::Outside { observation, .. } = environment(parts, choice).unwrap() else {
            panic!("expected an environment outside");
        };
        assert_eq!(observation, Space::uniform(5, 0.0, 1.0));
        let many = environment(parts, r#"{"kind":"multi_binary","n":9}"#).err().unwrap();
        assert_eq!(many.field.as_deref(), Some("env.action_space"));
        let nothing = environment(r#"{"kind":"tuple","spaces":[]}"#, choice).err().unwrap();
        assert_eq!(nothing.field.as_deref(), Some("env.observation_space"));
    }
}
