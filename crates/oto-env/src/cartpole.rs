//! CartPole-v0 and -v1: balance a pole on a cart by pushing left (0) or right (1).
//!
//! State and observation: cart position (m), its velocity, pole angle (rad, positive leans towards +x), its velocity. The
//! reward is 1 for every step, the last included. The episode terminates beyond 2.4 m or 12 degrees. Source: Gymnasium's
//! `classic_control/cartpole.py`; Barto, Sutton and Anderson (1983), with the friction-free equations of Florian (2007).

use crate::Space;
use crate::classic::{Dynamics, Transition, observe_state};
use crate::rng::Rng;

const GRAVITY: f64 = 9.8;
const POLE_MASS: f64 = 0.1;
const TOTAL_MASS: f64 = POLE_MASS + 1.0;
const HALF_LENGTH: f64 = 0.5;
const POLE_MOMENT: f64 = POLE_MASS * HALF_LENGTH;
const FORCE: f64 = 10.0;
const SECONDS: f64 = 0.02;
const POSITION_LIMIT: f64 = 2.4;
const ANGLE_LIMIT: f64 = 12.0 * 2.0 * std::f64::consts::PI / 360.0;

pub(crate) struct CartPole;

impl Dynamics<4> for CartPole {
    fn observation_space() -> Space {
        let high =
            vec![(2.0 * POSITION_LIMIT) as f32, f32::INFINITY, (2.0 * ANGLE_LIMIT) as f32, f32::INFINITY];
        Space::Box { low: high.iter().map(|bound| -bound).collect(), high }
    }

    fn action_space() -> Space {
        Space::Discrete { n: 2 }
    }

    fn initial_state(rng: &mut Rng) -> [f64; 4] {
        std::array::from_fn(|_| rng.uniform(-0.05, 0.05))
    }

    fn step(&[x, velocity, angle, spin]: &[f64; 4], action: f64, _first: bool) -> Transition<4> {
        let force = if action == 1.0 { FORCE } else { -FORCE };
        let (sin, cos) = (angle.sin(), angle.cos());
        let push = (force + POLE_MOMENT * (spin * spin) * sin) / TOTAL_MASS;
        let angular =
            (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * (cos * cos) / TOTAL_MASS));
        let linear = push - POLE_MOMENT * angular * cos / TOTAL_MASS;
        // Explicit Euler: positions move with the velocities before the step.
        let state = [
            x + SECONDS * velocity,
            velocity + SECONDS * linear,
            angle + SECONDS * spin,
            spin + SECONDS * angular,
        ];
        let terminated = state[0].abs() > POSITION_LIMIT || state[2].abs() > ANGLE_LIMIT;
        Transition { state, reward: 1.0, terminated }
    }

    fn observe(state: &[f64; 4], observation: &mut [f32]) {
        observe_state(state, observation);
    }
}
