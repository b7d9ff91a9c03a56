//! The link on a simulated network, over hundreds of seeds: delays, lost connections, an absent and a restarting
//! server, garbage and lies. It never panics, never takes a wrong label, never grows, and always comes back.

use super::memory::{Fault, Memory, MemoryTeacher};
use super::*;
use oto_proto::{Adapter, Grant, ObservationMap};
use std::collections::{HashSet, VecDeque};

const SEEDS: u64 = 300;
const CHAOS_STEPS: u64 = 2_000;
const STEP_MS: u64 = 5;

const FAULTS: [Fault; 13] = [
    Fault::Mute,
    Fault::Garbage,
    Fault::WrongCount,
    Fault::WrongRequest,
    Fault::WrongPolicy,
    Fault::Stale,
    Fault::BadAction,
    Fault::Twice,
    Fault::Overloaded,
    Fault::Refused,
    Fault::BadText,
    Fault::Cut,
    Fault::Restart,
];

/// The student sees the slot in its second number, the teacher wants it first and doubled.
fn state(slot: u64) -> [f32; 2] {
    [-1.0, slot as f32]
}

fn right_index(slot: u64) -> u32 {
    (slot * 7 % 5) as u32
}

fn right_vector(slot: u64) -> [f32; 2] {
    [slot as f32 / 1e5, 1.0 - slot as f32 / 1e5]
}

struct World {
    rng: Rng,
    link: Link,
    memory: Memory,
    discrete: bool,
    lockstep: bool,
    now: u64,
    next: u64,
    tickets: VecDeque<Ticket>,
    labelled: HashSet<u64>,
    max_pending: usize,
    max_requests: usize,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let (discrete, lockstep) = (rng.below(2) == 0, rng.below(2) == 0);
        let (max_pending, max_requests) = (1 + rng.below(40) as usize, 2 + rng.below(10) as usize);
        let wide =
            |width| Space::Box { low: vec![f32::NEG_INFINITY; width], high: vec![f32::INFINITY; width] };
        let action = match discrete {
            true => Space::Discrete { n: 5 },
            false => Space::Box { low: vec![0.0; 2], high: vec![1.0; 2] },
        };
        let map = ObservationMap { permutation: Some(vec![1]), scale: Some(vec![2.0]), offset: None };
        let hello = Hello {
            protocol: oto_proto::PROTOCOL.into(),
            policy: "simulated".into(),
            student: "simulation".into(),
            observation: wide(2),
            action: action.clone(),
            adapter: Some(Adapter { observation: Some(map), action: None }),
            dtype: Dtype::F32,
            action_dtype: None,
            quantization: None,
            grants: vec![Grant::Actions],
            stage: None,
            order: None,
            ticket: None,
            actor: None,
            worker: None,
            member: None,
        };
        let config = LinkConfig {
            seed,
            batch: 1 + rng.below(8) as u16,
            delay_ms: (!lockstep).then(|| u64::from(rng.below(60))),
            max_pending,
            max_requests,
            connect_timeout_ms: 150,
            request_timeout_ms: 200,
            backoff_min_ms: 20,
            backoff_max_ms: 500,
            ..LinkConfig::new(hello)
        };
        let act = move |observations: &[f32], _: usize, actions: &mut Vec<f32>| {
            for observation in observations {
                let slot = (observation / 2.0) as u64;
                match discrete {
                    true => actions.push(right_index(slot) as f32),
                    false => actions.extend(right_vector(slot)),
                }
            }
            Ok(())
        };
        let mut teacher = MemoryTeacher::new("simulated", wide(1), action, Box::new(act));
        teacher.max_rows = 1 + rng.below(8) as u16;
        teacher.credits = 1 + rng.below(6) as u16;
        let mut memory = Memory::new(teacher);
        let faults = FAULTS.map(|fault| (fault, rng.f64().powi(4) * 0.3));
        memory.disturb(seed, (u64::from(rng.below(10)), 10 + u64::from(rng.below(60))), faults.to_vec());
        let mut link = Link::new(config).expect("a link");
        link.connect(0);
        World {
            rng,
            link,
            memory,
            discrete,
            lockstep,
            now: 0,
            next: 0,
            tickets: VecDeque::new(),
            labelled: HashSet::new(),
            max_pending,
            max_requests,
        }
    }

    /// Time passes and the student meets another state.
    fn step(&mut self) {
        self.now += STEP_MS;
        self.link.offer(self.next, &state(self.next), self.now).expect("a valid state");
        self.next += 1;
        if self.lockstep && self.next.is_multiple_of(4) {
            self.tickets.extend(self.link.request_now(self.now));
        }
        self.memory.poll(&mut self.link, self.now);
        self.take_labels();
        let status = self.link.status(self.now);
        assert!(status.pending <= self.max_pending && status.waiting <= self.max_requests);
        assert_ne!(status.state, LinkState::Failed, "{:?}", self.link.failure());
    }

    fn take_labels(&mut self) {
        let World { link, labelled, discrete, next, memory, tickets, .. } = self;
        let newest = memory.version();
        let mut check = |slot: u64, action: Action<'_>, version: u32| {
            match action {
                Action::Discrete(index) => assert!(*discrete && index == right_index(slot), "slot {slot}"),
                Action::Continuous(vector) => {
                    assert!(!*discrete && vector == right_vector(slot), "slot {slot}")
                }
            }
            assert!(version >= 1 && version <= newest, "version {version}");
            assert!(
                slot < *next && labelled.insert(slot),
                "slot {slot} was labelled before or never offered"
            );
        };
        if !self.lockstep {
            return link.drain_labels(check);
        }
        while let Some(ticket) = tickets.front() {
            if link.take_labels(*ticket, &mut check) == Taken::Waiting {
                return;
            }
            tickets.pop_front();
        }
    }

    fn chaos(&mut self) {
        for _ in 0..CHAOS_STEPS {
            match self.rng.below(400) {
                0 => self.memory.set_present(false, self.now),
                1..6 => self.memory.set_present(true, self.now),
                6 => self.link.disconnect(),
                7 => self.memory.publish(self.now),
                8..12 => self.link.connect(self.now),
                _ => {}
            }
            self.step();
        }
    }

    /// The network is mended: within the longest wait the link is back, and what is offered then gets its label.
    fn peace(&mut self) {
        self.memory.disturb(1, (0, 3), Vec::new());
        self.memory.set_present(true, self.now);
        self.link.connect(self.now);
        (0..400).for_each(|_| self.step());
        assert_eq!(self.link.state(), LinkState::Ready, "{:?}", self.link.status(self.now));
        let before = self.labelled.len();
        (0..400).for_each(|_| self.step());
        assert!(self.labelled.len() > before + 20, "{:?}", self.link.status(self.now));
    }
}

