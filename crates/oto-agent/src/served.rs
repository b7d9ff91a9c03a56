//! A teacher of logits that is a policy of a server: `oto learn --distill ws://host`.
//!
//! The student asks at the end of each rollout and waits for the answer as long as the connection lives, at most ten seconds. A rollout
//! without an answer is learnt from without this teacher.

use crate::link::tungstenite::Socket;
use crate::link::{Link, LinkConfig, LinkState, Taken, Ticket};
use crate::student::TeacherSpaces;
use oto_proto::{Action, Dtype, Grant, Hello, PROTOCOL, Space};
use oto_rl::distillation::{LogitTeacher, MAX_ACTIONS};
use std::collections::VecDeque;
use std::time::Duration;

/// How long a server may take to agree.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the logits of one rollout are waited for, in milliseconds.
const ANSWER_MS: u64 = 10_000;
/// How long one answer may take before the connection is given up, in milliseconds.
const REQUEST_MS: u64 = 5_000;
/// States that are asked about at once.
const AT_ONCE: usize = 1024;
/// The pause between two looks at the socket, which doubles up to the longest one.
const PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(2);

/// Why a policy of a server is no teacher of logits.
#[derive(Debug, thiserror::Error)]
pub enum ServedError {
    /// Its actions.
    #[error("expected a policy of 1 to {MAX_ACTIONS} discrete actions, got {0:?}")]
    Actions(Space),
    /// It refuses for good, or does not agree in time.
    #[error("{0}")]
    Refused(String),
    /// It answers a first state with no logits.
    #[error("it gives no logits for a first state: {0}")]
    Trial(String),
}

/// The name of a server's policy in a run's configuration: the server's address, `#`, and the policy. None for a path.
pub fn address(teacher: &std::path::Path) -> Option<(&str, &str)> {
    let text = teacher.to_str()?;
    let is_url = ["ws://", "wss://"].iter().any(|scheme| text.starts_with(scheme));
    is_url.then(|| text.split_once('#').unwrap_or((text, "")))
}

/// A policy of a server that answers with logits.
pub struct ServedTeacher {
    link: Link,
    socket: Socket,
    observation: usize,
    actions: usize,
    tickets: VecDeque<Ticket>,
    /// The number of the next state.
    next: u64,
}

impl ServedTeacher {
    /// Connects to a policy of these spaces, and asks it about one state. `student` is the student's name.
    ///
    /// # Errors
    /// Continuous actions; a server that refuses or does not agree within ten seconds; a policy without logits.
    pub fn connect(
        socket: Socket,
        policy: &str,
        student: &str,
        spaces: &TeacherSpaces,
    ) -> Result<Self, ServedError> {
        let actions = match spaces.action {
            Space::Discrete { n } if (1..=MAX_ACTIONS as u32).contains(&n) => n as usize,
            ref other => return Err(ServedError::Actions(other.clone())),
        };
        let hello = Hello {
            order: None,
            protocol: PROTOCOL.into(),
            policy: policy.into(),
            student: student.into(),
            observation: spaces.observation.clone(),
            action: Space::uniform(actions, f32::NEG_INFINITY, f32::INFINITY),
            adapter: None,
            dtype: Dtype::F32,
            action_dtype: None,
            quantization: None,
            grants: vec![Grant::Logits],
            stage: None,
            ticket: None,
            actor: None,
            worker: None,
            member: None,
        };
        let refused = |error: oto_proto::ErrorMessage| ServedError::Refused(error.message);
        let config = LinkConfig { request_timeout_ms: REQUEST_MS, ..LinkConfig::new(hello) };
        let link = Link::new(config).map_err(refused)?;
        let observation = spaces.observation.width();
        let mut teacher = Self { link, socket, observation, actions, tickets: VecDeque::new(), next: 0 };
        teacher.agree()?;
        let trial = teacher.logits(&vec![0.0; observation], 1, &mut Vec::new());
        trial.map_err(ServedError::Trial)?;
        Ok(teacher)
    }

    fn agree(&mut self) -> Result<(), ServedError> {
        let Self { link, socket, .. } = self;
        link.connect(socket.now_ms());
        let settled = |link: &mut Link| matches!(link.state(), LinkState::Ready | LinkState::Failed);
        socket.wait(link, CONNECT, settled);
        match (link.state(), link.failure()) {
            (LinkState::Ready, _) => Ok(()),
            (_, Some(failure)) => Err(ServedError::Refused(failure.message.clone())),
            _ => Err(ServedError::Refused(self.problem())),
        }
    }

