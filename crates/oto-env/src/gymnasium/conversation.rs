//! A process that answers frames: one request, one answer, within a time limit. A thread does the waiting, so that a process
//! that hangs cannot hang the caller, and buffers go back and forth with the frames.

use crate::gymnasium::lines::{Lines, printable};
use std::io::{self, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How much of what the process printed is kept.
const LAST_WORDS: usize = 4096;
/// The longest answer; only a description of large spaces comes near it.
const LONGEST: u32 = 64 << 20;
/// How long a process may take to end by itself once its input has ended, and again once it was told to.
const FAREWELL: Duration = Duration::from_secs(5);
/// How often a process that says nothing is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How often a user hears that a process is still starting.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest sentence or traceback that is kept of an answer.
const LONGEST_SENTENCE: usize = 1 << 16;

/// Where what a process prints, line by line, and what is worth a line about it, is told.
pub type Tell = fn(&str);

/// Why an environment of another process failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BridgeError {
    /// The program cannot be started.
    #[error("cannot start {program}: {reason}; --python or OTO_PYTHON says where Python is")]
    Start {
        /// Its name.
        program: String,
        /// What the operating system said.
        reason: String,
    },
    /// The process says why it does not do what was asked: a sentence, or an exception of the environment's with its traceback.
    #[error("{0}")]
    Refused(String),
    /// An observation that is none.
    #[error(transparent)]
    Observation(#[from] crate::ElementError),
    /// A reward that is none.
    #[error("the reward is {0}, expected a finite number")]
    Reward(f64),
    /// The process is gone.
    #[error("the environment's process ended ({status}){}", words(stderr))]
    Ended {
        /// Its exit status.
        status: String,
        /// The last of what it printed.
        stderr: String,
    },
    /// No answer in time.
    #[error(
        "the environment's process said nothing for {seconds} s and was stopped ({flag} sets the limit){}",
        words(stderr)
    )]
    Hung {
        /// The limit.
        seconds: f64,
        /// The option that sets it.
        flag: &'static str,
        /// The last of what it printed.
        stderr: String,
    },
    /// The answer is none.
    #[error("the environment's process answered with {got}, expected {expected}")]
    Answer {
        /// What an answer is.
        expected: String,
        /// What came.
        got: String,
    },
}

fn words(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!("; its last words: {}", stderr.trim_end()) }
}

/// What a request and its answer lie in.
#[derive(Default)]
struct Frame {
    kind: u8,
    bytes: Vec<u8>,
}

/// A process, and the threads that wait for it. Its environment may start programs of its own: they are of its process group, and
/// end with it.
pub struct Conversation {
    /// What it is, for what is told of it.
    name: String,
    child: Child,
    requests: Option<SyncSender<Frame>>,
    answers: Receiver<io::Result<Frame>>,
    frame: Frame,
    stderr: Arc<Mutex<Vec<u8>>>,
    limits: Limits,
    tell: Tell,
    failed: Option<BridgeError>,
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The first one, which is about the environment's making.
    pub start: Duration,
    /// Each other one.
    pub answer: Duration,
}

