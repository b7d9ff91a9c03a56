//! Properties of the codec and of adapters: what is written is read back, and no input does harm.

use oto_proto::{
    Action, ActionFormat, ActionMap, Adapter, BatchId, ClientMessage, Dtype, Formats, FrameError, Header,
    Ids, MAX_CONTROL_BYTES, MAX_WIDTH, MessageError, ObservationMap, Quantization, ServerMessage, Space,
    SpaceError, StateFormat, Transition, TransitionFormat, check_space,
};
use proptest::prelude::*;

fn ids() -> impl Strategy<Value = Ids> {
    (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(request, policy, version)| Ids {
        request,
        policy,
        version,
    })
}

fn unbounded(width: usize) -> Space {
    Space::Box { low: vec![f32::NEG_INFINITY; width], high: vec![f32::INFINITY; width] }
}

fn finite() -> impl Strategy<Value = f32> {
    any::<f32>().prop_filter("finite", |number| number.is_finite())
}

/// A width and rows of it, flat.
fn rows() -> impl Strategy<Value = (usize, Vec<f32>)> {
    (1..6usize, 1..20usize)
        .prop_flat_map(|(width, rows)| (Just(width), prop::collection::vec(finite(), width * rows)))
}

fn write_states(format: &StateFormat, ids: Ids, flat: &[f32]) -> Vec<u8> {
    let mut out = vec![0xaa; 3];
    let mut writer = format.writer(ids, &mut out);
    flat.chunks(format.width()).for_each(|row| writer.state(row).expect("a finite row"));
    writer.finish().expect("at least one row");
    out
}

fn read_states(format: &StateFormat, frame: &[u8]) -> Vec<f32> {
    let states = format.decode(frame, usize::from(u16::MAX)).expect("a valid frame");
    let mut flat = vec![0.0; states.rows() * format.width()];
    for (i, row) in flat.chunks_mut(format.width()).enumerate() {
        states.read_row(i, row);
    }
    flat
}

/// One format of each sort, for attacking them all.
fn formats() -> Vec<(StateFormat, ActionFormat)> {
    let quantization = Quantization { scale: vec![0.5; 3], offset: vec![-1.0; 3] };
    let state = |dtype, quantization| StateFormat::new(&unbounded(3), dtype, quantization).expect("a format");
    let action = |space: &Space, dtype| ActionFormat::new(space, dtype).expect("a format");
    vec![
        (state(Dtype::F32, None), action(&Space::Discrete { n: 200 }, None)),
        (state(Dtype::F16, None), action(&Space::Discrete { n: 2000 }, None)),
        (state(Dtype::U8, Some(quantization)), action(&unbounded(2), None)),
        (state(Dtype::F32, None), action(&unbounded(2), Some(Dtype::F16))),
    ]
}

/// Reads everything a frame that was accepted offers: this must not panic either.
fn read_everything(frame: &[u8], max_rows: usize) {
    for (states, actions) in formats() {
        if let Ok(accepted) = states.decode(frame, max_rows) {
            let mut row = vec![0.0; states.width()];
            for i in 0..accepted.rows() {
                accepted.read_row(i, &mut row);
                assert!(row.iter().all(|number| number.is_finite()));
            }
        }
        if let Ok(accepted) = actions.decode(frame, max_rows) {
            let mut row = vec![0.0; actions.width()];
            for i in 0..accepted.rows() {
                accepted.get(i, &mut row);
            }
        }
    }
}

