//! The operator's door: a listener of its own, where policies are published, tried and taken back.
//!
//! | request | |
//! | --- | --- |
//! | `GET /policies` | what answers, what is tried, how much waits |
//! | `GET /metrics` | what was counted, as Prometheus reads it |
//! | `POST /policies/NAME/publish` | the body's model answers from now on |
//! | `POST /policies/NAME/rollback` | the version before the last one answers again, under a new number |
//! | `POST /policies/NAME/canary?percent=P` | the body's model answers P of a hundred students |
//! | `POST /policies/NAME/promote` | the canary answers all |
//! | `DELETE /policies/NAME/canary` | the canary answers nobody |
//! | `POST /policies/NAME/shadow` | the body's model is asked what the policy is asked, and compared |
//! | `DELETE /policies/NAME/shadow` | it is not any more |
//!
//! Every request needs the header `authorization: Bearer TOKEN`. A model that does not load, fit or answer is refused
//! with 422 and the reason, and nothing changes. Answers are JSON: `{"version": 3}` or `{"error": "..."}`.

use crate::audit::Audit;
use crate::batcher::Rows;
use crate::candidate::{self, CandidateError};
use crate::http::{Answer, HEADER_BYTES, respond};
use crate::policies::{ChangeKind, Policies, Release, sha256};
use crate::{ServerError, admission};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use oto_policy::tensors::MAX_MODEL_BYTES;
use percent_encoding::percent_decode_str;
use serde_json::json;
use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

/// Operators' connections at once.
const CONNECTIONS: usize = 16;
/// For all of one connection, its models included.
const CONNECTION_TIME: Duration = Duration::from_secs(300);
/// For the headers of a request.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// What Prometheus is told that it reads.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What operators may reach.
pub struct Admin {
    policies: Policies,
    /// The hash of the token: what is compared takes no longer for a better guess.
    token: String,
    audit: Option<Audit>,
}

