//! The inferring agent apart from the training agent (OTO, section IV-B): a server near its students that pulls each
//! published version of a policy from a server in the cloud, over plain HTTP as `PROTOCOL.md` (section 8) says.
//!
//! Nothing that comes is trusted: bytes count only with the checksum they were announced with, and only if they load and
//! have the spaces of the version before. Whatever goes wrong, the last good version goes on answering, and where a folder
//! is given to keep it in, it answers after a restart too.

use crate::auth::digest::sha256;
use crate::learn::saved_state::{SavedState, SavedStateError};
use crate::serve::candidate;
use crate::serve::error::ServerError;
use crate::serve::http::{TEACH, VERSION};
use crate::serve::policies::Policies;
use crate::serve::version::Release;
use oto_policy::tensors::MAX_MODEL_BYTES;
use oto_policy::{Loaded, Metadata, PolicyError};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use tracing::{info, warn};
use ureq::http::header::AUTHORIZATION;
use ureq::http::{HeaderValue, StatusCode};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::typestate::WithoutBody;
use ureq::{Agent, RequestBuilder};

/// The longest list of policies that is read, in bytes.
const MAX_LIST_BYTES: u64 = 4 << 20;
/// For a request that somebody waits for.
const SHORT: Duration = Duration::from_secs(10);

/// What to follow, and how patiently.
#[derive(Clone, Debug)]
pub struct FollowConfig {
    /// Address of the server in the cloud: `wss://host`, `https://host`, with or without the path of its link.
    pub url: String,
    /// The name of the policy, there and here.
    pub policy: String,
    /// From one look for a new version to the next.
    pub every: Duration,
    /// The pause after a first failure; it doubles with each further one.
    pub backoff_min: Duration,
    /// The longest such pause.
    pub backoff_max: Duration,
    /// For one request, its answer included.
    pub timeout: Duration,
    /// Whose certificates are trusted instead of those of Mozilla's authorities.
    pub trusted: Option<Vec<CertificateDer<'static>>>,
    /// The value of the header `authorization`; see [`FollowConfig::authorize`].
    pub authorization: Option<HeaderValue>,
    /// The folder in which the last version is kept; by default none is.
    pub keep: Option<PathBuf>,
}

impl FollowConfig {
    /// Usual settings.
    pub fn new(url: impl Into<String>, policy: impl Into<String>) -> Self {
        FollowConfig {
            url: url.into(),
            policy: policy.into(),
            every: Duration::from_secs(2),
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
            timeout: Duration::from_secs(120),
            trusted: None,
            authorization: None,
            keep: None,
        }
    }

    /// Shows the server this bearer token.
    ///
    /// # Errors
    /// [`FollowError::Token`].
    pub fn authorize(&mut self, token: &str) -> Result<(), FollowError> {
        let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| FollowError::Token)?;
        value.set_sensitive(true);
        self.authorization = Some(value);
        Ok(())
    }
}

