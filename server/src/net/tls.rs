//! TLS: a certificate and its key in PEM files, read anew when they change, so that renewing them needs no restart.

use oto_json::file;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: std::io::Error,
    },
    /// A file is not PEM.
    #[error("{path}: {source}", path = path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// The file holds no certificate.
    #[error("{} holds no certificate", .0.display())]
    Empty(PathBuf),
    /// Certificate and key cannot be used, or not together.
    #[error("the certificate cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// A server's certificate; clones share it.
#[derive(Clone)]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: Arc<RwLock<Arc<rustls::ServerConfig>>>,
}

/// What came of files that were replaced, for a log.
#[derive(Debug)]
pub enum Event {
    /// The new certificate is used.
    Renewed(PathBuf),
    /// It cannot be, and the one before it stays in use.
    Refused(TlsError),
}

impl Event {
    /// Writes it to the log.
    pub fn log(&self) {
        match self {
            Event::Renewed(path) => info!(path = &*path.to_string_lossy(), "the new certificate is used"),
            Event::Refused(error) => {
                warn!(error = error.to_string(), "a certificate is refused, the one before stays in use");
            }
        }
    }
}

/// What tells that a file was replaced.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Tls {
    /// Reads a certificate (with those that lead to an authority after it) and its key.
    ///
    /// # Errors
    /// If one cannot be read, or they do not fit.
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let current = Arc::new(RwLock::new(read(certificate, key)?));
        Ok(Tls { certificate: certificate.to_owned(), key: key.to_owned(), current })
    }

    /// What accepts connections now.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone().into()
    }

    /// Looks at the files from time to time, in a thread that ends when what this gives is dropped. Files that cannot be
    /// used are told to `log`, and the certificate that was used before stays.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn watch(
        &self,
        every: Duration,
        log: impl Fn(Event) + Send + 'static,
    ) -> std::io::Result<Sender<()>> {
        let (stop, stopped) = channel();
        let (tls, mut known) = (self.clone(), self.stamp());
        std::thread::Builder::new().name("certificate".into()).spawn(move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let now = tls.stamp();
                if now == known {
                    continue;
                }
                known = now;
                log(tls.renew());
            }
        })?;
        Ok(stop)
    }

    /// Reads the files anew.
    pub fn renew(&self) -> Event {
        match read(&self.certificate, &self.key) {
            Ok(config) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
                Event::Renewed(self.certificate.clone())
            }
            Err(error) => Event::Refused(error),
        }
    }

    fn stamp(&self) -> Stamp {
        [&self.certificate, &self.key].map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let pem = |path: &Path| {
        file::read(path, file::MAX_LIST).map_err(|source| TlsError::Read { path: path.to_owned(), source })
    };
    let wrong = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, source }
    };
    let chain = CertificateDer::pem_slice_iter(&pem(certificate)?).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(wrong(certificate))?;
    if chain.is_empty() {
        return Err(TlsError::Empty(certificate.to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(&pem(key)?).map_err(wrong(key))?;
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
