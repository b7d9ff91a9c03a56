//! The conversation with one edge: `hello` and `welcome`, then rows up and weights down until one side ends it.
//!
//! As with students, one task does it all. A row is acknowledged once the learner has stored it; weights are sent once the edge has
//! applied the last ones.

use crate::auth::access::{Entered, Principal};
use crate::auth::budget::{Account, Rate, lock};
use crate::net::peer::{End, Peer, refused};
use crate::net::stopping::Stopping;
use crate::serve::admission::{Caller, Server};
use crate::serve::breaches::Breaches;
use crate::serve::learners::{Begun, Command, HostedLearner, Published, Rows, Standing};
use crate::serve::pauses::{overloaded, restarting};
use crate::serve::silence::Silence;
use oto_agent::learner::session::LearnerSession;
use oto_proto::message::Received;
use oto_proto::{
    ActorInfo, ClientMessage, ErrorCode, ErrorMessage, Grant, Header, Hello, LearnerInfo, RowFormat,
    ServerMessage, TeacherInfo, Welcome,
};
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::{sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

/// Control messages of one edge that answer no push, and pings.
const PATIENCE: Rate = Rate { per_second: 4.0, most: 64.0 };
/// What an edge may have held without a share of what all have.
const HOLDING_BYTES: usize = 64 << 10;
/// How long an edge waits for a place in its learner's queue.
const QUEUE_TIME: Duration = Duration::from_secs(5);
/// Versions whose age is known.
const PUSHES: usize = 8;

/// What was agreed with an edge, and what is under way.
pub(crate) struct EdgeSession {
    learner: Arc<HostedLearner>,
    pub principal: Arc<Principal>,
    /// Counts this connection as the principal's.
    _entered: Entered,
    edge: Arc<str>,
    number: u32,
    session: Arc<Mutex<LearnerSession>>,
    standing: watch::Receiver<Standing>,
    weights: watch::Receiver<Published>,
    /// Whether it may send rows, and get weights.
    sends: bool,
    receives: bool,
    account: Account,
    breaches: Breaches,
    /// The newest versions that were sent, and the row that the learner had reached then.
    pushed: VecDeque<(u32, u64)>,
}

/// The learner that a `hello` is for.
pub(crate) fn learner<'s>(hello: &Hello, server: &'s Server) -> Option<&'s Arc<HostedLearner>> {
    hello.actor.as_ref().and_then(|_| server.config.learners.find(&hello.policy))
}

impl EdgeSession {
    /// Agrees with an edge, or refuses it.
    pub async fn agree(
        hello: &Hello,
        actor: &ActorInfo,
        learner: &Arc<HostedLearner>,
        server: &Server,
        caller: &Caller,
    ) -> Result<(EdgeSession, Welcome), End> {
        let limits = &server.config.limits;
        let formats = hello.formats()?;
        let (principal, entered) = server.admit(hello, caller)?;
        let may = |grant: Grant| hello.grants.contains(&grant) && principal.may(grant);
        let (sends, receives) = (may(Grant::Transitions), may(Grant::Weights));
        if !sends && !receives {
            let message = "expected the grants \"transitions\" and \"weights\", this actor has neither";
            return Err(refused(ErrorCode::Forbidden, message));
        }
        if hello.observation.width() != learner.observation.width() || hello.action != learner.action {
            let message = format!(
                "expected an environment with {} numbers in an observation and the actions {:?}, got {} and {:?}",
                learner.observation.width(),
                learner.action,
                hello.observation.width(),
                hello.action
            );
            return Err(refused(ErrorCode::SpaceMismatch, message));
        }
        let format = RowFormat::new(&formats, &hello.action);
        let max_rows = format.rows_in(limits.message_bytes);
        let model_bytes = 4 * learner.model.parameters as usize;
        if max_rows == 0 || model_bytes > MAX_PUSH_BYTES {
            let message = format!(
                "expected rows of at most {} bytes, got {}",
                limits.message_bytes,
                format.row_bytes()
            );
            return Err(refused(ErrorCode::TooLarge, message));
        }
        let permit = timeout(QUEUE_TIME, learner.commands.reserve()).await;
        let permit = permit.map_err(|_| End::Overloaded(limits.retry, "learner"))?;
        let permit = permit.map_err(|_| refused(ErrorCode::Internal, "the learner does not run"))?;
        let begun = learner.begin(actor, format, max_rows, permit);
        let Begun { session, info, standing } = begun.map_err(|most| {
            refused(
                ErrorCode::Forbidden,
                format!("expected one of the learner's {most} edges, got another one"),
            )
        })?;
        let grants = [(sends, Grant::Transitions), (receives, Grant::Weights)];
        let weights = learner.weights.clone();
        let version = weights.borrow().version;
        let number = info.session;
        let info = LearnerInfo { exploration: Some(learner.exploration.clone()), ..info };
        let welcome = Welcome {
            policy: hello.policy.clone(),
            policy_id: learner.id,
            version,
            max_rows,
            credits: limits.credits.max(1),
            dtype: formats.states.dtype(),
            action_dtype: formats.actions.dtype(),
            action_width: u32::try_from(formats.actions.width()).unwrap_or(u32::MAX),
            grants: grants.into_iter().filter_map(|(given, grant)| given.then_some(grant)).collect(),
            submit_rows: None,
            order: None,
            teacher: TeacherInfo {
                observation: learner.observation.clone(),
                action: learner.action.clone(),
                description: "A learner: it trains from the rows of its edges.".into(),
            },
            learner: Some(info),
            shared: None,
            group: None,
        };
        let account = server.account(&principal, caller, HOLDING_BYTES);
        learner.wants_weights();
        let session = EdgeSession {
            learner: learner.clone(),
            principal,
            _entered: entered,
            edge: actor.name.as_str().into(),
            number,
            session,
            standing,
            weights,
            sends,
            receives,
            account,
            breaches: Breaches::new(PATIENCE),
            pushed: VecDeque::with_capacity(PUSHES),
        };
        Ok((session, welcome))
    }

