//! The games of the Atari report: who plays them by a rule, what is recorded of them, and the teachers that conservative Q-learning
//! makes of that. A teacher that was made is kept beside the runs.

use crate::play;
use crate::runs::fnv;
use crate::statistics::mean;
use crate::write;
use crate::{Options, ReportError};
use oto_agent::config::{EvaluationConfig, Linear};
use oto_agent::environments;
use oto_agent::evaluation::returns;
use oto_agent::offline::{OfflineConfig, OfflineTrainer};
use oto_agent::recorded::add_all;
use oto_data::{Collect, DataError, Metadata, collect};
use oto_env::{Action, EnvError, Environment, Space};
use oto_rl::algorithms::cql::{ConservativeQLearning, CqlConfig};
use oto_rl::algorithms::{Algorithm, Seen as Kind};
use oto_rl::convolution::{Convolution, ConvolutionLayer};
use oto_rl::optimiser::Adam;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;

/// Changes whenever teachers would no longer be made the same way.
const FORMAT: u32 = 2;
/// Side of an image in pixels: half of the field's, for a budget of minutes.
pub(super) const SCREEN: usize = 42;
/// What is seen.
pub(super) const SHAPE: [usize; 3] = [4, SCREEN, SCREEN];
/// Steps of four frames after which a game is cut off.
pub(super) const LIMIT: u64 = 500;
/// Steps of chance whose median image is what stands still.
pub(super) const STILL: u64 = 400;
/// Steps that are recorded, and the share of random ones among the expert's.
pub(super) const RECORDED: usize = 15_000;
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

/// Two games in which no single action is worth much: where to go depends on where something else is.
pub(super) const GAMES: [Game; 2] = [
    Game {
        name: "Pong",
        env: "gym:ALE/Pong-v5?screen=42&limit=500&still=400&fire=0",
        rule: "the paddle moves to the ball's predicted position in two steps, minus its own current motion",
        expert: pong,
        arms: ["pong-oto", "pong-base", "pong-rkd", "pong-random", "pong-solo"],
    },
    Game {
        name: "Breakout",
        env: "gym:ALE/Breakout-v5?screen=42&limit=500&still=400&fire=0",
        rule: "the paddle moves below the ball; without a ball, the rule requests one",
        expert: breakout,
        arms: ["breakout-oto", "breakout-base", "breakout-rkd", "breakout-random", "breakout-solo"],
    },
];

/// Where the middle of what moves is along the rows (0) or the columns (1) of a part of an image, in pixels.
fn middle(image: &[f32], rows: Range<usize>, columns: Range<usize>, along: usize) -> Option<f32> {
    let (mut sum, mut moment) = (0.0, 0.0);
    for place in rows.flat_map(|row| columns.clone().map(move |column| [row, column])) {
        let pixel = image[place[0] * SCREEN + place[1]];
        if pixel >= FAINTEST {
            sum += pixel;
            moment += pixel * place[along] as f32;
        }
    }
    (sum > 0.0).then(|| moment / sum)
}

/// Darker pixels are nobody's.
const FAINTEST: f32 = 12.0;

/// The newest image and the one before.
fn newest(seen: &[f32]) -> [&[f32]; 2] {
    let (before, now) = seen.split_at(seen.len() - SCREEN * SCREEN);
    [now, &before[before.len() - SCREEN * SCREEN..]]
}

/// The paddle on the right goes to where the ball will be two steps later, less the way that it is making already.
fn pong(seen: &[f32]) -> u32 {
    let [stay, up, down] = [0, 2, 3];
    let (field, right) = (7..38, 36..38);
    let ball = newest(seen).map(|image| middle(image, field.clone(), 6..right.start, 0));
    let paddle = newest(seen).map(|image| middle(image, field.clone(), right.clone(), 0));
    let ([Some(ball), before], [Some(paddle), paddle_before]) = (ball, paddle) else { return stay };
    let (fall, way) = (ball - before.unwrap_or(ball), paddle - paddle_before.unwrap_or(paddle));
    match ball + 2.0 * fall - paddle - way {
        0.9.. => down,
        ..-0.9 => up,
        _ => stay,
    }
}