impl Conversation {
    /// Starts the process.
    pub fn start(mut command: Command, name: &str, limits: Limits, tell: Tell) -> Result<Self, BridgeError> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(|error| BridgeError::Start {
            program: command.get_program().to_string_lossy().into_owned(),
            reason: error.to_string(),
        })?;
        let (Some(to), Some(from), Some(printed)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            unreachable!("all three were asked for");
        };
        let (requests, asked) = sync_channel(1);
        let (answer, answers) = sync_channel(1);
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let (kept, mut lines) = (stderr.clone(), Lines::new(name, tell));
        std::thread::spawn(move || listen(printed, &kept, &mut lines));
        std::thread::spawn(move || converse(to, from, &asked, &answer));
        Ok(Self {
            name: name.into(),
            child,
            requests: Some(requests),
            answers,
            frame: Frame::default(),
            stderr,
            limits,
            tell,
            failed: None,
        })
    }

    /// Asks, with what `write` puts into the empty buffer, and gives the answer.
    pub fn ask(&mut self, kind: u8, write: impl FnOnce(&mut Vec<u8>)) -> Result<&[u8], BridgeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut frame = std::mem::take(&mut self.frame);
        frame.kind = kind;
        frame.bytes.clear();
        write(&mut frame.bytes);
        // If the thread is gone, the answer says so.
        let sent = self.requests.as_ref().map(|requests| requests.send(frame));
        let starting = kind == b'M';
        let answer = match sent {
            Some(Ok(())) => self.wait(starting),
            _ => Err(RecvTimeoutError::Disconnected),
        };
        match answer {
            Ok(Ok(frame)) => self.frame = frame,
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(self.answered("the kind and the length of an answer", error.to_string()));
            }
            Err(RecvTimeoutError::Timeout) => {
                let (limit, flag) = match starting {
                    true => (self.limits.start, "--env-start-timeout"),
                    false => (self.limits.answer, "--env-timeout"),
                };
                let (seconds, stderr) = (limit.as_secs_f64(), self.last_words());
                return Err(self.fail(BridgeError::Hung { seconds, flag, stderr }));
            }
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
        }
        match self.frame.kind {
            b'E' => {
                let bytes = &self.frame.bytes[..self.frame.bytes.len().min(LONGEST_SENTENCE)];
                Err(BridgeError::Refused(printable(&String::from_utf8_lossy(bytes))))
            }
            got if got == kind => Ok(&self.frame.bytes),
            got => {
                let expected = format!("an answer of kind {:?}", char::from(kind));
                Err(self.answered(&expected, format!("kind {:?}", char::from(got))))
            }
        }
    }

    /// Waits for an answer within its limit. A process that ended without one is noticed though others hold its pipe.
    fn wait(&mut self, starting: bool) -> Result<io::Result<Frame>, RecvTimeoutError> {
        let limit = if starting { self.limits.start } else { self.limits.answer };
        let (begin, mut told, mut gone) = (Instant::now(), PATIENCE, false);
        loop {
            let left = limit.saturating_sub(begin.elapsed());
            match self.answers.recv_timeout(left.min(LOOK)) {
                Err(RecvTimeoutError::Timeout) if gone => return Err(RecvTimeoutError::Disconnected),
                Err(RecvTimeoutError::Timeout) if left <= LOOK => return Err(RecvTimeoutError::Timeout),
                Err(RecvTimeoutError::Timeout) => gone = matches!(self.child.try_wait(), Ok(Some(_))),
                answer => return answer,
            }
            if starting && begin.elapsed() >= told {
                let (name, now, limit) = (&self.name, told.as_secs(), limit.as_secs());
                (self.tell)(&format!("{name}: starting for {now} s (--env-start-timeout allows {limit} s)"));
                told += PATIENCE;
            }
        }
    }

    /// The answer is none: the process is stopped, because nobody knows what it would say next.
    pub fn answered(&mut self, expected: &str, got: String) -> BridgeError {
        self.fail(BridgeError::Answer { expected: expected.into(), got })
    }

    fn fail(&mut self, error: BridgeError) -> BridgeError {
        self.stop(matches!(error, BridgeError::Hung { .. }));
        self.failed = Some(error.clone());
        error
    }

    /// Ends the process. Its input ends, which lets it close its environment; or, where it hangs and does not see that, it is told
    /// to. What is left of it and of the programs that it started is killed, unless it ended well.
    fn stop(&mut self, hangs: bool) {
        self.requests = None;
        let mut status = if hangs { None } else { self.farewell() };
        if status.is_none() {
            self.signal(Farewell::Ask);
            status = self.farewell();
        }
        if !status.is_some_and(|status| status.success()) {
            self.signal(Farewell::Kill);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    #[cfg(unix)]
    fn signal(&self, farewell: Farewell) {
        use rustix::process::{Pid, Signal, kill_process, kill_process_group};
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return };
        // What is gone already needs no signal.
        let _ = match farewell {
            Farewell::Ask => kill_process(pid, Signal::TERM),
            Farewell::Kill => kill_process_group(pid, Signal::KILL),
        };
    }

    #[cfg(not(unix))]
    fn signal(&self, _farewell: Farewell) {}

    /// The pipe is closed: what became of the process.
    fn ended(&mut self) -> BridgeError {
        self.requests = None;
        let status = match self.farewell() {
            Some(status) => status.to_string(),
            None => "it closed its pipe and went on".into(),
        };
        let stderr = self.last_words();
        self.fail(BridgeError::Ended { status, stderr })
    }

    /// Waits a moment for the process to end.
    fn farewell(&mut self) -> Option<std::process::ExitStatus> {
        let start = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(None) if start.elapsed() < FAREWELL => std::thread::sleep(Duration::from_millis(1)),
                ended => return ended.ok().flatten(),
            }
        }
    }

    fn last_words(&self) -> String {
        // What it printed last may still be on its way.
        std::thread::sleep(Duration::from_millis(20));
        let kept = self.stderr.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        printable(&String::from_utf8_lossy(&kept))
    }
}

/// How a process is made to end.
#[derive(Clone, Copy)]
enum Farewell {
    Ask,
    Kill,
}

impl Drop for Conversation {
    fn drop(&mut self) {
        if self.failed.is_none() {
            self.stop(false);
        }
    }
}

/// Carries frames until one of the pipes or the caller is gone.
fn converse(
    mut to: ChildStdin,
    mut from: ChildStdout,
    requests: &Receiver<Frame>,
    answers: &SyncSender<io::Result<Frame>>,
) {
    while let Ok(mut frame) = requests.recv() {
        let result = write(&mut to, &frame).and_then(|()| read(&mut from, &mut frame));
        let over = result.is_err();
        if answers.send(result.map(|()| frame)).is_err() || over {
            return;
        }
    }
}

fn write(to: &mut ChildStdin, frame: &Frame) -> io::Result<()> {
    let mut head = [frame.kind, 0, 0, 0, 0];
    head[1..].copy_from_slice(&(frame.bytes.len() as u32).to_le_bytes());
    to.write_all(&head)?;
    to.write_all(&frame.bytes)?;
    to.flush()
}

fn read(mut from: impl Read, frame: &mut Frame) -> io::Result<()> {
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    if length > LONGEST || !b"MRSE".contains(&head[0]) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the bytes {head:?}")));
    }
    frame.kind = head[0];
    frame.bytes.clear();
    // Grows with what comes, not with what was announced.
    match from.take(length.into()).read_to_end(&mut frame.bytes)? == length as usize {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The answers that these bytes are, as far as they are any.
pub(crate) fn answers(mut bytes: &[u8]) -> impl Iterator<Item = (u8, Vec<u8>)> {
    std::iter::from_fn(move || {
        let mut frame = Frame::default();
        read(&mut bytes, &mut frame).ok().map(|()| (frame.kind, frame.bytes))
    })
}

/// Keeps the last of what is printed, and tells it line by line.
fn listen(mut from: ChildStderr, kept: &Mutex<Vec<u8>>, lines: &mut Lines) {
    let mut chunk = [0; 1024];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        lines.push(&chunk[..count]);
        let mut kept = kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        kept.extend_from_slice(&chunk[..count]);
        let surplus = kept.len().saturating_sub(LAST_WORDS);
        kept.drain(..surplus);
    }
    lines.end();
}
