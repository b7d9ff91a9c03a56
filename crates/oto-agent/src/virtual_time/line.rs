//! One direction of a connection in virtual time: messages keep their order, share a bandwidth, and arrive after a delay.
//!
//! The bandwidth is a token bucket of bytes: a message leaves when the bucket has a token for each of its bytes. Bytes of TCP, TLS and
//! WebSocket headers are not counted.

use std::collections::VecDeque;

/// Bytes that leave at once after a pause: about one packet.
const BURST: f64 = 1_500.0;

/// The settings of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct LineConfig {
    /// Microseconds from leaving to arriving.
    pub delay_us: u64,
    /// Bits a second; none: without a limit.
    pub bits_per_second: Option<f64>,
}

/// A message: a text or a binary frame.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Message {
    /// A control message.
    Text(String),
    /// A frame.
    Binary(Vec<u8>),
}

impl Message {
    fn bytes(&self) -> usize {
        match self {
            Message::Text(text) => text.len(),
            Message::Binary(frame) => frame.len(),
        }
    }
}

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Line {
    config: LineConfig,
    /// Tokens in the bucket at the time `at`; negative: bytes that wait for theirs.
    tokens: f64,
    at: u64,
    /// Messages and when they arrive, in microseconds.
    travelling: VecDeque<(u64, Message)>,
    bytes: u64,
}

impl Line {
    /// An empty line, its bucket full.
    pub fn new(config: LineConfig) -> Self {
        Self { config, tokens: BURST, at: 0, travelling: VecDeque::new(), bytes: 0 }
    }

    /// Sends a message at this time, in microseconds; times never decrease.
    pub fn send(&mut self, now: u64, message: Message) {
        let bytes = message.bytes();
        self.bytes += bytes as u64;
        let leaves = match self.config.bits_per_second {
            None => now,
            Some(bits) => {
                let each = bits / 8.0 / 1e6;
                let passed = (now - self.at) as f64;
                self.tokens = (self.tokens + passed * each).min(BURST) - bytes as f64;
                self.at = now;
                now + ((-self.tokens).max(0.0) / each).ceil() as u64
            }
        };
        self.travelling.push_back((leaves + self.config.delay_us, message));
    }

    /// The next message that has arrived by now.
    pub fn receive(&mut self, now: u64) -> Option<Message> {
        self.travelling.pop_front_if(|(arrives, _)| *arrives <= now).map(|(_, message)| message)
    }

    /// A new connection: what travels is lost, and the bucket is full.
    pub fn cut(&mut self, now: u64) {
        self.travelling.clear();
        (self.tokens, self.at) = (BURST, now);
    }

    /// Bytes sent so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: usize) -> Message {
        Message::Binary(vec![0; bytes])
    }

    /// Bytes that arrived by each millisecond.
    fn arrivals(line: &mut Line, milliseconds: u64) -> Vec<u64> {
        let at =
            |line: &mut Line, now| std::iter::from_fn(|| line.receive(now)).map(|m| m.bytes() as u64).sum();
        (0..milliseconds).map(|now| at(line, now * 1_000)).collect()
    }

    #[test]
    fn without_a_limit_messages_arrive_after_the_delay() {
        let mut line = Line::new(LineConfig { delay_us: 3_000, bits_per_second: None });
        line.send(0, frame(100_000));
        line.send(500, Message::Text("text".into()));
        assert_eq!(line.receive(2_999), None);
        assert_eq!(line.receive(3_000), Some(frame(100_000)));
        assert_eq!(line.receive(3_000), None);
        assert_eq!(line.receive(3_500), Some(Message::Text("text".into())));
        assert_eq!(line.bytes(), 100_004);
    }

    /// 0.06 Mbit/s: a push of 176 kB takes 23.5 s, 704 steps of 1/30 s.
    #[test]
    fn a_push_of_the_papers_actor_takes_as_long_as_the_paper_says() {
        let mut line = Line::new(LineConfig { delay_us: 0, bits_per_second: Some(0.06e6) });
        line.send(0, frame(4 * 44_033));
        let arrives = (0..40_000_000u64).step_by(1_000).find(|now| line.receive(*now).is_some()).unwrap();
        let steps = arrives as f64 / 1e6 * 30.0;
        assert!((680.0..710.0).contains(&steps), "{steps}");
    }

    #[test]
    fn messages_share_the_bandwidth_and_keep_their_order() {
        // 8 Mbit/s: 1,000 bytes a millisecond.
        let mut line = Line::new(LineConfig { delay_us: 2_000, bits_per_second: Some(8e6) });
        (0..4).for_each(|_| line.send(0, frame(1_500)));
        // The bucket is full: the first leaves at once, the next ones 1.5 ms apart.
        assert_eq!(arrivals(&mut line, 8), [0, 0, 1_500, 0, 1_500, 1_500, 0, 1_500]);
        // After a pause the bucket holds no more than a burst.
        line.send(1_000_000, frame(3_000));
        assert_eq!(line.receive(1_003_499), None);
        assert_eq!(line.receive(1_003_500), Some(frame(3_000)));
    }
}
