//! The actors behind the world `oto:edge/actor`: the host owns plant and clock.

use crate::bindings::Component;
use crate::bindings::exports::oto::edge::acting::{
    Action, Actor, Error, Guest, GuestActor, Jitter, Lengths, Metrics, Space, Staleness,
};
use crate::bindings::oto::edge::types::Bounds;
use oto_agent::actor::drive::ActorError;
use oto_agent::actor::edge::StepError;
use oto_agent::actor::real_time::Waiter;
use oto_agent::actor::run::ActorSettings;
use oto_agent::actor::{ActorReport, Edge, one_thread};
use oto_agent::link::tungstenite::Socket;
use oto_agent::presets;
use oto_env::{SpaceTree, Step};
use oto_json::{At, Failure, FromJson};
use oto_proto::Flags;
use std::cell::RefCell;
use std::time::Duration;

/// What `create` reads.
struct Configuration {
    cloud: String,
    policy: String,
    actor: ActorSettings,
}

impl FromJson for Configuration {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        let fields = at.fields()?;
        fields.only(&["cloud", "policy", "actor"])?;
        let actor = fields.get_or("actor", ActorSettings::default())?;
        Ok(Self { cloud: fields.get("cloud")?, policy: fields.get("policy")?, actor })
    }
}

impl Guest for Component {
    type Actor = RefCell<Acting>;
}

/// An actor, its socket, and its clock.
pub struct Acting {
    edge: Edge,
    socket: Socket,
    clock: Waiter,
}

impl Acting {
    fn new(config: &str, observation: Space, action: Space) -> Result<Self, Error> {
        let wrong = |error: String| Error::Configuration(error);
        let Configuration { cloud, policy, actor } =
            oto_json::read(config).map_err(|error| wrong(error.to_string()))?;
        let [observation, action] = [observation, action].map(space);
        observation.validate().map_err(|error| Error::Space(error.to_string()))?;
        if !matches!(observation, oto_env::Space::Box { .. }) {
            return Err(Error::Space("an actor observes a box, the host flattens other spaces".into()));
        }
        // Actions have bounds: the safe action is in their middle.
        let action = SpaceTree::from(action).action().map_err(|error| Error::Space(error.to_string()))?;
        if let oto_env::Space::Box { low, high } = &action
            && let Some(i) = low.iter().chain(high).position(|bound| !bound.is_finite())
        {
            let i = i % low.len();
            return Err(Error::Space(format!(
                "an actor's actions have bounds, component {i} has {} to {}",
                low[i], high[i]
            )));
        }
        let run = actor.run(&policy, &observation, &action).map_err(|error| wrong(error.to_string()))?;
        let socket =
            Socket::new(&presets::teacher_url(&cloud)).map_err(|error| Error::Address(error.to_string()))?;
        let clock = Waiter::default();
        let mut edge = one_thread::edge(run, clock.now()).map_err(|error| wrong(error.to_string()))?;
        edge.link().connect(socket.now_ms());
        Ok(Self { edge, socket, clock })
    }
}

impl GuestActor for RefCell<Acting> {
    fn create(config: String, observation: Space, action: Space) -> Result<Actor, Error> {
        Ok(Actor::new(RefCell::new(Acting::new(&config, observation, action)?)))
    }

    fn begin(&self, observation: Vec<f32>) -> Result<(), Error> {
        let Acting { edge, clock, .. } = &mut *self.borrow_mut();
        Ok(edge.begin(&observation, clock.now())?)
    }

    fn act(&self) -> Result<Action, Error> {
        let Acting { edge, clock, .. } = &mut *self.borrow_mut();
        Ok(match edge.act(clock.now())? {
            oto_env::Action::Discrete(index) => Action::Discrete(index),
            oto_env::Action::Continuous(values) => Action::Box(values.to_vec()),
        })
    }

    fn observe(
        &self,
        observation: Vec<f32>,
        reward: f64,
        terminated: bool,
        truncated: bool,
    ) -> Result<bool, Error> {
        let Acting { edge, clock, .. } = &mut *self.borrow_mut();
        Ok(edge.stepped(Step { reward, terminated, truncated }, Flags::NONE, &observation, clock.now())?)
    }

    fn evaluates(&self) -> bool {
        self.borrow().edge.control().evaluates()
    }

    fn cut(&self) -> Result<(), Error> {
        Ok(self.borrow_mut().edge.cut()?)
    }

    fn due(&self) -> Option<u64> {
        let Acting { edge, clock, .. } = &*self.borrow();
        let control = edge.control();
        Some(control.deadline().filter(|_| control.runs())?.saturating_sub(clock.now()))
    }

    fn serve(&self) -> Result<(), Error> {
        let Acting { edge, socket, .. } = &mut *self.borrow_mut();
        Ok(one_thread::serve(edge, socket)?)
    }

    fn status(&self) -> Metrics {
        metrics(self.borrow_mut().edge.report())
    }

    fn close(&self, patience: u32) -> Result<Metrics, Error> {
        let Acting { edge, socket, .. } = &mut *self.borrow_mut();
        edge.cut()?;
        Ok(metrics(one_thread::farewell(edge, socket, Duration::from_millis(patience.into()))?))
    }
}

fn space(space: Space) -> oto_env::Space {
    match space {
        Space::Discrete(n) => oto_env::Space::Discrete { n },
        Space::Box(Bounds { low, high }) => oto_env::Space::Box { low, high },
    }
}

impl From<StepError> for Error {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Width { expected, got } => {
                Self::ObservationLength(Lengths { expected: expected as u32, got: got as u32 })
            }
            StepError::NotBegun | StepError::Order(_) => Self::Order(error.to_string()),
            StepError::Row(error) => Self::Other(error.to_string()),
        }
    }
}

impl From<ActorError> for Error {
    fn from(error: ActorError) -> Self {
        match error {
            ActorError::Refused(reason) => Self::Refused(reason),
            other => Self::Other(other.to_string()),
        }
    }
}

fn metrics(report: ActorReport) -> Metrics {
    let ActorReport { counts, jitter, staleness: [p50, p99, max], link, .. } = report;
    Metrics {
        steps: report.steps,
        episodes: report.episodes,
        last_return: report.last_return,
        last_evaluation: report.last_evaluation,
        version: report.version,
        missed: counts.missed,
        blocked: counts.blocked,
        late_sensor: counts.late_sensor,
        safe: counts.safe,
        jitter: Jitter { p50: jitter.p50, p99: jitter.p99, p999: jitter.p999, max: jitter.max },
        staleness: Staleness { p50, p99, max },
        recorded: report.recorded,
        acknowledged: report.acknowledged,
        held: report.held,
        dropped: link.rows_dropped,
        backlog: report.backlog,
        connected: report.connected,
        problem: report.problem,
        sessions: link.sessions,
        pushes: link.weights,
        bytes_up: link.bytes_up,
        bytes_down: link.bytes_down,
    }
}
