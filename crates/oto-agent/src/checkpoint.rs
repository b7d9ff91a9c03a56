//! Checkpoints: one safetensors file holds parameters, optimiser and (unless left out) replay, and in its metadata
//! everything that is not a tensor. Loading one goes on exactly where it was saved.

use crate::config::StudentConfig;
use crate::safetensors::{self, File};
use crate::stage::Stages;
use crate::trainer::{TrainError, Trainer};
use oto_env::rng::Rng;
use oto_json::{FromJson, Json, ToJson, Writer, shown, shown_list};
use oto_rl::engine::{LearnError, NamedTensor};
use oto_rl::replay::{Replay, ReplayCounters, Sampler};
use oto_rl::rollout::Rollout;

/// What the file calls itself: the key of its only metadata entry, a [`Metadata`] as JSON. One entry, because safetensors
/// writes several in no order, and equal students make equal files.
const FORMAT: &str = "oto.checkpoint.v3";
/// The formats before it, which are refused: their configurations have another form.
const BEFORE: [&str; 2] = ["oto.checkpoint.v2", "oto.checkpoint.v1"];

/// All that a checkpoint holds beside tensors.
struct Metadata {
    progress: Progress,
    extra: Json,
}

oto_json::json_object! { Metadata: open { progress, extra } }

/// What of a trainer is no tensor.
struct Progress {
    config: StudentConfig,
    stages: Stages,
    explore: Rng,
    draw: Rng,
    running: bool,
    action: Vec<f32>,
    steps: u64,
    started: u64,
    decayed: f64,
    setbacks: u32,
    updates: u64,
    episodes: u64,
    episode_return: f64,
    episode_length: u64,
    replay: Option<ReplayCounters>,
}

oto_json::json_object! {
    Progress: open {
        config, stages, explore, draw, running, action, steps, started, decayed, setbacks, updates, episodes,
        episode_return, episode_length, replay
    }
}

/// A trainer as a safetensors file; `extra` is the owner's own metadata, such as where its environment stands.
///
/// # Errors
/// Parameters that are not finite: no file could be loaded that has them. No memory for a copy of the replay buffer.
pub fn save<E: ToJson>(trainer: &Trainer, with_replay: bool, extra: &E) -> Result<Vec<u8>, TrainError> {
    let mut tensors = trainer.learner.engine().state()?;
    if let Some(bad) = tensors.iter().find(|t| t.values.iter().any(|x| !x.is_finite())) {
        return Err(LearnError::NotFinite(bad.name.clone()).into());
    }
    let replay = match with_replay {
        true => {
            // The arrays, and the file.
            room_for(2 * trainer.replay.bytes(false)).ok_or(TrainError::Copy)?;
            let (counters, mut arrays) = trainer.replay.save();
            arrays.extend(trainer.sampler.save(&trainer.replay));
            Some((counters, arrays))
        }
        false => None,
    };
    let (counters, arrays) = replay.unzip();
    let progress = Progress {
        // The end of a run may lie before the step that it had reached.
        config: StudentConfig { steps: trainer.config.steps.max(trainer.steps), ..trainer.config.clone() },
        stages: trainer.stages,
        explore: trainer.explore.clone(),
        draw: trainer.draw.clone(),
        running: trainer.running,
        action: trainer.action.clone(),
        steps: trainer.steps,
        started: trainer.started,
        decayed: trainer.decayed,
        setbacks: trainer.setbacks,
        updates: trainer.learner.engine().updates(),
        episodes: trainer.episodes,
        episode_return: trainer.episode_return,
        episode_length: trainer.episode_length,
        replay: counters,
    };
    tensors.extend(trainer.learner.engine().remembered().map(|t| NamedTensor { name: good(&t.name), ..t }));
    let flat =
        |name: &str, values: Vec<f32>| NamedTensor { name: name.into(), shape: vec![values.len()], values };
    tensors.push(flat("observation", trainer.observation.clone()));
    let noise = trainer.learner.noise().map(|noise| noise.state()).filter(|state| !state.is_empty());
    tensors.extend(noise.map(|state| flat("exploration.noise", state.to_vec())));
    if let Some(arrays) = arrays {
        tensors.extend(arrays.into_iter().map(|(name, values)| flat(name, values)));
        tensors.extend(trainer.rollout.as_ref().map(|r| flat("rollout.ended", r.save())));
    }
    let metadata = Writer::object(|out| {
        out.field("progress", &progress);
        out.field("extra", extra);
    });
    Ok(safetensors::write(FORMAT, &metadata, &tensors))
}

