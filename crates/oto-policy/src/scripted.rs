//! Baselines that need no file: `scripted:random` and `scripted:constant`.

use crate::{Output, Policy, PolicyError, check_rows};
use oto_env::rng::Rng;
use oto_proto::{Space, check_space};

/// The beginning of every scripted policy's name.
pub const PREFIX: &str = "scripted:";

/// Makes a scripted policy for these spaces.
///
/// - `scripted:random` and `scripted:random:SEED` (0 without one) draw actions uniformly. A component that has no bound
///   on a side is drawn from the standard normal distribution, cut to the bounds it has.
/// - `scripted:constant` and `scripted:constant:VALUE` (0 without one) always answer the same: this choice, or this
///   number in every component, cut to its bounds.
///
/// # Errors
/// If there is no such name, the value is no action, or a space is not valid.
pub fn scripted(name: &str, observation: Space, action: Space) -> Result<Box<dyn Policy>, PolicyError> {
    for space in [&observation, &action] {
        check_space(space).map_err(|e| PolicyError::Metadata(e.to_string()))?;
    }
    let unknown = || PolicyError::UnknownScript(name.chars().take(64).collect());
    let script = name.strip_prefix(PREFIX).ok_or_else(unknown)?;
    let (kind, value) = script.split_once(':').unwrap_or((script, "0"));
    match kind {
        "random" => {
            let rng = Rng::new(value.parse().map_err(|_| unknown())?);
            Ok(Box::new(Random { observation, action, rng }))
        }
        "constant" => {
            let value = value.parse().map_err(|_| unknown())?;
            let row = constant(&action, value).ok_or_else(unknown)?;
            Ok(Box::new(Constant { observation, action, row }))
        }
        _ => Err(unknown()),
    }
}

fn constant(action: &Space, value: f32) -> Option<Vec<f32>> {
    match action {
        Space::Discrete { n } => {
            (value >= 0.0 && value < *n as f32 && value.fract() == 0.0).then(|| vec![value])
        }
        Space::Box { low, high } => {
            let fit = |(low, high): (&f32, &f32)| value.max(*low).min(*high);
            value.is_finite().then(|| low.iter().zip(high).map(fit).collect())
        }
    }
}

struct Random {
    observation: Space,
    action: Space,
    rng: Rng,
}

impl Policy for Random {
    fn observation_space(&self) -> &Space {
        &self.observation
    }

    fn action_space(&self) -> &Space {
        &self.action
    }

    fn act(&mut self, observations: &[f32], rows: usize, actions: &mut Vec<f32>) -> Result<(), PolicyError> {
        check_rows(observations, rows, self.observation.width())?;
        actions.clear();
        for _ in 0..rows {
            match &self.action {
                Space::Discrete { n } => actions.push(self.rng.below(*n) as f32),
                Space::Box { low, high } => {
                    let rng = &mut self.rng;
                    actions.extend(low.iter().zip(high).map(|(low, high)| draw(rng, *low, *high)));
                }
            }
        }
        Ok(())
    }

    fn outputs(&mut self, observations: &[f32], rows: usize) -> Result<Vec<Output>, PolicyError> {
        only_action(self, observations, rows)
    }
}

fn draw(rng: &mut Rng, low: f32, high: f32) -> f32 {
    let x = if low.is_finite() && high.is_finite() {
        rng.uniform(low.into(), high.into()) as f32
    } else {
        rng.normal() as f32
    };
    // Also for the first case: rounding to single precision may pass a bound.
    x.max(low).min(high)
}

struct Constant {
    observation: Space,
    action: Space,
    row: Vec<f32>,
}

impl Policy for Constant {
    fn observation_space(&self) -> &Space {
        &self.observation
    }

    fn action_space(&self) -> &Space {
        &self.action
    }

    fn act(&mut self, observations: &[f32], rows: usize, actions: &mut Vec<f32>) -> Result<(), PolicyError> {
        check_rows(observations, rows, self.observation.width())?;
        actions.clear();
        (0..rows).for_each(|_| actions.extend_from_slice(&self.row));
        Ok(())
    }

    fn outputs(&mut self, observations: &[f32], rows: usize) -> Result<Vec<Output>, PolicyError> {
        only_action(self, observations, rows)
    }
}

/// What a policy that computes nothing but its action puts out.
pub(crate) fn only_action(
    policy: &mut dyn Policy,
    observations: &[f32],
    rows: usize,
) -> Result<Vec<Output>, PolicyError> {
    let mut values = Vec::new();
    policy.act(observations, rows, &mut values)?;
    let shape = match policy.action_space() {
        Space::Discrete { .. } => vec![rows],
        Space::Box { low, .. } => vec![rows, low.len()],
    };
    Ok(vec![Output { name: "action".into(), shape, values }])
}
