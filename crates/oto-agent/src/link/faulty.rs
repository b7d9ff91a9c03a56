//! Lines for tests that delay, cut off, garble and repeat messages, on a virtual clock.

use super::{Conversation, Event};
use oto_env::rng::Rng;
use std::collections::VecDeque;

/// Something on its way.
pub(crate) enum Packet {
    Text(String),
    Binary(Vec<u8>),
    Opened,
    Broken(Option<u16>),
}

/// Packets in their order, each with the time at which it comes.
pub(crate) type Line = VecDeque<(u64, Packet)>;

/// The faults of all lines.
pub(crate) struct Faults {
    pub rng: Rng,
    /// The chance of each fault, in a thousand.
    pub chance: u32,
}

impl Faults {
    pub fn new(seed: u64, chance: u32) -> Self {
        Self { rng: Rng::new(seed), chance }
    }

    fn happens(&mut self) -> bool {
        self.rng.below(1000) < self.chance
    }

    /// Whether a line breaks now.
    pub fn breaks(&mut self) -> bool {
        self.rng.below(20_000) < self.chance
    }

    /// Sends a packet, and decides when it comes and in what form.
    pub fn send(&mut self, line: &mut Line, now: u64, packet: Packet) {
        let last = line.back().map_or(now, |(due, _)| *due);
        let due = last.max(now + 1 + u64::from(self.rng.below(20)));
        let packet = match packet {
            Packet::Binary(mut bytes) if self.happens() => {
                let at = self.rng.below(bytes.len().max(1) as u32) as usize;
                match self.rng.below(2) {
                    0 => bytes.truncate(at),
                    _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 0x81),
                }
                Packet::Binary(bytes)
            }
            Packet::Text(text) if self.happens() => {
                let at = self.rng.below(text.len().max(1) as u32) as usize;
                Packet::Text(text.chars().take(at).collect())
            }
            whole => whole,
        };
        if let Packet::Binary(bytes) = &packet
            && self.happens()
        {
            line.push_back((due, Packet::Binary(bytes.clone())));
        }
        line.push_back((due, packet));
    }
}

/// The next packet that has come.
pub(crate) fn due(line: &mut Line, now: u64) -> Option<Packet> {
    line.pop_front_if(|(due, _)| *due <= now).map(|(_, packet)| packet)
}

/// Gives a link all packets that have come.
pub(crate) fn deliver(line: &mut Line, link: &mut impl Conversation, now: u64) {
    while let Some(packet) = due(line, now) {
        match packet {
            Packet::Text(text) => link.handle(Event::Text(&text), now),
            Packet::Binary(frame) => link.handle(Event::Binary(&frame), now),
            Packet::Opened => link.handle(Event::Connected, now),
            Packet::Broken(code) => link.handle(Event::Closed { code, reason: "" }, now),
        }
    }
}
