//! Who may: machines with a bearer token, browsers with a ticket, and what each of them may have of which policy.
//!
//! A token is a secret that a machine keeps and shows at every handshake. A page cannot keep a secret; it gets a ticket,
//! because its origin is allowed or its own server asked for one, and says it in `hello`: once, within a minute. Of both
//! only hashes are kept here.

use crate::auth::audit::Who;
use crate::auth::budget::{Bucket, Buckets, Counted, Counts, Payer, Rate, lock, network};
use crate::auth::digest::{hex, sha256};
use oto_json::file;
use oto_proto::Grant;
use serde::Deserialize;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
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
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct Rights {
    /// Policies that may be asked; absent: all.
    #[serde(default)]
    pub policies: Option<Vec<String>>,
    /// What a connection may carry; absent: actions only.
    #[serde(default)]
    pub grants: Vec<String>,
    /// States in a second, over all connections of a machine, or of a page's students at one address; absent: as many as the server can.
    #[serde(default)]
    pub states_per_second: Option<f64>,
    /// Connections at once; absent: as many as the server takes.
    #[serde(default)]
    pub connections: Option<usize>,
    /// Weight of the gradients of asynchronous workers, above 0 and at most 1; absent: 1.
    #[serde(default)]
    pub weight: Option<f64>,
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
    /// Nobody has a right.
    #[error("expected machines or pages, got neither: nobody could use the server")]
    Nobody,
    /// Tickets that are over when they are given.
    #[error("ticket_seconds: expected at least 1, got 0")]
    Tickets,
    /// A policy that the server does not have.
    #[error("machine {name:?}: the server has no policy {policy:?}; expected some of {known}")]
    Policy {
        /// The machine's name, or `pages`.
        name: String,
        /// The policy that it may ask.
        policy: String,
        /// Those that there are.
        known: String,
    },
    /// A server that lets everyone in cannot begin to ask while it runs.
    #[error("the server began without --access and has to be started anew to have it")]
    Open,
}

/// The shortest token, in bytes: what is shorter can be guessed.
pub const MIN_TOKEN_BYTES: usize = 16;
/// Tickets that are given and not used: of all pages, of pages at one address, and of one machine.
const PAGE_TICKETS: usize = 32_768;
const ADDRESS_TICKETS: usize = 256;
const MACHINE_TICKETS: usize = 8_192;

impl Access {
    /// Reads the operator's file. JSON; secrets stand in it as hashes or by where they are.
    ///
    /// # Errors
    /// If it cannot be read or is not of this form.
    pub fn read(path: &Path) -> Result<Self, AccessError> {
        let at = |path: &Path| path.to_owned();
        let text = file::read(path, file::MAX_LIST)
            .map_err(|source| AccessError::Read { path: at(path), source })?;
        object(&text).map_err(|source| AccessError::Form { path: at(path), source })
    }

    /// Looks for somebody who could use the server.
    pub(crate) fn check_somebody(&self) -> Result<(), AccessError> {
        match self.machines.is_empty() && self.pages.is_none() {
            true => Err(AccessError::Nobody),
            false => Ok(()),
        }
    }

    /// Looks whether a server has all policies that this file names.
    ///
    /// # Errors
    /// [`AccessError::Policy`], for the first that it does not have.
    pub fn check_policies(&self, known: &[String]) -> Result<(), AccessError> {
        let machines = self.machines.iter().map(|machine| (machine.name.as_str(), &machine.rights));
        for (name, rights) in machines.chain(self.pages.iter().map(|pages| ("pages", pages))) {
            let mut named = rights.policies.iter().flatten();
            if let Some(policy) = named.find(|policy| !known.contains(policy)) {
                let (name, policy, known) = (name.to_owned(), policy.clone(), known.join(", "));
                return Err(AccessError::Policy { name, policy, known });
            }
        }
        Ok(())
    }

