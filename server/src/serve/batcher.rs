//! What answers for one policy: takes all requests that wait, answers them in one call of [`Policy::act`](oto_policy::Policy::act), and splits the
//! answer. Meanwhile the next batch gathers. No request waits for others to fill a batch; a busier server has larger
//! batches.
//!
//! The policy has a thread of its own, so that no model delays sockets. If so little waits that waking that thread would
//! take longer, the connection's thread answers. In a simulation only a task answers.
//!
//! What answers changes between two batches only, so that all rows of an answer are of one version. A version is the
//! number of a publication. It only grows on each connection, whatever is published, tried or taken back: what would
//! make a student's number smaller is published anew.

use crate::net::limits::QueueLimits;
use crate::observe::log_throttle::LogThrottle;
use crate::observe::metrics::Metrics;
use crate::serve::error::ServerError;
use crate::serve::queue::{Batch, NotTaken, Queue, Request, Said, Seat, Work};
use crate::serve::rows::Asks;
use crate::serve::shadow::Shadow;
use crate::serve::simulation::Pace;
use crate::serve::status_watch::StatusWatch;
use crate::serve::version::{Canary, Change, ChangeKind, Status, Version};
use crate::serve::waves::Waves;
use oto_policy::PolicyError;
use oto_proto::{ErrorCode, ErrorMessage};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;
use tracing::{info, warn};

/// Where a policy's requests wait, and who answers them.
pub(crate) struct PolicyWorker {
    pub queue: Queue,
    /// What everyone may know of it.
    pub status: Arc<StatusWatch>,
    /// One at a time.
    batcher: Mutex<Batcher>,
    metrics: Arc<Metrics>,
    /// Whether a connection's thread answers a little work by itself.
    helped: bool,
}

/// What is done for a policy, one thing after the other.
struct Batcher {
    /// The policy's name.
    name: String,
    status: Arc<StatusWatch>,
    /// The largest number so far.
    newest: u32,
    stable: Version,
    previous: Option<Version>,
    canary: Option<(Version, f32)>,
    shadow: Option<Shadow>,
    observations: Vec<f32>,
    waves: Waves,
    metrics: Arc<Metrics>,
    /// Requests that it had no answer to.
    failures: LogThrottle,
}

/// Closes the queue however its thread ends.
struct Closing<'a>(&'a Queue);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl PolicyWorker {
    /// A policy with its first version. With `helped`, a connection's thread answers a little work by itself.
    pub fn new(name: String, stable: Version, metrics: Arc<Metrics>, helped: bool) -> Arc<Self> {
        let (newest, model) = (stable.number, stable.model.clone());
        let engine = stable.rows.policy().engine().to_owned();
        let status = Status { version: newest, model, engine, canary: None, shadow: None, ended: None };
        let status = Arc::new(StatusWatch::new(status));
        let batcher = Batcher {
            name,
            status: status.clone(),
            newest,
            stable,
            previous: None,
            canary: None,
            shadow: None,
            observations: Vec::new(),
            waves: Waves::default(),
            metrics: metrics.clone(),
            failures: LogThrottle::default(),
        };
        Arc::new(PolicyWorker {
            queue: Queue::default(),
            status,
            batcher: Mutex::new(batcher),
            metrics,
            helped,
        })
    }

    /// Takes a request; its answer comes through its `reply`.
    pub fn ask(&self, seat: &mut Seat, mut request: Request, limits: &QueueLimits) -> Result<(), NotTaken> {
        if let Some(traced) = &mut request.traced {
            traced.waits(request.rows);
        }
        let little = self.queue.push(seat, request, limits)?;
        if self.helped
            && little
            && let Ok(mut batcher) = self.batcher.try_lock()
        {
            batcher.work_once(&self.queue, &self.metrics);
        }
        // The thread at work may have looked into the queue just before.
        self.queue.wake_for_rest();
        Ok(())
    }

    /// Works until the queue is closed.
    pub fn run(&self) {
        let _closing = Closing(&self.queue);
        while self.queue.wait() {
            self.work_once();
        }
    }

    /// Works until the queue is closed, in simulated time.
    pub async fn run_at(&self, pace: Pace) {
        let _closing = Closing(&self.queue);
        while !self.queue.is_closed() {
            tokio::time::sleep(pace()).await;
            self.work_once();
        }
    }

    fn work_once(&self) {
        self.batcher.lock().unwrap_or_else(PoisonError::into_inner).work_once(&self.queue, &self.metrics);
    }
}

impl Batcher {
    /// Does the next thing, if there is one.
    fn work_once(&mut self, queue: &Queue, metrics: &Metrics) {
        match queue.next() {
            None => {}
            Some(Work::Change(Change { kind, done })) => {
                let result = self.change(kind, queue);
                if let Some(done) = done {
                    // The receiver may be gone.
                    drop(done.send(result));
                }
            }
            Some(Work::Answer(batch)) => self.work_on(batch, queue, metrics),
        }
    }

