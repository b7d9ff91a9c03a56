//! Everything that can happen to a page's student, in every order: what its links' connections bring, what its environment
//! answers, pauses, weights, evaluations, checkpoints. All orders up to a depth, and longer ones drawn at random. Whatever
//! happens, no call fails, a question to the environment stays until it is answered, and the student trains on.

use oto_agent::config::{Clock, EvaluationConfig, StudentConfig};
use oto_agent::link::{Event, LinkState, Output};
use oto_agent::student::{Environments, Need, Student, TeacherConfig, Tick};
use oto_cpu::Cpu;
use oto_env::{Action, Space, Step};
use oto_proto::message::{Overloaded, Published, Restarting};
use oto_proto::{
    ClientMessage, ErrorCode, ErrorMessage, Formats, Header, Ids, ServerMessage, TeacherInfo, Welcome,
};
use oto_rl::algorithms::qrdqn::QrDqnConfig;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How many moves follow each beginning, in every order.
const DEPTH: usize = 3;
/// The same where there are two teachers, and so more moves.
const DEPTH_OF_TWO: usize = 2;
/// After the last move the student takes so many steps more.
const STEPS_AFTER: u64 = 12;
/// So many times it may wait for that, and so long, in milliseconds: two requests that time out, with their connections.
const WAITS_AFTER: usize = 60;
const MS_AFTER: u64 = 60_000;
const WIDTH: usize = 2;

/// Where a student acts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// In an environment of the page's own.
    Page,
    /// In one of the page's own, with another for evaluations.
    PageWithEvaluations,
    /// In a built-in environment.
    BuiltIn,
}

const PLACES: [Place; 3] = [Place::Page, Place::PageWithEvaluations, Place::BuiltIn];
const CLOCKS: [Clock; 2] = [Clock::Lockstep, Clock::Async];

/// Something that happens. Numbers are teachers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Move {
    /// The student is asked what it needs; in a built-in environment it takes a step if it can.
    Ask,
    /// The environment answers the question, in the middle of an episode or at its end.
    Answer {
        ends: bool,
    },
    /// The environment throws.
    Fail,
    /// The environment answers with a number that is none.
    AnswerNan,
    /// The connection opens.
    Open(usize),
    /// It is refused, breaks, or is closed.
    Close(usize),
    /// The server closes it for good.
    CloseForGood(usize),
    Welcome(usize),
    /// An answer to the oldest request.
    Label(usize),
    /// An answer to a request of long ago.
    LateLabel(usize),
    /// Text that is no message.
    BadText(usize),
    /// Bytes that are no message.
    BadBytes(usize),
    Overloaded(usize),
    Restarting(usize),
    /// The oldest request is refused.
    Refused(usize),
    Published(usize),
    /// Time passes: a moment, or until a link wants to be woken.
    Moment,
    Wake,
    /// The teacher is switched off or on.
    Weigh(usize),
    /// The page evaluates on its own account.
    Evaluate,
    /// The student is saved and loaded.
    Reload,
}

/// A connection as its server sees it.
#[derive(Default)]
struct Peer {
    state: Wire,
    formats: Option<Formats>,
    policy: String,
    /// Requests that are not answered: their numbers and rows.
    requests: VecDeque<(u32, u16)>,
    /// The last answer that was given.
    answered: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Wire {
    #[default]
    Closed,
    Opening,
    Open,
    Greeted,
    Welcomed,
}

struct Page {
    place: Place,
    student: Student,
    peers: Vec<Peer>,
    now: u64,
    told: Option<Need>,
    answered: u64,
    weights: Vec<f64>,
}

fn teacher() -> TeacherConfig {
    TeacherConfig {
        url: "ws://teacher".into(),
        policy: "p".into(),
        adapter: None,
        learn_adapter: None,
        dtype: oto_proto::Dtype::F32,
        quantization: None,
        weight: 1.0,
        submit: false,
    }
}

impl Page {
    /// With updates, or too early for them.
    fn new(place: Place, clock: Clock, teachers: usize, learning_starts: u64) -> Self {
        let config = StudentConfig {
            seed: 3,
            steps: 1_000_000,
            algorithm: QrDqnConfig { hidden: vec![2], quantiles: 2, batch_size: 2, ..QrDqnConfig::default() }
                .into(),
            evaluation: EvaluationConfig { every: 2, episodes: 1 },
            clock,
            request_batch: 1,
            label_lag: 1,
            learning_starts,
            buffer: 64,
            ..StudentConfig::default()
        };
        let environment = match place {
            Place::BuiltIn => Environments::built_in("MountainCar-v0").unwrap(),
            _ => Environments::Outside {
                observation: Space::Box { low: vec![-1.0; WIDTH], high: vec![1.0; WIDTH] },
                action: Space::Discrete { n: 3 },
                evaluates: place == Place::PageWithEvaluations,
            },
        };
        let every = if place == Place::BuiltIn { 0 } else { 2 };
        let config = StudentConfig { evaluation: EvaluationConfig { every, episodes: 1 }, ..config };
        let teachers = vec![teacher(); teachers];
        let student = Student::new(&config, environment, &teachers, &Cpu, 0).unwrap();
        let peers = teachers.iter().map(|_| Peer::default()).collect();
        let weights = vec![1.0; teachers.len()];
        let mut page = Self { place, student, peers, now: 0, told: None, answered: 0, weights };
        page.carry();
        page
    }