    /// What went wrong last.
    fn problem(&self) -> String {
        self.link.status(0).problem.unwrap_or_else(|| "the server does not answer".into())
    }

    /// What its connection counted.
    pub fn stats(&self) -> &crate::link::LinkStats {
        self.link.stats()
    }

    /// Asks about some states, and puts their logits into `out`.
    fn ask(&mut self, observations: &[f32], out: &mut [f32]) -> Result<(), String> {
        let (now, first) = (self.socket.now_ms(), self.next);
        for state in observations.chunks_exact(self.observation) {
            self.link.offer(self.next, state, now).map_err(|error| error.to_string())?;
            self.next += 1;
        }
        while let Some(ticket) = self.link.request_now(now) {
            self.tickets.push_back(ticket);
        }
        let (mut pause, actions, mut given) = (PAUSE, self.actions, 0);
        while let Some(ticket) = self.tickets.front() {
            let taken = self.link.take_labels(*ticket, |state, answer, _| {
                let row = state.checked_sub(first).and_then(|row| usize::try_from(row).ok());
                let place = row.and_then(|row| out.get_mut(row * actions..(row + 1) * actions));
                if let (Some(place), Action::Continuous(logits)) = (place, answer) {
                    place.copy_from_slice(logits);
                    given += 1;
                }
            });
            match taken {
                Taken::Labels => _ = self.tickets.pop_front(),
                Taken::Lost => return Err(self.problem()),
                Taken::Waiting if !self.link.promises_labels() => return Err(self.problem()),
                Taken::Waiting if self.socket.now_ms() > now + ANSWER_MS => {
                    return Err("expected logits within 10 seconds, none came".into());
                }
                Taken::Waiting => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    self.socket.poll(&mut self.link);
                }
            }
        }
        let expected = out.len() / actions;
        match given == expected {
            true => Ok(()),
            false => Err(format!("expected logits for {expected} states, got them for {given}")),
        }
    }
}

impl LogitTeacher for ServedTeacher {
    fn observation(&self) -> usize {
        self.observation
    }

    fn actions(&self) -> usize {
        self.actions
    }

    fn logits(&mut self, observations: &[f32], rows: usize, out: &mut Vec<f32>) -> Result<(), String> {
        self.socket.poll(&mut self.link);
        // Answers that came too late.
        self.tickets.clear();
        self.link.drain_labels(|_, _, _| {});
        if self.link.state() != LinkState::Ready {
            return Err(self.problem());
        }
        let (width, actions) = (self.observation, self.actions);
        out.clear();
        out.resize(rows * actions, 0.0);
        let parts = observations.chunks(AT_ONCE * width).zip(out.chunks_mut(AT_ONCE * actions));
        for (states, logits) in parts {
            self.ask(states, logits)?;
        }
        Ok(())
    }
}

