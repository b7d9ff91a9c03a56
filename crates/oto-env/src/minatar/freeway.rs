//! Freeway: a chicken crosses a road of eight lanes. Each lane has a car with a speed and a direction of its own.
//!
//! The other side gives 1, and new cars; a car sends the chicken back to the start. The episode ends after 2500 steps.

use super::numbers::{Numbers, put};
use super::{Game, Move, Mt19937, Outcome, Picture, SIDE};

const CHICKEN: usize = 0;
const CAR: usize = 1;
/// The channel of the slowest car's trail but one: speed v has channel `TRAIL + v`.
const TRAIL: usize = 1;

/// The chicken's column.
const COLUMN: i32 = 4;
const START: i32 = SIDE - 1;
const LANES: usize = 8;
/// Steps between two of the chicken's.
const CHICKEN_INTERVAL: i32 = 3;
const LONGEST: i32 = 2500;

#[derive(Clone, Copy, Default)]
struct Car {
    x: i32,
    /// Steps until it moves.
    timer: i32,
    /// Steps between two moves; negative to the left.
    interval: i32,
}

#[derive(Default)]
pub(crate) struct Freeway {
    cars: [Car; LANES],
    /// The chicken's row.
    chicken: i32,
    chicken_timer: i32,
    left: i32,
}

impl Freeway {
    fn new_speeds(&mut self, rng: &mut Mt19937) {
        let speeds: [i32; LANES] = std::array::from_fn(|_| rng.integer(1, 5));
        for (car, speed) in self.cars.iter_mut().zip(speeds) {
            car.timer = speed;
            car.interval = if rng.happens(0.5) { -speed } else { speed };
        }
    }
}

impl Game for Freeway {
    fn reset(&mut self, rng: &mut Mt19937) {
        *self = Self { chicken: START, chicken_timer: CHICKEN_INTERVAL, left: LONGEST, ..Self::default() };
        self.new_speeds(rng);
    }

    fn act(&mut self, action: Move, rng: &mut Mt19937) -> Outcome {
        let mut outcome = Outcome::default();
        if self.chicken_timer == 0 && matches!(action, Move::Up | Move::Down) {
            self.chicken_timer = CHICKEN_INTERVAL;
            let by = if action == Move::Up { -1 } else { 1 };
            self.chicken = (self.chicken + by).clamp(0, START);
        }
        if self.chicken == 0 {
            outcome.reward = 1.0;
            self.new_speeds(rng);
            self.chicken = START;
        }
        for (lane, car) in self.cars.iter_mut().enumerate() {
            let hits = |car: &Car, chicken: i32| car.x == COLUMN && chicken == lane as i32 + 1;
            if hits(car, self.chicken) {
                self.chicken = START;
            }
            if car.timer > 0 {
                car.timer -= 1;
                continue;
            }
            car.timer = car.interval.abs();
            car.x = (car.x + car.interval.signum()).rem_euclid(SIDE);
            if hits(car, self.chicken) {
                self.chicken = START;
            }
        }
        self.chicken_timer = (self.chicken_timer - 1).max(0);
        self.left -= 1;
        outcome.terminated = self.left < 0;
        outcome
    }

    fn draw(&self, picture: &mut Picture<'_>) {
        picture.set(CHICKEN, COLUMN, self.chicken);
        for (lane, car) in self.cars.iter().enumerate() {
            let y = lane as i32 + 1;
            picture.set(CAR, car.x, y);
            let behind = (car.x - car.interval.signum()).rem_euclid(SIDE);
            picture.set(TRAIL + car.interval.unsigned_abs() as usize, behind, y);
        }
    }

    fn save(&self, to: &mut Vec<f64>) {
        put(to, [self.chicken, self.chicken_timer, self.left]);
        self.cars.iter().for_each(|car| put(to, [car.x, car.timer, car.interval]));
    }

    fn restore(&mut self, from: &mut Numbers<'_>) -> Option<()> {
        let mut game = Self { chicken: from.coordinate()?, ..Self::default() };
        game.chicken_timer = from.whole(0, CHICKEN_INTERVAL)?;
        game.left = from.whole(-1, LONGEST)?;
        for car in &mut game.cars {
            *car = Car { x: from.coordinate()?, timer: from.whole(0, 5)?, interval: from.whole(-5, 5)? };
            if car.interval == 0 {
                return None;
            }
        }
        *self = game;
        Some(())
    }
}
