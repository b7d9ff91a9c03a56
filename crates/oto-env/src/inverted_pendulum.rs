//! InvertedPendulum-v5: balance a pole on a cart with a continuous force; Gymnasium's MuJoCo task in closed form.
//!
//! State and observation: cart position (m), pole angle (rad, positive leans towards +x), their velocities. The action is
//! clipped to [-3, 3] and is 100 N each. The reward is 1, and 0 for the step that terminates: |angle| > 0.2. Source:
//! Gymnasium's `mujoco/inverted_pendulum_v5.py` and its model file, compiled by MuJoCo; RK4, two substeps of 0.02 s.
//!
//! Away from the rail's ends this is MuJoCo's own result to rounding. At |x| > 1 the rail stop is MuJoCo's soft
//! constraint for a single joint limit, solved exactly ("Computation" chapter of MuJoCo's documentation: impedance,
//! reference acceleration, regularised inverse inertia). It agrees with the recorded steps there to rounding too: at most
//! 2.2e-16 in one step and over the seven steps into the stop, 2.3e-15 in one step from 400 states that hit either end
//! at up to 6 m/s. What is not modelled is the pole's own joint limit at 90 degrees: an episode ends long before it.

use crate::Space;
use crate::classic::{Dynamics, Transition, observe_state, runge_kutta};
use crate::rng::Rng;
use crate::space::within;

const SECONDS: f64 = 0.02;
const SUBSTEPS: usize = 2;
const GRAVITY: f64 = 9.81;
const GEAR: f64 = 100.0;
const TOP_CONTROL: f64 = 3.0;
/// Of both joints, in N s/m and N m s/rad.
const DAMPING: f64 = 1.0;
const CART_MASS: f64 = 10.471_975_511_965_98;
const POLE_MASS: f64 = 5.018_591_641_363_306;
/// The pole's moment of inertia about its centre of mass, which lies at (x, z) from the joint.
const POLE_INERTIA: f64 = 0.188_749_766_873_088_5;
const POLE_CENTRE: [f64; 2] = [0.0005, 0.3];
const ANGLE_LIMIT: f64 = 0.2;

const RAIL_END: f64 = 1.0;
/// MuJoCo's `solref` time constant; its default of 0.02 s is raised to two time steps (`refsafe`).
const STOP_SECONDS: f64 = 2.0 * SECONDS;
/// MuJoCo's default `solimp`: impedance at the end of the rail, at full depth, and that depth in metres.
const STOP_IMPEDANCE: [f64; 2] = [0.9, 0.95];
const STOP_DEPTH: f64 = 0.001;
/// The slider's inverse inertia in the model's rest position (`dof_invweight0`).
const SLIDER_INVERSE_INERTIA: f64 = 0.083_674_338_058_595_89;

pub(crate) struct InvertedPendulum;

impl Dynamics<4> for InvertedPendulum {
    fn observation_space() -> Space {
        Space::uniform(4, f32::NEG_INFINITY, f32::INFINITY)
    }

    fn action_space() -> Space {
        Space::uniform(1, -TOP_CONTROL as f32, TOP_CONTROL as f32)
    }

    fn initial_state(rng: &mut Rng) -> [f64; 4] {
        std::array::from_fn(|_| rng.uniform(-0.01, 0.01))
    }

    fn step(state: &[f64; 4], action: f64, _first: bool) -> Transition<4> {
        let force = GEAR * within(action, -TOP_CONTROL, TOP_CONTROL);
        let mut state = *state;
        for _ in 0..SUBSTEPS {
            state = runge_kutta(&state, SECONDS, |state| derivative(state, force));
        }
        let terminated = state[1].abs() > ANGLE_LIMIT;
        Transition { state, reward: if terminated { 0.0 } else { 1.0 }, terminated }
    }

    fn observe(state: &[f64; 4], observation: &mut [f32]) {
        observe_state(state, observation);
    }
}

/// Velocities and accelerations: `M(angle) acceleration = forces`, plus the rail stop's force.
fn derivative(&[x, angle, velocity, spin]: &[f64; 4], force: f64) -> [f64; 4] {
    let [centre_x, centre_z] = POLE_CENTRE;
    let (sin, cos) = angle.sin_cos();
    // The pole's centre of mass, turned by the angle: height above the joint and distance beside it.
    let height = centre_z * cos - centre_x * sin;
    let beside = centre_x * cos + centre_z * sin;

    let m11 = CART_MASS + POLE_MASS;
    let m12 = POLE_MASS * height;
    let m22 = POLE_INERTIA + POLE_MASS * (centre_x * centre_x + centre_z * centre_z);
    let determinant = m11 * m22 - m12 * m12;
    let linear_force = force - DAMPING * velocity + POLE_MASS * beside * spin * spin;
    let torque = POLE_MASS * GRAVITY * beside - DAMPING * spin;
    let free = (m22 * linear_force - m12 * torque) / determinant;
    let stop = rail_stop_force(x, velocity, free, m22 / determinant);

    let linear = free + m22 * stop / determinant;
    let angular = (m11 * torque - m12 * (linear_force + stop)) / determinant;
    [velocity, spin, linear, angular]
}

/// The force of the rail's end on the slider, zero on the rail. `free` is the slider's acceleration without it and
/// `inverse_inertia` what a unit force adds to that.
///
/// MuJoCo wants the acceleration of a spring and damper, `-b v - k d r`, and gives it as far as the impedance `d` allows; the
/// stop only pushes. With one constraint its optimisation problem is one division.
fn rail_stop_force(x: f64, velocity: f64, free: f64, inverse_inertia: f64) -> f64 {
    let depth = x.abs() - RAIL_END;
    if depth <= 0.0 {
        return 0.0;
    }
    let inwards = -x.signum();
    let relative = (depth / STOP_DEPTH).min(1.0);
    let rise = if relative < 0.5 {
        2.0 * relative * relative
    } else {
        1.0 - 2.0 * (1.0 - relative) * (1.0 - relative)
    };
    let [start, full] = STOP_IMPEDANCE;
    let impedance = start + rise * (full - start);
    let stiffness = 1.0 / (full * full * STOP_SECONDS * STOP_SECONDS);
    let damping = 2.0 / (full * STOP_SECONDS);
    let wanted = stiffness * impedance * depth - damping * inwards * velocity;
    let softness = (1.0 - impedance) / impedance * SLIDER_INVERSE_INERTIA;
    inwards * ((wanted - inwards * free) / (inverse_inertia + softness)).max(0.0)
}