    /// Carries out what the links want, as the page's worker does after every event.
    fn carry(&mut self) {
        for (peer, link) in self.peers.iter_mut().zip(self.student.links()) {
            while let Some(output) = link.poll_output() {
                peer.take(output);
            }
        }
    }

    fn event(&mut self, teacher: usize, event: Event<'_>) {
        let now = self.now;
        self.student.links().nth(teacher).unwrap().handle(event, now);
    }

    fn say(&mut self, teacher: usize, message: &ServerMessage) {
        self.event(teacher, Event::Text(&message.encode()));
    }

    /// All that can happen now.
    fn moves(&self) -> Vec<Move> {
        use Move::*;
        let mut moves = vec![Ask, Moment, Wake, Evaluate, Reload];
        if self.told.is_some() {
            moves.extend([Answer { ends: false }, Answer { ends: true }, Fail, AnswerNan]);
        }
        for (i, peer) in self.peers.iter().enumerate() {
            moves.push(Weigh(i));
            if peer.state == Wire::Opening {
                moves.push(Open(i));
            }
            if peer.state != Wire::Closed {
                moves.push(Close(i));
            }
            if matches!(peer.state, Wire::Greeted | Wire::Welcomed) {
                moves.extend([Welcome(i), BadText(i), BadBytes(i), Overloaded(i), Restarting(i), Refused(i)]);
                moves.extend([CloseForGood(i), Published(i)]);
            }
            if !peer.requests.is_empty() {
                moves.push(Label(i));
            }
            if !peer.answered.is_empty() {
                moves.push(LateLabel(i));
            }
        }
        moves
    }

    fn make(&mut self, next: Move) {
        match next {
            Move::Ask => drop(self.ask()),
            Move::Answer { ends } => self.answer(ends),
            Move::Fail => {
                self.student.give_up_episode().unwrap();
                self.told = None;
            }
            Move::AnswerNan => {
                // A number that is none is refused, and the question stays.
                assert!(self.give(f32::NAN, false).is_err());
            }
            Move::Open(i) => {
                self.peers[i].state = Wire::Open;
                self.event(i, Event::Connected);
            }
            Move::Close(i) => self.close(i, 1006),
            Move::CloseForGood(i) => self.close(i, ErrorCode::UnknownPolicy.close_code()),
            Move::Welcome(i) => {
                self.peers[i].state = Wire::Welcomed;
                let welcome = self.peers[i].welcome();
                self.say(i, &welcome);
            }
            Move::Label(i) => {
                let frame = self.peers[i].answer();
                self.event(i, Event::Binary(&frame));
            }
            Move::LateLabel(i) => {
                let frame = self.peers[i].answered.clone();
                self.event(i, Event::Binary(&frame));
            }
            Move::BadText(i) => self.event(i, Event::Text("{\"type\":\"welcome\"")),
            Move::BadBytes(i) => self.event(i, Event::Binary(&[9; 40])),
            Move::Overloaded(i) => {
                let request = self.peers[i].requests.pop_front().map(|(request, _)| request);
                self.say(i, &ServerMessage::Overloaded(Overloaded { request, retry_ms: 100 }));
            }
            Move::Restarting(i) => self.say(i, &ServerMessage::Restarting(Restarting { retry_ms: 100 })),
            Move::Refused(i) => {
                let request = self.peers[i].requests.pop_front().map(|(request, _)| request);
                let error = ErrorMessage::new(ErrorCode::PolicyFailed, "no answer").about(request);
                self.say(i, &ServerMessage::Error(error));
            }
            Move::Published(i) => self.say(i, &ServerMessage::Published(Published { version: 2 })),
            Move::Moment => self.pass(self.now + 1),
            Move::Wake => drop(self.wake()),
            Move::Weigh(i) => {
                self.weights[i] = 1.0 - self.weights[i];
                self.student.set_teacher_weight(i, self.weights[i]).unwrap();
            }
            Move::Evaluate => {
                assert!(self.student.evaluation_seed().is_none_or(|seed| seed != 3));
                self.student.record_evaluation(&[1.0, 2.0]).unwrap();
            }
            Move::Reload => {
                let file = self.student.save(true).unwrap();
                self.student.load(&file, self.now).unwrap();
                self.told = self.student.asked();
            }
        }
        self.carry();
        assert_eq!(self.student.asked(), self.told, "after {next:?}");
        assert_eq!(self.student.trainer().steps(), self.answered, "after {next:?}");
        self.student.metrics(self.now);
    }

