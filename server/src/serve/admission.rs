//! Who is let in: by token at the handshake, by ticket in `hello`, and what the audit log has of it.

use crate::auth::access::{Authenticator, Entered, Principal};
use crate::auth::audit::Who;
use crate::auth::budget::{Account, Buckets, Counted, Counts, Payer, Pool, Rate, network};
use crate::auth::reload::Reload;
use crate::net::peer::{End, refused};
use crate::net::turns::{Share, Turns};
use crate::observe::log_throttle::LogThrottle;
use crate::observe::metrics::Metrics;
use crate::serve::aside::Aside;
use crate::serve::config::ServerConfig;
use crate::serve::error::ServerError;
use hyper::header::{self, HeaderMap};
use oto_proto::{ClientMessage, ErrorCode, ErrorMessage, Hello};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tracing::debug;

/// What a connection may have held before its `hello`, without a share of what all strangers have.
const STRANGE_BYTES: usize = 16 << 10;
/// Strangers may have held one byte of so many.
const STRANGERS: usize = 16;
/// A text up to here is read at once. A longer one costs its sender a share of the work that all do, and waits until no other one is
/// being read.
const SHORT_TEXT: usize = 16 << 10;
/// Bytes of longer texts that one peer has read.
const TEXTS: Rate = Rate { per_second: (1 << 20) as f64, most: (8 << 20) as f64 };
/// Tickets and wrong tokens of one peer.
const KNOCKS: Rate = Rate { per_second: 16.0, most: 256.0 };

/// A server at work.
pub(crate) struct Server {
    pub config: ServerConfig,
    reload: Reload,
    anyone: Arc<Principal>,
    /// For messages and requests.
    pool: Pool,
    /// For what comes before `hello`.
    strangers: Pool,
    texts: Buckets<Payer>,
    knocks: Buckets<Payer>,
    /// Connections by address.
    addresses: Counts<IpAddr>,
    /// The order of connections' work.
    pub turns: Arc<Turns>,
    /// Where long texts are read.
    pub aside: Aside,
    /// Handshakes without the subprotocol.
    pub no_protocol: LogThrottle,
}

/// Who is at the other end of a connection.
#[derive(Clone)]
pub(crate) struct Caller {
    pub address: IpAddr,
    /// Who it is, where a token said so.
    pub principal: Option<Arc<Principal>>,
    /// Counts as the address's, where a proxy's connection does not.
    pub place: Option<Arc<Counted<IpAddr>>>,
    /// Of the server's time.
    pub share: Arc<Share>,
}

impl Caller {
    /// Somebody at an address.
    pub fn at(address: IpAddr, share: Arc<Share>) -> Self {
        Caller { address, principal: None, place: None, share }
    }
}

/// What the header with a bearer token says.
pub(crate) enum Bearer {
    /// There is none.
    Absent,
    /// The token is unknown.
    Unknown,
    /// It is this machine's.
    Machine(Arc<Principal>),
}

impl Server {
    /// Reads the tokens of those who may.
    pub fn new(config: ServerConfig) -> Result<Self, ServerError> {
        let reload = config.reload.clone();
        if let Some(access) = &config.access {
            reload.begin(access)?;
        }
        let (anyone, bytes) = (Arc::new(Principal::anyone()), config.limits.bytes);
        let threads = Handle::try_current().map_or(1, |runtime| runtime.metrics().num_workers());
        Ok(Server {
            config,
            reload,
            anyone,
            pool: Pool::new(bytes - bytes / STRANGERS),
            strangers: Pool::new(bytes / STRANGERS),
            texts: Buckets::new(TEXTS),
            knocks: Buckets::new(KNOCKS),
            addresses: Counts::default(),
            turns: Turns::new(threads),
            aside: Aside::new(),
            no_protocol: LogThrottle::default(),
        })
    }

    /// Who lets people in, if anyone has to.
    pub fn authenticator(&self) -> Option<Arc<Authenticator>> {
        self.reload.authenticator()
    }

    /// One more connection of an address, unless it has so many.
    pub fn enter(&self, address: IpAddr) -> Option<Counted<IpAddr>> {
        self.addresses.take(network(address), 1, self.config.limits.per_address)
    }

    /// What a connection may have held before its `hello`.
    pub fn stranger(&self, caller: &Caller) -> Account {
        self.strangers.account(Payer::at(caller.address), STRANGE_BYTES)
    }

