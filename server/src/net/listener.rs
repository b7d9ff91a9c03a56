//! Where a server's connections come from: TCP, or a network that is simulated.

use socket2::{Domain, SockRef, Socket, Type};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// Bytes that the system keeps of what a peer has not read yet. It would keep megabytes: a peer that asks and never reads would be
/// answered for a long time before it had to wait.
const UNREAD: usize = 64 << 10;

/// What gives a server its connections.
pub trait Listener: Send {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, and from where it comes. Nothing is lost if this is dropped before it is done.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;
}

/// Looks whether a server could listen at an address, without listening: whether it is this machine's, and whether the process may use the
/// port. Another server may use it now, such as the one that is to be replaced.
///
/// # Errors
/// What the operating system says.
pub fn check_address(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    match socket.bind(&address.into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
        bound => bound,
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, address) = TcpListener::accept(self).await?;
        // A label that waits for more to send with it is a late label. If it cannot be set, the connection is slower only.
        drop(stream.set_nodelay(true));
        drop(SockRef::from(&stream).set_send_buffer_size(UNREAD));
        Ok((stream, address))
    }
}
