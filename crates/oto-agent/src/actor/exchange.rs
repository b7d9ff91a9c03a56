//! The link's side of an actor: what goes between the link and the steps. Rows go through the ring, weights through the double buffer, the
//! rest through [`Shared`].

use super::buffer::{DoubleBuffer, WriteError, Writing};
use super::control::Pace;
use super::decide::{Equipment, actions, network};
use super::explore::{Exploration, Explorer};
use super::link::ActorLink;
use super::real_time::period;
use super::report::ActorReport;
use crate::link::LinkState;
use crate::policy;
use crossbeam_utils::atomic::AtomicCell;
use oto_proto::weights::Output;
use oto_proto::{Hello, Model};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the steps and the link share: pointers that are exchanged, and numbers.
#[derive(Default)]
pub struct Shared {
    /// The network, on its way to the loop.
    pub(super) equipment: AtomicCell<Option<Box<Equipment>>>,
    /// Rows that the learner has.
    pub(super) acknowledged: AtomicU64,
    pub(super) backlog: AtomicU64,
    /// The newest row behind the weights that were written last.
    pub(super) reached: AtomicU64,
}

/// Sends rows, writes weights, makes the network that the learner describes.
pub struct Exchange {
    pub(super) shared: Arc<Shared>,
    pub(super) link: ActorLink,
    writing: Option<Writing>,
    /// Exploration instead of the learner's.
    exploration: Option<Exploration>,
    pace: Pace,
    seed: u64,
    /// Weights that found the buffer of the loop full.
    pending: Option<(u32, Vec<f32>)>,
}

impl Exchange {
    /// The link's side of the actor whose steps share `shared`.
    pub(super) fn new(
        shared: Arc<Shared>,
        link: ActorLink,
        exploration: Option<Exploration>,
        pace: Pace,
        seed: u64,
    ) -> Self {
        Exchange { shared, link, writing: None, exploration, pace, seed, pending: None }
    }

    /// What goes between the link and the loop. The error says why the learner refused for good.
    pub(super) fn exchange(&mut self) -> Result<(), String> {
        if self.link.state() == LinkState::Failed {
            let failure = self.link.failure().map(|error| error.message.clone());
            return Err(failure.unwrap_or_else(|| "for a reason that it did not say".into()));
        }
        if self.writing.is_none()
            && let Some(model) = self.link.model().cloned()
        {
            self.equip(&model)?;
        }
        self.shared.acknowledged.store(self.link.acknowledged(), Ordering::Relaxed);
        self.shared.backlog.store(self.link.learner_backlog(), Ordering::Relaxed);
        let Some(writing) = &mut self.writing else { return Ok(()) };
        if let Some((version, weights)) = self.link.take_weights() {
            let mut kept = self.pending.take().map_or(Vec::new(), |(_, weights)| weights);
            kept.clear();
            kept.extend_from_slice(weights);
            self.pending = Some((version, kept));
        }
        if let Some((version, weights)) = &self.pending {
            let reached = self.link.acknowledged().saturating_sub(self.link.learner_backlog());
            match writing.write(*version, weights) {
                Ok(()) => {
                    self.shared.reached.store(reached, Ordering::Release);
                    self.pending = None;
                }
                Err(WriteError::Busy { .. }) => {}
                // The link lets none of these through.
                Err(_) => self.pending = None,
            }
        }
        let acts = writing.acts();
        if acts > 0 {
            self.link.applied(acts);
        }
        Ok(())
    }

    /// The newest network as a policy's file, which `oto eval` plays and `oto serve` teaches with; none while there are no weights.
    pub(super) fn policy(&self, environment: &str) -> Option<Vec<u8>> {
        let (model, weights) = (self.link.model()?, self.link.weights()?);
        let Hello { observation, action, policy, .. } = self.link.hello();
        let mut network = network(model);
        let mut rest = weights;
        for part in network.parameters_mut() {
            let (now, later) = rest.split_at(part.len());
            part.copy_from_slice(now);
            rest = later;
        }
        let version = self.link.version();
        let description = format!("the network of an edge, version {version} of the learner {policy}");
        let squashed = model.output == Output::Tanh;
        Some(policy::write(&network, squashed, [observation, action], environment, policy, &description))
    }

    /// Makes the network that the learner described.
    fn equip(&mut self, model: &Model) -> Result<(), String> {
        let Hello { observation, action, .. } = self.link.hello();
        let outputs = match actions(action) {
            oto_rl::actions::Actions::Discrete(n) | oto_rl::actions::Actions::Continuous(n) => n,
        };
        let wrong = |expected: String, got: String| format!("expected a network {expected}, got {got}");
        model.check(outputs).map_err(|(expected, got)| wrong(expected, got))?;
        if model.inputs() != observation.width() {
            return Err(wrong(
                format!("for {} inputs", observation.width()),
                format!("one for {}", model.inputs()),
            ));
        }
        let learner = self.link.welcome().and_then(|welcome| welcome.learner.as_ref());
        let told = learner.and_then(|learner| learner.exploration.as_ref());
        let exploration = match (&self.exploration, told) {
            (Some(own), _) => own.clone(),
            (None, Some(told)) => checked(told)?,
            (None, None) => Exploration::default(),
        };
        let hz = learner.and_then(|learner| learner.hz).filter(|_| self.pace == Pace::Learner);
        let period = hz.map(period).transpose().map_err(|error| error.to_string())?;
        let explorer = Explorer::new(exploration, actions(action), self.seed);
        let (acting, writing) = DoubleBuffer::new(network(model)).split();
        let equipment = Equipment { acting, output: model.output, explorer, period };
        self.shared.equipment.store(Some(Box::new(equipment)));
        self.writing = Some(writing);
        Ok(())
    }

    /// A report with what the link knows.
    pub(super) fn seen(&self, report: ActorReport) -> ActorReport {
        let link = &self.link;
        ActorReport {
            acknowledged: link.acknowledged(),
            held: link.backlog(),
            backlog: link.learner_backlog(),
            connected: link.state() == LinkState::Ready,
            link: *link.stats(),
            problem: link.problem().map(str::to_owned),
            ..report
        }
    }
}

/// The learner's exploration, if it can be one.
fn checked(told: &oto_json::Json) -> Result<Exploration, String> {
    let exploration: Exploration =
        oto_json::from_tree(told).map_err(|error| format!("exploration: {error}"))?;
    let mut checks = oto_rl::checks::Checks::default();
    checks.within("exploration", |checks| exploration.check(checks));
    checks.done().map_err(|error| error.to_string())?;
    Ok(exploration)
}