    /// Reads all tokens and is ready to let people in. What those had whom it knew before, they keep.
    ///
    /// # Errors
    /// If a token cannot be read or is too short, or a right is none.
    pub(crate) fn authenticator(&self, before: Option<&Authenticator>) -> Result<Authenticator, AccessError> {
        let (mut machines, mut names) = (HashMap::new(), HashSet::new());
        for machine in &self.machines {
            let wrong = |why: String| AccessError::Machine(machine.name.clone(), why);
            if !names.insert(&machine.name) {
                return Err(wrong("expected a name of its own, got another machine's".into()));
            }
            let hash = machine.hash().map_err(wrong)?;
            let mut principal = Arc::new(Principal::new(&machine.name, &machine.rights).map_err(wrong)?);
            if let Some(known) = before.and_then(|before| before.machines.get(&hash))
                && known.rights == machine.rights
                && known.name() == machine.name
            {
                principal = known.clone();
            }
            if machines.insert(hash, principal).is_some() {
                return Err(wrong("its token is another machine's, too".into()));
            }
        }
        if self.ticket_seconds == 0 {
            return Err(AccessError::Tickets);
        }
        let wrong = |why| AccessError::Machine("pages".into(), why);
        let rate =
            self.pages.as_ref().map(|pages| rate(pages.states_per_second)).transpose().map_err(wrong)?;
        if let Some(pages) = &self.pages {
            Principal::new("pages", pages).map_err(wrong)?;
        }
        let tickets = before.map(|before| before.tickets.clone()).unwrap_or_default();
        Ok(Authenticator {
            machines,
            pages: self.pages.clone(),
            page_connections: Arc::default(),
            page_states: rate.flatten().map(|rate| Arc::new(Buckets::new(rate))),
            ticket_lifetime: Duration::from_secs(self.ticket_seconds.into()),
            tickets,
        })
    }
}

/// The rights in a text. Serde takes a list for a structure, and an empty one for the defaults of all its fields: here each is an object.
fn object(text: &[u8]) -> serde_json::Result<Access> {
    use serde::de::Error;
    let whole: serde_json::Value = serde_json::from_slice(text)?;
    let is_list = |value: Option<&serde_json::Value>| value.is_some_and(serde_json::Value::is_array);
    match (is_list(Some(&whole)), is_list(whole.get("pages"))) {
        (true, _) => Err(Error::custom("expected an object, got a list")),
        (_, true) => Err(Error::custom("pages: expected an object, got a list")),
        _ => serde_json::from_slice(text),
    }
}

/// What must hold of the operator's file whatever its bytes are; `tests/fuzz` calls it, and learns whether they were accepted. A ticket lets its owner in once, and a budget
/// says how long to wait.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) -> bool {
    let Ok(access) = object(bytes) else { return false };
    // Secrets elsewhere would be read from this machine.
    if access.machines.iter().any(|machine| machine.token_file.is_some() || machine.token_env.is_some()) {
        return false;
    }
    let Ok(authenticator) = access.authenticator(None) else { return false };
    let here = IpAddr::from([127, 0, 0, 1]);
    let Some(page) = authenticator.page("https://page.example", here) else { return false };
    let (ticket, good) = authenticator.issue(page.clone(), here).expect("randomness");
    let redeemed = authenticator.redeem(&ticket, here);
    assert!(redeemed.is_some() || good < Duration::from_secs(60), "a ticket is good once");
    assert!(authenticator.redeem(&ticket, here).is_none(), "and only once");
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
            (Some(path), None, None) => file::read_text(path, file::MAX_TOKEN)
                .map_err(|error| format!("{}: {error}", path.display()))?,
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

/// States in a second as a rate of a bucket, which holds a second's worth.
fn rate(states_per_second: Option<f64>) -> Result<Option<Rate>, String> {
    match states_per_second {
        Some(rate) if rate <= 0.0 || !rate.is_finite() => {
            Err(format!("expected a positive number of states_per_second, got {rate}"))
        }
        rate => Ok(rate.map(|rate| Rate { per_second: rate, most: rate.max(1.0) })),
    }
}

/// Someone who came in, and what is left to them.
#[derive(Debug)]
pub(crate) struct Principal {
    name: Arc<str>,
    identity: Identity,
    rights: Rights,
    grants: Vec<Grant>,
    states: States,
    max_connections: usize,
    connections: Arc<AtomicUsize>,
}

/// How it is known who someone is.
#[derive(Debug)]
enum Identity {
    /// Not at all.
    None,
    /// By a token.
    Machine,
    /// By an origin that it claims, and its address.
    Page(Arc<str>),
}

/// All students at an address whose page is of an origin.
type Page = (Arc<str>, IpAddr);

