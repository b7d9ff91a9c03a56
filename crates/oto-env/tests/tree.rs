//! Flattened elements against `gymnasium.spaces.flatten`, and what holds for every space.

use flate2::read::GzDecoder;
use oto_env::{Action, ElementError, MAX_COMBINATIONS, MAX_DEPTH, MAX_PARTS, Space, SpaceError, SpaceTree};
use oto_json::Json;
use proptest::prelude::*;
use std::io::Read;

fn tree(text: &str) -> SpaceTree {
    oto_json::read(text).unwrap()
}

struct Element {
    numbers: Vec<f64>,
    flat: Vec<f32>,
}

oto_json::json_object! { Element: open { numbers, flat } }

struct Case {
    space: SpaceTree,
    low: Vec<Option<f32>>,
    high: Vec<Option<f32>>,
    elements: Vec<Element>,
}

oto_json::json_object! { Case: open { space, low, high, elements } }

struct Table {
    cases: Vec<Case>,
}

oto_json::json_object! { Table: open { cases } }

/// `data/make_flatten.py` drew these with gymnasium 1.4.
#[test]
fn elements_are_flattened_as_gymnasium_does() {
    let mut text = String::new();
    let packed = include_bytes!("data/flatten.json.gz");
    GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
    let table: Table = oto_json::read(&text).unwrap();
    assert_eq!(table.cases.len(), 150);
    for (i, case) in table.cases.iter().enumerate() {
        case.space.validate().unwrap();
        let bounds = |bounds: &[Option<f32>], infinity: f32| -> Vec<f32> {
            bounds.iter().map(|bound| bound.unwrap_or(infinity)).collect()
        };
        let flat =
            Space::Box { low: bounds(&case.low, f32::NEG_INFINITY), high: bounds(&case.high, f32::INFINITY) };
        assert_eq!(case.space.flat(), flat, "case {i}: {:?}", case.space);
        for element in &case.elements {
            assert_eq!(element.numbers.len(), case.space.numbers(), "case {i}");
            let mut row = vec![f32::NAN; case.space.width()];
            case.space.flatten(&element.numbers, &mut row).unwrap();
            assert_eq!(row, element.flat, "case {i}: {:?}", case.space);
        }
    }
}

