//! Servers near their students that follow one in the cloud: what they take over, and what they do without it.

use crate::policies::{boxed, function, loaded, sum};
use crate::student::{Heard, Server, hello, request, serve, serve_at, serve_policies};
use crate::submissions::Folder;
use oto_policy::{Loaded, Policy, load_file};
use oto_proto::{ServerMessage, Space};
use oto_server::follow::{Event, FollowConfig, FollowError, Follower, Following, Log};
use oto_server::{Policies, Release, ServerError};
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const EARLY: &str = "ppo_cartpole_v1_early";
const LATE: &str = "ppo_cartpole_v1";

fn teacher(file: &str, name: &str) -> Loaded {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/teachers"));
    Loaded { name: name.into(), ..load_file(&folder.join(format!("{file}.json"))).unwrap() }
}

fn release(loaded: Loaded) -> Release {
    Release { policy: loaded.policy, model: loaded.model, version: 0 }
}

fn quick(address: SocketAddr, policy: &str) -> FollowConfig {
    let moment = Duration::from_millis(5);
    FollowConfig {
        every: moment,
        backoff_min: moment,
        backoff_max: 4 * moment,
        timeout: Duration::from_secs(10),
        ..FollowConfig::new(format!("ws://{address}/v1/teach"), policy)
    }
}

/// What a follower said, kept for a test.
fn listen() -> (Log, Receiver<Event>) {
    let (say, heard) = channel();
    (Box::new(move |event| drop(say.send(event))), heard)
}

/// A server at the edge that follows, and what its follower says.
fn edge(cloud: SocketAddr, policy: &str) -> (Server, Following, Receiver<Event>) {
    let (_stop, stopped) = channel();
    let (mut log, _first) = listen();
    let mut follower = Follower::new(quick(cloud, policy)).unwrap();
    let loaded = follower.first(&stopped, &mut log).unwrap();
    let server = serve(vec![loaded], |_| {});
    let (log, heard) = listen();
    let following = follower.follow(server.policies.clone(), log).unwrap();
    (server, following, heard)
}

fn published(heard: &Receiver<Event>) -> u32 {
    loop {
        if let Event::Published { version, .. } = heard.recv_timeout(Duration::from_secs(20)).unwrap() {
            return version;
        }
    }
}

fn failed(heard: &Receiver<Event>) -> FollowError {
    loop {
        if let Event::Failed { error, .. } = heard.recv_timeout(Duration::from_secs(20)).unwrap() {
            return error;
        }
    }
}

/// What a teacher answers to states that tell the bundled ones apart.
fn answers(server: &Server, policy: &str) -> Vec<f32> {
    let (mut student, _) = server.student(hello(policy, boxed(4), Space::Discrete { n: 2 }));
    student.ask(&states());
    student.answer().rows.concat()
}

fn states() -> Vec<[f32; 4]> {
    (0..200).map(|i| [0.5, -0.9, 0.1, 0.8].map(|x| x * (i as f32 * 0.37).sin())).collect()
}

fn own(mut loaded: Loaded) -> Vec<f32> {
    let mut actions = Vec::new();
    loaded.policy.act(&states().concat(), 200, &mut actions).unwrap();
    actions
}

fn share(config: &mut oto_server::ServerConfig) {
    config.share_weights = true;
}

#[test]
fn bytes_are_shared_only_where_that_was_granted() {
    let closed = serve(vec![teacher(LATE, "a policy")], |_| {});
    let path = "GET /policies/a%20policy/model";
    assert!(request(&closed, path, "").0.starts_with("http/1.1 404"));
    let (_, list) = request(&closed, "GET /policies", "");
    let list: serde_json::Value = serde_json::from_slice(&list).unwrap();
    assert!(list[0].get("model_bytes").is_none());

    let open = serve(vec![teacher(LATE, "a policy"), sum()], share);
    let (head, bytes) = request(&open, path, "");
    assert!(head.starts_with("http/1.1 200") && head.contains("oto-version: 1"), "{head}");
    assert_eq!(Some(bytes), teacher(LATE, "").model, "as they were loaded");
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    let (head, body) = request(&open, path, &format!("if-none-match: \"other\", {tag}\r\n"));
    assert!(head.starts_with("http/1.1 304") && body.is_empty(), "{head}");
    for nothing in ["/policies/sum/model", "/policies/none/model", "/policies/%ff/model", "/policies//model"]
    {
        assert!(request(&open, &format!("GET {nothing}"), "").0.starts_with("http/1.1 404"), "{nothing}");
    }
}

