//! Recurrent policies: a state for each connection, which a student's order of states drives.

use crate::policies::{boxed, function, loaded, sum, sums};
use crate::strangers::{TOKEN, door_of};
use crate::student::{Heard, Server, Student, hello, request_to, serve};
use oto_agent::config::{EvaluationConfig, StudentConfig};
use oto_agent::drive::Driver;
use oto_agent::student::{Environments, Student as Learner, TeacherConfig, Tick};
use oto_cpu::Cpu;
use oto_policy::{Loaded, Output, Policy, PolicyError};
use oto_proto::{ErrorCode, Hello, Place, ServerMessage, Space, StateFormat};
use oto_rl::algorithms::qrdqn::QrDqnConfig;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tungstenite::Message;

fn marked(mark: f32) -> Box<dyn Policy> {
    sums(boxed(1), mark)
}

fn recurrent() -> Loaded {
    loaded("recurrent", marked(0.0))
}

fn ordered(policy: &str) -> Hello {
    Hello { order: Some(true), ..hello(policy, boxed(1), boxed(2)) }
}

/// A student that says where its states stand.
struct Ordered(Student);

impl Ordered {
    fn new(server: &Server) -> Self {
        let (student, welcome) = server.student(ordered("recurrent"));
        assert_eq!((welcome.order, welcome.max_rows), (Some(true), 64));
        Self(student)
    }

    fn frame(&mut self, states: &[(u64, bool, f32)]) -> Vec<u8> {
        self.0.ids.request += 1;
        let format = StateFormat::new(&boxed(1), oto_proto::Dtype::F32, None).unwrap().ordered();
        let mut frame = Vec::new();
        let mut writer = format.writer(self.0.ids, &mut frame);
        for (number, begins, x) in states {
            writer.state_at(Place::new(*number, *begins), &[*x]).unwrap();
        }
        writer.finish().unwrap();
        frame
    }

    fn send(&mut self, states: &[(u64, bool, f32)]) {
        let frame = self.frame(states);
        self.0.socket.send(Message::binary(frame)).unwrap();
    }

    /// The sums that the policy answers.
    fn sums(&mut self) -> Vec<f32> {
        self.0.answer().rows.iter().map(|row| row[0]).collect()
    }

    fn ask(&mut self, states: &[(u64, bool, f32)]) -> Vec<f32> {
        self.send(states);
        self.sums()
    }
}

