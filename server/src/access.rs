//! Who may: machines with a bearer token, browsers with a ticket, and what each of them may have of which policy.
//!
//! A token is a secret that a machine keeps and shows at every handshake. A page cannot keep a secret; it gets a ticket,
//! because its origin is allowed or its own server asked for one, and says it in `hello`: once, within a minute. Of both
//! only hashes are kept here.

use crate::policies::{hex, sha256};
use oto_proto::Grant;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Who may use a server, as its operator writes it in a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// Machines with tokens of their own.
    #[serde(default)]
    pub machines: Vec<Machine>,
    /// What students in pages of an allowed origin may; without it they need a ticket that a machine asked for.
    #[serde(default)]
    pub pages: Option<Rights>,
    /// How long a ticket is good, in seconds.
    #[serde(default = "ticket_seconds")]
    pub ticket_seconds: u32,
}

fn ticket_seconds() -> u32 {
    60
}

/// A machine and its token, which stands in one of three places.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Its name, for the audit log.
    pub name: String,
    /// A file with the token.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// An environment variable with the token.
    #[serde(default)]
    pub token_env: Option<String>,
    /// The token's SHA-256 in hexadecimal digits.
    #[serde(default)]
    pub token_sha256: Option<String>,
    /// What it may.
    #[serde(flatten)]
    pub rights: Rights,
}

/// What someone may.
#[derive(Clone, Debug, Deserialize)]
pub struct Rights {
    /// Policies that may be asked; absent: all.
    #[serde(default)]
    pub policies: Option<Vec<String>>,
    /// What a connection may carry; absent: actions only.
    #[serde(default)]
    pub grants: Vec<String>,
    /// States in a second, over all connections of a machine, or of one ticket; absent: as many as the server can.
    #[serde(default)]
    pub states_per_second: Option<f64>,
    /// Connections at once; absent: as many as the server takes.
    #[serde(default)]
    pub connections: Option<usize>,
}

/// Why the description of who may use the server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not of this form.
    #[error("{path}: {source}", path = path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A machine's entry is of no use.
    #[error("machine {0:?}: {1}")]
    Machine(String, String),
}

/// The shortest token, in bytes: what is shorter can be guessed.
pub const MIN_TOKEN_BYTES: usize = 16;
/// Tickets that nobody has used yet; one more pushes out the oldest.
const MAX_TICKETS: usize = 65_536;

impl Access {
    /// Reads the operator's file. JSON; secrets stand in it as hashes or by where they are.
    ///
    /// # Errors
    /// If it cannot be read or is not of this form.
    pub fn read(path: &Path) -> Result<Self, AccessError> {
        let at = |path: &Path| path.to_owned();
        let text = std::fs::read(path).map_err(|source| AccessError::Read { path: at(path), source })?;
        serde_json::from_slice(&text).map_err(|source| AccessError::Form { path: at(path), source })
    }

    /// Reads all tokens and is ready to let people in.
    ///
    /// # Errors
    /// If a token cannot be read or is too short, or a right is none.
    pub(crate) fn doorkeeper(&self) -> Result<Doorkeeper, AccessError> {
        let mut machines = HashMap::new();
        for machine in &self.machines {
            let wrong = |why: String| AccessError::Machine(machine.name.clone(), why);
            let hash = machine.hash().map_err(wrong)?;
            let visitor = Visitor::new(&machine.name, &machine.rights).map_err(wrong)?;
            if machines.insert(hash, Arc::new(visitor)).is_some() {
                return Err(wrong("its token is another machine's, too".into()));
            }
        }
        if let Some(pages) = &self.pages {
            Visitor::new("pages", pages).map_err(|why| AccessError::Machine("pages".into(), why))?;
        }
        Ok(Doorkeeper {
            machines,
            pages: self.pages.clone(),
            page_connections: Arc::default(),
            ticket_lifetime: Duration::from_secs(self.ticket_seconds.into()),
            tickets: Mutex::default(),
        })
    }
}

