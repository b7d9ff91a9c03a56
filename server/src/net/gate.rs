//! What stands between a socket and the WebSocket that reads from it: frames are looked at before anything is kept for them. A
//! message needs room for its length, which is refused when its head has come, and has a time in which all of it must come,
//! whatever comes between its parts.

use crate::auth::budget::{Account, Held};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// The longest head of a frame: two bytes, a length of eight, a mask of four.
const HEAD: usize = 14;
/// The longest payload of a control frame, by RFC 6455.
const CONTROL: u64 = 125;
/// The most parts of one message: each costs work, however short it is.
pub(crate) const PARTS: u32 = 1024;

/// How long messages may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sizes {
    /// Bytes of a text.
    pub text: usize,
    /// Bytes of a binary message.
    pub binary: usize,
}

/// Why nothing more is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A text of at most `most` bytes was expected.
    Text { found: u64, most: usize },
    /// So was a binary message.
    Binary { found: u64, most: usize },
    /// A message has more parts than [`PARTS`].
    Parts,
    /// There is no room for it now.
    Full,
    /// A message did not come in time.
    Late,
}

/// A socket whose frames are looked at.
pub(crate) struct Gate<S> {
    inner: S,
    frames: Frames,
    time: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
    refusal: Option<Refusal>,
    /// Nothing is looked at any more: what still comes is thrown away.
    open: bool,
}

/// Where a stream of frames is, and what is held for it.
struct Frames {
    account: Account,
    sizes: Sizes,
    head: [u8; HEAD],
    /// Bytes of the head that have come.
    came: usize,
    /// Bytes of the payload that have not.
    rest: u64,
    /// Whether the payload belongs to a message that ends with it.
    last: bool,
    /// The kind of the message that is under way, and its bytes so far.
    message: Option<(Kind, u64)>,
    /// How many parts of it have begun.
    parts: u32,
    /// When the first byte came of what is under way.
    began: Option<Instant>,
    /// For the message that is under way.
    held: Held,
    /// For messages that are whole, until they are asked for the next.
    whole: Held,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Binary,
}

impl<S> Gate<S> {
    /// A gate for messages of these sizes, each of which comes within `time`.
    pub fn new(inner: S, account: Account, sizes: Sizes, time: Duration) -> Self {
        Gate { inner, frames: Frames::new(account, sizes), time, alarm: None, refusal: None, open: false }
    }

    /// From the next message on, other sizes, and another account.
    pub fn set(&mut self, account: Account, sizes: Sizes) {
        self.frames.sizes = sizes;
        self.frames.account = account;
    }

    /// From now on everything is let through: it is thrown away.
    pub fn open(&mut self) {
        self.open = true;
    }

    /// Why reading failed, if the gate was it.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }
}

impl Frames {
    fn new(account: Account, sizes: Sizes) -> Self {
        let (held, whole) = (account.nothing(), account.nothing());
        Frames {
            account,
            sizes,
            head: [0; HEAD],
            came: 0,
            rest: 0,
            last: false,
            message: None,
            parts: 0,
            began: None,
            held,
            whole,
        }
    }

    /// Looks at bytes that came, and gives how many of them may pass before what is refused.
    fn look(&mut self, bytes: &[u8]) -> Result<(), (usize, Refusal)> {
        let mut position = 0;
        while position < bytes.len() {
            if self.rest > 0 {
                let here = self.rest.min((bytes.len() - position) as u64);
                self.rest -= here;
                position += here as usize;
                if self.rest == 0 {
                    self.frame_ends();
                }
                continue;
            }
            if self.came == 0 && self.began.is_none() {
                self.began = Some(Instant::now());
            }
            self.head[self.came] = bytes[position];
            self.came += 1;
            if let Some(length) = self.length() {
                // The last byte of the head does not pass, so that the reader allocates nothing for the payload.
                self.begins(length).map_err(|refusal| (position, refusal))?;
            }
            position += 1;
        }
        Ok(())
    }