/// Why a request did nothing.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("expected the operator's bearer token")]
    Token,
    #[error("there is nothing here")]
    Nothing,
    #[error("expected percent=P with P from 0 to 100")]
    Percent,
    #[error("expected a model of at most {MAX_MODEL_BYTES} bytes")]
    Body,
    #[error("{0}")]
    Candidate(#[from] CandidateError),
    #[error("{0}")]
    Server(#[from] ServerError),
    #[error("loading it failed")]
    Loading,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Refusal::Token => StatusCode::UNAUTHORIZED,
            Refusal::Nothing
            | Refusal::Server(ServerError::UnknownPolicy(_))
            | Refusal::Candidate(CandidateError::Server(ServerError::UnknownPolicy(_))) => {
                StatusCode::NOT_FOUND
            }
            Refusal::Percent => StatusCode::BAD_REQUEST,
            Refusal::Body => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Candidate(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::Server(_) => StatusCode::CONFLICT,
            Refusal::Loading => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// What a request is about.
struct Wanted<'a> {
    policy: String,
    what: &'a str,
    query: &'a str,
}

impl Admin {
    /// A door to these policies for whoever has this token.
    pub fn new(policies: Policies, token: &str, audit: Option<Audit>) -> Self {
        Admin { policies, token: sha256(token.as_bytes()), audit }
    }

    /// Serves until `shutdown` is done; then it hangs up.
    pub async fn run(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let admin = Arc::new(self);
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => return,
                accepted = listener.accept() => accepted,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                // One more than those hangs up: the operator is busy enough.
                Ok((stream, address)) if connections.len() < CONNECTIONS => {
                    connections.spawn(timeout(CONNECTION_TIME, admin.clone().serve(stream, address.ip())));
                }
                Ok(_) => {}
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, address: IpAddr) {
        let answer = |request| {
            let admin = self.clone();
            async move { Ok::<_, Infallible>(admin.answer(request, address).await) }
        };
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .max_buf_size(HEADER_BYTES)
            .serve_connection(TokioIo::new(stream), service_fn(answer));
        // What goes wrong with a connection is its operator's to see.
        drop(connection.await);
    }

    async fn answer(&self, request: Request<Incoming>, address: IpAddr) -> Answer {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        if method == Method::GET && uri.path() == "/metrics" && self.is_operator(request.headers()) {
            return respond(StatusCode::OK, METRICS_TYPE, self.policies.metrics_text().into());
        }
        let wanted = wanted(uri.path(), uri.query().unwrap_or_default());
        let result = match (self.is_operator(request.headers()), &wanted) {
            (false, _) => Err(Refusal::Token),
            (true, None) if method == Method::GET && uri.path() == "/policies" => {
                Ok(self.policies.operators_list())
            }
            (true, None) => Err(Refusal::Nothing),
            (true, Some(wanted)) => self
                .change(&method, wanted, request.into_body())
                .await
                .map(|version| json!({ "version": version })),
        };
        if let Some(wanted) = &wanted {
            self.note(address, word(&method, wanted.what), &wanted.policy, result.as_ref().err());
        }
        let (status, json) = match result {
            Ok(json) => (StatusCode::OK, json),
            Err(refusal) => (refusal.status(), json!({ "error": refusal.to_string() })),
        };
        let mut answer = respond(status, "application/json", Bytes::from(json.to_string()));
        answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }

    /// Notes in both logs what was done, or why not.
    fn note(&self, address: IpAddr, what: &'static str, policy: &str, refusal: Option<&Refusal>) {
        let verdict = refusal.map_or_else(|| "granted".to_owned(), Refusal::to_string);
        match refusal {
            None => info!(%address, what, policy, "the operator's wish is done"),
            Some(Refusal::Token) => debug!(%address, what, policy, verdict, "somebody is no operator"),
            Some(_) => warn!(%address, what, policy, verdict, "the operator's wish is refused"),
        }
        if let Some(audit) = &self.audit {
            let who = (!matches!(refusal, Some(Refusal::Token))).then_some("operator");
            audit.note(who, Some(address), what, Some(policy), verdict);
        }
    }

    fn is_operator(&self, headers: &HeaderMap) -> bool {
        let token = headers.get(header::AUTHORIZATION).and_then(admission::bearer_token);
        token.is_some_and(|token| sha256(token.as_bytes()) == self.token)
    }

    async fn change(&self, method: &Method, wanted: &Wanted<'_>, body: Incoming) -> Result<u32, Refusal> {
        let Wanted { policy, what, query } = wanted;
        let kind = match (method, *what) {
            (&Method::POST, "publish") => ChangeKind::Publish(self.candidate(policy, body).await?.into()),
            (&Method::POST, "rollback") => ChangeKind::RollBack,
            (&Method::POST, "canary") => {
                let percent = percent(query).ok_or(Refusal::Percent)?;
                ChangeKind::Canary(self.candidate(policy, body).await?.into(), percent)
            }
            (&Method::POST, "promote") => ChangeKind::Promote,
            (&Method::DELETE, "canary") => ChangeKind::EndCanary(None),
            (&Method::POST, "shadow") => {
                ChangeKind::Shadow(Some(Rows::new(self.candidate(policy, body).await?.policy)))
            }
            (&Method::DELETE, "shadow") => ChangeKind::Shadow(None),
            _ => return Err(Refusal::Nothing),
        };
        Ok(self.policies.changed(policy, kind).await?)
    }

    /// The policy that the body holds, tried out where it keeps nobody waiting.
    async fn candidate(&self, policy: &str, body: Incoming) -> Result<Release, Refusal> {
        let limit = usize::try_from(MAX_MODEL_BYTES).unwrap_or(usize::MAX);
        let body = Limited::new(body, limit).collect().await.map_err(|_| Refusal::Body)?;
        let (policies, name, bytes) = (self.policies.clone(), policy.to_owned(), body.to_bytes().to_vec());
        let loading = tokio::task::spawn_blocking(move || candidate::release(&policies, &name, bytes));
        Ok(loading.await.map_err(|_| Refusal::Loading)??)
    }
}

/// `/policies/NAME/WHAT`.
fn wanted<'a>(path: &'a str, query: &'a str) -> Option<Wanted<'a>> {
    let (name, what) = path.strip_prefix("/policies/")?.split_once('/')?;
    let policy = percent_decode_str(name).decode_utf8().ok()?.into_owned();
    Some(Wanted { policy, what, query })
}

fn percent(query: &str) -> Option<f32> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("percent="))?;
    value.parse().ok().filter(|percent| (0.0..=100.0).contains(percent))
}

/// A request's word in the audit log.
fn word(method: &Method, what: &str) -> &'static str {
    match (method, what) {
        (&Method::DELETE, "canary") => "end canary",
        (&Method::DELETE, "shadow") => "end shadow",
        (_, "publish") => "publish",
        (_, "rollback") => "rollback",
        (_, "canary") => "canary",
        (_, "promote") => "promote",
        (_, "shadow") => "shadow",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::{percent, wanted};

    #[test]
    fn a_path_names_a_policy_and_what_to_do() {
        let found = wanted("/policies/a%20policy/publish", "").unwrap();
        assert_eq!((found.policy.as_str(), found.what), ("a policy", "publish"));
        for nothing in ["/", "/policies", "/policies/a", "/policies/%ff/publish"] {
            assert!(wanted(nothing, "").is_none(), "{nothing}");
        }
    }

    #[test]
    fn a_percentage_is_one() {
        assert_eq!(percent("percent=12.5"), Some(12.5));
        assert_eq!(percent("x=1&percent=100"), Some(100.0));
        for wrong in ["", "percent=", "percent=101", "percent=-1", "percent=NaN", "percent=inf"] {
            assert_eq!(percent(wrong), None, "{wrong}");
        }
    }
}
