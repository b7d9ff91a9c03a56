//! The conversation with one member of a group: `hello` and `welcome`, then states and logits in both directions until one side ends it.
//!
//! As with students, one task does it all. It never waits for another member: a message for this one wakes it.

use crate::auth::access::{Entered, Principal};
use crate::auth::budget::{Account, Rate};
use crate::net::peer::{End, Peer, refused};
use crate::net::stopping::Stopping;
use crate::serve::admission::{Caller, Server};
use crate::serve::breaches::Breaches;
use crate::serve::groups::HostedGroup;
use crate::serve::pauses::{overloaded, restarting};
use crate::serve::silence::Silence;
use oto_agent::group::{CREDITS, Group, Refusal, Said};
use oto_proto::message::Overloaded;
use oto_proto::{
    ErrorCode, Grant, HEADER_BYTES, Header, Hello, Kind, MemberInfo, ServerMessage, TeacherInfo, Welcome,
};
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::sleep_until;
use tokio_tungstenite::tungstenite::Message;

/// Control messages of one member, pings, and questions that could not be passed on.
const PATIENCE: Rate = Rate { per_second: 50.0, most: 500.0 };
/// Bytes that a member may hold without a share of the common budget.
const HOLDING_BYTES: usize = 64 << 10;

/// A session of a member. The group counts it as over when this is dropped.
struct Present {
    group: Arc<HostedGroup>,
    session: u32,
}

impl Drop for Present {
    fn drop(&mut self) {
        self.group.leave(self.session);
    }
}

/// What was agreed with a member.
pub(crate) struct MemberSession {
    present: Present,
    pub principal: Arc<Principal>,
    /// Counts this connection as the principal's.
    _entered: Entered,
    wake: Arc<Notify>,
    account: Account,
    breaches: Breaches,
}

/// The group that a `hello` is for.
pub(crate) fn group<'s>(hello: &Hello, server: &'s Server) -> Option<(&'s Arc<HostedGroup>, MemberInfo)> {
    server.config.groups.find(&hello.policy).zip(hello.member.clone())
}

fn end(refusal: &Refusal) -> End {
    refusal.error().into()
}

impl MemberSession {
    /// Agrees with a member, or refuses it.
    pub fn agree(
        hello: &Hello,
        member: &MemberInfo,
        group: &Arc<HostedGroup>,
        server: &Server,
        caller: &Caller,
    ) -> Result<(MemberSession, Welcome), End> {
        let limits = &server.config.limits;
        let formats = hello.formats()?;
        let (principal, entered) = server.admit(hello, caller)?;
        if !hello.grants.contains(&Grant::PeerLogits) || !principal.may(Grant::PeerLogits) {
            return Err(refused(
                ErrorCode::Forbidden,
                "expected the grant \"peer_logits\", this member has none",
            ));
        }
        let bytes = 4 * formats.states.width();
        let fitting = limits.message_bytes.saturating_sub(HEADER_BYTES) / bytes.max(1);
        let max_rows =
            u16::try_from(Group::max_rows(formats.states.width()).min(fitting)).unwrap_or(u16::MAX);
        if max_rows == 0 {
            let message = format!("expected states of at most {} bytes, got {bytes}", limits.message_bytes);
            return Err(refused(ErrorCode::TooLarge, message));
        }
        let joined = group.join(member, formats.states.clone(), &hello.action);
        let (info, wake) = joined.map_err(|refusal| end(&refusal))?;
        let present = Present { group: group.clone(), session: info.session };
        let welcome = Welcome {
            order: None,
            policy: hello.policy.clone(),
            policy_id: group.id,
            version: 1,
            max_rows,
            credits: CREDITS,
            dtype: formats.states.dtype(),
            action_dtype: formats.actions.dtype(),
            action_width: u32::try_from(formats.actions.width()).unwrap_or(u32::MAX),
            grants: vec![Grant::PeerLogits],
            submit_rows: None,
            teacher: TeacherInfo {
                observation: hello.observation.clone(),
                action: hello.action.clone(),
                description: "A group: its members learn from each other's logits.".into(),
            },
            learner: None,
            shared: None,
            group: Some(info),
        };
        let account = server.account(&principal, caller, HOLDING_BYTES);
        let breaches = Breaches::new(PATIENCE);
        let session = MemberSession { present, principal, _entered: entered, wake, account, breaches };
        Ok((session, welcome))
    }

    /// Passes states and logits on until the end.
    pub async fn hold(&mut self, peer: &mut Peer<'_>, stopping: &Stopping) -> Result<End, End> {
        let _counted = self.present.group.metrics.member();
        let mut silence = Silence::new(peer.limits);
        let mut alarm = pin!(sleep_until(silence.ends()));
        let wake = self.wake.clone();
        loop {
            tokio::select! {
                biased;
                () = stopping.begun() => {
                    peer.say(restarting(peer.limits)).await?;
                    return Ok(End::Restarting);
                }
                () = wake.notified() => self.deliver(peer).await?,
                message = peer.receive() => {
                    silence.broken();
                    if let Some(end) = self.hear(peer, message?).await? {
                        return Ok(end);
                    }
                    // A member with more frames lets others go first.
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

    /// Sends all that the group has for this member.
    async fn deliver(&mut self, peer: &mut Peer<'_>) -> Result<(), End> {
        let Present { group, session } = &self.present;
        while let Some(said) = group.next(*session).map_err(|refusal| end(&refusal))? {
            match said {
                Said::Message(message) => peer.say(message).await?,
                Said::Frame(frame) => peer.send(Message::binary(frame)).await?,
            }
        }
        Ok(())
    }

    async fn hear(&mut self, peer: &mut Peer<'_>, message: Message) -> Result<Option<End>, End> {
        match message {
            Message::Binary(frame) => self.take(peer, &frame).await.map(|()| None),
            other => self.breaches.hear(peer, &other, "states, logits or bye").await,
        }
    }

    /// Takes a frame of states or of logits.
    async fn take(&mut self, peer: &mut Peer<'_>, frame: &[u8]) -> Result<(), End> {
        let id = Header::request_of(frame);
        let busy = |pause| overloaded(id.unwrap_or_default(), pause);
        let answers = frame.first() == Some(&(Kind::PeerLogits as u8));
        let Some(_held) = self.account.take(2 * frame.len()) else {
            peer.metrics.dropped("bytes");
            self.breaches.spend()?;
            return peer.say(busy(peer.limits.retry)).await;
        };
        let rows = Header::read(frame).map_or(0, |header| usize::from(header.rows));
        if !answers && let Err(pause) = self.principal.spend(rows) {
            peer.metrics.dropped("quota");
            self.breaches.spend()?;
            return peer.say(busy(pause)).await;
        }
        let Present { group, session } = &self.present;
        let taken = if answers { group.answer(*session, frame) } else { group.ask(*session, frame) };
        match taken {
            Ok(()) => Ok(()),
            Err(refusal @ Refusal::Replaced(_)) => Err(end(&refusal)),
            Err(refusal) => match refusal.retry_ms() {
                Some(retry_ms) => {
                    self.breaches.spend()?;
                    let request = Some(id.unwrap_or_default());
                    peer.say(ServerMessage::Overloaded(Overloaded { request, retry_ms })).await
                }
                // A sound member does this too: the other one has left, or was given up.
                None if refusal.is_harmless() => {
                    self.breaches.spend()?;
                    peer.say(ServerMessage::Error(refusal.error().about(id))).await
                }
                None => self.breaches.refuse(peer, refusal.error().about(id)).await,
            },
        }
    }
}
