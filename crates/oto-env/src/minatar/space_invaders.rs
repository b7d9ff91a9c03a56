//! Space Invaders: a cannon shoots at aliens, which come nearer and shoot back.
//!
//! An alien gives 1. The episode ends when a bullet or an alien reaches the cannon, or an alien the bottom. Fewer aliens move faster. With
//! ramping each new wave moves faster than the last.

use super::numbers::{Numbers, put};
use super::{Game, Move, Mt19937, Outcome, Picture, SIDE};

const CANNON: usize = 0;
const ALIEN: usize = 1;
const ALIEN_LEFT: usize = 2;
const ALIEN_RIGHT: usize = 3;
const FRIENDLY_BULLET: usize = 4;
const ENEMY_BULLET: usize = 5;

const BOTTOM: usize = SIDE as usize - 1;
const RELOAD: i32 = 5;
const ALIEN_RELOAD: i32 = 10;
const MOVE_INTERVAL: i32 = 12;
/// The shortest interval between two moves of a full wave.
const LEAST_INTERVAL: i32 = 6;

/// Places by row and column.
type Grid = [[bool; SIDE as usize]; SIDE as usize];

pub(crate) struct SpaceInvaders {
    ramping: bool,
    /// The cannon's column.
    cannon: i32,
    shots: Grid,
    enemy_shots: Grid,
    aliens: Grid,
    /// The aliens move to the right.
    right: bool,
    move_interval: i32,
    move_timer: i32,
    alien_reload: i32,
    reload: i32,
}

/// Four rows of six aliens.
fn wave() -> Grid {
    std::array::from_fn(|y| std::array::from_fn(|x| y < 4 && (2..8).contains(&x)))
}

fn count(grid: &Grid) -> usize {
    grid.as_flattened().iter().filter(|there| **there).count()
}

fn column(grid: &Grid, x: usize) -> bool {
    grid.iter().any(|row| row[x])
}

impl SpaceInvaders {
    pub(crate) fn new(ramping: bool) -> Self {
        Self {
            ramping,
            cannon: 5,
            shots: Grid::default(),
            enemy_shots: Grid::default(),
            aliens: wave(),
            right: false,
            move_interval: MOVE_INTERVAL,
            move_timer: MOVE_INTERVAL,
            alien_reload: ALIEN_RELOAD,
            reload: 0,
        }
    }

    /// Whether something of the grid is where the cannon is.
    fn at_cannon(&self, grid: &Grid) -> bool {
        grid[BOTTOM][self.cannon as usize]
    }

    /// One step of the aliens: sideways, at the edge down. Whether they reached the bottom before.
    fn advance(&mut self) -> bool {
        self.move_timer = self.move_interval.min(count(&self.aliens) as i32);
        let edge = if self.right { BOTTOM } else { 0 };
        if !column(&self.aliens, edge) {
            for row in &mut self.aliens {
                if self.right { row.rotate_right(1) } else { row.rotate_left(1) }
            }
            return false;
        }
        self.right = !self.right;
        let landed = self.aliens[BOTTOM].contains(&true);
        self.aliens.rotate_right(1);
        landed
    }

    /// The lowest alien of the column nearest to the cannon shoots; of two columns the left one.
    fn shoot(&mut self) {
        let occupied = (0..SIDE).filter(|x| column(&self.aliens, *x as usize));
        let Some(x) = occupied.min_by_key(|x| (x - self.cannon).abs()) else { return };
        let lowest = self.aliens.iter().rposition(|row| row[x as usize]);
        self.enemy_shots[lowest.unwrap_or(0)][x as usize] = true;
    }

    /// Removes aliens and the bullets in their places, and counts them.
    fn hit(&mut self) -> usize {
        let pairs = self.aliens.as_flattened_mut().iter_mut().zip(self.shots.as_flattened_mut());
        let hits = pairs.filter(|(alien, shot)| **alien && **shot);
        hits.map(|(alien, shot)| (*alien, *shot) = (false, false)).count()
    }
}

impl Game for SpaceInvaders {
    fn reset(&mut self, _: &mut Mt19937) {
        *self = Self::new(self.ramping);
    }

    fn act(&mut self, action: Move, _: &mut Mt19937) -> Outcome {
        let mut outcome = Outcome::default();
        match action {
            Move::Fire if self.reload == 0 => {
                self.shots[BOTTOM][self.cannon as usize] = true;
                self.reload = RELOAD;
            }
            Move::Left => self.cannon = (self.cannon - 1).max(0),
            Move::Right => self.cannon = (self.cannon + 1).min(SIDE - 1),
            _ => {}
        }
        self.shots.rotate_left(1);
        self.shots[BOTTOM] = Default::default();
        self.enemy_shots.rotate_right(1);
        self.enemy_shots[0] = Default::default();
        outcome.terminated |= self.at_cannon(&self.enemy_shots) || self.at_cannon(&self.aliens);
        if self.move_timer == 0 {
            outcome.terminated |= self.advance() || self.at_cannon(&self.aliens);
        }
        if self.alien_reload == 0 {
            self.alien_reload = ALIEN_RELOAD;
            self.shoot();
        }
        outcome.reward = self.hit() as f64;
        self.reload = (self.reload - 1).max(0);
        self.move_timer -= 1;
        self.alien_reload -= 1;
        if count(&self.aliens) == 0 {
            if self.ramping && self.move_interval > LEAST_INTERVAL {
                self.move_interval -= 1;
            }
            self.aliens = wave();
        }
        outcome
    }

    fn draw(&self, picture: &mut Picture<'_>) {
        picture.set(CANNON, self.cannon, SIDE - 1);
        let towards = if self.right { ALIEN_RIGHT } else { ALIEN_LEFT };
        for (channel, grid) in [
            (ALIEN, &self.aliens),
            (towards, &self.aliens),
            (FRIENDLY_BULLET, &self.shots),
            (ENEMY_BULLET, &self.enemy_shots),
        ] {
            for (y, row) in grid.iter().enumerate() {
                for (x, _) in row.iter().enumerate().filter(|(_, there)| **there) {
                    picture.set(channel, x as i32, y as i32);
                }
            }
        }
    }

    fn save(&self, to: &mut Vec<f64>) {
        put(to, [self.cannon, self.right.into(), self.move_interval, self.move_timer]);
        put(to, [self.alien_reload, self.reload]);
        for grid in [&self.shots, &self.enemy_shots, &self.aliens] {
            to.extend(grid.as_flattened().iter().map(|there| f64::from(u8::from(*there))));
        }
    }

    fn restore(&mut self, from: &mut Numbers<'_>) -> Option<()> {
        let mut game = Self { cannon: from.coordinate()?, right: from.flag()?, ..Self::new(self.ramping) };
        game.move_interval = from.whole(LEAST_INTERVAL, MOVE_INTERVAL)?;
        game.move_timer = from.whole(0, MOVE_INTERVAL)?;
        game.alien_reload = from.whole(0, ALIEN_RELOAD)?;
        game.reload = from.whole(0, RELOAD)?;
        for grid in [&mut game.shots, &mut game.enemy_shots, &mut game.aliens] {
            for there in grid.as_flattened_mut() {
                *there = from.flag()?;
            }
        }
        if count(&game.aliens) == 0 {
            return None;
        }
        *self = game;
        Some(())
    }
}