    /// What one may have held that was let in, `own` bytes without a share of what all have.
    pub fn account(&self, principal: &Principal, caller: &Caller, own: usize) -> Account {
        self.pool.account(principal.payer(caller.address), own)
    }

    /// One more ticket or wrong token of this caller, or how long it is to wait.
    pub fn knock(&self, caller: &Caller) -> Result<(), Duration> {
        self.knocks.spend(&Payer::at(caller.address), 1.0)
    }

    /// Reads a text of a stranger.
    pub async fn decode(&self, text: Utf8Bytes, caller: &Caller) -> Result<ClientMessage, End> {
        let read = |text: &str| ClientMessage::decode(text).map_err(ErrorMessage::from);
        if text.len() <= SHORT_TEXT {
            return Ok(read(&text)?);
        }
        let spent = self.texts.spend(&Payer::at(caller.address), text.len() as f64);
        spent.map_err(|pause| End::Overloaded(pause.max(self.config.limits.retry), "control"))?;
        let work = self.aside.work(move || read(&text)).await;
        Ok(work.unwrap_or_else(|| Err(ErrorMessage::new(ErrorCode::Internal, "reading it failed")))?)
    }

    /// Where everything is counted.
    pub fn metrics(&self) -> &Metrics {
        self.config.policies.metrics()
    }

    /// Someone without a token, where none is needed.
    pub fn anyone(&self) -> Arc<Principal> {
        self.anyone.clone()
    }

    /// Notes something in the audit log, and in the other one where that is wanted.
    pub fn note(&self, caller: &Caller, what: &'static str, policy: Option<&str>, verdict: &str) {
        let principal = caller.principal.as_ref();
        let name = principal.map(|principal| principal.name());
        debug!(who = name, address = %caller.address, what, policy, verdict, "asked");
        if let Some(audit) = &self.config.audit {
            let who = principal.map_or(Who::Nobody, |principal| principal.who());
            audit.note(who, Some(caller.address), what, policy, verdict);
        }
    }

    /// Whose token a request shows.
    pub fn bearer(&self, headers: &HeaderMap) -> Bearer {
        let (Some(authenticator), Some(value)) = (self.authenticator(), headers.get(header::AUTHORIZATION))
        else {
            return Bearer::Absent;
        };
        if headers.get_all(header::AUTHORIZATION).iter().nth(1).is_some() {
            return Bearer::Unknown;
        }
        match bearer_token(value).and_then(|token| authenticator.machine(token)) {
            Some(machine) => Bearer::Machine(machine),
            None => Bearer::Unknown,
        }
    }

    /// Lets a student in that said `hello`, for as long as what this gives is kept.
    pub fn admit(&self, hello: &Hello, caller: &Caller) -> Result<(Arc<Principal>, Entered), End> {
        let mut caller = caller.clone();
        let admitted = self.admitted(hello, &mut caller);
        let verdict = match &admitted {
            Ok(_) => "granted",
            Err(End::Refused(error)) => &error.message,
            Err(_) => "too many connections",
        };
        self.note(&caller, "hello", Some(&hello.policy), verdict);
        admitted
    }

    fn admitted(&self, hello: &Hello, caller: &mut Caller) -> Result<(Arc<Principal>, Entered), End> {
        if let Some(authenticator) = self.authenticator()
            && caller.principal.is_none()
        {
            let Some(ticket) = &hello.ticket else {
                return Err(refused(ErrorCode::Forbidden, "expected a ticket or a token, got neither"));
            };
            let Some(principal) = authenticator.redeem(ticket, caller.address) else {
                return Err(refused(
                    ErrorCode::Forbidden,
                    "expected a ticket that is good, got one that is not",
                ));
            };
            caller.principal = Some(principal);
        }
        let principal = caller.principal.get_or_insert_with(|| self.anyone()).clone();
        if !principal.may_ask(&hello.policy) {
            let message = format!("policy {:?} is not granted to this student", hello.policy);
            return Err(refused(ErrorCode::Forbidden, message));
        }
        let entered = principal.enter().ok_or(End::Overloaded(self.config.limits.retry, "principal"))?;
        Ok((principal, entered))
    }
}

/// The token of a header `authorization: Bearer TOKEN`.
pub(crate) fn bearer_token(value: &header::HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}