    /// The length of the payload, once the whole head has come.
    fn length(&self) -> Option<u64> {
        let head = &self.head[..self.came];
        let (short, mask) = (*head.get(1)? & 0x7f, if head[1] & 0x80 != 0 { 4 } else { 0 });
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let (end, length) = match short {
            126 => (4, number(head.get(2..4)?)),
            127 => (10, number(head.get(2..10)?)),
            short => (2, u64::from(short)),
        };
        (self.came == end + mask).then_some(length)
    }

    /// A frame with so many bytes of payload begins.
    fn begins(&mut self, length: u64) -> Result<(), Refusal> {
        let (last, opcode) = (self.head[0] & 0x80 != 0, self.head[0] & 0x0f);
        self.came = 0;
        let kind = match (opcode, self.message) {
            (1, _) => Some((Kind::Text, 0)),
            (2, _) => Some((Kind::Binary, 0)),
            (0, under_way) => under_way,
            _ => None,
        };
        let Some((kind, before)) = kind else {
            // A control frame. One that is too long, or of a kind that there is not, is the WebSocket's to refuse; nothing longer
            // than a message is kept for it.
            let kept = CONTROL < length && length <= self.sizes.binary.max(self.sizes.text) as u64;
            self.last = self.message.is_none();
            let room = !kept || self.held.grow(length as usize);
            return self.payload(length, room);
        };
        let whole = before.saturating_add(length);
        let most = match kind {
            Kind::Text => self.sizes.text,
            Kind::Binary => self.sizes.binary,
        };
        if whole > most as u64 {
            return Err(match kind {
                Kind::Text => Refusal::Text { found: whole, most },
                Kind::Binary => Refusal::Binary { found: whole, most },
            });
        }
        if opcode != 0 {
            (self.parts, self.held) = (0, self.account.nothing());
        }
        self.parts += 1;
        if self.parts > PARTS {
            return Err(Refusal::Parts);
        }
        // The parts of a message are joined, and stand beside each other then.
        let bytes = if last && self.parts == 1 { length } else { 2 * length };
        let room = self.held.grow(bytes as usize);
        self.message = Some((kind, whole));
        self.last = last;
        self.payload(length, room)
    }

    fn payload(&mut self, length: u64, room: bool) -> Result<(), Refusal> {
        if !room {
            return Err(Refusal::Full);
        }
        self.rest = length;
        if length == 0 {
            self.frame_ends();
        }
        Ok(())
    }