/// Why a version was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The address is none.
    #[error("{0:?} is no address of a server: expected ws://, wss://, http:// or https:// and a host")]
    Address(String),
    /// The token is none.
    #[error("a token is of visible ASCII characters")]
    Token,
    /// No answer, or none that HTTP has.
    #[error("{0}")]
    Http(#[from] ureq::Error),
    /// The server has no such policy, or does not share it.
    #[error("the server answered {0}: there is no policy of this name there, or it is not shared")]
    NotShared(StatusCode),
    /// The answer is not what the protocol says.
    #[error("the server's answer cannot be used: {0}")]
    Answer(String),
    /// The bytes are not those that were announced.
    #[error("the download is damaged: expected SHA-256 {expected}, got {found}")]
    Damaged {
        /// As announced.
        expected: String,
        /// Of what came.
        found: String,
    },
    /// The bytes are no policy.
    #[error("the download cannot be used: {0}")]
    Policy(#[from] PolicyError),
    /// It cannot take the place of the version before.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// What was kept cannot be used.
    #[error(transparent)]
    SavedState(#[from] SavedStateError),
}

/// What a follower does, for a log.
#[derive(Debug)]
pub enum Event {
    /// A version is published here.
    Published {
        /// The policy.
        policy: String,
        /// Its version in the cloud.
        version: u32,
        /// The SHA-256 of its bytes.
        sha256: String,
    },
    /// The version that was kept answers until the cloud is there.
    SavedState {
        /// The policy.
        policy: String,
        /// Why the cloud's own is not here.
        error: FollowError,
    },
    /// A version answers and could not be kept.
    NotKept {
        /// The policy.
        policy: String,
        /// Why.
        error: SavedStateError,
    },
    /// Looking for a version, or taking one over, failed.
    Failed {
        /// The policy.
        policy: String,
        /// Why.
        error: FollowError,
        /// When the follower looks again.
        retry: Duration,
    },
}

impl Event {
    /// Writes it to the log.
    pub fn log(&self) {
        match self {
            Event::Published { policy, version, sha256 } => {
                info!(policy, version, sha256, "the cloud's version is published");
            }
            Event::SavedState { policy, error } => {
                warn!(policy, error = error.to_string(), "the version that was kept answers");
            }
            Event::NotKept { policy, error } => {
                warn!(policy, error = error.to_string(), "a version answers and could not be kept");
            }
            Event::Failed { policy, error, retry } => {
                let retry = retry.as_secs_f32();
                warn!(policy, error = error.to_string(), retry, "no version from the cloud, looking again");
            }
        }
    }
}

/// The receiver of followers' events.
pub type Log = Box<dyn FnMut(Event) + Send>;

/// What a server says of one of its policies, its spaces among it.
///
/// # Errors
/// The address, the connection, or a server that has no policy of this name.
pub fn metadata(config: FollowConfig) -> Result<Metadata, FollowError> {
    Follower::new(FollowConfig { timeout: SHORT, ..config })?.pull_metadata()
}

/// A follower that has not pulled anything yet.
pub struct Follower {
    config: FollowConfig,
    agent: Agent,
    base: String,
    /// Tags of the versions that need not be sent again: the one that answers, and one that was refused.
    known: Vec<String>,
    metadata: Metadata,
    /// The number under which the last version answers here; 0 before the first.
    version: u32,
    /// The version that was kept, until the cloud's own takes its place.
    kept: Option<Loaded>,
    /// Whether what was kept was looked at.
    looked: bool,
    failures: u32,
}

/// What is said of the bytes that are kept.
#[derive(Serialize, Deserialize)]
struct Said {
    metadata: Metadata,
    /// The number under which they answered.
    version: u32,
}

/// Something newer than what is known.
struct Download {
    version: u32,
    sha256: String,
    bytes: Vec<u8>,
}

impl Follower {
    /// A follower; nothing is opened yet.
    ///
    /// # Errors
    /// [`FollowError::Address`].
    pub fn new(config: FollowConfig) -> Result<Self, FollowError> {
        let base = base(&config.url).ok_or_else(|| FollowError::Address(config.url.clone()))?;
        let agent = agent(&config, config.timeout);
        let metadata = Metadata::default();
        Ok(Follower {
            config,
            agent,
            base,
            known: Vec::new(),
            metadata,
            version: 0,
            kept: None,
            looked: false,
            failures: 0,
        })
    }

    /// The name of the policy.
    pub fn policy(&self) -> &str {
        &self.config.policy
    }

    /// The number under which the last version answers here; 0 before the first.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Whether there is a file in which a version was kept.
    pub fn has_kept(&self) -> bool {
        self.kept_at().is_some_and(|kept| kept.is_there())
    }

    /// Pulls the first version, or takes the one that was kept if the cloud is not there. Without one it waits for the
    /// cloud, however long; gives none if `stopped` is told to, or gone.
    pub fn first(&mut self, stopped: &Receiver<()>, log: &mut Log) -> Option<Loaded> {
        loop {
            match self.look_for_first(false, log) {
                Ok(loaded) => return Some(loaded),
                Err(retry) if is_told(stopped, retry) => return None,
                Err(_) => {}
            }
        }
    }

    /// Looks for a first version once, in the cloud and at what was kept; with `hurried` the cloud has ten seconds.
    ///
    /// # Errors
    /// How long to wait before the next look, where there is none.
    pub fn look_for_first(&mut self, hurried: bool, log: &mut Log) -> Result<Loaded, Duration> {
        self.try_first(hurried, log).map_err(|error| self.failed(error, log))
    }

    /// The same, for ten seconds at most, and nobody looks again.
    ///
    /// # Errors
    /// Why there is none.
    pub fn look_now(&mut self, log: &mut Log) -> Result<Loaded, FollowError> {
        self.try_first(true, log)
    }

    fn try_first(&mut self, hurried: bool, log: &mut Log) -> Result<Loaded, FollowError> {
        if !std::mem::replace(&mut self.looked, true) {
            self.kept = self.load_kept().unwrap_or_else(|error| {
                self.failed(error, log);
                None
            });
        }
        let hurried = hurried || self.kept.is_some();
        let timeout = if hurried { self.config.timeout.min(SHORT) } else { self.config.timeout };
        self.agent = agent(&self.config, timeout);
        let loaded = self.load_first(log);
        self.agent = agent(&self.config, self.config.timeout);
        let error = match loaded {
            Ok(loaded) => {
                self.failures = 0;
                return Ok(loaded);
            }
            Err(error) => error,
        };
        let Some(loaded) = self.kept.take() else { return Err(error) };
        self.metadata = loaded.metadata.clone();
        self.known = loaded.model.iter().map(|bytes| tag(&sha256(bytes))).collect();
        log(Event::SavedState { policy: loaded.name.clone(), error });
        Ok(loaded)
    }

    fn kept_at(&self) -> Option<SavedState> {
        let name = utf8_percent_encode(&self.config.policy, NON_ALPHANUMERIC);
        self.config.keep.as_ref().map(|folder| SavedState::at(folder.join(format!("{name}.kept"))))
    }

    fn load_kept(&mut self) -> Result<Option<Loaded>, FollowError> {
        let Some((said, bytes)) = self.kept_at().map(|kept| kept.read()).transpose()?.flatten() else {
            return Ok(None);
        };
        // Before versions were kept, the metadata were all that was said.
        let (metadata, version) = match serde_json::from_value::<Said>(said.clone()) {
            Ok(Said { metadata, version }) => (metadata, version),
            Err(_) => (Metadata::read(said.to_string().as_bytes())?, 1),
        };
        self.version = version;
        let policy = candidate::load(&bytes, &metadata)?;
        Ok(Some(Loaded {
            name: self.config.policy.clone(),
            metadata,
            policy,
            model: Some(bytes),
            warnings: vec![],
        }))
    }

    fn load_first(&mut self, log: &mut Log) -> Result<Loaded, FollowError> {
        self.metadata = self.pull_metadata()?;
        let Some(download) = self.pull()? else {
            return Err(FollowError::Answer("304 to a request that knows nothing".into()));
        };
        let policy = candidate::load(&download.bytes, &self.metadata)?;
        let mut metadata = self.metadata.clone();
        metadata.observation_space = Some(policy.observation_space().clone());
        metadata.action_space = Some(policy.action_space().clone());
        let name = self.config.policy.clone();
        let version = self.number(&download);
        self.took(&download, version, log);
        Ok(Loaded { name, metadata, policy, model: Some(download.bytes), warnings: vec![] })
    }

    /// Follows in a thread of its own, which ends when what this gives is dropped. Where `policies` keeps a place for the policy,
    /// it begins with a first version.
    ///
    /// # Errors
    /// [`ServerError::Thread`].
    pub fn follow(mut self, policies: Policies, mut log: Log) -> Result<Following, ServerError> {
        let (stop, stopped) = channel();
        let name = self.config.policy.clone();
        std::thread::Builder::new()
            .name(format!("follow {name}"))
            .spawn(move || {
                if !self.begin(&policies, &stopped, &mut log) {
                    return;
                }
                let mut pause = self.config.every;
                while !is_told(&stopped, pause) {
                    pause = self.look(&policies, &mut log);
                }
            })
            .map_err(|_| ServerError::Thread(name))?;
        Ok(Following { _stop: stop })
    }

    /// Waits for a first version, unless there is one; false if it is told to stop, or cannot go on.
    fn begin(&mut self, policies: &Policies, stopped: &Receiver<()>, log: &mut Log) -> bool {
        if policies.version(&self.config.policy).is_some() {
            return true;
        }
        let Some(loaded) = self.first(stopped, log) else { return false };
        match policies.host(loaded, self.version) {
            Ok(()) => true,
            Err(error) => {
                self.failed(error.into(), log);
                false
            }
        }
    }

    /// Looks for a new version once; gives how long to wait before the next look.
    fn look(&mut self, policies: &Policies, log: &mut Log) -> Duration {
        match self.take_over(policies, log) {
            Ok(()) => {
                self.failures = 0;
                self.config.every
            }
            Err(error) => self.failed(error, log),
        }
    }

    fn take_over(&mut self, policies: &Policies, log: &mut Log) -> Result<(), FollowError> {
        let Some(download) = self.pull()? else { return Ok(()) };
        let loaded = candidate::load(&download.bytes, &self.metadata).map_err(FollowError::from);
        // The cloud's number, where versions grow by it.
        let version = download.version.max(policies.next_version(&self.config.policy));
        let published = loaded.and_then(|policy| {
            let model = Some(download.bytes.clone());
            Ok(policies.publish(&self.config.policy, Release { policy, model, version })?)
        });
        match published {
            Ok(()) => {
                self.took(&download, version, log);
                Ok(())
            }
            Err(error) => {
                // It will not be better for being sent again.
                self.known.truncate(1);
                self.known.push(tag(&download.sha256));
                Err(error)
            }
        }
    }

    /// The number of a first version: the cloud's, where it is none that other bytes had here before.
    fn number(&self, download: &Download) -> u32 {
        let kept = self.kept.as_ref().and_then(|kept| kept.model.as_deref());
        let other = kept.is_some_and(|bytes| sha256(bytes) != download.sha256);
        download.version.max(self.version.saturating_add(other.into())).max(1)
    }

    /// A version answers under this number from now on.
    fn took(&mut self, download: &Download, number: u32, log: &mut Log) {
        let Download { version, sha256, bytes } = download;
        let policy = self.config.policy.clone();
        (self.known, self.version, self.kept) = (vec![tag(sha256)], number, None);
        let said = serde_json::json!(Said { metadata: self.metadata.clone(), version: number });
        if let Some(Err(error)) = self.kept_at().map(|kept| kept.write(&said, &[bytes])) {
            log(Event::NotKept { policy: policy.clone(), error });
        }
        log(Event::Published { policy, version: *version, sha256: sha256.clone() });
    }

    fn failed(&mut self, error: FollowError, log: &mut Log) -> Duration {
        let doubled = self.config.backoff_min.saturating_mul(1 << self.failures.min(20));
        // Half of the wait is random, so that followers of one server do not come back all at once.
        let random = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
        let retry = doubled.min(self.config.backoff_max).mul_f64(0.5 + 0.5 * random);
        self.failures = self.failures.saturating_add(1);
        log(Event::Failed { policy: self.config.policy.clone(), error, retry });
        retry
    }

    /// What the cloud says of the policy: what loading its bytes needs beside them.
    fn pull_metadata(&self) -> Result<Metadata, FollowError> {
        let mut answer = self.get("/policies").call()?;
        if answer.status() != StatusCode::OK {
            return Err(FollowError::NotShared(answer.status()));
        }
        let list = answer.body_mut().with_config().limit(MAX_LIST_BYTES).read_to_vec()?;
        let wrong = |error: serde_json::Error| FollowError::Answer(error.to_string());
        let list: Vec<serde_json::Value> = serde_json::from_slice(&list).map_err(wrong)?;
        let entry = list.into_iter().find(|entry| entry["name"] == self.config.policy.as_str());
        let mut entry = entry.ok_or(FollowError::NotShared(StatusCode::NOT_FOUND))?;
        if let Some(entry) = entry.as_object_mut() {
            ["name", "version", "model_bytes", "sha256", "model"]
                .iter()
                .for_each(|key| drop(entry.remove(*key)));
        }
        let entry = serde_json::to_vec(&entry).map_err(wrong)?;
        Ok(Metadata::read(&entry)?)
    }

    fn get(&self, path: &str) -> RequestBuilder<WithoutBody> {
        let request = self.agent.get(format!("{}{path}", self.base));
        match &self.config.authorization {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        }
    }

    /// The newest version, if it is none of the known ones.
    fn pull(&self) -> Result<Option<Download>, FollowError> {
        let name = utf8_percent_encode(&self.config.policy, NON_ALPHANUMERIC);
        let mut request = self.get(&format!("/policies/{name}/model"));
        if !self.known.is_empty() {
            request = request.header("if-none-match", self.known.join(", "));
        }
        let mut answer = request.call()?;
        match answer.status() {
            StatusCode::NOT_MODIFIED => return Ok(None),
            StatusCode::OK => {}
            other => return Err(FollowError::NotShared(other)),
        }
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let expected = header("etag").and_then(|tag| tag.strip_prefix("\"sha256-")?.strip_suffix('"'));
        let version = header(VERSION).and_then(|version| version.parse().ok());
        let (Some(expected), Some(version)) = (expected.map(str::to_owned), version) else {
            return Err(FollowError::Answer("it has no etag with a SHA-256, or no version".into()));
        };
        let bytes = answer.body_mut().with_config().limit(MAX_MODEL_BYTES).read_to_vec()?;
        let found = sha256(&bytes);
        match found == expected {
            true => Ok(Some(Download { version, sha256: found, bytes })),
            false => Err(FollowError::Damaged { expected, found }),
        }
    }
}

/// A follower at work. Dropping it ends it after the current request, without waiting.
pub struct Following {
    _stop: Sender<()>,
}

fn agent(config: &FollowConfig, timeout: Duration) -> Agent {
    let roots = config.trusted.as_ref().map_or(RootCerts::WebPki, |trusted| {
        RootCerts::new_with_certs(
            &trusted.iter().map(|one| Certificate::from_der(one).to_owned()).collect::<Vec<_>>(),
        )
    });
    Agent::config_builder()
        .timeout_global(Some(timeout))
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .http_status_as_error(false)
        .max_redirects(3)
        .build()
        .into()
}

/// Waits, unless it is told to stop.
fn is_told(stopped: &Receiver<()>, pause: Duration) -> bool {
    stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout)
}

fn tag(sha256: &str) -> String {
    format!("\"sha256-{sha256}\"")
}

/// The server behind an address, without the path of its link.
fn base(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = match scheme {
        "ws" | "http" => "http",
        "wss" | "https" => "https",
        _ => return None,
    };
    let rest = rest.strip_suffix(TEACH).unwrap_or(rest).trim_end_matches('/');
    let host = rest.split('/').next().unwrap_or_default();
    (!host.is_empty()).then(|| format!("{scheme}://{rest}"))
}

#[cfg(test)]
mod tests {
    use super::base;

    #[test]
    fn an_address_leads_to_its_server() {
        for (given, server) in [
            ("wss://cloud.example", "https://cloud.example"),
            ("ws://127.0.0.1:8080/v1/teach", "http://127.0.0.1:8080"),
            ("https://cloud.example/oto/", "https://cloud.example/oto"),
            ("wss://cloud.example/oto/v1/teach", "https://cloud.example/oto"),
        ] {
            assert_eq!(base(given).as_deref(), Some(server));
        }
        for nonsense in ["", "cloud.example", "ftp://cloud.example", "ws://", "wss:///v1/teach"] {
            assert_eq!(base(nonsense), None, "{nonsense}");
        }
    }
}
