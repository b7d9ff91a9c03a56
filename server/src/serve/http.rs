//! Plain requests: health, the list of policies, the site, and the handshake that makes a connection a student's.
//!
//! | path | |
//! | --- | --- |
//! | `/healthz` | 200 while the process runs |
//! | `/readyz` | 200 while students may come, 503 when the server stops or has no policy |
//! | `/policies` | JSON, a list of policies with name, version and metadata |
//! | `/policies/NAME/model` | the bytes of a policy, where they are shared |
//! | `/v1/teach` | the WebSocket of subprotocol `oto.v1` |
//! | `/v1/ticket` | POST: a ticket for one student's `hello` |
//! | `/v2/...` | KServe's protocol, for programs that are no students (`kserve`) |
//! | anything else | the site |
//!
//! A request names the server ([`crate::auth::hosts`]), and what a browser makes of an answer is limited by its headers.

use crate::auth::access::NoTicket;
use crate::auth::budget::Payer;
use crate::auth::hosts::{Host, WrongHost};
use crate::net::stopping::Stopping;
use crate::serve::admission::{Bearer, Caller, Server};
use crate::serve::kserve;
use crate::serve::respond::{Answer, not_allowed, respond, seconds, sentence, text};
use bytes::Bytes;
use futures_util::future::Either;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::service::Service;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Version};
use oto_proto::{Grant, PROTOCOL};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::warn;

/// The header that says which version of a policy its bytes are.
pub(crate) const VERSION: &str = "oto-version";
/// Where students connect.
pub(crate) const TEACH: &str = "/v1/teach";

/// Where tickets are given.
const TICKET: &str = "/v1/ticket";

type Answered = Result<Answer, Infallible>;

/// What answers the requests of one connection.
#[derive(Clone)]
pub(crate) struct Site {
    pub server: Arc<Server>,
    pub caller: Caller,
    /// What the request calls the server.
    host: Option<Host>,
    /// Whether a proxy passed the request on, whose connection does not count as the caller's.
    behind: bool,
    stopping: Stopping,
    upgrade: Arc<Mutex<Option<(OnUpgrade, Caller)>>>,
}

impl Service<Request<Incoming>> for Site {
    type Response = Answer;
    type Error = Infallible;
    type Future = Either<Ready<Answered>, Pin<Box<dyn Future<Output = Answered> + Send>>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let mut site = self.clone();
        if let Err((status, why)) = site.receive(&request) {
            return Either::Left(ready(Ok(site.guarded(sentence(status, &why)))));
        }
        let below = request.uri().path().strip_prefix(kserve::ROOT);
        match below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            false => Either::Left(ready(Ok(site.guarded(site.answer(&mut request))))),
            true => Either::Right(Box::pin(async move {
                let context = kserve::Context {
                    allowed: site.is_allowed(request.headers()),
                    stops: site.stops(),
                    server: site.server.clone(),
                    caller: site.caller.clone(),
                };
                let answer = kserve::answer(&context, request).await;
                Ok(site.guarded(answer))
            })),
        }
    }
}

/// The rights of a page of the site and of its workers: to run the site's own scripts, and to connect to teachers anywhere.
const SITE_POLICY: &str = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; \
    style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; \
    connect-src 'self' http: https: ws: wss:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// What is no page may do nothing.
const NO_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";
/// Headers of every answer, as OWASP's list has them.
const GUARDS: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-embedder-policy"), "require-corp"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];
/// Two years, of a server that speaks TLS.
const ALWAYS_TLS: &str = "max-age=63072000";

impl Site {
    pub fn new(server: Arc<Server>, caller: Caller, stopping: Stopping) -> Self {
        Site { server, caller, host: None, behind: false, stopping, upgrade: Arc::default() }
    }

