//! Students as they are: the true link, driven in simulated time. They get the right labels, once, and submit batches until
//! each is acknowledged.

use crate::asker::{PATIENCE, Socket, connect, hello};
use crate::book::{Shared, now};
use crate::policies::boxed;
use crate::window::Windows;
use crate::world::chance;
use futures_util::{SinkExt, StreamExt};
use oto_agent::link::{Event, Link, LinkConfig, LinkState, Outcome, Output};
use oto_env::rng::Rng;
use oto_proto::{Action, BatchId, FrameError, Hello, SubmissionWriter, Transition};
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, coding::CloseCode};

/// A student that learns.
pub struct Learner {
    index: usize,
    book: Shared,
    windows: Windows,
    rng: Rng,
    link: Link,
    socket: Option<Socket>,
    start: Instant,
    /// The next state.
    slot: u64,
    labelled: HashSet<u64>,
    /// Labels and refusals so far.
    answers: u64,
    /// The batch that is to be acknowledged, and whether it was submitted before.
    batch: u64,
    again: bool,
}

/// The name of a student's batch.
fn name(index: usize, batch: u64) -> u128 {
    (index as u128) << 64 | u128::from(batch)
}

/// How many transitions a batch has.
pub fn rows(name: u128) -> usize {
    1 + (name % 23) as usize
}

/// A transition of a batch: its observation and reward.
pub fn transition(name: u128, row: usize) -> ([f32; 4], f32) {
    ([(name >> 64) as f32, (name % (1 << 20)) as f32, row as f32, 0.0], row as f32)
}

fn write(name: u128, writer: &mut SubmissionWriter<'_>) -> Result<(), FrameError> {
    (0..rows(name)).try_for_each(|row| {
        let (observation, reward) = transition(name, row);
        writer.transition(&Transition {
            observation: &observation,
            action: &[0.0, 1.0],
            reward,
            next_observation: &observation,
            terminated: false,
            truncated: row + 1 == rows(name),
        })
    })
}

impl Learner {
    /// A student that has not connected yet.
    ///
    /// # Errors
    /// If it introduces itself with a contradiction.
    pub fn new(index: usize, book: Shared, windows: Windows, mut rng: Rng) -> turmoil::Result<Self> {
        let config = LinkConfig {
            seed: rng.next_u64(),
            batch: 1 + rng.below(16) as u16,
            delay_ms: Some(u64::from(rng.below(150))),
            connect_timeout_ms: 3_000,
            backoff_min_ms: 100,
            backoff_max_ms: 2_000,
            ..LinkConfig::new(Self::hello(index))
        };
        let (start, link) = (Instant::now(), Link::new(config).map_err(|error| error.to_string())?);
        let (slot, labelled, answers, batch, again) = (0, HashSet::new(), 0, 0, false);
        let socket = None;
        Ok(Learner { index, book, windows, rng, link, socket, start, slot, labelled, answers, batch, again })
    }

    fn hello(index: usize) -> Hello {
        hello("number", &format!("learner {index}"), boxed(4), boxed(2))
    }

    /// Meets a state every now and then.
    ///
    /// # Errors
    /// Whatever no server may do.
    pub async fn live(mut self) -> turmoil::Result {
        self.link.connect(0);
        let mut next = Instant::now();
        loop {
            self.carry_out().await;
            self.take()?;
            let wake = self.link.wake_at().map_or(next, |at| self.start + Duration::from_millis(at));
            tokio::select! {
                biased;
                heard = heard(&mut self.socket) => self.hears(heard),
                () = sleep_until(wake.min(next)) => self.link.handle(Event::Tick, self.ms()),
            }
            if Instant::now() >= next {
                next = Instant::now() + chance(&mut self.rng, 1, 60);
                let state = [(self.slot % (1 << 20)) as f32, 0.0, 0.0, 0.0];
                self.link.offer(self.slot, &state, self.ms())?;
                self.slot += 1;
                self.submit()?;
            }
        }
    }

