//! `oto serve --share` and `oto learn --share` as processes: workers train an agent, which is kept, and a refusal is said.

use crate::program::Program;
use std::path::Path;
use std::process::{Command, Output};

fn learn(url: &str, folder: &Path, flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_oto"))
        .args([
            "learn",
            "--algorithm",
            "a3c",
            "--share",
            url,
            "--agent",
            "pole",
            "--eval-every",
            "0",
            "--force",
        ])
        .args(["--out", folder.to_str().unwrap()])
        .args(flags)
        .output()
        .unwrap()
}

#[test]
fn a_shared_agent_is_trained_kept_and_ends() {
    let folder = std::env::temp_dir().join(format!("oto-share-program-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (file, kept) = (folder.join("pole.toml"), folder.join("pole.safetensors"));
    let text = format!(
        "env = \"CartPole-v1\"\nkeep = {kept:?}\n[student]\nsteps = 1000\nevaluation = {{ every = 500, episodes = 1 }}\n"
    );
    std::fs::write(&file, text).unwrap();
    let share = format!("pole={}", file.display());
    let server = Program::serve(&["--share", &share], &[]);
    let url = format!("ws://{}", server.address);
    let said = |output: &Output| {
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        String::from_utf8_lossy(&text).into_owned()
    };
    let run = folder.join("run");
    let other = learn(&url, &run, &["--steps", "100", "--set", "algorithm.hidden=[7]"]);
    assert!(!other.status.success() && said(&other).contains("agent.trunk.0.weight"), "{}", said(&other));
    let first = learn(&url, &run, &["--steps", "600"]);
    assert!(
        first.status.success() && said(&first).contains("600 steps, 30 gradients sent"),
        "{}",
        said(&first)
    );
    // The run of the agent ends before the worker's.
    let second = learn(&url, &run, &["--steps", "5000"]);
    assert!(
        second.status.success() && said(&second).contains("is over, after 1000 steps"),
        "{}",
        said(&second)
    );
    let late = learn(&url, &run, &["--steps", "100"]);
    assert!(!late.status.success() && said(&late).contains("is over"), "{}", said(&late));
    let log = server.stop();
    assert!(log.contains("a shared agent was evaluated"), "{log}");
    let played = Command::new(env!("CARGO_BIN_EXE_oto"))
        .arg("eval")
        .arg(&kept)
        .args(["--env", "CartPole-v1"])
        .output()
        .unwrap();
    assert!(played.status.success() && said(&played).contains("pole.safetensors"), "{}", said(&played));
    std::fs::remove_dir_all(folder).unwrap();
}