/// A file that was read and fits a trainer; nothing of it is in the trainer yet.
pub struct Opened<'f> {
    file: File<'f>,
    progress: Progress,
    replay: Option<(Replay, Box<dyn Sampler>)>,
    rollout: Option<Rollout>,
    observation: Vec<f32>,
    /// The noise on actions, as far as it depends on what was before.
    noise: Vec<f32>,
    /// The state of the last good evaluation.
    remembered: Option<Vec<Vec<f32>>>,
}

/// Reads a saved state and checks every number of it for a trainer made for the same configuration and spaces. Gives the owner's
/// metadata, too.
///
/// # Errors
/// A foreign or damaged file, and a number that no run has.
pub fn open<'f, E: FromJson>(trainer: &Trainer, file: &'f [u8]) -> Result<(Opened<'f>, E), TrainError> {
    let file = File::read(file).map_err(broken)?;
    let Metadata { progress, extra } = metadata(&file)?;
    let extra = oto_json::from_tree(&extra).map_err(broken)?;
    let values = |name: &str| file.floats(name);
    let (theirs, ours) = (&progress.config.algorithm, &trainer.config.algorithm);
    if theirs != ours {
        let [theirs, ours] = [theirs, ours].map(oto_json::write);
        return Err(broken(format!("it holds a network of {theirs}, this student has {ours}")));
    }
    if progress.action.len() != trainer.action.len() {
        return Err(broken("its action is of another width"));
    }
    progress.check(trainer.learner.takes(&progress.action)).map_err(broken)?;
    let observation = values("observation").filter(|o| o.len() == trainer.observation.len());
    let observation = observation.ok_or_else(|| broken("its observation is of another width"))?;
    trainer.check(&observation).map_err(broken)?;
    let noise = values("exploration.noise").unwrap_or_default();
    let fits = trainer
        .learner
        .noise()
        .map_or(noise.is_empty(), |own| own.clone().restore(&noise, trainer.action.len()));
    if !fits {
        return Err(broken("its noise on actions does not fit this configuration, or holds no numbers"));
    }
    let engine = trainer.learner.engine();
    engine.found(values).map_err(broken)?;
    let remembered = match file.any(&good("")) {
        true => {
            Some(engine.found(|name| file.floats(&good(name))).map_err(|e| broken(format!("good.: {e}")))?)
        }
        false => None,
    };
    let replay =
        progress.replay.as_ref().map(|counters| read_replay(trainer, counters, &file)).transpose()?;
    let mut rollout = trainer.rollout.clone();
    if let Some(rollout) = &mut rollout {
        // Without its transitions a rollout begins anew.
        let ended = if progress.replay.is_some() { values("rollout.ended") } else { Some(Vec::new()) };
        if !ended.is_some_and(|ended| {
            rollout.restore(replay.as_ref().map_or(&trainer.replay, |(replay, _)| replay), &ended)
        }) {
            return Err(broken("its rollout does not fit this configuration"));
        }
    }
    Ok((Opened { file, progress, replay, rollout, observation, noise, remembered }, extra))
}

/// A saved replay buffer whose every number can be learned from, and its sampler.
fn read_replay(
    trainer: &Trainer,
    counters: &ReplayCounters,
    file: &File<'_>,
) -> Result<(Replay, Box<dyn Sampler>), TrainError> {
    let mut replay = trainer.replay.empty();
    let needed = replay.bytes_of(counters);
    room_for(needed)
        .ok_or_else(|| broken(format!("its replay buffer needs {needed} bytes, which there are not")))?;
    if !replay.restore(counters, |name| file.floats(name)) {
        return Err(broken("its replay buffer does not fit this configuration"));
    }
    let learner = &trainer.learner;
    replay.check(|action| learner.takes(action), |label| learner.accepts(label)).map_err(broken)?;
    let mut sampler = trainer.config.replay.make();
    match sampler.restore(&replay, &mut |name| file.floats(name)) {
        true => Ok((replay, sampler)),
        false => Err(broken(
            "the priorities of its replay buffer are missing, do not fit, or are no numbers above 0",
        )),
    }
}

