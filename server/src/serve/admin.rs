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
//! | `DELETE /policies/NAME/canary` | the canary ends |
//! | `POST /policies/NAME/shadow` | the body's model is asked what the policy is asked, and compared |
//! | `DELETE /policies/NAME/shadow` | it is not any more |
//! | `GET /learners` | every learner's edges |
//! | `POST /learners/NAME/edges/EDGE/pause` | the edge's rows are left out |
//! | `POST /learners/NAME/edges/EDGE/resume` | they are not any more |
//! | `DELETE /learners/NAME/edges/EDGE` | the edge is forgotten, with its share of the replay |
//!
//! Every request but `GET /healthz` and `/readyz`, for probes, needs the header `authorization: Bearer TOKEN`. A model that does not
//! load, fit or answer is refused with 422 and the reason, and nothing changes. Answers are JSON: `{"version": 3}` or `{"error": "..."}`.
//!
//! A connection without the token is a stranger. Strangers have few places and little time, and the newest replaces the oldest, so that
//! they never block an operator. An address that shows wrong tokens gets 429, unless it then shows the right one.

use crate::auth::audit::{Audit, Who};
use crate::auth::budget::{Buckets, Payer, Rate};
use crate::auth::digest::sha256;
use crate::auth::hosts;
use crate::net::worded::Worded;
use crate::observe::metrics;
use crate::serve::admission;
use crate::serve::candidate::{self, CandidateError};
use crate::serve::error::ServerError;
use crate::serve::learners::Learners;
use crate::serve::policies::Policies;
use crate::serve::respond::{Answer, HEADER_BYTES, respond, seconds, text};
use crate::serve::rows::Rows;
use crate::serve::version::{ChangeKind, Release};
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
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet, yield_now};
use tokio::time::timeout;
use tracing::{debug, info, warn};

/// Operators' connections at once, and strangers'.
const CONNECTIONS: usize = 16;
const STRANGERS: usize = 16;
/// Wrong tokens of one address.
const GUESSES: Rate = Rate { per_second: 0.5, most: 8.0 };
/// For all of one connection, its models included.
const CONNECTION_TIME: Duration = Duration::from_secs(300);
/// For the headers of a request.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// The pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What operators may reach.
pub struct Admin {
    policies: Policies,
    learners: Learners,
    /// The hash of the token: what is compared takes no longer for a better guess.
    token: String,
    audit: Option<Audit>,
    guesses: Buckets<Payer>,
}

/// A connection, and whether it has shown the token.
struct Visit {
    task: AbortHandle,
    known: Arc<AtomicBool>,
}

/// Who sent a request, over which connection.
struct Sender {
    address: IpAddr,
    known: Arc<AtomicBool>,
}

