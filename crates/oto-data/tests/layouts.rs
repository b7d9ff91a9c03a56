//! Datasets that Minari, h5py and D4RL's users wrote: read as they are, written so that nothing is lost.

use oto_data::{DataError, Dataset, Episode, Metadata, Rows, Summary, read_bytes, read_file, write_folder};
use oto_env::{Action, Environment, Space, SpaceTree};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A folder that is not there yet.
fn fresh(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

/// Plays an episode again from its seed: the recorded steps are what the environment does. Roundings grow with every step,
/// and a pendulum pushed hard makes them grow faster than a cart: a hundred steps are compared.
fn replay(environment: &mut dyn Environment, dataset: &Dataset, episode: &Episode) {
    let mut seen = vec![0.0; environment.observation_space().width()];
    let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1.0));
    environment.reset(episode.seed, &mut seen).unwrap();
    for (row, transition) in dataset.transitions_of(episode).enumerate().take(100) {
        assert!(close(&seen, &transition.observation), "row {row}: {seen:?} {transition:?}");
        let step = environment.step(transition.action, &mut seen).unwrap();
        assert!(close(&seen, &transition.next_observation), "row {row}: {seen:?} {transition:?}");
        let expected = (transition.reward, transition.terminated, transition.truncated);
        assert_eq!((step.reward, step.terminated, step.truncated), expected, "row {row}");
    }
}

#[test]
fn minaris_episodes_are_those_of_the_environment() {
    for (name, id, episodes, steps) in [
        ("cartpole_random", "CartPole-v1", 12, 322),
        ("cartpole_expert", "CartPole-v1", 1, 500),
        ("cartpole_resizable", "CartPole-v1", 3, 49),
        ("inverted_pendulum_medium", "InvertedPendulum-v5", 2, 658),
    ] {
        let dataset = read_file(&fixture(name)).unwrap();
        assert_eq!((dataset.episodes.len(), dataset.len()), (episodes, steps), "{name}");
        assert_eq!(dataset.metadata.environment.as_deref(), Some(id));
        let mut environment = oto_env::make(id).unwrap();
        dataset.fits(environment.observation_space(), environment.action_space()).unwrap();
        for episode in &dataset.episodes {
            assert!(episode.seed.is_some(), "{name}");
            replay(&mut *environment, &dataset, episode);
        }
    }
}

#[test]
fn what_minari_tells_is_kept() {
    let dataset = read_file(&fixture("cartpole_random")).unwrap();
    assert_eq!(dataset.metadata.id.as_deref(), Some("CartPole/random-v0"));
    assert_eq!(dataset.metadata.algorithm.as_deref(), Some("uniform random actions"));
    assert_eq!(dataset.action, Space::Discrete { n: 2 });
    let Space::Box { low, high } = &dataset.observation else { panic!("{:?}", dataset.observation) };
    assert_eq!((low[0], low[1], high[2]), (-4.8, f32::NEG_INFINITY, 0.418_879_03));
    let summary = Summary::of(&dataset).unwrap();
    assert_eq!((summary.min_return, summary.max_return), (10.0, 75.0));
    assert!((summary.mean_return - 26.833_333_333).abs() < 1e-6);
    assert!((summary.std_return - 17.803_713_72).abs() < 1e-6);
    assert_eq!(summary.first.action, Action::Discrete(1));
    assert_eq!(summary.first.observation[..], [0.009_641_292_5, 0.010_226_438, 0.017_419_059, 0.032_549_31]);
    assert_eq!(
        summary.first.next_observation[..],
        [0.009_845_821, 0.205_094_32, 0.018_070_046, -0.254_587_23]
    );
}

/// The file alone shows its spaces, the `data` folder is as good as the one around it.
#[test]
fn a_dataset_has_several_addresses() {
    let folder = fixture("inverted_pendulum_medium");
    let whole = read_file(&folder).unwrap();
    assert_eq!(read_file(&folder.join("data")).unwrap(), whole);
    assert_eq!(read_file(&folder.join("data/main_data.hdf5")).unwrap(), whole);
    let alone = read_bytes(std::fs::read(folder.join("data/main_data.hdf5")).unwrap(), None).unwrap();
    assert_eq!(alone.episodes, whole.episodes);
    assert_eq!(alone.action, Space::uniform(1, f32::NEG_INFINITY, f32::INFINITY));
    alone.fits(&whole.observation, &whole.action).unwrap();
    let choices = std::fs::read(fixture("cartpole_random/data/main_data.hdf5")).unwrap();
    assert_eq!(read_bytes(choices, None).unwrap().action, Space::Discrete { n: 2 });
}