/// The paddle goes below the ball, which FIRE throws.
fn breakout(seen: &[f32]) -> u32 {
    let [stay, fire, right, left] = [0, 1, 2, 3];
    let (field, bottom, inside) = (19..37, 37..39, 2..40);
    let [image, _] = newest(seen);
    let Some(ball) = middle(image, field, inside.clone(), 1) else { return fire };
    let paddle = middle(image, bottom, inside, 1);
    match paddle.map_or(0.0, |paddle| ball - paddle) {
        1.0.. => right,
        ..-1.0 => left,
        _ => stay,
    }
}

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

/// Of all learners. The field's 5e-5 to 2.5e-4, with an epsilon of Adam's of 1e-2 over the batch, are for millions of updates; here
/// there are thousands.
pub(super) const LEARNING_RATE: f64 = 1e-3;

/// The same of Adam.
pub(super) fn adam() -> Adam {
    Adam { epsilon: 1e-6, ..Adam::default() }
}

/// How a teacher is made: d3rlpy's weight of the conservative term. The newest policy is kept: to choose one by how it plays would
/// make a teacher of chance look good.
pub(super) fn config() -> OfflineConfig {
    let images = Kind { continuous: false, images: Some(SHAPE) };
    let usual = OfflineConfig::new(ConservativeQLearning.defaults(images));
    let network = |cql: &mut CqlConfig| {
        (cql.convolution, cql.hidden) = (Some(network()), vec![HIDDEN]);
        (cql.quantiles, cql.adam) = (QUANTILES, adam());
    };
    OfflineConfig {
        algorithm: usual.algorithm.with(network),
        updates: 6_000,
        learning_rate: Linear::constant(LEARNING_RATE),
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
    /// Mean score in [`TEST`] of the best action that never changes.
    pub constant: f64,
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
pub(super) fn teacher(options: &Options, game: &Game, data: Data) -> Result<Made, ReportError> {
    let name = format!("{}-{}", game.name.to_lowercase(), data.name());
    let recipe = serde_json::to_string(&config()).unwrap_or_default();
    let made_of = format!("{FORMAT} {} {RECORDED} {SLIPS} {TEST:?} {recipe}", game.env);
    let folder = options.cache.join(format!("teacher-{name}-{:016x}", fnv(made_of.as_bytes())));
    let (policy, about) = (folder.join("policy.safetensors"), folder.join("about.json"));
    let kept = oto_json::file::read_regular(&about, oto_json::file::MAX_LIST)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if let Some(about) = kept {
        return Ok(Made { policy, about });
    }
    (options.tell)(&format!("making the teacher {name}"));
    let (file, made) = make(game, data)?;
    write::file(&policy, &file)?;
    // The policy is whole once this is there.
    let unwritten = |error: serde_json::Error| ReportError::File { path: about.clone(), error: error.into() };
    write::file(&about, &serde_json::to_vec(&made).map_err(unwritten)?)?;
    Ok(Made { policy, about: made })
}

fn make(game: &Game, data: Data) -> Result<(Vec<u8>, About), ReportError> {
    let start = Instant::now();
    let mut environment = environments::environment(game.env).map_err(DataError::from)?;
    let epsilon = if data == Data::Expert { SLIPS } else { 1.0 };
    let how = Collect { steps: RECORDED, seed: 0, epsilon, noise: 0.0 };
    let play = |_: bool, seen: &[f32], row: &mut Vec<f32>| {
        row.push((game.expert)(seen) as f32);
        Ok::<_, DataError>(())
    };
    let played = collect(&mut *environment, &how, Metadata::default(), play, |_| {})?;
    let recorded = mean(&played.returns());
    let mut trainer = OfflineTrainer::new(&config(), &played.observation, &played.action, &oto_cpu::Cpu)?;
    add_all(&played, |episode| trainer.add(episode))?;
    drop(played);
    while trainer.advance(&mut *environment, u64::MAX)?.ended.is_none() {}
    let best = trainer.best_policy().expect("the last update is followed by an evaluation");
    let file = trainer.policy_file(best, game.env);
    let mut policy = oto_policy::load(&file, &oto_policy::Metadata::default())?;
    let about = About {
        transitions: trainer.transitions(),
        recorded,
        constant: constant(&mut *environment)?,
        scores: play::play_model(&mut *policy, game.env, TEST)?,
        seconds: start.elapsed().as_secs_f64(),
    };
    Ok((file, about))
}

/// The best mean score of an action that never changes.
fn constant(environment: &mut dyn Environment) -> Result<f64, ReportError> {
    let Space::Discrete { n } = *environment.action_space() else { return Ok(f64::NEG_INFINITY) };
    let mut score = |action| {
        returns(&mut *environment, TEST, |environment, seen| environment.step(Action::Discrete(action), seen))
            .map(|scores| mean(&scores))
    };
    let scores = (0..n).map(&mut score).collect::<Result<Vec<_>, EnvError>>().map_err(DataError::from)?;
    Ok(scores.into_iter().fold(f64::NEG_INFINITY, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn teachers_and_games_are_what_can_be_made() {
        config().validate().unwrap();
        assert_eq!(network().outputs(), 1296);
        for game in &GAMES {
            assert!(
                game.env.ends_with(&format!("?screen={SCREEN}&limit={LIMIT}&still={STILL}&fire=0")),
                "{}",
                game.env
            );
        }
    }

    /// Two images, the newer one last, each with these pixels white and all others black.
    fn seen(images: [&[[usize; 2]]; 2]) -> Vec<f32> {
        let mut seen = vec![0.0; SHAPE.iter().product()];
        for (pixels, image) in images.iter().zip(seen.chunks_exact_mut(SCREEN * SCREEN).skip(2)) {
            pixels.iter().for_each(|[row, column]| image[row * SCREEN + column] = 255.0);
        }
        seen
    }

    #[test]
    fn the_paddle_of_pong_goes_to_where_the_ball_will_be() {
        let [stay, up, down] = [0, 2, 3];
        let paddle = [20, 37];
        let plays = |before: [usize; 2], now: [usize; 2]| pong(&seen([&[before, paddle], &[now, paddle]]));
        assert_eq!([[10, 15], [20, 15], [30, 15]].map(|ball| plays(ball, ball)), [up, stay, down]);
        // Falling and rising, level with the paddle now.
        assert_eq!([[19, 14], [21, 14]].map(|before| plays(before, [20, 15])), [down, up]);
        // A paddle that comes up by two rows a step stops before it is there.
        assert_eq!(pong(&seen([&[[18, 15], [22, 37]], &[[18, 15], [20, 37]]])), stay);
        // Without a ball, or with what the other side of the field and the score show, there is nothing to go to.
        assert_eq!(pong(&seen([&[paddle], &[paddle]])), stay);
        assert_eq!(pong(&seen([&[paddle, [30, 4], [2, 20]], &[paddle, [30, 4], [2, 20]]])), stay);
    }

    #[test]
    fn the_paddle_of_breakout_goes_below_the_ball_and_asks_for_one() {
        let [stay, fire, right, left] = [0, 1, 2, 3];
        let paddle = [38, 20];
        let plays = |now: &[[usize; 2]]| breakout(&seen([&[], now]));
        assert_eq!([10, 20, 30].map(|column| plays(&[paddle, [25, column]])), [left, stay, right]);
        assert_eq!(plays(&[paddle]), fire);
        assert_eq!(plays(&[paddle, [12, 10]]), fire, "a brick is no ball");
    }
}
