//! Acrobot-v1: swing the lower of two links above a bar with a torque of -1 (0), none (1) or +1 (2) on the joint between.
//!
//! State: angle of the first link (rad, 0 hangs down), of the second against the first, and their velocities. Observation:
//! cosine and sine of each angle, then the velocities. The reward is -1 for every step and 0 for the one that
//! terminates. Source: Gymnasium's `classic_control/acrobot.py` (the book's equations); Sutton (1996).

use crate::Space;
use crate::classic::{Dynamics, Transition, runge_kutta};
use crate::rng::Rng;
use crate::space::within;
use std::f64::consts::{PI, TAU};

const GRAVITY: f64 = 9.8;
const SECONDS: f64 = 0.2;
/// Both links: length and mass 1, centre of mass in the middle, moment of inertia 1.
const CENTRE: f64 = 0.5;
const MOMENT: f64 = 1.0;
const TOP_SPEEDS: [f64; 2] = [4.0 * PI, 9.0 * PI];

pub(crate) struct Acrobot;

impl Dynamics<4> for Acrobot {
    fn observation_space() -> Space {
        let high = vec![1.0, 1.0, 1.0, 1.0, TOP_SPEEDS[0] as f32, TOP_SPEEDS[1] as f32];
        Space::Box { low: high.iter().map(|bound| -bound).collect(), high }
    }

    fn action_space() -> Space {
        Space::Discrete { n: 3 }
    }

    fn initial_state(rng: &mut Rng) -> [f64; 4] {
        // Gymnasium keeps the initial state as float32.
        std::array::from_fn(|_| f64::from(rng.uniform(-0.1, 0.1) as f32))
    }

    fn step(state: &[f64; 4], action: f64, _first: bool) -> Transition<4> {
        let torque = action - 1.0;
        let [first, second, first_velocity, second_velocity] =
            runge_kutta(state, SECONDS, |state| derivative(state, torque));
        let state = [
            wrap(first),
            wrap(second),
            within(first_velocity, -TOP_SPEEDS[0], TOP_SPEEDS[0]),
            within(second_velocity, -TOP_SPEEDS[1], TOP_SPEEDS[1]),
        ];
        let terminated = -state[0].cos() - (state[1] + state[0]).cos() > 1.0;
        Transition { state, reward: if terminated { 0.0 } else { -1.0 }, terminated }
    }

    fn observe(&[first, second, first_velocity, second_velocity]: &[f64; 4], observation: &mut [f32]) {
        let values = [first.cos(), first.sin(), second.cos(), second.sin(), first_velocity, second_velocity];
        observation.copy_from_slice(&values.map(|value| value as f32));
    }
}

/// Velocities and accelerations, with the common factors 1 (lengths, masses) left out.
fn derivative(&[first, second, first_velocity, second_velocity]: &[f64; 4], torque: f64) -> [f64; 4] {
    let (sin, cos) = (second.sin(), second.cos());
    let d1 = CENTRE * CENTRE + (1.0 + CENTRE * CENTRE + 2.0 * CENTRE * cos) + MOMENT + MOMENT;
    let d2 = CENTRE * CENTRE + CENTRE * cos + MOMENT;
    let phi2 = CENTRE * GRAVITY * (first + second - PI / 2.0).cos();
    let phi1 = -CENTRE * (second_velocity * second_velocity) * sin
        - 2.0 * CENTRE * second_velocity * first_velocity * sin
        + (CENTRE + 1.0) * GRAVITY * (first - PI / 2.0).cos()
        + phi2;
    let second_acceleration =
        (torque + d2 / d1 * phi1 - CENTRE * (first_velocity * first_velocity) * sin - phi2)
            / (CENTRE * CENTRE + MOMENT - d2 * d2 / d1);
    let first_acceleration = -(d2 * second_acceleration + phi1) / d1;
    [first_velocity, second_velocity, first_acceleration, second_acceleration]
}

/// The angle in [-pi, pi], turn by turn as Gymnasium does it, so that the rounding is the same.
fn wrap(mut angle: f64) -> f64 {
    // No episode turns a link this far in one step; a state set from outside may.
    if angle.abs() > 100.0 * TAU {
        return (angle + PI).rem_euclid(TAU) - PI;
    }
    while angle > PI {
        angle -= TAU;
    }
    while angle < -PI {
        angle += TAU;
    }
    angle
}
