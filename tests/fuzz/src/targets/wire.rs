//! The wire: binary frames in one format of each sort, and control messages with all that follows from them.

use oto_agent::learner::session::{Edge, LearnerSession, Offer};
use oto_proto::gradients::write_gradients;
use oto_proto::logits::{Logits, write_logits};
use oto_proto::weights::{Activation, Output, write_complete};
use oto_proto::{
    Action, ActionFormat, ActorInfo, ClientMessage, Dtype, Encoding, Formats, FrameError, Gradients, Header,
    Hello, Ids, Model, Quantization, RowFormat, ServerMessage, Space, StateFormat, StreamId,
    TransitionFormat, Weights,
};
use std::sync::LazyLock;

/// One connection's formats, and what its student acts in.
struct Connection {
    formats: Formats,
    transitions: TransitionFormat,
    rows: RowFormat,
}

/// One of each sort; steps of a half and whole offsets, so that bytes come back exactly.
static CONNECTIONS: LazyLock<Vec<Connection>> = LazyLock::new(|| {
    let quantization = Quantization { scale: vec![0.5, -0.5, 2.0], offset: vec![-1.0, 0.0, 8.0] };
    let bounded = Space::Box { low: vec![-3.0, f32::NEG_INFINITY], high: vec![3.0, 7.5] };
    let connection = |dtype, quantization, action: Space, action_dtype| {
        let states = StateFormat::new(&unbounded(3), dtype, quantization).expect("a sound format");
        let actions = ActionFormat::new(&action, action_dtype).expect("a sound format");
        let formats = Formats { states, actions };
        let rows = RowFormat::new(&formats, &action);
        Connection { transitions: TransitionFormat::new(&formats, &action), rows, formats }
    };
    vec![
        connection(Dtype::F32, None, Space::Discrete { n: 200 }, None),
        connection(Dtype::F16, None, Space::Discrete { n: 2000 }, None),
        connection(Dtype::U8, Some(quantization), bounded.clone(), None),
        connection(Dtype::F32, None, bounded, Some(Dtype::F16)),
    ]
});

fn unbounded(width: usize) -> Space {
    Space::Box { low: vec![f32::NEG_INFINITY; width], high: vec![f32::INFINITY; width] }
}

/// A binary frame; what is accepted is finite, and written again it is the same frame.
pub fn frames(frame: &[u8]) -> bool {
    let mut taken = false;
    for Connection { formats: Formats { states, actions }, transitions, .. } in CONNECTIONS.iter() {
        for max_rows in [1, 64, usize::from(u16::MAX)] {
            let accepted = [
                read_states(states, frame, max_rows),
                read_states(&states.clone().ordered(), frame, max_rows),
                read_actions(actions, frame, max_rows),
                read_transitions(transitions, frame, max_rows),
            ];
            assert!(accepted.iter().flatten().count() <= 1, "a frame is of one kind");
            for rows in accepted.into_iter().flatten() {
                assert!((1..=max_rows).contains(&rows));
                assert!(Header::read(frame).is_ok() && Header::request_of(frame).is_some());
                taken = true;
            }
        }
    }
    taken
}

fn read_states(format: &StateFormat, frame: &[u8], max_rows: usize) -> Result<usize, FrameError> {
    let states = format.decode(frame, max_rows)?;
    let mut again = Vec::new();
    let mut writer = format.writer(states.header().ids, &mut again);
    let mut row = vec![0.0; format.width()];
    for i in 0..states.rows() {
        states.read_row(i, &mut row);
        assert!(row.iter().all(|number| number.is_finite()));
        writer.state_at(states.place(i).unwrap_or_default(), &row).expect("a row that was read");
    }
    assert_eq!(writer.finish(), Ok(states.rows()));
    assert_eq!(again, frame);
    Ok(states.rows())
}