#[test]
fn what_is_no_element_is_named_with_its_place() {
    let space = tree(
        r#"{"kind":"dict","spaces":{"goal":{"kind":"multi_discrete","nvec":[3,2],"start":[0,-1]},
            "arm":{"kind":"tuple","spaces":[{"kind":"box","low":[null,0],"high":[null,1]},{"kind":"discrete","n":4}]}}}"#,
    );
    // Names are sorted: the arm's two numbers and its choice, then the goal's two choices.
    let good = [0.5, 7.0, 3.0, 2.0, -1.0];
    let mut row = [0.0; 11];
    space.flatten(&good, &mut row).unwrap();
    assert_eq!(row, [0.5, 7.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0]);
    let refused = |number: usize, value: f64| {
        let mut element = good;
        element[number] = value;
        space.flatten(&element, &mut [0.0; 11]).unwrap_err().to_string()
    };
    let wide = "expected a finite number that float32 can hold";
    assert_eq!(refused(0, f64::NAN), format!(r#"observation["arm"][0][0] is NaN, {wide}"#));
    assert_eq!(refused(1, 1e300), format!(r#"observation["arm"][0][1] is 1e300, {wide}"#));
    assert_eq!(refused(2, 4.0), r#"observation["arm"][1] is 4.0, expected a whole number from 0 to 3"#);
    assert_eq!(refused(3, 0.5), r#"observation["goal"][0] is 0.5, expected a whole number from 0 to 2"#);
    assert_eq!(refused(4, 1.0), r#"observation["goal"][1] is 1.0, expected a whole number from -1 to 0"#);
    assert_eq!(
        refused(4, f64::NAN),
        r#"observation["goal"][1] is NaN, expected a whole number from -1 to 0"#
    );
    assert_eq!(space.flatten(&good[..4], &mut row), Err(ElementError::Length { expected: 5, got: 4 }));
    assert_eq!(space.place_of_column(5), r#"["arm"][1]"#);
    assert_eq!(space.place_of_column(10), r#"["goal"][1]"#);
    assert_eq!(tree(r#"{"kind":"discrete","n":4}"#).place_of_column(3), "");
}

#[test]
fn a_bit_is_0_or_1() {
    let space = SpaceTree::Tuple(vec![
        SpaceTree::MultiBinary { n: 2 },
        SpaceTree::Box { low: vec![0.0], high: vec![1.0] },
    ]);
    let mut row = [9.0; 3];
    space.flatten(&[1.0, 0.0, 7.0], &mut row).unwrap();
    assert_eq!(row, [1.0, 0.0, 7.0], "bounds of observations are not enforced");
    for bad in [7.0, 0.5, -3.0, 2.0, f64::NAN, f64::INFINITY] {
        let error = space.flatten(&[1.0, bad, 0.0], &mut row).unwrap_err().to_string();
        assert!(error.starts_with("observation[0][1] is "), "{error}");
        assert!(error.ends_with("expected a whole number from 0 to 1"), "{error}");
    }
}

#[test]
fn what_is_no_space_is_refused() {
    let refused = |text: &str| match oto_json::read::<SpaceTree>(text) {
        Ok(space) => space.validate().unwrap_err().to_string(),
        Err(error) => error.to_string(),
    };
    for (text, part) in [
        (r#"{"kind":"text"}"#, "expected `discrete`, `box`, `multi_discrete`"),
        (r#"{"kind":"discrete","n":0}"#, "needs 1 to 65536 choices"),
        (r#"{"kind":"discrete","n":-1}"#, "n: expected a whole number"),
        (r#"{"kind":"discrete","n":2,"start":0.5}"#, "start: expected a whole number"),
        (r#"{"kind":"multi_discrete","nvec":[2,0]}"#, "needs 1 to 65536 choices"),
        (r#"{"kind":"multi_discrete","nvec":[2,2],"start":[0]}"#, "as many lower as upper bounds"),
        (r#"{"kind":"multi_discrete","nvec":[]}"#, "1 to 1048576 components"),
        (r#"{"kind":"multi_binary","n":4294967295}"#, "1 to 1048576 components"),
        (r#"{"kind":"tuple","spaces":[]}"#, "1 to 1048576 components"),
        (r#"{"kind":"dict","spaces":{"a":{"kind":"box","low":[1],"high":[0]}}}"#, "component 0 of the box"),
        (r#"{"kind":"dict","spaces":{"a":{"kind":"box","low":[1]}}}"#, "spaces.a: missing field `high`"),
        (r#"{"kind":"dict","spaces":7}"#, "spaces: expected a list"),
    ] {
        let said = refused(text);
        assert!(said.contains(part), "{text}: {said}");
    }
    let mut deep = tree(r#"{"kind":"discrete","n":2}"#);
    for _ in 0..=MAX_DEPTH {
        deep = SpaceTree::Tuple(vec![deep]);
    }
    assert_eq!(deep.validate(), Err(SpaceError::Parts));
    let many = SpaceTree::Tuple(vec![SpaceTree::Discrete { n: 1, start: 0 }; MAX_PARTS]);
    assert_eq!(many.validate(), Err(SpaceError::Parts));
    assert_eq!(
        SpaceTree::Tuple(vec![SpaceTree::MultiBinary { n: u32::MAX }; 3]).validate(),
        Err(SpaceError::Width(3 * u32::MAX as usize))
    );
}

#[test]
fn several_choices_are_one_action_where_they_are_few() {
    let action = |text: &str| tree(text).action();
    assert_eq!(action(r#"{"kind":"discrete","n":500,"start":-3}"#), Ok(Space::Discrete { n: 500 }));
    assert_eq!(action(r#"{"kind":"multi_binary","n":6}"#), Ok(Space::Discrete { n: 64 }));
    assert_eq!(action(r#"{"kind":"multi_binary","n":7}"#), Err(SpaceError::Combinations(128)));
    assert_eq!(action(r#"{"kind":"multi_binary","n":4000}"#), Err(SpaceError::Combinations(u64::MAX)));
    let boxes = r#"{"kind":"tuple","spaces":[{"kind":"box","low":[-1],"high":[1]},{"kind":"box","low":[0],"high":[2]}]}"#;
    assert_eq!(action(boxes), Ok(Space::Box { low: vec![-1.0, 0.0], high: vec![1.0, 2.0] }));
    let mixed =
        r#"{"kind":"tuple","spaces":[{"kind":"box","low":[-1],"high":[1]},{"kind":"discrete","n":2}]}"#;
    assert_eq!(action(mixed), Err(SpaceError::Mixed));
    let several = tree(
        r#"{"kind":"tuple","spaces":[{"kind":"multi_discrete","nvec":[2,3],"start":[0,5]},{"kind":"multi_binary","n":1}]}"#,
    );
    assert_eq!(several.action(), Ok(Space::Discrete { n: 12 }));
    // As numpy.unravel_index(index, (2, 3, 2)) gives them, each from its start.
    for (index, numbers) in [
        (0, [0.0, 5.0, 0.0]),
        (1, [0.0, 5.0, 1.0]),
        (5, [0.0, 7.0, 1.0]),
        (6, [1.0, 5.0, 0.0]),
        (11, [1.0, 7.0, 1.0]),
    ] {
        let mut element = Vec::new();
        several.combination(index, &mut element);
        assert_eq!(element, numbers);
    }
}

/// Any space, three levels deep at most.
fn spaces() -> impl Strategy<Value = SpaceTree> {
    let starts = |n: usize| prop::collection::vec(-9i64..9, n);
    let leaf = prop_oneof![
        (1u32..6, -9i64..9).prop_map(|(n, start)| SpaceTree::Discrete { n, start }),
        (1usize..4)
            .prop_flat_map(move |n| (prop::collection::vec(1u32..5, n), starts(n)))
            .prop_map(|(nvec, start)| SpaceTree::MultiDiscrete { nvec, start }),
        (1u32..5).prop_map(|n| SpaceTree::MultiBinary { n }),
        prop::collection::vec((-4f32..0.0, 0f32..4.0, any::<[bool; 2]>()), 1..5).prop_map(|ranges| {
            let low =
                |&(low, _, [open, _]): &(f32, f32, [bool; 2])| if open { f32::NEG_INFINITY } else { low };
            let high =
                |&(_, high, [_, open]): &(f32, f32, [bool; 2])| if open { f32::INFINITY } else { high };
            SpaceTree::Box { low: ranges.iter().map(low).collect(), high: ranges.iter().map(high).collect() }
        }),
    ];
    leaf.prop_recursive(3, 24, 4, |part| {
        prop_oneof![
            prop::collection::vec(part.clone(), 1..4).prop_map(SpaceTree::Tuple),
            prop::collection::btree_map("[a-zä\"]{0,3}", part, 1..4)
                .prop_map(|parts| SpaceTree::Dict(parts.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_space_comes_back_from_json(space in spaces()) {
        let text = oto_json::write(&space);
        prop_assert_eq!(oto_json::read::<SpaceTree>(&text).unwrap(), space.clone());
        // An object in place of pairs is sorted, as these names are.
        let mut json = oto_json::parse(&text).unwrap();
        as_objects(&mut json);
        prop_assert_eq!(oto_json::from_tree::<SpaceTree>(&json).unwrap(), space);
    }

    /// An element of the space flattens into the flat box, one 1 for each choice; its numbers can be told from it.
    #[test]
    fn a_flattened_element_lies_in_the_flat_box(space in spaces(), draws in prop::collection::vec(0f64..1.0, 64)) {
        space.validate().unwrap();
        let flat = space.flat();
        prop_assert_eq!(flat.width(), space.width());
        flat.validate().unwrap();
        let mut draws = draws.iter().cycle();
        let mut numbers = Vec::new();
        draw(&space, &mut || *draws.next().unwrap(), &mut numbers);
        let mut row = vec![f32::NAN; space.width()];
        space.flatten(&numbers, &mut row).unwrap();
        prop_assert!(flat.contains(Action::Continuous(&row)), "{:?}", row);
        prop_assert_eq!(flat.outside(&row), None);
        // What is no number is refused wherever it stands, and so is an element that is too short.
        for number in 0..numbers.len() {
            let mut bad = numbers.clone();
            bad[number] = f64::NAN;
            let said = space.flatten(&bad, &mut row).unwrap_err().to_string();
            prop_assert!(said.starts_with(&format!("observation{} is NaN", space.place(number))), "{}", said);
        }
        prop_assert!(space.flatten(&numbers[1..], &mut row).is_err());
    }

    #[test]
    fn each_combination_is_another_element(space in spaces()) {
        match space.action() {
            Ok(Space::Discrete { n }) => {
                let mut seen = std::collections::BTreeSet::new();
                for index in 0..n {
                    let mut element = Vec::new();
                    space.combination(index, &mut element);
                    space.flatten(&element, &mut vec![0.0; space.width()]).unwrap();
                    prop_assert_eq!(space.index(&element), Ok(index));
                    seen.insert(element.iter().map(|x| *x as i64).collect::<Vec<_>>());
                }
                prop_assert_eq!(seen.len(), n as usize);
            }
            Ok(flat) => prop_assert_eq!(flat, space.flat()),
            Err(SpaceError::Combinations(n)) => prop_assert!(n > MAX_COMBINATIONS),
            Err(error) => prop_assert_eq!(error, SpaceError::Mixed),
        }
    }
}

/// The numbers of an element, drawn with numbers from 0 to 1.
fn draw(space: &SpaceTree, unit: &mut impl FnMut() -> f64, numbers: &mut Vec<f64>) {
    let mut choice = |n: u32, start: i64| (unit() * f64::from(n)).floor() + start as f64;
    match space {
        SpaceTree::Discrete { n, start } => numbers.push(choice(*n, *start)),
        SpaceTree::MultiDiscrete { nvec, start } => {
            numbers.extend(nvec.iter().zip(start).map(|(n, start)| choice(*n, *start)));
        }
        SpaceTree::MultiBinary { n } => numbers.extend((0..*n).map(|_| choice(2, 0))),
        SpaceTree::Box { low, high } => {
            numbers.extend(low.iter().zip(high).map(|(low, high)| f64::from(low.max(-9.0).min(*high))));
        }
        SpaceTree::Dict(parts) => parts.iter().for_each(|(_, part)| draw(part, unit, numbers)),
        SpaceTree::Tuple(parts) => parts.iter().for_each(|part| draw(part, unit, numbers)),
    }
}

/// Makes objects of the pairs of every dictionary, last name first.
fn as_objects(json: &mut Json) {
    match json {
        Json::Object(entries) => {
            let dict =
                entries.iter().any(|(key, value)| key == "kind" && *value == Json::Text("dict".into()));
            for (key, value) in entries.iter_mut() {
                if dict && key == "spaces" {
                    let Json::List(pairs) = &*value else { panic!("pairs") };
                    let pair = |pair: &Json| match pair {
                        Json::List(pair) => match &pair[..] {
                            [Json::Text(name), space] => (name.clone(), space.clone()),
                            _ => panic!("a pair"),
                        },
                        _ => panic!("a pair"),
                    };
                    *value = Json::Object(pairs.iter().rev().map(pair).collect());
                }
                as_objects(value);
            }
        }
        Json::List(list) => list.iter_mut().for_each(as_objects),
        _ => {}
    }
}

/// A dictionary's names identify its numbers, in any order.
#[test]
fn parts_of_another_order_are_found_by_their_names() {
    let own = tree(
        r#"{"kind":"dict","spaces":[["b",{"kind":"box","low":[0,0],"high":[1,1]}],["a",{"kind":"tuple","spaces":[
            {"kind":"discrete","n":2},{"kind":"dict","spaces":[["y",{"kind":"multi_binary","n":1}],["x",{"kind":"discrete","n":3}]]}]}]]}"#,
    );
    let other = tree(
        r#"{"kind":"dict","spaces":[["a",{"kind":"tuple","spaces":[
            {"kind":"discrete","n":2},{"kind":"dict","spaces":[["x",{"kind":"discrete","n":3}],["y",{"kind":"multi_binary","n":1}]]}]}],
            ["b",{"kind":"box","low":[0,0],"high":[1,1]}]]}"#,
    );
    assert_eq!(own.columns_of(&own), Some((0..8).collect()));
    assert_eq!(own.columns_of(&other), Some(vec![2, 3, 5, 6, 7, 4, 0, 1]));
    for strange in [
        r#"{"kind":"box","low":[0,0,0,0,0,0,0,0],"high":[1,1,1,1,1,1,1,1]}"#,
        r#"{"kind":"dict","spaces":[["b",{"kind":"box","low":[0,0],"high":[1,1]}],["c",{"kind":"multi_binary","n":6}]]}"#,
        r#"{"kind":"dict","spaces":[["b",{"kind":"box","low":[0,0],"high":[1,1]}]]}"#,
        r#"{"kind":"dict","spaces":[["b",{"kind":"box","low":[0],"high":[1]}],["a",{"kind":"multi_binary","n":7}]]}"#,
    ] {
        assert_eq!(own.columns_of(&tree(strange)), None, "{strange}");
    }
    let [own, other] = [
        r#"{"kind":"dict","spaces":[["b",{"kind":"discrete","n":2}],["a",{"kind":"discrete","n":3,"start":5}]]}"#,
        r#"{"kind":"dict","spaces":[["a",{"kind":"discrete","n":3,"start":5}],["b",{"kind":"discrete","n":2}]]}"#,
    ]
    .map(tree);
    // (b, a) is 3 b + a there and 2 a + b here.
    assert_eq!(own.combinations_of(&other), Some(vec![0, 2, 4, 1, 3, 5]));
    assert_eq!(own.combinations_of(&tree(r#"{"kind":"discrete","n":6}"#)), None);
}
