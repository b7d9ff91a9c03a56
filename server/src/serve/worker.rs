//! The conversation with one asynchronous worker of a shared agent: `hello` and `welcome`, then gradients up and parameters down until one
//! side ends it.
//!
//! Every frame of gradients is answered with the newest parameters, after an `error` if it was refused. One is worked on at a time.

use crate::auth::access::{Entered, Principal};
use crate::auth::budget::{Account, Rate};
use crate::net::peer::{End, Peer, refused};
use crate::net::stopping::Stopping;
use crate::serve::admission::{Caller, Server};
use crate::serve::breaches::Breaches;
use crate::serve::pauses::{overloaded, restarting};
use crate::serve::shares::{Joined, Share};
use crate::serve::silence::Silence;
use oto_agent::hub::{Refusal, Session};
use oto_proto::{
    ErrorCode, Grant, HEADER_BYTES, Header, Hello, ServerMessage, TeacherInfo, Welcome, WorkerInfo,
};
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::sleep_until;
use tokio_tungstenite::tungstenite::Message;

/// Control messages of one worker, and pings.
const PATIENCE: Rate = Rate { per_second: 4.0, most: 64.0 };
/// What a worker may have held without a share of what all have.
const HOLDING_BYTES: usize = 64 << 10;

/// A session of a worker. The agent counts it as over when this is dropped.
struct Present {
    share: Arc<Share>,
    session: Session,
}

impl Drop for Present {
    fn drop(&mut self) {
        // A gradient that is being applied may hold the lock: that is no place to wait.
        let (share, session) = (self.share.clone(), self.session.clone());
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || share.leave(&session))),
            Err(_) => share.leave(&session),
        }
    }
}

/// What was agreed with a worker.
pub(crate) struct WorkerSession {
    present: Present,
    pub principal: Arc<Principal>,
    /// Counts this connection as the principal's.
    _entered: Entered,
    replaced: watch::Receiver<()>,
    account: Account,
    breaches: Breaches,
}

/// The shared agent that a `hello` is for.
pub(crate) fn share<'s>(hello: &Hello, server: &'s Server) -> Option<(&'s Arc<Share>, WorkerInfo)> {
    server.config.shares.find(&hello.policy).zip(hello.worker.clone())
}

fn end(refusal: &Refusal) -> End {
    refusal.error().into()
}

/// Work under an agent's lock, on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<Result<T, Refusal>, End> {
    spawn_blocking(work).await.map_err(|_| refused(ErrorCode::Internal, "the shared agent has failed"))
}

impl WorkerSession {
    /// Agrees with a worker, or refuses it.
    pub async fn agree(
        hello: &Hello,
        worker: WorkerInfo,
        share: &Arc<Share>,
        server: &Server,
        caller: &Caller,
    ) -> Result<(WorkerSession, Welcome), End> {
        let limits = &server.config.limits;
        let formats = hello.formats()?;
        let (principal, entered) = server.admit(hello, caller)?;
        if !hello.grants.contains(&Grant::Gradients) || !principal.may(Grant::Gradients) {
            return Err(refused(
                ErrorCode::Forbidden,
                "expected the grant \"gradients\", this worker has none",
            ));
        }
        if hello.observation.width() != share.observation.width() || hello.action != share.action {
            let message = format!(
                "expected an environment with {} numbers in an observation and the actions {:?}, got {} and {:?}",
                share.observation.width(),
                share.action,
                hello.observation.width(),
                hello.action
            );
            return Err(refused(ErrorCode::SpaceMismatch, message));
        }
        let bytes = HEADER_BYTES + 4 * share.parameters;
        if bytes > limits.message_bytes {
            let message =
                format!("expected gradients of at most {} bytes, got {bytes}", limits.message_bytes);
            return Err(refused(ErrorCode::TooLarge, message));
        }
        let place = share.clone();
        let joined = blocking(move || place.join(&worker)).await?;
        let Joined { session, info, version, replaced } = joined.map_err(|refusal| end(&refusal))?;
        let present = Present { share: share.clone(), session };
        let welcome = Welcome {
            policy: hello.policy.clone(),
            policy_id: share.id,
            version,
            max_rows: 1,
            credits: 1,
            dtype: formats.states.dtype(),
            action_dtype: formats.actions.dtype(),
            action_width: u32::try_from(formats.actions.width()).unwrap_or(u32::MAX),
            grants: vec![Grant::Gradients],
            submit_rows: None,
            order: None,
            teacher: TeacherInfo {
                observation: share.observation.clone(),
                action: share.action.clone(),
                description: "A shared agent: its workers send gradients.".into(),
            },
            learner: None,
            shared: Some(info),
            group: None,
        };
        let account = server.account(&principal, caller, HOLDING_BYTES);
        let breaches = Breaches::new(PATIENCE);
        let session = WorkerSession { present, principal, _entered: entered, replaced, account, breaches };
        Ok((session, welcome))
    }

