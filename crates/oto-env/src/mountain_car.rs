//! MountainCar-v0: swing an underpowered car up a hill, pushing left (0), not (1) or right (2).
//!
//! State and observation: position, velocity. The reward is -1 for every step; the episode terminates at position 0.5.
//! The left end is a wall that takes all speed. Source: Gymnasium's `classic_control/mountain_car.py`; Moore (1990).

use crate::Space;
use crate::classic::{Dynamics, Transition, observe_state};
use crate::rng::Rng;
use crate::space::within;

const FORCE: f64 = 0.001;
const GRAVITY: f64 = 0.0025;
const LEFT_END: f64 = -1.2;
const RIGHT_END: f64 = 0.6;
const GOAL: f64 = 0.5;
const TOP_SPEED: f64 = 0.07;

pub(crate) struct MountainCar;

impl Dynamics<2> for MountainCar {
    fn observation_space() -> Space {
        Space::Box {
            low: vec![LEFT_END as f32, -TOP_SPEED as f32],
            high: vec![RIGHT_END as f32, TOP_SPEED as f32],
        }
    }

    fn action_space() -> Space {
        Space::Discrete { n: 3 }
    }

    fn initial_state(rng: &mut Rng) -> [f64; 2] {
        [rng.uniform(-0.6, -0.4), 0.0]
    }

    fn step(&[position, velocity]: &[f64; 2], action: f64, _first: bool) -> Transition<2> {
        let pull = (action - 1.0) * FORCE + (3.0 * position).cos() * -GRAVITY;
        let mut velocity = within(velocity + pull, -TOP_SPEED, TOP_SPEED);
        let position = within(position + velocity, LEFT_END, RIGHT_END);
        if position == LEFT_END && velocity < 0.0 {
            velocity = 0.0;
        }
        let terminated = position >= GOAL && velocity >= 0.0;
        Transition { state: [position, velocity], reward: -1.0, terminated }
    }

    fn observe(state: &[f64; 2], observation: &mut [f32]) {
        observe_state(state, observation);
    }
}