/// What must hold of the operator's file whatever its bytes are; `oto-fuzz` asks it, and is told whether they were taken. A ticket lets its owner in once, and a budget
/// says how long to wait.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) -> bool {
    let Ok(access) = serde_json::from_slice::<Access>(bytes) else { return false };
    // Secrets elsewhere would be read from this machine.
    if access.machines.iter().any(|machine| machine.token_file.is_some() || machine.token_env.is_some()) {
        return false;
    }
    let Ok(doorkeeper) = access.doorkeeper() else { return false };
    let Some(page) = doorkeeper.page("https://page.example") else { return false };
    let (ticket, good) = doorkeeper.issue(page.clone()).expect("randomness");
    let redeemed = doorkeeper.redeem(&ticket);
    assert!(redeemed.is_some() || good < Duration::from_secs(60), "a ticket is good once");
    assert!(doorkeeper.redeem(&ticket).is_none(), "and only once");
    for states in [1, 1 << 40, usize::MAX, 1] {
        if let Err(pause) = page.spend(states) {
            assert!(pause <= Duration::from_secs(3600));
        }
    }
    true
}

impl Machine {
    fn hash(&self) -> Result<String, String> {
        let token = match (&self.token_file, &self.token_env, &self.token_sha256) {
            (Some(path), None, None) => {
                std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?
            }
            (None, Some(name), None) => {
                std::env::var(name).map_err(|error| format!("the environment's {name}: {error}"))?
            }
            (None, None, Some(hash)) => {
                let digits = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
                return if digits {
                    Ok(hash.to_lowercase())
                } else {
                    Err("expected 64 hexadecimal digits".into())
                };
            }
            _ => return Err("expected one of token_file, token_env and token_sha256".into()),
        };
        let token = token.trim();
        match token.len() >= MIN_TOKEN_BYTES {
            true => Ok(sha256(token.as_bytes())),
            false => {
                Err(format!("expected a token of at least {MIN_TOKEN_BYTES} bytes, got {}", token.len()))
            }
        }
    }
}

/// Someone who came in, and what is left to them.
#[derive(Debug)]
pub(crate) struct Visitor {
    name: String,
    policies: Option<Vec<String>>,
    grants: Vec<Grant>,
    budget: Option<Mutex<Budget>>,
    max_connections: usize,
    connections: Arc<AtomicUsize>,
}

/// A bucket of states. It fills with time up to what a second brings. A request may empty it and more, so that large
/// ones pass too; then the next one waits until it is paid for.
#[derive(Debug)]
struct Budget {
    per_second: f64,
    states: f64,
    filled: Instant,
}

impl Budget {
    fn spend(&mut self, states: usize, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.states = (self.states + passed * self.per_second).min(self.per_second.max(1.0));
        self.filled = now;
        if self.states >= 1.0 {
            self.states -= states as f64;
            return Ok(());
        }
        Err(Duration::from_secs_f64(((1.0 - self.states) / self.per_second).min(3600.0)))
    }
}

impl Visitor {
    /// Whoever comes to a server without doors.
    pub fn anyone() -> Self {
        Visitor {
            name: "anyone".into(),
            policies: None,
            grants: vec![Grant::Actions, Grant::Submit, Grant::Weights],
            budget: None,
            max_connections: usize::MAX,
            connections: Arc::default(),
        }
    }

    fn new(name: &str, rights: &Rights) -> Result<Self, String> {
        let mut grants = vec![Grant::Actions];
        for grant in &rights.grants {
            grants.push(match grant.as_str() {
                "actions" => Grant::Actions,
                "submit" => Grant::Submit,
                "weights" => Grant::Weights,
                other => {
                    return Err(format!("expected \"actions\", \"submit\" or \"weights\", got {other:?}"));
                }
            });
        }
        let budget = match rights.states_per_second {
            None => None,
            Some(rate) if rate > 0.0 && rate.is_finite() => {
                Some(Mutex::new(Budget { per_second: rate, states: rate.max(1.0), filled: Instant::now() }))
            }
            Some(rate) => return Err(format!("expected a positive number of states_per_second, got {rate}")),
        };
        Ok(Visitor {
            name: name.to_owned(),
            policies: rights.policies.clone(),
            grants,
            budget,
            max_connections: rights.connections.unwrap_or(usize::MAX),
            connections: Arc::default(),
        })
    }

