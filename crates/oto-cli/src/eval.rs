//! `oto eval`: plays policies in the same episodes and compares what they return. In cell selection the rules of OTO's
//! section VI-B play along, and the best plan of each episode is the bound.

use crate::run_folder::MAX_CHECKPOINT_BYTES;
use crate::world::environment;
use clap::Args;
use oto_agent::checkpoint;
use oto_agent::evaluation::{Estimate, EvaluationError, difference, gap_closed, mean_return, returns};
use oto_agent::trainer::{TrainError, Trainer};
use oto_env::mobile_cell::{Radio, Reception, Rule, best_plan};
use oto_env::rng::Rng;
use oto_env::{Action, EnvError, Space, make_classic};
use oto_json::file;
use oto_policy::load::{RUN_NEWEST, RUN_POLICY};
use oto_policy::{Policy, PolicyError, load_file, scripted};
use serde::Serialize;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What the gap to the bound is measured from: cell selection as it is done.
const BASELINE: &str = "LTE";

/// What to play.
#[derive(Args, Clone, Debug)]
pub struct EvalOptions {
    /// Checkpoints, run folders, models (ONNX, safetensors, ...), scripted:random; the first one is the baseline of the comparison
    pub policies: Vec<PathBuf>,
    /// Play the newest policies of run folders instead of the best ones
    #[arg(long)]
    pub newest: bool,
    /// Environment of the episodes; gym:ID for a Gymnasium environment
    #[arg(long, default_value = "CartPole-v1")]
    pub env: String,
    /// Number of episodes
    #[arg(long, default_value_t = 100)]
    pub episodes: u32,
    /// Seed of the first episode; the next episodes have consecutive seeds
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..1 << 31))]
    pub seed: u64,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// Why nothing could be played or compared.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A file could not be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
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
    /// There is nothing to play.
    #[error("expected a checkpoint, a run folder or a model to play in {0}")]
    Nothing(String),
}

/// The policy of a run folder, and what is said of it on standard error; any other path as it is.
fn of_run(path: &Path, newest: bool) -> PathBuf {
    let [best, last] = [RUN_POLICY, RUN_NEWEST].map(|name| path.join(name));
    let chosen = match newest {
        true if last.is_file() => last,
        _ if best.is_file() => best,
        _ => return path.to_owned(),
    };
    let other = if newest { "without --newest it is the best" } else { "--newest plays the newest" };
    let description = load_file(&chosen).ok().and_then(|loaded| loaded.metadata.description);
    crate::note!("{}: {} ({other})", chosen.display(), description.unwrap_or_default());
    chosen
}

/// The returns of one policy, one for each seed.
pub(crate) struct Played {
    pub name: String,
    pub returns: Vec<f64>,
}

/// What is told about one policy.
#[derive(Serialize)]
struct Row {
    name: String,
    mean: Interval,
    min: f64,
    max: f64,
    /// How much more it returns than the first policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<Interval>,
    /// The share of the gap between the baseline and the bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap_closed: Option<Interval>,
}

/// An estimate, and where it lies with a confidence of 95%.
#[derive(Serialize)]
struct Interval {
    value: f64,
    low: f64,
    high: f64,
}

impl From<Estimate> for Interval {
    fn from(Estimate { value, low, high }: Estimate) -> Self {
        Self { value, low, high }
    }
}

impl std::fmt::Display for Interval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} [{:.2}, {:.2}]", self.value, self.low, self.high)
    }
}

/// Plays and prints.
pub fn eval(options: &EvalOptions) -> Result<(), EvalError> {
    let env = &options.env;
    let seeds = options.seed..options.seed.saturating_add(u64::from(options.episodes.max(1)));
    let mut played = Vec::new();
    for path in &options.policies {
        let returns = play_file(&of_run(path, options.newest), env, seeds.clone())?;
        played.push(Played { name: path.display().to_string(), returns });
    }
    let bound = match Radio::of(env) {
        Ok(_) => {
            played.extend(play_rules(env, seeds.clone())?);
            Some(bound(env, seeds)?)
        }
        Err(_) => None,
    };
    let rows = compare(&played, bound.as_ref())?;
    if rows.is_empty() {
        return Err(EvalError::Nothing(env.clone()));
    }
    if options.json {
        crate::out!(
            "{}",
            serde_json::json!({ "env": env, "episodes": played[0].returns.len(), "policies": rows })
        );
    } else {
        print(env, &rows);
    }
    Ok(())
}