/// What D4RL's `qlearning_dataset` made of the same columns: reward, terminal, first number before and after.
const QLEARNING: [(f64, bool, f32, f32); 13] = [
    (0.0, false, 0.001_928_258_6, 0.011_691_884),
    (1.0, false, 0.011_691_884, 0.010_949_235),
    (2.0, false, 0.010_949_235, 0.005_320_778),
    (3.0, false, 0.005_320_778, 0.007_208_275),
    (4.0, true, 0.007_208_275, -0.009_536_542),
    (10.0, false, -0.009_536_542, -0.005_318_390_7),
    (11.0, false, -0.005_318_390_7, -0.008_389_263),
    (12.0, false, -0.008_389_263, -0.019_674_933),
    (30.0, false, 0.042_547_725, 0.037_363_91),
    (31.0, false, 0.037_363_91, 0.024_519_987),
    (32.0, true, 0.024_519_987, -0.044_134_98),
    (40.0, false, -0.044_134_98, -0.053_247_083),
    (41.0, false, -0.053_247_083, -0.067_743_234),
];

#[test]
fn d4rls_columns_give_the_transitions_of_qlearning_dataset() {
    let dataset = read_file(&fixture("d4rl.hdf5")).unwrap();
    let lengths: Vec<usize> = dataset.episodes.iter().map(Episode::len).collect();
    assert_eq!(lengths, [5, 3, 3, 2]);
    assert_eq!(dataset.len(), QLEARNING.len());
    for (transition, expected) in dataset.transitions().zip(QLEARNING) {
        let (reward, terminal, before, after) = expected;
        assert_eq!((transition.reward, transition.terminated), (reward, terminal));
        assert!((transition.observation[0] - before).abs() < 1e-8, "{transition:?} {expected:?}");
        assert!((transition.next_observation[0] - after).abs() < 1e-8, "{transition:?} {expected:?}");
    }
    let environment = oto_env::make("InvertedPendulum-v5").unwrap();
    dataset.fits(environment.observation_space(), environment.action_space()).unwrap();
}

#[test]
fn where_d4rl_has_next_observations_no_step_is_lost() {
    let dataset = read_file(&fixture("d4rl_next.hdf5")).unwrap();
    let lengths: Vec<usize> = dataset.episodes.iter().map(Episode::len).collect();
    assert_eq!(lengths, [5, 4, 1, 3, 3]);
    let ends: Vec<bool> =
        dataset.episodes.iter().map(|episode| *episode.terminated.last().unwrap()).collect();
    assert_eq!(ends, [true, false, false, true, false]);
    // The columns are cut out of one episode, of which the other fixture has all.
    let source = &read_file(&fixture("inverted_pendulum_medium")).unwrap().episodes[0];
    let seen = source.observations.numbers();
    assert_eq!(dataset.episodes[0].observations.numbers()[..], seen[..6 * 4]);
    assert_eq!(dataset.episodes[1].observations.numbers()[..], seen[10 * 4..15 * 4]);
    assert_eq!(dataset.episodes[1].actions, source.actions[10..14]);
}