    /// For the audit log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it may ask this policy.
    pub fn may_ask(&self, policy: &str) -> bool {
        self.policies.as_ref().is_none_or(|policies| policies.iter().any(|allowed| allowed == policy))
    }

    /// Whether its connections may carry this.
    pub fn may(&self, grant: Grant) -> bool {
        self.grants.contains(&grant)
    }

    /// Takes so many states from its budget, or says how long to wait for the next ones.
    pub fn spend(&self, states: usize) -> Result<(), Duration> {
        self.budget.as_ref().map_or(Ok(()), |budget| lock(budget).spend(states, Instant::now()))
    }

    /// One more connection, unless it has too many.
    pub fn enter(self: &Arc<Self>) -> Option<Entered> {
        let more = |now: usize| (now < self.max_connections).then_some(now + 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Entered(self.connections.clone()))
    }
}

/// A connection that counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Entered(Arc<AtomicUsize>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lets in who has a token or a ticket.
pub(crate) struct Doorkeeper {
    machines: HashMap<String, Arc<Visitor>>,
    pages: Option<Rights>,
    /// Connections of all pages' students together.
    page_connections: Arc<AtomicUsize>,
    ticket_lifetime: Duration,
    tickets: Mutex<Tickets>,
}

/// Tickets by the hash of their text, in the order they were issued.
#[derive(Default)]
struct Tickets {
    issued: HashMap<String, (Arc<Visitor>, Instant)>,
    order: std::collections::VecDeque<(Instant, String)>,
}

impl Doorkeeper {
    /// Whose token this is.
    pub fn machine(&self, token: &str) -> Option<Arc<Visitor>> {
        self.machines.get(&sha256(token.as_bytes())).cloned()
    }

    /// A student of a page whose origin is allowed.
    pub fn page(&self, origin: &str) -> Option<Arc<Visitor>> {
        // The rights were tried when the server started.
        let mut visitor = Visitor::new(&format!("page {origin}"), self.pages.as_ref()?).ok()?;
        visitor.connections = self.page_connections.clone();
        Some(Arc::new(visitor))
    }

    /// A ticket for someone, and how long it is good.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn issue(&self, visitor: Arc<Visitor>) -> Result<(String, Duration), getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        let ticket = hex(&secret);
        let (hash, now) = (sha256(ticket.as_bytes()), Instant::now());
        let mut tickets = lock(&self.tickets);
        tickets.forget(now, MAX_TICKETS - 1);
        tickets.issued.insert(hash.clone(), (visitor, now + self.ticket_lifetime));
        tickets.order.push_back((now + self.ticket_lifetime, hash));
        Ok((ticket, self.ticket_lifetime))
    }

    /// Whose ticket this is; it is none any more.
    pub fn redeem(&self, ticket: &str) -> Option<Arc<Visitor>> {
        let (visitor, end) = lock(&self.tickets).issued.remove(&sha256(ticket.as_bytes()))?;
        (Instant::now() < end).then_some(visitor)
    }
}

