//! MountainCarContinuous-v0: swing an underpowered car up a hill with a force in [-1, 1].
//!
//! State and observation: position, velocity. The force is clipped, but the cost `0.1 * action^2` counts the action as it
//! came; reaching position 0.45 gives 100 and terminates. Source: Gymnasium's `classic_control/continuous_mountain_car.py`.
//!
//! Gymnasium stores the state as float32 after each step, and NumPy then computes parts of the next step in float32. Which
//! parts follows from NumPy's promotion rules (NEP 50), spelled out below, so that whole episodes agree and not only one step.

use crate::Space;
use crate::classic::{Dynamics, Transition, observe_state};
use crate::rng::Rng;
use crate::space::within;

const POWER: f64 = 0.0015;
const LEFT_END: f64 = -1.2;
const RIGHT_END: f64 = 0.6;
const GOAL: f64 = 0.45;
const TOP_SPEED: f64 = 0.07;

pub(crate) struct MountainCarContinuous;

impl Dynamics<2> for MountainCarContinuous {
    fn observation_space() -> Space {
        Space::Box {
            low: vec![LEFT_END as f32, -TOP_SPEED as f32],
            high: vec![RIGHT_END as f32, TOP_SPEED as f32],
        }
    }

    fn action_space() -> Space {
        Space::uniform(1, -1.0, 1.0)
    }

    fn initial_state(rng: &mut Rng) -> [f64; 2] {
        [rng.uniform(-0.6, -0.4), 0.0]
    }

    fn step(&[position, velocity]: &[f64; 2], action: f64, first: bool) -> Transition<2> {
        // Only the state that an episode begins with is float64.
        let single = !first;
        let force = within(action, -1.0, 1.0);
        let pull = force * POWER - 0.0025 * narrow(3.0 * position, single).cos();
        // A limit that replaces a number is a plain Python number, which leaves a float32 partner float32, whereas an
        // action used as it came is a float64 and widens.
        let mut in_single = single && force != action;
        let mut velocity = narrow(velocity + narrow(pull, in_single), in_single);
        if velocity.abs() > narrow(TOP_SPEED, in_single) {
            velocity = narrow(TOP_SPEED, single).copysign(velocity);
            in_single = single;
        }
        let position = within(narrow(position + velocity, in_single), LEFT_END, RIGHT_END);
        if position == LEFT_END && velocity < 0.0 {
            velocity = 0.0;
        }
        let terminated = position >= narrow(GOAL, in_single) && velocity >= 0.0;
        let reward = if terminated { 100.0 } else { 0.0 } - action * action * 0.1;
        Transition { state: [narrow(position, true), narrow(velocity, true)], reward, terminated }
    }

    fn observe(state: &[f64; 2], observation: &mut [f32]) {
        observe_state(state, observation);
    }
}

/// `value`, rounded to float32 if `single`.
fn narrow(value: f64, single: bool) -> f64 {
    if single { f64::from(value as f32) } else { value }
}