    /// What the student needs; a question that was told once is told again.
    fn ask(&mut self) -> Need {
        if self.place == Place::BuiltIn {
            return match self.student.tick(self.now).unwrap() {
                Tick::Stepped => {
                    self.answered += 1;
                    Need::Step
                }
                Tick::Waiting => Need::Wait,
                Tick::Done => Need::Nothing,
            };
        }
        let need = self.student.need(self.now).unwrap();
        assert!(self.told.is_none_or(|told| told == need), "{need:?} instead of {:?}", self.told);
        assert_eq!(need == Need::Wait, self.student.asked().is_none());
        self.told = self.student.asked();
        if need == Need::Step {
            assert!(matches!(self.student.action(), Action::Discrete(0..3)));
        }
        need
    }

    /// The environment's answer to what was asked.
    fn give(&mut self, number: f32, ends: bool) -> Result<(), oto_agent::trainer::TrainError> {
        let step = Step { reward: 1.0, terminated: ends, truncated: false };
        match self.told.expect("a question") {
            Need::Reset(_) => self.student.began(&[number; WIDTH]),
            Need::Evaluate { episodes, .. } => {
                self.student.evaluated(&vec![f64::from(number); episodes as usize], self.now)
            }
            _ => self.student.stepped(step, &[number; WIDTH], self.now),
        }
    }

    fn answer(&mut self, ends: bool) {
        let step = self.told == Some(Need::Step);
        self.give(0.5, ends).unwrap();
        self.answered += u64::from(step);
        self.told = self.student.asked();
        assert!(matches!(self.told, None | Some(Need::Evaluate { .. })));
    }

    fn close(&mut self, teacher: usize, code: u16) {
        self.peers[teacher].forget(Wire::Closed);
        self.event(teacher, Event::Closed { code: Some(code), reason: "" });
    }

    fn pass(&mut self, to: u64) {
        self.now = to;
        self.student.links().for_each(|link| link.handle(Event::Tick, to));
        self.student.submit(to);
    }

    /// Until a link wants to be woken; false if none does.
    fn wake(&mut self) -> bool {
        let next = self.student.links().filter_map(|link| link.wake_at()).min();
        if let Some(at) = next {
            self.pass(at.max(self.now + 1));
        }
        next.is_some()
    }

    /// Nothing comes from any server any more, and the environment answers: the student takes its steps, and does not wait
    /// long for them.
    fn goes_on(&mut self) {
        let (end, start) = (self.answered + STEPS_AFTER, self.now);
        let mut waits = 0;
        while self.answered < end {
            match self.ask() {
                Need::Wait => {
                    assert!(self.wake(), "it waits, and nothing will wake it");
                    waits += 1;
                }
                Need::Nothing => panic!("the run is over"),
                _ if self.place == Place::BuiltIn => self.now += 1,
                _ => {
                    self.answer(false);
                    self.now += 1;
                }
            }
            self.carry();
            assert!(waits < WAITS_AFTER, "it waited {waits} times in {} ms", self.now - start);
        }
        assert!(self.now - start < MS_AFTER, "it waited {} ms", self.now - start);
    }
}

impl Peer {
    fn forget(&mut self, state: Wire) {
        self.state = state;
        self.requests.clear();
    }

    fn take(&mut self, output: Output) {
        match output {
            Output::Connect => self.forget(Wire::Opening),
            Output::Close(_) => self.forget(Wire::Closed),
            Output::Text(text) => {
                if let ClientMessage::Hello(hello) = ClientMessage::decode(&text).unwrap() {
                    self.formats = Some(hello.formats().unwrap());
                    self.policy = hello.policy;
                    self.state = Wire::Greeted;
                }
            }
            Output::Binary(frame) => {
                assert_eq!(self.state, Wire::Welcomed, "a request came before the welcome");
                let rows = u16::from_le_bytes([frame[2], frame[3]]);
                self.requests.push_back((Header::request_of(&frame).unwrap(), rows));
            }
        }
    }

