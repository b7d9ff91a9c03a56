//! An S3-compatible store of a test's own, and what a store of submissions does with it, in good times and in bad ones.

use crate::policies::sum;
use crate::student::{Heard, serve};
use crate::submissions::{collect, frame, send, sharing, submission, submits};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use object_store::aws::AmazonS3Builder;
use oto_proto::{BatchId, ErrorCode, ServerMessage};
use oto_server::dataset::{BucketStore, DatasetStore, Put, State, StoreError, Submission};
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Entries of a page of a listing.
const PAGE: usize = 3;
const ADDRESS: &str = "s3://bucket/some/where";

/// What goes wrong with a request that is not a listing.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It is not done, and answered so.
    Status(u16),
    /// It is done, and the connection closed without an answer.
    Silence,
}

#[derive(Default)]
struct Objects {
    /// By the name behind the bucket's: the bytes, and the second in which they were written.
    held: BTreeMap<String, (Bytes, u32)>,
    seconds: u32,
    /// What happens to the next requests.
    faults: VecDeque<Fault>,
    puts: usize,
}

/// As much of S3 as a store of submissions asks for, strict about signatures and checksums.
struct S3 {
    address: String,
    objects: Arc<Mutex<Objects>>,
    _running: oneshot::Sender<()>,
}

impl S3 {
    fn new() -> Self {
        let objects = Arc::<Mutex<Objects>>::default();
        let (running, ended) = oneshot::channel();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shared = objects.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! { () = accept(listener, shared) => {}, _ = ended => {} }
            });
        });
        S3 { address, objects, _running: running }
    }

    fn settings(&self) -> AmazonS3Builder {
        AmazonS3Builder::new()
            .with_endpoint(&self.address)
            .with_region("nowhere-1")
            .with_access_key_id("key")
            .with_secret_access_key("secret")
    }

    fn store(&self) -> BucketStore {
        BucketStore::with(self.settings(), ADDRESS, 1 << 20).unwrap()
    }

    fn faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.objects.lock().unwrap().faults.extend(faults);
    }

    fn names(&self) -> Vec<String> {
        self.objects.lock().unwrap().held.keys().cloned().collect()
    }
}

async fn accept(listener: std::net::TcpListener, objects: Arc<Mutex<Objects>>) {
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let objects = objects.clone();
        let service = service_fn(move |request| answer(objects.clone(), request));
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
        );
    }
}

type Answer = Response<Full<Bytes>>;

async fn answer(objects: Arc<Mutex<Objects>>, request: Request<Incoming>) -> io::Result<Answer> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let header =
        |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let sum: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
    let signed = header("authorization").starts_with("AWS4-HMAC-SHA256 Credential=key/")
        && header("x-amz-content-sha256") == sum;
    let path = percent_decode_str(head.uri.path()).decode_utf8().unwrap().into_owned();
    let (true, Some(name)) = (signed, path.strip_prefix("/bucket")) else {
        return Ok(plain(403, "<Error><Code>AccessDenied</Code></Error>"));
    };
    let mut objects = objects.lock().unwrap();
    if let Some(query) = head.uri.query().filter(|query| query.contains("list-type=2")) {
        return Ok(objects.list(query));
    }
    let fault = objects.faults.pop_front();
    if let Some(Fault::Status(status)) = fault {
        return Ok(plain(status, "<Error><Code>InternalError</Code></Error>"));
    }
    let done = objects.done(&head.method, name.trim_start_matches('/'), body);
    match fault {
        Some(Fault::Silence) => Err(ErrorKind::ConnectionAborted.into()),
        _ => Ok(done),
    }
}

impl Objects {
    fn done(&mut self, method: &Method, name: &str, body: Bytes) -> Answer {
        match *method {
            Method::PUT => {
                self.seconds += 1;
                self.puts += 1;
                self.held.insert(name.to_owned(), (body, self.seconds));
                plain(200, "")
            }
            Method::GET => match self.held.get(name) {
                Some((bytes, _)) => with(200, bytes.clone()),
                None => plain(404, "<Error><Code>NoSuchKey</Code></Error>"),
            },
            Method::DELETE => {
                self.held.remove(name);
                plain(204, "")
            }
            _ => plain(405, ""),
        }
    }

