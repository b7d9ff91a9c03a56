//! Drives a student in a process of its own: wires to its teachers, the clock, and the wait for labels that are due.

use crate::link::Link;
use crate::link::memory::Memory;
use crate::link::tungstenite::{AddressError, Socket};
use crate::student::{Student, TeacherConfig, Tick};
use crate::trainer::TrainError;
use std::time::{Duration, Instant};

/// What carries a link's messages.
pub enum Wire {
    /// A WebSocket.
    Socket(Box<Socket>),
    /// A teacher in this process.
    Memory(Box<Memory>),
}

/// Wires of one student, in the order of its teachers.
pub struct Driver {
    wires: Vec<Wire>,
    start: Instant,
}

/// How long a pause between two looks at the wires is while labels are due: teachers nearby answer in less.
const PAUSE: Duration = Duration::from_micros(50);
/// Pauses double up to this one, for the processor's sake.
const LONGEST_PAUSE: Duration = Duration::from_millis(2);

/// 128 bits from the operating system's randomness.
pub(crate) fn random() -> u128 {
    let mut bytes = [0; 16];
    // Names must not be guessed: a system that has no randomness is no place for a student.
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    u128::from_le_bytes(bytes)
}

impl Driver {
    /// A WebSocket to each teacher; nothing is opened yet.
    pub fn new(teachers: &[TeacherConfig]) -> Result<Self, AddressError> {
        let socket = |t: &TeacherConfig| Socket::new(&t.url).map(|s| Wire::Socket(Box::new(s)));
        Ok(Self::with(teachers.iter().map(socket).collect::<Result<_, _>>()?))
    }

    /// Shows all servers this bearer token.
    ///
    /// # Errors
    /// If it is no text that a header may hold.
    pub fn authorize(&mut self, token: &str) -> Result<(), AddressError> {
        self.wires.iter_mut().try_for_each(|wire| match wire {
            Wire::Socket(socket) => socket.authorize(token),
            Wire::Memory(_) => Ok(()),
        })
    }

    /// Trusts these authorities and nobody else at `wss://`, instead of Mozilla's.
    #[cfg(feature = "tls")]
    pub fn trust_only(&mut self, authorities: &[rustls::pki_types::CertificateDer<'static>]) {
        for wire in &mut self.wires {
            if let Wire::Socket(socket) = wire {
                socket.trust_only(authorities.to_vec());
            }
        }
    }

    /// These wires.
    pub fn with(wires: Vec<Wire>) -> Self {
        Self { wires, start: Instant::now() }
    }

    /// The wires, in the order of the teachers.
    pub fn wires(&self) -> &[Wire] {
        &self.wires
    }

    /// The same, to be changed.
    pub fn wires_mut(&mut self) -> &mut [Wire] {
        &mut self.wires
    }

    /// Milliseconds since the driver was made: the student's clock.
    pub fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// Carries what is there to carry, without waiting.
    pub fn pump(&mut self, student: &mut Student) {
        student.name_run(random);
        let now = self.now_ms();
        for (wire, link) in self.wires.iter_mut().zip(student.links()) {
            match wire {
                Wire::Socket(socket) => socket.poll(link),
                Wire::Memory(memory) => memory.poll(link, now),
            }
        }
    }

    /// One environment step; waits as long as labels are due and their teacher is there.
    pub fn step(&mut self, student: &mut Student) -> Result<Tick, TrainError> {
        let mut pause = PAUSE;
        loop {
            self.pump(student);
            match student.tick(self.now_ms())? {
                Tick::Waiting => {
                    self.pump(student);
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                other => return Ok(other),
            }
        }
    }

    /// Goes on until everything the student submits is acknowledged, at most `timeout`; false if something is not, because
    /// no teacher takes it, or none in time.
    pub fn submit_rest(&mut self, student: &mut Student, timeout: Duration) -> bool {
        let start = Instant::now();
        loop {
            self.pump(student);
            if !student.submit(self.now_ms()) {
                return student.all_submitted();
            }
            if start.elapsed() >= timeout {
                return false;
            }
            self.pump(student);
            std::thread::sleep(LONGEST_PAUSE);
        }
    }

    /// Says goodbye on every link and closes its connection with code 1000. Waits for the servers' own close, at most
    /// `timeout`.
    pub fn close(&mut self, student: &mut Student, timeout: Duration) {
        student.links().for_each(Link::disconnect);
        let start = Instant::now();
        loop {
            self.pump(student);
            let open = |wire: &Wire| matches!(wire, Wire::Socket(socket) if !socket.is_closed());
            if !self.wires.iter().any(open) || start.elapsed() >= timeout {
                return;
            }
            std::thread::sleep(LONGEST_PAUSE);
        }
    }

    /// Waits until every teacher has answered `hello` or refused for good, at most `timeout`.
    pub fn connect(&mut self, student: &mut Student, timeout: Duration) {
        use crate::link::LinkState::{Failed, Off, Ready};
        let start = Instant::now();
        loop {
            self.pump(student);
            let settled = student.links().all(|l| matches!(l.state(), Ready | Failed | Off));
            if settled || start.elapsed() >= timeout {
                return;
            }
            std::thread::sleep(LONGEST_PAUSE);
        }
    }
}
