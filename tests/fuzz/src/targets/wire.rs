//! The wire: binary frames in one format of each sort, and control messages with all that follows from them.

use oto_proto::{
    Action, ActionFormat, ClientMessage, Dtype, Formats, FrameError, Header, Hello, Ids, Quantization,
    ServerMessage, Space, StateFormat, TransitionFormat,
};
use std::sync::LazyLock;

/// One connection's formats, and what its student acts in.
struct Connection {
    formats: Formats,
    transitions: TransitionFormat,
}

/// One of each sort; steps of a half and whole offsets, so that bytes come back exactly.
static CONNECTIONS: LazyLock<Vec<Connection>> = LazyLock::new(|| {
    let quantization = Quantization { scale: vec![0.5, -0.5, 2.0], offset: vec![-1.0, 0.0, 8.0] };
    let bounded = Space::Box { low: vec![-3.0, f32::NEG_INFINITY], high: vec![3.0, 7.5] };
    let connection = |dtype, quantization, action: Space, action_dtype| {
        let states = StateFormat::new(&unbounded(3), dtype, quantization).expect("a sound format");
        let actions = ActionFormat::new(&action, action_dtype).expect("a sound format");
        let formats = Formats { states, actions };
        Connection { transitions: TransitionFormat::new(&formats, &action), formats }
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
    for Connection { formats: Formats { states, actions }, transitions } in CONNECTIONS.iter() {
        for max_rows in [1, 64, usize::from(u16::MAX)] {
            let accepted = [
                read_states(states, frame, max_rows),
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
        writer.state(&row).expect("a row that was read");
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
