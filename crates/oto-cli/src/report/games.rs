//! The games of the Atari report: who plays them by a rule, what is recorded of them, and the teachers that conservative Q-learning
//! makes of that. A teacher that was made is kept beside the runs.

use super::ReportError;
use super::runs::fnv;
use super::statistics::mean;
use super::write;
use crate::eval;
use crate::teach::add_all;
use crate::world;
use oto_data::{Collect, DataError, Metadata, collect};
use oto_rl::convolution::{Convolution, ConvolutionLayer};
use oto_rl::qrdqn::QrDqnConfig;
use oto_student::config::{EvaluationConfig, Linear};
use oto_student::offline::{Method, OfflineConfig, OfflineTrainer};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Changes whenever teachers would no longer be made the same way.
const FORMAT: u32 = 1;
/// Side of an image in pixels: half of the field's, for a budget of minutes.
pub(super) const SCREEN: usize = 42;
/// What is seen.
pub(super) const SHAPE: [usize; 3] = [4, SCREEN, SCREEN];
/// Steps of four frames after which a game is cut off.
pub(super) const LIMIT: u64 = 500;
/// Steps that are recorded, and the share of random ones among the expert's.
pub(super) const RECORDED: usize = 6_000;
pub(super) const SLIPS: f64 = 0.1;
/// Games that a finished teacher is judged by; nothing else has seen them.
pub(super) const TEST: Range<u64> = 70_000..70_006;

/// A game, and how to play it.
pub(super) struct Game {
    /// As people call it.
    pub name: &'static str,
    /// Its environment.
    pub env: &'static str,
    /// The rule that plays it, in words, for the report.
    pub rule: &'static str,
    /// What the rule does when it sees these images.
    expert: fn(&[f32]) -> u32,
    /// The names of its arms: taught, by one part, by the other, by a teacher of random games, alone.
    pub arms: [&'static str; 5],
}

/// Two games in which chance hardly ever scores, and in which going one way is most of what there is to learn: what a budget of
/// minutes has room for.
pub(super) const GAMES: [Game; 2] = [
    Game {
        name: "Freeway",
        env: "gym:ALE/Freeway-v5?screen=42&limit=500",
        rule: "the chicken walks up, whatever comes",
        // UP
        expert: |_| 1,
        arms: ["freeway-oto", "freeway-base", "freeway-rkd", "freeway-random", "freeway-solo"],
    },
    Game {
        name: "RoadRunner",
        env: "gym:ALE/RoadRunner-v5?screen=42&limit=500",
        rule: "the bird runs left, whatever comes",
        // LEFT
        expert: |_| 4,
        arms: ["roadrunner-oto", "roadrunner-base", "roadrunner-rkd", "roadrunner-random", "roadrunner-solo"],
    },
];

/// What a teacher learns from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// The rule's games, with slips.
    Expert,
    /// Games of random actions.
    Random,
}

impl Data {
    pub fn name(self) -> &'static str {
        match self {
            Data::Expert => "expert",
            Data::Random => "random",
        }
    }
}

/// The network of all learners: half of that of Mnih et al. (2013), "Playing Atari with deep reinforcement learning": half as many
/// kernels and units, and first kernels of half the size, because images have it.
pub(super) fn network() -> Convolution {
    let layer = |channels, kernel, stride| ConvolutionLayer { channels, kernel, stride };
    Convolution { shape: SHAPE, layers: vec![layer(8, 4, 2), layer(16, 4, 2)] }
}

/// Of the fully connected layer behind it, and of a value's distribution.
pub(super) const HIDDEN: usize = 128;
pub(super) const QUANTILES: usize = 32;

