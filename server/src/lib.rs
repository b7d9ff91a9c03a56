//! The teacher server: students connect, send the states they met, and get a policy's actions.
//!
//! [`run`] is the whole server. It needs a listener, a [`ServerConfig`] and a future that says when to stop, so that a
//! program, a test and a notebook can all have one.
//!
//! - [`config`]: policies, site, origins and limits;
//! - `http`: plain requests, and the handshake of WebSockets;
//! - `teach`: the conversation with one student;
//! - `submit`: a student's transitions on their way into a dataset; [`dataset`] keeps them;
//! - [`follow`]: policies of another server, pulled and published here as they come;
//! - [`agent`]: a policy that learns here while it answers;
//! - [`policies`]: policies by name; each has a thread that answers the states of all its students together.
//!
//! Whatever a peer does costs it its own connection at most: every wait has a deadline and every buffer a limit.
#![forbid(unsafe_code)]

pub mod agent;
pub mod config;
pub mod dataset;
pub mod follow;
mod http;
pub mod policies;
mod submit;
mod teach;

pub use config::{Assets, Collecting, Limits, ServerConfig};
pub use policies::{Policies, Release};

use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

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
    /// The listener gives no connections any more.
    #[error("cannot accept connections: {0}")]
    Accept(std::io::Error),
}

/// How often in a row accepting may fail before the listener counts as broken.
const ACCEPT_FAILURES: u32 = 100;
/// How long to wait after such a failure: the usual reason, too many open files, passes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` is done. Then it accepts nothing new, answers what it had accepted, tells every student that
/// it restarts, and returns when all connections are closed, at the latest after [`Limits::stop_timeout`].
///
/// # Errors
/// If the listener breaks for good.
pub async fn run(
    listener: TcpListener,
    config: ServerConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let config = Arc::new(config);
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let mut failures = 0;
    let result = loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break Ok(()),
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) if connections.len() >= config.limits.connections => refuse(&stream),
            Ok((stream, _)) => {
                failures = 0;
                connections.spawn(serve(stream, config.clone(), stopping.clone()));
            }
            Err(error) if failures >= ACCEPT_FAILURES => break Err(ServerError::Accept(error)),
            Err(_) => {
                failures += 1;
                sleep(ACCEPT_PAUSE).await;
            }
        }
    };
    drop(listener);
    stop.send_replace(true);
    let all_closed = async { while connections.join_next().await.is_some() {} };
    // Past the deadline the rest is aborted when the set is dropped.
    drop(timeout(config.limits.stop_timeout, all_closed).await);
    result
}

/// One connection: plain requests, and then perhaps a student.
async fn serve(stream: TcpStream, config: Arc<ServerConfig>, mut stopping: watch::Receiver<bool>) {
    // A label that waits for more to send with it is a late label. If it cannot be set, the connection is slower only.
    drop(stream.set_nodelay(true));
    let site = http::Site::new(config.clone(), stopping.clone());
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(config.limits.header_timeout)
        .max_buf_size(http::HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), site.clone())
        .with_upgrades();
    {
        let mut connection = pin!(connection);
        let finished = tokio::select! {
            finished = &mut connection => finished,
            () = sleep(config.limits.http_timeout) => return,
            () = stopped(&mut stopping) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if finished.is_err() {
            return;
        }
    }
    if let Some(upgrade) = site.take_upgrade()
        && let Ok(upgraded) = upgrade.await
    {
        teach::teach(TokioIo::new(upgraded), &config, stopping).await;
    }
}

/// Done when the server stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error says that the server itself is gone.
    drop(stopping.wait_for(|stop| *stop).await);
}

/// Tells a client beyond the limit to come back, if its socket takes it at once.
fn refuse(stream: &TcpStream) {
    let answer = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    drop(stream.try_write(answer));
}