    /// Takes gradients and sends parameters until the end.
    pub async fn hold(&mut self, peer: &mut Peer<'_>, stopping: &Stopping) -> Result<End, End> {
        let _counted = self.present.share.metrics.worker();
        let mut silence = Silence::new(peer.limits);
        let mut alarm = pin!(sleep_until(silence.ends()));
        self.push(peer).await?;
        loop {
            tokio::select! {
                biased;
                () = stopping.begun() => {
                    peer.say(restarting(peer.limits)).await?;
                    return Ok(End::Restarting);
                }
                // Its sender is dropped.
                _ = self.replaced.changed() => return Err(end(&Refusal::Replaced(self.present.session.number))),
                message = peer.receive() => {
                    silence.broken();
                    if let Some(end) = self.hear(peer, message?).await? {
                        return Ok(end);
                    }
                    // A worker with more gradients lets others go first.
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

    /// Sends the newest parameters.
    async fn push(&mut self, peer: &mut Peer<'_>) -> Result<(), End> {
        let Present { share, session } = &self.present;
        let (share, session) = (share.clone(), session.clone());
        let frame = blocking(move || share.weights(&session)).await?.map_err(|refusal| end(&refusal))?;
        self.present.share.metrics.pushed(frame.len());
        peer.send(Message::binary(frame)).await
    }

    async fn hear(&mut self, peer: &mut Peer<'_>, message: Message) -> Result<Option<End>, End> {
        match message {
            Message::Binary(frame) => self.take(peer, frame).await.map(|()| None),
            other => self.breaches.hear(peer, &other, "gradients or bye").await,
        }
    }

    /// Takes a frame of gradients, and answers with parameters.
    async fn take(&mut self, peer: &mut Peer<'_>, frame: bytes::Bytes) -> Result<(), End> {
        let id = Header::request_of(&frame);
        let Present { share, session } = &self.present;
        let overloaded = |pause| overloaded(id.unwrap_or_default(), pause);
        // A gradient stands for the states of its rollout.
        if let Err(pause) = self.principal.spend(share.steps) {
            peer.metrics.dropped("quota");
            return peer.say(overloaded(pause)).await;
        }
        let Some(held) = self.account.take(2 * frame.len()) else {
            peer.metrics.dropped("bytes");
            return peer.say(overloaded(peer.limits.retry)).await;
        };
        let (share, session, weight) = (share.clone(), session.clone(), self.principal.weight());
        let taken = blocking(move || share.take(&session, &frame, weight)).await?;
        drop(held);
        if let Err(refusal) = taken {
            if refusal.ends() {
                return Err(end(&refusal));
            }
            let error = refusal.error().about(id);
            match refusal {
                // A slow worker does nothing wrong.
                Refusal::Gradient(_) => peer.say(ServerMessage::Error(error)).await?,
                _ => self.breaches.refuse(peer, error).await?,
            }
        }
        self.push(peer).await
    }
}
