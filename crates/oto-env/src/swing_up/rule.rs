//! The equations of motion, and what a state is worth. All arithmetic has the order of the recorded reference.
//!
//! Barto, Sutton and Anderson (1983) with the equations of Florian (2007), for a uniform rod whose moment about its pivot is
//! 4/3 m (L/2)^2, with viscous friction of the cart:
//! `M x'' + p (alpha'' cos - alpha'^2 sin) = F - k_f x'` and `4/3 p (L/2) alpha'' + p x'' cos - p g sin = -mu_p alpha'`.

use super::{Actuation, Config, Integrator};

/// Cart position, its velocity, the pole's angle, its velocity.
pub(super) type Motion = [f64; 4];

/// Friction of the pole's mount as a share of the cart's (N m s for N s/m).
const MOUNT: f64 = 1e-4;

/// The drive between command and cart, where it differs from the simulation's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drive {
    /// The share of the motor's force that the cart gets.
    pub motor: f64,
    /// Coulomb friction on the rail, N.
    pub coulomb: f64,
    /// Speed at which Coulomb friction is three quarters of its full size, m/s: a smooth step is stable in sub-steps.
    pub coulomb_speed: f64,
}

/// The simulation's drive.
pub(super) const IDEAL: Drive = Drive { motor: 1.0, coulomb: 0.0, coulomb_speed: 1.0 };

/// The motion after a step under one command, and the motion in the middle of the step.
pub(super) fn step(config: &Config, drive: &Drive, motion: Motion, applied: f64) -> [Motion; 2] {
    let tau = config.control_period / f64::from(config.sub_steps);
    let (mut now, mut middle) = (motion, motion);
    for sub_step in 0..config.sub_steps {
        if sub_step == config.sub_steps / 2 {
            middle = now;
        }
        now = sub_stepped(config, drive, now, applied, tau);
    }
    now[2] = wrapped(now[2]);
    [now, middle]
}

fn sub_stepped(config: &Config, drive: &Drive, motion: Motion, applied: f64, tau: f64) -> Motion {
    let [x, x_dot, alpha, alpha_dot] = motion;
    let [xacc, aacc] = accelerations(config, drive, motion, applied);
    match config.integrator {
        Integrator::SemiImplicit => {
            let x_dot = x_dot + tau * xacc;
            let alpha_dot = alpha_dot + tau * aacc;
            [x + tau * x_dot, x_dot, alpha + tau * alpha_dot, alpha_dot]
        }
        Integrator::Euler => {
            [x + tau * x_dot, x_dot + tau * xacc, alpha + tau * alpha_dot, alpha_dot + tau * aacc]
        }
    }
}

/// Of the cart and of the pole.
fn accelerations(config: &Config, drive: &Drive, motion: Motion, applied: f64) -> [f64; 2] {
    let [_, x_dot, alpha, alpha_dot] = motion;
    let &Config { gravity, mass_cart, mass_pole, pole_length, pole_mass_length: p, k_f, .. } = config;
    let mu_p = k_f * MOUNT;
    let force = force(config, drive, x_dot, applied);
    let mass = mass_cart + mass_pole;
    let (c, s) = (alpha.cos(), alpha.sin());
    let temp = (force + p * (alpha_dot * alpha_dot) * s - k_f * x_dot) / mass;
    let aacc = (gravity * s - c * temp - mu_p * alpha_dot / p)
        / (pole_length / 2.0 * (4.0 / 3.0 - mass_pole * (c * c) / mass));
    [temp - p * aacc * c / mass, aacc]
}

/// The force on the cart, without viscous friction. The voltage's constants are those of the Quanser IP02.
fn force(config: &Config, drive: &Drive, x_dot: f64, applied: f64) -> f64 {
    let force = match config.actuation {
        Actuation::Voltage => 17.69 * ((applied * config.voltage_max) * 6.35 - 28.4928 * x_dot) / 104.8385,
        Actuation::Force => applied * config.force_max,
    };
    if drive.coulomb == 0.0 {
        return drive.motor * force;
    }
    drive.motor * force - drive.coulomb * (x_dot / drive.coulomb_speed).tanh()
}

/// The angle between -pi and pi.
pub(super) fn wrapped(alpha: f64) -> f64 {
    alpha.sin().atan2(alpha.cos())
}

/// The distance of the pole's tip from its place with the cart in the middle and the pole upright.
pub(super) fn distance(config: &Config, &[x, _, alpha, _]: &Motion) -> f64 {
    let length = config.pole_length;
    let dx = x + length * alpha.sin();
    let dy = length * alpha.cos() - length;
    (dx * dx + dy * dy).sqrt()
}

/// Whether the episode terminates in this state.
pub(super) fn terminated(config: &Config, &[x, _, _, alpha_dot]: &Motion) -> bool {
    x.abs() >= config.x_max || alpha_dot.abs() >= config.alpha_dot_max
}

/// The reward of an action (clipped) at this distance (the paper's eq. 9).
pub(super) fn reward(config: &Config, distance: f64, action: f64, terminated: bool) -> f64 {
    (-config.delta * distance).exp()
        - config.u * (action * action)
        - config.v * f64::from(u8::from(terminated))
}
