//! Students that share their replay: what is acknowledged is there, once, whatever happens; all else is refused.

use crate::policies::{boxed, function, loaded, sum};
use crate::process::{self, Process};
use crate::student::{Heard, Student, hello, serve};
use oto_proto::message::{Submitted, Welcome};
use oto_proto::{
    ActionMap, Adapter, BatchId, Dtype, ErrorCode, Grant, Hello, ServerMessage, Space, Transition,
    TransitionFormat,
};
use oto_server::dataset::{DatasetStore, Holding, LogStore, Put, State, StoreError, Submission};
use oto_server::{Collecting, ServerConfig};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tungstenite::Message;

/// A folder of its own, gone at the end.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("oto-submissions-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Folder(std::env::temp_dir().join(name))
    }

    pub fn store(&self) -> LogStore {
        LogStore::open(&self.0, 1 << 30).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

pub fn collect(policy: &str, store: Arc<dyn DatasetStore>) -> impl FnOnce(&mut ServerConfig) {
    let stores = HashMap::from([(policy.to_owned(), store)]);
    |config| config.collecting = Collecting::new(stores)
}

fn asks(policy: &str, observation: Space, action: Space) -> Hello {
    Hello { grants: vec![Grant::Actions, Grant::Submit], ..hello(policy, observation, action) }
}

pub fn sharing() -> Hello {
    asks("sum", boxed(4), Space::Discrete { n: 2 })
}

/// A frame of `rows` transitions that tell which batch they are of.
pub fn frame(student: &mut Student, batch: u128, rows: usize) -> Vec<u8> {
    let hello = &student.hello;
    let format = TransitionFormat::new(&hello.formats().unwrap(), &hello.action);
    student.ids.request += 1;
    let mut frame = Vec::new();
    let mut writer = format.writer(student.ids, BatchId(batch), &mut frame);
    for row in 0..rows {
        let seen = vec![batch as f32 + row as f32; hello.observation.width()];
        let next = vec![batch as f32 + row as f32 + 1.0; hello.observation.width()];
        let (action, terminated) = (&vec![1.0; hello.action.width()][..], row + 1 == rows);
        let transition = Transition {
            observation: &seen,
            action,
            reward: row as f32,
            next_observation: &next,
            terminated,
            truncated: false,
        };
        writer.transition(&transition).unwrap();
    }
    writer.finish().unwrap();
    frame
}

pub fn submission(batch: u128, rows: usize) -> Submission {
    let column = |width: usize, from: f32| (0..rows * width).map(|i| from + (i / width) as f32).collect();
    Submission {
        batch: BatchId(batch),
        student: "test".into(),
        observation: column(4, batch as f32),
        action: vec![1.0; rows],
        reward: column(1, 0.0),
        next_observation: column(4, batch as f32 + 1.0),
        terminated: (0..rows).map(|row| row + 1 == rows).collect(),
        truncated: vec![false; rows],
    }
}

pub fn send(student: &mut Student, frame: Vec<u8>) {
    student.socket.send(Message::binary(frame)).unwrap();
}

/// Reads the acknowledgement of the submission sent last.
fn is_submitted(student: &mut Student, batch: u128) {
    let expected = Submitted { request: student.ids.request, batch: BatchId(batch) };
    let heard = student.hear();
    assert!(matches!(heard, Heard::Message(ServerMessage::Submitted(got)) if got == expected), "{heard:?}");
}

pub fn submits(student: &mut Student, batch: u128, rows: usize) {
    let frame = frame(student, batch, rows);
    send(student, frame);
    is_submitted(student, batch);
}

#[test]
fn a_batch_is_kept_as_it_was_and_counted_once() {
    let folder = Folder::new();
    let mut server = serve(vec![sum()], collect("sum", Arc::new(folder.store())));
    let (mut student, welcome) = server.student(sharing());
    assert_eq!(welcome.grants, [Grant::Actions, Grant::Submit]);
    // Of 16 + 1 + 4 + 16 + 1 bytes each, in a message of 2 MiB.
    assert_eq!(welcome.submit_rows, Some(55_187));
    submits(&mut student, 7, 5);
    submits(&mut student, 8, 1);
    // Sent again, by itself and by another student, even with other rows.
    submits(&mut student, 7, 5);
    submits(&mut server.student(sharing()).0, 8, 3);
    student.is_well();
    server.stop();
    server.join();
    drop((server, student));
    let store = folder.store();
    assert_eq!(store.list(State::Quarantine).unwrap(), [BatchId(7), BatchId(8)]);
    assert_eq!(store.read(BatchId(7)).unwrap(), submission(7, 5));
    assert_eq!(store.read(BatchId(8)).unwrap(), submission(8, 1));
}

#[test]
fn nothing_is_granted_that_was_not_asked_for_or_does_not_fit() {
    let folder = Folder::new();
    let boxes = loaded("boxes", function(boxed(2), boxed(1), |row, actions| actions.push(row[0])));
    let store: Arc<dyn DatasetStore> = Arc::new(folder.store());
    let stores: HashMap<_, _> = ["sum", "boxes"].map(|name| (name.to_owned(), store.clone())).into();
    let server = serve(vec![sum(), loaded("other", sum().policy), boxes], |config| {
        config.collecting = Collecting::new(stores);
    });
    let adapter = |action| Some(Adapter { observation: None, action: Some(action) });
    let narrow = Space::Box { low: vec![-1.0], high: vec![1.0] };
    let refused = [
        Hello { grants: vec![Grant::Actions], ..sharing() },
        Hello { policy: "other".into(), ..sharing() },
        Hello { policy: "scripted:random".into(), ..sharing() },
        Hello { adapter: adapter(ActionMap::Table { map: vec![1, 0] }), ..sharing() },
        // The teacher's box is another, though the identity would clip to it.
        asks("boxes", boxed(2), narrow),
    ];
    for hello in refused {
        let policy = hello.policy.clone();
        let (mut student, Welcome { grants, submit_rows, .. }) = server.student(hello);
        assert_eq!((grants, submit_rows), (vec![Grant::Actions], None), "{policy}");
        let frame = frame(&mut student, 1, 1);
        send(&mut student, frame);
        let error = student.error();
        assert_eq!((error.code, error.request), (ErrorCode::Forbidden, Some(student.ids.request)));
    }
    let identity = Hello { adapter: Some(Adapter::default()), ..sharing() };
    for hello in [sharing(), identity, asks("boxes", boxed(2), boxed(1))] {
        assert!(server.student(hello).1.grants.contains(&Grant::Submit));
    }
    assert!(store.list(State::Quarantine).unwrap().is_empty());
}

#[test]
fn hostile_submissions_are_refused_with_their_place_and_leave_nothing() {
    let folder = Folder::new();
    let store = Arc::new(folder.store());
    let collecting = collect("sum", store.clone());
    let server = serve(vec![sum()], |config| {
        collecting(config);
        // A submission may be too long and still a message that is read.
        config.limits.message_bytes = 64 << 10;
    });
    let (mut student, welcome) = server.student(sharing());
    let good = frame(&mut student, 1, 3);
    let row = 16 + 1 + 4 + 16 + 1;
    let put = |at: usize, bytes: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let nan = f32::NAN.to_le_bytes();
    let many = frame(&mut student, 1, usize::from(welcome.submit_rows.unwrap()) + 1);
    let cases = [
        (good[..good.len() - 1].to_vec(), ErrorCode::BadShape, "frame of 146 bytes, this one has 145"),
        (good[..20].to_vec(), ErrorCode::BadShape, "this one has 20"),
        ([&good[..], &[0]].concat(), ErrorCode::BadShape, "this one has 147"),
        (put(2, &[4]), ErrorCode::BadShape, "4 rows"),
        (put(1, &[Dtype::F16 as u8]), ErrorCode::BadDtype, "F16"),
        (put(8, &[9]), ErrorCode::UnknownPolicy, "policy 0, got one to 9"),
        (put(32 + row + 8, &nan), ErrorCode::NotFinite, "row 1, component 2"),
        (put(32 + 2 * row + 17, &nan), ErrorCode::NotFinite, "row 2, component 5"),
        (put(32 + 21, &nan), ErrorCode::NotFinite, "row 0, component 6"),
        (put(32 + row + 16, &[2]), ErrorCode::OutOfRange, "row 1 names action 2"),
        (put(32 + row - 1, &[8]), ErrorCode::BadMessage, "row 0 ends with 8"),
        (many, ErrorCode::TooLarge, "this one has"),
    ];
    for (frame, code, place) in cases {
        send(&mut student, frame);
        let error = student.error();
        assert_eq!(error.code, code, "{error}");
        assert!(error.message.contains(place) && error.request.is_some(), "{error}");
    }
    // One larger than any message ends its connection, and so does one that stops in the middle.
    let (mut huge, _) = server.student(sharing());
    // The server may hang up before it has all.
    drop(huge.socket.send(Message::binary(vec![4; 3 << 20])));
    while !matches!(huge.hear(), Heard::Closed(_) | Heard::Gone) {}
    let (half, _) = server.student(sharing());
    let mut stream = half.socket.get_ref();
    std::io::Write::write_all(&mut stream, &[0x82, 0xfe, 0x20, 0x00, 1, 2, 3, 4, 4, 1, 2]).unwrap();
    drop(half);
    student.is_well();
    assert!(store.list(State::Quarantine).unwrap().is_empty());
    submits(&mut student, 1, 3);
}

#[test]
fn a_full_store_refuses_and_teaching_goes_on() {
    let folder = Folder::new();
    let store = Arc::new(LogStore::open(&folder.0, 2000).unwrap());
    let server = serve(vec![sum()], collect("sum", store.clone()));
    let (mut student, _) = server.student(sharing());
    submits(&mut student, 1, 10);
    let large = frame(&mut student, 2, 40);
    send(&mut student, large);
    let error = student.error();
    assert_eq!((error.code, error.request), (ErrorCode::TooLarge, Some(student.ids.request)), "{error}");
    student.is_well();
    submits(&mut student, 1, 10);
    assert_eq!(store.list(State::Quarantine).unwrap(), [BatchId(1)]);
}

/// A store that writes when it is told to, or fails.
#[derive(Default)]
struct Slow {
    put: Mutex<Vec<BatchId>>,
    open: Mutex<bool>,
    changed: Condvar,
    broken: bool,
}

impl DatasetStore for Slow {
    fn put(&self, submission: &Submission) -> Result<Put, StoreError> {
        drop(self.changed.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
        assert!(!self.broken, "asked to");
        self.put.lock().unwrap().push(submission.batch);
        Ok(Put::Kept)
    }

    fn list(&self, _: State) -> Result<Vec<BatchId>, StoreError> {
        Ok(self.put.lock().unwrap().clone())
    }

    fn read(&self, batch: BatchId) -> Result<Submission, StoreError> {
        Err(StoreError::Unknown(batch))
    }

    fn judge(&self, batch: BatchId, _: State) -> Result<(), StoreError> {
        Err(StoreError::Unknown(batch))
    }

    fn forget(&self, _: &str) -> Result<usize, StoreError> {
        Ok(0)
    }

    fn summary(&self) -> Result<Vec<Holding>, StoreError> {
        Ok(Vec::new())
    }
}

#[test]
fn students_are_taught_while_a_batch_is_written_and_acknowledged_before_the_server_stops() {
    let slow = Arc::new(Slow::default());
    let mut server = serve(vec![sum()], collect("sum", slow.clone()));
    let (mut student, _) = server.student(sharing());
    let (first, second) = (frame(&mut student, 1, 2), frame(&mut student, 2, 2));
    send(&mut student, first);
    send(&mut student, second);
    let heard = student.hear();
    let request = student.ids.request;
    let busy = |heard: &Heard| matches!(heard, Heard::Message(ServerMessage::Overloaded(o)) if o.request == Some(request));
    assert!(busy(&heard), "one at a time: {heard:?}");
    student.is_well();
    student.ids.request = 1;
    server.stop();
    assert!(matches!(student.hear(), Heard::Message(ServerMessage::Restarting(_))));
    *slow.open.lock().unwrap() = true;
    slow.changed.notify_all();
    is_submitted(&mut student, 1);
    assert!(matches!(student.hear(), Heard::Closed(_)));
    assert_eq!(slow.list(State::Quarantine).unwrap(), [BatchId(1)]);
}

#[test]
fn a_store_that_fails_is_not_the_students_fault() {
    let broken = Slow { open: Mutex::new(true), broken: true, ..Slow::default() };
    let server = serve(vec![sum()], collect("sum", Arc::new(broken)));
    let (mut student, _) = server.student(sharing());
    let frame = frame(&mut student, 1, 2);
    send(&mut student, frame);
    let error = student.error();
    assert_eq!((error.code, error.request), (ErrorCode::Internal, Some(student.ids.request)));
    student.is_well();
}

/// The folder that [`a_server_to_be_killed`] keeps submissions in.
const FOLDER: &str = "OTO_TEST_SUBMISSIONS";

/// No test by itself: a server in a process of its own, for the test below.
#[test]
#[ignore = "runs as the child of another test"]
fn a_server_to_be_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let store = LogStore::open(Path::new(&folder), 1 << 30).unwrap();
    let server = serve(vec![sum()], collect("sum", Arc::new(store)));
    process::announce(&server);
}

#[test]
fn a_server_that_is_killed_loses_nothing_acknowledged_and_counts_nothing_twice() {
    // `cargo xtask soak` asks for more.
    let kills: u64 = std::env::var("OTO_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(12);
    let batches = 25 * u128::from(kills);
    let folder = Folder::new();
    let mut acknowledged = 0;
    let rows = |batch: u128| 1 + (batch as usize * 37) % 200;
    for round in 0..kills {
        let killable =
            Process::start("submissions::a_server_to_be_killed", &[(FOLDER, folder.0.as_os_str())]);
        let (mut student, _) = killable.server.student(sharing());
        let killer = std::thread::spawn(move || {
            // Anywhere within a write; nothing is expected of where.
            std::thread::sleep(Duration::from_micros(round % 24 * 1700));
            drop(killable);
        });
        // Again from before the last acknowledged one: repetitions are the rule after a loss.
        let mut batch = acknowledged - u128::min(acknowledged, 2);
        while batch < batches {
            let frame = frame(&mut student, batch, rows(batch));
            if student.socket.send(Message::binary(frame)).is_err() {
                break;
            }
            match student.hear() {
                Heard::Message(ServerMessage::Submitted(s)) => assert_eq!(s.batch, BatchId(batch)),
                Heard::Gone => break,
                other => panic!("{other:?}"),
            }
            batch += 1;
            acknowledged = acknowledged.max(batch);
        }
        killer.join().unwrap();
        let store = folder.store();
        let kept = store.list(State::Quarantine).unwrap();
        assert!(kept.len() as u128 >= acknowledged, "{} of {acknowledged}", kept.len());
        assert!(kept.len() as u128 <= acknowledged + 1, "only the one in flight may be there, too");
        assert!(store.damage().is_empty());
    }
    assert!(acknowledged > 0);
    let store = folder.store();
    for batch in 0..acknowledged {
        assert_eq!(store.read(BatchId(batch)).unwrap(), submission(batch, rows(batch)));
    }
    println!("covered: submissions acknowledged {acknowledged}, lost 0");
}