    fn work_on(&mut self, batch: Batch, queue: &Queue, metrics: &Metrics) {
        let piece = queue.piece();
        match &batch.requests[..] {
            [large] if large.rows > piece && large.order.is_none() => {
                self.work_in_pieces(batch, piece, queue, metrics)
            }
            _ => self.work_at_once(batch, queue, metrics),
        }
    }

    /// Answers a batch in one call.
    fn work_at_once(&mut self, batch: Batch, queue: &Queue, metrics: &Metrics) {
        let Batch { canary, mut requests, .. } = batch;
        let rows = requests.iter().map(|request| request.rows).sum();
        let came: Vec<Instant> = requests.iter().map(|request| request.came).collect();
        requests
            .iter_mut()
            .filter_map(|request| request.traced.as_mut())
            .for_each(|traced| traced.computes(rows));
        let start = Instant::now();
        self.answer(canary, requests, queue);
        queue.answered(rows, start.elapsed());
        metrics.batch(came.into_iter(), rows, start);
    }

    /// Answers a large request piece by piece, and between two pieces whatever comes before the rest of it. A piece that the policy
    /// cannot answer, or another version, which comes if a canary fails meanwhile: then it is answered at once from its beginning.
    fn work_in_pieces(&mut self, mut batch: Batch, piece: usize, queue: &Queue, metrics: &Metrics) {
        let request = &mut batch.requests[0];
        let (rows, came, asks) = (request.rows, request.came, request.asks);
        let width = request.observations.len() / rows.max(1);
        if let Some(traced) = &mut request.traced {
            traced.computes(rows);
        }
        let number = self.version(batch.canary).number;
        let (mut actions, mut left, first) = (Vec::new(), rows, Instant::now());
        for observations in request.observations.chunks(piece * width.max(1)) {
            if request.reply.is_closed() {
                return;
            }
            let (start, rows) = (Instant::now(), observations.len() / width.max(1));
            let version = self.version(batch.canary);
            let Some(answers) = (version.number == number)
                .then(|| version.rows.answer(asks, observations, rows).ok())
                .flatten()
            else {
                return self.work_at_once(batch, queue, metrics);
            };
            actions.extend_from_slice(answers);
            queue.answered(rows, start.elapsed());
            left -= rows;
            queue.advance(batch.end - left as u64);
            while left > 0
                && let Some(others) = queue.next_before(batch.end)
            {
                self.work_on(others, queue, metrics);
            }
        }
        if let (false, Some(shadow), Asks::Actions) = (batch.canary, &self.shadow, asks) {
            shadow.see(&request.observations, rows, &actions);
        }
        metrics.batch(std::iter::once(came), rows, first);
        let request = batch.requests.remove(0);
        request.answer(Said::Actions { version: number, actions });
    }

    /// What answers the canary's students, if there is a canary, or all others.
    fn version(&mut self, canary: bool) -> &mut Version {
        match &mut self.canary {
            Some((version, _)) if canary => version,
            _ => &mut self.stable,
        }
    }

    /// The next number, at least this one.
    fn next(&mut self, at_least: u32) -> u32 {
        self.newest = self.newest.saturating_add(1).max(at_least);
        self.newest
    }

    fn numbered(&mut self, version: Version) -> Version {
        Version { number: self.next(version.number), ..version }
    }

    /// Does what an operator, a follower or an agent wants. Gives the version that comes of it.
    fn change(&mut self, kind: ChangeKind, queue: &Queue) -> Result<u32, ServerError> {
        let (mut ended, what) = (None, kind.word());
        let version = match kind {
            ChangeKind::Publish(version) => {
                let version = self.numbered(version);
                self.replace(version);
                self.stable.number
            }
            ChangeKind::RollBack => {
                let before = self.previous.take().ok_or(ServerError::NothingBefore)?;
                let before = self.numbered(before);
                self.replace(before);
                self.stable.number
            }
            ChangeKind::Canary(version, percent) => {
                self.end_canary();
                let version = self.numbered(version);
                let number = version.number;
                self.canary = Some((version, percent));
                number
            }
            ChangeKind::Promote => {
                let (canary, _) = self.canary.take().ok_or(ServerError::NoCanary)?;
                let older = canary.number < self.stable.number;
                let number = if older { self.next(0) } else { canary.number };
                self.replace(Version { number, ..canary });
                number
            }
            ChangeKind::EndCanary(why) => {
                self.canary.as_ref().ok_or(ServerError::NoCanary)?;
                self.end_canary();
                ended = why;
                self.stable.number
            }
            ChangeKind::Shadow(Some(_)) if self.stable.rows.policy().state_width() > 0 => {
                let what = "a shadow is asked about single states";
                return Err(ServerError::Recurrent { policy: self.name.clone(), what });
            }
            ChangeKind::Shadow(rows) => {
                let start = |rows| Shadow::start(rows).map_err(|_| ServerError::Thread("shadow".into()));
                self.shadow = rows.map(start).transpose()?;
                self.stable.number
            }
        };
        let policy = &self.name;
        let engine = self.stable.rows.policy().engine();
        match &ended {
            None => info!(policy, what, version, engine, "what answers changes"),
            Some(error) => warn!(policy, version, error, "the canary fails and ends"),
        }
        self.show(ended, queue);
        Ok(version)
    }