    fn frame_ends(&mut self) {
        if self.last {
            self.message = None;
            self.began = None;
            self.whole = std::mem::replace(&mut self.held, self.account.nothing());
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let gate = &mut *self;
        if gate.open {
            return Pin::new(&mut gate.inner).poll_read(cx, buf);
        }
        // The reader has taken the complete messages, because it asks for the next one.
        gate.frames.whole.clear();
        if gate.refusal.is_some() {
            gate.open = true;
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = buf.filled().len();
        if Pin::new(&mut gate.inner).poll_read(cx, buf)?.is_pending() {
            let Some(began) = gate.frames.began else { return Poll::Pending };
            let end = began + gate.time;
            let alarm = gate.alarm.get_or_insert_with(|| Box::pin(sleep_until(end)));
            if alarm.deadline() != end {
                alarm.as_mut().reset(end);
            }
            ready!(alarm.as_mut().poll(cx));
            (gate.refusal, gate.open) = (Some(Refusal::Late), true);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if let Err((pass, refusal)) = gate.frames.look(&buf.filled()[before..]) {
            gate.refusal = Some(refusal);
            buf.set_filled(before + pass);
            if pass == 0 {
                gate.open = true;
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
        }
        if gate.frames.began.is_some_and(|began| began.elapsed() > gate.time) {
            (gate.refusal, gate.open) = (Some(Refusal::Late), true);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::budget::{Payer, Pool};
    use proptest::prelude::*;
    use std::net::IpAddr;
    use tokio::io::AsyncReadExt;

    const SIZES: Sizes = Sizes { text: 100, binary: 400 };
    const OWN: usize = 64;

    /// A masked frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let length = match payload.len() {
            small @ 0..126 => vec![0x80 | small as u8],
            middle => [&[0x80 | 126], &(middle as u16).to_be_bytes()[..]].concat(),
        };
        [&[first], &length[..], &[1, 2, 3, 4], payload].concat()
    }

    /// What passes of bytes that come in pieces of these sizes, why the rest does not, and what is held at the end.
    fn passed(bytes: &[u8], pieces: &[usize], pool: usize) -> (Vec<u8>, Option<Refusal>, bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (share, pool) = (pool, Pool::new(4 * pool));
        let account = |own: usize| pool.account(Payer::at(IpAddr::from([10, 0, 0, 1])), own);
        runtime.block_on(async {
            let mut gate = Gate::new(bytes, account(OWN), SIZES, Duration::from_secs(60));
            let (mut out, mut sizes) = (Vec::new(), pieces.iter().cycle());
            loop {
                let mut piece = vec![0; *sizes.next().unwrap()];
                match gate.read(&mut piece).await {
                    Ok(0) | Err(_) => break,
                    Ok(read) => out.extend_from_slice(&piece[..read]),
                }
            }
            let refusal = gate.refusal();
            drop(gate);
            let free = account(0).take(share).is_some();
            (out, refusal, free)
        })
    }

    fn message() -> impl Strategy<Value = Vec<u8>> {
        let part = prop::collection::vec(any::<u8>(), 0..60);
        let parts = (1u8..3, prop::collection::vec(part, 1..4), any::<bool>());
        parts.prop_map(|(kind, parts, pings)| {
            let last = parts.len() - 1;
            let frames = parts.iter().enumerate().flat_map(|(i, part)| {
                let first = if i == 0 { kind } else { 0 } | if i == last { 0x80 } else { 0 };
                let ping = if pings { frame(0x89, b"hello") } else { Vec::new() };
                [frame(first, part), ping].concat()
            });
            frames.collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Messages that are short enough pass as they are, however they come, and nothing is held after them.
        #[test]
        fn what_may_pass_is_not_changed(messages in prop::collection::vec(message(), 1..6), pieces in prop::collection::vec(1usize..70, 1..8)) {
            let bytes = messages.concat();
            let (out, refusal, free) = passed(&bytes, &pieces, 4096);
            let texts = Frames::new(Pool::new(0).account(Payer::Machine("a".into()), usize::MAX), SIZES).look(&bytes);
            match texts {
                Ok(()) => prop_assert_eq!((out, refusal), (bytes, None)),
                // A text of three parts may be too long. All before its last head has passed.
                Err((pass, refused)) => prop_assert_eq!((out, refusal), (bytes[..pass].to_vec(), Some(refused))),
            }
            prop_assert!(free);
        }

        /// Whatever comes, it is read or refused, and what is held is given back.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), pieces in prop::collection::vec(1usize..70, 1..8)) {
            let (out, refusal, free) = passed(&bytes, &pieces, 4096);
            prop_assert!(bytes.starts_with(&out) && free);
            prop_assert!(refusal.is_some() || out == bytes);
        }
    }

    #[test]
    fn what_is_too_long_is_refused_by_its_head() {
        for (first, length, refusal) in [
            (0x81, 101, Refusal::Text { found: 101, most: 100 }),
            (0x01, 101, Refusal::Text { found: 101, most: 100 }),
            (0x82, 401, Refusal::Binary { found: 401, most: 400 }),
        ] {
            let bytes = frame(first, &vec![0; length]);
            let (out, found, free) = passed(&bytes, &[2048], 4096);
            assert_eq!(found, Some(refusal));
            assert!(out.len() < 8 && free, "all of the head but its last byte: {}", out.len());
        }
        let parts = [frame(0x02, &[0; 300]), frame(0x80, &[0; 101])].concat();
        assert_eq!(passed(&parts, &[7], 4096).1, Some(Refusal::Binary { found: 401, most: 400 }));
        // No room: a share has 200 bytes, and 64 are its own.
        assert_eq!(passed(&frame(0x82, &[0; 201]), &[2048], 200).1, Some(Refusal::Full));
        assert_eq!(passed(&frame(0x82, &[0; 200]), &[2048], 200).1, None);
        assert_eq!(passed(&frame(0x82, &[0; 64]), &[2048], 0).1, None);
        let many = [frame(0x02, b""), frame(0x00, b"").repeat(PARTS as usize)].concat();
        assert_eq!(passed(&many, &[2048], 4096).1, Some(Refusal::Parts));
    }
}
