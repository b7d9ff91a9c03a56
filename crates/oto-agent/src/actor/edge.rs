//! An actor on one thread, without a clock, a socket or an environment: for a page, and for a WASI host.
//!
//! The owner drives [`Edge::link`] over a socket, and calls [`Edge::exchange`] afterwards. Between two steps new weights come to act, and
//! rows leave. Natively [`super::drive`] has the two halves on threads of their own.

use super::control::Control;
use super::exchange::Exchange;
use super::link::ActorLink;
use super::report::ActorReport;
use super::run::{ActorRun, RunError};
use oto_env::{Action, Step};
use oto_proto::{Flags, FrameError};

/// Why a step was not made. The actor is as it was.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StepError {
    /// An observation of another width.
    #[error("expected an observation of {expected} numbers, got {got}")]
    Width {
        /// The environment's.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// A step before an episode's first observation, or after its end.
    #[error("expected an episode under way: begin one")]
    NotBegun,
    /// A second action, or a result without an action before it.
    #[error("expected {0}")]
    Order(&'static str),
    /// A row that cannot be written.
    #[error(transparent)]
    Row(#[from] FrameError),
}

/// An actor on one thread.
pub struct Edge {
    control: Control,
    exchange: Exchange,
    /// When the step under way began; its result is due.
    asked: Option<u64>,
}

impl Edge {
    /// An actor for a run; see [`ActorRun::halves`].
    ///
    /// # Errors
    /// A run that cannot begin.
    pub fn new(run: ActorRun, random: u128, now: u64) -> Result<Self, RunError> {
        let (control, exchange) = run.halves(random, now)?;
        Ok(Edge { control, exchange, asked: None })
    }

    /// The conversation with the learner, for the driver of a socket.
    pub fn link(&mut self) -> &mut ActorLink {
        &mut self.exchange.link
    }

    /// Takes over what the link has received. Call it after the link was driven, and before a step.
    ///
    /// # Errors
    /// Why the learner refused for good. The actor may continue with the weights that it has.
    pub fn exchange(&mut self) -> Result<(), String> {
        self.exchange.exchange()
    }

    /// The steps: deadlines, counts, the state of the episode.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// An episode begins with this observation. One that is under way is cut off.
    ///
    /// # Errors
    /// Another width.
    pub fn begin(&mut self, observation: &[f32], now: u64) -> Result<(), StepError> {
        self.check(observation)?;
        self.cut()?;
        self.control.observation().copy_from_slice(observation);
        self.control.begin(now);
        Ok(())
    }

    /// A step begins: the action for the newest observation.
    ///
    /// # Errors
    /// No episode is under way, or the last step has no result yet.
    pub fn act(&mut self, now: u64) -> Result<Action<'_>, StepError> {
        match (self.control.runs(), self.asked) {
            (false, _) => return Err(StepError::NotBegun),
            (true, Some(_)) => return Err(StepError::Order("the result of the last step")),
            (true, None) => {}
        }
        self.control.act(now)?;
        self.asked = Some(now);
        Ok(self.control.action().0)
    }

    /// The action chosen last.
    pub fn action(&mut self) -> Action<'_> {
        self.control.action().0
    }

    /// Whether a step waits for its result.
    pub fn waits(&self) -> bool {
        self.asked.is_some()
    }

    /// The result of the step under way; `fault`: what the environment says about the observation
    /// ([`faulty`](super::control::faulty)). True: the episode is over.
    ///
    /// # Errors
    /// Another width, or no step.
    pub fn stepped(
        &mut self,
        step: Step,
        fault: Flags,
        observation: &[f32],
        now: u64,
    ) -> Result<bool, StepError> {
        self.check(observation)?;
        let asked = self.asked.take().ok_or(StepError::Order("an action before its result"))?;
        self.control.observation().copy_from_slice(observation);
        Ok(self.control.stepped(step, fault, asked, now)?)
    }

    /// Cuts the episode off, if one is under way. A step without a result counts for nothing.
    ///
    /// # Errors
    /// A row that cannot be written.
    pub fn cut(&mut self) -> Result<(), StepError> {
        match self.asked.take() {
            Some(_) => self.control.abandon(),
            None => self.control.cut()?,
        }
        Ok(())
    }

    /// The deadlines begin anew, after a pause that was meant.
    pub fn resume(&mut self, now: u64) {
        self.control.resume(now);
    }

    /// The newest network as a policy's file, for an environment of this name; none while there are no weights.
    pub fn policy(&self, environment: &str) -> Option<Vec<u8>> {
        self.exchange.policy(environment)
    }

    /// How the actor stands.
    pub fn report(&mut self) -> ActorReport {
        let report = self.control.report().clone();
        self.exchange.seen(report)
    }

    fn check(&mut self, observation: &[f32]) -> Result<(), StepError> {
        let (expected, got) = (self.control.observation().len(), observation.len());
        if expected == got { Ok(()) } else { Err(StepError::Width { expected, got }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oto_env::Space;

    const MS: u64 = 1_000_000;

    fn edge() -> Edge {
        let of = |width, bound: f32| Space::Box { low: vec![-bound; width], high: vec![bound; width] };
        let mut run = ActorRun::new("p", "edge", &of(2, f32::MAX), &of(1, 2.0));
        run.set_hz(Some(100.0));
        run.safe = Some(vec![0.5]);
        Edge::new(run, 7, 0).unwrap()
    }

    fn step(terminated: bool) -> Step {
        Step { reward: 1.0, terminated, truncated: false }
    }

    /// Without a learner an actor takes its safe action, counts its deadlines, and holds its rows.
    #[test]
    fn steps_are_made_without_a_learner() {
        let mut edge = edge();
        edge.begin(&[0.0, 1.0], 0).unwrap();
        for i in 0..3 {
            // The last step comes three periods late.
            let now = if i < 2 { 10 * MS * i } else { 50 * MS };
            assert_eq!(edge.act(now).unwrap(), Action::Continuous(&[0.5]));
            assert_eq!(edge.stepped(step(i == 2), Flags::NONE, &[0.0, 2.0], now + MS), Ok(i == 2));
        }
        let report = edge.report();
        assert_eq!((report.steps, report.episodes, report.last_return), (3, 1, Some(3.0)));
        assert_eq!((report.counts.safe, report.counts.missed, report.version), (3, 3, 0));
        // Three steps and the end of the episode.
        assert_eq!((report.recorded, report.held, report.acknowledged), (4, 4, 0));
        assert_eq!(edge.act(60 * MS), Err(StepError::NotBegun));
        edge.begin(&[0.0, 1.0], 60 * MS).unwrap();
        edge.act(60 * MS).unwrap();
        assert_eq!(edge.report().counts.missed, 3, "a reset misses no deadline");
    }

    /// What an owner does in the wrong order, or with other numbers, is an error that changes nothing.
    #[test]
    fn an_owner_is_held_to_the_order_of_steps() {
        let mut edge = edge();
        assert_eq!(edge.act(0), Err(StepError::NotBegun));
        assert_eq!(edge.begin(&[0.0], 0), Err(StepError::Width { expected: 2, got: 1 }));
        edge.begin(&[0.0, 0.0], 0).unwrap();
        assert!(matches!(edge.stepped(step(false), Flags::NONE, &[0.0; 2], 0), Err(StepError::Order(_))));
        edge.act(0).unwrap();
        assert!(matches!(edge.act(0), Err(StepError::Order(_))));
        assert_eq!(
            edge.stepped(step(false), Flags::NONE, &[0.0; 3], 0),
            Err(StepError::Width { expected: 2, got: 3 })
        );
        assert_eq!(
            edge.stepped(step(false), Flags::NONE, &[f32::NAN; 2], 0),
            Ok(false),
            "a faulty sensor is a row"
        );
        edge.act(MS).unwrap();
        assert_eq!(edge.report().recorded, 2);
        // The step has no result: the episode has no end, and the next one begins.
        edge.cut().unwrap();
        assert_eq!(edge.report().recorded, 2);
        edge.begin(&[0.0, 0.0], 0).unwrap();
        edge.act(MS).unwrap();
        edge.stepped(step(false), Flags::NONE, &[0.0; 2], 0).unwrap();
        edge.cut().unwrap();
        assert_eq!((edge.report().recorded, edge.report().episodes), (4, 0), "a step and its end");
    }
}