proptest! {
    #[test]
    fn f32_states_come_back_bit_for_bit(ids in ids(), (width, flat) in rows()) {
        let format = StateFormat::new(&unbounded(width), Dtype::F32, None).expect("a format");
        let frame = write_states(&format, ids, &flat);
        prop_assert_eq!(frame.len(), format.frame_bytes(flat.len() / width));
        prop_assert_eq!(Header::read(&frame).expect("a header").ids, ids);
        prop_assert_eq!(Header::request_of(&frame), Some(ids.request));
        let back = read_states(&format, &frame);
        prop_assert!(back.iter().zip(&flat).all(|(a, b)| a.to_bits() == b.to_bits()));
    }

    #[test]
    fn f16_states_come_back_nearly(flat in prop::collection::vec(-60_000f32..60_000.0, 12)) {
        let format = StateFormat::new(&unbounded(4), Dtype::F16, None).expect("a format");
        let back = read_states(&format, &write_states(&format, Ids::default(), &flat));
        for (a, b) in flat.iter().zip(back) {
            prop_assert!((a - b).abs() <= a.abs() / 2048.0 + 3.0e-8, "{} came back as {}", a, b);
        }
    }

    #[test]
    fn u8_states_come_back_within_half_a_step(
        scale in 0.001f32..10.0, offset in -100f32..100.0, parts in prop::collection::vec(0f32..1.0, 9)
    ) {
        let quantization = Quantization { scale: vec![scale, -scale, scale], offset: vec![offset; 3] };
        let format = StateFormat::new(&unbounded(3), Dtype::U8, Some(quantization)).expect("a format");
        let flat: Vec<f32> = parts.iter().enumerate()
            .map(|(i, part)| part * 255.0 * if i % 3 == 1 { -scale } else { scale } + offset).collect();
        let back = read_states(&format, &write_states(&format, Ids::default(), &flat));
        for (a, b) in flat.iter().zip(back) {
            prop_assert!((a - b).abs() <= scale * 0.5 + 1e-3, "{} came back as {}", a, b);
        }
    }

    #[test]
    fn discrete_actions_come_back(n in 1u32..=65_536, seeds in prop::collection::vec(any::<u32>(), 1..300)) {
        let format = ActionFormat::new(&Space::Discrete { n }, None).expect("a format");
        let indices: Vec<u32> = seeds.iter().map(|seed| seed % n).collect();
        let mut frame = Vec::new();
        let mut writer = format.writer(Ids::default(), &mut frame);
        for &index in &indices {
            writer.action(Action::Discrete(index)).expect("an index in range");
        }
        let refused = writer.action(Action::Discrete(n));
        prop_assert_eq!(refused, Err(FrameError::OutOfRange { row: indices.len(), found: n, n }));
        prop_assert_eq!(writer.finish(), Ok(indices.len()));
        let actions = format.decode(&frame, indices.len()).expect("a valid frame");
        for (i, &index) in indices.iter().enumerate() {
            prop_assert_eq!(actions.get(i, &mut []), Action::Discrete(index));
        }
    }

    #[test]
    fn continuous_actions_come_back((width, flat) in rows()) {
        let format = ActionFormat::new(&unbounded(width), None).expect("a format");
        let mut frame = Vec::new();
        let mut writer = format.writer(Ids::default(), &mut frame);
        flat.chunks(width).for_each(|row| writer.action(Action::Continuous(row)).expect("a finite row"));
        writer.finish().expect("at least one row");
        let actions = format.decode(&frame, 64).expect("a valid frame");
        let mut scratch = vec![0.0; width];
        for (i, row) in flat.chunks(width).enumerate() {
            prop_assert_eq!(actions.get(i, &mut scratch), Action::Continuous(row));
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), max_rows in 0..70_000usize) {
        read_everything(&bytes, max_rows);
    }

    #[test]
    fn nearly_valid_bytes_do_no_harm(
        kind in 0u8..9, dtype in 0u8..6, rows in 0u16..6, body in prop::collection::vec(any::<u8>(), 0..80)
    ) {
        let mut frame = vec![kind, dtype];
        frame.extend_from_slice(&rows.to_le_bytes());
        frame.extend_from_slice(&[0; 12]);
        frame.extend_from_slice(&body);
        read_everything(&frame, 5);
    }

    #[test]
    fn no_other_length_is_accepted((width, flat) in rows(), extra in prop::collection::vec(any::<u8>(), 1..9)) {
        let format = StateFormat::new(&unbounded(width), Dtype::F32, None).expect("a format");
        let frame = write_states(&format, Ids::default(), &flat);
        for length in 0..frame.len() {
            prop_assert!(format.decode(&frame[..length], 64).is_err());
        }
        let longer = [frame, extra].concat();
        prop_assert!(format.decode(&longer, 64).is_err());
    }

    #[test]
    fn a_number_that_is_not_finite_is_found((width, flat) in rows(), at in any::<prop::sample::Index>(), bits in 0u32..0x80_0000, sign in any::<bool>()) {
        let format = StateFormat::new(&unbounded(width), Dtype::F32, None).expect("a format");
        let at = at.index(flat.len());
        let mut frame = write_states(&format, Ids::default(), &flat);
        let bad = f32::from_bits(0x7f80_0000 | bits | (u32::from(sign) << 31));
        frame[16 + 4 * at..][..4].copy_from_slice(&bad.to_le_bytes());
        let expected = FrameError::NotFinite { row: at / width, component: at % width };
        prop_assert_eq!(format.decode(&frame, 64).expect_err("not finite"), expected);
        let mut spoilt = flat[at / width * width..][..width].to_vec();
        spoilt[at % width] = bad;
        let mut out = Vec::new();
        let mut writer = format.writer(Ids::default(), &mut out);
        let refused = writer.state(&spoilt);
        prop_assert_eq!(refused, Err(FrameError::NotFinite { row: 0, component: at % width }));
        prop_assert_eq!(writer.finish(), Err(FrameError::NoRows));
    }

    #[test]
    fn submissions_come_back_bit_for_bit((format, widths, rows) in submissions(), batch: u128) {
        let frame = write_submission(&format, widths, &rows, BatchId(batch));
        prop_assert_eq!(frame.len(), format.frame_bytes(rows.len()));
        prop_assert_eq!(usize::from(format.rows_in(frame.len())), rows.len());
        prop_assert_eq!(usize::from(format.rows_in(frame.len() - 1)), rows.len() - 1);
        let read = format.decode(&frame, rows.len()).expect("a valid frame");
        prop_assert_eq!((read.batch(), read.rows()), (BatchId(batch), rows.len()));
        let mut scratch = vec![0.0; format.width()];
        for (row, (numbers, ends)) in rows.iter().enumerate() {
            prop_assert_eq!(read.read_row(row, &mut scratch), transition(widths, numbers, *ends));
            prop_assert!(scratch.iter().zip(numbers).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
        prop_assert_eq!(BatchId(batch).to_string().parse(), Ok(BatchId(batch)));
    }

    #[test]
    fn a_submission_of_another_length_or_with_other_numbers_is_refused(
        (format, widths, rows) in submissions(), extra in prop::collection::vec(any::<u8>(), 1..9),
        at in any::<prop::sample::Index>(), bad in prop_oneof![Just(f32::NAN), Just(f32::INFINITY)]
    ) {
        let frame = write_submission(&format, widths, &rows, BatchId(1));
        for length in 0..frame.len() {
            prop_assert!(format.decode(&frame[..length], 64).is_err());
        }
        prop_assert!(format.decode(&[frame, extra].concat(), 64).is_err());
        let (mut numbers, ends) = rows[0].clone();
        let at = at.index(numbers.len());
        numbers[at] = bad;
        let mut out = Vec::new();
        let mut writer = format.writer(Ids::default(), BatchId(1), &mut out);
        prop_assert!(writer.transition(&transition(widths, &numbers, ends)).is_err());
        prop_assert_eq!(writer.finish(), Err(FrameError::NoRows));
    }

    #[test]
    fn any_bytes_as_a_submission_do_no_harm(
        (format, widths, rows) in submissions(), at in any::<prop::sample::Index>(), byte: u8, max_rows in 0..20usize
    ) {
        let mut frame = write_submission(&format, widths, &rows, BatchId(1));
        let at = at.index(frame.len());
        frame[at] = byte;
        if let Ok(read) = format.decode(&frame, max_rows) {
            let mut scratch = vec![0.0; format.width()];
            for row in 0..read.rows() {
                read.read_row(row, &mut scratch);
                prop_assert!(scratch.iter().all(|number| number.is_finite()));
            }
        }
    }

    #[test]
    fn arbitrary_text_does_no_harm(text in ".{0,200}", cut in any::<prop::sample::Index>()) {
        let _ = ClientMessage::decode(&text);
        let _ = ServerMessage::decode(&text);
        let welcome = r#"{"type":"error","code":"internal","message":"so","request":3}"#;
        let cut = cut.index(welcome.len());
        prop_assert!(ServerMessage::decode(&welcome[..cut]).is_err());
    }

    #[test]
    fn spaces_come_back(bounds in prop::collection::vec((finite(), finite(), any::<bool>(), any::<bool>()), 1..9)) {
        let low = bounds.iter().map(|b| if b.2 { f32::NEG_INFINITY } else { b.0.min(b.1) }).collect();
        let high = bounds.iter().map(|b| if b.3 { f32::INFINITY } else { b.0.max(b.1) }).collect();
        let space = Space::Box { low, high };
        let json = serde_json::to_string(&space).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<Space>(&json).expect("a space"), space);
    }

    #[test]
    fn a_plan_does_what_its_formula_says(
        student in prop::collection::vec(-1e3f32..1e3, 1..6),
        picks in prop::collection::vec((any::<prop::sample::Index>(), -10f32..10.0, -10f32..10.0), 1..8)
    ) {
        let permutation: Vec<usize> = picks.iter().map(|(pick, ..)| pick.index(student.len())).collect();
        let map = ObservationMap {
            permutation: Some(permutation.clone()),
            scale: Some(picks.iter().map(|pick| pick.1).collect()),
            offset: Some(picks.iter().map(|pick| pick.2).collect()),
        };
        let adapter = Adapter { observation: Some(map), action: None };
        let one = Space::Discrete { n: 1 };
        let plan = adapter.check(&unbounded(student.len()), &one, &unbounded(picks.len()), &one).expect("it fits");
        let mut teacher = vec![0.0; picks.len()];
        plan.observation(&student, &mut teacher).expect("finite");
        for (i, (_, scale, offset)) in picks.iter().enumerate() {
            prop_assert_eq!(teacher[i], student[permutation[i]] * scale + offset);
        }
    }

    #[test]
    fn a_vector_never_leaves_the_students_box(answer in finite(), scale in finite(), offset in finite()) {
        let action = ActionMap::Affine { scale: vec![scale], offset: vec![offset] };
        let adapter = Adapter { observation: None, action: Some(action) };
        let student = Space::Box { low: vec![-2.0], high: vec![2.0] };
        let plan = adapter.check(&unbounded(1), &student, &unbounded(1), &unbounded(1)).expect("it fits");
        let mut scratch = [0.0];
        let Ok(Action::Continuous(action)) = plan.action(Action::Continuous(&[answer]), &mut scratch) else {
            panic!("a finite answer has an action");
        };
        prop_assert!((-2.0..=2.0).contains(&action[0]));
    }

    #[test]
    fn any_adapter_is_accepted_or_refused_and_then_harmless(
        adapter in any_adapter(), spaces in [any_space(), any_space(), any_space(), any_space()], row in prop::collection::vec(any::<f32>(), 0..4), index in 0u32..5
    ) {
        let [student_observation, student_action, teacher_observation, teacher_action] = spaces;
        let Ok(plan) = adapter.check(&student_observation, &student_action, &teacher_observation, &teacher_action) else {
            return Ok(());
        };
        let mut to = vec![0.0; teacher_observation.width()];
        if plan.observation(&row, &mut to).is_ok() {
            prop_assert!(to.iter().all(|number| number.is_finite()));
        }
        let mut scratch = vec![0.0; student_action.width()];
        for answer in [Action::Discrete(index), Action::Continuous(&row)] {
            match (plan.action(answer, &mut scratch), &student_action) {
                (Ok(Action::Discrete(index)), Space::Discrete { n }) => prop_assert!(index < *n),
                (Ok(Action::Continuous(row)), Space::Box { low, high }) => {
                    prop_assert!(row.iter().zip(low.iter().zip(high)).all(|(x, (low, high))| low <= x && x <= high));
                }
                (Ok(_), _) => prop_assert!(false, "an action of another kind"),
                (Err(_), _) => {}
            }
        }
    }
}

/// A format, the widths of observation and action, and rows of numbers with their ends.
type Submitted = (TransitionFormat, [usize; 2], Vec<(Vec<f32>, u8)>);

fn submissions() -> impl Strategy<Value = Submitted> {
    let action = prop_oneof![(1..9u32).prop_map(|n| Space::Discrete { n }), (1..3usize).prop_map(unbounded)];
    (1..5usize, action).prop_flat_map(|(width, action)| {
        let states = StateFormat::new(&unbounded(width), Dtype::F32, None).expect("a format");
        let actions = ActionFormat::new(&action, None).expect("a format");
        let widths = [width, actions.width()];
        let format = TransitionFormat::new(&Formats { states, actions }, &action);
        let numbers = prop::collection::vec(finite(), format.width()).prop_map(move |mut numbers| {
            if let Space::Discrete { n } = action {
                numbers[width] = (numbers[width].to_bits() % n) as f32;
            }
            numbers
        });
        (Just(format), Just(widths), prop::collection::vec((numbers, 0..4u8), 1..12))
    })
}

fn transition([width, action]: [usize; 2], numbers: &[f32], ends: u8) -> Transition<'_> {
    Transition {
        observation: &numbers[..width],
        action: &numbers[width..width + action],
        reward: numbers[width + action],
        next_observation: &numbers[width + action + 1..],
        terminated: ends & 1 != 0,
        truncated: ends & 2 != 0,
    }
}

