//! Pendulum-v1: swing a pendulum up and hold it with a torque in [-2, 2] (clipped, also in the cost).
//!
//! State: angle (rad, 0 is up, not wrapped), angular velocity (rad/s). Observation: cosine, sine, angular velocity. The
//! reward, `-(wrapped angle^2 + 0.1 velocity^2 + 0.001 torque^2)`, is of the state before the step; an episode never
//! terminates. Source: Gymnasium's `classic_control/pendulum.py`.

use crate::Space;
use crate::classic::{Dynamics, Transition};
use crate::rng::Rng;
use crate::space::within;
use std::f64::consts::{PI, TAU};

const GRAVITY: f64 = 10.0;
const SECONDS: f64 = 0.05;
const TOP_SPEED: f64 = 8.0;
const TOP_TORQUE: f64 = 2.0;

pub(crate) struct Pendulum;

impl Dynamics<2> for Pendulum {
    fn observation_space() -> Space {
        let high = vec![1.0, 1.0, TOP_SPEED as f32];
        Space::Box { low: high.iter().map(|bound| -bound).collect(), high }
    }

    fn action_space() -> Space {
        Space::uniform(1, -TOP_TORQUE as f32, TOP_TORQUE as f32)
    }

    fn initial_state(rng: &mut Rng) -> [f64; 2] {
        [rng.uniform(-PI, PI), rng.uniform(-1.0, 1.0)]
    }

    fn step(&[angle, velocity]: &[f64; 2], action: f64, _first: bool) -> Transition<2> {
        let torque = within(action, -TOP_TORQUE, TOP_TORQUE);
        let wrapped = (angle + PI).rem_euclid(TAU) - PI;
        let cost = wrapped * wrapped + 0.1 * (velocity * velocity) + 0.001 * (torque * torque);
        // A rod of length 1 and mass 1: 3 g / 2 l and 3 / m l^2.
        let acceleration = 3.0 * GRAVITY / 2.0 * angle.sin() + 3.0 * torque;
        let velocity = within(velocity + acceleration * SECONDS, -TOP_SPEED, TOP_SPEED);
        let state = [angle + velocity * SECONDS, velocity];
        Transition { state, reward: -cost, terminated: false }
    }

    fn observe(&[angle, velocity]: &[f64; 2], observation: &mut [f32]) {
        observation.copy_from_slice(&[angle.cos() as f32, angle.sin() as f32, velocity as f32]);
    }
}