    fn ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// Does what the link wants.
    async fn carry_out(&mut self) {
        while let Some(output) = self.link.poll_output() {
            match output {
                Output::Connect => {
                    self.socket = timeout(PATIENCE, connect(&self.windows)).await.ok().and_then(Result::ok);
                    let event = match self.socket {
                        Some(_) => Event::Connected,
                        None => Event::Closed { code: None, reason: "nobody is there" },
                    };
                    self.book.note(now(), format!("learner {} connects: {event:?}", self.index));
                    self.link.handle(event, self.ms());
                }
                Output::Text(text) => self.send(Message::text(text)).await,
                Output::Binary(frame) => self.send(Message::binary(frame)).await,
                Output::Close(code) => {
                    if let Some(mut socket) = self.socket.take() {
                        let close = CloseFrame { code: CloseCode::from(code), reason: "".into() };
                        drop(timeout(Duration::from_millis(100), socket.close(Some(close))).await);
                    }
                }
            }
        }
    }

    async fn send(&mut self, message: Message) {
        let Some(socket) = &mut self.socket else { return };
        if !matches!(timeout(PATIENCE, socket.send(message)).await, Ok(Ok(()))) {
            self.is_gone(None);
        }
    }

    fn is_gone(&mut self, code: Option<u16>) {
        self.socket = None;
        self.book.note(now(), format!("learner {} is cut off: {code:?}", self.index));
        self.link.handle(Event::Closed { code, reason: "" }, self.ms());
    }

    fn hears(&mut self, message: Option<Message>) {
        let now = self.ms();
        match message {
            Some(Message::Text(text)) => self.link.handle(Event::Text(&text), now),
            Some(Message::Binary(frame)) => self.link.handle(Event::Binary(&frame), now),
            Some(Message::Close(close)) => self.is_gone(close.map(|close| close.code.into())),
            Some(_) => {}
            None => self.is_gone(None),
        }
    }

    /// Takes what has come, which must be what was asked for, once.
    fn take(&mut self) -> turmoil::Result {
        let (mut wrong, mut labels, index) = (None, 0, self.index);
        let Learner { link, labelled, slot: next, .. } = self;
        link.drain_labels(|slot, action, version| {
            let expected = [(slot % (1 << 20)) as f32 * 2.0, version as f32];
            if slot >= *next || !labelled.insert(slot) || action != Action::Continuous(&expected) {
                wrong = Some(format!("learner {index}: {action:?} for {slot}, version {version}"));
            }
            labels += 1;
        });
        if let Some(wrong) = wrong {
            return Err(wrong.into());
        }
        if let LinkState::Failed = link.state() {
            return Err(format!("learner {index}: {:?}", link.failure()).into());
        }
        let rejected = link.stats().rejected;
        if rejected != oto_agent::link::Rejected::default() {
            return Err(format!("learner {index}: {rejected:?}").into());
        }
        if labels > 0 {
            self.book.note(now(), format!("learner {index} got {labels}"));
            self.book.count(|counts| counts.labels += labels);
        }
        let stats = self.link.stats();
        let answers = stats.labels_received + stats.overloaded;
        if answers > self.answers {
            self.answers = answers;
            self.book.open().answered.insert(index, now());
        }
        match self.link.take_submitted() {
            None => {}
            Some((BatchId(batch), Outcome::Kept)) if batch == name(index, self.batch) => {
                self.book.note(now(), format!("learner {index} knows that {} is kept", self.batch));
                let mut book = self.book.open();
                book.counts.acknowledged += 1;
                book.acknowledged.insert(batch);
                drop(book);
                self.batch += 1;
                self.again = false;
            }
            Some(other) => return Err(format!("learner {index}: {other:?} of {}", self.batch).into()),
        }
        Ok(())
    }

    /// Submits, until it is known that the batch is kept.
    fn submit(&mut self) -> turmoil::Result {
        let now = self.ms();
        if self.link.may_submit(now).is_none() || self.rng.below(8) > 0 {
            return Ok(());
        }
        let name = name(self.index, self.batch);
        let mut book = self.book.open();
        book.submitted.insert(name);
        book.counts.submissions += 1;
        book.counts.repeated += u64::from(self.again);
        drop(book);
        self.again = true;
        self.link.submit(BatchId(name), |writer| write(name, writer), now)?;
        Ok(())
    }
}

/// The next message, none when the connection is over, never if there is no connection.
async fn heard(socket: &mut Option<Socket>) -> Option<Message> {
    match socket {
        Some(socket) => socket.next().await?.ok(),
        None => std::future::pending().await,
    }
}
