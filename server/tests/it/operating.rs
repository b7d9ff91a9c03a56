//! What operators have seen inference servers do wrong over days: grow, hold on to peers that do not read, and trip over
//! changes that come at the same time. `docs/reliability.md` has the whole list, with the tests of it that stand elsewhere.

use crate::policies::{boxed, function, loaded, sum, wide};
use crate::process;
use crate::student::{hello, serve};
use oto_policy::Policy;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// A number in place of a policy.
fn says(number: f32) -> Box<dyn Policy> {
    function(boxed(4), boxed(1), move |_, actions| actions.push(number))
}

#[test]
fn versions_that_are_published_from_many_sides_at_once_come_one_after_the_other() {
    const SIDES: u32 = 4;
    const EACH: u32 = 50;
    let server = serve(vec![loaded("number", says(1.0))], |_| {});
    let (left, done) = (AtomicU32::new(SIDES), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for side in 0..SIDES {
            let (server, left, done) = (&server, &left, &done);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                for number in 0..EACH {
                    let tag = (1000 * (side + 1) + number) as f32;
                    match number % 2 {
                        0 => server.policies.publish("number", says(tag)).unwrap(),
                        // A canary for everyone, which the next one ends.
                        _ => drop(
                            runtime.block_on(server.policies.try_on("number", says(tag), 100.0)).unwrap(),
                        ),
                    }
                }
                if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    done.store(true, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..3 {
            scope.spawn(|| {
                let (mut student, _) = server.student(hello("number", boxed(4), boxed(1)));
                let mut last = (0, 0.0);
                while !done.load(Ordering::Relaxed) {
                    student.ask(&[[0.5; 4]; 16]);
                    let answer = student.answer();
                    let tag = answer.rows[0][0];
                    assert!(answer.rows.iter().all(|row| row == &[tag]), "one version for all rows");
                    assert!(answer.version >= last.0, "{} after {}", answer.version, last.0);
                    assert!(answer.version > last.0 || tag == last.1, "a version is one policy");
                    last = (answer.version, tag);
                }
            });
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let last = runtime.block_on(server.policies.try_on("number", says(0.0), 1.0)).unwrap();
    assert!(last > SIDES * EACH, "{last}: each of them had a number");
}

/// No test by itself: a server in a process of its own, for those below.
#[test]
#[ignore = "runs as the child of other tests"]
fn a_server_to_be_weighed() {
    let server = serve(vec![sum(), wide(), loaded("number", says(1.0))], |config| {
        config.limits.max_rows = 1024;
    });
    let policies = server.policies.clone();
    // Versions come and go meanwhile.
    std::thread::spawn(move || {
        for version in 2.. {
            std::thread::sleep(Duration::from_millis(5));
            if policies.publish("number", says(version as f32)).is_err() {
                return;
            }
        }
    });
    process::announce(&server);
}

/// Where a process can be weighed.
#[cfg(target_os = "linux")]
mod memory {
    use super::*;
    use crate::process::Process;
    use crate::student::Student;
    use tungstenite::Message;

    const WEIGHED: &str = "operating::a_server_to_be_weighed";

    /// Students that come, ask, say nonsense and go, politely or not.
    fn visits(process: &Process, visits: usize) {
        for visit in 0..visits {
            let mut student = process.server.pupil("sum");
            student.is_well();
            student.socket.send(Message::binary(vec![1, 2, 3])).unwrap();
            student.error();
            let (mut other, _) = process.server.student(hello("number", boxed(4), boxed(1)));
            other.ask(&[[0.5; 4]; 64]);
            if visit % 2 == 0 {
                other.answer();
                student.say(&oto_proto::ClientMessage::Bye);
                student.hear();
            }
        }
    }

    #[test]
    fn memory_does_not_grow_with_students_that_come_and_go() {
        let process = Process::start(WEIGHED, &[]);
        visits(&process, 300);
        let before = process.resident();
        visits(&process, 1500);
        let after = process.resident();
        // Not a kilobyte for each of 3,000 connections.
        assert!(after < before + (3 << 20), "{before} bytes, then {after}");
        println!("{before} bytes, and {after} after 3,000 more connections");
    }

    /// Asks until the server reads no more of it, and says how often that was.
    fn asks_and_does_not_read(process: &Process) -> (Student, u64) {
        let (mut student, _) = process.server.student(hello("wide", boxed(1), boxed(64)));
        student.socket.get_ref().set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut asked = 0;
        loop {
            let frame = student.frame(&[[1.0]; 1024]);
            if student.socket.send(Message::binary(frame)).is_err() {
                return (student, asked);
            }
            asked += 1;
        }
    }

    #[test]
    fn memory_is_bounded_by_the_credits_of_students_that_do_not_read() {
        const STUDENTS: usize = 16;
        const CREDITS: u64 = 8;
        const ANSWER: u64 = 1024 * 64 * 4;
        let process = Process::start(WEIGHED, &[]);
        process.server.pupil("sum").is_well();
        let before = process.resident();
        let students: Vec<_> = std::thread::scope(|scope| {
            let asking: Vec<_> =
                (0..STUDENTS).map(|_| scope.spawn(|| asks_and_does_not_read(&process))).collect();
            asking.into_iter().map(|asking| asking.join().unwrap()).collect()
        });
        let asked: u64 = students.iter().map(|(_, asked)| asked).sum();
        let after = process.resident();
        // Each of the answers that it has credit for, one that is being written, twice, and the batch they were made in.
        let bound = STUDENTS as u64 * (CREDITS + 2) * ANSWER + (8 << 20);
        assert!(after < before + bound, "{before} bytes, then {after}");
        assert!(asked * ANSWER > 4 * bound, "{asked} answers would not have been too many");
        println!("{before} bytes, and {after} with {STUDENTS} students who do not read {asked} answers");
        process.server.pupil("sum").is_well();
        drop(students);
    }
}
