//! A process that answers frames: one request, one answer, within a time limit. A thread does the waiting, so that a process
//! that hangs cannot hang the caller, and buffers go back and forth with the frames.

use std::io::{self, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How much of what the process printed is kept.
const LAST_WORDS: usize = 4096;
/// The longest answer; only a description of large spaces comes near it.
const LONGEST: u32 = 64 << 20;
/// How long a process may take to end by itself.
const FAREWELL: Duration = Duration::from_secs(1);

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
    /// The process says why it does not do what was asked.
    #[error("{0}")]
    Refused(String),
    /// The process is gone.
    #[error("the environment's process ended ({status}){}", words(stderr))]
    Ended {
        /// Its exit status.
        status: String,
        /// The last of what it printed.
        stderr: String,
    },
    /// No answer in time.
    #[error("the environment's process said nothing for {seconds} s and was stopped{}", words(stderr))]
    Hung {
        /// The limit.
        seconds: f64,
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

/// A process, and the thread that waits for it.
pub struct Conversation {
    child: Child,
    requests: Option<SyncSender<Frame>>,
    answers: Receiver<io::Result<Frame>>,
    frame: Frame,
    stderr: Arc<Mutex<Vec<u8>>>,
    limit: Duration,
    failed: Option<BridgeError>,
}

impl Conversation {
    /// Starts the process; each answer must come within `limit`.
    pub fn start(mut command: Command, limit: Duration) -> Result<Self, BridgeError> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
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
        let kept = stderr.clone();
        std::thread::spawn(move || listen(printed, &kept));
        std::thread::spawn(move || converse(to, from, &asked, &answer));
        let requests = Some(requests);
        Ok(Self { child, requests, answers, frame: Frame::default(), stderr, limit, failed: None })
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
        let answer = match sent {
            Some(Ok(())) => self.answers.recv_timeout(self.limit),
            _ => Err(RecvTimeoutError::Disconnected),
        };
        match answer {
            Ok(Ok(frame)) => self.frame = frame,
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(self.answered("the kind and the length of an answer", error.to_string()));
            }
            Err(RecvTimeoutError::Timeout) => {
                let (seconds, stderr) = (self.limit.as_secs_f64(), self.last_words());
                return Err(self.fail(BridgeError::Hung { seconds, stderr }));
            }
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => return Err(self.ended()),
        }
        match self.frame.kind {
            b'E' => Err(BridgeError::Refused(String::from_utf8_lossy(&self.frame.bytes).into_owned())),
            got if got == kind => Ok(&self.frame.bytes),
            got => {
                let expected = format!("an answer of kind {:?}", char::from(kind));
                Err(self.answered(&expected, format!("kind {:?}", char::from(got))))
            }
        }
    }

    /// The answer is none: the process is stopped, because nobody knows what it would say next.
    pub fn answered(&mut self, expected: &str, got: String) -> BridgeError {
        self.fail(BridgeError::Answer { expected: expected.into(), got })
    }

    fn fail(&mut self, error: BridgeError) -> BridgeError {
        self.requests = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.failed = Some(error.clone());
        error
    }

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
        String::from_utf8_lossy(&kept).into_owned()
    }
}

impl Drop for Conversation {
    /// The process sees its input end; if that is not enough, it is stopped.
    fn drop(&mut self) {
        self.requests = None;
        if self.failed.is_none() && self.farewell().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
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

/// Keeps the last of what is printed.
fn listen(mut from: ChildStderr, kept: &Mutex<Vec<u8>>) {
    let mut chunk = [0; 1024];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        let mut kept = kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        kept.extend_from_slice(&chunk[..count]);
        let surplus = kept.len().saturating_sub(LAST_WORDS);
        kept.drain(..surplus);
    }
}