fn write_submission(
    format: &TransitionFormat,
    widths: [usize; 2],
    rows: &[(Vec<f32>, u8)],
    batch: BatchId,
) -> Vec<u8> {
    let mut frame = Vec::new();
    let mut writer = format.writer(Ids::default(), batch, &mut frame);
    for (numbers, ends) in rows {
        writer.transition(&transition(widths, numbers, *ends)).expect("a row that fits");
    }
    writer.finish().expect("at least one row");
    frame
}

fn any_space() -> impl Strategy<Value = Space> {
    prop_oneof![
        (1..5u32).prop_map(|n| Space::Discrete { n }),
        (1..4usize).prop_map(unbounded),
        (1..4usize).prop_map(|width| Space::Box { low: vec![-1.0; width], high: vec![1.0; width] }),
    ]
}

fn any_adapter() -> impl Strategy<Value = Adapter> {
    let numbers = || prop::collection::vec(prop_oneof![9 => -2f32..2.0, 1 => any::<f32>()], 0..4);
    let observation = (
        prop::option::of(prop::collection::vec(0..4usize, 0..4)),
        prop::option::of(numbers()),
        prop::option::of(numbers()),
    )
        .prop_map(|(permutation, scale, offset)| ObservationMap { permutation, scale, offset });
    let action = prop_oneof![
        Just(ActionMap::Identity),
        (0..3usize, 0..4u32, 0..4u32).prop_map(|(component, negative, positive)| ActionMap::Sign {
            component,
            negative,
            positive
        }),
        (0..3usize, numbers()).prop_map(|(component, at)| ActionMap::Threshold { component, at }),
        (numbers(), numbers()).prop_map(|(scale, offset)| ActionMap::Affine { scale, offset }),
        prop::collection::vec(0..5u32, 0..5).prop_map(|map| ActionMap::Table { map }),
        prop::collection::vec(numbers(), 0..5).prop_map(|values| ActionMap::Levels { values }),
    ];
    (prop::option::of(observation), prop::option::of(action))
        .prop_map(|(observation, action)| Adapter { observation, action })
}

