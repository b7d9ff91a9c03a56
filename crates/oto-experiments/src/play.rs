//! Policies in the episodes of the same seeds: checkpoints, run folders, models and scripted policies; in cell selection also rules
//! and the best plan.

use oto_agent::evaluation::{EvaluationError, play, returns};
use oto_agent::trainer::{TrainError, Trainer};
use oto_agent::{checkpoint, environments};
use oto_env::mobile_cell::{Reception, Rule, best_plan};
use oto_env::rng::Rng;
use oto_env::{Action, EnvError, Space, make_classic};
use oto_json::file;
use oto_policy::load::RUN_POLICY;
use oto_policy::{Policy, PolicyError, load_file, scripted};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why a policy cannot be played, or returns cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// A file could not be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A checkpoint that cannot be played here.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A model that cannot be played.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A model for other actions.
    #[error("expected a policy with the environment's actions, got one with {0}")]
    Actions(oto_proto::Space),
    /// The environment refuses.
    #[error(transparent)]
    Environment(#[from] EnvError),
    /// Returns that cannot be compared.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
}

/// The returns of one policy, one for each seed.
pub struct Played {
    /// Its name.
    pub name: String,
    /// Returns.
    pub returns: Vec<f64>,
}

/// A policy for one environment.
pub enum Player {
    /// Out of a checkpoint: its greedy policy.
    Run(Box<Trainer>),
    /// Made elsewhere, or scripted; with its state, which is empty where the policy is not recurrent.
    Model(Box<dyn Policy>, Vec<f32>),
}

impl Player {
    /// A checkpoint, the one in a run folder, a model, or `scripted:NAME`.
    ///
    /// # Errors
    /// A file that holds none, and a policy for other spaces.
    pub fn load(path: &Path, env: &str) -> Result<Self, PlayError> {
        let own = environments::environment(env)?;
        if let Some(name) = path.to_str().filter(|name| name.starts_with(scripted::PREFIX)) {
            let [observation, action] = [own.observation_space(), own.action_space()].map(Clone::clone);
            return Ok(Self::Model(scripted(name, observation, action)?, Vec::new()));
        }
        // A run's policy is its checkpoint's, and the best one's where there is a choice.
        let path = match path.join(RUN_POLICY) {
            policy if policy.is_file() => policy,
            _ if path.is_dir() => path.join("checkpoint.safetensors"),
            _ => path.to_owned(),
        };
        let file = file::read(&path, checkpoint::MAX_BYTES)
            .map_err(|source| PlayError::Read { path: path.clone(), source })?;
        if !checkpoint::is_checkpoint(&file) {
            let policy = load_file(&path)?.policy;
            check_actions(&*policy, own.action_space())?;
            let state = vec![0.0; policy.state_width()];
            return Ok(Self::Model(policy, state));
        }
        let (observation, action) = (own.observation_space(), own.action_space());
        Ok(Self::Run(Box::new(checkpoint::player(&file, observation, action, &oto_cpu::Cpu)?)))
    }

    /// An episode begins: the observations of [`Self::act`] are its steps, one after the other.
    pub fn begin(&mut self) {
        match self {
            Self::Run(trainer) => trainer.begin_greedy(),
            Self::Model(_, state) => state.fill(0.0),
        }
    }

    /// Answers an observation with an action `[action width]` in the environment's units, an index as a number.
    ///
    /// # Errors
    /// A policy that fails.
    pub fn act(&mut self, observation: &[f32], row: &mut Vec<f32>) -> Result<(), PlayError> {
        row.clear();
        match self {
            Self::Run(trainer) => match trainer.greedy(observation)? {
                Action::Discrete(choice) => row.push(choice as f32),
                Action::Continuous(vector) => row.extend_from_slice(vector),
            },
            Self::Model(policy, state) => policy.act_from(observation, 1, state, row)?,
        }
        Ok(())
    }
}

/// The returns of a file's policy in the episodes of these seeds: a checkpoint, a run folder, a model, or `scripted:NAME`.
///
/// # Errors
/// A policy that cannot be played there.
pub fn play_file(path: &Path, env: &str, seeds: Range<u64>) -> Result<Vec<f64>, PlayError> {
    match Player::load(path, env)? {
        Player::Run(mut trainer) => Ok(trainer.play(&mut *environments::environment(env)?, seeds.map(Some))?),
        Player::Model(mut policy, _) => play_model(&mut *policy, env, seeds),
    }
}

/// Whether a policy answers with actions of this environment.
fn check_actions(policy: &dyn Policy, space: &Space) -> Result<(), PlayError> {
    let fits = match (space, policy.action_space()) {
        (Space::Discrete { n }, Space::Discrete { n: choices }) => choices == n,
        (space @ Space::Box { .. }, Space::Box { low, .. }) => low.len() == space.width(),
        _ => false,
    };
    if fits { Ok(()) } else { Err(PlayError::Actions(policy.action_space().clone())) }
}

/// A policy's returns in the episodes of these seeds.
///
/// # Errors
/// Other actions than the environment's, and a policy that fails.
pub fn play_model(policy: &mut dyn Policy, env: &str, seeds: Range<u64>) -> Result<Vec<f64>, PlayError> {
    let mut environment = environments::environment(env)?;
    check_actions(policy, environment.action_space())?;
    let (mut row, mut state) = (Vec::new(), vec![0.0; policy.state_width()]);
    let mut observation = vec![0.0; environment.observation_space().width()];
    let mut episode = |seed| {
        state.fill(0.0);
        play(&mut *environment, Some(seed), &mut observation, |environment, observation| {
            policy.act_from(observation, 1, &mut state, &mut row)?;
            let action = match environment.action_space() {
                Space::Discrete { .. } => Action::Discrete(row[0] as u32),
                Space::Box { .. } => Action::Continuous(&row),
            };
            Ok::<_, PlayError>(environment.step(action, observation)?)
        })
    };
    seeds.map(&mut episode).collect()
}

/// The returns of the rules of OTO's section VI-B in cell selection.
///
/// # Errors
/// An environment that is no cell selection.
pub fn play_rules(env: &str, seeds: Range<u64>) -> Result<Vec<Played>, PlayError> {
    let mut environment = make_classic(env)?;
    let played = |(name, rule): (&str, Rule)| {
        let mut rng = Rng::new(seeds.start);
        let returns = returns::<_, EnvError>(&mut *environment, seeds.clone(), |environment, observation| {
            let action = rule.action(&Reception::of(environment)?, &mut rng);
            environment.step(Action::Discrete(action), observation)
        });
        Ok(Played { name: name.into(), returns: returns? })
    };
    Rule::ALL.into_iter().map(played).collect()
}

/// The return of the best plan of each episode of cell selection.
///
/// # Errors
/// An environment that is no cell selection.
pub fn bound(env: &str, seeds: Range<u64>) -> Result<Played, PlayError> {
    let mut environment = make_classic(env)?;
    let mut observation = vec![0.0; environment.observation_space().width()];
    let plan = |seed| {
        environment.reset(Some(seed), &mut observation)?;
        Ok::<_, EnvError>(best_plan(&mut *environment)?.value)
    };
    let returns = seeds.map(plan).collect::<Result<_, _>>()?;
    Ok(Played { name: "best plan".into(), returns })
}
