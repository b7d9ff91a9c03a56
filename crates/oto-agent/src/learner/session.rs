//! A learner's side of one actor's connection, without input or output: frames and messages go in, rows come out, weights are put
//! into frames.
//!
//! Rows are accepted in order and once. The learner acknowledges them when it has stored them as durably as it promises
//! ([`LearnerSession::acknowledge`]); until then they come again after a lost connection. One push of weights is in flight at a
//! time. What outlives a connection is an [`Edge`]: a newer session of the same edge name takes it over
//! ([`LearnerSession::replace`]), and what must outlive the process too is its [`Progress`].
//!
//! Versions on the wire belong to one edge. They are the learner's own as long as the learner remembers what the actor holds;
//! a learner without memory continues above the actor's version, and another edge's claims change nothing.

use oto_proto::message::{Applied, Dropped, Received, Refused};
use oto_proto::weights::{write_complete, write_delta};
use oto_proto::{
    ActorInfo, ClientMessage, Encoding, ErrorCode, ErrorMessage, Flags, FrameError, Ids, LearnerInfo, Model,
    Row, RowFormat, ServerMessage, StreamId, WeightsError,
};
use thiserror::Error;

/// So often in a row an actor gets complete weights again at once.
const MAX_REFUSALS: u32 = 3;

/// What a learner offers in a session.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// The policy's number on the wire.
    pub policy: u32,
    /// The network that acts.
    pub model: Model,
    /// The most rows in one frame.
    pub max_rows: u16,
    /// The most rows that may be sent and not acknowledged.
    pub ring: u32,
    /// Steps per second that the learner expects, if it expects a rate.
    pub hz: Option<f64>,
}

/// How far a stream has come: what a learner saves with its replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The number of the edge's last session.
    pub session: u32,
    /// The stream.
    pub stream: Option<StreamId>,
    /// The first row that is not stored.
    pub next: u64,
    /// Rows that the edge lost before they could be sent, over all streams.
    pub missed: u64,
    /// How many of them lie right before `next`.
    pub gap: u64,
}

oto_json::json_object! { Progress: open { session, stream omit none, next, missed = 0, gap = 0 } }

/// What outlives the connections of one edge name.
#[derive(Clone, Debug, Default)]
pub struct Edge {
    session: u32,
    stream: Option<StreamId>,
    /// The first row that is wanted.
    next: u64,
    /// The first row that is not acknowledged.
    acknowledged: u64,
    missed: u64,
    /// Rows right before `next` that the edge lost.
    gap: u64,
    /// The weights that the actor holds, for differences.
    held: Option<Held>,
    /// Weights that were on their way when the connection was lost: it may hold these.
    sent: Option<Held>,
}

/// Weights that an actor holds.
#[derive(Clone, Debug)]
struct Held {
    /// Their version on the wire.
    version: u32,
    weights: Vec<f32>,
}

impl Edge {
    /// An edge as a saved run knows it.
    pub fn resumed(progress: Progress) -> Self {
        let Progress { session, stream, next, missed, gap } = progress;
        Edge { session, stream, next, acknowledged: next, missed, gap, held: None, sent: None }
    }

    /// What a learner saves once all rows that it took are stored.
    pub fn progress(&self) -> Progress {
        let Edge { session, stream, next, missed, gap, .. } = *self;
        Progress { session, stream, next, missed, gap }
    }
}

/// Why a frame or a message of an actor was refused. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Refusal {
    /// The frame itself.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A newer session of the same edge has taken over.
    #[error("session {0} is replaced by a newer one of the same edge")]
    Replaced(u32),
    /// A frame of another session.
    #[error("expected a frame of session {expected}, got one of {found}")]
    Session {
        /// This session.
        expected: u32,
        /// The session that came.
        found: u32,
    },
    /// A frame for another policy.
    #[error("expected a frame for policy {expected}, got one for {found}")]
    Policy {
        /// This policy.
        expected: u32,
        /// The policy that came.
        found: u32,
    },
    /// Rows before it are missing.
    #[error("expected row {expected}, got row {found}")]
    OutOfOrder {
        /// The row that is wanted.
        expected: u64,
        /// The first row that came.
        found: u64,
    },
    /// More rows than may be sent and not acknowledged.
    #[error("rows to {end} came, at most {ring} after row {acknowledged} may be unacknowledged")]
    BeyondRing {
        /// The row after the last one that came.
        end: u64,
        /// The first row that is not acknowledged.
        acknowledged: u64,
        /// The most rows that may be.
        ring: u32,
    },
    /// Weights that were never sent.
    #[error("version {found} was never sent, the newest is {newest}")]
    Version {
        /// The newest version that was sent.
        newest: u32,
        /// The version that came.
        found: u32,
    },
    /// A message that does not belong here.
    #[error("expected applied, refused, dropped, stage or bye, got another message")]
    Message,
}

