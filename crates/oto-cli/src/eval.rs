//! `oto eval`: plays policies in the same episodes and compares what they return. In cell selection the rules of OTO's
//! section VI-B play along, and the best plan of each episode is the bound.

use clap::Args;
use oto_agent::evaluation::{Estimate, EvaluationError, difference, gap_closed, mean_return};
use oto_env::mobile_cell::Radio;
use oto_experiments::play::{PlayError, Played, bound, play_file, play_rules};
use oto_policy::load::{RUN_NEWEST, RUN_POLICY};
use oto_policy::load_file;
use serde::Serialize;
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
    /// A policy that cannot be played.
    #[error(transparent)]
    Play(#[from] PlayError),
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
        assert!(matches!(other, Err(PlayError::Actions(_))), "{other:?}");
        assert!(matches!(play_file(Path::new("none"), "CartPole-v1", 0..1), Err(PlayError::Read { .. })));
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
