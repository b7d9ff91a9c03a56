//! A WebSocket server that sends back what comes: what a machine can do at best, under the same load.
//!
//! It stands on the same runtime and the same WebSockets as the teacher server, and does nothing else.

use futures_util::{SinkExt, StreamExt};
use oto_proto::PROTOCOL;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// As much as the teacher server gives a connection.
const BUFFER_BYTES: usize = 2 << 10;

/// An echo at work; it ends when this is dropped.
pub struct Echo {
    /// Where it listens.
    pub address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Echo {
    /// Starts on any port of this machine's own address.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        Ok(Echo { address, _runtime: runtime })
    }
}

/// Sends everything back until the other side ends.
async fn serve(stream: TcpStream) {
    drop(stream.set_nodelay(true));
    #[allow(clippy::result_large_err)] // The type of tungstenite's callback.
    let select = |_: &Request, mut response: Response| {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
        Ok(response)
    };
    let config = WebSocketConfig::default().read_buffer_size(BUFFER_BYTES).write_buffer_size(0);
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async_with_config(stream, select, Some(config)).await
    else {
        return;
    };
    while let Some(Ok(message)) = socket.next().await {
        if message.is_binary() && socket.send(message).await.is_err() {
            return;
        }
    }
}
