//! `oto serve --learn` and `oto act` as processes: an edge learns, is killed, is replaced, and loses no acknowledged row.

use crate::program::{PATIENCE, Program, request};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const TOKEN: &str = "an operator's token of many bytes";

/// A folder of its own, deleted at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("oto-cloud-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server with a learner of Pendulum-v1, and its operator's address.
struct Cloud {
    program: Program,
    admin: SocketAddr,
}

impl Cloud {
    fn new(folder: &Folder, settings: &str, flags: &[&str]) -> Self {
        let keep = folder.0.join("kept");
        let text = format!(
            r#"{{"env": "Pendulum-v1", "reward": "pendulum", "keep": {keep:?}, "checkpoint_seconds": 0.5,
            "algorithm": {{"name": "ddpg", "hidden": [64, 64], "batch_size": 64}},
            "learning_starts": 200, "exploration": {{"epsilon": {{"start": 1, "end": 0, "steps": 200}}}}{settings}}}"#
        );
        let file = folder.write("learner.json", &text);
        let learn = format!("pendulum={}", file.display());
        let token = folder.write("token", TOKEN);
        let token = token.to_str().unwrap();
        let all = [&["--learn", &learn, "--admin", "127.0.0.1:0", "--admin-token", token], flags].concat();
        let mut program = Program::serve(&all, &[]);
        let admin = program.listens("operators: http://");
        Cloud { program, admin }
    }

    fn url(&self) -> String {
        format!("ws://{}", self.program.address)
    }

    fn operate(&self, line: &str) -> (u16, String) {
        request(self.admin, line, &format!("authorization: Bearer {TOKEN}\r\n"), "")
    }

    /// What the server says of an edge.
    fn edge(&self, name: &str) -> Option<Value> {
        let (status, body) = self.operate("GET /learners");
        assert_eq!(status, 200, "{body}");
        let list: Value = serde_json::from_str(&body).unwrap();
        list[0]["edges"].as_array().unwrap().iter().find(|edge| edge["edge"] == name).cloned()
    }

    /// A number of the learner's metrics.
    fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.operate("GET /metrics");
        let begins = format!("oto_learner_{name}{{policy=\"pendulum\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&begins));
        line.unwrap_or_else(|| panic!("no {begins} in\n{text}")).parse().unwrap()
    }
}

/// A running `oto act` of Pendulum-v1, killed at the end.
struct Edge {
    child: Child,
    lines: Receiver<Value>,
}

impl Edge {
    fn act(url: &str, flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let env = if flags.contains(&"--env") { &[][..] } else { &["--env", "Pendulum-v1"] };
        let mut child = Command::new(env!("CARGO_BIN_EXE_oto"))
            .args(["act", url, "--policy", "pendulum", "--json", "--every", "0.1"])
            .args(env)
            .args(flags)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (say, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if say.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        Edge { child, lines }
    }

    /// The first line for which this holds.
    fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        let mut last = Value::Null;
        while start.elapsed() < 2 * PATIENCE {
            match self.lines.recv_timeout(Duration::from_secs(1)) {
                Ok(line) if holds(&line) => return line,
                Ok(line) => last = line,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                Err(_) => break,
            }
        }
        panic!("an edge never said {what}; the last line is {last}");
    }

    fn end(self) -> Value {
        self.until("that it ended", |line| line["event"] == "end")
    }

    /// Waits for its end, and gives what it wrote on standard error.
    fn refused(mut self) -> String {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.child.stderr.take().unwrap(), &mut text).unwrap();
        assert!(!self.child.wait().unwrap().success(), "{text}");
        text
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits until this holds.
fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("expected a number, got {value}"))
}