#[test]
fn chaos_never_breaks_the_link_and_peace_always_mends_it() {
    let mut total = LinkStats::default();
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        world.chaos();
        world.peace();
        let (stats, sum) = (world.link.stats(), &mut total.rejected);
        sum.control += stats.rejected.control;
        sum.frame += stats.rejected.frame;
        sum.unknown_request += stats.rejected.unknown_request;
        sum.policy += stats.rejected.policy;
        sum.count += stats.rejected.count;
        sum.stale += stats.rejected.stale;
        sum.action += stats.rejected.action;
        total.reconnects += stats.reconnects;
        total.timeouts += stats.timeouts;
        total.overloaded += stats.overloaded;
        total.refused += stats.refused;
        total.labels_received += stats.labels_received;
    }
    // Each kind of trouble did happen.
    let Rejected { control, frame, unknown_request, policy, count, stale, action } = total.rejected;
    for number in [control, frame, unknown_request, policy, count, stale, action] {
        assert!(number > 100, "{total:?}");
    }
    for number in [total.reconnects, total.timeouts, total.overloaded, total.refused] {
        assert!(number > 100, "{total:?}");
    }
}

#[test]
fn the_same_seed_makes_the_same_conversation() {
    let run = || {
        let mut world = World::new(5);
        world.chaos();
        (*world.link.stats(), world.labelled.len())
    };
    assert_eq!(run(), run());
}