fn print(env: &str, rows: &[Row]) {
    crate::out!("{env}: mean return with its 95% confidence interval, smallest and largest");
    for Row { name, mean, min, max, difference, gap_closed } in rows {
        let difference = difference.as_ref().map_or(String::new(), |d| format!(", {d} more than the first"));
        let gap = gap_closed.as_ref().map_or(String::new(), |g| format!(", {g} of the gap to the bound"));
        crate::out!("{name:>24}: {mean} ({min:.1} to {max:.1}){difference}{gap}");
    }
}

fn compare(played: &[Played], bound: Option<&Played>) -> Result<Vec<Row>, EvaluationError> {
    let baseline = played.iter().find(|played| played.name == BASELINE);
    let row = |(index, Played { name, returns }): (usize, &Played)| {
        let gap = match (baseline, bound) {
            (Some(baseline), Some(bound)) => gap_closed(returns, &baseline.returns, &bound.returns, 0),
            _ => Err(EvaluationError::Empty),
        };
        let other = (index > 0).then(|| difference(returns, &played[0].returns, 0)).transpose()?;
        Ok(Row {
            name: name.clone(),
            mean: mean_return(returns, 0)?.into(),
            min: returns.iter().copied().fold(f64::INFINITY, f64::min),
            max: returns.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            difference: other.map(Into::into),
            // Where there is no gap, as in an episode or two there may be none, there is no share of it.
            gap_closed: gap.ok().map(Into::into),
        })
    };
    played.iter().chain(bound).enumerate().map(row).collect()
}

/// A policy for one environment.
pub(crate) enum Player {
    /// Out of a checkpoint: its greedy policy.
    Run(Box<Trainer>),
    /// Made elsewhere, or scripted.
    Model(Box<dyn Policy>),
}

impl Player {
    /// A checkpoint, the one in a run folder, a model, or `scripted:NAME`.
    pub fn load(path: &Path, env: &str) -> Result<Self, EvalError> {
        let own = environment(env)?;
        if let Some(name) = path.to_str().filter(|name| name.starts_with(scripted::PREFIX)) {
            let [observation, action] = [own.observation_space(), own.action_space()].map(Clone::clone);
            return Ok(Self::Model(scripted(name, observation, action)?));
        }
        // A run's policy is its checkpoint's, and the best one's where there is a choice.
        let path = match path.join(RUN_POLICY) {
            policy if policy.is_file() => policy,
            _ if path.is_dir() => path.join("checkpoint.safetensors"),
            _ => path.to_owned(),
        };
        let file = file::read(&path, MAX_CHECKPOINT_BYTES)
            .map_err(|source| EvalError::Read { path: path.clone(), source })?;
        if !checkpoint::is_checkpoint(&file) {
            let policy = load_file(&path)?.policy;
            check_actions(&*policy, own.action_space())?;
            return Ok(Self::Model(policy));
        }
        let (observation, action) = (own.observation_space(), own.action_space());
        Ok(Self::Run(Box::new(checkpoint::player(&file, observation, action, &oto_cpu::Cpu)?)))
    }

    /// Answers an observation with an action `[action width]` in the environment's units, an index as a number.
    pub fn act(&mut self, observation: &[f32], row: &mut Vec<f32>) -> Result<(), EvalError> {
        row.clear();
        match self {
            Self::Run(trainer) => match trainer.greedy(observation)? {
                Action::Discrete(choice) => row.push(choice as f32),
                Action::Continuous(vector) => row.extend_from_slice(vector),
            },
            Self::Model(policy) => policy.act(observation, 1, row)?,
        }
        Ok(())
    }
}

fn play_file(path: &Path, env: &str, seeds: Range<u64>) -> Result<Vec<f64>, EvalError> {
    match Player::load(path, env)? {
        Player::Run(mut trainer) => Ok(trainer.play(&mut *environment(env)?, seeds.map(Some))?),
        Player::Model(mut policy) => play_model(&mut *policy, env, seeds),
    }
}

/// Whether a policy answers with actions of this environment.
fn check_actions(policy: &dyn Policy, space: &Space) -> Result<(), EvalError> {
    let fits = match (space, policy.action_space()) {
        (Space::Discrete { n }, Space::Discrete { n: choices }) => choices == n,
        (space @ Space::Box { .. }, Space::Box { low, .. }) => low.len() == space.width(),
        _ => false,
    };
    if fits { Ok(()) } else { Err(EvalError::Actions(policy.action_space().clone())) }
}