/// Where the states come from that someone may ask about.
#[derive(Debug)]
enum States {
    /// There are as many as the server can answer.
    Any,
    Own(Mutex<Bucket>),
    /// All pages' students of an origin and an address together, however many tickets they have.
    Page(Arc<Buckets<Page>>, Page),
}

impl Principal {
    /// A peer of a server without access control.
    pub fn anyone() -> Self {
        Principal {
            name: "anyone".into(),
            identity: Identity::None,
            rights: Rights::default(),
            grants: vec![
                Grant::Actions,
                Grant::Logits,
                Grant::Submit,
                Grant::Weights,
                Grant::Transitions,
                Grant::PeerLogits,
                Grant::Gradients,
            ],
            states: States::Any,
            max_connections: usize::MAX,
            connections: Arc::default(),
        }
    }

    fn new(name: &str, rights: &Rights) -> Result<Self, String> {
        let mut grants = vec![Grant::Actions];
        for grant in &rights.grants {
            grants.push(match grant.as_str() {
                "actions" => Grant::Actions,
                "logits" => Grant::Logits,
                "submit" => Grant::Submit,
                "weights" => Grant::Weights,
                "transitions" => Grant::Transitions,
                "peer_logits" => Grant::PeerLogits,
                "gradients" => Grant::Gradients,
                other => {
                    let known = "\"actions\", \"logits\", \"submit\", \"weights\", \"transitions\", \"peer_logits\" or \"gradients\"";
                    return Err(format!("expected {known}, got {other:?}"));
                }
            });
        }
        if rights.connections == Some(0) {
            return Err("connections: expected at least 1, got 0".into());
        }
        if rights.policies.as_ref().is_some_and(Vec::is_empty) {
            return Err("policies: expected at least one, got none; all, if absent".into());
        }
        if let Some(weight) = rights.weight.filter(|weight| !(*weight > 0.0 && *weight <= 1.0)) {
            return Err(format!("weight: expected a number above 0 and at most 1, got {weight}"));
        }
        Ok(Principal {
            name: name.into(),
            identity: Identity::Machine,
            rights: rights.clone(),
            grants,
            states: rate(rights.states_per_second)?
                .map_or(States::Any, |rate| States::Own(Mutex::new(Bucket::new(rate)))),
            max_connections: rights.connections.unwrap_or(usize::MAX),
            connections: Arc::default(),
        })
    }

    /// For the audit log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same, with how it is known.
    pub fn who(&self) -> Who<'_> {
        match &self.identity {
            Identity::None => Who::Anyone(&self.name),
            Identity::Machine => Who::Known(&self.name),
            Identity::Page(_) => Who::Anyone(&self.name),
        }
    }

    /// Who pays for what is held for it, if it is at this address.
    pub fn payer(&self, address: IpAddr) -> Payer {
        match self.identity {
            Identity::Machine => Payer::Machine(self.name.clone()),
            Identity::None | Identity::Page(_) => Payer::at(address),
        }
    }

    /// Whether it may ask this policy.
    pub fn may_ask(&self, policy: &str) -> bool {
        self.rights.policies.as_ref().is_none_or(|policies| policies.iter().any(|allowed| allowed == policy))
    }

    /// Whether its connections may carry this.
    pub fn may(&self, grant: Grant) -> bool {
        self.grants.contains(&grant)
    }

    /// The weight of its gradients.
    pub fn weight(&self) -> f32 {
        self.rights.weight.unwrap_or(1.0) as f32
    }

    /// Takes so many states from its budget, or says how long to wait for the next ones.
    pub fn spend(&self, states: usize) -> Result<(), Duration> {
        match &self.states {
            States::Any => Ok(()),
            States::Own(bucket) => lock(bucket).spend(states as f64),
            States::Page(buckets, page) => buckets.spend(page, states as f64),
        }
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
pub(crate) struct Authenticator {
    machines: HashMap<String, Arc<Principal>>,
    pages: Option<Rights>,
    /// Connections of all pages' students together.
    page_connections: Arc<AtomicUsize>,
    page_states: Option<Arc<Buckets<Page>>>,
    ticket_lifetime: Duration,
    tickets: Arc<Tickets>,
}

/// Tickets that are given and not used.
#[derive(Default)]
struct Tickets {
    issued: Mutex<Issued>,
    /// How many of them who has; each is counted in the ticket.
    counts: Counts<Issuer>,
}

/// Tickets by the hash of their text, and in the order in which they were given.
#[derive(Default)]
struct Issued {
    by_hash: HashMap<String, Ticket>,
    order: VecDeque<(Instant, String)>,
}

struct Ticket {
    whose: Whose,
    end: Instant,
    _counted: Vec<Counted<Issuer>>,
}

/// Whose a ticket is: that a machine still has its token, and an origin its rights, is looked at when the ticket is used.
enum Whose {
    Machine(Arc<Principal>),
    Page(Arc<str>),
}

/// Who has tickets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Issuer {
    Pages,
    One(Payer),
}

