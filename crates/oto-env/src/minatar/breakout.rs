//! Breakout: a paddle at the bottom bounces a ball into three rows of bricks.
//!
//! A brick gives 1. A wall without bricks is built again when the ball comes down. The episode ends when the ball passes the paddle.

use super::numbers::{Numbers, put};
use super::{Game, Move, Mt19937, Outcome, Picture, SIDE};

const PADDLE: usize = 0;
const BALL: usize = 1;
const TRAIL: usize = 2;
const BRICK: usize = 3;

const BOTTOM: i32 = SIDE - 1;
/// The row above the first row of bricks.
const ABOVE: i32 = 1;
const ROWS: usize = 3;

#[derive(Default)]
pub(crate) struct Breakout {
    paddle: i32,
    /// Column and row.
    ball: [i32; 2],
    /// Columns and rows in a step: -1 or 1.
    velocity: [i32; 2],
    /// Where the ball was before.
    last: [i32; 2],
    bricks: [[bool; SIDE as usize]; ROWS],
    /// The ball was among bricks in the last step: it breaks one brick on its way in.
    struck: bool,
}

impl Breakout {
    fn brick(&mut self, [x, y]: [i32; 2]) -> Option<&mut bool> {
        let row = usize::try_from(y - ABOVE).ok()?;
        self.bricks.get_mut(row)?.get_mut(x as usize)
    }

    fn build(&mut self) {
        self.bricks = [[true; SIDE as usize]; ROWS];
    }
}

impl Game for Breakout {
    fn reset(&mut self, rng: &mut Mt19937) {
        let right = rng.integer(0, 1) == 1;
        let [x, dx] = if right { [BOTTOM, -1] } else { [0, 1] };
        *self = Self { paddle: 4, ball: [x, 3], velocity: [dx, 1], last: [x, 3], ..Self::default() };
        self.build();
    }

    fn act(&mut self, action: Move, _: &mut Mt19937) -> Outcome {
        let mut outcome = Outcome::default();
        match action {
            Move::Left => self.paddle = (self.paddle - 1).max(0),
            Move::Right => self.paddle = (self.paddle + 1).min(SIDE - 1),
            _ => {}
        }
        self.last = self.ball;
        let [mut x, mut y] = [self.ball[0] + self.velocity[0], self.ball[1] + self.velocity[1]];
        if !(0..SIDE).contains(&x) {
            x = x.clamp(0, SIDE - 1);
            self.velocity[0] = -self.velocity[0];
        }
        let among = self.brick([x, y]).is_some_and(|brick| *brick);
        if y < 0 {
            y = 0;
            self.velocity[1] = -self.velocity[1];
        } else if among {
            if !self.struck {
                if let Some(brick) = self.brick([x, y]) {
                    *brick = false;
                }
                outcome.reward = 1.0;
                self.struck = true;
                y = self.last[1];
                self.velocity[1] = -self.velocity[1];
            }
        } else if y == BOTTOM {
            if !self.bricks.as_flattened().contains(&true) {
                self.build();
            }
            // A ball that meets the paddle's corner returns the way it came.
            let corner = x == self.paddle && self.ball[0] != self.paddle;
            if corner {
                self.velocity[0] = -self.velocity[0];
            }
            if corner || self.ball[0] == self.paddle {
                self.velocity[1] = -self.velocity[1];
                y = self.last[1];
            } else {
                outcome.terminated = true;
            }
        }
        self.struck &= among;
        self.ball = [x, y];
        outcome
    }

    fn draw(&self, picture: &mut Picture<'_>) {
        picture.set(PADDLE, self.paddle, BOTTOM);
        picture.set(BALL, self.ball[0], self.ball[1]);
        picture.set(TRAIL, self.last[0], self.last[1]);
        for (row, bricks) in self.bricks.iter().enumerate() {
            for (x, _) in bricks.iter().enumerate().filter(|(_, brick)| **brick) {
                picture.set(BRICK, x as i32, row as i32 + ABOVE);
            }
        }
    }

    fn save(&self, to: &mut Vec<f64>) {
        put(to, [self.paddle, self.struck.into()]);
        [self.ball, self.velocity, self.last].into_iter().for_each(|pair| put(to, pair));
        to.extend(self.bricks.as_flattened().iter().map(|brick| f64::from(u8::from(*brick))));
    }

    fn restore(&mut self, from: &mut Numbers<'_>) -> Option<()> {
        let mut game = Self { paddle: from.coordinate()?, struck: from.flag()?, ..Self::default() };
        game.ball = [from.coordinate()?, from.coordinate()?];
        game.velocity = [from.sign()?, from.sign()?];
        game.last = [from.coordinate()?, from.coordinate()?];
        for brick in game.bricks.as_flattened_mut() {
            *brick = from.flag()?;
        }
        *self = game;
        Some(())
    }
}
