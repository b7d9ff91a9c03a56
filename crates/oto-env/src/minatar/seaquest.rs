//! Seaquest: a submarine shoots fish and other submarines, takes up divers and has to surface for air.
//!
//! An enemy that is shot gives 1. At the surface with six divers the air that is left gives up to 10; otherwise surfacing costs a diver, and
//! without a diver it ends the episode. So do an enemy, a bullet and the want of air. With ramping every surfacing brings more enemies,
//! and faster ones.

use super::numbers::{Numbers, put};
use super::{Game, Move, Mt19937, Outcome, Picture, SIDE};

const FRONT: usize = 0;
const BACK: usize = 1;
const FRIENDLY_BULLET: usize = 2;
const TRAIL: usize = 3;
const ENEMY_BULLET: usize = 4;
const FISH: usize = 5;
const ENEMY_SUBMARINE: usize = 6;
const AIR: usize = 7;
const DIVERS_ABOARD: usize = 8;
const DIVER: usize = 9;

/// Rows in which somebody swims: from 1 to this one.
const DEEPEST: i32 = 8;
const MOST_AIR: i32 = 200;
const MOST_DIVERS: i32 = 6;
const RELOAD: i32 = 5;
const ENEMY_RELOAD: i32 = 10;
const SPAWN_INTERVAL: i32 = 20;
const DIVER_SPAWN_INTERVAL: i32 = 30;
const MOVE_INTERVAL: i32 = 5;
const LEAST_MOVE_INTERVAL: i32 = 2;
const DIVER_MOVE_INTERVAL: i32 = 5;
/// More than can be in the sea of any kind: the hardest game brings one in a step, and it leaves after thirty.
const MOST: usize = 64;

/// A bullet, a fish, a submarine or a diver.
#[derive(Clone, Copy, Default)]
struct Swimmer {
    x: i32,
    y: i32,
    right: bool,
    /// Steps until it moves; bullets move in each step.
    timer: i32,
    /// Steps until it shoots; submarines only.
    reload: i32,
}

impl Swimmer {
    fn place(&self) -> [i32; 2] {
        [self.x, self.y]
    }

    /// One place on. False where it leaves the sea.
    fn advance(&mut self) -> bool {
        self.x += if self.right { 1 } else { -1 };
        (0..SIDE).contains(&self.x)
    }

    /// Advances when its time comes, then waits for `interval`.
    fn advance_in_time(&mut self, interval: i32) -> Advance {
        if self.timer > 0 {
            self.timer -= 1;
            return Advance::Waits;
        }
        self.timer = interval;
        if self.advance() { Advance::Moved } else { Advance::Left }
    }
}

#[derive(PartialEq)]
enum Advance {
    Waits,
    Moved,
    Left,
}

pub(crate) struct Seaquest {
    ramping: bool,
    /// The submarine's column and row; row 0 is the surface.
    place: [i32; 2],
    right: bool,
    reload: i32,
    air: i32,
    /// Divers aboard. Surfacing with six leaves -1.
    aboard: i32,
    /// It has not dived since it surfaced.
    surfaced: bool,
    shots: Vec<Swimmer>,
    enemy_shots: Vec<Swimmer>,
    fish: Vec<Swimmer>,
    submarines: Vec<Swimmer>,
    divers: Vec<Swimmer>,
    spawn_interval: i32,
    spawn_timer: i32,
    diver_timer: i32,
    move_interval: i32,
    /// How often the game became harder.
    ramps: i32,
}

impl Seaquest {
    pub(crate) fn new(ramping: bool) -> Self {
        let mut game = Self::start(ramping);
        game.lists().into_iter().for_each(|list| list.reserve(MOST));
        game
    }

    /// The start of an episode, with lists that have no memory yet.
    fn start(ramping: bool) -> Self {
        Self {
            ramping,
            place: [5, 0],
            right: false,
            reload: 0,
            air: MOST_AIR,
            aboard: 0,
            surfaced: true,
            shots: Vec::new(),
            enemy_shots: Vec::new(),
            fish: Vec::new(),
            submarines: Vec::new(),
            divers: Vec::new(),
            spawn_interval: SPAWN_INTERVAL,
            spawn_timer: SPAWN_INTERVAL,
            diver_timer: DIVER_SPAWN_INTERVAL,
            move_interval: MOVE_INTERVAL,
            ramps: 0,
        }
    }

    fn lists(&mut self) -> [&mut Vec<Swimmer>; 5] {
        [&mut self.shots, &mut self.enemy_shots, &mut self.fish, &mut self.submarines, &mut self.divers]
    }

    /// An enemy at a side; none where one of the same row swims the other way.
    fn spawn_enemy(&mut self, rng: &mut Mt19937) {
        let (right, submarine) = (rng.happens(0.5), rng.happens(1.0 / 3.0));
        let y = rng.integer(1, DEEPEST);
        let against = |enemy: &Swimmer| enemy.y == y && enemy.right != right;
        if self.submarines.iter().chain(&self.fish).any(against) {
            return;
        }
        let x = if right { 0 } else { SIDE - 1 };
        let reload = if submarine { ENEMY_RELOAD } else { 0 };
        let enemies = if submarine { &mut self.submarines } else { &mut self.fish };
        enemies.push(Swimmer { x, y, right, timer: self.move_interval, reload });
    }