/// Why there is no ticket.
#[derive(Debug)]
pub(crate) enum NoTicket {
    /// There are too many unused tickets; the first of them expires within this time.
    Full(Duration),
    /// The system has no randomness.
    Chance,
}

impl Authenticator {
    /// Whose token this is.
    pub fn machine(&self, token: &str) -> Option<Arc<Principal>> {
        self.machines.get(&sha256(token.as_bytes())).cloned()
    }

    /// A student of a page whose origin is allowed.
    pub fn page(&self, origin: &str, address: IpAddr) -> Option<Arc<Principal>> {
        // The rights were tried when the server started.
        let mut principal = Principal::new(&format!("page {origin}"), self.pages.as_ref()?).ok()?;
        let origin: Arc<str> = origin.into();
        principal.connections = self.page_connections.clone();
        principal.identity = Identity::Page(origin.clone());
        if let Some(states) = &self.page_states {
            principal.states = States::Page(states.clone(), (origin, network(address)));
        }
        Some(Arc::new(principal))
    }

    /// A ticket for someone, and how long it is good.
    ///
    /// # Errors
    /// See [`NoTicket`].
    pub fn issue(&self, principal: Arc<Principal>, address: IpAddr) -> Result<(String, Duration), NoTicket> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|_| NoTicket::Chance)?;
        let ticket = hex(&secret);
        let (hash, now) = (sha256(ticket.as_bytes()), Instant::now());
        let Tickets { issued, counts } = &*self.tickets;
        let mut issued = lock(issued);
        issued.forget(now);
        let payer = principal.payer(address);
        let (shares, whose) = match &principal.identity {
            Identity::Page(origin) => {
                let shares = vec![(Issuer::One(payer), ADDRESS_TICKETS), (Issuer::Pages, PAGE_TICKETS)];
                (shares, Whose::Page(origin.clone()))
            }
            _ => (vec![(Issuer::One(payer), MACHINE_TICKETS)], Whose::Machine(principal.clone())),
        };
        let counted: Option<Vec<_>> =
            shares.into_iter().map(|(issuer, most)| counts.take(issuer, 1, most)).collect();
        let Some(_counted) = counted else { return Err(NoTicket::Full(self.ticket_lifetime)) };
        let end = now + self.ticket_lifetime;
        issued.order.push_back((end, hash.clone()));
        issued.by_hash.insert(hash, Ticket { whose, end, _counted });
        Ok((ticket, self.ticket_lifetime))
    }

    /// Whose ticket this is, which somebody at this address shows; it is none any more.
    pub fn redeem(&self, ticket: &str, address: IpAddr) -> Option<Arc<Principal>> {
        let ticket = {
            let mut issued = lock(&self.tickets.issued);
            issued.forget(Instant::now());
            issued.by_hash.remove(&sha256(ticket.as_bytes()))?
        };
        match ticket.whose {
            _ if ticket.end <= Instant::now() => None,
            Whose::Machine(machine) => {
                self.machines.values().find(|known| known.name() == machine.name()).cloned()
            }
            Whose::Page(origin) => self.page(&origin, address),
        }
    }
}