    /// Takes rows and sends weights until the end.
    pub async fn hold(&mut self, peer: &mut Peer<'_>, stopping: &Stopping) -> Result<End, End> {
        let _present = self.learner.metrics.edge();
        let mut silence = Silence::new(peer.limits);
        let mut alarm = pin!(sleep_until(silence.ends()));
        self.push(peer).await?;
        self.acknowledge(peer).await?;
        loop {
            tokio::select! {
                biased;
                () = stopping.begun() => {
                    peer.say(restarting(peer.limits)).await?;
                    return Ok(End::Restarting);
                }
                Ok(()) = self.standing.changed() => self.acknowledge(peer).await?,
                Ok(()) = self.weights.changed(), if self.receives => self.push(peer).await?,
                message = peer.receive() => {
                    silence.broken();
                    if let Some(end) = self.hear(peer, message?).await? {
                        return Ok(end);
                    }
                    // An edge with more rows lets others go first.
                    yield_now().await;
                }
                () = &mut alarm => {
                    if silence.alarm()? {
                        peer.send(Message::Ping(bytes::Bytes::new())).await?;
                    }
                    alarm.as_mut().reset(silence.ends());
                }
            }
        }
    }

    /// Tells what is stored, and ends a session that is over.
    async fn acknowledge(&mut self, peer: &mut Peer<'_>) -> Result<(), End> {
        let Standing { next, backlog, ended } = self.standing.borrow_and_update().clone();
        if let Some(ended) = ended {
            return Err(ended.error(self.number).into());
        }
        let next = {
            let mut session = lock(&self.session);
            session.acknowledge(next);
            // What it would say is said here, with the backlog.
            session.received();
            session.acknowledged()
        };
        peer.say(ServerMessage::Received(Received { next, backlog: Some(backlog) })).await
    }

    /// Sends the newest weights, if the edge has applied the last ones and there are newer ones.
    async fn push(&mut self, peer: &mut Peer<'_>) -> Result<(), End> {
        if !self.receives {
            return Ok(());
        }
        let Published { version, weights } = self.weights.borrow_and_update().clone();
        if !lock(&self.session).push_due(version) {
            return Ok(());
        }
        let session = self.session.clone();
        // Compressing takes milliseconds.
        let made = spawn_blocking(move || lock(&session).push(version, &weights)).await;
        let failed = |why: String| refused(ErrorCode::Internal, format!("the weights cannot be sent: {why}"));
        let made =
            made.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
        let Some(frame) = made else { return Ok(()) };
        if self.pushed.len() == PUSHES {
            self.pushed.pop_front();
        }
        let Standing { next, backlog, .. } = *self.standing.borrow();
        self.pushed.push_back((version, next.saturating_sub(backlog)));
        self.learner.metrics.pushed(frame.len());
        peer.send(Message::binary(frame)).await
    }