#[test]
fn what_is_written_is_read_again() {
    let choices = Dataset {
        observation: Space::Discrete { n: 500 },
        action: Space::uniform(2, -1.0, f32::INFINITY),
        episodes: (0..3)
            .map(|i| Episode {
                observations: (0..=200 * i + 1).map(|step| (step % 500) as f32).collect::<Vec<_>>().into(),
                actions: (0..2 * (200 * i + 1)).map(|number| number as f32 * 0.1 - 1.0).collect(),
                rewards: (0..200 * i + 1).map(|step| f64::from(step) / 3.0).collect(),
                terminated: vec![false; 200 * i as usize + 1],
                truncated: (0..200 * i + 1).map(|step| step == 200 * i).collect(),
                seed: (i == 1).then_some(u64::MAX),
            })
            .collect(),
        metadata: Metadata {
            id: Some("oto/taxi-v3".into()),
            environment: Some("MobileCell-5G-v0".into()),
            algorithm: Some("\"quoted\" Infinity \\ \n".into()),
            description: Some("für die Prüfung".into()),
            starts: [-3, 0],
            ..Metadata::default()
        },
    };
    let images = Dataset {
        observation: Space::uniform(600, 0.0, 255.0),
        action: Space::Discrete { n: 3 },
        episodes: vec![Episode {
            observations: Rows::Bytes((0..1_800).map(|i| (i * i / 7 % 256) as u8).collect()),
            actions: vec![0.0, 2.0],
            rewards: vec![1.0, -1.0],
            terminated: vec![false, true],
            truncated: vec![false, false],
            seed: Some(3),
        }],
        metadata: Metadata { id: Some("oto/images-v0".into()), ..Metadata::default() },
    };
    let fixtures = ["cartpole_random", "cartpole_resizable", "inverted_pendulum_medium"]
        .map(|name| read_file(&fixture(name)).unwrap());
    for (number, dataset) in fixtures.into_iter().chain([choices, images]).enumerate() {
        let folder = fresh(&format!("round-trip-{number}"));
        write_folder(&dataset, &folder).unwrap();
        assert_eq!(read_file(&folder).unwrap(), dataset);
        let again = write_folder(&dataset, &folder);
        assert!(matches!(again, Err(DataError::Exists { .. })), "{again:?}");
    }
}

#[test]
fn names_that_minari_refuses_are_not_written() {
    let mut dataset = read_file(&fixture("cartpole_expert")).unwrap();
    for id in ["", "x", "x-v", "x-v-1", "x-v1.0", "../x-v0", "a b-v0", "/x-v0", "a/x-v0", "oto//x-v0"] {
        dataset.metadata.id = Some(id.into());
        let folder = fresh("refused");
        let written = write_folder(&dataset, &folder);
        assert!(matches!(written, Err(DataError::Id(_))), "{id}: {written:?}");
        assert!(!folder.exists());
    }
}

