//! Two workers and a shared agent over lines that break, delay, cut off, garble and repeat messages, on a virtual clock.

use super::tests::{POLICY, hub, worker};
use super::{Hub, Session};
use crate::link::faulty::{Faults, Line, Packet, deliver, due};
use crate::link::{Conversation, Event, LinkState, Output};
use crate::student::Student;
use crate::worker::link::WorkerLink;
use crate::worker::{Rollouts, link_of};
use oto_proto::{
    ClientMessage, Dtype, ErrorCode, ErrorMessage, Grant, Header, ServerMessage, Space, TeacherInfo, Welcome,
};

/// A worker, its line, and the server's side of it.
struct Peer {
    student: Student,
    link: WorkerLink,
    session: Option<Session>,
    rollouts: Rollouts,
    up: Line,
    down: Line,
}

struct Storm {
    hub: Hub,
    faults: Faults,
    applied: u64,
}

impl Storm {
    fn step(&mut self, peer: &mut Peer, now: u64) {
        if self.faults.breaks() && !matches!(peer.link.state(), LinkState::Waiting | LinkState::Failed) {
            self.hang_up(peer);
            peer.down.clear();
            peer.down.push_back((now, Packet::Broken(None)));
        }
        while let Some(packet) = due(&mut peer.up, now) {
            self.serve(peer, packet, now);
        }
        deliver(&mut peer.down, &mut peer.link, now);
        peer.link.handle(Event::Tick, now);
        if peer.link.state() == LinkState::Failed {
            // Its operator starts it again.
            peer.link.connect(now);
        }
        rollout(peer, now);
        while let Some(output) = peer.link.poll_output() {
            match output {
                Output::Connect => {
                    self.hang_up(peer);
                    peer.down.clear();
                    peer.down.push_back((now + 3, Packet::Opened));
                }
                Output::Close(_) => self.hang_up(peer),
                Output::Text(text) => self.faults.send(&mut peer.up, now, Packet::Text(text)),
                Output::Binary(frame) => self.faults.send(&mut peer.up, now, Packet::Binary(frame)),
            }
        }
    }

    /// The server's side of a connection ends.
    fn hang_up(&mut self, peer: &mut Peer) {
        peer.up.clear();
        if let Some(session) = peer.session.take() {
            self.hub.leave(&session);
        }
    }

    fn serve(&mut self, peer: &mut Peer, packet: Packet, now: u64) {
        match (packet, peer.session.clone()) {
            (Packet::Text(text), None) => self.greet(peer, &text, now),
            (Packet::Binary(frame), Some(session)) => {
                match self.hub.take(&session, POLICY, &frame, 1.0, now) {
                    Ok(_) => self.applied += 1,
                    Err(refusal) if refusal.ends() => return self.refuse(peer, refusal.error(), now),
                    Err(refusal) => {
                        let error = refusal.error().about(Header::request_of(&frame));
                        let text = ServerMessage::Error(error).encode();
                        self.faults.send(&mut peer.down, now, Packet::Text(text));
                    }
                }
                self.push(peer, &session, now);
            }
            _ => self.refuse(peer, ErrorMessage::new(ErrorCode::BadMessage, "at the wrong moment"), now),
        }
    }

    fn greet(&mut self, peer: &mut Peer, text: &str, now: u64) {
        let joined = match ClientMessage::decode(text) {
            Ok(ClientMessage::Hello(hello)) => {
                hello.worker.as_ref().map(|worker| self.hub.join(worker).map_err(|refusal| refusal.error()))
            }
            _ => None,
        };
        let none = || Err(ErrorMessage::new(ErrorCode::Timeout, "no hello"));
        match joined.unwrap_or_else(none) {
            Err(error) => self.refuse(peer, error, now),
            Ok((session, shared)) => {
                let version = self.hub.version();
                let text = ServerMessage::Welcome(Box::new(welcome(version, shared))).encode();
                self.faults.send(&mut peer.down, now, Packet::Text(text));
                peer.session = Some(session.clone());
                self.push(peer, &session, now);
            }
        }
    }

    fn push(&mut self, peer: &mut Peer, session: &Session, now: u64) {
        let mut frame = Vec::new();
        self.hub.weights(session, POLICY, &mut frame).unwrap();
        self.faults.send(&mut peer.down, now, Packet::Binary(frame));
    }

    fn refuse(&mut self, peer: &mut Peer, error: ErrorMessage, now: u64) {
        self.hang_up(peer);
        peer.down.push_back((now + 1, Packet::Broken(Some(error.code.close_code()))));
    }
}

/// Plays a rollout if parameters came, and sends its gradients.
fn rollout(peer: &mut Peer, now: u64) {
    let Peer { student, link, rollouts, .. } = peer;
    if !rollouts.ready(student, link).unwrap() {
        return;
    }
    while !rollouts.send(student, link, now).unwrap() {
        student.tick(0).unwrap();
    }
}

fn welcome(version: u32, shared: oto_proto::SharedInfo) -> Welcome {
    let observation = Space::Box { low: vec![-1.0; 4], high: vec![1.0; 4] };
    let action = Space::Discrete { n: 2 };
    Welcome {
        policy: "pole".into(),
        policy_id: POLICY,
        version,
        max_rows: 1,
        credits: 1,
        dtype: Dtype::F32,
        action_dtype: Dtype::U8,
        action_width: 1,
        grants: vec![Grant::Gradients],
        submit_rows: None,
        order: None,
        teacher: TeacherInfo { observation, action, description: String::new() },
        learner: None,
        shared: Some(shared),
        group: None,
    }
}

#[test]
fn every_applied_gradient_is_a_version_and_every_worker_comes_back() {
    for seed in 0..10 {
        let mut storm = Storm { hub: hub(1 << 30), faults: Faults::new(seed, 30), applied: 0 };
        let mut peers = [1, 2].map(|i| {
            let mut student = worker(10 * seed + i);
            let link = link_of(&mut student, "pole", &format!("w{i}")).unwrap();
            Peer {
                student,
                link,
                session: None,
                rollouts: Rollouts::default(),
                up: Line::new(),
                down: Line::new(),
            }
        });
        peers.iter_mut().for_each(|peer| peer.link.connect(0));
        for now in 0..4_000 {
            peers.iter_mut().for_each(|peer| storm.step(peer, now));
        }
        assert_eq!(u64::from(storm.hub.version()), storm.applied + 1, "seed {seed}");
        assert!(storm.applied > 10, "seed {seed}: {} gradients in the storm", storm.applied);
        storm.faults.chance = 0;
        let applied = |storm: &Storm| storm.hub.counts().map(|(_, counts)| counts.applied).min().unwrap_or(0);
        let before = storm.hub.counts().map(|(_, counts)| counts.applied).max().unwrap_or(0);
        // The longest wait for an answer that was lost is two minutes.
        let mut now = 4_000;
        while applied(&storm) < before + 20 || storm.hub.counts().count() < 2 {
            peers.iter_mut().for_each(|peer| storm.step(peer, now));
            now += 5;
            assert!(now < 200_000, "seed {seed}: a worker does not come back");
        }
        assert_eq!(u64::from(storm.hub.version()), storm.applied + 1, "seed {seed}");
    }
}