    fn list(&self, query: &str) -> Answer {
        let value = |key: &str| {
            let found = query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
            percent_decode_str(found.unwrap_or_default()).decode_utf8().unwrap().into_owned()
        };
        let (prefix, after) = (value("prefix"), value("continuation-token"));
        let mut found =
            self.held.iter().filter(|(name, _)| name.starts_with(&prefix) && **name > after).peekable();
        let mut text = String::new();
        let mut last = String::new();
        for (name, (bytes, second)) in found.by_ref().take(PAGE) {
            let (hours, minutes, seconds) = (second / 3600, second / 60 % 60, second % 60);
            let key = name.replace('&', "&amp;").replace('<', "&lt;");
            text += &format!(
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T{hours:02}:{minutes:02}:{seconds:02}.000Z</LastModified><ETag>\"e\"</ETag><Size>{}</Size></Contents>",
                bytes.len()
            );
            last = key;
        }
        let more = match found.peek() {
            Some(_) => format!(
                "<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>"
            ),
            None => "<IsTruncated>false</IsTruncated>".into(),
        };
        plain(200, &format!("<ListBucketResult>{more}{text}</ListBucketResult>"))
    }
}

fn plain(status: u16, text: &str) -> Answer {
    with(status, Bytes::from(text.to_owned()))
}

fn with(status: u16, bytes: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(bytes));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer.headers_mut().insert("etag", "\"e\"".parse().unwrap());
    answer.headers_mut().insert("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT".parse().unwrap());
    answer
}

fn from(student: &str, batch: u128) -> Submission {
    Submission { student: student.into(), ..submission(batch, 3) }
}

fn ids(names: &[u128]) -> Vec<BatchId> {
    names.iter().copied().map(BatchId).collect()
}

fn holds(store: &BucketStore, expected: [&[u128]; 3]) {
    let states = [State::Quarantine, State::Accepted, State::Rejected];
    assert_eq!(states.map(|state| store.list(state).unwrap()), expected.map(ids));
}

#[test]
fn batches_and_their_states_outlive_the_server() {
    let s3 = S3::new();
    let store = s3.store();
    // In the order in which they came, which is not that of their names.
    let students = ["", "a/b", "..", "ü & <x>", "100 %25", "plain-name-0"];
    for (name, student) in [5, 6, 4, 3, 2, 1].into_iter().zip(students) {
        assert_eq!(store.put(&from(student, name)).unwrap(), Put::Kept);
    }
    store.judge(BatchId(4), State::Accepted).unwrap();
    store.judge(BatchId(3), State::Accepted).unwrap();
    store.judge(BatchId(3), State::Rejected).unwrap();
    store.judge(BatchId(2), State::Rejected).unwrap();
    store.judge(BatchId(2), State::Quarantine).unwrap();
    assert!(matches!(store.judge(BatchId(9), State::Accepted), Err(StoreError::Unknown(BatchId(9)))));
    assert!(matches!(store.read(BatchId(9)), Err(StoreError::Unknown(BatchId(9)))));
    for store in [store, s3.store()] {
        holds(&store, [&[5, 6, 2, 1], &[4], &[3]]);
        for (name, student) in [5, 6, 4, 3, 2, 1].into_iter().zip(students) {
            assert_eq!(store.read(BatchId(name)).unwrap(), from(student, name));
            assert_eq!(store.put(&from("another", name)).unwrap(), Put::Known, "in every state");
        }
        let held = store.summary().unwrap();
        assert_eq!(held.iter().map(|h| (h.batches, h.transitions)).collect::<Vec<_>>(), [(1, 3); 6]);
    }
    assert!(s3.names().iter().all(|name| name.starts_with("some/where/")));
}

