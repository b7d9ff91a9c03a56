//! What stands between a socket and the WebSocket that reads from it: frames are looked at before anything is kept for them. A
//! message needs room for its length, which is refused when its head has come, and has a time in which all of it must come,
//! whatever comes between its parts.

use crate::budget::{Account, Held};
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
                // The last byte of the head does not pass, so that whoever reads it keeps no room for the rest.
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
        // What was whole was given away, and whoever had it asks for the next.
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