    fn spawn_diver(&mut self, rng: &mut Mt19937) {
        let right = rng.happens(0.5);
        let y = rng.integer(1, DEEPEST);
        let x = if right { 0 } else { SIDE - 1 };
        self.divers.push(Swimmer { x, y, right, timer: DIVER_MOVE_INTERVAL, reload: 0 });
    }

    fn steer(&mut self, action: Move) {
        let [x, y] = &mut self.place;
        match action {
            Move::Fire if self.reload == 0 => {
                self.shots.push(Swimmer { x: *x, y: *y, right: self.right, ..Swimmer::default() });
                self.reload = RELOAD;
            }
            Move::Left => {
                *x = (*x - 1).max(0);
                self.right = false;
            }
            Move::Right => {
                *x = (*x + 1).min(SIDE - 1);
                self.right = true;
            }
            Move::Up => *y = (*y - 1).max(0),
            Move::Down => *y = (*y + 1).min(DEEPEST),
            Move::Stay | Move::Fire => {}
        }
    }

    /// Moves the submarine's bullets; how many enemies they hit.
    fn move_shots(&mut self) -> usize {
        let mut hits = 0;
        for i in (0..self.shots.len()).rev() {
            if !self.shots[i].advance() {
                self.shots.remove(i);
                continue;
            }
            let place = self.shots[i].place();
            for enemies in [&mut self.fish, &mut self.submarines] {
                if let Some(hit) = enemies.iter().position(|enemy| enemy.place() == place) {
                    enemies.remove(hit);
                    self.shots.remove(i);
                    hits += 1;
                    break;
                }
            }
        }
        hits
    }

    fn move_divers(&mut self) {
        for i in (0..self.divers.len()).rev() {
            let fits = self.aboard < MOST_DIVERS;
            let diver = &mut self.divers[i];
            let met = fits && diver.place() == self.place;
            let advance = if met { Advance::Waits } else { diver.advance_in_time(DIVER_MOVE_INTERVAL) };
            let met = met || fits && advance == Advance::Moved && diver.place() == self.place;
            if met {
                self.aboard += 1;
            }
            if met || advance == Advance::Left {
                self.divers.remove(i);
            }
        }
    }

    /// Whether an enemy that moved to this place came into the way of a bullet, which is gone then.
    fn runs_into_shot(&mut self, place: [i32; 2]) -> bool {
        let shot = self.shots.iter().position(|shot| shot.place() == place);
        shot.map(|shot| self.shots.remove(shot)).is_some()
    }

    /// Moves enemy submarines, which shoot: also in the step in which they are hit.
    fn move_submarines(&mut self, outcome: &mut Outcome) {
        for i in (0..self.submarines.len()).rev() {
            let mut enemy = self.submarines[i];
            outcome.terminated |= enemy.place() == self.place;
            let advance = enemy.advance_in_time(self.move_interval);
            let mut stays = advance != Advance::Left;
            if advance == Advance::Moved {
                if enemy.place() == self.place {
                    outcome.terminated = true;
                } else if self.runs_into_shot(enemy.place()) {
                    outcome.reward += 1.0;
                    stays = false;
                }
            }
            if enemy.reload == 0 {
                enemy.reload = ENEMY_RELOAD;
                self.enemy_shots.push(Swimmer { timer: 0, reload: 0, ..enemy });
            } else {
                enemy.reload -= 1;
            }
            if stays {
                self.submarines[i] = enemy;
            } else {
                self.submarines.remove(i);
            }
        }
    }

    fn move_enemy_shots(&mut self, outcome: &mut Outcome) {
        for i in (0..self.enemy_shots.len()).rev() {
            let shot = &mut self.enemy_shots[i];
            outcome.terminated |= shot.place() == self.place;
            if shot.advance() {
                outcome.terminated |= shot.place() == self.place;
            } else {
                self.enemy_shots.remove(i);
            }
        }
    }

    fn move_fish(&mut self, outcome: &mut Outcome) {
        for i in (0..self.fish.len()).rev() {
            let fish = &mut self.fish[i];
            outcome.terminated |= fish.place() == self.place;
            let (advance, place) = (fish.advance_in_time(self.move_interval), fish.place());
            match advance {
                Advance::Waits => {}
                Advance::Left => {
                    self.fish.remove(i);
                }
                Advance::Moved if place == self.place => outcome.terminated = true,
                Advance::Moved => {
                    if self.runs_into_shot(place) {
                        outcome.reward += 1.0;
                        self.fish.remove(i);
                    }
                }
            }
        }
    }

