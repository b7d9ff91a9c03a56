//! The teacher server: students connect, send the states they met, and get a policy's actions.
//!
//! [`run`] is the whole server. It needs a listener, a [`ServerConfig`] and a future that says when to stop, so that a
//! program, a test and a notebook can all have one.
//!
//! The wings, and which of them may use which. Nothing else may, and no two files use each other: `tests/it/wings.rs` checks that.
//!
//! | wing | what it is | may use |
//! | --- | --- | --- |
//! | `observe` | metrics, spans, log lines, files that rotate | |
//! | `dataset` | the transitions that students submit, in a folder or a bucket | |
//! | `auth` | who may use the server, and how much of what all share; the audit log | `observe` |
//! | `net` | connections, TLS, proxies, a student's socket, limits | `auth`, `observe` |
//! | `serve` | policies, their queues and versions; students' conversations, HTTP, KServe, the operator's interface | `net`, `auth`, `observe`, `dataset` |
//! | `learn` | new versions: from a folder, another server, or a policy that learns here; learners that train from the rows of edges | `serve`, `auth`, `dataset` |
//!
//! Whatever a peer does costs it its own connection at most: every wait has a deadline and every buffer a limit.
#![forbid(unsafe_code)]

mod auth;
pub mod dataset;
mod learn;
mod net;
mod observe;
mod serve;

pub use auth::{access, audit, hosts, reload};
#[cfg(feature = "follow")]
pub use learn::follow;
pub use learn::learner;
pub use learn::{agent, folder, saved_state};
pub use net::files::raise_open_files;
pub use net::limits::{LEAST_BYTES, Limits, QueueLimits};
pub use net::listener::{Listener, check_address};
pub use net::{files, proxy, tls};
pub use serve::config::{Assets, Collecting, ServerConfig};
pub use serve::error::ServerError;
pub use serve::groups::Groups;
#[doc(hidden)]
pub use serve::kserve;
pub use serve::learners::Learners;
pub use serve::policies::Policies;
pub use serve::queue::BATCH_ROWS;
pub use serve::shares::Shares;
pub use serve::version::Release;
pub use serve::{admin, candidate, shadow, simulation};

use auth::budget::Payer;
use futures_util::FutureExt;
use hyper_util::rt::{TokioIo, TokioTimer};
use net::files::Room;
use net::overflow::Overflow;
use net::stopping::Stopping;
use net::turns::Portions;
use net::worded::Worded;
use observe::log_throttle::LogThrottle;
use serve::admission::{Caller, Server};
use serve::{http, respond, teach};
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

/// How often in a row a listener may say that it is none before it counts as broken.
const ACCEPT_FAILURES: u32 = 100;
/// How long to wait after a failure: the usual reason, too many open files, passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` is done. Then it accepts nothing new, answers what it had accepted, tells every student that
/// it restarts, and returns when all connections are closed, at the latest after [`Limits::stop_timeout`].
///
/// # Errors
/// If the listener breaks for good.
pub async fn run(
    mut listener: impl Listener,
    config: ServerConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let server = Arc::new(Server::new(config)?);
    let limits = &server.config.limits;
    let room = Room::of(limits.connections);
    if room.connections < limits.connections {
        let (connections, wanted) = (room.connections, limits.connections);
        info!(connections, wanted, "the limit of open files has room for fewer connections");
    }
    let stopping = Stopping::not_yet();
    let (mut connections, mut overflow) = (JoinSet::new(), Overflow::new(room.probes, server.turns.clone()));
    let mut shutdown = pin!(shutdown);
    let (mut failures, accept_failures) = (0, LogThrottle::default());
    let result = loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break Ok(()),
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, address)) => {
                failures = 0;
                let stream = Portions::new(stream);
                let address = address.ip();
                // A proxy's connections are its clients', who are not known yet.
                let place = match server.config.proxies.holds(address) {
                    true => Some(None),
                    false => server.enter(address).map(Some),
                };
                match place {
                    Some(place) if connections.len() < room.connections => {
                        let (server, stopping) = (server.clone(), stopping.clone());
                        connections.spawn(async move {
                            let _counted = server.metrics().connection();
                            let caller = Caller::at(address, server.turns.share(Payer::at(address)));
                            let share = caller.share.clone();
                            share.work(pin!(introduced(stream, server.clone(), caller, &stopping))).await;
                            drop(place);
                        });
                    }
                    place => {
                        let reason = if place.is_some() { "connections" } else { "address" };
                        server.metrics().dropped(reason);
                        debug!(%address, reason, "a connection is refused");
                        overflow.take(stream, address, server.config.tls.as_ref());
                    }
                }
                // However many connect, those that are connected are served.
                yield_now().await;
            }
            Err(error) if is_broken(&error) && failures >= ACCEPT_FAILURES => {
                break Err(ServerError::Accept(error));
            }
            Err(error) => {
                failures += u32::from(is_broken(&error));
                if let Some(times) = accept_failures.again() {
                    warn!(error = error.to_string(), times, "connections cannot be accepted");
                }
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    drop((listener, overflow));
    stopping.begin();
    info!(connections = connections.len(), "stopping");
    let all_closed = async { while connections.join_next().await.is_some() {} };
    // Past the deadline the rest is aborted when the set is dropped.
    drop(timeout(limits.stop_timeout, all_closed).await);
    info!(aborted = connections.len(), "stopped");
    result
}