#[test]
fn a_student_can_be_forgotten() {
    let s3 = S3::new();
    let store = s3.store();
    (1..=8).for_each(|name| {
        assert_eq!(store.put(&from(if name % 2 == 0 { "even" } else { "odd" }, name)).unwrap(), Put::Kept)
    });
    store.judge(BatchId(2), State::Accepted).unwrap();
    store.judge(BatchId(3), State::Accepted).unwrap();
    // A batch that is there although its writing seemed to fail goes, too.
    s3.faults([Fault::Silence; 5]);
    assert!(matches!(store.put(&from("even", 10)), Err(StoreError::Away { .. })));
    assert_eq!((store.forget("even").unwrap(), store.forget("even").unwrap()), (4, 0));
    assert!(!s3.names().iter().any(|name| name.contains("even")), "{:?}", s3.names());
    let check = |store: &BucketStore| {
        holds(store, [&[1, 5, 7], &[3], &[]]);
        assert_eq!(store.put(&from("even", 2)).unwrap(), Put::Known, "it does not come again");
        assert!(matches!(store.read(BatchId(2)), Err(StoreError::Unknown(_))));
        let held: Vec<_> =
            store.summary().unwrap().iter().map(|h| (h.student.clone(), h.state, h.batches)).collect();
        assert_eq!(held, [("odd".into(), State::Quarantine, 3), ("odd".into(), State::Accepted, 1)]);
    };
    check(&store);
    check(&s3.store());
    // Forgetting was cut off when only the marks were there.
    let name = s3.names().into_iter().find(|name| name.contains("odd")).unwrap();
    let batch = name.rsplit('/').next().unwrap().split('-').next().unwrap();
    s3.objects.lock().unwrap().held.insert(format!("some/where/forgotten/{batch}"), (Bytes::new(), 99));
    holds(&s3.store(), [&[5, 7], &[3], &[]]);
    assert!(!s3.names().contains(&name), "what was left of it goes when the store is opened");
}

#[test]
fn what_fails_for_a_while_is_tried_again_and_what_fails_for_long_is_told() {
    let s3 = S3::new();
    let store = s3.store();
    s3.faults([Fault::Status(503), Fault::Status(500), Fault::Silence]);
    assert_eq!(store.put(&from("one", 1)).unwrap(), Put::Kept);
    assert_eq!(s3.objects.lock().unwrap().puts, 2, "written twice, under one name");
    assert_eq!(s3.names().len(), 1);
    s3.faults([Fault::Status(503); 5]);
    let error = store.put(&from("one", 2)).unwrap_err();
    assert!(matches!(&error, StoreError::Away { address, .. } if address == ADDRESS), "{error}");
    s3.faults([Fault::Status(403)]);
    assert!(matches!(store.put(&from("one", 2)), Err(StoreError::Away { .. })), "not tried again");
    assert!(s3.objects.lock().unwrap().faults.is_empty());
    holds(&store, [&[1], &[], &[]]);
    assert_eq!(store.put(&from("one", 2)).unwrap(), Put::Kept);
    holds(&store, [&[1, 2], &[], &[]]);
    s3.faults([Fault::Status(503); 5]);
    assert!(matches!(store.judge(BatchId(1), State::Accepted), Err(StoreError::Away { .. })));
    holds(&store, [&[1, 2], &[], &[]]);
    s3.faults([Fault::Status(503); 5]);
    assert!(matches!(store.read(BatchId(1)), Err(StoreError::Away { .. })));
    // Answers that were lost leave two judgements for one moment; of two at once, the stricter holds.
    s3.objects.lock().unwrap().held.extend([
        (format!("some/where/judged/{}-accepted", BatchId(2)), (Bytes::new(), 9)),
        (format!("some/where/judged/{}-rejected", BatchId(2)), (Bytes::new(), 9)),
        ("some/where/judged/of nobody".into(), (Bytes::new(), 9)),
        ("some/where/batch/of nobody".into(), (Bytes::new(), 9)),
    ]);
    holds(&s3.store(), [&[1], &[], &[2]]);
}