#[test]
fn limits_hold() {
    assert_eq!(check_space(&unbounded(MAX_WIDTH + 1)), Err(SpaceError::Width(MAX_WIDTH + 1)));
    assert_eq!(check_space(&unbounded(MAX_WIDTH)), Ok(()));
    let text = " ".repeat(MAX_CONTROL_BYTES + 1);
    assert_eq!(ServerMessage::decode(&text), Err(MessageError::TooLarge(MAX_CONTROL_BYTES + 1)));
    let nan = Space::Box { low: vec![f32::NAN], high: vec![1.0] };
    assert!(matches!(check_space(&nan), Err(SpaceError::Bounds { component: 0, .. })));
}

#[test]
fn a_frame_holds_no_more_than_65535_rows() {
    let format = ActionFormat::new(&Space::Discrete { n: 2 }, None).expect("a format");
    let mut frame = Vec::new();
    let mut writer = format.writer(Ids::default(), &mut frame);
    for _ in 0..65_535 {
        writer.action(Action::Discrete(1)).expect("there is room");
    }
    let refused = writer.action(Action::Discrete(1));
    assert_eq!(refused, Err(FrameError::TooManyRows { found: 65_536, max: 65_535 }));
    assert_eq!(writer.finish(), Ok(65_535));
    assert_eq!(format.decode(&frame, 65_535).expect("a valid frame").rows(), 65_535);
}