#[test]
fn each_published_version_comes_to_the_edge() {
    let cloud = serve(vec![teacher(EARLY, "cartpole")], share);
    let (edge, _following, heard) = edge(cloud.address, "cartpole");
    let (early, late) = (own(teacher(EARLY, "")), own(teacher(LATE, "")));
    assert_ne!(early, late);
    assert_eq!(answers(&edge, "cartpole"), early);
    let (mut student, welcome) = edge.student(hello("cartpole", boxed(4), Space::Discrete { n: 2 }));
    assert_eq!(welcome.version, 1);
    for (file, expected, version) in [(LATE, &late, 2), (EARLY, &early, 3)] {
        cloud.policies.publish("cartpole", release(teacher(file, ""))).unwrap();
        assert_eq!(published(&heard), version);
        let heard = student.hear();
        assert!(
            matches!(heard, Heard::Message(ServerMessage::Published(p)) if p.version == version),
            "{heard:?}"
        );
        assert_eq!(&answers(&edge, "cartpole"), expected);
    }
}

#[test]
fn an_edge_answers_without_its_cloud_and_follows_again() {
    let mut cloud = serve(vec![teacher(EARLY, "cartpole")], share);
    let address = cloud.address;
    let (edge, _following, heard) = edge(address, "cartpole");
    cloud.stop();
    cloud.join();
    assert!(matches!(failed(&heard), FollowError::Http(_)));
    assert_eq!(answers(&edge, "cartpole"), own(teacher(EARLY, "")));
    // The cloud comes back with another version of the same name, and counts from 1 again.
    let _cloud = serve_at(address, vec![teacher(LATE, "cartpole")], share);
    assert_eq!(published(&heard), 1);
    assert_eq!(answers(&edge, "cartpole"), own(teacher(LATE, "")));
    let (_, welcome) = edge.student(hello("cartpole", boxed(4), Space::Discrete { n: 2 }));
    assert_eq!(welcome.version, 2, "versions only grow");
}

#[test]
fn an_edge_that_kept_a_version_starts_without_its_cloud() {
    let folder = Folder::new();
    let mut cloud = serve(vec![teacher(EARLY, "a policy")], share);
    let address = cloud.address;
    let follower = || {
        let keep = Some(folder.0.clone());
        Follower::new(FollowConfig { keep, ..quick(address, "a policy") }).unwrap()
    };
    let (_stop, stopped) = channel();
    let (mut log, _heard) = listen();
    follower().first(&stopped, &mut log).unwrap();
    cloud.stop();
    cloud.join();

    let (mut log, heard) = listen();
    let mut restarted = follower();
    let loaded = restarted.first(&stopped, &mut log).unwrap();
    assert!(matches!(heard.recv().unwrap(), Event::SavedState { error: FollowError::Http(_), .. }));
    let edge = serve(vec![loaded], |_| {});
    assert_eq!(answers(&edge, "a policy"), own(teacher(EARLY, "")));
    let (log, heard) = listen();
    let _following = restarted.follow(edge.policies.clone(), log).unwrap();
    let _cloud = serve_at(address, vec![teacher(LATE, "a policy")], share);
    published(&heard);
    assert_eq!(answers(&edge, "a policy"), own(teacher(LATE, "")));

    // What is damaged is not what was kept.
    let file = std::fs::read_dir(&folder.0).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let (mut log, heard) = listen();
    let loaded = follower().first(&stopped, &mut log).unwrap();
    assert!(matches!(failed(&heard), FollowError::SavedState(_)));
    assert_eq!(own(loaded), own(teacher(LATE, "")), "it came from the cloud");
}

#[test]
fn an_edge_waits_for_its_first_version() {
    let cloud = serve(vec![sum()], share);
    let address = cloud.address;
    let (_stop, stopped) = channel();
    let (mut log, heard) = listen();
    let mut follower = Follower::new(quick(address, "cartpole")).unwrap();
    let first = std::thread::spawn(move || follower.first(&stopped, &mut log));
    assert!(matches!(failed(&heard), FollowError::NotShared(_)));
    drop(cloud);
    let _cloud = serve_at(address, vec![teacher(LATE, "cartpole")], share);
    let loaded = first.join().unwrap().unwrap();
    assert_eq!(own(loaded), own(teacher(LATE, "")));
    // Told to stop while it waits, it stops.
    let (stop, stopped) = channel();
    let (mut log, _heard) = listen();
    drop(stop);
    let mut follower = Follower::new(quick(address, "nobody")).unwrap();
    assert!(follower.first(&stopped, &mut log).is_none());
    assert!(matches!(Follower::new(FollowConfig::new("nowhere", "x")), Err(FollowError::Address(_))));
}

