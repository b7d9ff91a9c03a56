//! A line with a delay and a bandwidth between a link and its socket: for demonstrations and tests, without input or output.
//!
//! A message leaves when those before it have left, takes its bytes' time at the bandwidth, and arrives after the delay. Order is kept, also
//! for a server's close. A lost connection loses what is on its way.

use super::{Conversation, Event, Output};
use std::collections::VecDeque;

/// What a line does to messages, in both directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LineConfig {
    /// Milliseconds from the departure of a message's last byte to its arrival.
    pub delay_ms: f64,
    /// Bytes a second; infinity: no limit.
    pub bytes_per_second: f64,
}

impl Default for LineConfig {
    fn default() -> Self {
        LineConfig { delay_ms: 0.0, bytes_per_second: f64::INFINITY }
    }
}

/// The largest delay, in milliseconds, and the least bandwidth, in bytes a second.
const LONGEST_DELAY: f64 = 60_000.0;
const LEAST_BANDWIDTH: f64 = 100.0;

/// A setting of a line that cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LineError {
    /// The delay.
    #[error("expected a delay of 0 to 60000 milliseconds, got {0}")]
    Delay(f64),
    /// The bandwidth.
    #[error("expected at least 100 bytes a second, got {0}")]
    Bandwidth(f64),
}

enum Message {
    Text(String),
    Binary(Vec<u8>),
    Closed(u16, String),
}

/// Close code of a connection that was lost (RFC 6455).
const ABNORMAL: u16 = 1006;

impl Message {
    fn bytes(&self) -> usize {
        match self {
            Message::Text(text) => text.len(),
            Message::Binary(bytes) => bytes.len(),
            Message::Closed(_, reason) => reason.len(),
        }
    }
}

/// One direction.
#[derive(Default)]
struct Direction {
    /// Messages on their way, with the moments of their arrival.
    messages: VecDeque<(f64, Message)>,
    /// When the last byte has left.
    free: f64,
}

impl Direction {
    fn push(&mut self, message: Message, config: LineConfig, now: f64) {
        self.free = self.free.max(now) + 1_000.0 * message.bytes() as f64 / config.bytes_per_second;
        // Order is kept where the delay has become less.
        let last = self.messages.back().map_or(0.0, |(at, _)| *at);
        self.messages.push_back(((self.free + config.delay_ms).max(last), message));
    }

    fn pop(&mut self, now: f64) -> Option<Message> {
        self.messages.pop_front_if(|(at, _)| *at <= now).map(|(_, message)| message)
    }
}

/// A line, in both directions.
#[derive(Default)]
pub struct Line {
    config: LineConfig,
    up: Direction,
    down: Direction,
    /// The time of the last event.
    now: u64,
}

impl Line {
    /// Changes the line, from the next message on.
    ///
    /// # Errors
    /// A delay or a bandwidth out of its range. Nothing has changed then.
    pub fn set(&mut self, config: LineConfig) -> Result<(), LineError> {
        if !(0.0..=LONGEST_DELAY).contains(&config.delay_ms) {
            return Err(LineError::Delay(config.delay_ms));
        }
        if config.bytes_per_second.is_nan() || config.bytes_per_second < LEAST_BANDWIDTH {
            return Err(LineError::Bandwidth(config.bytes_per_second));
        }
        self.config = config;
        Ok(())
    }

    /// A link as the driver of its socket sees it behind this line.
    pub fn of<'a, L: Conversation>(&'a mut self, link: &'a mut L) -> Lined<'a, L> {
        Lined { line: self, link }
    }

    fn clear(&mut self) {
        (self.up, self.down) = (Direction::default(), Direction::default());
    }
}

/// A link behind a line.
pub struct Lined<'a, L> {
    line: &'a mut Line,
    link: &'a mut L,
}

