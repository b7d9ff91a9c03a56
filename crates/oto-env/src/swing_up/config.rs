//! The constants of the pendulum, its motor, its clock and its task. Any of them can be set by its name.

use oto_json::Shown;

/// What an action of 1 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actuation {
    /// The largest voltage of a motor with back-EMF.
    Voltage,
    /// The largest force.
    Force,
}

/// How a sub-step moves the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrator {
    /// Velocities first, then positions with the new velocities.
    SemiImplicit,
    /// All with the values before the sub-step.
    Euler,
}

/// The constants. Units are SI.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Gravity.
    pub gravity: f64,
    /// Mass of the cart.
    pub mass_cart: f64,
    /// Mass of the pole.
    pub mass_pole: f64,
    /// Length of the pole, from its pivot to its tip.
    pub pole_length: f64,
    /// Mass of the pole times half its length.
    pub pole_mass_length: f64,
    /// Friction factor: viscous friction of the cart, N s/m. The pole's mount has 1e-4 of it, N m s.
    pub k_f: f64,
    /// What an action of 1 is.
    pub actuation: Actuation,
    /// Voltage of an action of 1.
    pub voltage_max: f64,
    /// Force of an action of 1.
    pub force_max: f64,
    /// Duration of a step.
    pub control_period: f64,
    /// Sub-steps in a step.
    pub sub_steps: u32,
    /// How a sub-step moves the state.
    pub integrator: Integrator,
    /// Steps from the command of an action to its effect.
    pub delay: u32,
    /// Half the length of the track. The episode terminates there.
    pub x_max: f64,
    /// Angular velocity that terminates the episode.
    pub alpha_dot_max: f64,
    /// Decay of the reward with the tip's distance.
    pub delta: f64,
    /// Cost of an action of 1.
    pub u: f64,
    /// Cost of a termination.
    pub v: f64,
    /// Largest distance of the tip from its target that counts as on target.
    pub d_target: f64,
    /// Steps in an episode.
    pub max_steps: u32,
}

/// The largest delay: a second at 30 Hz.
pub(super) const LARGEST_DELAY: u32 = 30;

/// A constant that does not exist, or a value that it cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: expected {expected}, got {got:?}")]
pub struct ConfigError {
    /// The constant's name, shortened to 32 characters.
    pub name: String,
    /// The values that it can have.
    pub expected: String,
    /// The value that came, shortened to 32 characters.
    pub got: String,
}

impl ConfigError {
    pub(super) fn new(name: &str, expected: impl Into<String>, got: &str) -> Self {
        let short = |text: &str| text.chars().take(32).collect();
        Self { name: short(name), expected: expected.into(), got: short(got) }
    }
}

impl Default for Config {
    /// The rule.
    fn default() -> Self {
        Self {
            gravity: 9.8,
            mass_cart: 0.94,
            mass_pole: 0.23,
            pole_length: 0.64,
            pole_mass_length: 0.0736,
            k_f: 10.0,
            actuation: Actuation::Voltage,
            voltage_max: 8.0,
            force_max: 8.0,
            control_period: 1.0 / 30.0,
            sub_steps: 10,
            integrator: Integrator::SemiImplicit,
            delay: 1,
            x_max: 0.34,
            alpha_dot_max: 20.0,
            delta: 5.0,
            u: 0.1,
            v: 20.0,
            d_target: 0.05,
            max_steps: 1000,
        }
    }
}

impl Config {
    /// The simulator that the paper's authors published: one explicit Euler step, no delay, 5 V, and the pole's half length missing in
    /// one constant.
    pub fn published() -> Self {
        Self {
            pole_mass_length: 0.115,
            voltage_max: 5.0,
            force_max: 5.0,
            sub_steps: 1,
            integrator: Integrator::Euler,
            delay: 0,
            ..Self::default()
        }
    }

