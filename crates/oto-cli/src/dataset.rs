//! `oto dataset`: what is in a dataset, and datasets of what a policy plays.

use crate::dataset_make::{MakeError, MakeOptions, make};
use crate::submitted::{SealOptions, SubmittedOptions, seal, submitted};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use oto_agent::environments;
use oto_data::{
    Collect, DataError, Dataset, Metadata, Reference, Summary, check_target, collect, read_file, write_folder,
};
use oto_env::Action;
use oto_experiments::play::{PlayError, Player};
use oto_server::dataset::StoreError;
use serde_json::json;
use std::path::PathBuf;

/// What to do.
#[derive(Subcommand, Clone, Debug)]
pub enum DatasetCommand {
    /// Print the content of a dataset: a folder in Minari's layout, or an HDF5 file in Minari's or D4RL's
    Info(InfoOptions),
    /// Play a policy and record its episodes in Minari's layout
    Collect(CollectOptions),
    /// Train a policy and record a dataset of one of D4RL's levels in Minari's layout
    Make(MakeOptions),
    /// List the submissions to a server, and delete those of a student
    Submitted(SubmittedOptions),
    /// Write the accepted submissions as a dataset in Minari's layout
    Seal(SealOptions),
}

/// Which dataset.
#[derive(Args, Clone, Debug)]
pub struct InfoOptions {
    /// Folder or file
    pub path: PathBuf,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// What to play, how long, and where to keep it.
#[derive(Args, Clone, Debug)]
pub struct CollectOptions {
    /// Checkpoint, run folder, model (ONNX, safetensors, ...), or scripted:random
    #[arg(long)]
    pub policy: PathBuf,
    /// Environment of the episodes
    #[arg(long, default_value = "CartPole-v1")]
    pub env: String,
    /// Least number of steps; the last episode is finished
    #[arg(long, default_value_t = 10_000)]
    pub steps: usize,
    /// Seed of the first episode; the next episodes have consecutive seeds
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..1 << 31))]
    pub seed: u64,
    /// Standard deviation of Gaussian noise on continuous actions, in the environment's units
    #[arg(long, default_value_t = 0.0)]
    pub noise: f64,
    /// Probability of a random action
    #[arg(long, default_value_t = 0.0)]
    pub epsilon: f64,
    /// Output folder; Minari looks for it at MINARI_DATASETS_PATH/ID
    #[arg(long)]
    pub out: PathBuf,
    /// Name of the dataset, such as CartPole/expert-v0
    #[arg(long)]
    pub id: Option<String>,
}

/// Why there is no dataset to tell of.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// It cannot be read, written or recorded.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The policy cannot be played.
    #[error(transparent)]
    Policy(#[from] PlayError),
    /// A level could not be made.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// What was submitted cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such folder.
    #[error("{} is no folder of submissions", .0.display())]
    NoFolder(PathBuf),
}

/// Does it, and prints what came of it.
pub fn dataset(command: &DatasetCommand) -> Result<(), DatasetError> {
    match command {
        DatasetCommand::Info(options) => {
            let dataset = read_file(&options.path)?;
            if options.json { print_json(&dataset) } else { print(&dataset) }
        }
        DatasetCommand::Collect(options) => {
            check_target(&options.out, options.id.as_deref())?;
            let dataset = play(options)?;
            write_folder(&dataset, &options.out)?;
            print(&dataset);
        }
        DatasetCommand::Make(options) => {
            check_target(&options.out, options.id.as_deref())?;
            let dataset = make(options)?;
            write_folder(&dataset, &options.out)?;
            print(&dataset);
        }
        DatasetCommand::Submitted(options) => submitted(options)?,
        DatasetCommand::Seal(options) => seal(options)?,
    }
    Ok(())
}

fn play(options: &CollectOptions) -> Result<Dataset, DatasetError> {
    let CollectOptions { policy, env, steps, seed, noise, epsilon, .. } = options;
    let mut player = Player::load(policy, env)?;
    let (spec, start) = environments::specification(env, false).map_err(DataError::from)?;
    let mut environment = environments::environment(env).map_err(DataError::from)?;
    let name = policy.file_name().unwrap_or(policy.as_os_str()).to_string_lossy();
    let exploration = format!("noise {noise}, epsilon {epsilon}");
    let metadata = Metadata {
        id: options.id.clone(),
        environment: Some(env.clone()),
        algorithm: Some(name.clone().into()),
        description: Some(format!("{name} in {env}, {exploration}, first seed {seed}")),
        spec,
        starts: [0, start],
        ..Metadata::default()
    };
    let bar = ProgressBar::new(*steps as u64);
    let template = "{bar:24} {pos}/{len} steps  {per_sec}  {eta} left";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    let how = Collect { steps: *steps, seed: *seed, epsilon: *epsilon, noise: *noise };
    let dataset = collect(
        &mut *environment,
        &how,
        metadata,
        |begins, observation, row| {
            if begins {
                player.begin();
            }
            Ok::<_, DatasetError>(player.act(observation, row)?)
        },
        |done| bar.set_position(done as u64),
    );
    bar.finish_and_clear();
    dataset
}

