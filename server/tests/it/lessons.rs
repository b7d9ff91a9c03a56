//! What students get who behave.

use crate::policies::{boxed, function, gated, loaded, sum};
use crate::student::{Answer, Heard, hello, serve};
use oto_policy::{load_file, load_folder};
use oto_proto::message::StageEvent;
use oto_proto::{
    ActionMap, Adapter, ClientMessage, Dtype, ErrorCode, ObservationMap, Quantization, ServerMessage, Space,
    Stage,
};
use std::path::Path;

#[test]
fn the_bundled_teachers_teach_cartpole() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/teachers"));
    let names: Vec<_> = load_folder(folder).unwrap().into_iter().map(|loaded| loaded.name).collect();
    let cartpole = ["ppo_cartpole_v1", "ppo_cartpole_v1_early"];
    let others = ["ppo_mobile_lte", "sac_inverted_pendulum_v5", "sac_pendulum_v1"];
    assert_eq!(names, [&cartpole[..], &others].concat());
    let server = serve(load_folder(folder).unwrap(), |_| {});
    let states: Vec<[f32; 4]> =
        (0..64).map(|i| [0.3, -0.2, 0.1, 0.7].map(|x| x * (i as f32).sin())).collect();
    let states: Vec<&[f32]> = states.iter().map(<[f32; 4]>::as_slice).collect();

    let (mut student, _) = server.student(hello("ppo_cartpole_v1", boxed(4), Space::Discrete { n: 2 }));
    assert!(student.frame(&states).len() <= 1040);
    student.ask(&states);
    let Heard::Frame(frame) = student.hear() else { panic!() };
    assert!(frame.len() <= 80);
    let mut policy = load_file(&folder.join("ppo_cartpole_v1.json")).unwrap().policy;
    let mut expected = Vec::new();
    policy.act(&states.concat(), 64, &mut expected).unwrap();
    assert!(expected.contains(&0.0) && expected.contains(&1.0), "states that tell something");
    student.ask(&states);
    assert_eq!(student.answer().rows.concat(), expected);

    // The pendulum's teacher sees the same quantities in another order and pushes with a continuous force.
    let mut hello = hello("sac_inverted_pendulum_v5", boxed(4), Space::Discrete { n: 2 });
    let observation = ObservationMap { permutation: Some(vec![0, 2, 1, 3]), scale: None, offset: None };
    let action = ActionMap::Sign { component: 0, negative: 0, positive: 1 };
    hello.adapter = Some(Adapter { observation: Some(observation), action: Some(action) });
    let (mut student, welcome) = server.student(hello);
    assert_eq!(welcome.teacher.action, Space::Box { low: vec![-3.0], high: vec![3.0] });
    student.ask(&states);
    let mut policy = load_file(&folder.join("sac_inverted_pendulum_v5.json")).unwrap().policy;
    let swapped: Vec<f32> = states.iter().flat_map(|s| [s[0], s[2], s[1], s[3]]).collect();
    policy.act(&swapped, 64, &mut expected).unwrap();
    let signs: Vec<f32> = expected.iter().map(|force| f32::from(*force >= 0.0)).collect();
    assert!(signs.contains(&0.0) && signs.contains(&1.0));
    assert_eq!(student.answer().rows.concat(), signs);
}

#[test]
fn states_and_actions_travel_as_agreed() {
    let double = function(boxed(2), boxed(2), |row, actions| actions.extend([2.0 * row[0], 2.0 * row[1]]));
    let server = serve(vec![loaded("double", double)], |_| {});
    let mut half = hello("double", boxed(2), Space::Box { low: vec![-1.0; 2], high: vec![f32::INFINITY; 2] });
    (half.dtype, half.action_dtype) = (Dtype::F16, Some(Dtype::F16));
    let (mut student, _) = server.student(half.clone());
    student.ask(&[&[0.5, 3.0], &[-4.0, 0.25]]);
    assert_eq!(student.answer().rows, [[1.0, 6.0], [-1.0, 0.5]], "clipped to the student's box");
    let mut bytes = half;
    (bytes.dtype, bytes.action_dtype) = (Dtype::U8, None);
    bytes.quantization = Some(Quantization { scale: vec![0.5; 2], offset: vec![-1.0; 2] });
    let (mut student, _) = server.student(bytes);
    student.ask(&[&[0.5, 3.0]]);
    assert_eq!(student.answer().rows, [[1.0, 6.0]]);
}

