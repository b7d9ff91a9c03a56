//! `oto eval`: plays a checkpoint's greedy policy.

use crate::learn::RunError;
use clap::Args;
use oto_student::checkpoint;
use oto_student::student::{Event, Student, World};
use oto_student::trainer::TrainError;
use std::path::PathBuf;

/// What to play.
#[derive(Args, Clone, Debug)]
pub struct EvalOptions {
    /// Checkpoint, or run folder that holds one
    pub checkpoint: PathBuf,
    /// Environment to play in
    #[arg(long, default_value = "CartPole-v1")]
    pub env: String,
    /// How many episodes
    #[arg(long, default_value_t = 100)]
    pub episodes: u32,
    /// Seed of the first episode's initial state
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// Plays and prints.
pub fn eval(options: &EvalOptions) -> Result<(), RunError> {
    let path = match options.checkpoint.is_dir() {
        true => options.checkpoint.join("checkpoint.safetensors"),
        false => options.checkpoint.clone(),
    };
    let unreadable = |e| TrainError::Checkpoint(format!("{}: {e}", path.display()));
    let file = std::fs::read(&path).map_err(unreadable)?;
    let mut config = checkpoint::config(&file)?;
    config.seed = options.seed;
    let world = World::built_in(&options.env)?;
    let mut student = Student::new(&config, world, &[], &oto_cpu::Cpu, 0)?;
    student.load_weights(&file)?;
    student.evaluate(options.episodes.max(1))?;
    while let Some(event) = student.next_event() {
        let Event::Evaluation { mean, min, max, episodes, .. } = event else { continue };
        match options.json {
            true => println!(
                "{}",
                serde_json::json!({ "env": options.env, "episodes": episodes, "mean": mean, "min": min, "max": max })
            ),
            false => println!(
                "{}: return {mean:.2} on average of {episodes} episodes ({min:.1} to {max:.1})",
                options.env
            ),
        }
    }
    Ok(())
}