impl Drop for ServedTeacher {
    fn drop(&mut self) {
        self.link.disconnect();
        self.socket.poll(&mut self.link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oto_proto::message::Welcome;
    use oto_proto::{ActionFormat, ClientMessage, Ids, ServerMessage, StateFormat, TeacherInfo};
    use std::net::TcpListener;
    use std::path::Path;
    use tungstenite::handshake::server::{Request, Response};
    use tungstenite::{Message, accept_hdr};

    fn spaces() -> TeacherSpaces {
        TeacherSpaces { observation: Space::uniform(1, -9.0, 9.0), action: Space::Discrete { n: 2 } }
    }

    #[test]
    fn an_address_has_a_policy() {
        let of = |text: &str| address(Path::new(text)).map(|(url, policy)| format!("{url} {policy}"));
        assert_eq!(of("ws://host:1/v1/teach#a#b").unwrap(), "ws://host:1/v1/teach a#b");
        assert_eq!(of("wss://host").unwrap(), "wss://host ");
        assert_eq!(of("runs/ws"), None);
    }

    /// A server that answers the first state well, and then does this to each answer before it goes out. Ends with its student.
    fn server(wrong: impl Fn(&mut Vec<u8>) + Send + 'static) -> Socket {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}/v1/teach", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                #[expect(clippy::result_large_err, reason = "the type of tungstenite's callback")]
                let select = |request: &Request, mut response: Response| {
                    let offered = request.headers().get("sec-websocket-protocol").unwrap().clone();
                    response.headers_mut().insert("sec-websocket-protocol", offered);
                    Ok(response)
                };
                let Ok(mut socket) = accept_hdr(stream, select) else { continue };
                let box_of = |width| Space::uniform(width, f32::NEG_INFINITY, f32::INFINITY);
                let (states, logits) = (
                    StateFormat::new(&box_of(1), Dtype::F32, None).unwrap(),
                    ActionFormat::new(&box_of(2), None).unwrap(),
                );
                let mut first = true;
                while let Ok(message) = socket.read() {
                    let said = match message {
                        Message::Text(text)
                            if matches!(ClientMessage::decode(&text), Ok(ClientMessage::Hello(_))) =>
                        {
                            let TeacherSpaces { observation, action } = spaces();
                            let welcome = Welcome {
                                order: None,
                                policy: "p".into(),
                                policy_id: 1,
                                version: 1,
                                max_rows: 64,
                                credits: 4,
                                dtype: Dtype::F32,
                                action_dtype: Dtype::F32,
                                action_width: 2,
                                grants: vec![Grant::Logits],
                                submit_rows: None,
                                teacher: TeacherInfo { observation, action, description: String::new() },
                                learner: None,
                                shared: None,
                                group: None,
                            };
                            Message::text(ServerMessage::Welcome(Box::new(welcome)).encode())
                        }
                        Message::Binary(frame) => {
                            let asked = states.decode(&frame, 64).unwrap();
                            let Ids { request, .. } = asked.header().ids;
                            let mut answer = Vec::new();
                            let mut writer =
                                logits.writer(Ids { request, policy: 1, version: 1 }, &mut answer);
                            (0..asked.rows())
                                .for_each(|_| writer.action(Action::Continuous(&[0.5, -0.5])).unwrap());
                            writer.finish().unwrap();
                            if !std::mem::take(&mut first) {
                                wrong(&mut answer);
                            }
                            Message::binary(answer)
                        }
                        _ => continue,
                    };
                    if socket.send(said).is_err() {
                        break;
                    }
                }
            }
        });
        Socket::new(&url).unwrap()
    }

    /// Each wrong answer is counted by its reason, costs its rollout, and a server that repeats it is left.
    #[test]
    fn wrong_answers_are_counted_and_cost_their_rollout() {
        let nan = |frame: &mut Vec<u8>| frame[16..20].copy_from_slice(&f32::NAN.to_le_bytes());
        let unasked = |frame: &mut Vec<u8>| frame[4..8].copy_from_slice(&77_u32.to_le_bytes());
        type Wrong = Box<dyn Fn(&mut Vec<u8>) + Send>;
        type Count = fn(&crate::link::Rejected) -> u64;
        let cases: [(Wrong, Count); 4] = [
            (Box::new(|frame| frame.truncate(20)), |rejected| rejected.count),
            (Box::new(|frame| frame.extend([0; 8])), |rejected| rejected.count),
            (Box::new(nan), |rejected| rejected.action),
            (Box::new(unasked), |rejected| rejected.unknown_request),
        ];
        for (i, (wrong, count)) in cases.into_iter().enumerate() {
            let mut teacher = ServedTeacher::connect(server(wrong), "p", "test", &spaces()).unwrap();
            let mut logits = Vec::new();
            for _ in 0..3 {
                teacher.logits(&[0.0, 1.0], 2, &mut logits).unwrap_err();
            }
            let rejected = teacher.stats().rejected;
            assert!(count(&rejected) > 0, "case {i}: {rejected:?}");
            assert_eq!(teacher.stats().labels_received, 1, "case {i}");
        }
    }

    #[test]
    fn a_good_server_gives_logits() {
        let mut teacher = ServedTeacher::connect(server(|_| {}), "p", "test", &spaces()).unwrap();
        let mut logits = Vec::new();
        teacher.logits(&[0.0; 200], 200, &mut logits).unwrap();
        assert_eq!(logits, [0.5, -0.5].repeat(200));
        assert_eq!(
            teacher.logits(&[f32::NAN], 1, &mut logits).unwrap_err(),
            "row 0, component 0 is not a finite number"
        );
    }
}
