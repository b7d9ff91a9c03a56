//! What a server serves, to whom, and how much of it.

use crate::Policies;
use crate::ServerError;
use crate::access::Access;
use crate::audit::Audit;
use crate::dataset::DatasetStore;
use crate::hosts::{Hosts, same_origin};
use crate::proxy::TrustedProxies;
use crate::queue::QueueLimits;
use crate::reload::Reload;
use crate::seldom::Seldom;
use crate::simulation::Pace;
use crate::tls::Tls;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

/// Everything [`run`](crate::run) needs beside a listener.
#[derive(Clone)]
pub struct ServerConfig {
    /// The policies that teach.
    pub policies: Policies,
    /// The site, if there is one.
    pub assets: Option<Arc<dyn Assets>>,
    /// Origins of pages that may teach their students here, beside the server's own: `https://example.org`. A client
    /// that names no origin is no browser and may always.
    pub origins: Vec<String>,
    /// What the server is called; by default anything, but pages are its own only if their name is surely the server's.
    pub hosts: Hosts,
    /// Proxies that say whose connections they pass on; by default none.
    pub proxies: TrustedProxies,
    /// Where students' transitions go; by default nowhere, and none are taken.
    pub collecting: Collecting,
    /// Whether anyone who can reach the server may have the policies' bytes; not by default.
    pub share_weights: bool,
    /// Who may use the server, and what they may; by default everyone, and everything it offers.
    pub access: Option<Access>,
    /// The way to give the server another description of who may, while it runs.
    pub reload: Reload,
    /// Where it is noted who wanted what and what they got; by default nowhere.
    pub audit: Option<Audit>,
    /// The certificate of a server that speaks TLS; by default it does not.
    pub tls: Option<Tls>,
    /// Limits.
    pub limits: Limits,
}

/// Submissions that are written at once, over all students: each holds its batch in memory meanwhile.
const WRITES: usize = 8;

/// The datasets that students may submit to, by the name of the policy.
#[derive(Clone)]
pub struct Collecting {
    stores: Arc<HashMap<String, Arc<dyn DatasetStore>>>,
    writes: Arc<Semaphore>,
    /// Writes that failed.
    pub(crate) failures: Arc<Seldom>,
    /// How long a write takes in a simulation, where no thread does it.
    pace: Option<Pace>,
}

impl Collecting {
    /// Collects for these policies.
    pub fn new(stores: HashMap<String, Arc<dyn DatasetStore>>) -> Self {
        let writes = Arc::new(Semaphore::new(WRITES));
        Collecting { stores: Arc::new(stores), writes, failures: Arc::default(), pace: None }
    }

    /// Writes in tasks, each of which takes as long as `pace` says. For simulations.
    pub fn in_tasks(self, pace: Pace) -> Self {
        Collecting { pace: Some(pace), ..self }
    }

    /// Does something that may block.
    pub(crate) fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        match self.pace.clone() {
            None => tokio::task::spawn_blocking(work),
            Some(pace) => tokio::spawn(async move {
                tokio::time::sleep(pace()).await;
                work()
            }),
        }
    }

    pub(crate) fn store(&self, policy: &str) -> Option<Arc<dyn DatasetStore>> {
        self.stores.get(policy).cloned()
    }

    /// Leave to write a batch, if there is any now.
    pub(crate) fn permit(&self) -> Option<OwnedSemaphorePermit> {
        self.writes.clone().try_acquire_owned().ok()
    }
}

impl Default for Collecting {
    fn default() -> Self {
        Collecting::new(HashMap::new())
    }
}

impl ServerConfig {
    /// A server of these policies with nothing else.
    pub fn new(policies: Policies) -> Self {
        ServerConfig {
            policies,
            assets: None,
            origins: Vec::new(),
            hosts: Hosts::default(),
            proxies: TrustedProxies::default(),
            collecting: Collecting::default(),
            share_weights: false,
            access: None,
            reload: Reload::default(),
            audit: None,
            tls: None,
            limits: Limits::default(),
        }
    }

    /// Whether a page of this origin may use the server although it did not come from it.
    pub(crate) fn is_friend(&self, origin: &str) -> bool {
        self.origins.iter().any(|allowed| same_origin(allowed, origin))
    }