impl Refusal {
    /// The error message to the actor: about its session, if a frame was refused.
    pub fn error(&self) -> ErrorMessage {
        let code = match self {
            Refusal::Frame(error) => error.code(),
            Refusal::Replaced(_) => ErrorCode::Replaced,
            Refusal::Session { expected, found } if found < expected => ErrorCode::Replaced,
            Refusal::Session { .. } | Refusal::Version { .. } | Refusal::Message => ErrorCode::BadMessage,
            Refusal::Policy { .. } => ErrorCode::UnknownPolicy,
            Refusal::OutOfOrder { .. } => ErrorCode::OutOfOrder,
            Refusal::BeyondRing { .. } => ErrorCode::TooLarge,
        };
        ErrorMessage::new(code, self.to_string())
    }
}

/// What was counted in one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionStats {
    /// Rows accepted.
    pub rows: u64,
    /// Rows that came again and were ignored.
    pub duplicates: u64,
    /// Rows that the edge lost before it could send them.
    pub missed: u64,
    /// Frames refused.
    pub refused: u64,
    /// Pushes made, and how many of them were differences.
    pub pushes: u64,
    /// Pushes that were differences.
    pub deltas: u64,
    /// Bytes of all pushes.
    pub push_bytes: u64,
    /// Pushes that the actor acts with.
    pub applied: u64,
    /// Pushes that the actor refused.
    pub rejected: u64,
    /// Bytes of all accepted frames.
    pub bytes_up: u64,
}

oto_json::json_object! {
    SessionStats: open {
        rows, duplicates, missed, refused, pushes, deltas, push_bytes, applied, rejected, bytes_up
    }
}

/// A push on its way.
#[derive(Clone, Debug)]
struct Push {
    /// Its version on the wire, and the learner's own.
    wire: u32,
    version: u32,
    /// What the actor will hold, where differences are sent.
    weights: Option<Vec<f32>>,
}

/// A learner's side of one connection.
#[derive(Debug)]
pub struct LearnerSession {
    edge: Edge,
    offer: Offer,
    format: RowFormat,
    encoding: Encoding,
    replaced: bool,
    /// The newest version on the wire, and the learner's own version that it stands for.
    newest: (u32, u32),
    /// The version that the actor acts with, likewise.
    acting: (u32, u32),
    in_flight: Option<Push>,
    /// The weights that came last were refused: complete ones are due.
    complete_due: bool,
    /// Pushes in a row that were refused.
    refusals: u32,
    received_due: bool,
    rows: Vec<f32>,
    actions: Vec<f32>,
    flags: Vec<Flags>,
    stats: SessionStats,
}

/// Rows that a frame brought, in order; none of them came before.
#[derive(Clone, Copy, Debug)]
pub struct Accepted<'a> {
    /// The sequence number of the first.
    pub first: u64,
    /// Rows right before the first that the edge lost: the row before them leads nowhere.
    pub missed: u64,
    /// The learner's version of the weights that decided the last row; 0 if it is not known any more.
    pub version: u32,
    session: &'a LearnerSession,
}

impl<'a> Accepted<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.session.flags.len()
    }

    /// Whether all rows of the frame came before.
    pub fn is_empty(&self) -> bool {
        self.session.flags.is_empty()
    }

    /// The rows.
    pub fn rows(self) -> impl Iterator<Item = Row<'a>> {
        let LearnerSession { format, rows, actions, flags, .. } = self.session;
        let observations = rows.chunks_exact(format.observation_width());
        let numbers = observations.zip(actions.chunks_exact(format.action_width())).zip(flags);
        let row =
            |((observation, action), flags): ((&'a [f32], &'a [f32]), &Flags)| (observation, action, *flags);
        (self.first..).zip(numbers.map(row)).map(|(sequence, (observation, action, flags))| Row {
            sequence,
            observation,
            action,
            flags,
        })
    }
}

impl LearnerSession {
    /// Opens a session for an actor, from what is left of its last one. `format` is that of the connection's rows, `version` the
    /// learner's newest one. Gives what `welcome` says.
    pub fn open(
        actor: &ActorInfo,
        format: RowFormat,
        edge: Edge,
        offer: Offer,
        version: u32,
    ) -> (LearnerSession, LearnerInfo) {
        let mut edge = edge;
        // After the last number they start again: sessions of one edge are never compared over such distances.
        edge.session = edge.session.checked_add(1).unwrap_or(1);
        if edge.stream != Some(actor.stream) {
            let Edge { session, missed, .. } = edge;
            edge = Edge { session, stream: Some(actor.stream), missed, ..Edge::default() };
        }
        let mut stats = SessionStats::default();
        skip(&mut edge, &mut stats, actor.first);
        let candidates = edge.sent.take().into_iter().chain(edge.held.take());
        edge.held = candidates.into_iter().find(|held| held.version == actor.version);
        let encoding = actor.weights.first().copied().unwrap_or(Encoding::F32);
        let info = LearnerInfo {
            session: edge.session,
            next: edge.next,
            ring: offer.ring,
            weights: encoding,
            model: offer.model.clone(),
            hz: offer.hz,
            exploration: None,
        };
        let acting = (actor.version, actor.version.min(version));
        let session = LearnerSession {
            edge,
            offer,
            format,
            encoding,
            replaced: false,
            newest: acting,
            acting,
            in_flight: None,
            complete_due: false,
            refusals: 0,
            received_due: true,
            rows: Vec::new(),
            actions: Vec::new(),
            flags: Vec::new(),
            stats,
        };
        (session, info)
    }

