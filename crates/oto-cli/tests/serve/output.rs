//! A command whose reader leaves before its last line.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

const LOSSES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/losses.json.gz");

#[test]
fn a_reader_that_leaves_is_no_fault() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_oto"))
        .args(["verify", LOSSES, LOSSES])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The pipe is closed before there is anything to print: the report comes when all is computed.
    drop(child.stdout.take());
    let errors =
        BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok).collect::<Vec<_>>();
    assert_eq!(child.wait().unwrap().code(), Some(141), "{errors:?}");
    assert!(errors.is_empty(), "{errors:?}");
}