    /// Looks at what a server would refuse to begin with: tokens and rights, and origins that no page has.
    ///
    /// # Errors
    /// The first of these.
    pub fn check(&self) -> Result<(), ServerError> {
        self.access.as_ref().map(|access| access.doorkeeper(None)).transpose()?;
        if let Some(name) = self.hosts.first_wrong() {
            return Err(ServerError::HostName(name.to_owned()));
        }
        match self.origins.iter().find(|origin| !is_origin(origin)) {
            Some(origin) => Err(ServerError::Origin(origin.clone())),
            None => Ok(()),
        }
    }
}

/// Whether a browser may say that a page is from here: `https://host` or `https://host:port`, or the word for pages without an address.
fn is_origin(origin: &str) -> bool {
    let plain =
        |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || "/?#*".contains(c));
    origin == "null" || origin.split_once("://").is_some_and(|(scheme, host)| plain(scheme) && plain(host))
}

/// The files of a site, from wherever they are.
pub trait Assets: Send + Sync {
    /// The file at `path`, which has no leading slash and no part `..`; the start page is `index.html`.
    fn get(&self, path: &str) -> Option<Cow<'static, [u8]>>;
}

/// How much a server gives before it refuses. The defaults bound its memory to less than a gigabyte beside what policies need.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Connections at once, or fewer where the system lets the process have fewer files open; one more is answered with 503.
    pub connections: usize,
    /// Connections at once from one address; an IPv6 network of /64 counts as one. By default as many as there may be.
    pub per_address: usize,
    /// Requests of one student in flight at once.
    pub credits: u16,
    /// States in one request; fewer where a state is so large that they would pass `message_bytes`.
    pub max_rows: u16,
    /// Bytes of one message, and of the states that a policy is asked for with it.
    pub message_bytes: usize,
    /// Bytes of messages that are under way, and of requests until they are answered, over all connections; beside these, each
    /// connection has some 48 KiB for itself. One address, or one machine, has at most a quarter.
    pub bytes: usize,
    /// Malformed messages of one student before its connection is closed.
    pub refusals: u32,
    /// What waits for one policy.
    pub queue: QueueLimits,
    /// What a stopping server, and one that takes no more connections or submissions, tells the student to wait.
    pub retry: Duration,
    /// A stopping server adds up to this, to each student something else.
    pub restart_spread: Duration,
    /// For the handshake of TLS.
    pub tls_timeout: Duration,
    /// For the headers of a request, for its body, and for the next request of the same connection.
    pub header_timeout: Duration,
    /// For all requests of a connection that does not become a student's.
    pub http_timeout: Duration,
    /// For a student's `hello`.
    pub hello_timeout: Duration,
    /// For all of a message, from its first byte on, whatever comes between its parts.
    pub message_timeout: Duration,
    /// From one ping to the next on a silent connection, on average.
    pub ping_interval: Duration,
    /// For any sign of life from a student, pongs included.
    pub peer_timeout: Duration,
    /// For a student to take a message.
    pub write_timeout: Duration,
    /// For a student to close when it was told to.
    pub close_timeout: Duration,
    /// For everything that is to be done after the server was told to stop.
    pub stop_timeout: Duration,
}

impl Limits {
    /// How many states one request may have, if the widest that is made of one (its frame's row, the teacher's
    /// observation, either's action) has so many numbers. Nothing that one request causes to be held is larger than
    /// `message_bytes`.
    pub(crate) fn rows_of(&self, widest: usize) -> u16 {
        let rows = self.message_bytes.saturating_sub(oto_proto::HEADER_BYTES) / (4 * widest.max(1));
        u16::try_from(rows).unwrap_or(u16::MAX).min(self.max_rows)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 4096,
            per_address: usize::MAX,
            credits: 8,
            max_rows: 4096,
            message_bytes: 2 << 20,
            bytes: 256 << 20,
            refusals: 100,
            queue: QueueLimits::default(),
            retry: Duration::from_secs(1),
            restart_spread: Duration::from_secs(10),
            tls_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            http_timeout: Duration::from_secs(300),
            hello_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(20),
            ping_interval: Duration::from_secs(20),
            peer_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(20),
            close_timeout: Duration::from_secs(2),
            stop_timeout: Duration::from_secs(10),
        }
    }
}
