//! A line to a server that a test can cut or silence: TCP of 127.0.0.1, carried byte by byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Line {
    /// They are carried.
    Open,
    /// They are taken and go nowhere; connections stay.
    Silent,
    /// Connections end, and new ones end at once: the server was killed.
    Cut,
}

/// A line to one port. It ends with the test's process, at the latest.
pub struct Proxy {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    line: Arc<AtomicU8>,
}

/// How often a thread looks at the line's state.
const LOOK: Duration = Duration::from_millis(10);

impl Proxy {
    /// A line to this port of 127.0.0.1.
    ///
    /// # Panics
    /// If no port is free.
    pub fn to(server: u16, line: Line) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        let line = Arc::new(AtomicU8::new(line as u8));
        let shared = line.clone();
        std::thread::spawn(move || {
            for student in listener.incoming().flatten() {
                if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) {
                    carry(student, server, &shared);
                }
            }
        });
        Self { port, line }
    }

    /// From now on.
    pub fn set(&self, line: Line) {
        self.line.store(line as u8, Ordering::SeqCst);
    }
}

/// Carries both ways, in two threads.
fn carry(student: TcpStream, server: TcpStream, line: &Arc<AtomicU8>) {
    let both = [(&student, &server), (&server, &student)];
    for (from, to) in both {
        if let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) {
            let line = line.clone();
            std::thread::spawn(move || one_way(from, to, &line));
        }
    }
}

fn one_way(mut from: TcpStream, mut to: TcpStream, line: &AtomicU8) {
    let mut bytes = [0; 4096];
    if from.set_read_timeout(Some(LOOK)).is_err() {
        return;
    }
    loop {
        let read = match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(read) => read,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
            Err(_) => break,
        };
        let line = line.load(Ordering::SeqCst);
        if line == Line::Cut as u8 || line == Line::Open as u8 && to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}
