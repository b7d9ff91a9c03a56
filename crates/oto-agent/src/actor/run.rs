//! What an actor does ([`ActorRun`]), and the two halves that it is made of: its steps and its link's side.

use super::control::{Control, Pace};
use super::decide::{Decider, SafeActionError};
use super::exchange::{Exchange, Shared};
use super::explore::Exploration;
use super::link::{ActorConfig, ActorLink};
use super::real_time::{FrequencyError, period};
use super::ring::ring;
use oto_env::Space;
use oto_proto::{ActorInfo, Dtype, Encoding, ErrorMessage, Grant, Hello, RowFormat, StreamId};
use oto_rl::checks::{Checks, ConfigError};
use std::sync::Arc;

/// Rows that are held by default until they are acknowledged.
pub const USUAL_RING: usize = 20_000;

/// What an actor does.
#[derive(Clone, Debug)]
pub struct ActorRun {
    /// The introduction to the learner; its stream is drawn anew.
    pub link: ActorConfig,
    /// How fast it steps.
    pub pace: Pace,
    /// Steps in all; none: until it is stopped.
    pub steps: Option<u64>,
    /// Rows that are held until they are acknowledged.
    pub ring: usize,
    /// The action while there are no weights, in the environment's units.
    pub safe: Option<Vec<f32>>,
    /// Seed of the environment's episodes and of exploration.
    pub seed: u64,
    /// Exploration instead of the learner's.
    pub exploration: Option<Exploration>,
    /// Training episodes between two evaluations; 0: no evaluation.
    pub evaluate_every: u64,
}

/// The settings of an actor in a page and on a WASI host.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(default, deny_unknown_fields))]
pub struct ActorSettings {
    /// Name of this edge on the server. A newer edge of the same name replaces an older one.
    pub name: String,
    /// Steps a second; 0: as fast as the learner keeps up. Left out: the learner's `hz`, or 30.
    pub hz: Option<f64>,
    /// Seed of exploration and of a built-in environment's episodes.
    pub seed: u64,
    /// Rows that are held while the learner cannot be reached.
    pub ring: u32,
    /// Action while there are no weights, in the environment's units. Left out: the middle of each range, or the first choice.
    pub safe_action: Option<Vec<f32>>,
    /// Exploration instead of the learner's.
    pub exploration: Option<Exploration>,
    /// Training episodes between two evaluations, whose steps do not explore and are not learned from; 0: no evaluation.
    pub evaluate_every: u64,
    /// Encodings of weights that may come, the preferred one first.
    #[cfg_attr(feature = "schema", schemars(schema_with = "encodings"))]
    pub weights: Vec<Encoding>,
}

oto_json::json_object! {
    ActorSettings: settings { name, hz, seed, ring, safe_action, exploration, evaluate_every, weights }
}

#[cfg(feature = "schema")]
fn encodings(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "array", "items": { "enum": ["delta", "f16", "f32"] } })
}

impl Default for ActorSettings {
    fn default() -> Self {
        ActorSettings {
            name: "edge".into(),
            hz: None,
            seed: 0,
            ring: USUAL_RING as u32,
            safe_action: None,
            exploration: None,
            evaluate_every: 0,
            weights: vec![Encoding::Delta, Encoding::F16, Encoding::F32],
        }
    }
}

impl ActorSettings {
    /// The run with these settings, with the learner `policy`, in an environment with these spaces.
    ///
    /// # Errors
    /// A setting out of its range. Others are refused with [`ActorRun::halves`].
    pub fn run(self, policy: &str, observation: &Space, action: &Space) -> Result<ActorRun, ConfigError> {
        let mut checks = Checks::default();
        checks.whole("ring", u64::from(self.ring), 2..=1 << 24, "2 to 16777216 rows");
        if let Some(hz) = self.hz {
            let good = hz == 0.0 || period(hz).is_ok();
            checks.that(good, "hz", || oto_json::shown(&hz), "0, or 1/60 to 100000 Hz");
        }
        if let Some(exploration) = &self.exploration {
            checks.within("exploration", |checks| exploration.check(checks));
        }
        checks.that(!self.weights.is_empty(), "weights", || "empty".into(), "one encoding at least");
        checks.done()?;
        let mut run = ActorRun::new(policy, &self.name, observation, action);
        if let Some(actor) = &mut run.link.hello.actor {
            actor.weights = self.weights;
        }
        run.set_hz(self.hz);
        Ok(ActorRun {
            ring: self.ring as usize,
            safe: self.safe_action,
            seed: self.seed,
            exploration: self.exploration,
            evaluate_every: self.evaluate_every,
            ..run
        })
    }
}