/// How often states were reset for this reason.
fn resets(server: &Server, reason: &str) -> u32 {
    let token = format!("authorization: Bearer {TOKEN}\r\n");
    let (_, body) = request_to(door_of(server, None), "GET /metrics", &token, b"");
    let text = String::from_utf8(body).unwrap();
    let line = format!("oto_state_resets_total{{reason=\"{reason}\"}} ");
    text.lines().find_map(|found| found.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
}

#[test]
fn a_state_lasts_for_an_episode_and_is_each_connections_own() {
    let server = serve(vec![recurrent()], |_| {});
    let (mut one, mut other) = (Ordered::new(&server), Ordered::new(&server));
    assert_eq!(one.ask(&[(0, true, 1.0), (1, false, 2.0)]), [1.0, 3.0]);
    assert_eq!(other.ask(&[(7, true, 10.0)]), [10.0]);
    // Several requests in flight, an episode that begins within one.
    one.send(&[(2, false, 3.0)]);
    other.send(&[(8, false, 20.0)]);
    one.send(&[(3, false, 4.0), (4, true, 5.0), (5, false, 6.0)]);
    one.send(&[(6, false, 7.0)]);
    assert_eq!((one.sums(), one.sums(), one.sums()), (vec![6.0], vec![10.0, 5.0, 11.0], vec![18.0]));
    assert_eq!(other.sums(), [30.0]);
    assert_eq!(resets(&server, "gap"), 0);
    // A new connection has a new state.
    drop(one);
    assert_eq!(Ordered::new(&server).ask(&[(7, false, 1.0)]), [1.0]);
    assert_eq!(resets(&server, "gap"), 1);
}

#[test]
fn requests_of_many_connections_share_batches_and_no_state() {
    let server = serve(vec![recurrent()], |_| {});
    let mut students: Vec<_> = (0..8).map(|_| Ordered::new(&server)).collect();
    for round in 0..20_u64 {
        for (i, student) in students.iter_mut().enumerate() {
            let first = 2 * round;
            student.send(&[(first, round % 7 == 0, i as f32), (first + 1, false, 1.0)]);
        }
        for (i, student) in students.iter_mut().enumerate() {
            let (rounds, x) = ((round % 7) as f32, i as f32);
            let before = rounds * (x + 1.0);
            assert_eq!(student.sums(), [before + x, before + x + 1.0], "round {round} of {i}");
        }
    }
    assert_eq!((resets(&server, "gap"), resets(&server, "version")), (0, 0));
}

#[test]
fn a_skipped_state_resets_the_state_and_is_counted() {
    let server = serve(vec![recurrent()], |_| {});
    let mut student = Ordered::new(&server);
    assert_eq!(student.ask(&[(0, true, 1.0), (1, false, 1.0)]), [1.0, 2.0]);
    assert_eq!(student.ask(&[(3, false, 1.0), (4, false, 1.0)]), [1.0, 2.0], "state 2 is missing");
    assert_eq!(student.ask(&[(4, false, 1.0)]), [1.0], "a state that came before");
    assert_eq!(student.ask(&[(9, true, 1.0)]), [1.0], "an episode begins: no gap");
    assert_eq!(resets(&server, "gap"), 2);
    // The policy fails: the state is as it was before the request, and the next one follows a gap.
    student.send(&[(10, false, 1.0), (11, false, 1e7)]);
    let error = student.0.error();
    assert_eq!((error.code, error.request), (ErrorCode::PolicyFailed, Some(student.0.ids.request)));
    assert_eq!(student.ask(&[(12, false, 4.0)]), [4.0]);
    assert_eq!(student.ask(&[(13, false, 1.0)]), [5.0]);
    assert_eq!(resets(&server, "gap"), 3);
    // One student's failure is not another's.
    let mut other = Ordered::new(&server);
    student.send(&[(14, false, 1e7)]);
    other.send(&[(0, true, 2.0)]);
    assert_eq!(student.0.error().code, ErrorCode::PolicyFailed);
    assert_eq!((other.sums(), other.ask(&[(1, false, 2.0)])), (vec![2.0], vec![4.0]));
}

#[test]
fn a_student_without_order_is_refused_by_a_recurrent_policy_alone() {
    let server = serve(vec![recurrent(), sum()], |_| {});
    for order in [None, Some(false)] {
        let error = server.refused(Hello { order, ..ordered("recurrent") });
        assert_eq!(error.code, ErrorCode::NotSupported);
        assert!(
            error.message.contains("\"recurrent\" is recurrent") && error.message.contains("order"),
            "{error}"
        );
    }
    // A plain policy has no use for the order.
    let plain = Hello { order: Some(true), ..hello("sum", boxed(4), Space::Discrete { n: 2 }) };
    let (mut student, welcome) = server.student(plain);
    assert_eq!(welcome.order, None);
    student.is_well();
}

#[test]
fn frames_without_places_and_other_bad_ones_are_refused() {
    let server = serve(vec![recurrent()], |_| {});
    let mut student = Ordered::new(&server);
    assert_eq!(student.ask(&[(0, true, 1.0)]), [1.0]);
    let whole = student.frame(&[(1, false, 1.0)]);
    let plain = [&whole[..16], &whole[20..]].concat();
    let mut nan = whole.clone();
    nan[20..24].copy_from_slice(&f32::NAN.to_le_bytes());
    let many = student.frame(&[(1, false, 1.0); 65]);
    for (frame, code) in [
        (plain, ErrorCode::BadShape),
        (whole[..23].to_vec(), ErrorCode::BadShape),
        (nan, ErrorCode::NotFinite),
        (many, ErrorCode::TooLarge),
    ] {
        student.0.socket.send(Message::binary(frame)).unwrap();
        assert_eq!(student.0.error().code, code);
    }
    assert_eq!(student.ask(&[(1, false, 1.0)]), [2.0], "what was refused changed nothing");
    assert_eq!(resets(&server, "gap"), 0);
}

#[test]
fn another_version_begins_with_a_new_state() {
    let server = serve(vec![recurrent()], |_| {});
    let mut student = Ordered::new(&server);
    assert_eq!(student.ask(&[(0, true, 1.0), (1, false, 1.0)]), [1.0, 2.0]);
    server.policies.publish("recurrent", marked(5.0)).unwrap();
    while server.policies.version("recurrent") != Some(2) {
        std::thread::yield_now();
    }
    student.send(&[(2, false, 1.0), (3, false, 1.0)]);
    let answer = student.0.answer();
    assert_eq!((answer.version, &answer.rows[..]), (2, &[vec![1.0, 5.0], vec![2.0, 5.0]][..]));
    assert_eq!((resets(&server, "version"), resets(&server, "gap")), (1, 0));
    let plain = function(boxed(1), boxed(2), |row, actions| actions.extend([row[0], 0.0]));
    let error = server.policies.publish("recurrent", plain).unwrap_err().to_string();
    assert!(error.contains("a state of 1 numbers") && error.contains("got 0"), "{error}");
}

#[test]
fn a_request_over_http_has_no_order() {
    let server = serve(vec![recurrent()], |_| {});
    let body = r#"{"inputs":[{"name":"observation","shape":[1,1],"datatype":"FP32","data":[1]}]}"#;
    let (head, said) = request_to(
        server.address,
        "POST /v2/models/recurrent/infer",
        "content-type: application/json\r\n",
        body.as_bytes(),
    );
    assert!(head.contains(" 400 "), "{head}");
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("recurrent: it answers over the WebSocket alone"), "{said}");
}

