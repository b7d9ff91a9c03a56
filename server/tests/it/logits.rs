//! A policy's logits over real sockets: who gets them, and what a policy without usable ones costs.

use crate::policies::{boxed, function, loaded, sum};
use crate::security_options::sha256;
use crate::shares::metrics;
use crate::strangers::TOKEN;
use crate::student::{Heard, Server, Student, hello, serve};
use oto_agent::link::tungstenite::Socket;
use oto_agent::served::{ServedError, ServedTeacher};
use oto_agent::student::TeacherSpaces;
use oto_policy::{Loaded, Output, Policy, PolicyError};
use oto_proto::{ClientMessage, ErrorCode, Grant, Hello, ServerMessage, Space};
use oto_rl::distillation::LogitTeacher;
use oto_server::access::Access;

/// Two numbers to three choices: prefers the first by the first number, the second by the second, the third never. Not finite beyond 1e6.
struct Preferring([Space; 2]);

impl Policy for Preferring {
    fn observation_space(&self) -> &Space {
        &self.0[0]
    }

    fn action_space(&self) -> &Space {
        &self.0[1]
    }

    fn act(&mut self, observations: &[f32], _: usize, actions: &mut Vec<f32>) -> Result<(), PolicyError> {
        actions.clear();
        actions.extend(observations.chunks(2).map(|row| f32::from(row[1] > row[0])));
        Ok(())
    }

    fn outputs(&mut self, observations: &[f32], rows: usize) -> Result<Vec<Output>, PolicyError> {
        let logits = |row: &[f32]| [if row[0] > 1e6 { f32::INFINITY } else { row[0] }, row[1], -9.0];
        let values = observations.chunks(2).flat_map(logits).collect();
        Ok(vec![Output { name: "logits".into(), shape: vec![rows, 3], values }])
    }
}

fn preferring() -> Loaded {
    loaded("preferring", Box::new(Preferring([boxed(2), Space::Discrete { n: 3 }])))
}

fn of_logits(policy: &str, width: usize, actions: usize) -> Hello {
    Hello { grants: vec![Grant::Logits], ..hello(policy, boxed(width), boxed(actions)) }
}

fn pupil(server: &Server) -> Student {
    let (student, welcome) = server.student(of_logits("preferring", 2, 3));
    assert_eq!((welcome.grants, welcome.action_width), (vec![Grant::Logits], 3));
    student
}

#[test]
fn logits_and_actions_come_from_one_policy() {
    let server = serve(vec![preferring()], |_| {});
    let mut one = pupil(&server);
    let (mut other, welcome) = server.student(hello("preferring", boxed(2), Space::Discrete { n: 3 }));
    assert_eq!(welcome.grants, [Grant::Actions]);
    for _ in 0..20 {
        let asked = [one.ask(&[[1.0, 2.0], [0.5, -1.0]]), other.ask(&[[1.0, 2.0], [0.5, -1.0]])];
        let answers = [one.answer(), other.answer()];
        assert_eq!(answers.each_ref().map(|answer| answer.request), asked);
        assert_eq!(answers[0].rows, [vec![1.0, 2.0, -9.0], vec![0.5, -1.0, -9.0]]);
        assert_eq!(answers[1].rows, [vec![1.0], vec![0.0]]);
    }
    // One that is not finite costs its own request only.
    let request = one.ask(&[[2e6, 0.0]]);
    let error = one.error();
    assert_eq!((error.code, error.request), (ErrorCode::PolicyFailed, Some(request)), "{error}");
    assert!(error.message.contains("a logit is inf"), "{error}");
    one.ask(&[[0.0, 0.0]]);
    assert_eq!(one.answer().rows, [vec![0.0, 0.0, -9.0]]);
    let text = metrics(&server);
    assert!(
        text.contains("\noto_logit_states_total 42\n") && text.contains("\noto_states_total 82\n"),
        "{text}"
    );
}

#[test]
fn what_is_no_student_of_logits_is_refused() {
    let wide = function(boxed(1), boxed(2), |row, actions| actions.extend([row[0]; 2]));
    let server = serve(vec![preferring(), sum(), loaded("continuous", wide)], |_| {});
    for (hello, code) in [
        (of_logits("preferring", 2, 2), ErrorCode::SpaceMismatch),
        (of_logits("preferring", 3, 3), ErrorCode::SpaceMismatch),
        (of_logits("continuous", 1, 2), ErrorCode::SpaceMismatch),
        (of_logits("none", 2, 3), ErrorCode::UnknownPolicy),
        (
            Hello { action: Space::Discrete { n: 3 }, ..of_logits("preferring", 2, 3) },
            ErrorCode::SpaceMismatch,
        ),
    ] {
        assert_eq!(server.refused(hello).code, code);
    }
    // A policy that gives none says so at each request.
    let (mut student, _) = server.student(of_logits("sum", 4, 2));
    student.ask(&[[1.0; 4]]);
    assert_eq!(student.error().code, ErrorCode::PolicyFailed);
    server.pupil("sum").is_well();
}

