//! What stands for `tls` in a build without that cargo feature: no certificate can be opened, so that there is none.

use std::convert::Infallible;
use std::future::Ready;
use std::io;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It never can.
    #[error("this build has no TLS: build with the cargo feature `tls`, or let a proxy speak TLS")]
    LeftOut,
}

/// A server's certificate, of which there is none.
#[derive(Clone)]
pub struct Tls(Infallible);

/// What came of files that were replaced, which is nothing.
#[derive(Debug)]
pub struct Event(Infallible);

impl Event {
    /// Never called.
    pub fn log(&self) {
        match self.0 {}
    }
}

impl Tls {
    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn open(_: &Path, _: &Path) -> Result<Self, TlsError> {
        Err(TlsError::LeftOut)
    }

    /// Never called.
    pub(crate) fn acceptor(&self) -> Acceptor {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn watch(&self, _: Duration, _: impl Fn(Event) + Send + 'static) -> io::Result<Sender<()>> {
        match self.0 {}
    }

    /// Never called.
    pub fn renew(&self) -> Event {
        match self.0 {}
    }
}

/// What would accept connections.
pub(crate) struct Acceptor(Infallible);

impl Acceptor {
    /// Never called.
    pub fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, _: S) -> Ready<io::Result<S>> {
        match self.0 {}
    }
}