fn print(dataset: &Dataset) {
    // A checked dataset has a transition.
    let Some(summary) = Summary::of(dataset) else { return };
    let Metadata { id, environment, algorithm, description, clipped, .. } = &dataset.metadata;
    for (name, text) in
        [("name", id), ("environment", environment), ("played by", algorithm), ("description", description)]
    {
        if let Some(text) = text {
            crate::out!("{name:>12}: {text}");
        }
    }
    let Summary { transitions, episodes, mean_return, std_return, min_return, max_return, .. } = summary;
    crate::out!("{:>12}: {transitions} in {episodes} episodes", "transitions");
    crate::out!("{:>12}: {mean_return:.2} +- {std_return:.2} ({min_return} to {max_return})", "return");
    let of_d4rl = environment.as_deref().and_then(Reference::of_d4rl);
    for (name, reference) in [("score", dataset.metadata.reference), ("D4RL's score", of_d4rl)] {
        if let Some(reference) = reference {
            let (score, Reference { random, expert }) = (100.0 * reference.score(mean_return), reference);
            crate::out!("{name:>12}: {score:.1} (0 is {random:.1}, 100 is {expert:.1})");
        }
    }
    crate::out!("{:>12}: {}", "observation", summary.observation);
    crate::out!("{:>12}: {}", "action", summary.action);
    if clipped.actions > 0 {
        crate::out!("{:>12}: {clipped}", "clipped");
    }
    let first = summary.first;
    // An image has thousands.
    let numbers = |row: &[f32]| match row.len() {
        0..=32 => format!("{row:?}"),
        many => format!("{many} numbers"),
    };
    let (seen, next) = (numbers(&first.observation), numbers(&first.next_observation));
    crate::out!("{:>12}: {seen}, {:?} gives {} and {next}", "first", first.action, first.reward);
}

fn print_json(dataset: &Dataset) {
    let Some(summary) = Summary::of(dataset) else { return };
    let action = match summary.first.action {
        Action::Discrete(choice) => json!(choice),
        Action::Continuous(vector) => json!(vector),
    };
    let Metadata { id, environment, algorithm, description, clipped, .. } = &dataset.metadata;
    let object = json!({
        "id": id,
        "environment": environment,
        "algorithm": algorithm,
        "description": description,
        "transitions": summary.transitions,
        "episodes": summary.episodes,
        "mean_return": summary.mean_return,
        "std_return": summary.std_return,
        "score": dataset.metadata.reference.map(|reference| 100.0 * reference.score(summary.mean_return)),
        "min_return": summary.min_return,
        "max_return": summary.max_return,
        "observation_space": dataset.observation,
        "action_space": dataset.action,
        "clipped_actions": clipped.actions,
        "first_transition": {
            "observation": summary.first.observation,
            "action": action,
            "reward": summary.first.reward,
            "next_observation": summary.first.next_observation,
            "terminated": summary.first.terminated,
            "truncated": summary.first.truncated,
        },
    });
    crate::out!("{object}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn options(policy: &str, env: &str, name: &str) -> CollectOptions {
        let out = std::env::temp_dir().join(format!("oto-dataset-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&out);
        CollectOptions {
            policy: policy.into(),
            env: env.into(),
            steps: 700,
            seed: 3,
            noise: 0.0,
            epsilon: 0.0,
            out,
            id: Some(format!("oto/{name}-v0")),
        }
    }

    #[test]
    fn what_a_policy_plays_is_written_and_read() {
        let teachers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../server/teachers");
        let expert = teachers.join("ppo_cartpole_v1.onnx");
        let expert = options(expert.to_str().unwrap(), "CartPole-v1", "expert");
        let random = options("scripted:random", "Pendulum-v1", "random");
        for options in [&expert, &random] {
            dataset(&DatasetCommand::Collect(options.clone())).unwrap();
            let json = true;
            dataset(&DatasetCommand::Info(InfoOptions { path: options.out.clone(), json })).unwrap();
        }
        let [played, drawn] = [&expert, &random].map(|options| {
            let dataset = read_file(&options.out).unwrap();
            std::fs::remove_dir_all(&options.out).unwrap();
            let environment = oto_env::make(&options.env).unwrap();
            dataset.fits(environment.observation_space(), environment.action_space()).unwrap();
            dataset
        });
        assert_eq!(played.returns(), [500.0, 500.0]);
        assert_eq!(played.episodes[1].seed, Some(4));
        assert_eq!((drawn.len(), drawn.episodes.len()), (800, 4));
        assert_eq!(drawn.metadata.algorithm.as_deref(), Some("scripted:random"));
    }

    #[test]
    fn what_cannot_be_played_or_read_is_refused() {
        let refused = |options: CollectOptions| play(&options).unwrap_err();
        let base = options("scripted:random", "CartPole-v1", "refused");
        assert!(matches!(
            refused(CollectOptions { noise: 0.1, ..base.clone() }),
            DatasetError::Data(DataError::Exploration(_))
        ));
        assert!(matches!(
            refused(CollectOptions { env: "Go".into(), ..base.clone() }),
            DatasetError::Policy(_)
        ));
        assert!(matches!(
            refused(CollectOptions { policy: "none".into(), ..base }),
            DatasetError::Policy(PlayError::Read { .. })
        ));
        let info = dataset(&DatasetCommand::Info(InfoOptions { path: "none".into(), json: false }));
        assert!(matches!(info, Err(DatasetError::Data(DataError::File { .. }))));
    }
}
