//! An operator who publishes the policy anew at fixed times while students ask it.

use super::LoadError;
use serde::Serialize;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// For one publication.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is published where.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The address of the operator's door that publishes the policy: `http://host:port/policies/NAME/publish`.
    pub url: String,
    /// The operator's token.
    pub token: String,
    /// The model.
    pub model: Arc<[u8]>,
    /// From one publication to the next.
    pub every: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Published {
    /// Publications whose time came.
    pub due: u64,
    /// Those that the server says are done.
    pub done: u64,
    /// What it said to the first that is not.
    pub refused: Option<String>,
    /// The longest from when one was due until it was done, in milliseconds.
    pub slowest_ms: f64,
    /// The longest from one that was done to the next, in milliseconds.
    pub longest_gap_ms: f64,
}

impl Publish {
    /// Publishes in a thread from `from` until `to`. Times are fixed beforehand: what was late is made up for.
    pub(crate) fn start(&self, from: Instant, to: Instant) -> std::io::Result<JoinHandle<Published>> {
        let publish = self.clone();
        std::thread::Builder::new().name("operator".into()).spawn(move || {
            let agent: ureq::Agent = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .timeout_global(Some(PATIENCE))
                .build()
                .into();
            let mut published = Published::default();
            let mut before = None;
            for due in (0..).map(|i| from + publish.every * i).take_while(|due| *due < to) {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let said = publish.once(&agent);
                published.count(due, said, &mut before);
            }
            published
        })
    }

    fn once(&self, agent: &ureq::Agent) -> Result<(), String> {
        let request = agent.post(&self.url).header("authorization", format!("Bearer {}", self.token));
        let mut answer = request.send(&*self.model).map_err(|error| error.to_string())?;
        let text = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
        if answer.status().is_success() { Ok(()) } else { Err(text) }
    }
}

impl Published {
    fn count(&mut self, due: Instant, said: Result<(), String>, before: &mut Option<Instant>) {
        let now = Instant::now();
        self.due += 1;
        match said {
            Ok(()) => {
                let milliseconds = |time: Duration| 1e3 * time.as_secs_f64();
                self.done += 1;
                self.slowest_ms = self.slowest_ms.max(milliseconds(now - due));
                let gap = before.replace(now).map_or(0.0, |before| milliseconds(now - before));
                self.longest_gap_ms = self.longest_gap_ms.max(gap);
            }
            Err(why) => {
                self.refused.get_or_insert(why);
            }
        }
    }
}

/// What a thread of [`Publish::start`] counted.
pub(crate) fn counted(thread: Option<JoinHandle<Published>>) -> Result<Option<Published>, LoadError> {
    let gone = |_| LoadError::Plan("what was to publish ended before its time".into());
    thread.map(|thread| thread.join().map_err(gone)).transpose()
}
