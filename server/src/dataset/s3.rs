//! Objects in a bucket of an S3-compatible store, for callers that may block: a thread does the work, and HTTP is what the rest
//! of the server asks with.

use super::StoreError;
use super::open::at;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::{BodyExt, Full};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{
    ClientConfigKey, ClientOptions, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpResponse, HttpResponseBody, HttpService,
};
use object_store::path::{Path, PathPart};
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, RetryConfig};
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use ureq::Agent;
use ureq::http::Uri;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// What an address of a bucket begins with.
pub(super) const SCHEME: &str = "s3://";
/// For one try of one request, and for all of them together.
const TRY: Duration = Duration::from_secs(15);
const RETRY: RetryConfig = RetryConfig {
    backoff: object_store::BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(2),
        base: 2.0,
    },
    max_retries: 4,
    retry_timeout: Duration::from_secs(20),
};
/// The longest answer that is read, in bytes: no submission is as long.
const ANSWER_BYTES: u64 = 256 << 20;

/// The objects below a prefix of a bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    address: String,
    prefix: Path,
    objects: Arc<dyn ObjectStore>,
    runtime: Handle,
    /// The thread ends when this is dropped.
    _running: oneshot::Sender<()>,
}

/// An object, by the last part of its name.
pub(super) struct Named {
    pub name: String,
    pub bytes: u64,
    /// When it was written, in milliseconds since 1970.
    pub written: i64,
}

impl Bucket {
    /// The objects below `s3://BUCKET/PREFIX`, with these credentials, region and endpoint. `roots` is a PEM file of the certificates to
    /// trust, in place of those that browsers do.
    pub fn open(settings: AmazonS3Builder, address: &str, roots: Option<&OsStr>) -> Result<Self, StoreError> {
        let away = |reason: String| StoreError::Away { address: address.to_owned(), reason };
        let unread = || away(format!("expected an address such as {SCHEME}BUCKET/PREFIX"));
        let (bucket, prefix) = address
            .strip_prefix(SCHEME)
            .map(|rest| rest.split_once('/').unwrap_or((rest, "")))
            .ok_or_else(unread)?;
        if bucket.is_empty() {
            return Err(unread());
        }
        let roots = roots.map(|file| trusted(file.as_ref())).transpose()?;
        let objects = on_loopback(settings)
            .with_bucket_name(bucket)
            .with_retry(RETRY)
            // Not every S3-compatible store deletes many objects at once.
            .with_disable_bulk_delete(true)
            .with_http_connector(Connector(roots.unwrap_or(RootCerts::WebPki)))
            .build()
            .map_err(|error| away(error.to_string()))?;
        let (runtime, running) = runtime().map_err(|error| away(error.to_string()))?;
        let address = address.trim_end_matches('/').to_owned();
        Ok(Bucket {
            address,
            prefix: Path::from(prefix),
            objects: Arc::new(objects),
            runtime,
            _running: running,
        })
    }

    /// Writes an object, in place of the one of its name if there is one. It is kept for good once this returns.
    pub fn put(&self, folder: &'static str, name: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        let (objects, path) = (self.objects.clone(), self.path(folder, name));
        self.wait(async move { objects.put(&path, PutPayload::from(bytes)).await.map(drop) })
    }