    /// Takes a frame of rows.
    ///
    /// # Errors
    /// If it is none for this session, or its rows do not follow the ones before them; nothing has changed then.
    pub fn frame(&mut self, frame: &[u8]) -> Result<Accepted<'_>, Refusal> {
        match self.take(frame) {
            Ok((first, missed, version)) => Ok(Accepted { first, missed, version, session: self }),
            Err(refusal) => {
                self.stats.refused += 1;
                Err(refusal)
            }
        }
    }

    fn take(&mut self, frame: &[u8]) -> Result<(u64, u64, u32), Refusal> {
        let Self { edge, offer, format, stats, .. } = self;
        if self.replaced {
            return Err(Refusal::Replaced(edge.session));
        }
        let decoded = format.decode(frame, usize::from(offer.max_rows))?;
        let Ids { request, policy, version } = decoded.header().ids;
        if request != edge.session {
            return Err(Refusal::Session { expected: edge.session, found: request });
        }
        if policy != offer.policy {
            return Err(Refusal::Policy { expected: offer.policy, found: policy });
        }
        if version > self.newest.0 {
            return Err(Refusal::Version { newest: self.newest.0, found: version });
        }
        let (first, end) = (decoded.first(), decoded.first() + decoded.rows() as u64);
        if first > edge.next {
            return Err(Refusal::OutOfOrder { expected: edge.next, found: first });
        }
        if end > edge.acknowledged.saturating_add(u64::from(offer.ring)) {
            let (acknowledged, ring) = (edge.acknowledged, offer.ring);
            return Err(Refusal::BeyondRing { end, acknowledged, ring });
        }
        // At most 65,535.
        let known = (edge.next - first).min(decoded.rows() as u64) as usize;
        let fresh = decoded.rows() - known;
        let (width, action_width) = (format.observation_width(), format.action_width());
        self.rows.resize(fresh * width, 0.0);
        self.actions.resize(fresh * action_width, 0.0);
        self.flags.clear();
        let numbers = self.rows.chunks_exact_mut(width).zip(self.actions.chunks_exact_mut(action_width));
        for (row, (observation, action)) in (known..).zip(numbers) {
            self.flags.push(decoded.read(row, observation, action));
        }
        let (at, missed) = (edge.next, edge.gap);
        if fresh > 0 {
            (edge.next, edge.gap) = (end, 0);
        }
        stats.rows += fresh as u64;
        stats.duplicates += known as u64;
        stats.bytes_up += frame.len() as u64;
        self.received_due = true;
        Ok((at, missed, self.own_version(version)))
    }

    /// Takes a control message of the actor.
    ///
    /// # Errors
    /// If it does not belong here; nothing has changed then.
    pub fn message(&mut self, message: &ClientMessage) -> Result<(), Refusal> {
        if self.replaced {
            return Err(Refusal::Replaced(self.edge.session));
        }
        match message {
            ClientMessage::Applied(Applied { version }) => {
                let push = self.landed(*version)?;
                self.stats.applied += 1;
                self.refusals = 0;
                self.acting = (push.wire, push.version);
                self.edge.held = push.weights.map(|weights| Held { version: push.wire, weights });
            }
            ClientMessage::Refused(Refused { version, .. }) => {
                self.landed(*version)?;
                self.stats.rejected += 1;
                self.edge.held = None;
                self.refusals += 1;
                // An actor that refuses them again and again gets the next ones when there are any.
                self.complete_due = self.refusals < MAX_REFUSALS;
            }
            ClientMessage::Dropped(Dropped { first }) => {
                skip(&mut self.edge, &mut self.stats, *first);
                self.received_due = true;
            }
            ClientMessage::Stage(_) | ClientMessage::Bye => {}
            ClientMessage::Hello(_) => return Err(Refusal::Message),
        }
        Ok(())
    }

    /// The push in flight, if it has this version.
    fn landed(&mut self, version: u32) -> Result<Push, Refusal> {
        let newest = self.newest.0;
        let fits = self.in_flight.as_ref().is_some_and(|push| push.wire == version);
        self.in_flight.take_if(|_| fits).ok_or(Refusal::Version { newest, found: version })
    }

    /// All rows below `next` are stored as durably as the learner promises.
    pub fn acknowledge(&mut self, next: u64) {
        let next = next.min(self.edge.next);
        if next > self.edge.acknowledged {
            self.edge.acknowledged = next;
            self.received_due = true;
        }
    }

    /// What the actor is to be told about its rows, if anything has happened since the last call: after every frame, after
    /// `dropped`, and after [`Self::acknowledge`].
    pub fn received(&mut self) -> Option<ServerMessage> {
        let next = self.edge.acknowledged;
        let due = std::mem::take(&mut self.received_due) && !self.replaced;
        due.then_some(ServerMessage::Received(Received { next, backlog: None }))
    }

    /// The first row that is wanted: all below it were accepted, or are lost.
    pub fn next(&self) -> u64 {
        self.edge.next
    }

    /// The first row that is not acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.edge.acknowledged
    }

    /// The session's number.
    pub fn session(&self) -> u32 {
        self.edge.session
    }

    /// Whether weights of the learner's `version` may be pushed: nothing is in flight, and the actor does not have them.
    pub fn push_due(&self, version: u32) -> bool {
        !self.replaced
            && self.in_flight.is_none()
            && (self.complete_due || version > self.newest.1 || self.newest.0 == 0)
    }

    /// Puts the learner's weights of `version` into a frame: as a difference where the actor reads them and holds known
    /// weights. None if [`Self::push_due`] says no.
    ///
    /// # Errors
    /// If a weight is not finite, or there are more or fewer than the model has; nothing has changed then.
    pub fn push(&mut self, version: u32, weights: &[f32]) -> Result<Option<Vec<u8>>, WeightsError> {
        if !self.push_due(version) {
            return Ok(None);
        }
        let parameters = self.offer.model.parameters as usize;
        if weights.len() != parameters {
            let (expected, found) = (4 * parameters, 4 * weights.len());
            return Err(WeightsError::Length { parameters, expected, found });
        }
        // An actor that claims the last version gets no more weights.
        let Some(wire) = self.newest.0.checked_add(1).map(|next| next.max(version)) else { return Ok(None) };
        let ids = Ids { request: self.edge.session, policy: self.offer.policy, version: wire };
        let mut frame = Vec::new();
        let weights = match (&self.edge.held, self.encoding) {
            (Some(held), Encoding::Delta) => {
                let mut weights_there = held.weights.clone();
                write_delta(ids, held.version, &mut weights_there, weights, &mut frame)?;
                self.stats.deltas += 1;
                Some(weights_there)
            }
            (_, encoding) => {
                write_complete(ids, encoding, weights, &mut frame)?;
                (encoding == Encoding::Delta).then(|| weights.to_vec())
            }
        };
        self.newest = (wire, version);
        self.complete_due = false;
        self.stats.pushes += 1;
        self.stats.push_bytes += frame.len() as u64;
        self.in_flight = Some(Push { wire, version, weights });
        Ok(Some(frame))
    }

    /// The learner's version that the actor acts with; 0 for none.
    pub fn acting(&self) -> u32 {
        self.acting.1
    }

    /// The learner's version behind one on the wire; 0 if it is not known any more.
    fn own_version(&self, wire: u32) -> u32 {
        match wire {
            wire if wire == self.newest.0 => self.newest.1,
            wire if wire == self.acting.0 => self.acting.1,
            wire if wire < self.acting.0 => wire.min(self.acting.1),
            _ => 0,
        }
    }

    /// A newer session takes over: this one refuses everything from now on.
    pub fn replace(&mut self) -> Edge {
        self.replaced = true;
        let number = self.edge.session;
        let mut edge = std::mem::take(&mut self.edge);
        self.edge.session = number;
        let held = |push: Push| Some(Held { version: push.wire, weights: push.weights? });
        edge.sent = self.in_flight.take().and_then(held);
        edge
    }

    /// What the learner saves once all accepted rows are stored.
    pub fn progress(&self) -> Progress {
        self.edge.progress()
    }

    /// What was counted in this session.
    pub fn stats(&self) -> &SessionStats {
        &self.stats
    }
}

/// The edge lost its rows below `first` that were not accepted.
fn skip(edge: &mut Edge, stats: &mut SessionStats, first: u64) {
    let missed = first.saturating_sub(edge.next);
    if missed == 0 {
        return;
    }
    let all_acknowledged = edge.acknowledged == edge.next;
    edge.next = first;
    if all_acknowledged {
        edge.acknowledged = first;
    }
    edge.gap = edge.gap.saturating_add(missed);
    edge.missed = edge.missed.saturating_add(missed);
    stats.missed += missed;
}
