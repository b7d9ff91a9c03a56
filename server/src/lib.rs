//! The teacher server: students connect, send the states they met, and get a policy's actions.
//!
//! [`run`] is the whole server. It needs a listener, a [`ServerConfig`] and a future that says when to stop, so that a
//! program, a test and a notebook can all have one.
//!
//! - [`config`]: policies, site, origins and limits;
//! - `http`: plain requests, tickets, and the handshake of WebSockets; [`tls`] beneath it, `kserve` beside it;
//! - [`access`], `admission`, `budget`: who is let in, what they may, and how much of what all share; [`audit`] notes it, in a file that is
//!   `rotated`; [`reload`] changes it;
//! - [`listener`]: where connections come from, [`proxy`]: who is behind one, [`hosts`]: whom they mean; [`files`]: how many there may be, and
//!   `overflow`: what those beyond get;
//! - `teach`: the conversation with one student, over the socket in `peer`, before which a `gate` stands;
//! - `turns`: how connections share the server's threads; `aside`: the thread for what takes long;
//! - [`policies`]: policies by name; each has a [`queue`] and a thread, the `batcher`, that answers the states of all its
//!   students together; a `shadow` beside it is only compared;
//! - `candidate`, [`folder`], [`follow`], [`agent`], [`admin`]: what is published, from a folder, from another server, by a
//!   policy that learns here, and by an operator;
//! - [`kept`]: what the last two had when the server ended;
//! - `metrics`: what an operator watches; what happens is told to `tracing`, what may happen often `seldom`, and of requests their `spans`;
//! - [`simulation`]: what a server on a simulated network needs beside that;
//! - `submit`: a student's transitions on their way into a dataset; [`dataset`] keeps them.
//!
//! Whatever a peer does costs it its own connection at most: every wait has a deadline and every buffer a limit.
#![forbid(unsafe_code)]

pub mod access;
pub mod admin;
mod admission;
pub mod agent;
mod aside;
pub mod audit;
mod batcher;
mod board;
mod budget;
pub mod candidate;
pub mod config;
pub mod dataset;
pub mod files;
pub mod folder;
pub mod follow;
mod gate;
pub mod hosts;
mod http;
pub mod kept;
#[doc(hidden)]
pub mod kserve;
pub mod listener;
mod metrics;
mod overflow;
mod peer;
pub mod policies;
pub mod proxy;
pub mod queue;
mod random;
pub mod reload;
mod rotated;
mod seldom;
pub mod shadow;
pub mod simulation;
mod spans;
mod stopping;
mod submit;
mod teach;
pub mod tls;
mod turns;

pub use config::{Assets, Collecting, Limits, ServerConfig};
pub use files::raise_open_files;
pub use listener::Listener;
pub use policies::{Policies, Release};

use admission::{Caller, Server};
use budget::Payer;
use files::Room;
use futures_util::FutureExt;
use hyper_util::rt::{TokioIo, TokioTimer};
use overflow::Overflow;
use seldom::Seldom;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use stopping::Stopping;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};
use turns::Portions;

/// Why a server could not be set up, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Two policies have the same name, or one has an unusable one.
    #[error("a policy needs a name of its own, of 1 to {max} bytes, not beginning with \"scripted:\"; got {0:?}", max = oto_proto::message::MAX_NAME_BYTES)]
    Name(String),
    /// No policy of this name.
    #[error("there is no policy {0:?}")]
    UnknownPolicy(String),
    /// A new version of a policy has other spaces than the old one.
    #[error("policy {0:?}: a new version must observe and do the same as the old one")]
    Spaces(String),
    /// The thread of a policy could not be started, or is gone.
    #[error("the thread of policy {0:?} does not run")]
    Thread(String),
    /// No version came before the one that answers.
    #[error("there is no version to go back to: none came before this one")]
    NothingBefore,
    /// Nothing is tried.
    #[error("there is no canary")]
    NoCanary,
    /// An origin that no page has.
    #[error(
        "an origin is a scheme, a host and perhaps a port, such as https://my.page, with nothing after them; got {0:?}"
    )]
    Origin(String),
    /// A name that no server has.
    #[error("a server's name is a host and perhaps a port, such as my.page or my.page:8443; got {0:?}")]
    HostName(String),
    /// The description of who may use the server cannot be used.
    #[error(transparent)]
    Access(#[from] access::AccessError),
    /// The listener gives no connections any more.
    #[error("cannot accept connections: {0}")]
    Accept(std::io::Error),
}

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
    let (mut failures, accept_failures) = (0, Seldom::default());
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
        .max_buf_size(http::HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), site.clone())
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        finished = &mut connection => return finished.ok().and_then(|()| site.take_upgrade()),
        () = sleep(limits.http_timeout) => {}
        () = stopping.begun() => {}
    }
    // What was asked is answered, if whoever asked takes it in time.
    connection.as_mut().graceful_shutdown();
    let finished = timeout(limits.stop_timeout, connection).await.ok()?;
    finished.ok().and_then(|()| site.take_upgrade())
}

/// Tells a client beyond the limit to come back, if its socket takes it at once.
fn refuse(mut stream: impl AsyncWrite + Unpin) {
    let answer = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    drop(stream.write(answer).now_or_never());
}
