//! Connections beyond the server's limit. A health probe gets 200, because the process lives; all other requests get 503 with a time to
//! retry. There are few places and a second for each connection. The newest connection replaces the oldest.

use crate::auth::budget::Payer;
use crate::net::tls::Tls;
use crate::net::turns::Turns;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

/// For all of such a connection.
const TIME: Duration = Duration::from_secs(1);
/// Of a request this much is looked at.
const HEAD: usize = 512;

const LIVES: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 3\r\n\
    connection: close\r\n\r\nok\n";
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 21\r\nconnection: close\r\n\r\ntoo many connections\n";

/// Those connections.
pub(crate) struct Overflow {
    connections: JoinSet<()>,
    order: VecDeque<AbortHandle>,
    most: usize,
    turns: Arc<Turns>,
}

impl Overflow {
    /// So many at once.
    pub fn new(most: usize, turns: Arc<Turns>) -> Self {
        Overflow { connections: JoinSet::new(), order: VecDeque::new(), most: most.max(1), turns }
    }

    /// One more.
    pub fn take(
        &mut self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: IpAddr,
        tls: Option<&Tls>,
    ) {
        while self.connections.try_join_next().is_some() {}
        self.order.retain(|connection| !connection.is_finished());
        while self.order.len() >= self.most
            && let Some(oldest) = self.order.pop_front()
        {
            oldest.abort();
        }
        let (acceptor, share) = (tls.map(Tls::acceptor), self.turns.share(Payer::at(address)));
        let told = async move {
            match acceptor {
                None => tell(stream).await,
                Some(acceptor) => {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    tell(stream).await;
                }
            }
        };
        // Some of it is the time to answer, if nothing was asked.
        let spawned = self.connections.spawn(async move {
            drop(share.work(pin!(timeout(2 * TIME, told))).await);
        });
        self.order.push_back(spawned);
    }
}

/// Answers one request, or the lack of one.
async fn tell(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut head = Vec::with_capacity(HEAD);
    let asked = async {
        while head.len() < HEAD && !head.windows(2).any(|two| two == b"\r\n") {
            if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                break;
            }
        }
    };
    drop(timeout(TIME, asked).await);
    let answer = if asks_for_life(&head) { LIVES } else { FULL };
    if stream.write_all(answer).await.is_ok() && stream.shutdown().await.is_ok() {
        // A socket that is dropped with unread bytes takes back what it sent.
        let mut rest = [0; 512];
        while stream.read(&mut rest).await.unwrap_or(0) > 0 {}
    }
}

fn asks_for_life(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let Some((method, rest)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once(' ')) else {
        return false;
    };
    let target = rest.split([' ', '?']).next().unwrap_or_default();
    matches!(method, "GET" | "HEAD") && target == "/healthz"
}

#[cfg(test)]
mod tests {
    use super::asks_for_life;

    #[test]
    fn a_probe_is_known_by_its_first_line() {
        for probe in [
            "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n",
            "HEAD /healthz HTTP/1.0\r\n",
            "GET /healthz?a HTTP/1.1\r\n",
        ] {
            assert!(asks_for_life(probe.as_bytes()), "{probe}");
        }
        for other in [
            "",
            "GET",
            "GET /",
            "POST /healthz HTTP/1.1\r\n",
            "GET /healthzz HTTP/1.1\r\n",
            "\r\nGET /healthz HTTP/1.1",
        ] {
            assert!(!asks_for_life(other.as_bytes()), "{other}");
        }
        assert!(!asks_for_life(b"GET \xff\r\n"));
    }
}