#[test]
fn waiting_requests_of_all_students_are_answered_in_one_call() {
    let (policy, gate) = gated();
    let server = serve(vec![policy], |_| {});
    let mut first = server.pupil("gated");
    first.ask(&[&[1.0; 4]]);
    gate.wait_for_calls(1);
    let mut others: Vec<_> = (0..5).map(|_| server.pupil("gated")).collect();
    for (i, student) in others.iter_mut().enumerate() {
        let state = [if i % 2 == 0 { 1.0 } else { -1.0 }; 4];
        student.ask(&vec![state.as_slice(); i + 1]);
        student.is_heard();
    }
    gate.open();
    assert_eq!(first.answer().rows, [[1.0]]);
    for (i, student) in others.iter_mut().enumerate() {
        let Answer { request, rows, .. } = student.answer();
        assert_eq!((request, rows), (1, vec![vec![f32::from(i % 2 == 0)]; i + 1]), "its own rows");
    }
    assert_eq!(gate.calls(), [1, 1 + 2 + 3 + 4 + 5]);
}

#[test]
fn a_request_beyond_the_credits_is_dropped_and_may_come_again() {
    let (policy, gate) = gated();
    let server = serve(vec![policy], |config| config.limits.credits = 2);
    let mut student = server.pupil("gated");
    let accepted = [student.ask(&[&[1.0; 4]]), student.ask(&[&[1.0; 4]])];
    let beyond = student.ask(&[&[1.0; 4]]);
    let Heard::Message(ServerMessage::Overloaded(overloaded)) = student.hear() else { panic!() };
    assert_eq!(overloaded.request, Some(beyond));
    assert!((1000..=1500).contains(&overloaded.retry_ms), "nothing was measured yet");
    gate.open();
    assert_eq!(accepted, [student.answer().request, student.answer().request]);
    student.is_well();
}

#[test]
fn a_full_queue_drops_requests() {
    let (policy, gate) = gated();
    let waiting = 100;
    let server = serve(vec![policy], |config| {
        (config.limits.credits, config.limits.queue.requests) = (1000, waiting);
    });
    let mut student = server.pupil("gated");
    student.ask(&[&[1.0; 4]]);
    gate.wait_for_calls(1);
    for _ in 0..waiting {
        student.ask(&[&[1.0; 4]]);
    }
    let beyond = student.ask(&[&[1.0; 4]]);
    let Heard::Message(ServerMessage::Overloaded(overloaded)) = student.hear() else { panic!() };
    assert_eq!(overloaded.request, Some(beyond));
    gate.open();
    (0..=waiting as u32).for_each(|i| assert_eq!(student.answer().request, i + 1));
    assert_eq!(gate.calls(), [1, waiting]);
}

#[test]
fn a_new_version_is_announced_and_every_answer_says_which_it_is_from() {
    let server = serve(vec![sum()], |_| {});
    let mut student = server.pupil("sum");
    student.ask(&[&[1.0; 4]]);
    assert_eq!(student.answer().version, 1);
    let opposite =
        || function(boxed(4), Space::Discrete { n: 2 }, |row, out| out.push(f32::from(row[0] <= 0.0)));
    server.policies.publish("sum", opposite()).unwrap();
    let Heard::Message(ServerMessage::Published(published)) = student.hear() else { panic!() };
    assert_eq!(published.version, 2);
    student.ask(&[&[1.0; 4], &[-1.0; 4]]);
    assert_eq!(student.answer(), Answer { request: 2, version: 2, rows: vec![vec![0.0], vec![1.0]] });
    let other = function(boxed(3), Space::Discrete { n: 2 }, |_, _| {});
    assert!(server.policies.publish("sum", other).is_err(), "other spaces");
    assert!(server.policies.publish("absent", opposite()).is_err());
}

#[test]
fn scripted_policies_teach_any_student_by_name() {
    let server = serve(vec![sum()], |_| {});
    let action = Space::Box { low: vec![-2.0, 0.0], high: vec![2.0, 0.5] };
    let (mut student, _) = server.student(hello("scripted:random", boxed(7), action.clone()));
    student.ask(&[&[0.0; 7]; 100]);
    let rows = student.answer().rows;
    assert!(rows.iter().all(|row| row[0].abs() <= 2.0 && (0.0..=0.5).contains(&row[1])));
    assert!(rows.iter().any(|row| row[0] > 1.0) && rows.iter().any(|row| row[0] < -1.0));
    let (mut student, _) = server.student(hello("scripted:constant:1", boxed(7), Space::Discrete { n: 3 }));
    student.ask(&[&[0.0; 7]; 2]);
    assert_eq!(student.answer().rows, [[1.0], [1.0]]);
    let mut stranger = server.stranger();
    stranger.say(&ClientMessage::Hello(Box::new(hello("scripted:genius", boxed(7), action))));
    assert!(stranger.is_refused(ErrorCode::UnknownPolicy).contains("scripted:random"));
}

#[test]
fn a_student_may_tell_its_stage_and_says_bye() {
    let server = serve(vec![sum()], |_| {});
    let mut student = server.pupil("sum");
    student.say(&ClientMessage::Stage(StageEvent { stage: Stage::Online, step: 7 }));
    student.is_well();
    student.say(&ClientMessage::Bye);
    assert!(matches!(student.hear(), Heard::Closed(1000)));
}