    async fn hear(&mut self, peer: &mut Peer<'_>, message: Message) -> Result<Option<End>, End> {
        let refusal = match message {
            Message::Binary(frame) => self.take(peer, &frame).await?,
            Message::Text(text) => match ClientMessage::decode(&text) {
                Ok(ClientMessage::Bye) => return Ok(Some(End::Bye)),
                Ok(message) => self.listen(peer, &message).await?,
                Err(error) => Some(error.into()),
            },
            // Pings are answered by tungstenite; a pong was all that was wanted.
            _ => {
                self.breaches.spend()?;
                None
            }
        };
        let Some(error) = refusal else { return Ok(None) };
        if error.code == ErrorCode::Replaced {
            // The session was ended meanwhile; its state says why.
            let ended = self.standing.borrow().ended.clone();
            return Err(ended.map_or(error, |ended| ended.error(self.number)).into());
        }
        self.breaches.refuse(peer, error).await?;
        Ok(None)
    }

    /// Takes a control message.
    async fn listen(
        &mut self,
        peer: &mut Peer<'_>,
        message: &ClientMessage,
    ) -> Result<Option<ErrorMessage>, End> {
        // What answers a push is bounded by the pushes.
        if !matches!(message, ClientMessage::Applied(_)) {
            self.breaches.spend()?;
        }
        let heard = lock(&self.session).message(message);
        if let Err(refusal) = heard {
            return Ok(Some(refusal.error()));
        }
        match message {
            ClientMessage::Dropped(dropped) => {
                let session = (self.edge.clone(), self.number);
                let command = Command::Dropped { session, first: dropped.first };
                self.send(command, peer.limits.retry).await?;
            }
            ClientMessage::Applied(_) => self.learner.metrics.applied(),
            ClientMessage::Refused(_) => self.learner.metrics.refused(),
            _ => return Ok(None),
        }
        self.push(peer).await?;
        self.learner.wants_weights();
        Ok(None)
    }

    async fn send(&self, command: Command, retry: Duration) -> Result<(), End> {
        match timeout(QUEUE_TIME, self.learner.commands.send(command)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(refused(ErrorCode::Internal, "the learner does not run")),
            Err(_) => Err(End::Overloaded(retry, "learner")),
        }
    }

    /// Takes a frame of rows, or says why not.
    async fn take(&mut self, peer: &mut Peer<'_>, frame: &[u8]) -> Result<Option<ErrorMessage>, End> {
        let id = Header::request_of(frame);
        if !self.sends {
            let message = "expected no rows, got some: there is no grant \"transitions\" here";
            return Ok(Some(ErrorMessage::new(ErrorCode::Forbidden, message).about(id)));
        }
        let rows = Header::read(frame).map_or(0, |header| usize::from(header.rows));
        let overloaded = |pause| overloaded(id.unwrap_or_default(), pause);
        if let Err(pause) = self.principal.spend(rows) {
            peer.metrics.dropped("quota");
            peer.say(overloaded(pause)).await?;
            return Ok(None);
        }
        let Some(held) = self.account.take(2 * frame.len()) else {
            peer.metrics.dropped("bytes");
            peer.say(overloaded(peer.limits.retry)).await?;
            return Ok(None);
        };
        let learner = self.learner.clone();
        let Ok(permit) = timeout(QUEUE_TIME, learner.commands.reserve()).await else {
            peer.metrics.dropped("learner");
            peer.say(overloaded(peer.limits.retry)).await?;
            return Ok(None);
        };
        let permit = permit.map_err(|_| refused(ErrorCode::Internal, "the learner does not run"))?;
        let received = {
            let mut session = lock(&self.session);
            let accepted = match session.frame(frame) {
                Ok(accepted) => accepted,
                Err(refusal) => return Ok(Some(refusal.error().about(id))),
            };
            let mut rows = Rows { first: accepted.first, ..Rows::default() };
            for row in accepted.rows() {
                rows.observations.extend_from_slice(row.observation);
                rows.actions.extend_from_slice(row.action);
                rows.flags.push(row.flags);
            }
            let version = accepted.version;
            if let Some((_, reached)) = self.pushed.iter().find(|(pushed, _)| *pushed == version) {
                let last = rows.first + rows.flags.len() as u64;
                learner.metrics.stale(last.saturating_sub(*reached));
            }
            match rows.flags.is_empty() {
                // All of them are duplicates: the acknowledgement is sent again.
                true => session.received(),
                false => {
                    // Sent before the session is free for a newer one: its rows come after these.
                    let session = (self.edge.clone(), self.number);
                    permit.send(Command::Rows { session, rows, held: Some(held) });
                    None
                }
            }
        };
        if let Some(received) = received {
            peer.say(received).await?;
        }
        Ok(None)
    }
}

/// The largest push that any edge gets.
const MAX_PUSH_BYTES: usize = 64 << 20;
