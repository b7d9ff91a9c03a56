//! Checkpoints: one safetensors file holds parameters, optimiser and (unless left out) replay, and in its metadata
//! everything that is not a tensor. All sources have this one format. [`open`] continues the run exactly where it was saved;
//! [`adopt`] begins another run, of another source or algorithm, with its networks and optimiser.

use crate::config::StudentConfig;
use crate::distillation;
use crate::evaluation::Evaluations;
use crate::origin::Origin;
use crate::recorded::DataMark;
use crate::safetensors::{self, File};
use crate::stage::Stages;
use crate::trainer::{Source, TrainError, Trainer};
use oto_env::Space;
use oto_env::rng::Rng;
use oto_graph::Backend;
use oto_json::{FromJson, Json, ToJson, Writer, shown, shown_list};
use oto_rl::engine::{Adopted, LearnError, NamedTensor};
use oto_rl::network::Actor;
use oto_rl::normaliser;
use oto_rl::replay::{Replay, ReplayCounters, Sampler};
use oto_rl::rollout::Rollout;

/// What the file calls itself: the key of its only metadata entry, a [`Metadata`] as JSON. One entry, because safetensors
/// writes several in no order, and equal students make equal files.
const FORMAT: &str = "oto.checkpoint.v4";
/// The largest checkpoint, in bytes: its replay buffer holds most of them.
pub const MAX_BYTES: u64 = 64 << 30;
/// The formats before it, which are refused: v3 lacks the source, v2 and v1 have another form of configuration. Runs of datasets had
/// formats of their own.
const BEFORE: [&str; 5] =
    ["oto.checkpoint.v3", "oto.checkpoint.v2", "oto.checkpoint.v1", "oto.offline.v2", "oto.offline.v1"];

/// All that a checkpoint holds beside tensors.
struct Metadata {
    progress: Progress,
    extra: Json,
}

oto_json::json_object! { Metadata: open { progress, extra } }

/// What of a trainer is no tensor.
struct Progress {
    source: Source,
    config: StudentConfig,
    action_space: Space,
    evaluations: Evaluations,
    data: DataMark,
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
    distillation: Vec<distillation::Saved>,
}