fn read_actions(format: &ActionFormat, frame: &[u8], max_rows: usize) -> Result<usize, FrameError> {
    let actions = format.decode(frame, max_rows)?;
    let mut again = Vec::new();
    let mut writer = format.writer(actions.header().ids, &mut again);
    let mut row = vec![0.0; format.width()];
    for i in 0..actions.rows() {
        writer.action(actions.get(i, &mut row)).expect("an action that was read");
    }
    assert_eq!(writer.finish(), Ok(actions.rows()));
    assert_eq!(again, frame);
    Ok(actions.rows())
}

fn read_transitions(format: &TransitionFormat, frame: &[u8], max_rows: usize) -> Result<usize, FrameError> {
    let transitions = format.decode(frame, max_rows)?;
    let mut again = Vec::new();
    let mut writer = format.writer(transitions.header().ids, transitions.batch(), &mut again);
    let mut numbers = vec![0.0; format.width()];
    for i in 0..transitions.rows() {
        let transition = transitions.read_row(i, &mut numbers);
        writer.transition(&transition).expect("a transition that was read");
    }
    assert_eq!(writer.finish(), Ok(transitions.rows()));
    assert_eq!(again, frame);
    Ok(transitions.rows())
}

/// A frame of an actor's rows: what is accepted is finite, written again it is the same frame but for actions that are ignored, and
/// a session takes its rows once.
pub fn stream(frame: &[u8]) -> bool {
    let mut taken = false;
    for Connection { rows: format, .. } in CONNECTIONS.iter() {
        let Ok(rows) = format.decode(frame, usize::from(u16::MAX)) else { continue };
        let mut observation = vec![0.0; format.observation_width()];
        let mut action = vec![0.0; format.action_width()];
        let (mut again, mut row_bytes, mut written) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..rows.rows() {
            let flags = rows.read(i, &mut observation, &mut action);
            assert!(observation.iter().chain(&action).all(|number| number.is_finite()));
            let kept = format.encode(&observation, &action, flags, &mut row_bytes);
            assert_eq!(kept, Ok(flags), "a row that was read");
            again.extend_from_slice(&row_bytes);
        }
        format.write(rows.header().ids, rows.first(), &again, &mut written).expect("rows that were read");
        assert_eq!(format.decode(&written, rows.rows()).map(|rows| rows.first()), Ok(rows.first()));
        assert_eq!((written.len(), &written[..24]), (frame.len(), &frame[..24]));
        enters(format, frame, rows.first(), rows.rows());
        taken = true;
    }
    taken
}

/// What a session makes of a sound frame: twice the same, it takes its rows once.
fn enters(format: &RowFormat, frame: &[u8], first: u64, rows: usize) {
    let Ids { policy, version, .. } = Header::read(frame).expect("a sound frame").ids;
    let actor = ActorInfo {
        name: "edge".into(),
        stream: StreamId(1),
        first,
        weights: vec![Encoding::Delta],
        version,
    };
    let model = Model::mlp(vec![3, 1], Activation::Relu, Output::Clip);
    let offer = Offer { policy, model, max_rows: u16::MAX, ring: u32::MAX, hz: None };
    let (mut session, info) = LearnerSession::open(&actor, format.clone(), Edge::default(), offer, 1);
    assert!(session.frame(frame).is_err() || info.session == Header::request_of(frame).unwrap_or(0));
    let mut frame = frame.to_vec();
    frame[4..8].copy_from_slice(&info.session.to_le_bytes());
    let before = session.next() - first;
    let mut take = || session.frame(&frame).map(|accepted| accepted.rows().count());
    assert_eq!(take().map(|fresh| fresh as u64), Ok(rows as u64 - before));
    assert_eq!(take(), Ok(0));
    assert_eq!(session.next(), first + rows as u64);
}

/// A frame of gradients for a small agent: what is accepted is finite, and written again it is the same frame.
pub fn gradients(frame: &[u8]) -> bool {
    let Ok(read) = Gradients::read(frame, 6) else { return false };
    let (mut values, mut again) = (vec![f32::NAN; 9], Vec::new());
    read.values(&mut values);
    assert!(values.len() == 6 && values.iter().all(|value| value.is_finite()));
    write_gradients(read.ids(), &values, &mut again).expect("finite gradients");
    assert_eq!(again, frame);
    true
}

