//! Flow control in bytes. The simulated network counts segments, however large, and lets a writer wait for a reader that is
//! gone.
//!
//! Both ends of a connection are in this process, so they share how much is on its way. What a partition loses stays on
//! its way for good, as it does where nothing confirms it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

/// Bytes of one direction that may be on their way.
const WINDOW: usize = 64 << 10;

/// One direction.
#[derive(Default)]
struct Way {
    /// Bytes that were written and not read.
    bytes: usize,
    /// The reader is gone.
    gone: bool,
    writer: Option<Waker>,
}

type SharedWay = Arc<Mutex<Way>>;

fn lock(way: &SharedWay) -> MutexGuard<'_, Way> {
    way.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All connections of a network, by writer and reader.
#[derive(Clone, Default)]
pub struct Windows(Arc<Mutex<BTreeMap<(SocketAddr, SocketAddr), SharedWay>>>);

impl Windows {
    /// One end of a connection.
    pub fn wrap(&self, stream: TcpStream) -> io::Result<Windowed> {
        let (own, other) = (stream.local_addr()?, stream.peer_addr()?);
        let mut ways = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let out = ways.entry((own, other)).or_default().clone();
        let into = ways.entry((other, own)).or_default().clone();
        Ok(Windowed { stream, out, into })
    }
}

/// A connection that takes only so much that is not read.
pub struct Windowed {
    stream: TcpStream,
    out: SharedWay,
    into: SharedWay,
}

impl AsyncRead for Windowed {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Windowed { stream, into, .. } = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(stream).poll_read(cx, buf))?;
        let mut into = lock(into);
        into.bytes = into.bytes.saturating_sub(buf.filled().len() - before);
        into.writer.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Windowed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Windowed { stream, out, .. } = self.get_mut();
        let mut out = lock(out);
        let room = if out.gone { WINDOW } else { WINDOW - out.bytes };
        if room == 0 {
            out.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let written = ready!(Pin::new(stream).poll_write(cx, &bytes[..bytes.len().min(room)]))?;
        if !out.gone {
            out.bytes += written;
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl Drop for Windowed {
    fn drop(&mut self) {
        let mut into = lock(&self.into);
        into.gone = true;
        into.writer.take().into_iter().for_each(Waker::wake);
    }
}

/// A simulated listener whose connections have windows.
pub struct Windowing {
    /// The listener itself.
    pub listener: TcpListener,
    /// All connections of the network.
    pub windows: Windows,
}

impl oto_server::Listener for Windowing {
    type Stream = Windowed;

    async fn accept(&mut self) -> io::Result<(Windowed, SocketAddr)> {
        let (stream, address) = self.listener.accept().await?;
        Ok((self.windows.wrap(stream)?, address))
    }
}
