//! `oto serve --follow` as a process: what it serves of what it kept.

use crate::program::{Place, Program, request};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

const POLICIES: [&str; 3] = ["ppo_cartpole_v1", "ppo_cartpole_v1_early", "sac_inverted_pendulum_v5"];

/// The policies that a server lists, and their versions.
fn listed(server: &Program) -> Vec<(String, u64)> {
    let (_, body) = request(server.address, "GET /policies", "", "");
    let list: Vec<serde_json::Value> = serde_json::from_str(&body).unwrap();
    let entry = |e: &serde_json::Value| (e["name"].as_str().unwrap().into(), e["version"].as_u64().unwrap());
    let mut listed: Vec<_> = list.iter().map(entry).collect();
    listed.sort();
    listed
}

#[test]
fn one_damaged_file_leaves_the_others_served() {
    let place = Place::new("follow");
    // A cloud that will be gone and come back at the same place.
    let port = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap().local_addr().unwrap().port();
    let port = port.to_string();
    let cloud = || Program::serve(&["--share-weights", "--port", &port], &[]);
    let keep = place.0.join("kept");
    let url = format!("ws://127.0.0.1:{port}");
    let flags = ["--follow", &url, "--follow-keep", keep.to_str().unwrap()];
    let wanted = POLICIES.iter().flat_map(|name| ["--policy", name]);
    let flags = flags.into_iter().chain(wanted).collect::<Vec<_>>();
    let all: Vec<_> = POLICIES.iter().map(|name| (name.to_string(), 1)).collect();

    let first = cloud();
    let edge = Program::serve(&flags, &[]);
    assert_eq!(listed(&edge), all);
    drop((first, edge));
    let file = keep.join("ppo%5Fcartpole%5Fv1.kept");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();

    let edge = Program::serve(&flags, &[]);
    assert_eq!(listed(&edge), all[1..], "{}", file.display());
    let _cloud = cloud();
    let start = Instant::now();
    while listed(&edge) != all {
        assert!(start.elapsed() < Duration::from_secs(60), "the damaged one comes from the cloud");
        std::thread::sleep(Duration::from_millis(50));
    }
    let said = edge.stop();
    assert!(said.contains("is damaged"), "{said}");
}
