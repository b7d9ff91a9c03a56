//! What a link keeps: states that are in no request yet, and requests until their labels are taken. Both are bounded,
//! and both reuse their memory.

use std::collections::VecDeque;

/// A request, by a number that is never used again. It stays the same when the request is sent anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Emptied requests kept for reuse.
const MAX_FREE: usize = 16;

/// States in the order in which they were offered.
#[derive(Debug)]
pub(super) struct Pending {
    width: usize,
    capacity: usize,
    slots: VecDeque<u64>,
    /// Whether an episode begins with the state.
    begins: VecDeque<bool>,
    states: VecDeque<f32>,
}

impl Pending {
    pub(super) fn new(width: usize, capacity: usize) -> Self {
        Pending { width, capacity, slots: VecDeque::new(), begins: VecDeque::new(), states: VecDeque::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Adds a state; false if the oldest had to make room.
    pub(super) fn push(&mut self, slot: u64, begins: bool, state: &[f32]) -> bool {
        let full = self.len() == self.capacity;
        if full {
            self.slots.pop_front();
            self.begins.pop_front();
            (0..self.width).for_each(|_| _ = self.states.pop_front());
        }
        self.slots.push_back(slot);
        self.begins.push_back(begins);
        self.states.extend(state);
        !full
    }

    /// Moves the oldest states, at most `rows`, into a request.
    fn move_into(&mut self, request: &mut Request, rows: usize) {
        let rows = rows.min(self.len());
        request.slots.extend((0..rows).map_while(|_| self.slots.pop_front()));
        request.begins.extend((0..rows).map_while(|_| self.begins.pop_front()));
        request.states.extend((0..rows * self.width).map_while(|_| self.states.pop_front()));
    }

    /// Takes states back that are older than all others; gives how many there was no room for.
    fn put_back(&mut self, request: &Request) -> u64 {
        let rows = request.slots.len().min(self.capacity - self.len());
        let from = request.slots.len() - rows;
        request.slots[from..].iter().rev().for_each(|&slot| self.slots.push_front(slot));
        request.begins[from..].iter().rev().for_each(|&begins| self.begins.push_front(begins));
        request.states[from * self.width..].iter().rev().for_each(|&number| self.states.push_front(number));
        from as u64
    }
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// To be sent.
    Queued,
    /// Sent under a number on the wire, at a moment, to be answered before another.
    Flying { wire: u32, sent: u64, deadline: u64 },
    /// Answered; the labels wait to be taken.
    Done,
}

/// Some states, and in the end their answers.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) ticket: Ticket,
    pub(super) status: Status,
    /// How often it was sent.
    pub(super) attempts: u32,
    pub(super) slots: Vec<u64>,
    /// For each state, whether an episode begins with it.
    pub(super) begins: Vec<bool>,
    /// `[rows, state width]`
    pub(super) states: Vec<f32>,
    /// `[rows, action width]`; an index is its number.
    pub(super) answers: Vec<f32>,
    pub(super) version: u32,
}

/// Requests in the order in which they were made.
#[derive(Debug)]
pub(super) struct Requests {
    max: usize,
    next: u64,
    list: Vec<Request>,
    free: Vec<Request>,
}

impl Requests {
    pub(super) fn new(max: usize) -> Self {
        Requests { max, next: 0, list: Vec::new(), free: Vec::new() }
    }

    /// Makes a request of the oldest states. Gives its ticket and how many states an older request lost for it.
    pub(super) fn add(&mut self, pending: &mut Pending, rows: usize) -> (Ticket, u64) {
        let mut dropped = 0;
        if self.list.len() >= self.max {
            // Answers to what is in flight must find their request, so the oldest of the others goes.
            let oldest =
                self.list.iter().position(|request| !matches!(request.status, Status::Flying { .. }));
            if let Some(at) = oldest {
                let request = self.list.remove(at);
                if request.status == Status::Queued {
                    dropped = request.slots.len() as u64;
                }
                self.recycle(request);
            }
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        let mut request = self.free.pop().unwrap_or_else(|| Request {
            ticket,
            status: Status::Queued,
            attempts: 0,
            slots: Vec::new(),
            begins: Vec::new(),
            states: Vec::new(),
            answers: Vec::new(),
            version: 0,
        });
        (request.ticket, request.status, request.attempts) = (ticket, Status::Queued, 0);
        pending.move_into(&mut request, rows);
        self.list.push(request);
        (ticket, dropped)
    }

    pub(super) fn recycle(&mut self, mut request: Request) {
        if self.free.len() < MAX_FREE {
            request.slots.clear();
            request.begins.clear();
            request.states.clear();
            request.answers.clear();
            self.free.push(request);
        }
    }

    pub(super) fn get(&self, ticket: Ticket) -> Option<&Request> {
        self.list.iter().find(|request| request.ticket == ticket)
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Request> {
        let at = self.list.iter().position(|request| request.ticket == ticket)?;
        Some(self.list.remove(at))
    }

    pub(super) fn remove_done(&mut self) -> Option<Request> {
        let at = self.list.iter().position(|request| request.status == Status::Done)?;
        Some(self.list.remove(at))
    }

    pub(super) fn by_wire(&mut self, number: u32) -> Option<&mut Request> {
        self.list
            .iter_mut()
            .find(|request| matches!(request.status, Status::Flying { wire, .. } if wire == number))
    }

    pub(super) fn first_queued(&mut self) -> Option<&mut Request> {
        self.list.iter_mut().find(|request| request.status == Status::Queued)
    }

    pub(super) fn any_queued(&self) -> bool {
        self.list.iter().any(|request| request.status == Status::Queued)
    }

    pub(super) fn flying(&self) -> usize {
        self.list.iter().filter(|request| matches!(request.status, Status::Flying { .. })).count()
    }

    pub(super) fn unanswered(&self) -> usize {
        self.list.iter().filter(|request| request.status != Status::Done).count()
    }

    pub(super) fn first_deadline(&self) -> Option<u64> {
        let deadline = |request: &Request| match request.status {
            Status::Flying { deadline, .. } => Some(deadline),
            _ => None,
        };
        self.list.iter().filter_map(deadline).min()
    }

    /// The connection is gone: what was in flight is to be sent again, unless it was sent too often. Gives how many
    /// states were dropped with those.
    pub(super) fn land(&mut self, max_attempts: u32) -> u64 {
        let mut dropped = 0;
        for request in &mut self.list {
            if matches!(request.status, Status::Flying { .. }) {
                request.status = Status::Queued;
            }
        }
        self.list.retain(|request| {
            let keep = request.status == Status::Done || request.attempts < max_attempts;
            if !keep {
                dropped += request.slots.len() as u64;
            }
            keep
        });
        dropped
    }

    /// A server takes fewer rows than a request was made with: its states wait for smaller ones. Gives how many were
    /// dropped because too many wait already.
    pub(super) fn unmake_longer_than(&mut self, rows: usize, pending: &mut Pending) -> u64 {
        let mut dropped = 0;
        // The newest first, so that the oldest end up in front.
        for at in (0..self.list.len()).rev() {
            if self.list[at].status == Status::Queued && self.list[at].slots.len() > rows {
                let request = self.list.remove(at);
                dropped += pending.put_back(&request);
                self.recycle(request);
            }
        }
        dropped
    }
}