#[test]
fn cartpole_stays_within_its_bytes() {
    let states = StateFormat::new(&unbounded(4), Dtype::F32, None).expect("a format");
    let actions = ActionFormat::new(&Space::Discrete { n: 2 }, None).expect("a format");
    assert_eq!((states.frame_bytes(64), actions.frame_bytes(64)), (1_040, 80));
}

/// A student whose environment shows choices one-hot asks a policy that takes their index.
#[test]
fn one_hot_observations_become_the_index_that_a_policy_takes() {
    let choices = |n| Space::Discrete { n };
    let box_of = |width: usize| Space::Box { low: vec![0.0; width], high: vec![1.0; width] };
    let check = |student: &Space, teacher: &Space| {
        oto_proto::Adapter::default().check(student, &choices(2), teacher, &choices(2))
    };
    let plan = check(&box_of(3), &choices(3)).unwrap();
    let index = |row: &[f32]| {
        let mut index = [f32::NAN];
        plan.observation(row, &mut index).map(|()| index[0])
    };
    for i in 0..3 {
        let mut row = [0.0; 3];
        row[i] = 1.0;
        assert_eq!(index(&row).unwrap(), i as f32);
    }
    for wrong in [[0.0; 3], [1.0, 1.0, 0.0], [0.0, 0.5, 0.0], [f32::NAN, 0.0, 1.0], [0.0, 1.0, f32::INFINITY]]
    {
        assert!(index(&wrong).is_err(), "{wrong:?}");
    }
    assert!(check(&box_of(4), &choices(3)).is_err() && check(&choices(3), &box_of(3)).is_err());
}