#[test]
fn the_grant_decides() {
    let entry = |name: &str, token: &str, grants: &str| {
        format!(
            r#"{{"name":"{name}","token_sha256":"{}","grants":[{grants}],"states_per_second":4}}"#,
            sha256(token)
        )
    };
    let without = "another machine's secret";
    let json = format!(
        r#"{{"machines":[{},{}]}}"#,
        entry("with", TOKEN, r#""logits""#),
        entry("without", without, "")
    );
    let server = serve(vec![preferring()], |config| {
        config.access = Some(serde_json::from_str::<Access>(&json).unwrap());
    });
    let says = |token: &str| {
        let header = format!("Bearer {token}");
        let mut student = server.stranger_with(&[("authorization", header.as_str())]).unwrap();
        student.say(&ClientMessage::Hello(Box::new(of_logits("preferring", 2, 3))));
        (student.hear(), header)
    };
    let (Heard::Message(ServerMessage::Error(error)), _) = says(without) else {
        panic!("expected a refusal")
    };
    assert_eq!(error.code, ErrorCode::Forbidden);
    assert!(error.message.contains("\"logits\""), "{error}");
    let (Heard::Message(ServerMessage::Welcome(welcome)), header) = says(TOKEN) else {
        panic!("expected a welcome")
    };
    assert_eq!(welcome.grants, [Grant::Logits]);
    // The states of logits count as those of actions do.
    let (mut student, _) =
        server.student_with(&[("authorization", header.as_str())], of_logits("preferring", 2, 3));
    student.ask(&[[0.0, 0.0]; 4]);
    assert_eq!(student.answer().rows.len(), 4);
    let request = student.ask(&[[0.0, 0.0]; 4]);
    let Heard::Message(ServerMessage::Overloaded(overloaded)) = student.hear() else {
        panic!("expected a pause")
    };
    assert_eq!(overloaded.request, Some(request));
}

fn teacher(server: &Server, policy: &str, action: Space) -> Result<ServedTeacher, ServedError> {
    let socket = Socket::new(&format!("ws://{}/v1/teach", server.address)).unwrap();
    ServedTeacher::connect(socket, policy, "test", &TeacherSpaces { observation: boxed(2), action })
}

#[test]
fn a_teacher_of_logits_is_missed_while_its_server_is_away() {
    let mut server = serve(vec![preferring(), sum()], |_| {});
    let mut one = teacher(&server, "preferring", Space::Discrete { n: 3 }).unwrap();
    let observations = (0..5000).map(|i| i as f32).collect::<Vec<_>>();
    let mut logits = Vec::new();
    one.logits(&observations, 2500, &mut logits).unwrap();
    let expected = observations.chunks(2).flat_map(|row| [row[0], row[1], -9.0]).collect::<Vec<_>>();
    assert_eq!(logits, expected, "several requests are one answer");
    let error = one.logits(&[2e6, 0.0], 1, &mut logits).unwrap_err();
    assert!(error.contains("a logit is inf"), "{error}");
    one.logits(&[1.0, 2.0], 1, &mut logits).unwrap();
    assert_eq!(logits, [1.0, 2.0, -9.0]);
    server.stop();
    server.join();
    let mut failed = 0;
    while one.logits(&[1.0, 2.0], 1, &mut logits).is_ok() && failed < 100 {
        failed += 1;
    }
    assert!(one.logits(&[1.0, 2.0], 1, &mut logits).is_err());

    let server = serve(vec![preferring(), sum()], |_| {});
    for (policy, action, says) in [
        ("none", Space::Discrete { n: 3 }, "no policy"),
        ("preferring", Space::Discrete { n: 2 }, "width 3"),
        ("preferring", boxed(3), "discrete"),
        ("preferring", Space::Discrete { n: 60_000 }, "4096"),
    ] {
        let error = teacher(&server, policy, action).err().unwrap().to_string();
        assert!(error.contains(says), "{error}");
    }
}