impl Issued {
    /// Forgets what is over or was used.
    fn forget(&mut self, now: Instant) {
        while let Some((end, hash)) = self.order.front()
            && (*end <= now || !self.by_hash.contains_key(hash))
        {
            if let Some((_, hash)) = self.order.pop_front() {
                self.by_hash.remove(&hash);
            }
        }
        // Used ones behind one that nobody uses.
        if self.order.len() > 2 * self.by_hash.len() + 1024 {
            let by_hash = &self.by_hash;
            self.order.retain(|(_, hash)| by_hash.contains_key(hash));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "a token that is long enough";

    fn access(machine: &str) -> Result<Authenticator, AccessError> {
        let text = format!(r#"{{"machines":[{{"name":"box"{machine}}}],"pages":{{"connections":2}}}}"#);
        serde_json::from_str::<Access>(&text).unwrap().authenticator(None)
    }

    fn here() -> IpAddr {
        IpAddr::from([127, 0, 0, 1])
    }

    fn sound() -> Authenticator {
        access(&format!(
            r#","token_sha256":"{}","grants":["submit"],"policies":["a"]"#,
            sha256(TOKEN.as_bytes())
        ))
        .unwrap()
    }

    #[test]
    fn a_token_says_who_it_is_and_what_it_may() {
        let authenticator = sound();
        assert!(authenticator.machine("another token of this length").is_none());
        let machine = authenticator.machine(TOKEN).unwrap();
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
        for (right, says) in [
            (r#""grants":["label"]"#, "label"),
            (r#""states_per_second":0"#, "positive"),
            (r#""connections":0"#, "at least 1"),
            (r#""policies":[]"#, "at least one"),
        ] {
            let error = access(&format!(r#","token_sha256":"{hash}",{right}"#)).err().unwrap().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_of_no_use_is_refused() {
        let hash = |number: usize| sha256(format!("{TOKEN} {number}").as_bytes());
        let box_of = |name: &str, number| format!(r#"{{"name":"{name}","token_sha256":"{}"}}"#, hash(number));
        let refused = |text: &str| match object(text.as_bytes()) {
            Err(error) => error.to_string(),
            Ok(access) => {
                let rights = access.authenticator(None).map(drop).and_then(|()| access.check_somebody());
                rights.unwrap_err().to_string()
            }
        };
        for (text, says) in [
            ("[]".to_owned(), "expected an object, got a list"),
            ("[[]]".to_owned(), "expected an object, got a list"),
            (r#"{"pages":[]}"#.to_owned(), "pages: expected an object, got a list"),
            ("{}".to_owned(), "expected machines or pages"),
            (r#"{"machines":[],"pages":null}"#.to_owned(), "expected machines or pages"),
            (r#"{"machines":[[]]}"#.to_owned(), "sequence"),
            (format!(r#"{{"machines":[{},{}]}}"#, box_of("a", 1), box_of("a", 2)), "a name of its own"),
            (format!(r#"{{"machines":[{},{}]}}"#, box_of("a", 1), box_of("b", 1)), "another machine's"),
            (r#"{"pages":{},"ticket_seconds":0}"#.to_owned(), "ticket_seconds"),
        ] {
            let error = refused(&text);
            assert!(error.contains(says), "{text}: {error}");
        }
        let text =
            format!(r#"{{"machines":[{},{}],"pages":{{"policies":["x"]}}}}"#, box_of("a", 1), box_of("b", 2));
        let access = object(text.as_bytes()).unwrap();
        access.authenticator(None).map(drop).and_then(|()| access.check_somebody()).unwrap();
        access.check_policies(&["y".into(), "x".into()]).unwrap();
        let error = access.check_policies(&["y".into()]).unwrap_err().to_string();
        assert!(
            error.contains("pages") && error.contains("\"x\"") && error.ends_with("some of y"),
            "{error}"
        );
    }

    #[test]
    fn a_ticket_is_good_once() {
        let authenticator = sound();
        let (ticket, _) = authenticator.issue(authenticator.machine(TOKEN).unwrap(), here()).unwrap();
        assert!(authenticator.redeem("a guess", here()).is_none());
        assert_eq!(authenticator.redeem(&ticket, here()).unwrap().name(), "box");
        assert!(authenticator.redeem(&ticket, here()).is_none());
    }

    #[test]
    fn a_ticket_is_good_for_a_while() {
        let authenticator = Authenticator { ticket_lifetime: Duration::ZERO, ..sound() };
        let (ticket, _) = authenticator.issue(page(&authenticator, here()), here()).unwrap();
        assert!(authenticator.redeem(&ticket, here()).is_none());
    }

    fn page(authenticator: &Authenticator, address: IpAddr) -> Arc<Principal> {
        authenticator.page("https://a.example", address).unwrap()
    }

    fn address(number: usize) -> IpAddr {
        IpAddr::from((0x0a00_0000 + number as u32).to_be_bytes())
    }

    #[test]
    fn tickets_are_refused_when_there_are_too_many_and_none_is_lost() {
        let authenticator = sound();
        let give = |principal, from| authenticator.issue(principal, from).ok().map(|(ticket, _)| ticket);
        let machine = || authenticator.machine(TOKEN).unwrap();
        let (first, of_machine) = (give(page(&authenticator, here()), here()), give(machine(), here()));
        // One address, then many: each has its share, and all pages together theirs.
        let given =
            (0..2 * ADDRESS_TICKETS).filter(|_| give(page(&authenticator, address(0)), address(0)).is_some());
        assert_eq!(given.count(), ADDRESS_TICKETS);
        let flood =
            (1..80_000).filter(|i| give(page(&authenticator, address(i / 200)), address(i / 200)).is_some());
        assert_eq!(flood.count() + 1 + ADDRESS_TICKETS, PAGE_TICKETS);
        // A machine has its own.
        let given = (0..2 * MACHINE_TICKETS).filter(|_| give(machine(), here()).is_some());
        assert_eq!(given.count() + 1, MACHINE_TICKETS);
        for ticket in [first, of_machine] {
            assert!(
                authenticator.redeem(&ticket.unwrap(), here()).is_some(),
                "it was given before all these"
            );
        }
        assert!(give(page(&authenticator, here()), here()).is_some() && give(machine(), here()).is_some());
        assert!(lock(&authenticator.tickets.issued).order.len() <= PAGE_TICKETS + MACHINE_TICKETS + 2);
    }

    #[test]
    fn a_quota_of_pages_is_by_origin_and_address_whatever_the_ticket() {
        let json = r#"{"pages":{"states_per_second":200}}"#;
        let authenticator = serde_json::from_str::<Access>(json).unwrap().authenticator(None).unwrap();
        let asks = |origin: &str, from: IpAddr| {
            let (ticket, _) =
                authenticator.issue(authenticator.page(origin, here()).unwrap(), here()).unwrap();
            authenticator.redeem(&ticket, from).unwrap().spend(100).is_ok()
        };
        let passed = (0..100).filter(|_| asks("https://a.example", address(1))).count();
        assert!((2..=3).contains(&passed), "{passed} hundreds of states");
        assert!(asks("https://b.example", address(1)) && asks("https://a.example", address(2)));
    }

    #[test]
    fn who_is_known_before_and_after_keeps_what_it_has() {
        let file = |machine: &str| {
            let hash = sha256(TOKEN.as_bytes());
            let text = format!(r#"{{"machines":[{{"name":"box","token_sha256":"{hash}"{machine}}}]}}"#);
            serde_json::from_str::<Access>(&text).unwrap()
        };
        let first = file(r#","states_per_second":10"#).authenticator(None).unwrap();
        let (ticket, _) = first.issue(first.machine(TOKEN).unwrap(), here()).unwrap();
        assert!(first.machine(TOKEN).unwrap().spend(1000).is_ok());
        let same = file(r#","states_per_second":10"#).authenticator(Some(&first)).unwrap();
        assert!(same.machine(TOKEN).unwrap().spend(1).is_err(), "its quota is spent");
        assert!(same.redeem(&ticket, here()).is_some());
        let (ticket, _) = same.issue(same.machine(TOKEN).unwrap(), here()).unwrap();
        let other = file(r#","states_per_second":20"#).authenticator(Some(&same)).unwrap();
        assert!(other.machine(TOKEN).unwrap().spend(1).is_ok(), "another quota");
        let nobody = Access { machines: Vec::new(), ..file("") }.authenticator(Some(&other)).unwrap();
        assert!(nobody.machine(TOKEN).is_none() && nobody.redeem(&ticket, here()).is_none());
    }

    #[test]
    fn connections_are_counted_until_they_end() {
        let authenticator = sound();
        let (a, b) = (page(&authenticator, here()), authenticator.page("https://b.example", here()).unwrap());
        let (first, second) = (a.enter(), b.enter());
        assert!(first.is_some() && second.is_some() && a.enter().is_none());
        drop(second);
        assert!(a.enter().is_some());
    }
}