    /// The bytes of an object; none if there is no such object.
    pub fn get(&self, folder: &'static str, name: &str) -> Result<Option<Bytes>, StoreError> {
        let (objects, path) = (self.objects.clone(), self.path(folder, name));
        self.wait(async move {
            match objects.get(&path).await {
                Ok(found) => found.bytes().await.map(Some),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    /// All objects in a folder.
    pub fn list(&self, folder: &'static str) -> Result<Vec<Named>, StoreError> {
        let (objects, folder) = (self.objects.clone(), self.prefix.clone().join(folder));
        self.wait(async move {
            let named = objects.list(Some(&folder)).try_filter_map(async |meta| {
                let name = meta.location.filename().and_then(|name| {
                    let name = percent_encoding::percent_decode_str(name).decode_utf8().ok()?;
                    Some(Named {
                        name: name.into(),
                        bytes: meta.size,
                        written: meta.last_modified.timestamp_millis(),
                    })
                });
                Ok(name)
            });
            named.try_collect().await
        })
    }

    /// Deletes objects; one that is not there is deleted already.
    pub fn delete(&self, folder: &'static str, names: &[String]) -> Result<(), StoreError> {
        let paths: Vec<_> = names.iter().map(|name| Ok(self.path(folder, name))).collect();
        let objects = self.objects.clone();
        self.wait(async move {
            let mut deleted = objects.delete_stream(stream::iter(paths).boxed());
            while let Some(done) = deleted.next().await {
                match done {
                    Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
    }

    /// What to call an object in an error.
    pub fn called(&self, folder: &str, name: &str) -> PathBuf {
        PathBuf::from(format!("{}/{folder}/{name}", self.address))
    }

    fn path(&self, folder: &'static str, name: &str) -> Path {
        self.prefix.clone().join(folder).join(PathPart::from(name))
    }

    /// Blocks until the thread has done this.
    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (say, done) = channel();
        self.runtime.spawn(async move { drop(say.send(work.await)) });
        let away = |reason: String| StoreError::Away { address: self.address.clone(), reason };
        match done.recv() {
            Ok(done) => done.map_err(|error| away(error.to_string())),
            Err(_) => Err(away("its thread ended".into())),
        }
    }
}

/// Plain HTTP is for this machine, and for who asks for it with `AWS_ALLOW_HTTP`.
fn on_loopback(settings: AmazonS3Builder) -> AmazonS3Builder {
    let endpoint = settings.get_config_value(&AmazonS3ConfigKey::Endpoint);
    let host = endpoint.and_then(|e| e.parse::<Uri>().ok()).and_then(|uri| uri.host().map(str::to_owned));
    match host.as_deref() {
        Some("localhost" | "127.0.0.1" | "[::1]") => settings.with_allow_http(true),
        _ => settings,
    }
}

/// A thread that does what it is told until the sender is dropped.
fn runtime() -> io::Result<(Handle, oneshot::Sender<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (running, ended) = oneshot::channel();
    let handle = runtime.handle().clone();
    std::thread::Builder::new().name("bucket".into()).spawn(move || drop(runtime.block_on(ended)))?;
    Ok((handle, running))
}

/// The certificates in a PEM file.
fn trusted(file: &std::path::Path) -> Result<RootCerts, StoreError> {
    let pem = oto_json::file::read(file, oto_json::file::MAX_LIST).map_err(at(file))?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    match certificates.is_empty() {
        true => {
            Err(StoreError::Corrupt { path: file.to_owned(), reason: "expected certificates in PEM".into() })
        }
        false => Ok(RootCerts::new_with_certs(&certificates)),
    }
}

/// Makes clients of [`Agent`]s that trust these.
#[derive(Debug)]
struct Connector(RootCerts);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let plain = options.get_config_value(&ClientConfigKey::AllowHttp).as_deref() == Some("true");
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .https_only(!plain)
            .tls_config(TlsConfig::builder().root_certs(self.0.clone()).build())
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(TRY / 3))
            .timeout_global(Some(TRY));
        Ok(HttpClient::new(Client(config.build().into())))
    }
}

#[derive(Debug)]
struct Client(Agent);

#[async_trait::async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let request = ureq::http::Request::from_parts(head, body);
        let agent = self.0.clone();
        let asked = tokio::task::spawn_blocking(move || ask(&agent, request)).await;
        asked
            .map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?
            .map_err(|error| HttpError::new(kind(&error), error))
    }
}

/// One request, which blocks.
fn ask(agent: &Agent, request: ureq::http::Request<Bytes>) -> Result<HttpResponse, ureq::Error> {
    let (head, body) = request.into_parts();
    let answer = agent.run(ureq::http::Request::from_parts(head, &body[..]))?;
    let (head, mut body) = answer.into_parts();
    let bytes = Bytes::from(body.with_config().limit(ANSWER_BYTES).read_to_vec()?);
    Ok(HttpResponse::from_parts(
        head,
        HttpResponseBody::new(Full::new(bytes).map_err(|never| match never {})),
    ))
}

/// What decides whether it is tried again.
fn kind(error: &ureq::Error) -> HttpErrorKind {
    match error {
        ureq::Error::Timeout(_) => HttpErrorKind::Timeout,
        ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => HttpErrorKind::Connect,
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => HttpErrorKind::Connect,
        ureq::Error::Io(_) | ureq::Error::Protocol(_) => HttpErrorKind::Interrupted,
        _ => HttpErrorKind::Unknown,
    }
}
