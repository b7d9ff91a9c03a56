//! Checkpoints: one safetensors file holds parameters, optimiser and (unless left out) replay, and in its metadata
//! everything that is not a tensor. Loading one goes on exactly where it was saved.

use crate::config::StudentConfig;
use crate::stage::Stages;
use crate::trainer::{TrainError, Trainer};
use oto_env::rng::Rng;
use oto_proto::json;
use oto_rl::qrdqn::NamedTensor;
use oto_rl::replay::ReplayCounters;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::HashMap;

/// What the file calls itself: the key of its only metadata entry, a [`Metadata`] as JSON. One entry, because safetensors
/// writes several in no order, and equal students make equal files.
const FORMAT: &str = "oto.checkpoint.v1";

/// All that a checkpoint holds beside tensors.
#[derive(Serialize, Deserialize)]
struct Metadata<E> {
    progress: Progress,
    extra: E,
}

/// What of a trainer is no tensor.
#[derive(Serialize, Deserialize)]
struct Progress {
    config: StudentConfig,
    stages: Stages,
    explore: Rng,
    draw: Rng,
    running: bool,
    action: u32,
    steps: u64,
    started: u64,
    settled: f64,
    updates: u64,
    episodes: u64,
    episode_return: f64,
    episode_length: u64,
    replay: Option<ReplayCounters>,
}

/// A trainer as a safetensors file; `extra` is the owner's own metadata, such as where its environment stands.
pub fn save<E: Serialize>(trainer: &Trainer, with_replay: bool, extra: &E) -> Result<Vec<u8>, TrainError> {
    let (counters, arrays) = trainer.replay.save();
    let progress = Progress {
        config: trainer.config.clone(),
        stages: trainer.stages,
        explore: trainer.explore.clone(),
        draw: trainer.draw.clone(),
        running: trainer.running,
        action: trainer.action,
        steps: trainer.steps,
        started: trainer.started,
        settled: trainer.settled,
        updates: trainer.learner.updates(),
        episodes: trainer.episodes,
        episode_return: trainer.episode_return,
        episode_length: trainer.episode_length,
        replay: with_replay.then_some(counters),
    };
    let mut tensors = trainer.learner.state()?;
    let flat =
        |name: &str, values: Vec<f32>| NamedTensor { name: name.into(), shape: vec![values.len()], values };
    tensors.push(flat("observation", trainer.observation.clone()));
    if with_replay {
        tensors.extend(arrays.into_iter().map(|(name, values)| flat(name, values)));
    }
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let raw = tensors.into_iter().map(|t| (t.name, t.shape, bytes(&t.values))).collect::<Vec<_>>();
    let view = |(name, shape, bytes)| {
        Ok((name, TensorView::new(Dtype::F32, Vec::clone(shape), bytes).map_err(broken)?))
    };
    let views =
        raw.iter().map(|(n, s, b)| view((n, s, b.as_slice()))).collect::<Result<Vec<_>, TrainError>>()?;
    let metadata = serde_json::to_string(&Metadata { progress, extra }).map_err(broken)?;
    safetensors::serialize(views, Some(HashMap::from([(FORMAT.to_string(), metadata)]))).map_err(broken)
}

/// Puts a saved state into a trainer made for the same configuration and spaces; nothing changes on an error. Gives
/// the owner's metadata. A file saved without replay leaves the buffer as it is.
pub fn load<E: DeserializeOwned>(trainer: &mut Trainer, file: &[u8]) -> Result<E, TrainError> {
    let (progress, extra) = read_metadata::<E>(file)?;
    let tensors = SafeTensors::deserialize(file).map_err(broken)?;
    let values = |name: &str| floats(&tensors, name);
    if progress.config.qrdqn != trainer.config.qrdqn {
        return Err(TrainError::Checkpoint(format!(
            "it holds a network of {}, this student has {}",
            describe(&progress.config),
            describe(&trainer.config)
        )));
    }
    let observation = values("observation").filter(|o| o.len() == trainer.observation.len());
    let observation =
        observation.ok_or_else(|| TrainError::Checkpoint("its observation is of another width".into()))?;
    let mut replay = trainer.replay.clone();
    if let Some(counters) = &progress.replay
        && !replay.restore(counters, values)
    {
        return Err(TrainError::Checkpoint("its replay buffer does not fit this configuration".into()));
    }
    trainer.learner.restore(progress.updates, values)?;
    trainer.replay = replay;
    trainer.observation = observation;
    (trainer.stages, trainer.explore, trainer.draw) = (progress.stages, progress.explore, progress.draw);
    (trainer.running, trainer.action, trainer.steps) = (progress.running, progress.action, progress.steps);
    (trainer.started, trainer.settled) = (progress.started.min(progress.steps), progress.settled);
    (trainer.episodes, trainer.episode_return) = (progress.episodes, progress.episode_return);
    trainer.episode_length = progress.episode_length;
    Ok(extra)
}

/// How many environment steps a checkpoint's run had taken.
pub fn steps(file: &[u8]) -> Result<u64, TrainError> {
    Ok(read_metadata::<serde::de::IgnoredAny>(file)?.0.steps)
}

/// Puts a saved network and its optimiser into a trainer of the same sizes; nothing else changes.
pub fn load_weights(trainer: &mut Trainer, file: &[u8]) -> Result<(), TrainError> {
    let (progress, _) = read_metadata::<serde::de::IgnoredAny>(file)?;
    let tensors = SafeTensors::deserialize(file).map_err(broken)?;
    Ok(trainer.learner.restore(progress.updates, |name| floats(&tensors, name))?)
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Option<Vec<f32>> {
    let view = tensors.tensor(name).ok().filter(|t| t.dtype() == Dtype::F32)?;
    Some(view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

/// The configuration a checkpoint was trained with.
pub fn config(file: &[u8]) -> Result<StudentConfig, TrainError> {
    Ok(read_metadata::<serde::de::IgnoredAny>(file)?.0.config)
}

fn read_metadata<E: DeserializeOwned>(file: &[u8]) -> Result<(Progress, E), TrainError> {
    let (_, header) = SafeTensors::read_metadata(file).map_err(broken)?;
    let entry = header.metadata().as_ref().and_then(|m| m.get(FORMAT));
    let entry = entry.ok_or_else(|| {
        TrainError::Checkpoint(format!("a safetensors file, but its metadata have no entry {FORMAT}"))
    })?;
    let Metadata { progress, extra } = json::read(entry).map_err(broken)?;
    Ok((progress, extra))
}

fn describe(config: &StudentConfig) -> String {
    format!(
        "hidden {:?}, {} quantiles, batch {}",
        config.qrdqn.hidden, config.qrdqn.quantiles, config.qrdqn.batch_size
    )
}

fn broken(e: impl std::fmt::Display) -> TrainError {
    TrainError::Checkpoint(e.to_string())
}