impl Progress {
    /// Checks the numbers that are no tensors; `takes`: whether the last action is one.
    fn check(&self, takes: bool) -> Result<(), String> {
        let run = self.config.steps;
        let counts = [
            ("steps", self.steps, run),
            ("started", self.started, self.steps),
            ("episodes", self.episodes, self.steps),
            ("episode_length", self.episode_length, self.steps),
            ("stages.steps", self.stages.steps(), MAX_COUNT),
            ("stages.rounds", self.stages.rounds(), MAX_COUNT),
            ("updates", self.updates, MAX_COUNT),
            ("replay.next", self.replay.as_ref().map_or(0, |replay| replay.next), MAX_COUNT),
        ];
        if let Some((name, got, most)) = counts.into_iter().find(|(_, got, most)| got > most) {
            return Err(format!("{name} is {got}, expected {most} at most"));
        }
        let reals = [
            ("decayed", self.decayed, (0.0..=1.0).contains(&self.decayed), "a share from 0 to 1"),
            ("episode_return", self.episode_return, self.episode_return.is_finite(), "a finite number"),
            ("stages.seconds", self.stages.seconds(), self.stages.seconds() >= 0.0, "a time from 0"),
        ];
        if let Some((name, got, _, expected)) = reals.into_iter().find(|(_, _, good, _)| !good) {
            return Err(format!("{name} is {}, expected {expected}", shown(&got)));
        }
        match takes {
            true => Ok(()),
            false => Err(format!("action is [{}], expected an action", shown_list(&self.action))),
        }
    }
}

/// The largest count that a double holds exactly.
const MAX_COUNT: u64 = 1 << 53;

impl Opened<'_> {
    /// How many environment steps the file's run had taken.
    pub fn steps(&self) -> u64 {
        self.progress.steps
    }

    /// Puts the state into the trainer that the file was opened for. A file saved without replay leaves the buffer as it is.
    ///
    /// # Errors
    /// What the backend says when it takes the parameters; the trainer's other state is as it was then.
    pub fn put(self, trainer: &mut Trainer) -> Result<(), TrainError> {
        let Self { file, progress, replay, rollout, observation, noise, remembered } = self;
        trainer.learner.restore(progress.updates, &mut |name| file.floats(name))?;
        trainer.learner.engine_mut().remember_as(remembered);
        trainer.rollout = rollout;
        if let Some((replay, sampler)) = replay {
            (trainer.replay, trainer.sampler) = (replay, sampler);
        }
        trainer.observation = observation;
        let width = trainer.action.len();
        if let Some(own) = trainer.learner.noise_mut() {
            own.restore(&noise, width);
        }
        (trainer.stages, trainer.explore, trainer.draw) = (progress.stages, progress.explore, progress.draw);
        (trainer.running, trainer.action, trainer.steps) =
            (progress.running, progress.action, progress.steps);
        (trainer.started, trainer.decayed) = (progress.started, progress.decayed);
        trainer.setbacks = progress.setbacks;
        (trainer.episodes, trainer.episode_return) = (progress.episodes, progress.episode_return);
        trainer.episode_length = progress.episode_length;
        Ok(())
    }
}

/// The name of a tensor as it was at the last good evaluation.
fn good(name: &str) -> String {
    format!("good.{name}")
}

/// How many environment steps a checkpoint's run had taken.
pub fn steps(file: &[u8]) -> Result<u64, TrainError> {
    Ok(metadata(&File::read(file).map_err(broken)?)?.progress.steps)
}

/// Puts a saved network and its optimiser into a trainer of the same sizes; nothing else changes.
pub fn load_weights(trainer: &mut Trainer, file: &[u8]) -> Result<(), TrainError> {
    let file = File::read(file).map_err(broken)?;
    let progress = metadata(&file)?.progress;
    Ok(trainer.learner.restore(progress.updates, &mut |name| file.floats(name))?)
}

/// The configuration a checkpoint was trained with.
pub fn config(file: &[u8]) -> Result<StudentConfig, TrainError> {
    Ok(metadata(&File::read(file).map_err(broken)?)?.progress.config)
}

fn metadata(file: &File<'_>) -> Result<Metadata, TrainError> {
    oto_json::read(safetensors::entry(file, FORMAT, &BEFORE).map_err(broken)?).map_err(broken)
}

/// Whether there is so much memory in one piece.
fn room_for(bytes: u64) -> Option<()> {
    Vec::<u8>::new().try_reserve_exact(usize::try_from(bytes).ok()?).ok()
}

fn broken(e: impl std::fmt::Display) -> TrainError {
    TrainError::Checkpoint(e.to_string())
}
