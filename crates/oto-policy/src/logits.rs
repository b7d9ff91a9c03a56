//! A policy as a teacher whose logits a student learns from ([`oto_rl::distillation`]).

use crate::load::RUN_POLICY;
use crate::{Output, Policy, PolicyError, TRIAL_ROWS, load_file, trial};
use oto_proto::Space;
use oto_rl::distillation::{LogitTeacher, MAX_ACTIONS};
use std::path::Path;

/// What a model may call its logits, best first. A student's own policy has `values`; those of a value function are logits, too: their
/// softmax prefers what they prefer.
const NAMES: [&str; 4] = ["logits", "values", "q_values", "preferences"];

/// A policy of discrete actions that gives a preference for each.
pub struct LogitPolicy {
    policy: Box<dyn Policy>,
    actions: usize,
}

impl LogitPolicy {
    /// Loads the policy of a file, or the best one of a run folder.
    ///
    /// # Errors
    /// As [`load_file`]; a policy of continuous actions, or without logits.
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let file = if path.is_dir() { path.join(RUN_POLICY) } else { path.to_owned() };
        let within = |source: PolicyError| PolicyError::In { path: file.clone(), source: Box::new(source) };
        Self::new(load_file(&file)?.policy).map_err(within)
    }

    /// The same of a loaded policy.
    ///
    /// # Errors
    /// A policy of continuous actions, without logits, or recurrent.
    pub fn new(mut policy: Box<dyn Policy>) -> Result<Self, PolicyError> {
        if policy.state_width() > 0 {
            return Err(PolicyError::Recurrent("a teacher of logits"));
        }
        let Space::Discrete { n } = *policy.action_space() else {
            return Err(PolicyError::Unsupported(
                "its actions are continuous: logits are those of discrete actions".into(),
            ));
        };
        let actions = n as usize;
        if actions > MAX_ACTIONS {
            let (found, max) = (actions as u64, MAX_ACTIONS as u64);
            return Err(PolicyError::TooLarge { what: "a teacher".into(), found, max, unit: "actions" });
        }
        let observations = trial(policy.observation_space());
        of(&mut *policy, &observations, TRIAL_ROWS, actions, &mut Vec::new())?;
        Ok(Self { policy, actions })
    }
}

/// Puts the logits `[rows, actions]` of observations `[rows, observation width]` into `out`, which is emptied first. They may be no
/// finite numbers.
///
/// # Errors
/// As [`Policy::outputs`]; a policy without logits.
pub fn of(
    policy: &mut dyn Policy,
    observations: &[f32],
    rows: usize,
    actions: usize,
    out: &mut Vec<f32>,
) -> Result<(), PolicyError> {
    out.clear();
    let outputs = policy.outputs(observations, rows)?;
    let Some(found) = output(&outputs, rows, actions) else {
        let names = outputs.iter().map(|output| format!("{:?} {:?}", output.name, output.shape));
        return Err(PolicyError::Unsupported(format!(
            "it gives no logits: expected an output [{rows}, {actions}] for {rows} observations, it has {}",
            names.collect::<Vec<_>>().join(", ")
        )));
    };
    out.extend_from_slice(&found.values);
    Ok(())
}

/// The output with the logits: one of the known names, or else the only one of their shape.
fn output(outputs: &[Output], rows: usize, actions: usize) -> Option<&Output> {
    let fits = |output: &&Output| output.name != "action" && output.shape == [rows, actions];
    let named = NAMES.iter().find_map(|name| outputs.iter().filter(fits).find(|output| output.name == *name));
    named.or_else(|| {
        let mut fitting = outputs.iter().filter(fits);
        fitting.next().filter(|_| fitting.next().is_none())
    })
}

impl LogitTeacher for LogitPolicy {
    fn observation(&self) -> usize {
        self.policy.observation_space().width()
    }

    fn actions(&self) -> usize {
        self.actions
    }

    fn logits(&mut self, observations: &[f32], rows: usize, out: &mut Vec<f32>) -> Result<(), String> {
        of(&mut *self.policy, observations, rows, self.actions, out).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Metadata, load, scripted};

    #[test]
    fn a_students_policy_gives_logits() {
        let layers = vec![oto_rl::mlp::Layer {
            weight: vec![1.0, 0.0, 0.0, 2.0, 1.0, 1.0],
            bias: vec![0.5, 0.0, -1.0],
            activation: oto_rl::mlp::Activation::Identity,
        }];
        let network = oto_rl::mlp::Mlp::new(2, layers).unwrap();
        let (observation, action) =
            (oto_env::Space::uniform(2, -9.0, 9.0), oto_env::Space::Discrete { n: 3 });
        let file =
            oto_agent::policy::write(&network.into(), false, [&observation, &action], "e", "oto a3c", "d");
        let policy = load(&file, &Metadata::default()).unwrap();
        let mut teacher = LogitPolicy::new(policy).unwrap();
        assert_eq!((teacher.observation(), teacher.actions()), (2, 3));
        let mut out = Vec::new();
        teacher.logits(&[1.0, 2.0, 0.0, 0.0], 2, &mut out).unwrap();
        assert_eq!(out, [1.5, 4.0, 2.0, 0.5, 0.0, -1.0]);
        assert!(teacher.logits(&[f32::NAN, 2.0], 1, &mut out).unwrap_err().contains("not a finite number"));
    }

    #[test]
    fn a_policy_without_logits_is_refused() {
        let refused = |action: Space| {
            let observation = Space::Box { low: vec![0.0], high: vec![1.0] };
            let policy = scripted("scripted:random", observation, action).unwrap();
            LogitPolicy::new(policy).err().unwrap().to_string()
        };
        assert!(refused(Space::Discrete { n: 3 }).contains("it gives no logits"));
        let continuous = refused(Space::Box { low: vec![0.0], high: vec![1.0] });
        assert!(continuous.contains("continuous"), "{continuous}");
    }
}