oto_json::json_object! {
    Progress: open {
        source, config, action_space, evaluations, data, stages, explore, draw, running, action, steps, started, decayed, setbacks, updates, episodes,
        episode_return, episode_length, replay, distillation = Vec::new()
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
    let distilled = trainer.distillation.as_ref().map(|d| d.save()).transpose()?;
    let (distillation, aligners) = distilled.unwrap_or_default();
    if let Some(bad) = aligners.iter().find(|t| t.values.iter().any(|x| !x.is_finite())) {
        return Err(LearnError::NotFinite(bad.name.clone()).into());
    }
    let progress = Progress {
        distillation,
        source: trainer.source,
        action_space: trainer.space.clone(),
        evaluations: trainer.evaluations,
        data: trainer.data,
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
    tensors.extend(aligners);
    if let Some(policy) = &trainer.best_policy {
        tensors.extend(safetensors::network("best.", policy, policy.layers()));
    }
    let flat =
        |name: &str, values: Vec<f32>| NamedTensor { name: name.into(), shape: vec![values.len()], values };
    tensors.push(flat("observation", trainer.observation.clone()));
    let noise = trainer.learner.noise().map(|noise| noise.state()).filter(|state| !state.is_empty());
    tensors.extend(noise.map(|state| flat("exploration.noise", state.to_vec())));
    let memory = trainer.learner.memory();
    tensors.extend((!memory.is_empty()).then(|| flat("agent.memory", memory)));
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
    best_policy: Option<Actor>,
}

/// Reads a saved state and checks every number of it for a trainer made for the same configuration and spaces. Gives the owner's
/// metadata, too.
///
/// # Errors
/// A foreign or damaged file, and a number that no run has.
pub fn open<'f, E: FromJson>(trainer: &Trainer, file: &'f [u8]) -> Result<(Opened<'f>, E), TrainError> {
    let file = File::read(file).map_err(broken)?;
    let Metadata { progress, extra } = metadata(&file)?;
    let mut values = |name: &str| file.floats(name);
    if progress.source != trainer.source {
        return Err(broken(format!(
            "its run learned from {}, this one learns from {}: a run continues another one's networks with --from",
            progress.source, trainer.source
        )));
    }
    if progress.source == Source::Mixed && progress.data != trainer.data {
        let (theirs, ours) = (progress.data.transitions, trainer.data.transitions);
        return Err(broken(format!(
            "its run has another dataset, of {theirs} transitions; this one has {ours}: the same data are needed to resume it"
        )));
    }
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
    engine.found(&mut values).map_err(broken)?;
    let remembered = match file.any(&good("")) {
        true => Some(
            engine.found(&mut |name| file.floats(&good(name))).map_err(|e| broken(format!("good.: {e}")))?,
        ),
        false => None,
    };
    if let Some(distillation) = &trainer.distillation {
        distillation.check(&progress.distillation, values)?;
    }
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
    let best_policy = progress.evaluations.best.map(|_| best(trainer, &file)).transpose()?;
    let extra = oto_json::from_tree(&extra).map_err(broken)?;
    Ok((Opened { file, progress, replay, rollout, observation, noise, remembered, best_policy }, extra))
}

/// The policy of the best evaluation.
fn best(trainer: &Trainer, file: &File<'_>) -> Result<Actor, TrainError> {
    let mut policy = trainer.learner.policy();
    let saved = safetensors::network("best.", &policy, policy.layers());
    for (part, NamedTensor { name, shape, .. }) in policy.parameters_mut().zip(saved) {
        let found = file.tensor(&name, &shape);
        let found = found.ok_or_else(|| broken(format!("{name} is missing, or has another shape")))?;
        if found.iter().any(|x| !x.is_finite()) {
            return Err(broken(LearnError::NotFinite(name)));
        }
        part.copy_from_slice(&found);
    }
    Ok(policy)
}

/// Begins the trainer's run with the networks, target networks and optimiser of the file's run, which may have another source and
/// another algorithm: every tensor with a name and shape that both have. The trainer has made no update.
///
/// # Errors
/// A foreign or damaged file, other spaces, a number that no run has, a run without a network of the trainer's. Nothing changes then.
pub fn adopt(trainer: &mut Trainer, file: &[u8]) -> Result<Adopted, TrainError> {
    let file = File::read(file).map_err(broken)?;
    let origin = begun(&file)?;
    let width = file.floats("observation").map_or(0, |observation| observation.len());
    let (expected, got) = (trainer.observation.len(), width);
    if expected != got || origin.action_space != trainer.space {
        let (theirs, ours) = (&origin.action_space, &trainer.space);
        return Err(broken(format!(
            "its run has observations of {got} numbers and the actions {theirs}; this one has {expected} and {ours}"
        )));
    }
    // Networks that saw normalised observations are of no use for others, and the other way round.
    let theirs = file.floats(normaliser::MEAN).is_some();
    let ours = trainer.learner.engine().shapes().any(|(name, _)| name == normaliser::MEAN);
    if theirs != ours {
        let sees =
            |normalised| if normalised { "normalised observations" } else { "observations as they are" };
        return Err(broken(format!(
            "its networks see {} ({}, algorithm.normalise), those of {} {}: continue with the same algorithm, or begin from a run with \
             algorithm.normalise {ours}",
            sees(theirs),
            origin.name(),
            trainer.config.algorithm.name(),
            sees(ours),
        )));
    }
    let adopted = trainer.learner.adopt(&mut |name, shape| file.tensor(name, shape)).map_err(broken)?;
    if adopted.shares_network {
        return Ok(adopted);
    }
    let listed = trainer.learner.engine().shapes().filter(|(_, shape)| shape.len() >= 2);
    let listed = listed
        .filter(|(name, _)| !name.starts_with("adam."))
        .map(|(name, shape)| format!("{name} {shape:?}"));
    Err(broken(format!(
        "it is of {}, which has no network of {}: expected at least one of {}",
        origin.name(),
        trainer.config.algorithm.name(),
        listed.collect::<Vec<_>>().join(", ")
    )))
}

/// Whether a file is a checkpoint, of this format or of one before.
pub fn is_checkpoint(file: &[u8]) -> bool {
    let formats = || BEFORE.iter().chain([&FORMAT]);
    File::read(file).is_ok_and(|file| formats().any(|format| file.text(format).is_some()))
}

/// Reads what another run begins with of a checkpoint.
///
/// # Errors
/// A foreign or damaged file.
pub fn origin(file: &[u8]) -> Result<Origin, TrainError> {
    begun(&File::read(file).map_err(broken)?)
}

fn begun(file: &File<'_>) -> Result<Origin, TrainError> {
    let metadata =
        oto_json::parse(safetensors::entry(file, FORMAT, &BEFORE).map_err(broken)?).map_err(broken)?;
    let progress = metadata.get("progress").ok_or_else(|| broken("missing field `progress`"))?;
    oto_json::from_tree(progress).map_err(broken)
}

/// A trainer that acts with a checkpoint's network, whatever its source, in an environment with these spaces.
///
/// # Errors
/// A foreign or damaged file, other spaces, the backend's failure.
pub fn player(
    file: &[u8],
    observation: &Space,
    action: &Space,
    backend: &dyn Backend,
) -> Result<Trainer, TrainError> {
    let read = File::read(file).map_err(broken)?;
    let Progress { source, config, updates, .. } = metadata(&read)?.progress;
    config.algorithm.validate()?;
    let acting = StudentConfig { algorithm: config.algorithm, ..StudentConfig::default() };
    let mut trainer = Trainer::with(&acting, source, [observation, action], 0, backend)?;
    trainer.learner.restore(updates, &mut |name| read.floats(name))?;
    Ok(trainer)
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
        self.evaluations.check(self.steps.max(self.updates))?;
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

    /// Whether the trainer has the recorded data that the file's run had.
    pub fn same_data(&self, trainer: &Trainer) -> bool {
        self.progress.data == trainer.data
    }

    /// Puts the state into the trainer that the file was opened for. A file saved without replay leaves the buffer as it is.
    ///
    /// # Errors
    /// What the backend says when it takes the parameters; the trainer's other state is as it was then.
    pub fn put(self, trainer: &mut Trainer) -> Result<(), TrainError> {
        let Self { file, progress, replay, rollout, observation, noise, remembered, best_policy } = self;
        if !trainer.learner.recall(&file.floats("agent.memory").unwrap_or_default()) {
            return Err(broken("its agent.memory does not fit this configuration, or holds no numbers"));
        }
        trainer.learner.restore(progress.updates, &mut |name| file.floats(name))?;
        if let Some(distillation) = &mut trainer.distillation {
            distillation.restore(&progress.distillation, |name| file.floats(name))?;
        }
        trainer.learner.engine_mut().remember_as(remembered);
        trainer.rollout = rollout;
        if trainer.rollout.as_ref().is_some_and(Rollout::is_empty) {
            trainer.begin_rollout();
        }
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
        (trainer.evaluations, trainer.best_policy) = (progress.evaluations, best_policy);
        Ok(())
    }
}

/// The name of a tensor as it was at the last good evaluation.
fn good(name: &str) -> String {
    format!("good.{name}")
}

/// How many environment steps a checkpoint's run had taken; updates where its source is a dataset.
pub fn steps(file: &[u8]) -> Result<u64, TrainError> {
    let Progress { source, steps, updates, .. } = metadata(&File::read(file).map_err(broken)?)?.progress;
    Ok(if source == Source::Dataset { updates } else { steps })
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