/// Publishes bytes that are not what they should be beside a policy that is.
fn publishes(cloud: &Server, bytes: Vec<u8>) {
    let policy: Box<dyn Policy> = teacher(LATE, "").policy;
    cloud.policies.publish("cartpole", Release { policy, model: Some(bytes), version: 0 }).unwrap();
}

#[test]
fn a_version_that_cannot_be_used_changes_nothing() {
    let cloud = serve(vec![teacher(EARLY, "cartpole")], share);
    let (edge, _following, heard) = edge(cloud.address, "cartpole");
    let whole = teacher(LATE, "").model.unwrap();
    publishes(&cloud, whole[..whole.len() / 2].to_vec());
    assert!(matches!(failed(&heard), FollowError::Policy(_)));
    // Another teacher's bytes: the pendulum's, which pushes with a force.
    publishes(&cloud, teacher("sac_inverted_pendulum_v5", "").model.unwrap());
    assert!(matches!(failed(&heard), FollowError::Policy(_) | FollowError::Server(_)));
    assert_eq!(answers(&edge, "cartpole"), own(teacher(EARLY, "")));
    publishes(&cloud, whole);
    published(&heard);
    assert_eq!(answers(&edge, "cartpole"), own(teacher(LATE, "")));
}

/// A cloud that announces other bytes than it sends.
#[test]
fn a_damaged_download_is_refused() {
    let model = teacher(LATE, "").model.unwrap();
    let mut damaged = model.clone();
    damaged[1000] ^= 1;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        let tag = "0".repeat(64);
        for (turn, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let metadata =
                std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/teachers/ppo_cartpole_v1.json")).unwrap();
            let mut entry: serde_json::Value = serde_json::from_slice(&metadata).unwrap();
            entry["name"] = "cartpole".into();
            let list = serde_json::to_vec(&vec![entry]).unwrap();
            let body = if head.starts_with(b"GET /policies ") { &list } else { &damaged };
            // Every other time it hangs up in the middle.
            let sent = if turn % 4 == 1 { body.len() / 2 } else { body.len() };
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\netag: \"sha256-{tag}\"\r\noto-version: 1\r\n\r\n",
                body.len()
            );
            drop(stream.write_all(&[head.as_bytes(), &body[..sent]].concat()));
        }
    });
    let (stop, stopped) = channel();
    let (mut log, heard) = listen();
    let mut follower = Follower::new(quick(address, "cartpole")).unwrap();
    let first = std::thread::spawn(move || follower.first(&stopped, &mut log).is_none());
    let kinds = [failed(&heard), failed(&heard)];
    assert!(kinds.iter().any(|error| matches!(error, FollowError::Damaged { .. })), "{kinds:?}");
    assert!(kinds.iter().any(|error| matches!(error, FollowError::Http(_))), "{kinds:?}");
    drop(stop);
    assert!(first.join().unwrap());
}

/// A policy without bytes cannot be followed, and the edge says so.
#[test]
fn what_has_no_bytes_is_not_followed() {
    let plain = loaded("plain", function(boxed(1), boxed(1), |row, actions| actions.push(row[0])));
    let cloud = serve(vec![plain], share);
    let (stop, stopped) = channel();
    let (mut log, heard) = listen();
    let mut follower = Follower::new(quick(cloud.address, "plain")).unwrap();
    let first = std::thread::spawn(move || follower.first(&stopped, &mut log).is_none());
    assert!(matches!(failed(&heard), FollowError::NotShared(_)));
    drop(stop);
    assert!(first.join().unwrap());
}

