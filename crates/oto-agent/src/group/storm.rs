//! Three members and their group over lines that break, delay, cut off, garble and repeat messages, with a member that vanishes and one that
//! answers nothing, on a virtual clock.

use super::tests::{hello, welcome};
use super::*;
use crate::link::faulty::{Faults, Line, Packet, deliver, due};
use crate::link::{Conversation, Event, LinkState, Output};
use crate::peer::link::PeerLink;
use oto_proto::{ClientMessage, Hello};

/// A member, its line, and the server's side of it.
struct Peer {
    hello: Hello,
    actions: usize,
    link: PeerLink,
    session: Option<u32>,
    /// It takes questions and answers none.
    silent: bool,
    up: Line,
    down: Line,
}

struct Storm {
    group: Group,
    faults: Faults,
}

impl Storm {
    fn hang_up(&mut self, peer: &mut Peer) {
        peer.up.clear();
        if let Some(session) = peer.session.take() {
            self.group.leave(session);
        }
    }

    fn serve(&mut self, peer: &mut Peer, packet: Packet, now: u64) {
        let refusal = match packet {
            Packet::Text(text) => match ClientMessage::decode(&text) {
                Ok(ClientMessage::Hello(hello)) if peer.session.is_none() => {
                    let member = hello.member.clone().unwrap();
                    let states = hello.formats().unwrap().states;
                    let joined = self.group.join(&member, states, &hello.action, now);
                    let (info, _) = joined.expect("a member of the group");
                    peer.session = Some(info.session);
                    let text = ServerMessage::Welcome(Box::new(welcome(&hello, info))).encode();
                    self.faults.send(&mut peer.down, now, Packet::Text(text));
                    return;
                }
                _ => return self.close(peer, now),
            },
            Packet::Binary(frame) => {
                let Some(session) = peer.session else { return self.close(peer, now) };
                let taken = match frame.first() {
                    Some(7) => self.group.answer(session, &frame),
                    _ => self.group.ask(session, &frame, now),
                };
                let Err(refusal) = taken else { return };
                let about = oto_proto::Header::request_of(&frame);
                ServerMessage::Error(refusal.error().about(about))
            }
            _ => return,
        };
        self.faults.send(&mut peer.down, now, Packet::Text(refusal.encode()));
    }

    fn close(&mut self, peer: &mut Peer, now: u64) {
        self.hang_up(peer);
        peer.down.clear();
        peer.down.push_back((now, Packet::Broken(Some(4000))));
    }

    fn step(&mut self, peer: &mut Peer, now: u64) {
        if self.faults.breaks() && peer.link.state() == LinkState::Ready {
            self.hang_up(peer);
            peer.down.clear();
            peer.down.push_back((now, Packet::Broken(None)));
        }
        while let Some(packet) = due(&mut peer.up, now) {
            self.serve(peer, packet, now);
        }
        if let Some(session) = peer.session {
            if !self.group.has(session) {
                self.close(peer, now);
            }
            while let Some(said) = peer.session.and_then(|session| self.group.next(session)) {
                let packet = match said {
                    Said::Message(message) => Packet::Text(message.encode()),
                    Said::Frame(frame) => Packet::Binary(frame),
                };
                self.faults.send(&mut peer.down, now, packet);
            }
        }
        deliver(&mut peer.down, &mut peer.link, now);
        peer.link.handle(Event::Tick, now);
        if peer.link.state() == LinkState::Failed {
            // Its operator starts it again.
            peer.link.connect(now);
        }
        while let Some(question) = peer.link.take_question() {
            let rows = question.states.len() / 2;
            if !peer.silent {
                peer.link.reply(&question, &vec![0.25; rows * peer.actions], 1);
            }
        }
        while let Some(answer) = peer.link.take_answer() {
            assert!(answer.logits.is_none_or(|logits| logits.iter().all(|z| z.is_finite())));
        }
        let teachers = peer.link.teachers().iter().map(|teacher| teacher.session).collect::<Vec<_>>();
        for teacher in teachers {
            if self.faults.rng.below(10) == 0 {
                let _ = peer.link.ask(teacher, &[0.5; 6], now);
            }
        }
        while let Some(output) = peer.link.poll_output() {
            match output {
                Output::Connect => {
                    self.hang_up(peer);
                    peer.down.clear();
                    peer.down.push_back((now + 5, Packet::Opened));
                }
                Output::Close(_) => {
                    self.hang_up(peer);
                    peer.down.clear();
                }
                Output::Text(text) => self.faults.send(&mut peer.up, now, Packet::Text(text)),
                Output::Binary(frame) => self.faults.send(&mut peer.up, now, Packet::Binary(frame)),
            }
        }
    }
}

fn run(seed: u64) -> [u64; 3] {
    let group = Group::new(GroupConfig { states_per_second: 1e5, ..GroupConfig::default() }).unwrap();
    let mut storm = Storm { group, faults: Faults::new(seed, 5) };
    let mut peers = [("a", 2), ("b", 3), ("mute", 5)].map(|(name, actions)| {
        let hello = hello(name, 2, actions, 0);
        let mut link = PeerLink::new(hello.clone(), seed).unwrap();
        link.connect(0);
        let (up, down) = (VecDeque::new(), VecDeque::new());
        Peer { hello, actions: actions as usize, link, session: None, silent: name == "mute", up, down }
    });
    for now in 0..30_000 {
        // The last 15 seconds are peaceful.
        storm.faults.chance = if now < 15_000 { 5 } else { 0 };
        if now == 5_000 {
            // It vanishes, and comes back under its name while its older session is still there.
            let older = peers[1].session.take();
            peers[1].link = PeerLink::new(peers[1].hello.clone(), seed + 1).unwrap();
            peers[1].link.connect(now);
            peers[1].up.clear();
            peers[1].down.clear();
            storm.step(&mut peers[1], now);
            assert!(older.is_none_or(|older| storm.group.has(older)));
        }
        for peer in &mut peers {
            storm.step(peer, now);
        }
        let Group { members, questions, .. } = &storm.group;
        assert!(members.len() <= 4 && questions.len() <= 4 * usize::from(CREDITS));
        assert!(members.values().all(|member| member.bytes <= QUEUE_BYTES));
    }
    // After the storm all are there, and ask and answer.
    assert_eq!(storm.group.len(), 3);
    assert!(
        peers.iter().all(|peer| peer.link.state() == LinkState::Ready && peer.link.teachers().len() == 2)
    );
    let held: usize = storm.group.members.values().map(|member| member.asked.len()).sum();
    assert_eq!(storm.group.questions.len(), held);
    peers.map(|peer| peer.link.stats().answered)
}

#[test]
fn members_survive_a_storm() {
    for seed in 0..10 {
        let answered = run(seed);
        assert!(answered[..2].iter().all(|answered| *answered > 100), "seed {seed}: {answered:?}");
    }
}