impl Tickets {
    /// Forgets what is over, and the oldest beyond so many.
    fn forget(&mut self, now: Instant, most: usize) {
        while let Some((end, _)) = self.order.front()
            && (*end <= now || self.order.len() > most)
        {
            if let Some((_, hash)) = self.order.pop_front() {
                self.issued.remove(&hash);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "a token that is long enough";

    fn access(machine: &str) -> Result<Doorkeeper, AccessError> {
        let text = format!(r#"{{"machines":[{{"name":"box"{machine}}}],"pages":{{"connections":2}}}}"#);
        serde_json::from_str::<Access>(&text).unwrap().doorkeeper()
    }

    fn sound() -> Doorkeeper {
        access(&format!(
            r#","token_sha256":"{}","grants":["submit"],"policies":["a"]"#,
            sha256(TOKEN.as_bytes())
        ))
        .unwrap()
    }

    #[test]
    fn a_token_says_who_it_is_and_what_it_may() {
        let doorkeeper = sound();
        assert!(doorkeeper.machine("another token of this length").is_none());
        let machine = doorkeeper.machine(TOKEN).unwrap();
        assert!(machine.may(Grant::Actions) && machine.may(Grant::Submit) && !machine.may(Grant::Weights));
        assert!(machine.may_ask("a") && !machine.may_ask("b"));
    }

    #[test]
    fn an_entry_that_is_of_no_use_is_named() {
        for (machine, says) in [
            ("", "one of"),
            (r#","token_sha256":"abc""#, "64"),
            (r#","token_file":"/nowhere/token""#, "/nowhere/token"),
            (r#","token_env":"OTO_NO_SUCH_TOKEN""#, "OTO_NO_SUCH_TOKEN"),
        ] {
            let error = access(machine).err().unwrap().to_string();
            assert!(error.contains("box") && error.contains(says), "{error}");
        }
        let hash = sha256(TOKEN.as_bytes());
        for (right, says) in [(r#""grants":["logits"]"#, "logits"), (r#""states_per_second":0"#, "positive")]
        {
            let error = access(&format!(r#","token_sha256":"{hash}",{right}"#)).err().unwrap().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_ticket_is_good_once() {
        let doorkeeper = sound();
        let (ticket, _) = doorkeeper.issue(doorkeeper.machine(TOKEN).unwrap()).unwrap();
        assert!(doorkeeper.redeem("a guess").is_none());
        assert_eq!(doorkeeper.redeem(&ticket).unwrap().name(), "box");
        assert!(doorkeeper.redeem(&ticket).is_none());
    }

    #[test]
    fn a_ticket_is_good_for_a_while() {
        let doorkeeper = Doorkeeper { ticket_lifetime: Duration::ZERO, ..sound() };
        let (ticket, _) = doorkeeper.issue(doorkeeper.page("https://a.example").unwrap()).unwrap();
        assert!(doorkeeper.redeem(&ticket).is_none());
    }

    #[test]
    fn tickets_are_bounded() {
        let mut tickets = Tickets::default();
        let (now, visitor) = (Instant::now(), Arc::new(Visitor::anyone()));
        for i in 0..5 {
            let end = now + Duration::from_secs(i);
            tickets.issued.insert(i.to_string(), (visitor.clone(), end));
            tickets.order.push_back((end, i.to_string()));
        }
        tickets.forget(now + Duration::from_secs(1), 2);
        assert_eq!(tickets.order.iter().map(|(_, hash)| hash.as_str()).collect::<Vec<_>>(), ["3", "4"]);
        assert_eq!(tickets.issued.len(), 2);
    }

    #[test]
    fn a_budget_lets_a_large_request_pass_and_makes_the_next_one_wait() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut budget = Budget { per_second: 10.0, states: 10.0, filled: start };
        assert_eq!(budget.spend(64, at(0.0)), Ok(()));
        let pause = budget.spend(1, at(1.0)).unwrap_err().as_secs_f64();
        assert!((pause - 4.5).abs() < 1e-6, "{pause}: 64 of 20 are spent, and one more is needed");
        assert_eq!(budget.spend(1, at(5.6)), Ok(()));
        assert_eq!((0..20).filter(|_| budget.spend(1, at(100.0)).is_ok()).count(), 10, "a second's worth");
    }

    #[test]
    fn connections_are_counted_until_they_end() {
        let doorkeeper = sound();
        let (a, b) =
            (doorkeeper.page("https://a.example").unwrap(), doorkeeper.page("https://b.example").unwrap());
        let (first, second) = (a.enter(), b.enter());
        assert!(first.is_some() && second.is_some() && a.enter().is_none());
        drop(second);
        assert!(a.enter().is_some());
    }
}