impl<L: Conversation> Conversation for Lined<'_, L> {
    fn handle(&mut self, event: Event<'_>, now_ms: u64) {
        let now = now_ms as f64;
        self.line.now = now_ms;
        let config = self.line.config;
        match event {
            Event::Text(text) => self.line.down.push(Message::Text(text.into()), config, now),
            Event::Binary(bytes) => self.line.down.push(Message::Binary(bytes.into()), config, now),
            Event::Closed { code: Some(code), reason } if code != ABNORMAL => {
                self.line.down.push(Message::Closed(code, reason.into()), config, now);
            }
            Event::Connected | Event::Tick => {}
            Event::Closed { .. } => self.line.clear(),
        }
        let waits = matches!(event, Event::Text(_) | Event::Binary(_))
            || matches!(event, Event::Closed { code: Some(code), .. } if code != ABNORMAL);
        while let Some(message) = self.line.down.pop(now) {
            match &message {
                Message::Text(text) => self.link.handle(Event::Text(text), now_ms),
                Message::Binary(bytes) => self.link.handle(Event::Binary(bytes), now_ms),
                Message::Closed(code, reason) => {
                    self.link.handle(Event::Closed { code: Some(*code), reason }, now_ms);
                }
            }
        }
        if !waits {
            self.link.handle(event, now_ms);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        let (config, now) = (self.line.config, self.line.now as f64);
        while let Some(output) = self.link.poll_output() {
            match output {
                Output::Text(text) => self.line.up.push(Message::Text(text), config, now),
                Output::Binary(bytes) => self.line.up.push(Message::Binary(bytes), config, now),
                Output::Connect | Output::Close(_) => {
                    self.line.clear();
                    return Some(output);
                }
            }
        }
        match self.line.up.pop(now)? {
            Message::Text(text) => Some(Output::Text(text)),
            Message::Binary(bytes) => Some(Output::Binary(bytes)),
            // Only a server's close takes its time.
            Message::Closed(..) => None,
        }
    }

    fn wake_at(&self) -> Option<u64> {
        let next = |direction: &Direction| direction.messages.front().map(|(at, _)| at.ceil() as u64);
        [self.link.wake_at(), next(&self.line.up), next(&self.line.down)].into_iter().flatten().min()
    }

    fn max_message_bytes(&self) -> usize {
        self.link.max_message_bytes()
    }

    fn set_ticket(&mut self, ticket: String) {
        self.link.set_ticket(ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each text with its length, and counts.
    #[derive(Default)]
    struct Echo(VecDeque<Output>, Vec<u64>);

    impl Conversation for Echo {
        fn handle(&mut self, event: Event<'_>, now_ms: u64) {
            if let Event::Text(text) = event {
                self.1.push(now_ms);
                self.0.push_back(Output::Binary(vec![0; text.len()]));
            }
        }
        fn poll_output(&mut self) -> Option<Output> {
            self.0.pop_front()
        }
        fn wake_at(&self) -> Option<u64> {
            None
        }
        fn max_message_bytes(&self) -> usize {
            1
        }
        fn set_ticket(&mut self, _: String) {}
    }

    /// Two messages of 100 bytes at 1,000 bytes a second and 50 ms: each takes 100 ms to leave, in order, and the answers as long again.
    #[test]
    fn messages_take_their_time_in_order() {
        let (mut line, mut echo) = (Line::default(), Echo::default());
        line.set(LineConfig { delay_ms: 50.0, bytes_per_second: 1_000.0 }).unwrap();
        let text = "x".repeat(100);
        line.of(&mut echo).handle(Event::Text(&text), 0);
        line.of(&mut echo).handle(Event::Text(&text), 0);
        let mut left = Vec::new();
        for now in 0..700 {
            let mut lined = line.of(&mut echo);
            lined.handle(Event::Tick, now);
            while let Some(Output::Binary(bytes)) = lined.poll_output() {
                left.push((now, bytes.len()));
            }
        }
        assert_eq!(echo.1, [150, 250]);
        assert_eq!(left, [(300, 100), (400, 100)]);
    }

    #[test]
    fn a_lost_connection_loses_what_is_on_its_way() {
        let (mut line, mut echo) = (Line::default(), Echo::default());
        line.set(LineConfig { delay_ms: 50.0, ..LineConfig::default() }).unwrap();
        let mut lined = line.of(&mut echo);
        lined.handle(Event::Text("abc"), 0);
        assert_eq!(lined.wake_at(), Some(50));
        lined.handle(Event::Closed { code: None, reason: "" }, 10);
        assert_eq!(lined.wake_at(), None);
        lined.handle(Event::Tick, 100);
        assert!(echo.1.is_empty());
        for bad in [f64::NAN, -1.0, 1e9] {
            assert!(line.set(LineConfig { delay_ms: bad, ..LineConfig::default() }).is_err());
        }
        for bad in [f64::NAN, 0.0, -5.0] {
            assert!(line.set(LineConfig { delay_ms: 0.0, bytes_per_second: bad }).is_err());
        }
    }
}
