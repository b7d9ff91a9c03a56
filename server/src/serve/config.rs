//! A server's configuration: its policies and its users.

use crate::auth::access::Access;
use crate::auth::audit::Audit;
use crate::auth::hosts::{Hosts, same_origin};
use crate::auth::reload::Reload;
use crate::dataset::DatasetStore;
use crate::net::limits::Limits;
use crate::net::proxy::TrustedProxies;
use crate::net::tls::Tls;
use crate::observe::log_throttle::LogThrottle;
use crate::serve::error::ServerError;
use crate::serve::groups::Groups;
use crate::serve::learners::Learners;
use crate::serve::policies::Policies;
use crate::serve::shares::Shares;
use crate::serve::simulation::Pace;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
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
    /// Learners that train from the rows of edges; by default none.
    pub learners: Learners,
    /// Agents that asynchronous workers train; by default none.
    pub shares: Shares,
    /// Groups whose members learn from each other's logits; by default none.
    pub groups: Groups,
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
    pub(crate) failures: Arc<LogThrottle>,
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
            learners: Learners::default(),
            shares: Shares::default(),
            groups: Groups::default(),
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

    /// Whether the server was given a site that has no start page, as a build without the site has.
    pub fn lacks_site(&self) -> bool {
        self.assets.as_ref().is_some_and(|assets| assets.get("index.html").is_none())
    }

    /// Looks at what a server would refuse to begin with: tokens and rights, limits that let nothing through, and origins that no page
    /// has.
    ///
    /// # Errors
    /// The first of these.
    pub fn check(&self) -> Result<(), ServerError> {
        if let Some(access) = &self.access {
            access.authenticator(None)?;
            access.check_somebody()?;
        }
        if let Some((what, least, got)) = self.limits.first_too_low() {
            return Err(ServerError::Limit { what, least, got });
        }
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