    /// The names that [`Self::set`] knows.
    pub const NAMES: &'static [&'static str] = &[
        "gravity",
        "mass_cart",
        "mass_pole",
        "pole_length",
        "pole_mass_length",
        "k_f",
        "actuation",
        "voltage_max",
        "force_max",
        "control_period",
        "sub_steps",
        "integrator",
        "delay",
        "x_max",
        "alpha_dot_max",
        "delta",
        "u",
        "v",
        "d_target",
        "max_steps",
    ];

    /// Sets a constant by its name.
    ///
    /// # Errors
    /// A name that is not known; a value out of its range. Nothing has changed then.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        if let Some((_, constant, least, largest)) = REALS.iter().find(|(known, ..)| *known == name) {
            *constant(self) = real(name, value, *least, *largest)?;
            return Ok(());
        }
        match name {
            "actuation" => {
                self.actuation =
                    choice(name, value, &[("voltage", Actuation::Voltage), ("force", Actuation::Force)])?;
            }
            "sub_steps" => self.sub_steps = whole(name, value, 1, 1000)?,
            "integrator" => {
                let known = [("semi_implicit", Integrator::SemiImplicit), ("euler", Integrator::Euler)];
                self.integrator = choice(name, value, &known)?;
            }
            "delay" => self.delay = whole(name, value, 0, LARGEST_DELAY)?,
            "max_steps" => self.max_steps = whole(name, value, 1, 1_000_000)?,
            _ => return Err(ConfigError::new(name, format!("one of {}", Self::NAMES.join(", ")), name)),
        }
        Ok(())
    }
}

/// A constant: its name, its place, its least and its largest value.
type Real = (&'static str, fn(&mut Config) -> &mut f64, f64, f64);

/// The constants that are numbers with fractions.
const REALS: [Real; 15] = [
    ("gravity", |config| &mut config.gravity, 0.0, 1000.0),
    ("mass_cart", |config| &mut config.mass_cart, 1e-6, 1000.0),
    ("mass_pole", |config| &mut config.mass_pole, 1e-6, 1000.0),
    ("pole_length", |config| &mut config.pole_length, 1e-6, 1000.0),
    ("pole_mass_length", |config| &mut config.pole_mass_length, 1e-6, 1000.0),
    ("k_f", |config| &mut config.k_f, 0.0, 1000.0),
    ("voltage_max", |config| &mut config.voltage_max, 0.0, 1000.0),
    ("force_max", |config| &mut config.force_max, 0.0, 1000.0),
    ("control_period", |config| &mut config.control_period, 1e-6, 1.0),
    ("x_max", |config| &mut config.x_max, 1e-6, 1000.0),
    ("alpha_dot_max", |config| &mut config.alpha_dot_max, 1e-6, 1000.0),
    ("delta", |config| &mut config.delta, 0.0, 1e6),
    ("u", |config| &mut config.u, 0.0, 1e6),
    ("v", |config| &mut config.v, 0.0, 1e6),
    ("d_target", |config| &mut config.d_target, 0.0, 1000.0),
];

/// A number from `least` to `largest`.
pub(super) fn real(name: &str, value: &str, least: f64, largest: f64) -> Result<f64, ConfigError> {
    let number = oto_json::number(value).filter(|number| (least..=largest).contains(number));
    let range = || format!("a number from {} to {}", Shown(least), Shown(largest));
    number.ok_or_else(|| ConfigError::new(name, range(), value))
}

/// A whole number from `least` to `largest`.
pub(super) fn whole(name: &str, value: &str, least: u32, largest: u32) -> Result<u32, ConfigError> {
    let number = value.parse().ok().filter(|number| (least..=largest).contains(number));
    number.ok_or_else(|| ConfigError::new(name, format!("a whole number from {least} to {largest}"), value))
}

/// One of several names.
pub(super) fn choice<T: Copy>(name: &str, value: &str, known: &[(&str, T)]) -> Result<T, ConfigError> {
    let found = known.iter().find(|(known, _)| *known == value);
    let names = || known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" or ");
    found.map(|(_, what)| *what).ok_or_else(|| ConfigError::new(name, names(), value))
}
