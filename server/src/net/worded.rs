//! A sentence for answers that the HTTP library gives by itself: to bytes that are no request it sends a status and an empty body.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Statuses that the library gives by itself, each with its sentence.
const SENTENCES: [(&str, &str); 3] = [
    (
        "400 Bad Request",
        "expected a request of HTTP/1.1: a line such as GET / HTTP/1.1, then lines such as host: NAME",
    ),
    ("414 URI Too Long", "expected a shorter path"),
    (
        "431 Request Header Fields Too Large",
        "expected headers of at most 16384 bytes in all, and at most 100 of them",
    ),
];

/// A stream on which these answers have a body.
pub(crate) struct Worded<S> {
    stream: S,
    /// What was accepted and is not written yet.
    rest: Vec<u8>,
}

impl<S> Worded<S> {
    pub fn new(stream: S) -> Self {
        Worded { stream, rest: Vec::new() }
    }
}

/// The answer with a body in place of one that has none. The server's own answers have one.
fn worded(answer: &[u8]) -> Option<Vec<u8>> {
    if !answer.starts_with(b"HTTP/1.1 4") {
        return None;
    }
    let head = std::str::from_utf8(answer).ok()?.strip_suffix("\r\n\r\n")?;
    let (line, headers) = head.split_once("\r\n")?;
    let status = line.strip_prefix("HTTP/1.1 ")?;
    let (_, sentence) = SENTENCES.iter().find(|(known, _)| *known == status)?;
    if !headers.split("\r\n").any(|header| header == "content-length: 0") {
        return None;
    }
    let others = headers.split("\r\n").filter(|header| *header != "content-length: 0");
    let others: String = others.map(|header| format!("{header}\r\n")).collect();
    let length = sentence.len() + 1;
    let text = "content-type: text/plain; charset=utf-8\r\nx-content-type-options: nosniff\r\n";
    Some(format!("{line}\r\n{others}{text}content-length: {length}\r\n\r\n{sentence}\n").into_bytes())
}

impl<S: AsyncWrite + Unpin> Worded<S> {
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.rest.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.rest.drain(..written)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes an answer of `taken` bytes whose words are `rest`.
    fn take(&mut self, cx: &mut Context<'_>, taken: usize, rest: Vec<u8>) -> Poll<io::Result<usize>> {
        self.rest = rest;
        match self.poll_rest(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(taken)),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Worded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Worded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_rest(cx))?;
        match worded(bytes) {
            Some(words) => self.take(cx, bytes.len(), words),
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_rest(cx))?;
        // Such an answer is one part.
        let mut filled = parts.iter().filter(|part| !part.is_empty());
        let only = filled.next().filter(|_| filled.next().is_none());
        match only.and_then(|only| worded(only).map(|words| (only.len(), words))) {
            Some((length, words)) => self.take(cx, length, words),
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const EMPTY: &[u8] =
        b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";

    #[test]
    fn only_an_empty_answer_of_the_library_gets_a_sentence() {
        let text = String::from_utf8(worded(EMPTY).unwrap()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{text}");
        assert!(head.contains("connection: close") && head.contains("date: x") && body.contains("HTTP/1.1"));
        for other in [
            &b"HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\n\r\nno\n"[..],
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n",
            b"HTTP/1.1 4\xff\r\n\r\n",
            b"",
        ] {
            assert_eq!(worded(other), None);
        }
    }

    #[tokio::test]
    async fn a_peer_that_reads_a_byte_at_a_time_gets_all_of_it() {
        let (near, mut far) = tokio::io::duplex(1);
        let mut near = Worded::new(near);
        let write = tokio::spawn(async move {
            near.write_all(EMPTY).await.unwrap();
            near.write_all(b"after").await.unwrap();
            near.shutdown().await.unwrap();
        });
        let mut came = Vec::new();
        far.read_to_end(&mut came).await.unwrap();
        write.await.unwrap();
        assert_eq!(came, [&worded(EMPTY).unwrap()[..], b"after"].concat());
    }
}
