//! The pauses that the server asks a peer for.

use crate::net::limits::Limits;
use crate::net::peer::{End, milliseconds};
use crate::serve::random;
use oto_proto::ServerMessage;
use oto_proto::message::{Overloaded, Restarting};
use std::time::Duration;

/// The end of a peer that sends too many control messages.
pub(crate) fn impatient(pause: Duration) -> End {
    End::Overloaded(pause.max(Duration::from_secs(1)), "control")
}

/// The server stops. Each peer gets a different time, so that they do not come back all at once.
pub(crate) fn restarting(limits: &Limits) -> ServerMessage {
    let retry = random::between(limits.retry, limits.restart_spread);
    ServerMessage::Restarting(Restarting { retry_ms: milliseconds(retry) })
}

/// A request was dropped and may come again after about this time, and not all of them at once.
pub(crate) fn overloaded(request: u32, pause: Duration) -> ServerMessage {
    let retry_ms = milliseconds(random::between(pause, pause / 2));
    ServerMessage::Overloaded(Overloaded { request: Some(request), retry_ms })
}
