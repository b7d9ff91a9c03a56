//! Records of the world `oto:edge/student` from and to the types of oto's other crates.

use crate::bindings::exports::oto::edge::learner as wit;
use crate::bindings::oto::edge::types;
use oto_agent::link::tungstenite::AddressError;
use oto_agent::link::{LinkState, LinkStatus};
use oto_agent::stage::Stage;
use oto_agent::student::Metrics;
use oto_agent::trainer::TrainError;
use oto_env::{Action, Space};

/// A space as the host describes it; checked when a student is made for it.
pub fn space(space: types::Space) -> Space {
    match space {
        types::Space::Discrete(n) => Space::Discrete { n },
        types::Space::Box(types::Bounds { low, high }) => Space::Box { low, high },
    }
}

/// An action as the host takes it.
pub fn action(action: Action<'_>) -> types::Action {
    match action {
        Action::Discrete(index) => types::Action::Discrete(index),
        Action::Continuous(values) => types::Action::Box(values.to_vec()),
    }
}

/// How a run stands.
pub fn progress(metrics: Metrics) -> wit::Progress {
    wit::Progress {
        step: metrics.step,
        episodes: metrics.episodes,
        last_return: metrics.last_episode.map(|e| e.score),
        updates: metrics.updates,
        stage: match metrics.stage {
            Stage::Offline => wit::Stage::Offline,
            Stage::Transfer => wit::Stage::Transfer,
            Stage::Online => wit::Stage::Online,
        },
        done: metrics.done,
        teachers: metrics.teachers.into_iter().map(teacher).collect(),
    }
}

fn teacher(status: LinkStatus) -> wit::Teacher {
    wit::Teacher {
        policy: status.policy,
        link: match status.state {
            LinkState::Off => wit::Link::Off,
            LinkState::Waiting => wit::Link::Waiting,
            LinkState::Connecting => wit::Link::Connecting,
            LinkState::Greeting => wit::Link::Greeting,
            LinkState::Ready => wit::Link::Ready,
            LinkState::Failed => wit::Link::Failed,
        },
        problem: status.problem,
        labels: status.stats.labels_received,
        bytes_up: status.stats.bytes_up,
        bytes_down: status.stats.bytes_down,
    }
}

impl From<TrainError> for wit::Error {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::Config(e) => Self::Configuration(e.to_string()),
            TrainError::Space(text) => Self::Space(text),
            TrainError::ObservationLength { expected, got } => {
                let (expected, got) = (expected as u32, got as u32);
                Self::ObservationLength(wit::Lengths { expected, got })
            }
            TrainError::Observation { component, value } => {
                Self::ObservationValue(wit::Component { index: component as u32, value })
            }
            TrainError::Reward(value) => Self::Reward(value),
            TrainError::Checkpoint(text) => Self::Checkpoint(text),
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<AddressError> for wit::Error {
    fn from(error: AddressError) -> Self {
        Self::Teacher(error.to_string())
    }
}