/// A frame of a peer's logits: what is accepted is finite, and written again it is the same frame.
pub fn logits(frame: &[u8]) -> bool {
    let Ok(read) = Logits::read(frame, 3, 4) else { return false };
    let (mut values, mut again) = (vec![f32::NAN; 9], Vec::new());
    read.values(&mut values);
    assert!(values.len() == 3 * read.rows() && values.iter().all(|value| value.is_finite()));
    write_logits(read.ids(), &values, 3, &mut again).expect("finite logits");
    assert_eq!(again, frame);
    read.readdress(read.ids(), &mut again);
    assert_eq!(again, frame);
    true
}

/// A frame of weights for a small network: what is accepted is finite, and what is refused changes nothing. The base of a
/// difference is always held.
pub fn weights(frame: &[u8]) -> bool {
    let held = [0.5, -1.0, 2.0, 0.0, 1e-3, -3e38];
    let Ok(read) = Weights::read(frame, held.len()) else { return false };
    let mut weights = held;
    let mut scratch = Vec::new();
    let applied = read.apply(read.base(), &mut weights, &mut scratch);
    assert!(scratch.capacity() <= 64, "no more than a difference of this network");
    if applied.is_err() {
        assert_eq!(weights, held);
        return false;
    }
    assert!(weights.iter().all(|weight| weight.is_finite()));
    let mut again = Vec::new();
    write_complete(read.header().ids, Encoding::F32, &weights, &mut again).expect("finite weights");
    let mut back = held;
    Weights::read(&again, held.len())
        .and_then(|read| read.apply(0, &mut back, &mut scratch))
        .expect("its own");
    assert_eq!(weights, back);
    true
}

/// A control message of either side; one that is accepted means the same when it is written again.
pub fn messages(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let (said, heard) = (ClientMessage::decode(text), ServerMessage::decode(text));
    if let Ok(message) = &said {
        assert_eq!(ClientMessage::decode(&message.encode()).as_ref(), Ok(message));
        if let ClientMessage::Hello(hello) = message {
            introduced(hello);
        }
    }
    if let Ok(message) = &heard {
        assert_eq!(ServerMessage::decode(&message.encode()).as_ref(), Ok(message));
        if let ServerMessage::Welcome(welcome) = message {
            CONNECTIONS.iter().for_each(|connection| drop(welcome.check(&connection.formats)));
        }
    }
    said.is_ok() || heard.is_ok()
}

/// What a server does with a `hello`: formats, and the plan between the student's spaces and each teacher's.
fn introduced(hello: &Hello) {
    let Ok(formats) = hello.formats() else { return };
    let transitions = TransitionFormat::new(&formats, &hello.action);
    assert!(transitions.frame_bytes(1) > transitions.row_bytes());
    let adapter = hello.adapter.clone().unwrap_or_default();
    let state = vec![0.0; hello.observation.width()];
    for observation in [unbounded(1), unbounded(4), Space::Discrete { n: 3 }] {
        for action in [Space::Discrete { n: 2 }, unbounded(1), unbounded(2)] {
            let Ok(plan) = adapter.check(&hello.observation, &hello.action, &observation, &action) else {
                continue;
            };
            let mut seen = vec![0.0; observation.width()];
            if plan.observation(&state, &mut seen).is_ok() {
                assert!(seen.iter().all(|number| number.is_finite()));
            }
            let numbers = vec![0.5; action.width()];
            let answer = match action {
                Space::Discrete { n } => Action::Discrete(n - 1),
                Space::Box { .. } => Action::Continuous(&numbers),
            };
            let mut scratch = vec![0.0; hello.action.width()];
            if let Ok(mapped) = plan.action(answer, &mut scratch) {
                let mut frame = Vec::new();
                let mut writer = formats.actions.writer(Ids::default(), &mut frame);
                // A finite number may be none as a half.
                drop(writer.action(mapped));
            }
        }
    }
}