#[test]
fn what_is_damaged_or_gone_is_told_and_the_rest_is_there() {
    let s3 = S3::new();
    let store = s3.store();
    (1..=3).for_each(|name| assert_eq!(store.put(&from("one", name)).unwrap(), Put::Kept));
    let names = s3.names();
    let mut bytes = s3.objects.lock().unwrap().held[&names[0]].0.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    s3.objects.lock().unwrap().held.insert(names[0].clone(), (bytes.into(), 1));
    s3.objects.lock().unwrap().held.remove(&names[1]);
    for name in [1, 2] {
        assert!(matches!(store.read(BatchId(name)), Err(StoreError::Corrupt { .. })));
    }
    assert_eq!(store.read(BatchId(3)).unwrap(), from("one", 3));
}

#[test]
fn what_does_not_fit_is_refused() {
    let s3 = S3::new();
    s3.store().put(&from("one", 1)).unwrap();
    let held = s3.store().summary().unwrap()[0].bytes;
    let store = BucketStore::with(s3.settings(), ADDRESS, 2 * held).unwrap();
    s3.faults([Fault::Status(403)]);
    assert!(store.put(&from("one", 2)).is_err());
    assert_eq!(store.put(&from("one", 2)).unwrap(), Put::Kept, "what failed takes no room");
    assert!(matches!(store.put(&from("one", 3)), Err(StoreError::Full { .. })));
    assert_eq!(store.put(&from("one", 2)).unwrap(), Put::Known, "what is there needs no room");
    let mut spoilt = from("one", 4);
    spoilt.reward[1] = f32::NAN;
    assert!(matches!(store.put(&spoilt), Err(StoreError::Misshapen(BatchId(4)))));
    store.forget("one").unwrap();
    assert_eq!(store.put(&from("one", 3)).unwrap(), Put::Kept);
}

#[test]
fn threads_put_together() {
    let s3 = S3::new();
    let store = s3.store();
    let put = |name: u128| store.put(&from("one", name)).unwrap();
    let kept: usize = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..20).filter(|name| put(*name) == Put::Kept).count())).collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(
        (kept, store.list(State::Quarantine).unwrap().len(), s3.objects.lock().unwrap().puts),
        (20, 20, 20),
        "each once"
    );
}

#[test]
fn an_address_that_is_none_and_secrets_over_plain_http_are_refused() {
    let s3 = S3::new();
    for address in ["s3://", "s3:///prefix", "https://bucket/prefix", ""] {
        assert!(
            matches!(BucketStore::with(s3.settings(), address, 1), Err(StoreError::Away { .. })),
            "{address}"
        );
    }
    let elsewhere = s3.settings().with_endpoint("http://192.0.2.1:9000");
    let error = BucketStore::with(elsewhere, ADDRESS, 1).unwrap_err().to_string();
    assert!(error.contains("http"), "{error}");
}

#[test]
fn a_student_hears_that_its_batch_is_kept_once_the_bucket_has_it() {
    let s3 = S3::new();
    let mut server = serve(vec![sum()], collect("sum", Arc::new(s3.store())));
    let (mut student, _) = server.student(sharing());
    submits(&mut student, 7, 5);
    assert_eq!(s3.store().read(BatchId(7)).unwrap(), submission(7, 5));
    s3.faults([Fault::Status(403)]);
    let sent = frame(&mut student, 8, 2);
    send(&mut student, sent.clone());
    let heard = student.hear();
    let refused = |heard: &Heard| matches!(heard, Heard::Message(ServerMessage::Error(e)) if e.code == ErrorCode::Internal);
    assert!(refused(&heard), "{heard:?}");
    student.is_well();
    submits(&mut student, 8, 2);
    server.stop();
    server.join();
    holds(&s3.store(), [&[7, 8], &[], &[]]);
}