    /// Fills up air; the reward for divers brought to the surface.
    fn surface(&mut self) -> f64 {
        let full = self.aboard == MOST_DIVERS;
        let reward = if full { self.air * 10 / MOST_AIR } else { 0 };
        self.aboard = if full { 0 } else { self.aboard } - 1;
        self.air = MOST_AIR;
        self.surfaced = true;
        if self.ramping && (self.spawn_interval > 1 || self.move_interval > LEAST_MOVE_INTERVAL) {
            if self.move_interval > LEAST_MOVE_INTERVAL && self.ramps % 2 == 1 {
                self.move_interval -= 1;
            }
            if self.spawn_interval > 1 {
                self.spawn_interval -= 1;
            }
            self.ramps += 1;
        }
        reward.into()
    }

    fn breathe(&mut self, outcome: &mut Outcome) {
        if self.place[1] > 0 {
            self.air -= 1;
            self.surfaced = false;
        } else if !self.surfaced {
            if self.aboard == 0 {
                outcome.terminated = true;
            } else {
                outcome.reward += self.surface();
            }
        }
        outcome.terminated |= self.air < 0;
    }
}

impl Game for Seaquest {
    fn reset(&mut self, _: &mut Mt19937) {
        let mut before = std::mem::replace(self, Self::start(self.ramping));
        for (list, old) in self.lists().into_iter().zip(before.lists()) {
            std::mem::swap(list, old);
            list.clear();
        }
    }

    fn act(&mut self, action: Move, rng: &mut Mt19937) -> Outcome {
        let mut outcome = Outcome::default();
        if self.spawn_timer == 0 {
            self.spawn_enemy(rng);
            self.spawn_timer = self.spawn_interval;
        }
        if self.diver_timer == 0 {
            self.spawn_diver(rng);
            self.diver_timer = DIVER_SPAWN_INTERVAL;
        }
        self.steer(action);
        outcome.reward = self.move_shots() as f64;
        self.move_divers();
        self.move_submarines(&mut outcome);
        self.move_enemy_shots(&mut outcome);
        self.move_fish(&mut outcome);
        for timer in [&mut self.spawn_timer, &mut self.diver_timer, &mut self.reload] {
            *timer = (*timer - 1).max(0);
        }
        self.breathe(&mut outcome);
        outcome
    }

    fn draw(&self, picture: &mut Picture<'_>) {
        let [x, y] = self.place;
        picture.set(FRONT, x, y);
        picture.set(BACK, if self.right { x - 1 } else { x + 1 }, y);
        (0..self.air * 10 / MOST_AIR).for_each(|x| picture.set(AIR, x, SIDE - 1));
        (0..self.aboard).for_each(|i| picture.set(DIVERS_ABOARD, SIDE - 2 - i, SIDE - 1));
        for (channel, list, trail) in [
            (FRIENDLY_BULLET, &self.shots, false),
            (ENEMY_BULLET, &self.enemy_shots, false),
            (FISH, &self.fish, true),
            (ENEMY_SUBMARINE, &self.submarines, true),
            (DIVER, &self.divers, true),
        ] {
            for swimmer in list {
                picture.set(channel, swimmer.x, swimmer.y);
                if trail {
                    let behind = if swimmer.right { swimmer.x - 1 } else { swimmer.x + 1 };
                    picture.set(TRAIL, behind, swimmer.y);
                }
            }
        }
    }

    fn save(&self, to: &mut Vec<f64>) {
        put(to, self.place);
        put(to, [self.right.into(), self.reload, self.air, self.aboard, self.surfaced.into()]);
        put(to, [self.spawn_interval, self.spawn_timer, self.diver_timer, self.move_interval, self.ramps]);
        for list in [&self.shots, &self.enemy_shots, &self.fish, &self.submarines, &self.divers] {
            put(to, [list.len() as i32]);
            list.iter().for_each(|one| put(to, [one.x, one.y, one.right.into(), one.timer, one.reload]));
        }
    }

    fn restore(&mut self, from: &mut Numbers<'_>) -> Option<()> {
        let mut game =
            Self { place: [from.coordinate()?, from.whole(0, DEEPEST)?], ..Self::new(self.ramping) };
        game.right = from.flag()?;
        game.reload = from.whole(0, RELOAD)?;
        game.air = from.whole(-1, MOST_AIR)?;
        game.aboard = from.whole(-1_000_000_000, MOST_DIVERS)?;
        game.surfaced = from.flag()?;
        game.spawn_interval = from.whole(1, SPAWN_INTERVAL)?;
        game.spawn_timer = from.whole(0, SPAWN_INTERVAL)?;
        game.diver_timer = from.whole(0, DIVER_SPAWN_INTERVAL)?;
        game.move_interval = from.whole(LEAST_MOVE_INTERVAL, MOVE_INTERVAL)?;
        game.ramps = from.whole(0, 1000)?;
        for list in game.lists() {
            for _ in 0..from.whole(0, MOST as i32)? {
                list.push(Swimmer {
                    x: from.coordinate()?,
                    y: from.whole(0, DEEPEST)?,
                    right: from.flag()?,
                    timer: from.whole(0, MOVE_INTERVAL)?,
                    reload: from.whole(0, ENEMY_RELOAD)?,
                });
            }
        }
        *self = game;
        Some(())
    }
}