/// Why a request did nothing.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("expected the operator's bearer token")]
    Token,
    #[error("expected the operator's bearer token, got too many that are not")]
    Guesses(Duration),
    #[error("expected one header Host")]
    Host,
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
    #[error("{0}")]
    Edge(String),
    #[error("the learner does not answer")]
    Busy,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Refusal::Token => StatusCode::UNAUTHORIZED,
            Refusal::Guesses(_) => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Host => StatusCode::BAD_REQUEST,
            Refusal::Nothing
            | Refusal::Edge(_)
            | Refusal::Server(ServerError::UnknownPolicy(_))
            | Refusal::Candidate(CandidateError::Server(ServerError::UnknownPolicy(_))) => {
                StatusCode::NOT_FOUND
            }
            Refusal::Percent => StatusCode::BAD_REQUEST,
            Refusal::Body => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Candidate(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::Server(_) => StatusCode::CONFLICT,
            Refusal::Loading => StatusCode::INTERNAL_SERVER_ERROR,
            Refusal::Busy => StatusCode::SERVICE_UNAVAILABLE,
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
    /// An operator's interface to these policies, with this token.
    pub fn new(policies: Policies, token: &str, audit: Option<Audit>) -> Self {
        let (learners, token) = (Learners::default(), sha256(token.as_bytes()));
        Admin { policies, learners, token, audit, guesses: Buckets::new(GUESSES) }
    }

    /// The same, for these learners, too.
    pub fn with_learners(self, learners: Learners) -> Self {
        Admin { learners, ..self }
    }

    /// Serves until `shutdown` is done; then it hangs up.
    pub async fn run(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let admin = Arc::new(self);
        let (mut connections, mut visits) = (JoinSet::new(), VecDeque::<Visit>::new());
        let mut shutdown = pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => return,
                accepted = listener.accept() => accepted,
            };
            while connections.try_join_next().is_some() {}
            visits.retain(|visit| !visit.task.is_finished());
            let Ok((stream, address)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let stranger = |visit: &Visit| !visit.known.load(Ordering::Relaxed);
            let strangers = visits.iter().filter(|visit| stranger(visit)).count();
            if visits.len() - strangers >= CONNECTIONS {
                // One more hangs up: the operator is busy enough.
                continue;
            }
            if strangers >= STRANGERS
                && let Some(oldest) = visits.iter().position(stranger)
                && let Some(oldest) = visits.remove(oldest)
            {
                oldest.task.abort();
            }
            let known = Arc::<AtomicBool>::default();
            let sender = Sender { address: address.ip(), known: known.clone() };
            let task = connections.spawn(timeout(CONNECTION_TIME, admin.clone().serve(stream, sender)));
            visits.push_back(Visit { task, known });
            // It may read its request before the next connection displaces it.
            yield_now().await;
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, sender: Sender) {
        let answer = |request| {
            let (admin, sender) = (&self, &sender);
            async move { Ok::<_, Infallible>(admin.answer(request, sender).await) }
        };
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .max_buf_size(HEADER_BYTES)
            .serve_connection(TokioIo::new(Worded::new(stream)), service_fn(answer));
        // What goes wrong with a connection is its operator's to see.
        drop(connection.await);
    }

    async fn answer(&self, request: Request<Incoming>, sender: &Sender) -> Answer {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        match uri.path() {
            "/healthz" => return text(StatusCode::OK, "ok\n"),
            "/readyz" if self.policies.is_empty() => {
                return text(StatusCode::SERVICE_UNAVAILABLE, "there are no policies\n");
            }
            "/readyz" => return text(StatusCode::OK, "ready\n"),
            _ => {}
        }
        let named = hosts::named(request.version(), &uri, request.headers()).map(drop);
        let entered = named.map_err(|_| Refusal::Host).and_then(|()| self.enter(request.headers(), sender));
        if method == Method::GET && uri.path() == "/metrics" && entered.is_ok() {
            let accept =
                request.headers().get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
            let accept = accept.collect::<Vec<_>>().join(",");
            let (mime, body) = metrics::negotiated(&accept, self.policies.metrics_text());
            return respond(StatusCode::OK, mime, body.into());
        }
        let wanted = wanted(uri.path(), uri.query().unwrap_or_default());
        let result = match (entered, &wanted) {
            (Err(refusal), _) => Err(refusal),
            (Ok(()), None) if method == Method::GET && uri.path() == "/policies" => {
                Ok(self.policies.operators_list())
            }
            (Ok(()), None) if method == Method::GET && uri.path() == "/learners" => self.list_edges().await,
            (Ok(()), None) => match edge_wanted(uri.path()) {
                Some(edge) => {
                    let done = self.change_edge(&method, &edge).await;
                    self.note(sender.address, edge.word(&method), Some(&edge.learner), done.as_ref().err());
                    done.map(|()| json!({ "edge": edge.edge }))
                }
                None => Err(Refusal::Nothing),
            },
            (Ok(()), Some(wanted)) => self
                .change(&method, wanted, request.into_body())
                .await
                .map(|version| json!({ "version": version })),
        };
        match (&wanted, result.as_ref().err()) {
            (Some(wanted), refusal) => {
                self.note(sender.address, word(&method, wanted.what), Some(&wanted.policy), refusal);
            }
            (None, Some(refusal @ (Refusal::Token | Refusal::Guesses(_)))) => {
                self.note(sender.address, "operator", None, Some(refusal));
            }
            (None, _) => {}
        }
        let (status, json, pause) = match result {
            Ok(json) => (StatusCode::OK, json, None),
            Err(refusal) => {
                let pause = if let Refusal::Guesses(pause) = refusal { Some(pause) } else { None };
                (refusal.status(), json!({ "error": refusal.to_string() }), pause)
            }
        };
        let mut answer = respond(status, "application/json", Bytes::from(json.to_string()));
        let headers = answer.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(pause) = pause {
            headers.insert(header::RETRY_AFTER, seconds(pause));
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    /// Whether a request shows the token. A wrong token counts for its address only, and never blocks the right one.
    fn enter(&self, headers: &HeaderMap, sender: &Sender) -> Result<(), Refusal> {
        if self.is_operator(headers) {
            sender.known.store(true, Ordering::Relaxed);
            return Ok(());
        }
        let guessed = self.guesses.spend(&Payer::at(sender.address), 1.0);
        Err(guessed.map_or_else(Refusal::Guesses, |()| Refusal::Token))
    }

    /// Notes in both logs what was done, or why not.
    fn note(&self, address: IpAddr, what: &'static str, policy: Option<&str>, refusal: Option<&Refusal>) {
        let verdict = refusal.map_or_else(|| "granted".to_owned(), Refusal::to_string);
        match refusal {
            None => info!(%address, what, policy, "the operator's wish is done"),
            Some(Refusal::Token | Refusal::Guesses(_)) => {
                debug!(%address, what, policy, verdict, "somebody is no operator")
            }
            Some(_) => warn!(%address, what, policy, verdict, "the operator's wish is refused"),
        }
        if let Some(audit) = &self.audit {
            let stranger = matches!(refusal, Some(Refusal::Token | Refusal::Guesses(_) | Refusal::Host));
            let who = if stranger { Who::Nobody } else { Who::Operator };
            audit.note(who, Some(address), what, policy, &verdict);
        }
    }

    fn is_operator(&self, headers: &HeaderMap) -> bool {
        let token = headers.get(header::AUTHORIZATION).and_then(admission::bearer_token);
        token.is_some_and(|token| sha256(token.as_bytes()) == self.token)
    }

    /// Every learner's edges.
    async fn list_edges(&self) -> Result<serde_json::Value, Refusal> {
        let mut list = Vec::new();
        for learner in self.learners.all() {
            let edges = learner.list().await.ok_or(Refusal::Busy)?;
            list.push(json!({ "learner": learner.name, "edges": edges }));
        }
        Ok(list.into())
    }

    async fn change_edge(&self, method: &Method, wanted: &EdgeWanted) -> Result<(), Refusal> {
        let EdgeWanted { learner, edge, what } = wanted;
        let unknown = || Refusal::Edge(format!("expected a learner of this server, got {learner:?}"));
        let learner = self.learners.find(learner).ok_or_else(unknown)?;
        let done = match (method, what.as_str()) {
            (&Method::POST, "pause") => learner.pause(edge, true).await,
            (&Method::POST, "resume") => learner.pause(edge, false).await,
            (&Method::DELETE, "") => learner.drop_edge(edge).await,
            _ => return Err(Refusal::Nothing),
        };
        done.ok_or(Refusal::Busy)?.map_err(Refusal::Edge)
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

/// What a request about an edge is about.
struct EdgeWanted {
    learner: String,
    edge: String,
    what: String,
}

impl EdgeWanted {
    /// The request's word in the audit log.
    fn word(&self, method: &Method) -> &'static str {
        match (method, self.what.as_str()) {
            (&Method::DELETE, "") => "drop edge",
            (_, "pause") => "pause edge",
            (_, "resume") => "resume edge",
            _ => "other",
        }
    }
}

/// `/learners/NAME/edges/EDGE` or `/learners/NAME/edges/EDGE/WHAT`.
fn edge_wanted(path: &str) -> Option<EdgeWanted> {
    let decoded = |part: &str| Some(percent_decode_str(part).decode_utf8().ok()?.into_owned());
    let (learner, rest) = path.strip_prefix("/learners/")?.split_once("/edges/")?;
    let (edge, what) = rest.split_once('/').unwrap_or((rest, ""));
    Some(EdgeWanted { learner: decoded(learner)?, edge: decoded(edge)?, what: what.into() })
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
    use super::{edge_wanted, percent, wanted};

    #[test]
    fn a_path_names_a_policy_and_what_to_do() {
        let found = wanted("/policies/a%20policy/publish", "").unwrap();
        assert_eq!((found.policy.as_str(), found.what), ("a policy", "publish"));
        for nothing in ["/", "/policies", "/policies/a", "/policies/%ff/publish"] {
            assert!(wanted(nothing, "").is_none(), "{nothing}");
        }
    }

    #[test]
    fn a_path_names_a_learner_and_an_edge() {
        let found = edge_wanted("/learners/pole/edges/an%2Fedge/pause").unwrap();
        assert_eq!((&*found.learner, &*found.edge, &*found.what), ("pole", "an/edge", "pause"));
        assert_eq!(edge_wanted("/learners/pole/edges/a").unwrap().what, "");
        assert!(edge_wanted("/learners/pole").is_none() && edge_wanted("/policies/a/publish").is_none());
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
