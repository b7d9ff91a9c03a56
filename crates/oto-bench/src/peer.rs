//! Contestants in other languages: a process that gets one JSON line for every question and answers with one.
//!
//! | question | answer |
//! | --- | --- |
//! | `{"workload": ...}`, first of all | `{"ready": "what it is"}` |
//! | `{"check": true}` | `{"loss": ..., "state": [{"name": ..., "values": ...}]}` after one update from the start |
//! | `{"run": n}` | `{"seconds": ...}` that n more updates took |
//!
//! `{"error": "..."}` answers anything that failed. The end of its input ends the process.

use crate::measure::{Contestant, Failure, Outcome};
use crate::workload::Workload;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// A running peer.
pub struct Peer {
    name: String,
    /// What it says it is, with its version.
    pub description: String,
    process: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts `command` on `workload`.
    pub fn start(name: &str, command: Command, workload: &Workload) -> Result<Self, Failure> {
        let mut peer = Self::spawn(name, command)?;
        let answer = peer.ask(&json!({ "workload": workload.to_json() }))?;
        peer.description = answer["ready"].as_str().unwrap_or_default().into();
        Ok(peer)
    }

    /// Starts `command`, which says what it is without a question.
    pub(crate) fn ready(name: &str, command: Command) -> Result<Self, Failure> {
        let mut peer = Self::spawn(name, command)?;
        let answer = peer.answer()?;
        peer.description = answer["ready"].as_str().unwrap_or_default().into();
        Ok(peer)
    }

    fn spawn(name: &str, mut command: Command) -> Result<Self, Failure> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let failed = |e: String| Failure::Peer(format!("{name}: {e}"));
        let mut process = command.spawn().map_err(|e| failed(e.to_string()))?;
        let (Some(questions), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(failed("no pipe".into()));
        };
        Ok(Self {
            name: name.into(),
            description: String::new(),
            process,
            questions: Some(questions),
            answers: BufReader::new(answers),
        })
    }

    fn failed(&self, what: impl std::fmt::Display) -> Failure {
        Failure::Peer(format!("{}: {what}", self.name))
    }

    pub(crate) fn ask(&mut self, question: &Value) -> Result<Value, Failure> {
        let mut send = || {
            let questions = self.questions.as_mut().expect("open until it is dropped");
            writeln!(questions, "{question}")?;
            questions.flush()
        };
        send().map_err(|e| self.failed(e))?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Value, Failure> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line).map_err(|e| self.failed(e))?;
        if read == 0 {
            return Err(self.failed("it ended without an answer"));
        }
        let answer: Value = serde_json::from_str(&line).map_err(|e| self.failed(format!("{e}: {line}")))?;
        match answer["error"].as_str() {
            Some(error) => Err(self.failed(error)),
            None => Ok(answer),
        }
    }
}

impl Contestant for Peer {
    fn name(&self) -> &str {
        &self.name
    }

    fn check(&mut self) -> Result<Outcome, Failure> {
        let answer = self.ask(&json!({ "check": true }))?;
        let number = |v: &Value| v.as_f64().map_or(f32::NAN, |x| x as f32);
        let tensor = |t: &Value| {
            let values = t["values"].as_array().map(|v| v.iter().map(number).collect());
            (t["name"].as_str().unwrap_or_default().to_string(), values.unwrap_or_default())
        };
        let state = answer["state"].as_array().map(|s| s.iter().map(tensor).collect::<Vec<_>>());
        let state = state.filter(|s| !s.is_empty()).ok_or_else(|| self.failed("no state came"))?;
        Ok(Outcome { loss: number(&answer["loss"]), state })
    }

    fn run(&mut self, updates: u32) -> Result<Duration, Failure> {
        let answer = self.ask(&json!({ "run": updates }))?;
        let seconds = answer["seconds"].as_f64().and_then(|s| Duration::try_from_secs_f64(s).ok());
        seconds.ok_or_else(|| self.failed(format!("no seconds in {answer}")))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Its input ends, and so does it.
        self.questions = None;
        // Whether it ended well does not matter any more.
        let _ = self.process.wait();
    }
}
