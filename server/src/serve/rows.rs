//! A policy that is asked in rows, whatever it does when it is asked.

use oto_policy::{Policy, PolicyError, fit_actions, logits};
use oto_proto::Space;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a policy is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// An action for each state.
    Actions,
    /// A number for each action that it chooses from.
    Logits,
}

/// A policy and the buffer of its answers.
pub(crate) struct Rows {
    policy: Box<dyn Policy>,
    actions: Vec<f32>,
}

impl Rows {
    pub fn new(policy: Box<dyn Policy>) -> Self {
        Rows { policy, actions: Vec::new() }
    }

    pub fn policy(&self) -> &dyn Policy {
        &*self.policy
    }

    pub fn into_policy(self) -> Box<dyn Policy> {
        self.policy
    }

    /// The same of a recurrent policy, each row the next step of an episode; see [`Policy::act_from`].
    pub fn act_from(
        &mut self,
        observations: &[f32],
        rows: usize,
        states: &mut [f32],
    ) -> Result<&[f32], PolicyError> {
        self.ask(rows, |policy, actions| policy.act_from(observations, rows, states, actions))
    }

    /// Asks the policy and checks its answer. Gives the actions `[rows, action width]`.
    pub fn act(&mut self, observations: &[f32], rows: usize) -> Result<&[f32], PolicyError> {
        self.ask(rows, |policy, actions| policy.act(observations, rows, actions))
    }

    fn ask(
        &mut self,
        rows: usize,
        act: impl FnOnce(&mut dyn Policy, &mut Vec<f32>) -> Result<(), PolicyError>,
    ) -> Result<&[f32], PolicyError> {
        let Rows { policy, actions } = self;
        catch_unwind(AssertUnwindSafe(|| act(&mut **policy, actions)))
            .unwrap_or_else(|_| Err(PolicyError::Run("it panicked".into())))?;
        let width = policy.action_space().width();
        if actions.len() != rows * width {
            let message = format!("it gave {} numbers for {rows} rows of {width}", actions.len());
            return Err(PolicyError::Run(message));
        }
        fit_actions(policy.action_space(), actions)?;
        Ok(actions)
    }

    /// Asks the policy for actions, or for logits `[rows, actions]`.
    pub fn answer(&mut self, asks: Asks, observations: &[f32], rows: usize) -> Result<&[f32], PolicyError> {
        match asks {
            Asks::Actions => self.act(observations, rows),
            Asks::Logits => self.logits(observations, rows),
        }
    }

    fn logits(&mut self, observations: &[f32], rows: usize) -> Result<&[f32], PolicyError> {
        let Rows { policy, actions } = self;
        let Space::Discrete { n } = *policy.action_space() else {
            return Err(PolicyError::Run("its actions are continuous, expected discrete ones".into()));
        };
        catch_unwind(AssertUnwindSafe(|| logits::of(&mut **policy, observations, rows, n as usize, actions)))
            .unwrap_or_else(|_| Err(PolicyError::Run("it panicked".into())))?;
        match actions.iter().find(|logit| !logit.is_finite()) {
            None => Ok(actions),
            Some(wrong) => Err(PolicyError::Run(format!("a logit is {wrong}, expected a finite number"))),
        }
    }
}