/// A state counts as the student's memory on the server.
#[test]
fn a_state_is_held_within_the_budget_of_its_peer() {
    let large = loaded("recurrent", Box::new(Wide([boxed(1), boxed(1)])));
    let server = serve(vec![large], |config| config.limits.bytes = 4 << 20);
    let hello = || Hello { order: Some(true), ..hello("recurrent", boxed(1), boxed(1)) };
    // An address gets a quarter of the memory; a state and its copy take half a megabyte.
    let mut held = vec![server.student(hello())];
    let refused = (0..8).any(|_| {
        let mut student = server.stranger();
        student.say(&oto_proto::ClientMessage::Hello(Box::new(hello())));
        match student.hear() {
            Heard::Message(ServerMessage::Welcome(welcome)) => {
                held.push((student, *welcome));
                false
            }
            Heard::Message(ServerMessage::Overloaded(_)) => true,
            other => panic!("{other:?}"),
        }
    });
    assert!(refused && held.len() < 8, "{} states", held.len());
    // The memory of one that has gone is another's.
    let gone = held.len();
    held.clear();
    let found = (0..200).any(|_| {
        let mut student = server.stranger();
        student.say(&oto_proto::ClientMessage::Hello(Box::new(hello())));
        let welcome = matches!(student.hear(), Heard::Message(ServerMessage::Welcome(_)));
        if !welcome {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        welcome
    });
    assert!(found, "after {gone} students");
}

/// A student of CartPole with this teacher: its states arrive in their order, and episodes begin where they do. The policy knows where the
/// cart will be: `x + 0.02 v`.
#[test]
fn a_students_states_arrive_in_the_order_of_its_episodes() {
    for (n_step, seed) in [(1, 3), (3, 4)] {
        let follows = Arc::new(Mutex::new(Followed::default()));
        let policy = Follows { spaces: [boxed(4), Space::Discrete { n: 2 }], found: follows.clone() };
        let server = serve(vec![loaded("recurrent", Box::new(policy))], |_| {});
        let algorithm =
            QrDqnConfig { hidden: vec![16], quantiles: 4, batch_size: 16, ..QrDqnConfig::default() };
        let config = StudentConfig {
            seed,
            n_step,
            algorithm: algorithm.into(),
            steps: 500,
            evaluation: EvaluationConfig { every: 100, episodes: 1 },
            ..StudentConfig::default()
        };
        let teacher = TeacherConfig {
            url: format!("ws://{}/v1/teach", server.address),
            policy: "recurrent".into(),
            adapter: None,
            learn_adapter: None,
            dtype: oto_proto::Dtype::F32,
            quantization: None,
            weight: 1.0,
            submit: false,
        };
        let mut driver = Driver::new(std::slice::from_ref(&teacher)).unwrap();
        let environments = Environments::built_in("CartPole-v1").unwrap();
        let mut student = Learner::new(&config, environments, &[teacher], &Cpu, 0).unwrap();
        driver.connect(&mut student, Duration::from_secs(20));
        while driver.step(&mut student).unwrap() != Tick::Done {}
        let (labels, episodes) = (student.metrics(0).labels, student.trainer().episodes());
        let Followed { begins, states, astray } = *follows.lock().unwrap();
        assert!(labels > 400 && states >= labels, "{labels} labels of {states} states");
        assert!(episodes > 5 && begins.abs_diff(episodes) <= 1, "{begins} beginnings of {episodes} episodes");
        assert_eq!((astray, resets(&server, "gap")), (0, 0));
    }
}

#[derive(Clone, Copy, Default)]
struct Followed {
    begins: u64,
    states: u64,
    /// States that are not where the one before led, and beginnings away from the middle.
    astray: u64,
}

/// Its state: whether there is one, and where the cart is expected.
struct Follows {
    spaces: [Space; 2],
    found: Arc<Mutex<Followed>>,
}

impl Policy for Follows {
    fn observation_space(&self) -> &Space {
        &self.spaces[0]
    }

    fn action_space(&self) -> &Space {
        &self.spaces[1]
    }

    fn state_width(&self) -> usize {
        2
    }

    fn act(&mut self, observations: &[f32], _: usize, actions: &mut Vec<f32>) -> Result<(), PolicyError> {
        actions.clear();
        actions.extend(observations.chunks(4).map(|s| f32::from(s[2] > 0.0)));
        Ok(())
    }

    fn act_from(
        &mut self,
        observations: &[f32],
        rows: usize,
        states: &mut [f32],
        actions: &mut Vec<f32>,
    ) -> Result<(), PolicyError> {
        let mut found = self.found.lock().unwrap();
        for (seen, state) in observations.chunks(4).zip(states.chunks_mut(2)) {
            let begins = state[0] == 0.0;
            let right = if begins { seen[0].abs() <= 0.05 } else { (seen[0] - state[1]).abs() < 1e-5 };
            found.begins += u64::from(begins);
            found.states += 1;
            found.astray += u64::from(!right);
            state.copy_from_slice(&[1.0, seen[0] + 0.02 * seen[1]]);
        }
        drop(found);
        self.act(observations, rows, actions)
    }

    fn outputs(&mut self, _: &[f32], _: usize) -> Result<Vec<Output>, PolicyError> {
        Err(PolicyError::Unsupported("no outputs in these tests".into()))
    }
}

/// Has the widest state.
struct Wide([Space; 2]);

impl Policy for Wide {
    fn observation_space(&self) -> &Space {
        &self.0[0]
    }

    fn action_space(&self) -> &Space {
        &self.0[1]
    }

    fn state_width(&self) -> usize {
        1 << 16
    }

    fn act(&mut self, observations: &[f32], _: usize, actions: &mut Vec<f32>) -> Result<(), PolicyError> {
        actions.clear();
        actions.extend_from_slice(observations);
        Ok(())
    }

    fn act_from(
        &mut self,
        observations: &[f32],
        rows: usize,
        _: &mut [f32],
        actions: &mut Vec<f32>,
    ) -> Result<(), PolicyError> {
        self.act(observations, rows, actions)
    }

    fn outputs(&mut self, _: &[f32], _: usize) -> Result<Vec<Output>, PolicyError> {
        Err(PolicyError::Unsupported("no outputs in these tests".into()))
    }
}
