//! An actor and its learner on a simulated network, over many seeds: delays, lost connections, messages that a dying connection
//! swallowed, garbage, a learner and an actor that are killed, and a learner that saves its progress now and then.
//!
//! No row that was acknowledged is lost or counted twice, versions only grow in a session, and recording never waits.
//!
//! | variable | |
//! | --- | --- |
//! | `OTO_LINK_SEEDS` | how many seeds, 200 by default, or `FIRST..END` |

use super::link::{ActorConfig, ActorLink};
use super::ring::{Recorder, ring};
use crate::learner::session::{Edge, LearnerSession, Offer, Progress};
use crate::link::{Event, LinkState, Output};
use oto_env::rng::Rng;
use oto_proto::message::CLOSE_RESTARTING;
use oto_proto::weights::{Activation, Output as Squash};
use oto_proto::{
    ActorInfo, ClientMessage, Dtype, Encoding, ErrorCode, ErrorMessage, Flags, Grant, Hello, Model,
    RowFormat, ServerMessage, Space, StreamId, TeacherInfo, Welcome,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

const MANY: u64 = 200;
const CHAOS_STEPS: u64 = 3_000;
const PEACE_STEPS: u64 = 1_500;
const NEW_SESSION_STEPS: u64 = 100;
const STEP_MS: u64 = 5;
const POLICY: u32 = 7;
const PARAMETERS: usize = 3 * 4 + 4 + 4 + 1;

fn hello(stream: u128, encoding: Encoding) -> Hello {
    Hello {
        protocol: oto_proto::PROTOCOL.into(),
        policy: "simulated".into(),
        student: "simulation".into(),
        observation: Space::Box { low: vec![f32::NEG_INFINITY; 3], high: vec![f32::INFINITY; 3] },
        action: Space::Box { low: vec![-1.0], high: vec![1.0] },
        adapter: None,
        dtype: Dtype::F32,
        action_dtype: None,
        quantization: None,
        grants: vec![Grant::Transitions, Grant::Weights],
        stage: None,
        order: None,
        ticket: None,
        worker: None,
        member: None,
        actor: Some(ActorInfo {
            name: "edge".into(),
            stream: StreamId(stream),
            first: 0,
            weights: vec![encoding],
            version: 0,
        }),
    }
}

fn model() -> Model {
    Model::mlp(vec![3, 4, 1], Activation::Relu, Squash::Tanh)
}

/// The learner's weights of a version, whatever its life.
fn weights(version: u32, life: u64) -> Vec<f32> {
    (0..PARAMETERS).map(|i| (f64::from(version) * 0.01 + life as f64 + i as f64 * 0.1).sin() as f32).collect()
}

/// One direction of a connection.
#[derive(Default)]
struct Pipe {
    messages: VecDeque<(u64, Message)>,
    last: u64,
}

enum Message {
    Text(String),
    Binary(Vec<u8>),
    Close(u16),
}

impl Pipe {
    /// Messages keep their order.
    fn push(&mut self, at: u64, message: Message) {
        self.last = self.last.max(at);
        self.messages.push_back((self.last, message));
    }

    fn pop(&mut self, now: u64) -> Option<Message> {
        self.messages.pop_front_if(|(at, _)| *at <= now).map(|(_, message)| message)
    }
}

/// What the learner has stored: the rows of each stream. It is saved as a whole, as a checkpoint is.
#[derive(Clone, Default)]
struct Stored {
    rows: BTreeSet<(u128, u64)>,
    /// Rows that the edge lost.
    missed: BTreeSet<(u128, u64)>,
    progress: Progress,
    version: u32,
}

struct Simulation {
    rng: Rng,
    now: u64,
    encoding: Encoding,
    ring_rows: usize,
    // The edge.
    stream: u128,
    link: ActorLink,
    recorder: Recorder,
    recorded: BTreeMap<u128, u64>,
    acknowledged: BTreeMap<u128, u64>,
    acting: Option<(u32, Vec<f32>)>,
    applies_at: Option<(u64, u32, Vec<f32>)>,
    // The network.
    connected: bool,
    up: Pipe,
    down: Pipe,
    delay: u64,
    loss: u32,
    // The learner.
    present: bool,
    durable: bool,
    life: u64,
    session: Option<LearnerSession>,
    edge: Edge,
    memory: Stored,
    saved: Stored,
    counts: Counts,
}

/// What happened over all seeds.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    rows: u64,
    duplicates: u64,
    missed: u64,
    dropped: u64,
    sessions: u64,
    replaced: u64,
    pushes: u64,
    deltas: u64,
    rejected: u64,
    refused: u64,
    learner_kills: u64,
    actor_kills: u64,
    timeouts: u64,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut rng = Rng::new(seed);
        let encoding = [Encoding::Delta, Encoding::F16, Encoding::F32][rng.below(3) as usize];
        let ring_rows = 8 + rng.below(200) as usize;
        let (stream, durable) = (u128::from(seed) << 64, rng.below(2) == 0);
        let (link, recorder) = actor(stream, encoding, ring_rows, seed);
        Simulation {
            now: 0,
            encoding,
            ring_rows,
            stream,
            link,
            recorder,
            recorded: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            acting: None,
            applies_at: None,
            connected: false,
            up: Pipe::default(),
            down: Pipe::default(),
            delay: 1 + u64::from(rng.below(60)),
            loss: rng.below(30),
            present: true,
            durable,
            life: 0,
            session: None,
            edge: Edge::default(),
            memory: Stored { version: 1, ..Stored::default() },
            saved: Stored { version: 1, ..Stored::default() },
            counts: Counts::default(),
            rng,
        }
    }

    /// Time passes and the edge takes a step.
    fn step(&mut self, calm: bool) {
        self.now += STEP_MS;
        let sequence = self.recorder.recorded();
        let version = self.acting.as_ref().map_or(0, |(version, _)| *version);
        let flags = if sequence.is_multiple_of(50) { Flags::FIRST } else { Flags::NONE };
        let observation = [sequence as f32, (self.stream & 0xffff) as f32, 0.5];
        self.recorder.record(&observation, &[0.25], flags, version).expect("a row of the right lengths");
        self.recorded.insert(self.stream, self.recorder.recorded());
        self.link.handle(Event::Tick, self.now);
        self.drive_edge();
        self.drive_learner(calm);
    }

    fn drive_edge(&mut self) {
        while self.connected
            && let Some(message) = self.down.pop(self.now)
        {
            match message {
                Message::Text(text) => self.link.handle(Event::Text(&text), self.now),
                Message::Binary(frame) => self.link.handle(Event::Binary(&frame), self.now),
                Message::Close(code) => {
                    self.cut();
                    self.link.handle(Event::Closed { code: Some(code), reason: "" }, self.now);
                }
            }
            self.outputs();
        }
        self.outputs();
        if let Some((version, weights)) = self.link.take_weights() {
            assert!(weights.iter().all(|weight| weight.is_finite()));
            let (weights, at) = (weights.to_vec(), self.now + u64::from(self.rng.below(40)));
            self.applies_at = Some((at, version, weights));
        }
        if let Some((_, version, weights)) = self.applies_at.take_if(|(at, ..)| *at <= self.now) {
            assert!(self.acting.as_ref().is_none_or(|(before, _)| *before < version), "versions only grow");
            self.acting = Some((version, weights));
            self.link.applied(version);
            self.outputs();
        }
        let before = self.acknowledged.entry(self.stream).or_default();
        *before = (*before).max(self.link.acknowledged());
    }

    fn outputs(&mut self) {
        while let Some(output) = self.link.poll_output() {
            let at = self.now + 1 + u64::from(self.rng.below(self.delay as u32));
            match output {
                Output::Connect => {
                    self.cut();
                    if self.present && self.rng.below(100) >= self.loss {
                        self.connected = true;
                        self.link.handle(Event::Connected, self.now);
                    } else if self.rng.below(2) == 0 {
                        self.link.handle(Event::Closed { code: None, reason: "" }, self.now);
                    }
                }
                Output::Close(_) => self.cut(),
                Output::Text(text) if self.connected => self.up.push(at, Message::Text(text)),
                Output::Binary(frame) if self.connected => self.up.push(at, Message::Binary(frame)),
                Output::Text(_) | Output::Binary(_) => {}
            }
        }
    }

    /// The connection is gone, with what was on its way.
    fn cut(&mut self) {
        self.connected = false;
        (self.up, self.down) = (Pipe::default(), Pipe::default());
    }

    /// The connection is gone, and the actor notices, at once or by a timeout.
    fn lose(&mut self) {
        self.cut();
        if self.rng.below(2) == 0 {
            self.link.handle(Event::Closed { code: None, reason: "" }, self.now);
        }
    }

    fn say(&mut self, message: Message) {
        let at = self.now + 1 + u64::from(self.rng.below(self.delay as u32));
        self.down.push(at, message);
    }

    fn drive_learner(&mut self, calm: bool) {
        while self.connected
            && self.present
            && let Some(message) = self.up.pop(self.now)
        {
            match message {
                Message::Text(text) => {
                    let message = ClientMessage::decode(&text).expect("an actor's messages are sound");
                    match message {
                        ClientMessage::Hello(hello) => self.welcome(&hello),
                        message => {
                            let Some(session) = &mut self.session else { continue };
                            let before = session.acting();
                            // Weights of a session before this one may be reported now.
                            let _ = session.message(&message);
                            assert!(
                                session.acting() >= before || calm || self.life > 0,
                                "versions only grow"
                            );
                        }
                    }
                }
                Message::Binary(frame) => self.frame(&frame),
                Message::Close(_) => {}
            }
        }
        if !self.present {
            return;
        }
        if self.rng.below(10) == 0 {
            self.memory.version += 1;
        }
        if self.rng.below(if calm { 3 } else { 20 }) == 0 {
            self.save();
        }
        if let Some(session) = &mut self.session {
            if !self.durable {
                session.acknowledge(session.next());
            }
            if let Some(received) = session.received() {
                self.say(Message::Text(received.encode()));
            }
        }
        self.push();
    }

    fn welcome(&mut self, hello: &Hello) {
        // The learner may not have noticed that the last connection is gone.
        if let Some(mut old) = self.session.take() {
            self.finish(&old);
            self.edge = old.replace();
            assert!(old.frame(&[]).is_err());
            self.counts.replaced += 1;
        }
        let formats = hello.formats().expect("a sound introduction");
        let actor = hello.actor.as_ref().expect("an actor");
        let offer = Offer {
            policy: POLICY,
            model: model(),
            max_rows: 1 + self.rng.below(40) as u16,
            ring: 20 + self.rng.below(100),
            hz: None,
        };
        let max_rows = offer.max_rows;
        let format = RowFormat::new(&formats, &hello.action);
        let edge = std::mem::take(&mut self.edge);
        let (session, info) = LearnerSession::open(actor, format, edge, offer, self.memory.version);
        let welcome = Welcome {
            policy: hello.policy.clone(),
            policy_id: POLICY,
            version: 1,
            max_rows,
            credits: 1,
            dtype: Dtype::F32,
            action_dtype: Dtype::F32,
            action_width: 1,
            grants: vec![Grant::Transitions, Grant::Weights],
            submit_rows: None,
            order: None,
            teacher: TeacherInfo {
                observation: hello.observation.clone(),
                action: hello.action.clone(),
                description: String::new(),
            },
            learner: Some(info),
            shared: None,
            group: None,
        };
        welcome.check(&formats).expect("a sound welcome");
        self.session = Some(session);
        self.say(Message::Text(ServerMessage::Welcome(Box::new(welcome)).encode()));
    }

    fn frame(&mut self, frame: &[u8]) {
        let Some(session) = &mut self.session else { return };
        // A server that has too much to do drops a frame and says so.
        if self.rng.below(200) == 0 {
            let overloaded =
                oto_proto::message::Overloaded { request: Some(session.session()), retry_ms: 30 };
            return self.say(Message::Text(ServerMessage::Overloaded(overloaded).encode()));
        }
        let number = session.session();
        let stream = session.progress().stream.expect("a stream").0;
        match session.frame(frame) {
            Ok(accepted) => {
                let held_from = self.recorded[&stream].saturating_sub(self.ring_rows as u64);
                for lost in accepted.first - accepted.missed..accepted.first {
                    assert!(lost < held_from, "row {lost} is skipped, but held");
                    assert!(!self.memory.rows.contains(&(stream, lost)), "row {lost} is there, but skipped");
                    self.memory.missed.insert((stream, lost));
                }
                for row in accepted.rows() {
                    assert_eq!(row.observation, [row.sequence as f32, (stream & 0xffff) as f32, 0.5]);
                    assert_eq!(row.action, [0.25]);
                    assert!(
                        self.memory.rows.insert((stream, row.sequence)),
                        "row {} counts twice",
                        row.sequence
                    );
                }
            }
            Err(refusal) => {
                self.counts.refused += 1;
                let error = refusal.error().about(Some(number));
                self.say(Message::Text(ServerMessage::Error(error).encode()));
            }
        }
    }

    fn push(&mut self) {
        let (version, life) = (self.memory.version, self.life);
        let Some(session) = self.session.as_mut().filter(|_| self.connected) else { return };
        let Some(mut frame) = session.push(version, &weights(version, life)).expect("sound weights") else {
            return;
        };
        match self.rng.below(60) {
            0 => frame.truncate(frame.len() - 3),
            1 => frame.extend([0; 7]),
            2 => frame[16] ^= 0x55,
            3 => frame[4] ^= 1,
            4 => frame.iter_mut().skip(24).for_each(|byte| *byte = 0xff),
            _ => {}
        }
        self.say(Message::Binary(frame));
    }

    /// A checkpoint: rows and progress together. What it has is acknowledged.
    fn save(&mut self) {
        if let Some(session) = &mut self.session {
            self.memory.progress = session.progress();
            session.acknowledge(session.next());
        } else {
            self.memory.progress = self.edge.progress();
        }
        self.saved = self.memory.clone();
    }

    fn finish(&mut self, session: &LearnerSession) {
        let stats = session.stats();
        self.counts.rows += stats.rows;
        self.counts.duplicates += stats.duplicates;
        self.counts.missed += stats.missed;
        self.counts.pushes += stats.pushes;
        self.counts.deltas += stats.deltas;
        self.counts.rejected += stats.rejected;
        self.counts.sessions += 1;
    }

    /// The learner's process dies. Another one restarts from the last save.
    fn kill_learner(&mut self) {
        if !self.durable {
            // What it acknowledged was all in memory: only a learner that saves first survives this.
            return;
        }
        if let Some(session) = self.session.take() {
            self.finish(&session);
        }
        self.memory = self.saved.clone();
        self.edge = Edge::resumed(self.saved.progress);
        self.life += 1;
        self.present = false;
        self.counts.learner_kills += 1;
        self.lose();
    }

    /// The edge's process dies. Another one starts, with a stream of its own.
    fn kill_actor(&mut self) {
        self.counts.actor_kills += 1;
        self.count_edge();
        self.cut();
        self.stream += 1;
        (self.link, self.recorder) = actor(self.stream, self.encoding, self.ring_rows, self.stream as u64);
        (self.acting, self.applies_at) = (None, None);
    }

    fn count_edge(&mut self) {
        self.counts.dropped += self.link.stats().rows_dropped;
        self.counts.timeouts += self.link.stats().timeouts;
    }

    fn chaos(&mut self) {
        for _ in 0..CHAOS_STEPS {
            match self.rng.below(600) {
                0..3 => self.present = true,
                3 => self.kill_learner(),
                4 => self.kill_actor(),
                5..8 => self.lose(),
                8 if self.connected => {
                    self.say(Message::Close(CLOSE_RESTARTING));
                }
                9 if self.connected => self.say(Message::Text("{\"type\":\"received\"".into())),
                10 if self.connected => self.say(Message::Binary(vec![5; 30])),
                11 => self.delay = 1 + u64::from(self.rng.below(400)),
                _ => {}
            }
            assert_ne!(self.link.state(), LinkState::Failed, "{:?}", self.link.failure());
            self.step(false);
            if self.now.is_multiple_of(16 * STEP_MS) {
                self.check();
            }
        }
    }

    /// The network is mended: everything that is still held arrives, and the newest weights act.
    fn peace(&mut self) {
        (self.present, self.loss, self.delay) = (true, 0, 3);
        (0..PEACE_STEPS).for_each(|_| self.step(true));
        // The learner still spoils weights: a link that has refused many of them begins a new session, which takes a moment.
        self.begin_anew();
        self.check();
        self.save();
        (0..20).for_each(|_| self.step(true));
        self.begin_anew();
        assert!(self.link.backlog() <= 40, "{} rows are not acknowledged", self.link.backlog());
        let (_, acting) = self.acting.as_ref().expect("weights act");
        let recent =
            (self.memory.version.saturating_sub(20)..=self.memory.version).map(|v| weights(v, self.life));
        let close = |other: Vec<f32>| acting.iter().zip(&other).all(|(a, b)| (a - b).abs() < 2e-3);
        assert!(recent.into_iter().any(close), "the weights that act are the learner's, rounding aside");
    }

    /// Waits for a new session if there is none; it takes two backoffs at most, and as long again for what was recorded meanwhile.
    fn begin_anew(&mut self) {
        let waited = (0..NEW_SESSION_STEPS).find(|_| {
            let ready = self.link.state() == LinkState::Ready;
            (!ready).then(|| self.step(true));
            ready
        });
        assert!(waited.is_some(), "{:?}: {:?}", self.link.state(), self.link.problem());
        if waited > Some(0) {
            self.save();
            (0..20).for_each(|_| self.step(true));
        }
    }

    /// Every acknowledged row of every stream is there, or is known as lost. A gap is known with the row after it.
    fn check(&self) {
        for (&stream, &end) in &self.acknowledged {
            let Stored { rows, missed, .. } = &self.memory;
            let Some(newest) = rows.range((stream, 0)..(stream, u64::MAX)).next_back() else { continue };
            let end = end.min(newest.1 + 1);
            let range = (stream, 0)..(stream, end);
            let known = rows.range(range.clone()).count() + missed.range(range).count();
            assert_eq!(known as u64, end, "acknowledged rows are lost");
        }
    }
}