/// Whether a listener says that it is none, and not that a connection, the system or the process has a bad time: that passes, even if
/// it takes days.
fn is_broken(error: &io::Error) -> bool {
    const EBADF: i32 = 9;
    const EINVAL: i32 = 22;
    const ENOTSOCK: i32 = if cfg!(target_os = "linux") { 88 } else { 38 };
    error.raw_os_error().is_none_or(|code| [EBADF, EINVAL, ENOTSOCK].contains(&code))
}

/// One connection, and whose it is: a proxy that is trusted may say that before anything else.
async fn introduced(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    server: Arc<Server>,
    caller: Caller,
    stopping: &Stopping,
) {
    if !server.config.proxies.holds(caller.address) {
        return serve(stream, server, caller, stopping).await;
    }
    let introduction = proxy::introduction(stream);
    let Ok(Ok((client, stream))) = timeout(server.config.limits.header_timeout, introduction).await else {
        return;
    };
    let Some(client) = client else { return serve(stream, server, caller, stopping).await };
    caller.share.belongs_to(Payer::at(client));
    let place = match server.config.proxies.holds(client) {
        true => None,
        false => match server.enter(client) {
            Some(place) => Some(Arc::new(place)),
            None => {
                server.metrics().dropped("address");
                return refuse(stream);
            }
        },
    };
    let caller = Caller { address: client, place, ..caller };
    serve(stream, server, caller, stopping).await;
}

/// One connection: TLS if there is any, plain requests, and then perhaps a student. What each of them needs is on the heap
/// for as long as it lasts, so that an idle student keeps what a student needs.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    server: Arc<Server>,
    caller: Caller,
    stopping: &Stopping,
) {
    let upgrade = match &server.config.tls {
        None => Box::pin(requests(stream, server.clone(), caller, stopping)).await,
        Some(tls) => {
            let accepting = Box::pin(tls.acceptor().accept(stream));
            let Ok(Ok(stream)) = timeout(server.config.limits.tls_timeout, accepting).await else { return };
            Box::pin(requests(stream, server.clone(), caller, stopping)).await
        }
    };
    if let Some((upgrade, caller)) = upgrade
        && let Ok(upgraded) = upgrade.await
    {
        Box::pin(teach::teach(TokioIo::new(upgraded), &server, caller, stopping)).await;
    }
}

/// Answers plain requests. Gives the upgrade that one of them asked for and got.
async fn requests(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    server: Arc<Server>,
    caller: Caller,
    stopping: &Stopping,
) -> Option<(hyper::upgrade::OnUpgrade, Caller)> {
    let limits = server.config.limits.clone();
    let site = http::Site::new(server, caller, stopping.clone());
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(respond::HEADER_BYTES)
        .serve_connection(TokioIo::new(Worded::new(stream)), site.clone())
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        finished = &mut connection => return finished.ok().and_then(|()| site.take_upgrade()),
        () = sleep(limits.http_timeout) => {}
        () = stopping.begun() => {}
    }
    // The server still answers the requests that have come, if the client reads the answers in time.
    connection.as_mut().graceful_shutdown();
    let finished = timeout(limits.stop_timeout, connection).await.ok()?;
    finished.ok().and_then(|()| site.take_upgrade())
}

/// Tells a client beyond the limit to come back, if its socket takes it at once.
fn refuse(mut stream: impl AsyncWrite + Unpin) {
    let answer = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n\
        content-type: text/plain; charset=utf-8\r\ncontent-length: 37\r\nconnection: close\r\n\r\n\
        too many connections of this address\n";
    drop(stream.write(answer).now_or_never());
}
