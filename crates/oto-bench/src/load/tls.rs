//! What a student's WebSocket stands on: a TCP connection, or TLS over one.

use super::LoadError;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Whom students trust to say who a server is.
#[derive(Clone, Debug, Default)]
pub enum Trust {
    /// Mozilla's authorities.
    #[default]
    Known,
    /// These, and nobody else.
    Only(Vec<CertificateDer<'static>>),
}

impl Trust {
    /// For plain requests.
    pub(crate) fn agent(&self) -> ureq::Agent {
        let roots = match self {
            Trust::Known => RootCerts::WebPki,
            Trust::Only(some) => {
                let some: Vec<_> = some.iter().map(|one| Certificate::from_der(one).to_owned()).collect();
                RootCerts::new_with_certs(&some)
            }
        };
        let tls = TlsConfig::builder().root_certs(roots).build();
        ureq::Agent::config_builder().tls_config(tls).build().into()
    }
}

/// How students speak TLS with a server.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// With the server of this name. Each student begins its own session: they stand for as many machines.
    ///
    /// # Errors
    /// If the name is none, or somebody who is trusted has no usable certificate.
    pub fn new(name: &str, trust: &Trust) -> Result<Self, LoadError> {
        let mut roots = RootCertStore::empty();
        match trust {
            Trust::Known => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Trust::Only(some) => some.iter().try_for_each(|one| roots.add(one.clone()))?,
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        let name = ServerName::try_from(name.to_owned()).map_err(|_| LoadError::Address(name.to_owned()))?;
        Ok(Tls { config: Arc::new(config), name })
    }

    /// Over this connection. The handshake comes with the first bytes.
    pub(crate) fn over(&self, tcp: TcpStream) -> Result<Stream, rustls::Error> {
        let session = ClientConnection::new(self.config.clone(), self.name.clone())?;
        Ok(Stream::Secure(Box::new(StreamOwned::new(session, tcp))))
    }
}

/// A connection.
pub(crate) enum Stream {
    Plain(TcpStream),
    Secure(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Plain(tcp) => tcp,
            Stream::Secure(session) => &session.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(tcp) => tcp.read(buffer),
            Stream::Secure(session) => session.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(tcp) => tcp.write(buffer),
            Stream::Secure(session) => session.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(tcp) => tcp.flush(),
            Stream::Secure(session) => session.flush(),
        }
    }
}