#[test]
fn discrete_observations_and_actions_that_do_not_begin_with_0_are_counted_from_0() {
    let folder = fresh("starts");
    let episode = Episode {
        observations: Rows::Numbers(vec![2.0, 4.0, 3.0]),
        actions: vec![5.0, 6.0],
        rewards: vec![0.0, 1.0],
        terminated: vec![false, true],
        truncated: vec![false; 2],
        seed: None,
    };
    let (observation, action) = (Space::Discrete { n: 5 }, Space::Discrete { n: 7 });
    let written = Dataset { observation, action, episodes: vec![episode], metadata: Metadata::default() };
    write_folder(&written, &folder).unwrap();
    let beside = folder.join("data/metadata.json");
    let text = std::fs::read_to_string(&beside).unwrap();
    let (observed, done) = (r#"\"start\": 0, \"n\": 5"#, r#"\"start\": 0, \"n\": 7"#);
    let text = text.replace(observed, r#"\"start\": 2, \"n\": 3"#).replace(done, r#"\"start\": 5, \"n\": 2"#);
    std::fs::write(&beside, text).unwrap();
    let read = read_file(&folder).unwrap();
    assert_eq!((&read.observation, &read.action), (&Space::Discrete { n: 3 }, &Space::Discrete { n: 2 }));
    assert_eq!(read.episodes[0].observations, Rows::Numbers(vec![0.0, 2.0, 1.0]));
    assert_eq!(read.episodes[0].actions, [0.0, 1.0]);
}

#[test]
fn another_data_format_of_minaris_is_named() {
    let folder = fresh("arrow");
    write_folder(&read_file(&fixture("cartpole_random")).unwrap(), &folder).unwrap();
    let beside = folder.join("data/metadata.json");
    let text = std::fs::read_to_string(&beside).unwrap().replace("\"hdf5\"", "\"arrow\"");
    std::fs::write(&beside, text).unwrap();
    let refusal = || read_file(&folder).unwrap_err().to_string();
    assert!(refusal().ends_with("got arrow"), "{}", refusal());
    std::fs::remove_file(folder.join("data/main_data.hdf5")).unwrap();
    assert!(refusal().ends_with("got arrow"), "{}", refusal());
}

/// The same steps in several encodings are the same dataset, or the refusal names the encoding and what to do.
#[test]
fn an_encoding_is_read_or_named_with_the_way_out() {
    let encoding = |name: &str| read_file(&fixture("encodings").join(format!("{name}.hdf5")));
    let plain = encoding("plain").unwrap();
    assert_eq!((plain.len(), plain.episodes.len()), (38, 4));
    for name in ["gzip", "float64", "float16", "float16_big_endian", "shifted"] {
        assert_eq!(encoding(name).unwrap(), plain, "{name}");
    }
    for (name, part) in [
        ("soft_links", "a soft or external link"),
        ("soft_links_latest", "a soft or external link"),
        ("latest_gzip", "a layout of version 5, such as HDF5 2.0 writes"),
        ("unlimited", "several dimensions without limit"),
        ("szip", "HDF5 filter 4 (SZIP)"),
        ("virtual", "a virtual array"),
        ("unusual_floats", "numbers of an unusual type"),
    ] {
        let refused = encoding(name).unwrap_err();
        assert!(matches!(refused, DataError::Encoding { .. }), "{name}: {refused:?}");
        let said = refused.to_string();
        assert!(said.contains(part) && said.contains("python3 -c"), "{name}: {said}");
    }
}

/// h5py reads an enumeration as whole numbers.
#[test]
fn an_enumeration_is_its_numbers() {
    let encoding = |name: &str| read_file(&fixture("encodings").join(format!("{name}.hdf5"))).unwrap();
    let (plain, named) = (encoding("plain"), encoding("named_choices"));
    assert_eq!(named.action, Space::Discrete { n: 3 });
    let choice = |x: f32| if x == 0.0 { 1.0 } else { 1.0 + x.signum() };
    for (plain, named) in plain.episodes.iter().zip(&named.episodes) {
        let expected: Vec<f32> = plain.actions.chunks(2).map(|action| choice(action[0])).collect();
        assert_eq!(named.actions, expected);
    }
}

#[test]
fn what_a_file_lacks_is_named() {
    let refused = read_file(&fixture("encodings").join("lacking.hdf5")).unwrap_err().to_string();
    assert!(
        refused.contains("lacks rewards (a group, not an array), timeouts; expected observations"),
        "{refused}"
    );
    for missing in ["observations", "actions", "rewards", "terminals", "timeouts"] {
        let mut file = hdf5_pure::FileBuilder::new();
        // Another array whose name contains theirs.
        for name in [
            "next_observations",
            "old_actions",
            "rewards2",
            "observations",
            "actions",
            "rewards",
            "terminals",
            "timeouts",
        ] {
            if name != missing {
                file.create_dataset(name).with_f64_data(&[1.0]);
            }
        }
        let refused = read_bytes(file.finish().unwrap(), None).unwrap_err().to_string();
        assert!(refused.starts_with(&format!("the file lacks {missing}; expected")), "{refused}");
    }
}

/// A disk that is full after some bytes, here a folder that takes no file of this name.
#[test]
fn what_cannot_be_written_leaves_nothing() {
    let folder = fresh("full");
    let data = folder.join("data");
    let dataset = read_file(&fixture("cartpole_random")).unwrap();
    std::fs::create_dir_all(data.join("metadata.json.partial")).unwrap();
    assert!(matches!(write_folder(&dataset, &folder), Err(DataError::File { .. })));
    assert!(!data.join("main_data.hdf5").exists() && !data.join("main_data.hdf5.partial").exists());
    std::fs::remove_dir(data.join("metadata.json.partial")).unwrap();
    write_folder(&dataset, &folder).unwrap();
}

/// A dataset of these actions, whose metadata then say that they lie from -1 to 1.
fn bounded(name: &str, actions: Vec<f32>) -> Result<Dataset, DataError> {
    let folder = fresh(name);
    let steps = actions.len() / 2;
    let episode = Episode {
        observations: vec![0.0; steps + 1].into(),
        actions,
        rewards: vec![1.0; steps],
        terminated: vec![false; steps],
        truncated: (1..=steps).map(|step| step == steps).collect(),
        seed: None,
    };
    let [observation, action] = [1, 2].map(|n| Space::uniform(n, f32::NEG_INFINITY, f32::INFINITY));
    let written = Dataset { observation, action, episodes: vec![episode], metadata: Metadata::default() };
    write_folder(&written, &folder).unwrap();
    let beside = folder.join("data/metadata.json");
    let text = std::fs::read_to_string(&beside).unwrap();
    let (low, high) = ("[-Infinity, -Infinity]", "[Infinity, Infinity]");
    std::fs::write(&beside, text.replace(low, "[-1.0, -1.0]").replace(high, "[1.0, 1.0]")).unwrap();
    read_file(&folder)
}

#[test]
fn actions_a_little_outside_are_cut_and_counted() {
    let ulp = 1.0 + f32::EPSILON;
    let inside = bounded("inside", vec![-1.0, 1.0, 0.5, 0.0]).unwrap();
    assert_eq!((inside.metadata.clipped.actions, inside.len()), (0, 2));
    let rounded = bounded("rounded", vec![-1.0, ulp, 0.5, 0.0]).unwrap();
    assert_eq!(rounded.episodes[0].actions, [-1.0, 1.0, 0.5, 0.0]);
    assert_eq!((rounded.metadata.clipped.actions, rounded.metadata.clipped.farthest), (1, f32::EPSILON));
    let unclipped = bounded("unclipped", vec![-1.75, 1.5, 0.5, 1.5, 0.0, 0.0]).unwrap();
    assert_eq!(unclipped.episodes[0].actions, [-1.0, 1.0, 0.5, 1.0, 0.0, 0.0]);
    let said = unclipped.metadata.clipped.to_string();
    assert_eq!(said, "2 actions lay outside of their range, by 0.75 at most; they were cut to it");
    // Of other units: farther outside than the range is wide.
    let far = bounded("far", vec![0.0, 3.5, 0.0, 0.0]);
    assert!(matches!(far, Err(DataError::Outside { row: 0, what: "action", .. })), "{far:?}");
}

/// Choices are written with the number that their first one has outside.
#[test]
fn a_start_and_a_specification_come_back() {
    let folder = fresh("start");
    let episode = Episode {
        observations: vec![0.0; 3].into(),
        actions: vec![0.0, 2.0],
        rewards: vec![0.0; 2],
        terminated: vec![false, true],
        truncated: vec![false; 2],
        seed: None,
    };
    let spec = r#"{"id":"Reach-v0","entry_point":"my_envs:Reach"}"#;
    let metadata = Metadata {
        id: Some("oto/start-v0".into()),
        environment: Some("Reach-v0".into()),
        spec: Some(spec.into()),
        starts: [0, -1],
        ..Metadata::default()
    };
    let (observation, action) = (Space::uniform(1, -1.0, 1.0), Space::Discrete { n: 3 });
    let dataset = Dataset { observation, action, episodes: vec![episode], metadata };
    write_folder(&dataset, &folder).unwrap();
    let text = std::fs::read_to_string(folder.join("data/metadata.json")).unwrap();
    assert!(text.contains(r#"\"start\": -1, \"n\": 3"#) && text.contains("my_envs:Reach"), "{text}");
    assert_eq!(read_file(&folder).unwrap(), dataset);
    assert_eq!(dataset.metadata.gymnasium_id(), Some((false, "gym:my_envs:Reach-v0".into())));
    let own = Metadata {
        spec: Some(r#"{"entry_point":"gymnasium.envs.box2d:LunarLander"}"#.into()),
        environment: Some("LunarLander-v3".into()),
        ..Metadata::default()
    };
    assert_eq!(own.gymnasium_id(), Some((true, "gym:LunarLander-v3".into())));
}

/// Discrete observations as a network sees them.
#[test]
fn discrete_observations_become_one_hot() {
    let episode = Episode {
        observations: vec![2.0, 0.0].into(),
        actions: vec![0.0],
        rewards: vec![0.0],
        terminated: vec![true],
        truncated: vec![false],
        seed: None,
    };
    let (observation, action) = (Space::Discrete { n: 3 }, Space::Discrete { n: 1 });
    let dataset = Dataset { observation, action, episodes: vec![episode], metadata: Metadata::default() };
    let flat = dataset.one_hot().unwrap();
    assert_eq!(flat.observation, Space::uniform(3, 0.0, 1.0));
    assert_eq!(flat.episodes[0].observations, Rows::Numbers(vec![0.0, 0.0, 1.0, 1.0, 0.0, 0.0]));
}

/// Minari sorts the names of a dictionary, an environment may have another order: rows and choices follow the environment's.
#[test]
fn parts_follow_the_order_of_the_environment() {
    let number = |low, high| SpaceTree::Box { low: vec![low], high: vec![high] };
    let dictionary = |parts: &[(&str, SpaceTree)]| {
        SpaceTree::Dict(parts.iter().map(|(name, part)| ((*name).into(), part.clone())).collect())
    };
    let choices = |n| SpaceTree::Discrete { n, start: 0 };
    let own = [
        dictionary(&[("a", number(0.0, 1.0)), ("z", number(-5.0, 5.0))]),
        dictionary(&[("x", choices(2)), ("y", choices(3))]),
    ];
    let theirs = [
        dictionary(&[("z", number(-5.0, 5.0)), ("a", number(0.0, 1.0))]),
        dictionary(&[("y", choices(3)), ("x", choices(2))]),
    ];
    let episode = Episode {
        observations: vec![0.5, 4.0, 0.25, -3.0].into(),
        // x = 1, y = 0
        actions: vec![3.0],
        rewards: vec![0.0],
        terminated: vec![true],
        truncated: vec![false],
        seed: None,
    };
    let metadata = Metadata { parts: own.clone().map(Some), ..Metadata::default() };
    let dataset = Dataset {
        observation: own[0].flat(),
        action: Space::Discrete { n: 6 },
        episodes: vec![episode],
        metadata,
    };
    let same = dataset.clone().arranged(own.each_ref()).unwrap();
    assert_eq!(same, dataset);
    let moved = dataset.clone().arranged(theirs.each_ref()).unwrap();
    assert_eq!(moved.observation, theirs[0].flat());
    assert_eq!(moved.episodes[0].observations, Rows::Numbers(vec![4.0, 0.5, -3.0, 0.25]));
    assert_eq!(moved.episodes[0].actions, [1.0]);
    assert_eq!(moved.arranged(own.each_ref()).unwrap(), dataset);
    // A flat environment shows no names, and other names are another environment's.
    let flat = [SpaceTree::from(own[0].flat()), choices(6)];
    assert_eq!(dataset.clone().arranged(flat.each_ref()).unwrap(), dataset);
    let strange = [dictionary(&[("a", number(0.0, 1.0)), ("b", number(-5.0, 5.0))]), own[1].clone()];
    let refusal = dataset.arranged(strange.each_ref()).unwrap_err().to_string();
    assert!(refusal.contains("\"b\" of 1") && refusal.contains("\"z\" of 1"), "{refusal}");
}

/// Episodes that Minari added, joined or continued, and what was removed or cut with h5py (`fixtures/episodes/make.py`): the right
/// steps, or a sentence. A step's reward is its first observation.
#[test]
fn episodes_that_were_added_joined_removed_or_cut_are_right_or_refused() {
    let case = |name: &str| read_file(&fixture("episodes").join(format!("{name}-v0")));
    let rewards = |dataset: &Dataset| -> Vec<Vec<f64>> {
        dataset.episodes.iter().map(|episode| episode.rewards.clone()).collect()
    };
    let (first, one, second) = (vec![0.0, 1.0], vec![10.0], vec![20.0, 21.0, 22.0]);
    for (name, right) in [
        ("appended", vec![first.clone(), one.clone(), second.clone()]),
        ("combined", vec![second.clone(), first.clone(), one.clone()]),
        ("continued", vec![vec![0.0, 1.0, 3.0, 4.0], one.clone()]),
    ] {
        let dataset = case(name).unwrap();
        assert_eq!(rewards(&dataset), right, "{name}");
        for step in dataset.transitions() {
            // Where an episode was continued an observation lies between its parts.
            let seen = step.observation[0];
            assert_eq!(step.observation[1], -seen, "{name}");
            let apart = f64::from(seen) - step.reward;
            assert!(apart == 0.0 || name == "continued" && apart == -1.0, "{name}: {step:?}");
        }
        let ends = dataset.episodes.iter().map(|episode| *episode.terminated.last().unwrap());
        assert!(ends.eq(vec![true; right.len()]), "{name}");
    }
    for (name, part) in [
        ("gapped", "the metadata tell of 3 episodes, the file has 2"),
        ("end_inside", "episode 0: row 0 ends it, but 1 more follow"),
        ("short", "episode_0/observations: expected 3 rows of 2 numbers, the shape is [2, 2]"),
        ("empty", "the metadata tell of 3 steps, the file has 2"),
    ] {
        let refused = case(name).unwrap_err().to_string();
        assert!(refused.contains(part), "{name}: {refused}");
    }
    // Without metadata nothing is missed: a gap is none, and a step is there or not.
    let alone = |name: &str| {
        let file = fixture("episodes").join(format!("{name}-v0/data/main_data.hdf5"));
        read_bytes(std::fs::read(file).unwrap(), None)
    };
    assert_eq!(rewards(&alone("gapped").unwrap()), [first, second]);
    let empty = alone("empty").unwrap_err();
    assert!(matches!(empty, DataError::EmptyEpisode { episode: 1 }), "{empty}");
}

/// Episodes come in the order of their numbers, not of their names; counts that do not agree are named.
#[test]
fn metadata_and_file_have_to_agree() {
    let folder = fresh("many");
    let mut dataset = read_file(&fixture("cartpole_random")).unwrap();
    let steps: Vec<usize> = dataset.episodes.iter().map(Episode::len).collect();
    assert!(steps.len() > 10);
    dataset.metadata.id = Some("oto/many-v0".into());
    write_folder(&dataset, &folder).unwrap();
    let read = read_file(&folder).unwrap();
    assert_eq!(read.episodes.iter().map(Episode::len).collect::<Vec<_>>(), steps);
    let beside = folder.join("data/metadata.json");
    let text = std::fs::read_to_string(&beside).unwrap();
    for (what, right, wrong) in
        [("steps", 322, 321), ("steps", 322, 0), ("episodes", 12, 13), ("episodes", 12, 0)]
    {
        let [right, wrong] = [right, wrong].map(|count| format!("\"total_{what}\":{count}"));
        assert!(text.contains(&right), "{text}");
        std::fs::write(&beside, text.replace(&right, &wrong)).unwrap();
        let refused = read_file(&folder).unwrap_err();
        assert!(matches!(&refused, DataError::Count { what: of, .. } if *of == what), "{refused}");
    }
}

/// Minari keeps large images as JPEG files unless it is asked not to.
#[test]
fn images_as_jpeg_are_named() {
    let folder = fresh("jpeg");
    let images = Dataset {
        observation: Space::uniform(32 * 32, 0.0, 255.0),
        action: Space::Discrete { n: 2 },
        episodes: vec![Episode {
            observations: Rows::Bytes(vec![7; 2 * 32 * 32]),
            actions: vec![1.0],
            rewards: vec![1.0],
            terminated: vec![true],
            truncated: vec![false],
            seed: None,
        }],
        metadata: Metadata::default(),
    };
    write_folder(&images, &folder).unwrap();
    let beside = folder.join("data/metadata.json");
    let text = std::fs::read_to_string(&beside).unwrap();
    let shape = |sides: &str| text.replace(r#"\"shape\": [1024]"#, &format!(r#"\"shape\": [{sides}]"#));
    assert_ne!(shape("32, 32"), text);
    // The same bytes as plain images: what Minari wrote before it had JPEG.
    let plain = bounds(&shape("32, 32"), 32, 32);
    std::fs::write(&beside, plain).unwrap();
    assert_eq!(read_file(&folder).unwrap().episodes, images.episodes);
    // As if each had become a file of 1024 bytes.
    let files = bounds(&shape("64, 64"), 64, 64);
    std::fs::write(&beside, &files).unwrap();
    let refused = read_file(&folder).unwrap_err().to_string();
    assert!(refused.contains("JPEG files") && refused.contains("jpeg_encoding=False"), "{refused}");
    std::fs::write(&beside, files.replacen('{', r#"{"jpeg_encoding": false, "#, 1)).unwrap();
    let refused = read_file(&folder).unwrap_err();
    assert!(matches!(refused, DataError::Shape { .. }), "{refused}");
}

/// Metadata whose bounds of observations have these sides.
fn bounds(text: &str, height: usize, width: usize) -> String {
    let matrix = |bound: &str| {
        format!("[{}]", vec![format!("[{}]", vec![bound; width].join(", ")); height].join(", "))
    };
    let row = |bound: &str| format!("[{}]", vec![bound; 1024].join(", "));
    assert!(text.contains(&row("255.0")), "{}", &text[..400]);
    text.replace(&row("0.0"), &matrix("0.0")).replace(&row("255.0"), &matrix("255.0"))
}