    fn welcome(&self) -> ServerMessage {
        let formats = self.formats.as_ref().expect("a hello");
        ServerMessage::Welcome(Box::new(Welcome {
            policy: self.policy.clone(),
            policy_id: 1,
            version: 1,
            max_rows: 8,
            credits: 2,
            dtype: formats.states.dtype(),
            action_dtype: formats.actions.dtype(),
            action_width: formats.actions.width() as u32,
            grants: vec![oto_proto::Grant::Actions],
            submit_rows: None,
            learner: None,
            shared: None,
            order: None,
            group: None,
            teacher: TeacherInfo {
                observation: oto_proto::Space::Box { low: vec![-1.0; WIDTH], high: vec![1.0; WIDTH] },
                action: oto_proto::Space::Discrete { n: 3 },
                description: String::new(),
            },
        }))
    }

    fn answer(&mut self) -> Vec<u8> {
        let (request, rows) = self.requests.pop_front().expect("a request");
        let formats = self.formats.as_ref().expect("a hello");
        let mut frame = Vec::new();
        let mut writer = formats.actions.writer(Ids { request, policy: 1, version: 1 }, &mut frame);
        for _ in 0..rows {
            writer.action(oto_proto::Action::Discrete(1)).unwrap();
        }
        writer.finish().unwrap();
        self.answered = frame.clone();
        frame
    }
}

/// How a conversation begins, before every order of moves is tried.
const BEGINNINGS: [&[Move]; 4] = [
    &[],
    // A question is open while the link is greeting.
    &[Move::Ask, Move::Open(0)],
    // A step is taken and a request is in flight.
    &[
        Move::Open(0),
        Move::Welcome(0),
        Move::Ask,
        Move::Answer { ends: false },
        Move::Ask,
        Move::Answer { ends: false },
    ],
    // The same with its answer there, a lost connection, and a question open.
    &[
        Move::Open(0),
        Move::Welcome(0),
        Move::Ask,
        Move::Answer { ends: false },
        Move::Ask,
        Move::Answer { ends: false },
        Move::Label(0),
        Move::Ask,
        Move::Close(0),
    ],
];

fn replay(place: Place, clock: Clock, teachers: usize, moves: &[Move]) -> Page {
    let mut page = Page::new(place, clock, teachers, 1_000_000);
    for next in moves {
        // A built-in environment answers by itself.
        if !matches!(next, Move::Answer { .. }) || page.told.is_some() {
            page.make(*next);
        }
    }
    page
}

/// Tries every order of so many moves after these; gives how many orders there were.
fn explore(place: Place, clock: Clock, teachers: usize, moves: &mut Vec<Move>, depth: usize) -> u64 {
    let tried = catch_unwind(AssertUnwindSafe(|| {
        let mut page = replay(place, clock, teachers, moves);
        if depth > 0 {
            return page.moves();
        }
        page.goes_on();
        Vec::new()
    }));
    let Ok(next_moves) = tried else { panic!("{place:?}, {clock:?}: {moves:?}") };
    let mut orders = u64::from(depth == 0);
    for next in next_moves {
        moves.push(next);
        orders += explore(place, clock, teachers, moves, depth - 1);
        moves.pop();
    }
    orders
}

fn explore_all(place: Place, teachers: usize, depth: usize) {
    let mut orders = 0;
    for clock in CLOCKS {
        for beginning in BEGINNINGS {
            orders += explore(place, clock, teachers, &mut beginning.to_vec(), depth);
        }
    }
    assert!(orders > 1_000, "{orders} orders");
}

#[test]
fn every_order_leaves_a_student_of_the_page_that_trains_on() {
    explore_all(Place::Page, 1, DEPTH);
}

#[test]
fn every_order_leaves_a_student_that_is_evaluated_by_the_page_and_trains_on() {
    explore_all(Place::PageWithEvaluations, 1, DEPTH);
}

#[test]
fn every_order_leaves_a_student_in_a_built_in_environment_that_trains_on() {
    explore_all(Place::BuiltIn, 1, DEPTH);
}

#[test]
fn every_order_of_two_teachers_leaves_a_student_that_trains_on() {
    PLACES.iter().for_each(|place| explore_all(*place, 2, DEPTH_OF_TWO));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Long conversations, with updates, drawn at random.
    #[test]
    fn no_conversation_ends_a_student(
        place in prop::sample::select(&PLACES[..]),
        clock in prop::sample::select(&CLOCKS[..]),
        teachers in 0usize..4,
        choices in prop::collection::vec(any::<prop::sample::Index>(), 0..150),
    ) {
        let mut page = Page::new(place, clock, teachers, 4);
        for choice in choices {
            let moves = page.moves();
            page.make(moves[choice.index(moves.len())]);
        }
        page.goes_on();
        for link in page.student.links() {
            prop_assert!(link.state() != LinkState::Off);
        }
    }
}