    /// The upgrade that a student asked for and got, and who it is as far as its handshake said.
    pub fn take_upgrade(&self) -> Option<(OnUpgrade, Caller)> {
        self.upgrade.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the server takes nothing new any more.
    pub fn stops(&self) -> bool {
        self.stopping.has_begun()
    }

    /// Looks at what a request calls the server, and at who sent it.
    fn receive(&mut self, request: &Request<Incoming>) -> Result<(), (StatusCode, String)> {
        let (config, headers) = (&self.server.config, request.headers());
        // Probes call a server by its address, or not at all.
        let probe = matches!(request.uri().path(), "/healthz" | "/readyz");
        let old = request.version() < Version::HTTP_11 && !headers.contains_key(header::HOST);
        match config.hosts.of(request.version(), request.uri(), headers) {
            Ok(host) => self.host = Some(host),
            Err(WrongHost::Other) if probe => {}
            Err(WrongHost::Unusable) if probe && old => {}
            Err(wrong) => {
                let status = match wrong {
                    WrongHost::Unusable => StatusCode::BAD_REQUEST,
                    WrongHost::Other => StatusCode::MISDIRECTED_REQUEST,
                };
                return Err((status, wrong.to_string()));
            }
        }
        if !probe && headers.get_all(header::ORIGIN).iter().nth(1).is_some() {
            return Err((StatusCode::FORBIDDEN, "expected one header Origin, got more".into()));
        }
        let client = config.proxies.client(self.caller.address, headers);
        let client = client.map_err(|wrong| (StatusCode::BAD_REQUEST, wrong.to_string()))?;
        self.behind = config.proxies.holds(self.caller.address);
        self.caller.address = client;
        Ok(())
    }

    /// An answer with the headers that keep a browser from doing more with it than is meant.
    fn guarded(&self, mut answer: Answer) -> Answer {
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return answer;
        }
        let headers = answer.headers_mut();
        let policy = policy_of(headers.get(header::CONTENT_TYPE));
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
        for (name, value) in GUARDS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if self.server.config.tls.is_some() {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(ALWAYS_TLS));
        }
        answer
    }

    fn answer(&self, request: &mut Request<Incoming>) -> Answer {
        if request.uri().path() == TICKET {
            return match request.method() {
                &Method::POST => self.ticket(request.headers()),
                _ => not_allowed("POST"),
            };
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return not_allowed("GET, HEAD");
        }
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" if self.stops() => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            "/readyz" if self.server.config.policies.is_empty() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "there are no policies\n")
            }
            "/readyz" => text(StatusCode::OK, "ready\n"),
            "/policies" => self.policies(request.headers()),
            TEACH => self.handshake(request),
            path => match path.strip_prefix("/policies/").and_then(|rest| rest.strip_suffix("/model")) {
                Some(name) => self.model(name, request.headers()),
                None => self.asset(path, request.headers()),
            },
        }
    }

    /// The bytes of a policy, for servers that follow this one.
    fn model(&self, name: &str, headers: &HeaderMap) -> Answer {
        let nothing = || text(StatusCode::NOT_FOUND, "there is nothing here\n");
        let Ok(name) = percent_decode_str(name).decode_utf8() else { return nothing() };
        if !self.may_have(&name, headers) {
            return nothing();
        }
        let Some((version, model)) = self.server.config.policies.model(&name) else { return nothing() };
        let tag = format!("\"sha256-{}\"", model.sha256);
        let known = headers.get_all(header::IF_NONE_MATCH).iter().any(|known| lists(known, &tag));
        let (status, body) = if known {
            (StatusCode::NOT_MODIFIED, Bytes::new())
        } else {
            (StatusCode::OK, model.bytes.clone())
        };
        let mut answer = respond(status, "application/octet-stream", body);
        let headers = answer.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(HeaderName::from_static(VERSION), version.into());
        if let Ok(tag) = HeaderValue::try_from(tag) {
            headers.insert(header::ETAG, tag);
        }
        answer
    }

    /// Whether the sender may have a policy's bytes: everyone if the server shares them, and a machine with that
    /// grant.
    fn may_have(&self, policy: &str, headers: &HeaderMap) -> bool {
        let Bearer::Machine(machine) = self.server.bearer(headers) else {
            return self.server.config.share_weights;
        };
        let granted = machine.may(Grant::Weights) && machine.may_ask(policy);
        let caller = Caller { principal: Some(machine), ..self.caller.clone() };
        self.server.note(&caller, "model", Some(policy), if granted { "granted" } else { "not granted" });
        granted
    }

    /// A ticket for a machine that has a token, or for a page of an allowed origin.
    fn ticket(&self, headers: &HeaderMap) -> Answer {
        let origin = headers.get(header::ORIGIN);
        let mut caller = self.caller.clone();
        let given = self.give_ticket(headers, &mut caller);
        let verdict = given.as_ref().map_or_else(|refusal| refusal.why, |_| "granted");
        self.server.note(&caller, "ticket", None, verdict.trim_end());
        let mut answer = match given {
            Ok(json) => respond(StatusCode::OK, "application/json", json.into()),
            Err(refusal) => refusal.answer(),
        };
        answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(origin) = origin.filter(|_| self.is_allowed(headers)) {
            allow(&mut answer, origin);
        }
        answer
    }

    fn give_ticket(&self, headers: &HeaderMap, caller: &mut Caller) -> Result<String, Refusal> {
        let refuse = |status, why| Err(Refusal { status, why, pause: None });
        let Some(authenticator) = self.server.authenticator() else {
            return refuse(StatusCode::NOT_FOUND, "no tickets are needed here\n");
        };
        let bearer = self.server.bearer(headers);
        if !matches!(bearer, Bearer::Machine(_)) {
            self.server.knock(caller).map_err(too_often)?;
        }
        let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
        let principal = match (bearer, origin) {
            (Bearer::Unknown, _) => return refuse(StatusCode::UNAUTHORIZED, NO_TOKEN),
            (Bearer::Machine(machine), _) => machine,
            (Bearer::Absent, None) => {
                return refuse(StatusCode::UNAUTHORIZED, "expected a bearer token or an allowed origin\n");
            }
            (Bearer::Absent, Some(_)) if !self.is_allowed(headers) => {
                return refuse(StatusCode::FORBIDDEN, "pages of this origin get no tickets here\n");
            }
            (Bearer::Absent, Some(origin)) => match authenticator.page(origin, caller.address) {
                Some(page) => page,
                None => return refuse(StatusCode::FORBIDDEN, "pages get tickets from their own server\n"),
            },
        };
        caller.principal = Some(principal.clone());
        match authenticator.issue(principal, caller.address) {
            Ok((ticket, good)) => {
                Ok(serde_json::json!({ "ticket": ticket, "seconds": good.as_secs() }).to_string())
            }
            Err(NoTicket::Full(pause)) => {
                self.server.metrics().dropped("tickets");
                let (status, why) = (StatusCode::TOO_MANY_REQUESTS, "too many unused tickets\n");
                Err(Refusal { status, why, pause: Some(pause) })
            }
            Err(NoTicket::Chance) => {
                refuse(StatusCode::INTERNAL_SERVER_ERROR, "the system gives no random numbers\n")
            }
        }
    }

    fn policies(&self, headers: &HeaderMap) -> Answer {
        let body = self.server.config.policies.list(self.server.config.share_weights).to_string();
        let mut answer = respond(StatusCode::OK, "application/json", body.into());
        answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // A page that may have its students taught here may choose their teacher here, too.
        if let Some(origin) = headers.get(header::ORIGIN)
            && self.is_allowed(headers)
        {
            allow(&mut answer, origin);
        }
        answer
    }

    /// RFC 6455, section 4.2.
    fn handshake(&self, request: &mut Request<Incoming>) -> Answer {
        let headers = request.headers();
        let upgrade = has_token(headers, header::CONNECTION, "upgrade")
            && has_token(headers, header::UPGRADE, "websocket")
            && request.method() == Method::GET;
        if !upgrade {
            let mut answer = text(StatusCode::UPGRADE_REQUIRED, NO_UPGRADE);
            answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            return answer;
        }
        if self.stops() {
            return text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
        }
        if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            let mut answer = text(StatusCode::UPGRADE_REQUIRED, "expected version 13 of WebSockets\n");
            answer.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            return answer;
        }
        if !self.is_allowed(headers) {
            self.server.note(&self.caller, "handshake", None, "origin not allowed");
            return text(StatusCode::FORBIDDEN, "pages of this origin may not connect here\n");
        }
        let mut caller = self.caller.clone();
        match self.server.bearer(headers) {
            Bearer::Absent => {}
            Bearer::Machine(machine) => caller.principal = Some(machine),
            Bearer::Unknown => {
                self.server.note(&caller, "handshake", None, "unknown token");
                let knocked = self.server.knock(&caller).map_err(too_often);
                return knocked.map_or_else(Refusal::answer, |()| text(StatusCode::UNAUTHORIZED, NO_TOKEN));
            }
        }
        if !has_token(headers, header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL) {
            if let Some(times) = self.server.no_protocol.again() {
                warn!(address = %caller.address, times, "a handshake names no subprotocol oto.v1; a proxy may have removed it");
            }
            return text(StatusCode::BAD_REQUEST, NO_PROTOCOL);
        }
        let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
            return text(StatusCode::BAD_REQUEST, "expected the header Sec-WebSocket-Key\n");
        };
        let Ok(accept) = HeaderValue::try_from(derive_accept_key(key.as_bytes())) else {
            return text(StatusCode::BAD_REQUEST, "the header Sec-WebSocket-Key is no key\n");
        };
        if self.behind {
            let Some(place) = self.server.enter(caller.address) else {
                self.server.metrics().dropped("address");
                let (status, why) =
                    (StatusCode::SERVICE_UNAVAILABLE, "too many connections of this address\n");
                return Refusal { status, why, pause: Some(self.server.config.limits.retry) }.answer();
            };
            caller.place = Some(Arc::new(place));
        }
        caller.share.belongs_to(Payer::at(caller.address));
        let upgrade = hyper::upgrade::on(request);
        *self.upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some((upgrade, caller));
        let mut answer = Response::new(Full::default());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
        answer
    }

    /// Whether the page behind a request may use the server. Only browsers name an origin, and they do not lie about it.
    pub fn is_allowed(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let Some(origin) = origins.next() else { return true };
        let (config, Ok(text)) = (&self.server.config, origin.to_str()) else { return false };
        let own = self.host.as_ref().is_some_and(|host| config.hosts.owns(origin, host));
        origins.next().is_none() && (own || config.is_friend(text))
    }

    fn asset(&self, path: &str, headers: &HeaderMap) -> Answer {
        let path = path.trim_start_matches('/');
        let path: Cow<'_, str> = if path.is_empty() || path.ends_with('/') {
            format!("{path}index.html").into()
        } else {
            path.into()
        };
        let found = match &self.server.config.assets {
            Some(assets) if !path.split('/').any(|part| part == "..") => assets.get(&path),
            _ => None,
        };
        let Some(found) = found else {
            let why = if self.server.config.lacks_site() { NO_SITE } else { "there is nothing here\n" };
            return text(StatusCode::NOT_FOUND, why);
        };
        let tag = tag(&found);
        let known = headers.get_all(header::IF_NONE_MATCH).iter().any(|known| lists(known, &tag));
        let mut answer = if known {
            respond(StatusCode::NOT_MODIFIED, mime(&path), Bytes::new())
        } else {
            let body = match found {
                Cow::Borrowed(bytes) => Bytes::from_static(bytes),
                Cow::Owned(bytes) => bytes.into(),
            };
            respond(StatusCode::OK, mime(&path), body)
        };
        let headers = answer.headers_mut();
        // A bundler puts a hash into the names of what it puts under `assets/`; everything else is asked for again.
        let forever = path.starts_with("assets/");
        let cache = if forever { "public, max-age=31536000, immutable" } else { "no-cache" };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
        if let Ok(tag) = HeaderValue::try_from(tag) {
            headers.insert(header::ETAG, tag);
        }
        answer
    }
}

