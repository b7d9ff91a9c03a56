//! The plant: a pendulum with Coulomb friction, a weaker motor, encoders, noise, and an angle zero that drifts; and its faults.
//!
//! No friction factor of the simulation gives this plant. The agent and its reward see readings, never the true motion.

use super::config::Config;
use super::rule::{self, Drive, Motion, wrapped};
use crate::rng::Rng;
use std::f64::consts::PI;

/// The constants in which the plant differs from the simulation.
#[derive(Clone, Debug, PartialEq)]
pub struct Plant {
    /// Friction factor of cart and mount. Below the 10 of the simulation: the paper's friction estimate is too high.
    pub k_f: f64,
    /// The share of the motor's force that the cart gets.
    pub motor: f64,
    /// Coulomb friction on the rail, N: about 3.5 V that move nothing.
    pub coulomb: f64,
    /// A count of the cart's encoder, m (Quanser IP02: 4,096 counts a turn of a 14.8 mm wheel).
    pub cart_count: f64,
    /// A count of the pole's encoder, rad (4,096 a turn).
    pub pole_count: f64,
    /// Standard deviation of a cart reading before its rounding, m: play between wheel and rail.
    pub cart_noise: f64,
    /// Standard deviation of an angle reading before its rounding, rad: the pole bends and its mount shakes.
    pub pole_noise: f64,
    /// Standard deviation of the change of the angle's zero in a step, rad. After 10,000 steps the zero is 0.03 rad off (the tip 2 cm),
    /// after 100,000 steps 0.095 rad (6 cm, beyond the 5 cm of the target).
    pub drift: f64,
    /// Steps after which the angle's zero is calibrated before the next episode; 0: never.
    pub calibration: u32,
    /// Faults, off by default.
    pub faults: Faults,
}

/// Faults that can be switched on: the probability of each in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// All readings stay as they are for up to a second.
    pub frozen: f64,
    /// One reading is any number.
    pub wild: f64,
    /// The command does not reach the motor, which keeps the voltage of the step before.
    pub lost: f64,
}

/// The plant, fixed before any run.
pub const PLANT: Plant = Plant {
    k_f: 8.0,
    motor: 0.95,
    coulomb: 3.5,
    cart_count: 2.275e-5,
    pole_count: 2.0 * PI / 4096.0,
    cart_noise: 1e-4,
    pole_noise: 1e-3,
    drift: 3e-4,
    calibration: 10_000,
    faults: Faults { frozen: 0.0, wild: 0.0, lost: 0.0 },
};

/// Speed at which Coulomb friction is three quarters of its full size, m/s.
const COULOMB_SPEED: f64 = 0.01;
/// Most steps that a frozen sensor stays frozen.
const LONGEST_FREEZE: u32 = 30;
/// Largest wild readings: position in half tracks, velocity, angle, angular velocity.
const WILD: Motion = [10.0, 10.0, PI, 200.0];

/// The P-controller that brings the cart to its place: action for a metre of distance, and the largest action.
const GAIN: f64 = 25.0;
const LARGEST_ACTION: f64 = 0.6;
/// The cart has arrived within this distance (m) and speed (m/s). Coulomb friction holds it 1.7 cm off at worst.
const ARRIVED: [f64; 2] = [0.02, 0.05];
/// Most steps of the controller: ten seconds.
const LONGEST_WAY: u32 = 300;
/// Steps in which the pole comes to rest for a calibration: a minute.
const SETTLING: f64 = 1800.0;

/// The plant's part of the state, by its place.
pub(super) const ZERO: usize = 0;
pub(super) const AGE: usize = 1;
pub(super) const APPLIED: usize = 2;
pub(super) const FREEZE: usize = 3;
pub(super) const FAULTY: usize = 4;
pub(super) const FROZEN_STEPS: usize = 5;
pub(super) const WILD_STEPS: usize = 6;
pub(super) const LOST_STEPS: usize = 7;
pub(super) const RESET_STEPS: usize = 8;
pub(super) const CALIBRATIONS: usize = 9;
pub(super) const READING: usize = 10;
/// How many numbers it has.
pub(super) const LENGTH: usize = READING + 4;

impl Plant {
    pub(super) fn drive(&self) -> Drive {
        Drive { motor: self.motor, coulomb: self.coulomb, coulomb_speed: COULOMB_SPEED }
    }