/// An edge that acts as fast as the learner keeps up swings the pendulum up: random actions give about -1,200 an episode.
#[test]
fn an_edge_learns_from_the_cloud() {
    let folder = Folder::new("learns");
    let cloud = Cloud::new(&folder, "", &[]);
    let edge = Edge::act(
        &cloud.url(),
        &["--hz", "0", "--steps", "12000", "--evaluate-every", "2", "--seed", "3"],
        &[],
    );
    let good =
        edge.until("that it has learned", |line| line["evaluation"].as_f64().is_some_and(|e| e > -400.0));
    assert!(number(&good["steps"]) > 500, "{good}");
    // Told to end, it sends what it has and says goodbye.
    edge.signal("-INT");
    let end = edge.end();
    assert_eq!(end["held"], 0, "{end}");
    assert_eq!(end["recorded"], end["acknowledged"]);
    let known = cloud.edge("edge").unwrap();
    assert_eq!(known["rows"], end["recorded"], "{known}");
    wait("all is counted", || cloud.metric("rows") as u64 == number(&end["recorded"]));
    wait("the backlog is worked off", || cloud.metric("backlog") == 0.0);
    assert!(cloud.metric("updates") > 500.0);
    assert!(
        cloud.metric("pushes_total") >= cloud.metric("applied_total") && cloud.metric("applied_total") > 10.0
    );
    assert!(cloud.metric("staleness_count") > 10.0);
}

/// The server is killed twice in the middle. The edge goes on with its weights, and at the end each row counts once.
#[test]
fn a_killed_server_loses_no_acknowledged_row() {
    let folder = Folder::new("killed");
    let mut cloud = Cloud::new(&folder, "", &[]);
    let port = cloud.program.address.port().to_string();
    let edge = Edge::act(&cloud.url(), &["--hz", "500", "--steps", "4000"], &[]);
    for rows in [600, 1_800] {
        edge.until("enough rows", |line| number(&line["acknowledged"]) > rows);
        let known = number(&cloud.edge("edge").unwrap()["next"]);
        // Killed without a word.
        drop(cloud);
        cloud = Cloud::new(&folder, "", &["--port", &port]);
        let next = number(&cloud.edge("edge").unwrap()["next"]);
        assert!(next >= known, "{next} rows after the restart, {known} before");
    }
    let end = edge.end();
    assert_eq!((&end["steps"], &end["held"]), (&4_000.into(), &0.into()), "{end}");
    assert_eq!(end["link"]["rows_dropped"], 0, "{end}");
    let known = cloud.edge("edge").unwrap();
    assert_eq!((&known["rows"], &known["next"]), (&end["recorded"], &end["recorded"]), "{known} {end}");
    assert!(number(&end["version"]) > 1 && number(&end["link"]["sessions"]) >= 3, "{end}");
    cloud.program.stop();
}

/// An edge that was killed is replaced at once by one of the same name, and of two the newer one stays.
#[test]
fn a_replaced_edge_takes_over() {
    let folder = Folder::new("replaced");
    let cloud = Cloud::new(&folder, "", &[]);
    let flags = ["--hz", "200", "--steps", "100000", "--ring", "2000"];
    let first = Edge::act(&cloud.url(), &flags, &[]);
    first.until("that it acts", |line| number(&line["version"]) > 0);
    first.signal("-KILL");
    let start = Instant::now();
    let second = Edge::act(&cloud.url(), &flags, &[]);
    second.until("that it acts", |line| number(&line["version"]) > 0);
    assert!(start.elapsed() < PATIENCE / 2);
    let stream = cloud.edge("edge").unwrap()["stream"].clone();
    let third = Edge::act(&cloud.url(), &flags, &[]);
    third.until("that it acts", |line| number(&line["version"]) > 0);
    let said = second.refused();
    assert!(said.contains("replaced"), "{said}");
    let known = cloud.edge("edge").unwrap();
    assert!(known["stream"] != stream && number(&known["session"]) >= 3, "{known}");

    // The operator's commands.
    assert_eq!(cloud.operate("POST /learners/pendulum/edges/edge/pause").0, 200);
    let steps = |cloud: &Cloud| number(&cloud.edge("edge").unwrap()["steps"]);
    let (before, rows) = (steps(&cloud), number(&cloud.edge("edge").unwrap()["rows"]));
    wait("rows are taken", || number(&cloud.edge("edge").unwrap()["rows"]) > rows + 50);
    assert_eq!(steps(&cloud), before, "and not learned from");
    assert_eq!(cloud.operate("POST /learners/pendulum/edges/edge/resume").0, 200);
    wait("they are learned from again", || steps(&cloud) > before);
    assert_eq!(cloud.operate("POST /learners/pendulum/edges/nobody/pause").0, 404);
    assert_eq!(cloud.operate("DELETE /learners/other/edges/edge").0, 404);
    assert_eq!(cloud.operate("DELETE /learners/pendulum/edges/edge").0, 200);
    let said = third.refused();
    assert!(said.contains("dropped this edge"), "{said}");
    assert_eq!(cloud.edge("edge"), None);
}

