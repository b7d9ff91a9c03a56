//! Who is let in: by token at the handshake, by ticket in `hello`, and what the audit log has of it.

use crate::access::{Doorkeeper, Entered, Visitor};
use crate::metrics::Metrics;
use crate::peer::{End, refused};
use crate::{ServerConfig, ServerError};
use hyper::header::{self, HeaderMap};
use oto_proto::{ErrorCode, Hello};
use std::net::IpAddr;
use std::sync::Arc;
use tracing::debug;

/// A server at work.
pub(crate) struct Server {
    pub config: ServerConfig,
    pub doorkeeper: Option<Doorkeeper>,
    anyone: Arc<Visitor>,
}

/// Who is at the other end of a connection.
#[derive(Clone)]
pub(crate) struct Caller {
    pub address: IpAddr,
    /// Who it is, where a token said so.
    pub visitor: Option<Arc<Visitor>>,
}

/// What the header with a bearer token says.
pub(crate) enum Bearer {
    /// There is none.
    Absent,
    /// Nobody has this token.
    Unknown,
    /// It is this machine's.
    Machine(Arc<Visitor>),
}

impl Server {
    /// Reads the tokens of those who may.
    pub fn new(config: ServerConfig) -> Result<Self, ServerError> {
        let doorkeeper = config.access.as_ref().map(|access| access.doorkeeper()).transpose()?;
        Ok(Server { config, doorkeeper, anyone: Arc::new(Visitor::anyone()) })
    }

    /// Where everything is counted.
    pub fn metrics(&self) -> &Metrics {
        self.config.policies.metrics()
    }

    /// Someone without a token, where none is needed.
    pub fn anyone(&self) -> Arc<Visitor> {
        self.anyone.clone()
    }

    /// Notes something in the audit log, and in the other one where that is wanted.
    pub fn note(&self, caller: &Caller, what: &'static str, policy: Option<&str>, verdict: &str) {
        let who = caller.visitor.as_ref().map(|visitor| visitor.name());
        debug!(who, address = %caller.address, what, policy, verdict, "asked");
        if let Some(audit) = &self.config.audit {
            audit.note(who, Some(caller.address), what, policy, verdict);
        }
    }

    /// Whose token a request shows.
    pub fn bearer(&self, headers: &HeaderMap) -> Bearer {
        let (Some(doorkeeper), Some(value)) = (&self.doorkeeper, headers.get(header::AUTHORIZATION)) else {
            return Bearer::Absent;
        };
        match bearer_token(value).and_then(|token| doorkeeper.machine(token)) {
            Some(machine) => Bearer::Machine(machine),
            None => Bearer::Unknown,
        }
    }

    /// Lets a student in that said `hello`, for as long as what this gives is kept.
    pub fn admit(&self, hello: &Hello, caller: &Caller) -> Result<(Arc<Visitor>, Entered), End> {
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

    fn admitted(&self, hello: &Hello, caller: &mut Caller) -> Result<(Arc<Visitor>, Entered), End> {
        if let Some(doorkeeper) = &self.doorkeeper
            && caller.visitor.is_none()
        {
            let Some(ticket) = &hello.ticket else {
                return Err(refused(ErrorCode::Forbidden, "expected a ticket or a token, got neither"));
            };
            let Some(visitor) = doorkeeper.redeem(ticket) else {
                return Err(refused(
                    ErrorCode::Forbidden,
                    "expected a ticket that is good, got one that is not",
                ));
            };
            caller.visitor = Some(visitor);
        }
        let visitor = caller.visitor.get_or_insert_with(|| self.anyone()).clone();
        if !visitor.may_ask(&hello.policy) {
            let message = format!("policy {:?} is not granted to this student", hello.policy);
            return Err(refused(ErrorCode::Forbidden, message));
        }
        let entered = visitor.enter().ok_or(End::Overloaded(self.config.limits.retry))?;
        Ok((visitor, entered))
    }
}

/// The token of a header `authorization: Bearer TOKEN`.
pub(crate) fn bearer_token(value: &header::HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}
