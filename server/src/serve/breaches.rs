//! The bounds on what an edge, a worker or a member may do wrong: control messages beyond a rate, and messages that are refused.

use crate::auth::budget::{Bucket, Rate};
use crate::net::peer::{End, Peer};
use crate::serve::pauses::impatient;
use oto_proto::{ClientMessage, ErrorCode, ErrorMessage, ServerMessage};
use tokio_tungstenite::tungstenite::Message;

/// What one connection has done wrong.
pub(crate) struct Breaches {
    control: Bucket,
    refusals: u32,
}

impl Breaches {
    /// None yet; control messages and pings come at this rate at most.
    pub fn new(control: Rate) -> Self {
        Self { control: Bucket::new(control), refusals: 0 }
    }

    /// Counts a control message or a ping.
    pub fn spend(&mut self) -> Result<(), End> {
        self.control.spend(1.0).map_err(impatient)
    }

    /// Sends the reason of a refusal; too many refusals end the connection.
    pub async fn refuse(&mut self, peer: &mut Peer<'_>, error: ErrorMessage) -> Result<(), End> {
        self.refusals += 1;
        peer.metrics.dropped("malformed");
        if self.refusals > peer.limits.refusals {
            return Err(error.about(None).into());
        }
        peer.say(ServerMessage::Error(error)).await
    }

    /// Takes a message that is no frame, in a conversation whose one control message is `bye`.
    pub async fn hear(
        &mut self,
        peer: &mut Peer<'_>,
        message: &Message,
        expected: &str,
    ) -> Result<Option<End>, End> {
        let refusal = match message {
            Message::Text(text) => match ClientMessage::decode(text) {
                Ok(ClientMessage::Bye) => return Ok(Some(End::Bye)),
                Ok(_) => {
                    let message = format!("expected {expected}, got another message");
                    Some(ErrorMessage::new(ErrorCode::BadMessage, message))
                }
                Err(error) => Some(error.into()),
            },
            // Pings are answered by tungstenite; a pong was all that was wanted.
            _ => None,
        };
        self.spend()?;
        if let Some(error) = refusal {
            self.refuse(peer, error).await?;
        }
        Ok(None)
    }
}