/// Without the grants neither rows nor weights pass; nor do they where the plant is another one.
#[test]
fn an_edge_needs_its_grants_and_its_plant() {
    let folder = Folder::new("grants");
    let machine = |name: &str, grants: &str| {
        format!(r#"{{"name": "{name}", "token_env": "TOKEN_{name}", "grants": [{grants}]}}"#)
    };
    let [full, poor] = [machine("full", r#""transitions", "weights""#), machine("poor", r#""submit""#)];
    let access = folder.write("access.json", &format!(r#"{{"machines": [{full}, {poor}]}}"#));
    let flags = ["--access", access.to_str().unwrap()];
    let tokens = [("TOKEN_full", "a full token of an edge"), ("TOKEN_poor", "a poor token of an edge")];
    let file =
        folder.write("learner.toml", "env = \"Pendulum-v1\"\nreward = \"pendulum\"\nalgorithm = \"ddpg\"\n");
    let learn = format!("pendulum={}", file.display());
    let program = Program::serve(&[&["--learn", &learn], &flags[..]].concat(), &tokens);
    let url = format!("ws://{}", program.address);
    let flags = ["--hz", "100", "--steps", "50"];
    let with = |token: &'static str| [("OTO_TOKEN", token)];
    let said = Edge::act(&url, &flags, &with("a poor token of an edge")).refused();
    assert!(said.contains("transitions") && said.contains("weights"), "{said}");
    let said = Edge::act(&url, &flags, &[]).refused();
    assert!(said.contains("ticket or a token"), "{said}");
    let end = Edge::act(&url, &flags, &with("a full token of an edge")).end();
    assert_eq!(end["acknowledged"], end["recorded"], "{end}");
    let other = Edge::act(&url, &["--env", "MountainCarContinuous-v0"], &with("a full token of an edge"));
    let said = other.refused();
    assert!(said.contains("expected an environment with 3 numbers"), "{said}");
}

/// Without `--hz` an edge steps as often as the learner's file says.
#[test]
fn an_edge_takes_the_learners_frequency() {
    let folder = Folder::new("hz");
    let cloud = Cloud::new(&folder, r#", "hz": 125"#, &[]);
    let edge = Edge::act(&cloud.url(), &["--steps", "300"], &[]);
    edge.until("the learner's frequency", |line| line["hz"] == 125.0);
    assert_eq!(edge.end()["steps"], 300);
    // What the edge leaves is a policy.
    let file = folder.0.join("edge.safetensors");
    let save = ["--steps", "100", "--hz", "50", "--save", file.to_str().unwrap()];
    let mut own = Edge::act(&cloud.url(), &save, &[]);
    let end = own.until("that it ended", |line| line["event"] == "end");
    assert_eq!(end["hz"], 50.0, "{end}");
    assert!(own.child.wait().unwrap().success());
    let eval = Command::new(env!("CARGO_BIN_EXE_oto"))
        .args(["eval", file.to_str().unwrap(), "--env", "Pendulum-v1", "--episodes", "2"])
        .output()
        .unwrap();
    assert!(eval.status.success(), "{}", String::from_utf8_lossy(&eval.stderr));
}