    fn replace(&mut self, version: Version) {
        self.previous = Some(std::mem::replace(&mut self.stable, version));
    }

    /// The canary's students come back, to a number that is larger than the canary's.
    fn end_canary(&mut self) {
        if let Some((canary, _)) = self.canary.take()
            && canary.number > self.stable.number
        {
            self.stable.number = self.next(0);
        }
    }

    /// Lets everyone know what answers now, and sorts what waits accordingly.
    fn show(&mut self, ended: Option<String>, queue: &Queue) {
        let canary = self
            .canary
            .as_ref()
            .map(|(version, percent)| Canary { version: version.number, percent: *percent });
        queue.measure_anew();
        queue.split(canary.map_or(0.0, |canary| canary.percent));
        self.status.show(Status {
            version: self.stable.number,
            model: self.stable.model.clone(),
            engine: self.stable.rows.policy().engine().to_owned(),
            canary,
            shadow: self.shadow.as_ref().map(Shadow::comparison),
            ended,
        });
    }

    /// Answers requests together. If that fails, each is answered alone: one student's odd states are not the others'
    /// fault. A canary that fails where the stable version does not ends without an effect on students.
    fn answer(&mut self, canary: bool, requests: Vec<Request>, queue: &Queue) {
        if self.stable.rows.policy().state_width() > 0 {
            return self.answer_recurrent(canary, requests, queue);
        }
        self.observations.clear();
        requests.iter().for_each(|request| self.observations.extend_from_slice(&request.observations));
        let rows = requests.iter().map(|request| request.rows).sum();
        let asks = requests.first().map_or(Asks::Actions, |request| request.asks);
        let canary = canary && self.canary.is_some();
        // The buffer of the observations is another field.
        let version = match &mut self.canary {
            Some((version, _)) if canary => version,
            _ => &mut self.stable,
        };
        let number = version.number;
        let error = match version.rows.answer(asks, &self.observations, rows) {
            Ok(actions) => {
                reply(number, actions, requests);
                if let (false, Some(shadow), Asks::Actions) = (canary, &self.shadow, asks) {
                    shadow.see(&self.observations, rows, actions);
                }
                return;
            }
            Err(error) => error,
        };
        if requests.len() > 1 {
            requests.into_iter().for_each(|request| self.answer(canary, vec![request], queue));
        } else if canary && self.stable.rows.answer(asks, &self.observations, rows).is_ok() {
            // It cannot fail: there is a canary.
            drop(self.change(ChangeKind::EndCanary(Some(error.to_string())), queue));
            self.answer(false, requests, queue);
        } else {
            self.fail(number, requests, &error);
        }
    }

    /// The same where the policy is recurrent.
    fn answer_recurrent(&mut self, canary: bool, requests: Vec<Request>, queue: &Queue) {
        let canary = canary && self.canary.is_some();
        let error = match self.act_from(canary, &requests) {
            Ok((version, answers)) => return reply_each(version, answers, requests),
            Err(error) => error,
        };
        if requests.len() > 1 {
            return requests
                .into_iter()
                .for_each(|request| self.answer_recurrent(canary, vec![request], queue));
        }
        if canary && let Ok((version, answers)) = self.act_from(false, &requests) {
            // It cannot fail: there is a canary.
            drop(self.change(ChangeKind::EndCanary(Some(error.to_string())), queue));
            return reply_each(version, answers, requests);
        }
        let number = self.version(canary).number;
        self.fail(number, requests, &error);
    }

    /// The answers of a recurrent policy to each request, and its version.
    fn act_from(&mut self, canary: bool, requests: &[Request]) -> Result<(u32, Vec<Vec<f32>>), PolicyError> {
        let version = match &mut self.canary {
            Some((version, _)) if canary => version,
            _ => &mut self.stable,
        };
        let answers = self.waves.act(&mut version.rows, version.number, requests, &self.metrics)?;
        Ok((version.number, answers))
    }

    /// Tells students that the policy has no answer.
    fn fail(&mut self, number: u32, requests: Vec<Request>, error: &PolicyError) {
        let (policy, error) = (&self.name, error.to_string());
        if let Some(times) = self.failures.again() {
            warn!(policy, version = number, error, times, "the policy has no answer");
        }
        let message = ErrorMessage::new(ErrorCode::PolicyFailed, error);
        requests.into_iter().for_each(|request| request.answer(Said::Failed(Box::new(message.clone()))));
    }
}

/// Gives each request its answers.
fn reply_each(version: u32, answers: Vec<Vec<f32>>, requests: Vec<Request>) {
    let each = requests.into_iter().zip(answers);
    each.for_each(|(request, actions)| request.answer(Said::Actions { version, actions }));
}

/// Gives each request its rows.
fn reply(version: u32, actions: &[f32], requests: Vec<Request>) {
    let rows: usize = requests.iter().map(|request| request.rows).sum();
    let width = actions.len() / rows.max(1);
    let mut rest = actions;
    for request in requests {
        let (actions, later) = rest.split_at(request.rows * width);
        request.answer(Said::Actions { version, actions: actions.to_vec() });
        rest = later;
    }
}