/// Restarts of both sides, in any order: bytes keep their number, and no number has two meanings.
#[test]
fn a_version_keeps_its_number_over_restarts() {
    let folder = Folder::new();
    let mut cloud = serve(vec![teacher(EARLY, "a policy")], share);
    let address = cloud.address;
    let follower = || {
        let keep = Some(folder.0.clone());
        Follower::new(FollowConfig { keep, ..quick(address, "a policy") }).unwrap()
    };
    for file in [LATE, EARLY, LATE] {
        cloud.policies.publish("a policy", release(teacher(file, ""))).unwrap();
    }
    while cloud.policies.version("a policy") != Some(4) {
        std::thread::yield_now();
    }
    let (_stop, stopped) = channel();
    let (mut log, _heard) = listen();
    let mut first = follower();
    first.first(&stopped, &mut log).unwrap();
    assert_eq!(first.version(), 4, "as the cloud calls it");
    cloud.stop();
    cloud.join();

    let mut restarted = follower();
    let kept = restarted.first(&stopped, &mut log).unwrap();
    assert_eq!(restarted.version(), 4, "as it was kept");
    let policies = Policies::numbered(vec![(kept, restarted.version())], &[]).unwrap();
    assert_eq!(policies.version("a policy"), Some(4));

    // The cloud has forgotten its numbers. The same bytes are version 4 here, others are none that was.
    let cloud = serve_at(address, vec![teacher(LATE, "a policy")], share);
    let mut again = follower();
    again.first(&stopped, &mut log).unwrap();
    assert_eq!(again.version(), 4);
    cloud.policies.publish("a policy", release(teacher(EARLY, ""))).unwrap();
    while cloud.policies.version("a policy") != Some(2) {
        std::thread::yield_now();
    }
    let mut other = follower();
    other.first(&stopped, &mut log).unwrap();
    assert_eq!(other.version(), 5);
}

/// A file from before versions were kept is read, as version 1.
#[test]
fn what_was_kept_without_a_number_is_version_1() {
    let folder = Folder::new();
    std::fs::create_dir_all(&folder.0).unwrap();
    let Loaded { metadata, model, .. } = teacher(LATE, "");
    let (bytes, metadata) = (model.unwrap(), serde_json::json!(metadata));
    let digest = Sha256::new().chain_update(metadata.to_string()).chain_update(&bytes).finalize();
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let line = serde_json::json!({ "sha256": digest, "said": metadata }).to_string();
    std::fs::write(folder.0.join("late.kept"), [line.as_bytes(), b"\n", &bytes].concat()).unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let keep = Some(folder.0.clone());
    let mut follower = Follower::new(FollowConfig { keep, ..quick(nobody, "late") }).unwrap();
    assert!(follower.has_kept());
    let (mut log, _heard) = listen();
    let loaded = follower.look_for_first(true, &mut log).unwrap();
    assert_eq!((own(loaded), follower.version()), (own(teacher(LATE, "")), 1));
}

/// A policy that is still to come keeps nobody from the others, and is answered once it is there.
#[test]
fn a_policy_that_comes_later_has_its_place() {
    let cloud = serve(vec![teacher(LATE, "late")], share);
    let address = cloud.address;
    let (mut log, heard) = listen();
    let mut present = Follower::new(quick(address, "late")).unwrap();
    let mut absent = Follower::new(quick(address, "early")).unwrap();
    let loaded = present.look_for_first(false, &mut log).unwrap();
    absent.look_for_first(false, &mut log).err().unwrap();
    drop(log);
    drop(heard);
    let policies = Policies::numbered(vec![(loaded, present.version())], &["early".into()]).unwrap();
    let edge = serve_policies(policies.clone());
    assert_eq!(answers(&edge, "late"), own(teacher(LATE, "")));
    let refused = edge.refused(hello("early", boxed(4), Space::Discrete { n: 2 }));
    assert!(!refused.code.is_permanent() && refused.message.contains("not come"), "{refused:?}");
    let unknown = edge.refused(hello("other", boxed(4), Space::Discrete { n: 2 }));
    assert!(unknown.code.is_permanent(), "{unknown:?}");

    let (log, heard) = listen();
    let _following = absent.follow(policies.clone(), log).unwrap();
    assert!(matches!(failed(&heard), FollowError::NotShared(_)));
    let mut cloud = cloud;
    cloud.stop();
    cloud.join();
    let _cloud = serve_at(address, vec![teacher(LATE, "late"), teacher(EARLY, "early")], share);
    published(&heard);
    while policies.version("early").is_none() {
        std::thread::yield_now();
    }
    assert_eq!(answers(&edge, "early"), own(teacher(EARLY, "")));
    assert!(matches!(
        Policies::numbered(vec![(teacher(LATE, "late"), 1)], &["late".into()]),
        Err(ServerError::Name(_))
    ));
}