const NO_SITE: &str = "there is nothing here: this server was built without the site (cargo xtask demo builds both); \
    teachers are at /policies\n";
const NO_TOKEN: &str = "expected a known token\n";
const NO_UPGRADE: &str = "this is the address of a WebSocket: expected the headers Connection: upgrade and Upgrade: websocket, which \
    a proxy before this server has to pass on\n";
const NO_PROTOCOL: &str = "expected the WebSocket subprotocol oto.v1 in the header Sec-WebSocket-Protocol, which a proxy before \
    this server has to pass on\n";

/// Why something is not given, and how long to wait if it may be later.
struct Refusal {
    status: StatusCode,
    why: &'static str,
    pause: Option<Duration>,
}

impl Refusal {
    fn answer(self) -> Answer {
        let mut answer = text(self.status, self.why);
        if let Some(pause) = self.pause {
            answer.headers_mut().insert(header::RETRY_AFTER, seconds(pause));
        }
        answer
    }
}

fn too_often(pause: Duration) -> Refusal {
    let (status, why) = (StatusCode::TOO_MANY_REQUESTS, "too many requests from this address\n");
    Refusal { status, why, pause: Some(pause) }
}

/// What the content of an answer may do. A worker has the policy that came with its script, not that of its page.
fn policy_of(kind: Option<&HeaderValue>) -> &'static str {
    let runs = |kind: &HeaderValue| {
        ["text/html", "text/javascript"].iter().any(|k| kind.as_bytes().starts_with(k.as_bytes()))
    };
    if kind.is_some_and(runs) { SITE_POLICY } else { NO_POLICY }
}

/// Lets a page of this origin read the answer.
fn allow(answer: &mut Answer, origin: &HeaderValue) {
    answer.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("origin"));
}

/// Whether a header that is a list, perhaps over several lines, holds `token`.
fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let tokens = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    tokens.flat_map(|line| line.split(',')).any(|found| found.trim().eq_ignore_ascii_case(token))
}

fn tag(bytes: &[u8]) -> String {
    // Its keys are fixed, so that the same file has the same tag after a restart.
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

fn lists(header: &HeaderValue, tag: &str) -> bool {
    let tags = header.to_str().unwrap_or_default().split(',').map(str::trim);
    tags.into_iter().any(|found| found == "*" || found.trim_start_matches("W/") == tag)
}

fn mime(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "wasm" => "application/wasm",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" | "md" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
