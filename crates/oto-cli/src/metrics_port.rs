//! A page of metrics for Prometheus, for programs without a server: one text, the newest, at any path.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a reader may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The page.
pub struct MetricsPort(Arc<Mutex<String>>);

impl MetricsPort {
    /// Serves it in a thread of its own, for as long as the process lives.
    ///
    /// # Errors
    /// An address that cannot be listened on.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let page = Arc::<Mutex<String>>::default();
        let read = page.clone();
        std::thread::Builder::new().name("metrics".into()).spawn(move || {
            for stream in listener.incoming() {
                match stream {
                    // A reader that fails may come again.
                    Ok(stream) => drop(answer(stream, &read)),
                    Err(_) => std::thread::sleep(Duration::from_millis(50)),
                }
            }
        })?;
        Ok(MetricsPort(page))
    }

    /// Replaces the text.
    pub fn set(&mut self, text: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }
}

fn answer(mut stream: TcpStream, page: &Mutex<String>) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = [0; 2048];
    let read = stream.read(&mut request)?;
    let text = page.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (status, text) = match request[..read].starts_with(b"GET ") {
        true => ("200 OK", text),
        false => ("405 Method Not Allowed", String::new()),
    };
    let head =
        "content-type: text/plain; version=0.0.4; charset=utf-8\r\nconnection: close\r\ncontent-length: ";
    write!(stream, "HTTP/1.1 {status}\r\n{head}{}\r\n\r\n{text}", text.len())?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_text_is_served() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let mut port = MetricsPort::open(address).unwrap();
        port.set("a 1\n".into());
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("\r\n\r\na 1\n"), "{answer}");
    }
}