fn actor(stream: u128, encoding: Encoding, rows: usize, seed: u64) -> (ActorLink, Recorder) {
    let hello = hello(stream, encoding);
    let format = RowFormat::new(&hello.formats().expect("a sound introduction"), &hello.action);
    let (recorder, reader) = ring(format, rows);
    let config = ActorConfig {
        seed,
        batch: 16,
        flush_ms: 20,
        connect_timeout_ms: 900,
        answer_timeout_ms: 1_500,
        backoff_min_ms: 20,
        backoff_max_ms: 200,
        ..ActorConfig::new(hello)
    };
    let mut link = ActorLink::new(config, reader).expect("a link");
    link.connect(0);
    (link, recorder)
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("OTO_LINK_SEEDS") else { return 0..MANY };
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("expected a number, got {text:?}"));
    match text.split_once("..") {
        Some((first, end)) => number(first)..number(end),
        None => 0..number(&text),
    }
}

#[test]
fn no_acknowledged_row_is_lost_or_doubled_and_versions_only_grow() {
    let mut total = Counts::default();
    for seed in seeds() {
        println!("seed {seed}");
        let mut simulation = Simulation::new(seed);
        simulation.chaos();
        simulation.peace();
        simulation.count_edge();
        if let Some(session) = simulation.session.take() {
            simulation.finish(&session);
        }
        let (sum, one) = (&mut total, simulation.counts);
        sum.rows += one.rows;
        sum.duplicates += one.duplicates;
        sum.missed += one.missed;
        sum.dropped += one.dropped;
        sum.sessions += one.sessions;
        sum.replaced += one.replaced;
        sum.pushes += one.pushes;
        sum.deltas += one.deltas;
        sum.rejected += one.rejected;
        sum.refused += one.refused;
        sum.learner_kills += one.learner_kills;
        sum.actor_kills += one.actor_kills;
        sum.timeouts += one.timeouts;
    }
    println!("{total:?}");
    let Counts { rows, duplicates, missed, sessions, pushes, learner_kills, actor_kills, .. } = total;
    println!(
        "covered: rows {rows}, rows that came again {duplicates}, rows that a full ring lost {missed}, sessions {sessions}, \
         pushes {pushes}, killed learners {learner_kills}, killed actors {actor_kills}"
    );
    if seeds().count() >= MANY as usize {
        let Counts { dropped, replaced, deltas, rejected, refused, timeouts, .. } = total;
        for number in [rows, duplicates, missed, dropped, sessions, replaced, pushes, deltas] {
            assert!(number > 20, "{total:?}");
        }
        for number in [rejected, refused, learner_kills, actor_kills, timeouts] {
            assert!(number > 5, "{total:?}");
        }
    }
}

#[test]
fn a_replaced_actor_does_not_come_back() {
    let (mut link, _recorder) = actor(1, Encoding::F32, 10, 1);
    assert_eq!(link.poll_output(), Some(Output::Connect));
    link.handle(Event::Connected, 1);
    link.handle(Event::Closed { code: Some(ErrorCode::Replaced.close_code()), reason: "" }, 2);
    assert_eq!(link.state(), LinkState::Failed);
    assert_eq!(link.failure().map(|error| error.code), Some(ErrorCode::Replaced));
    let code: ErrorMessage = ErrorMessage::new(ErrorCode::Replaced, "");
    assert_eq!(code.code.close_code(), 4022);
}