    /// What the sensors say. Velocities are differences of two readings half a step apart.
    fn reading(&self, config: &Config, zero: f64, [now, middle]: [&Motion; 2], rng: &mut Rng) -> Motion {
        let count = |value: f64, noise: f64, count: f64, rng: &mut Rng| {
            ((value + noise * rng.normal()) / count).round() * count
        };
        let mut cart = |motion: &Motion| count(motion[0], self.cart_noise, self.cart_count, rng);
        let (x, x_middle) = (cart(now), cart(middle));
        let mut pole = |motion: &Motion| count(motion[2] + zero, self.pole_noise, self.pole_count, rng);
        let (alpha, alpha_middle) = (pole(now), pole(middle));
        let sub_steps = config.sub_steps - config.sub_steps / 2;
        let seconds = config.control_period / f64::from(config.sub_steps) * f64::from(sub_steps);
        [x, (x - x_middle) / seconds, wrapped(alpha), wrapped(alpha - alpha_middle) / seconds]
    }

    /// The command that reaches the motor. Counts a lost one.
    pub(super) fn command(&self, state: &mut [f64], applied: f64, rng: &mut Rng) -> f64 {
        let lost = rng.f64() < self.faults.lost;
        state[FAULTY] = f64::from(u8::from(lost));
        if lost {
            state[LOST_STEPS] += 1.0;
            return state[APPLIED];
        }
        state[APPLIED] = applied;
        applied
    }

    /// Reads the sensors after a step. Counts faults.
    pub(super) fn sense(&self, config: &Config, state: &mut [f64], motions: [&Motion; 2], rng: &mut Rng) {
        state[AGE] += 1.0;
        state[ZERO] += self.drift * rng.normal();
        let last = motion_of(&state[READING..]);
        let mut reading = self.reading(config, state[ZERO], motions, rng);
        if state[FREEZE] < 1.0 && rng.f64() < self.faults.frozen {
            state[FREEZE] = f64::from(1 + rng.below(LONGEST_FREEZE));
        }
        if rng.f64() < self.faults.wild {
            let which = rng.below(4) as usize;
            let half_track = if which == 0 { config.x_max } else { 1.0 };
            reading[which] = half_track * rng.uniform(-WILD[which], WILD[which]);
            state[WILD_STEPS] += 1.0;
            state[FAULTY] = 1.0;
        }
        if state[FREEZE] >= 1.0 {
            reading = last;
            state[FREEZE] -= 1.0;
            state[FROZEN_STEPS] += 1.0;
            state[FAULTY] = 1.0;
        }
        state[READING..LENGTH].copy_from_slice(&reading);
    }

    /// Puts the plant where it was built: hanging at rest, calibrated, no faults counted.
    pub(super) fn build(&self, motion: &mut Motion, state: &mut [f64], rng: &mut Rng) {
        state.fill(0.0);
        *motion = [0.0, 0.0, PI, 0.0];
        self.calibrate(state, rng);
        state[CALIBRATIONS] = 0.0;
    }

    /// The zero is right to half a count.
    fn calibrate(&self, state: &mut [f64], rng: &mut Rng) {
        state[ZERO] = self.pole_count * rng.uniform(-0.5, 0.5);
        state[AGE] = 0.0;
        state[CALIBRATIONS] += 1.0;
    }

    /// What happens between two episodes: a calibration when it is due, and a way to a random place. The pole swings on.
    pub(super) fn prepare(&self, config: &Config, motion: &mut Motion, state: &mut [f64], rng: &mut Rng) {
        state[RESET_STEPS] = 0.0;
        if self.calibration > 0 && state[AGE] >= f64::from(self.calibration) {
            *motion = [motion[0], 0.0, PI, 0.0];
            state[RESET_STEPS] += SETTLING;
            self.calibrate(state, rng);
        }
        let target = rng.uniform(-0.8, 0.8) * config.x_max;
        let drive = self.drive();
        let mut middle = *motion;
        let mut arrived = false;
        for _ in 0..LONGEST_WAY {
            let action = (GAIN * (target - motion[0])).clamp(-LARGEST_ACTION, LARGEST_ACTION);
            [*motion, middle] = rule::step(config, &drive, *motion, action);
            state[RESET_STEPS] += 1.0;
            let slow = motion[3].abs() < config.alpha_dot_max / 2.0;
            arrived = (motion[0] - target).abs() <= ARRIVED[0] && motion[1].abs() <= ARRIVED[1] && slow;
            if arrived {
                break;
            }
        }
        // A cart that is stuck or a pole that still spins is put right by hand.
        if !arrived {
            *motion = [target, 0.0, PI, 0.0];
            middle = *motion;
        }
        state[APPLIED] = 0.0;
        state[FREEZE] = 0.0;
        state[FAULTY] = 0.0;
        let reading = self.reading(config, state[ZERO], [motion, &middle], rng);
        state[READING..LENGTH].copy_from_slice(&reading);
    }
}

/// The first four numbers.
pub(super) fn motion_of(numbers: &[f64]) -> Motion {
    std::array::from_fn(|i| numbers[i])
}
