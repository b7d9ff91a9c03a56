//! MinAtar's five games: Atari's ideas on a grid of 10 by 10 places, an image with a channel for each kind of thing.
//!
//! Source of the rules: "MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible Reinforcement Learning Experiments" (Young and
//! Tian 2019), and the behaviour of the package `minatar` 1.0.15: the same seed and actions give the same steps.
//!
//! An ID of version 0 has all six actions (nothing, left, up, right, down, fire), one of version 1 those that its game uses.
//! [`OPTIONS`] follow the ID: `MinAtar/Breakout-v1?sticky_action_prob=0`. As in the package, the last action outlives a reset: the first
//! step of an episode may repeat it.

mod asterix;
mod breakout;
mod environment;
mod freeway;
mod mt19937;
mod numbers;
mod options;
mod seaquest;
mod space_invaders;

pub use environment::MinAtar;
pub use options::{OPTIONS, Options};

use mt19937::Mt19937;
use numbers::Numbers;

/// All games, with all actions and with the minimal set.
pub const IDS: &[&str] = &[
    "MinAtar/Asterix-v0",
    "MinAtar/Asterix-v1",
    "MinAtar/Breakout-v0",
    "MinAtar/Breakout-v1",
    "MinAtar/Freeway-v0",
    "MinAtar/Freeway-v1",
    "MinAtar/Seaquest-v0",
    "MinAtar/Seaquest-v1",
    "MinAtar/SpaceInvaders-v0",
    "MinAtar/SpaceInvaders-v1",
];

/// Places along each side of the grid.
const SIDE: i32 = 10;
/// Places of the grid.
const PLACES: usize = (SIDE * SIDE) as usize;

/// What a player may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    Stay,
    Left,
    Up,
    Right,
    Down,
    Fire,
}

impl Move {
    /// In the order of the package.
    const ALL: [Move; 6] = [Move::Stay, Move::Left, Move::Up, Move::Right, Move::Down, Move::Fire];
}

/// A game's constants.
struct Kind {
    name: &'static str,
    channels: usize,
    /// The actions that it uses.
    moves: &'static [Move],
    make: fn(ramping: bool) -> Box<dyn Game>,
}

const KINDS: &[Kind] = &[
    Kind {
        name: "Asterix",
        channels: 4,
        moves: &[Move::Stay, Move::Left, Move::Up, Move::Right, Move::Down],
        make: |ramping| Box::new(asterix::Asterix::new(ramping)),
    },
    Kind {
        name: "Breakout",
        channels: 4,
        moves: &[Move::Stay, Move::Left, Move::Right],
        make: |_| Box::new(breakout::Breakout::default()),
    },
    Kind {
        name: "Freeway",
        channels: 7,
        moves: &[Move::Stay, Move::Up, Move::Down],
        make: |_| Box::new(freeway::Freeway::default()),
    },
    Kind {
        name: "Seaquest",
        channels: 10,
        moves: &Move::ALL,
        make: |ramping| Box::new(seaquest::Seaquest::new(ramping)),
    },
    Kind {
        name: "SpaceInvaders",
        channels: 6,
        moves: &[Move::Stay, Move::Left, Move::Right, Move::Fire],
        make: |ramping| Box::new(space_invaders::SpaceInvaders::new(ramping)),
    },
];

/// What one step of a game gave.
#[derive(Clone, Copy, Default)]
struct Outcome {
    reward: f64,
    terminated: bool,
}

/// The rules of one game, and where it stands.
trait Game: Send {
    /// Starts an episode.
    fn reset(&mut self, rng: &mut Mt19937);
    fn act(&mut self, action: Move, rng: &mut Mt19937) -> Outcome;
    fn draw(&self, picture: &mut Picture<'_>);
    /// Appends all numbers that [`Game::restore`] reads.
    fn save(&self, to: &mut Vec<f64>);
    /// Continues from saved numbers; `None` where one of them is impossible.
    fn restore(&mut self, from: &mut Numbers<'_>) -> Option<()>;
}

/// An observation that a game draws into.
struct Picture<'a> {
    numbers: &'a mut [f32],
    channels: usize,
    images: bool,
}

impl Picture<'_> {
    /// Marks a place; one outside of the grid is not drawn.
    fn set(&mut self, channel: usize, x: i32, y: i32) {
        if !((0..SIDE).contains(&x) && (0..SIDE).contains(&y)) {
            return;
        }
        let place = (y * SIDE + x) as usize;
        let (index, mark) = match self.images {
            true => (channel * PLACES + place, 255.0),
            false => (place * self.channels + channel, 1.0),
        };
        if let Some(number) = self.numbers.get_mut(index) {
            *number = mark;
        }
    }
}
