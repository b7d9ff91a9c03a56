//! Asterix: pick up treasure and keep away from enemies. Both cross eight rows from either side.
//!
//! Treasure gives 1, the touch of an enemy ends the episode. With ramping more of them come, and faster.

use super::numbers::{Numbers, put};
use super::{Game, Move, Mt19937, Outcome, Picture, SIDE};

const PLAYER: usize = 0;
const ENEMY: usize = 1;
const TRAIL: usize = 2;
const GOLD: usize = 3;

/// Rows in which somebody moves: all but the first and the last.
const ROWS: usize = 8;
const SPAWN_INTERVAL: i32 = 10;
const MOVE_INTERVAL: i32 = 5;
const RAMP_INTERVAL: i32 = 100;

#[derive(Clone, Copy)]
struct Traveller {
    x: i32,
    right: bool,
    gold: bool,
}

pub(crate) struct Asterix {
    ramping: bool,
    /// Column and row.
    player: [i32; 2],
    /// One in each row, the first in row 1.
    travellers: [Option<Traveller>; ROWS],
    spawn_interval: i32,
    spawn_timer: i32,
    move_interval: i32,
    move_timer: i32,
    ramp_timer: i32,
    /// How often the game became harder.
    ramps: i32,
}

impl Asterix {
    pub(crate) fn new(ramping: bool) -> Self {
        Self {
            ramping,
            player: [5, 5],
            travellers: [None; ROWS],
            spawn_interval: SPAWN_INTERVAL,
            spawn_timer: SPAWN_INTERVAL,
            move_interval: MOVE_INTERVAL,
            move_timer: MOVE_INTERVAL,
            ramp_timer: RAMP_INTERVAL,
            ramps: 0,
        }
    }

    /// A new traveller in a free row.
    fn spawn(&mut self, rng: &mut Mt19937) {
        let (right, gold) = (rng.happens(0.5), rng.happens(1.0 / 3.0));
        let free = self.travellers.iter().filter(|row| row.is_none()).count();
        if free == 0 {
            return;
        }
        let chosen = rng.integer(0, free as i32 - 1) as usize;
        if let Some(row) = self.travellers.iter_mut().filter(|row| row.is_none()).nth(chosen) {
            *row = Some(Traveller { x: if right { 0 } else { SIDE - 1 }, right, gold });
        }
    }

    /// The player and a traveller in one place.
    fn meet(&mut self, outcome: &mut Outcome) {
        let [x, y] = self.player;
        let Some(row) = usize::try_from(y - 1).ok().and_then(|row| self.travellers.get_mut(row)) else {
            return;
        };
        match row {
            Some(traveller) if traveller.x == x && traveller.gold => {
                *row = None;
                outcome.reward += 1.0;
            }
            Some(traveller) if traveller.x == x => outcome.terminated = true,
            _ => {}
        }
    }

    fn travel(&mut self) {
        for row in &mut self.travellers {
            if let Some(traveller) = row {
                traveller.x += if traveller.right { 1 } else { -1 };
                if !(0..SIDE).contains(&traveller.x) {
                    *row = None;
                }
            }
        }
    }

    fn ramp(&mut self) {
        if self.ramp_timer >= 0 {
            self.ramp_timer -= 1;
            return;
        }
        if self.move_interval > 1 && self.ramps % 2 == 1 {
            self.move_interval -= 1;
        }
        if self.spawn_interval > 1 {
            self.spawn_interval -= 1;
        }
        self.ramps += 1;
        self.ramp_timer = RAMP_INTERVAL;
    }
}

impl Game for Asterix {
    fn reset(&mut self, _: &mut Mt19937) {
        *self = Self::new(self.ramping);
    }

    fn act(&mut self, action: Move, rng: &mut Mt19937) -> Outcome {
        let mut outcome = Outcome::default();
        if self.spawn_timer == 0 {
            self.spawn(rng);
            self.spawn_timer = self.spawn_interval;
        }
        let [x, y] = &mut self.player;
        match action {
            Move::Left => *x = (*x - 1).max(0),
            Move::Right => *x = (*x + 1).min(SIDE - 1),
            Move::Up => *y = (*y - 1).max(1),
            Move::Down => *y = (*y + 1).min(SIDE - 2),
            Move::Stay | Move::Fire => {}
        }
        self.meet(&mut outcome);
        if self.move_timer == 0 {
            self.move_timer = self.move_interval;
            self.travel();
            self.meet(&mut outcome);
        }
        self.spawn_timer -= 1;
        self.move_timer -= 1;
        if self.ramping && (self.spawn_interval > 1 || self.move_interval > 1) {
            self.ramp();
        }
        outcome
    }

    fn draw(&self, picture: &mut Picture<'_>) {
        picture.set(PLAYER, self.player[0], self.player[1]);
        for (row, traveller) in self.travellers.iter().enumerate() {
            if let Some(Traveller { x, right, gold }) = *traveller {
                let y = row as i32 + 1;
                picture.set(if gold { GOLD } else { ENEMY }, x, y);
                picture.set(TRAIL, if right { x - 1 } else { x + 1 }, y);
            }
        }
    }

    fn save(&self, to: &mut Vec<f64>) {
        put(to, self.player);
        put(to, [self.spawn_interval, self.spawn_timer, self.move_interval, self.move_timer]);
        put(to, [self.ramp_timer, self.ramps]);
        for row in &self.travellers {
            let Traveller { x, right, gold } = row.unwrap_or(Traveller { x: 0, right: false, gold: false });
            put(to, [row.is_some().into(), x, right.into(), gold.into()]);
        }
    }

    fn restore(&mut self, from: &mut Numbers<'_>) -> Option<()> {
        let mut game = Self { player: [from.coordinate()?, from.coordinate()?], ..Self::new(self.ramping) };
        game.spawn_interval = from.whole(1, SPAWN_INTERVAL)?;
        game.spawn_timer = from.whole(0, SPAWN_INTERVAL)?;
        game.move_interval = from.whole(1, MOVE_INTERVAL)?;
        game.move_timer = from.whole(0, MOVE_INTERVAL)?;
        game.ramp_timer = from.whole(-1, RAMP_INTERVAL)?;
        game.ramps = from.whole(0, 1000)?;
        for row in &mut game.travellers {
            let there = from.flag()?;
            let traveller = Traveller { x: from.coordinate()?, right: from.flag()?, gold: from.flag()? };
            *row = there.then_some(traveller);
        }
        *self = game;
        Some(())
    }
}