pub(crate) fn play_model(
    policy: &mut dyn Policy,
    env: &str,
    seeds: Range<u64>,
) -> Result<Vec<f64>, EvalError> {
    let mut world = environment(env)?;
    check_actions(policy, world.action_space())?;
    let mut row = Vec::new();
    returns(&mut *world, seeds, |world, observation| {
        policy.act(observation, 1, &mut row)?;
        let action = match world.action_space() {
            Space::Discrete { .. } => Action::Discrete(row[0] as u32),
            Space::Box { .. } => Action::Continuous(&row),
        };
        Ok(world.step(action, observation)?)
    })
}

pub(crate) fn play_rules(env: &str, seeds: Range<u64>) -> Result<Vec<Played>, EvalError> {
    let mut world = make_classic(env)?;
    let play = |(name, rule): (&str, Rule)| {
        let mut rng = Rng::new(seeds.start);
        let returns = returns::<_, EnvError>(&mut *world, seeds.clone(), |world, observation| {
            let action = rule.action(&Reception::of(world)?, &mut rng);
            world.step(Action::Discrete(action), observation)
        });
        Ok(Played { name: name.into(), returns: returns? })
    };
    Rule::ALL.into_iter().map(play).collect()
}

pub(crate) fn bound(env: &str, seeds: Range<u64>) -> Result<Played, EvalError> {
    let mut world = make_classic(env)?;
    let mut observation = vec![0.0; world.observation_space().width()];
    let plan = |seed| {
        world.reset(Some(seed), &mut observation)?;
        Ok::<_, EnvError>(best_plan(&mut *world)?.value)
    };
    let returns = seeds.map(plan).collect::<Result<_, _>>()?;
    Ok(Played { name: "best plan".into(), returns })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEACHERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../server/teachers");

    #[test]
    fn models_play_in_their_environments_and_not_in_others() {
        let path = |name| Path::new(TEACHERS).join(name);
        assert_eq!(play_file(&path("ppo_cartpole_v1.onnx"), "CartPole-v1", 5..8).unwrap(), [500.0; 3]);
        assert_eq!(
            play_file(&path("sac_inverted_pendulum_v5.json"), "InvertedPendulum-v5", 0..1).unwrap(),
            [1000.0]
        );
        let other = play_file(&path("sac_inverted_pendulum_v5.onnx"), "CartPole-v1", 0..1);
        assert!(matches!(other, Err(EvalError::Actions(_))), "{other:?}");
        assert!(matches!(play_file(Path::new("none"), "CartPole-v1", 0..1), Err(EvalError::Read { .. })));
    }

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        learn: crate::learn_command::LearnCommand,
    }

    /// What `oto learn` leaves behind is a teacher: its policy plays as its checkpoint does, and a server can host it.
    #[test]
    fn a_student_becomes_a_teacher() {
        let place = std::env::temp_dir().join(format!("oto-eval-{}-student", std::process::id()));
        for (env, steps) in [("CartPole-v1", "400"), ("InvertedPendulum-v5", "150")] {
            let out = place.join(env);
            let args = ["oto", "--quiet", "--env", env, "--steps", steps, "--eval-every", "0", "--out"];
            let args = args.iter().map(|a| a.to_string()).chain([out.display().to_string()]);
            crate::learn_command::learn(&<Cli as clap::Parser>::parse_from(args).learn).unwrap();
            let checkpoint = play_file(&out.join("checkpoint.safetensors"), env, 0..5).unwrap();
            assert_eq!(play_file(&out, env, 0..5).unwrap(), checkpoint);
        }
        let loaded = oto_policy::load_folder(&place).unwrap();
        assert_eq!(
            loaded.iter().map(|l| &l.name[..]).collect::<Vec<_>>(),
            ["CartPole-v1", "InvertedPendulum-v5"]
        );
        drop(oto_server::Policies::new(loaded).unwrap());
        std::fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn rules_are_compared_with_the_best_plan() {
        let env = "MobileCell-5G-v0";
        let (rules, bound) = (play_rules(env, 0..20).unwrap(), bound(env, 0..20).unwrap());
        let rows = compare(&rules, Some(&bound)).unwrap();
        let share =
            |name: &str| rows.iter().find(|row| row.name == name).unwrap().gap_closed.as_ref().unwrap().value;
        assert_eq!((rows.len(), share("LTE"), share("best plan")), (7, 0.0, 1.0));
        assert!(share("Fixed") < 0.0 && share("Full") > 0.9);
        assert!(rows[0].difference.is_none() && rows[1].difference.as_ref().unwrap().value > 0.0);
    }
}