/// How a teacher is made: d3rlpy's weight of the conservative term and Adam; a learning rate for thousands of updates where there
/// are millions of them. The newest policy is kept: to choose one by how it plays would make a teacher of chance look good.
pub(super) fn config() -> OfflineConfig {
    let usual = OfflineConfig::pixels(Method::Cql, &oto_env::Space::Discrete { n: 2 }, SHAPE);
    OfflineConfig {
        qrdqn: QrDqnConfig {
            convolution: Some(network()),
            hidden: vec![HIDDEN],
            quantiles: QUANTILES,
            ..usual.qrdqn
        },
        updates: 3_000,
        learning_rate: Linear::constant(2.5e-4),
        target_every: 250,
        evaluation: EvaluationConfig { every: 0, episodes: 1 },
        ..usual
    }
}

/// What is known of a teacher.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct About {
    /// Steps that were recorded.
    pub transitions: usize,
    /// Mean score of the recorded games.
    pub recorded: f64,
    /// Its scores in [`TEST`].
    pub scores: Vec<f64>,
    /// How long all of it took.
    pub seconds: f64,
}

/// A teacher of a game.
pub(super) struct Made {
    /// Its policy's file.
    pub policy: PathBuf,
    pub about: About,
}

impl Made {
    pub fn score(&self) -> f64 {
        mean(&self.about.scores)
    }
}

/// The teacher of this game from these data; made if it is not kept.
pub(super) fn teacher(cache: &Path, game: &Game, data: Data) -> Result<Made, ReportError> {
    let name = format!("{}-{}", game.name.to_lowercase(), data.name());
    let recipe = serde_json::to_string(&config()).unwrap_or_default();
    let made_of = format!("{FORMAT} {} {RECORDED} {SLIPS} {TEST:?} {recipe}", game.env);
    let folder = cache.join(format!("teacher-{name}-{:016x}", fnv(made_of.as_bytes())));
    let (policy, about) = (folder.join("policy.safetensors"), folder.join("about.json"));
    let kept = std::fs::read(&about).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if let Some(about) = kept {
        return Ok(Made { policy, about });
    }
    eprintln!("making the teacher {name}");
    let (file, made) = make(game, data)?;
    write::file(&policy, &file)?;
    // The policy is whole once this is there.
    let unwritten = |error: serde_json::Error| ReportError::File { path: about.clone(), error: error.into() };
    write::file(&about, &serde_json::to_vec(&made).map_err(unwritten)?)?;
    Ok(Made { policy, about: made })
}

fn make(game: &Game, data: Data) -> Result<(Vec<u8>, About), ReportError> {
    let start = Instant::now();
    let mut world = world::environment(game.env).map_err(DataError::from)?;
    let epsilon = if data == Data::Expert { SLIPS } else { 1.0 };
    let how = Collect { steps: RECORDED, seed: 0, epsilon, noise: 0.0 };
    let play = |seen: &[f32], row: &mut Vec<f32>| {
        row.push((game.expert)(seen) as f32);
        Ok::<_, DataError>(())
    };
    let played = collect(&mut *world, &how, Metadata::default(), play, |_| {})?;
    let recorded = mean(&played.returns());
    let mut trainer = OfflineTrainer::new(&config(), &played.observation, &played.action, &oto_cpu::Cpu)?;
    add_all(&mut trainer, &played)?;
    drop(played);
    while trainer.advance(&mut *world, u64::MAX)?.ended.is_none() {}
    let best = trainer.best().expect("the last update is followed by an evaluation");
    let file = trainer.policy_file(&best.policy, game.env);
    let mut policy = oto_policy::load(&file, &oto_policy::Metadata::default())?;
    let about = About {
        transitions: trainer.transitions(),
        recorded,
        scores: eval::play_model(&mut *policy, game.env, TEST)?,
        seconds: start.elapsed().as_secs_f64(),
    };
    Ok((file, about))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn teachers_and_games_are_what_can_be_made() {
        config().validate().unwrap();
        assert_eq!(network().outputs(), 1296);
        for game in &GAMES {
            assert!(game.env.ends_with(&format!("?screen={SCREEN}&limit={LIMIT}")), "{}", game.env);
        }
    }
}
