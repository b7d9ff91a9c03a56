//! Files that are damaged, foreign or lie about their size: an error, never a panic, never more memory than the file can fill.

use hdf5_pure::{AttrValue, FileBuilder};
use oto_data::{DataError, Dataset, Episode, Metadata, read_bytes, read_file};
use oto_env::Space;
use proptest::prelude::*;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).unwrap()
}

fn metadata() -> String {
    String::from_utf8(bytes("cartpole_expert/data/metadata.json")).unwrap()
}

/// What writes an array.
type Write<'a> = &'a dyn Fn(&mut hdf5_pure::DatasetBuilder);

/// A Minari file with one episode of three steps, but for what `change` writes under one of the names.
fn episode(name: &str, change: impl FnOnce(&mut hdf5_pure::DatasetBuilder)) -> Vec<u8> {
    let mut file = FileBuilder::new();
    let mut group = file.create_group("episode_0");
    group.set_attr("id", AttrValue::I64(0));
    let whole: [(&str, Write<'_>); 5] = [
        ("observations", &|array| _ = array.with_f32_data(&[0.5; 8]).with_shape(&[4, 2])),
        ("actions", &|array| _ = array.with_i64_data(&[0, 1, 2])),
        ("rewards", &|array| _ = array.with_f64_data(&[1.0; 3])),
        ("terminations", &|array| _ = array.with_u8_data(&[0, 0, 1])),
        ("truncations", &|array| _ = array.with_u8_data(&[0, 0, 0])),
    ];
    for (other, write) in whole {
        if other != name {
            write(group.create_dataset(other));
        }
    }
    change(group.create_dataset(name));
    file.add_group(group.finish());
    file.finish().unwrap()
}

#[test]
fn an_episode_that_is_fine_is_read() {
    let dataset = read_bytes(episode("rewards", |array| _ = array.with_f32_data(&[1.0; 3])), None).unwrap();
    assert_eq!((dataset.len(), dataset.action), (3, Space::Discrete { n: 3 }));
}

#[test]
fn shapes_and_types_that_do_not_belong_are_told_with_their_place() {
    let refusal = |name, change: fn(&mut hdf5_pure::DatasetBuilder)| {
        read_bytes(episode(name, change), None).unwrap_err().to_string()
    };
    let expected = [
        (
            refusal("observations", |array| _ = array.with_f32_data(&[0.0; 6]).with_shape(&[3, 2])),
            "episode_0/observations: expected 4 rows of 2 numbers, the shape is [3, 2]",
        ),
        (
            refusal("actions", |array| _ = array.with_strings(&["a", "b", "c"]).unwrap()),
            "episode_0/actions: expected numbers, got string",
        ),
        (
            refusal("rewards", |array| _ = array.with_f64_data(&[1.0, f64::NAN, 1.0])),
            "episode 0, row 1: the reward is NaN, expected a finite number",
        ),
        (
            refusal("observations", |array| _ = array.with_f64_data(&[1e300; 8]).with_shape(&[4, 2])),
            "episode 0, row 0: component 0 of the observation is inf, expected a finite number",
        ),
        (
            refusal("actions", |array| _ = array.with_i64_data(&[0, -1, 2])),
            "episode 0, row 1: the action [-1.0] is not in one of 3 choices",
        ),
        (
            refusal("terminations", |array| _ = array.with_u8_data(&[1, 0, 0])),
            "episode 0: row 0 ends it, but 2 more follow",
        ),
        (
            refusal("rewards", |array| _ = array.with_f64_data(&[1.0]).with_shape(&[])),
            "episode_0/rewards: expected a row for each step, the shape is []",
        ),
    ];
    for (got, expected) in expected {
        assert_eq!(got, expected);
    }
}

#[test]
fn metadata_that_do_not_belong_are_refused() {
    let file = || bytes("cartpole_expert/data/main_data.hdf5");
    let with = |from: &str, to: &str| {
        let changed = metadata().replacen(from, to, 1);
        assert_ne!(changed, metadata());
        read_bytes(file(), Some(&changed)).unwrap_err()
    };
    assert!(matches!(
        with("\"total_episodes\": 1", "\"total_episodes\": 2"),
        DataError::Count { expected: 2, got: 1, .. }
    ));
    assert!(matches!(
        with("\"total_steps\": 500", "\"total_steps\": 501"),
        DataError::Count { what: "steps", .. }
    ));
    assert!(matches!(with("\"hdf5\"", "\"arrow\""), DataError::Unsupported(_)));
    assert!(matches!(with("\\\"Discrete\\\"", "\\\"Text\\\""), DataError::Unsupported(_)));
    assert!(matches!(with("\\\"Discrete\\\"", "\\\"Dict\\\""), DataError::Metadata(_)));
    assert!(matches!(with("\\\"n\\\": 2", "\\\"n\\\": 0"), DataError::Space { what: "action", .. }));
    assert!(matches!(with("\\\"n\\\": 2", "\\\"n\\\": 1"), DataError::Outside { what: "action", .. }));
    assert!(matches!(with("-4.800000190734863, ", ""), DataError::Space { what: "observation", .. }));
    assert!(matches!(with("{", "[{"), DataError::Metadata(_)));
}

#[test]
fn foreign_files_are_told_from_datasets() {
    assert!(matches!(read_bytes(Vec::new(), None), Err(DataError::Hdf5 { .. })));
    assert!(matches!(read_bytes(b"PK\x03\x04 not HDF5".to_vec(), None), Err(DataError::Hdf5 { .. })));
    let error = read_file(&fixture("none")).unwrap_err();
    assert!(matches!(error, DataError::File { .. }), "{error:?}");
    let error = error.to_string();
    assert!(error.contains("there is no dataset") && error.contains("expected Minari's folder"), "{error}");
    let mut file = FileBuilder::new();
    file.create_dataset("temperature").with_f64_data(&[1.0]);
    let error = read_bytes(file.finish().unwrap(), None).unwrap_err().to_string();
    assert!(error.ends_with("the file has temperature"), "{error}");
    let error = read_bytes(FileBuilder::new().finish().unwrap(), None).unwrap_err().to_string();
    assert!(error.ends_with("the file has nothing"), "{error}");
}

/// A terabyte that the file of a few kilobytes claims is not asked for, and a way in circles is not walked.
#[test]
fn sizes_and_links_that_lie_are_refused() {
    let error = read_file(&fixture("huge.hdf5")).unwrap_err();
    assert!(matches!(error, DataError::TooLarge { unit: "bytes", .. }), "{error:?}");
    let error = read_file(&fixture("cyclic.hdf5")).unwrap_err();
    assert!(matches!(error, DataError::Encoding { .. }), "{error:?}");
}

#[test]
fn a_dataset_for_another_environment_is_refused() {
    let dataset = read_file(&fixture("inverted_pendulum_medium")).unwrap();
    let four = Space::uniform(4, -1.0, 1.0);
    let fits = |action| dataset.fits(&four, &action).map_err(|error| error.to_string());
    assert_eq!(fits(Space::uniform(1, -3.0, 3.0)), Ok(()));
    let expected =
        "the environment's action space is 1 number from -1 to 1, the dataset's is 1 number from -3 to 3";
    assert_eq!(fits(Space::uniform(1, -1.0, 1.0)), Err(expected.into()));
    assert!(fits(Space::uniform(2, -3.0, 3.0)).is_err() && fits(Space::Discrete { n: 2 }).is_err());
    let three = dataset.fits(&Space::uniform(3, -1.0, 1.0), &dataset.action);
    assert!(matches!(three, Err(DataError::SpaceMismatch { what: "observation", .. })));
    // Where the dataset does not know the range, its actions have to lie in the environment's.
    let unknown = Space::uniform(1, f32::NEG_INFINITY, f32::INFINITY);
    let unknown = Dataset { action: unknown, ..dataset.clone() };
    unknown.fits(&four, &dataset.action).unwrap();
    let narrow = unknown.fits(&four, &Space::uniform(1, -0.5, 0.5));
    assert!(matches!(narrow, Err(DataError::Outside { episode: 0, .. })));
}

#[test]
fn what_is_wrong_in_memory_is_told_with_its_place() {
    let fine = Episode {
        observations: vec![0.0; 3].into(),
        actions: vec![0.0; 2],
        rewards: vec![0.0; 2],
        terminated: vec![false, true],
        truncated: vec![false; 2],
        seed: None,
    };
    let check = |change: fn(&mut Episode)| {
        let mut broken = fine.clone();
        change(&mut broken);
        let dataset = Dataset {
            observation: Space::uniform(1, -1.0, 1.0),
            action: Space::Discrete { n: 2 },
            episodes: vec![fine.clone(), broken],
            metadata: Metadata::default(),
        };
        dataset.check()
    };
    check(|_| ()).unwrap();
    assert!(matches!(check(|e| *e = Episode::default()), Err(DataError::EmptyEpisode { episode: 1 })));
    assert!(matches!(
        check(|e| e.observations = vec![0.0; 2].into()),
        Err(DataError::Length { episode: 1, expected: 3, got: 2, .. })
    ));
    assert!(matches!(check(|e| e.truncated.push(true)), Err(DataError::Length { what: "truncations", .. })));
    assert!(matches!(
        check(|e| e.observations = vec![0.0, 0.0, f32::NAN].into()),
        Err(DataError::NotFinite { row: 2, .. })
    ));
    assert!(matches!(check(|e| e.actions[1] = 0.5), Err(DataError::Outside { row: 1, .. })));
    assert!(matches!(check(|e| e.actions[1] = 2.0), Err(DataError::Outside { row: 1, .. })));
    assert!(matches!(check(|e| e.terminated[1] = false), Err(DataError::NoEnd { episode: 1 })));
    assert!(matches!(check(|e| e.truncated[0] = true), Err(DataError::EndInside { row: 0, rest: 1, .. })));
}

/// What is read of a damaged file is either an error or a dataset without a fault.
fn survive(hdf5: Vec<u8>, metadata: Option<&str>) {
    if let Ok(dataset) = read_bytes(hdf5, metadata) {
        dataset.check().unwrap();
    }
}

#[test]
fn a_file_may_be_cut_anywhere() {
    for name in ["cartpole_expert/data/main_data.hdf5", "d4rl.hdf5", "cartpole_resizable/data/main_data.hdf5"]
    {
        let file = bytes(name);
        for length in (0..file.len()).step_by(61).chain(file.len() - 40..file.len()) {
            assert!(read_bytes(file[..length].to_vec(), None).is_err(), "{name} cut to {length} bytes");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn bytes_may_be_changed_anywhere(
        which in 0..4usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let names = ["cartpole_expert/data/main_data.hdf5", "cartpole_resizable/data/main_data.hdf5", "d4rl.hdf5", "cyclic.hdf5"];
        let mut file = bytes(names[which]);
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] ^= byte;
        }
        survive(file, None);
    }

    #[test]
    fn metadata_may_be_anything(cut: prop::sample::Index, insert in ".{0,8}") {
        let mut text = metadata();
        let at = cut.index(text.len());
        prop_assume!(text.is_char_boundary(at));
        text.insert_str(at, &insert);
        survive(bytes("cartpole_expert/data/main_data.hdf5"), Some(&text));
        survive(bytes("cartpole_expert/data/main_data.hdf5"), Some(&text[..at]));
    }
}