/// A run that cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The introduction.
    #[error("{0}")]
    Hello(String),
    /// A frequency that no loop has.
    #[error(transparent)]
    Frequency(#[from] FrequencyError),
    /// A safe action that the environment does not have.
    #[error(transparent)]
    Safe(#[from] SafeActionError),
}

impl ActorRun {
    /// A run of the edge `name` with the learner `policy`, in an environment with these spaces: at the learner's pace, with its exploration,
    /// without evaluations.
    pub fn new(policy: &str, name: &str, observation: &Space, action: &Space) -> Self {
        let actor = ActorInfo {
            name: name.into(),
            stream: StreamId(0),
            first: 0,
            weights: vec![Encoding::Delta, Encoding::F16, Encoding::F32],
            version: 0,
        };
        let hello = Hello {
            protocol: oto_proto::PROTOCOL.into(),
            policy: policy.into(),
            student: name.into(),
            observation: observation.clone(),
            action: action.clone(),
            adapter: None,
            dtype: Dtype::F32,
            action_dtype: None,
            quantization: None,
            grants: vec![Grant::Transitions, Grant::Weights],
            stage: None,
            order: None,
            ticket: None,
            actor: Some(actor),
            worker: None,
            member: None,
        };
        ActorRun {
            link: ActorConfig::new(hello),
            pace: Pace::Learner,
            steps: None,
            ring: USUAL_RING,
            safe: None,
            seed: 0,
            exploration: None,
            evaluate_every: 0,
        }
    }

    /// Sets the frequency in steps a second: 0 is as fast as the learner keeps up, none is the learner's frequency.
    pub fn set_hz(&mut self, hz: Option<f64>) {
        self.pace = match hz {
            None => Pace::Learner,
            Some(0.0) => Pace::Free,
            Some(hz) => Pace::Hz(hz),
        };
        if self.pace == Pace::Free {
            // The learner waits for these rows.
            (self.link.batch, self.link.flush_ms) = (64, 1);
        }
    }

    /// Makes the two halves of the actor. `random` names its stream of rows: 128 random bits. Deadlines begin at `now`, in
    /// nanoseconds.
    ///
    /// # Errors
    /// What contradicts itself, a frequency or a safe action that there is not.
    pub fn halves(self, random: u128, now: u64) -> Result<(Control, Exchange), RunError> {
        let ActorRun { mut link, pace, steps: _, ring: rows, safe, seed, exploration, evaluate_every } = self;
        let beat = pace.period()?;
        if let Some(actor) = &mut link.hello.actor {
            actor.stream = StreamId(random);
        }
        link.seed = seed ^ random.rotate_right(64) as u64;
        let hello = |error: ErrorMessage| RunError::Hello(error.message);
        let formats = link.hello.formats().map_err(hello)?;
        let (space, width) = (link.hello.action.clone(), link.hello.observation.width());
        let (recorder, reader) = ring(RowFormat::new(&formats, &space), rows);
        let link = ActorLink::new(link, reader).map_err(hello)?;
        let decider = Decider::new(space, safe.as_deref())?;
        let shared = Arc::<Shared>::default();
        let control = Control::new(shared.clone(), recorder, decider, width, evaluate_every, (beat, now));
        Ok((control, Exchange::new(shared, link, exploration, pace, seed)))
    }
}
