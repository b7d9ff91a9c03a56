//! The component `oto_edge.wasm` in wasmtime: it learns in environments that only its host knows, is taught there, and
//! answers whatever a host gives it with a typed error. The component `oto_actor.wasm`: it acts for a host with plant and clock.

use oto_tests::component;
use oto_tests::edge::bindings::exports::oto::edge::learner::{Action, Component as Number, Error, Lengths};
use oto_tests::edge::bindings::oto::edge::environment::Space;
use oto_tests::edge::bindings::oto::edge::types::Bounds;
use oto_tests::edge::{Instance, Kind, World};

const SMALL: &str =
    r#"{"student": {"seed": 3, "algorithm": {"hidden": [16], "quantiles": 8, "batch_size": 16}}}"#;

#[test]
fn everything_begins_with_create() {
    let mut instance = Instance::new();
    assert!(matches!(instance.train(1), Err(Error::NotCreated)));
    assert!(matches!(instance.status(), Err(Error::NotCreated)));
    assert!(matches!(instance.act(&[0.0; 4]), Err(Error::NotCreated)));
    assert!(matches!(instance.save(true), Err(Error::NotCreated)));
    assert!(matches!(instance.load(&[]), Err(Error::NotCreated)));
    instance.create(SMALL).unwrap();
    assert_eq!(instance.status().unwrap().step, 0);
}

#[test]
fn a_configuration_that_does_not_fit_is_named() {
    let fails = |config: &str, words: &str| match Instance::new().create(config) {
        Err(Error::Configuration(text)) => assert!(text.contains(words), "{words}: {text}"),
        other => panic!("{config}: {other:?}"),
    };
    fails("{", "");
    fails(r#"{"student": {"gama": 1}}"#, "gama");
    fails(r#"{"student": {"gamma": "high"}}"#, "student.gamma");
    fails(r#"{"student": {"gamma": 2}}"#, "gamma");
    fails(r#"{"student": {"backend": "webgpu"}}"#, "not available here");
    fails(r#"{"pupil": {}}"#, "pupil");
    let address = r#"{"teachers": [{"url": "http://127.0.0.1:1", "policy": "p"}]}"#;
    assert!(matches!(Instance::new().create(address), Err(Error::Teacher(_))));
}

#[test]
fn a_failed_create_leaves_the_student_that_was_there() {
    let mut instance = Instance::created(SMALL);
    instance.train(60).unwrap();
    assert!(instance.create("{").is_err());
    assert_eq!(instance.status().unwrap().step, 60);
}

#[test]
fn spaces_that_do_not_fit_are_refused() {
    // Without its name the algorithm would be one for the kind of actions.
    let qrdqn = r#"{"student": {"algorithm": "qrdqn"}}"#;
    let refused = |change: fn(&mut World)| {
        let mut instance = Instance::new();
        change(instance.store.data_mut());
        assert!(matches!(instance.create(qrdqn), Err(Error::Space(_))));
    };
    refused(|world| world.action_space = Space::Box(Bounds { low: vec![-1.0], high: vec![1.0] }));
    refused(|world| world.action_space = Space::Discrete(0));
    refused(|world| world.observation_space = Space::Discrete(16));
    refused(|world| world.observation_space = Space::Box(Bounds { low: vec![], high: vec![] }));
    refused(|world| world.observation_space = Space::Box(Bounds { low: vec![0.0], high: vec![1.0, 1.0] }));
    refused(|world| world.observation_space = Space::Box(Bounds { low: vec![f32::NAN], high: vec![1.0] }));
}

#[test]
fn what_a_broken_environment_gives_is_a_typed_error_and_training_goes_on() {
    let mut instance = Instance::created(SMALL);
    instance.train(200).unwrap();
    let sound = instance.store.data_mut().observation.clone();

    instance.store.data_mut().observation = vec![0.1, f32::NAN, 0.0, 0.0];
    match instance.train(10) {
        Err(Error::ObservationValue(Number { index: 1, value })) => assert!(value.is_nan()),
        other => panic!("{other:?}"),
    }
    instance.store.data_mut().observation = vec![0.1, 0.2, 0.3];
    // The episode was given up; now it is the reset that fails.
    assert!(matches!(instance.train(10), Err(Error::ObservationLength(Lengths { expected: 4, got: 3 }))));
    instance.store.data_mut().observation = sound;
    instance.train(5).unwrap();

    instance.store.data_mut().reward = f64::INFINITY;
    assert!(matches!(instance.train(10), Err(Error::Reward(r)) if r.is_infinite()));
    instance.store.data_mut().reward = 1.0;
    instance.train(5).unwrap();

    instance.store.data_mut().failure = Some("the robot fell off the table".into());
    for _ in 0..2 {
        assert!(matches!(instance.train(10), Err(Error::Environment(text)) if text.contains("fell off")));
    }
    instance.store.data_mut().failure = None;

    let progress = instance.train(100).unwrap();
    assert_eq!(progress.step, 310);
    assert!(progress.updates > 0 && progress.last_return == Some(50.0));
    let resets = &instance.store.data_mut().resets;
    assert_eq!(resets[0], Some(3), "the run's seed comes with its first reset");
    assert!(resets[1..].iter().all(Option::is_none));

    assert!(matches!(
        instance.act(&[0.0; 5]),
        Err(Error::ObservationLength(Lengths { expected: 4, got: 5 }))
    ));
    let infinite = [f32::NEG_INFINITY, 0.0, 0.0, 0.0];
    assert!(matches!(instance.act(&infinite), Err(Error::ObservationValue(Number { index: 0, .. }))));
}

#[test]
fn a_student_begins_with_the_networks_and_settings_of_another_run() {
    let mut first = Instance::created(SMALL);
    first.train(300).unwrap();
    let file = first.save(false).unwrap();
    let mut second = Instance::new();
    second.create_from("{}", &file).unwrap();
    assert_eq!(second.status().unwrap().step, 0, "counts are the new run's");
    for x in [-1.0, -0.3, 0.0, 0.2, 2.0] {
        let observation = [x, 0.5, -x, 0.1];
        let [a, b] = [&mut first, &mut second].map(|i| i.act(&observation).unwrap());
        assert!(matches!((a, b), (Action::Discrete(a), Action::Discrete(b)) if a == b));
    }
    second.train(100).unwrap();
    let refused = |mut instance: Instance, config: &str, file: &[u8]| match instance.create_from(config, file)
    {
        Err(Error::Checkpoint(text)) => text,
        other => panic!("{config}: {other:?}"),
    };
    refused(Instance::new(), "{}", b"no checkpoint");
    refused(Instance::new(), "{}", &file[..file.len() - 7]);
    let ppo = r#"{"student": {"algorithm": "ppo", "n_step": 1}}"#;
    assert!(refused(Instance::new(), ppo, &file).contains("no network of ppo"));
    let mut other = Instance::new();
    other.store.data_mut().action_space = Space::Discrete(3);
    assert!(refused(other, "{}", &file).contains("actions"));
}

#[test]
fn a_saved_student_goes_on_elsewhere() {
    let mut here = Instance::created(SMALL);
    here.train(300).unwrap();
    let file = here.save(true).unwrap();
    let mut there = Instance::created(SMALL);
    there.load(&file).unwrap();
    assert_eq!(there.status().unwrap().step, 300);
    for x in [-1.0, -0.3, 0.0, 0.2, 2.0] {
        let observation = [x, 0.5, -x, 0.1];
        let [a, b] = [&mut here, &mut there].map(|i| i.act(&observation).unwrap());
        assert!(matches!((a, b), (Action::Discrete(a), Action::Discrete(b)) if a == b));
    }
    // The episode that ran is not in the file, the host's environment being the host's; all else is.
    let again = there.save(true).unwrap();
    let mut third = Instance::created(SMALL);
    third.load(&again).unwrap();
    assert!(third.save(true).unwrap() == again);
    assert_eq!(there.train(50).unwrap().step, 350);
    let light = here.save(false).unwrap();
    assert!(light.len() < file.len() / 2, "{} of {}", light.len(), file.len());
    Instance::created(SMALL).load(&light).unwrap();
}

#[test]
fn what_is_no_checkpoint_is_refused_and_changes_nothing() {
    let mut other = Instance::created(r#"{"student": {"algorithm": {"hidden": [8]}}}"#);
    let foreign = other.save(true).unwrap();
    let mut instance = Instance::created(SMALL);
    instance.train(20).unwrap();
    let file = instance.save(true).unwrap();
    for bad in [&[][..], b"safetensors", &[0xff; 64], &file[..file.len() / 2], &foreign] {
        assert!(matches!(instance.load(bad), Err(Error::Checkpoint(_))));
    }
    assert!(instance.save(true).unwrap() == file);
}

#[test]
fn a_run_ends_at_its_configured_step() {
    let mut instance = Instance::created(r#"{"student": {"steps": 40, "algorithm": {"hidden": [8]}}}"#);
    assert!(!instance.train(39).unwrap().done);
    let progress = instance.train(1_000).unwrap();
    assert!(progress.done && progress.step == 40);
    assert_eq!(instance.train(1).unwrap().step, 40);
}

#[test]
fn a_host_without_relaxed_simd_takes_the_plain_component_and_not_the_other() {
    let (fast, plain) = (component::path("oto_edge.wasm"), component::path("oto_edge_plain.wasm"));
    let engine = wasmtime::Engine::new(&component::without_relaxed_simd()).unwrap();
    let refused = wasmtime::component::Component::from_file(&engine, fast).err().unwrap();
    assert!(format!("{refused:?}").contains("relaxed"), "{refused:?}");
    drop(plain);
    let mut instance = Instance::of(Kind::Plain);
    instance.create(SMALL).unwrap();
    let progress = instance.train(300).unwrap();
    assert!(progress.step == 300 && progress.updates > 0);
}

#[test]
fn a_host_with_continuous_actions_is_answered_in_its_units() {
    let mut instance = Instance::new();
    let bounds = Bounds { low: vec![-2.0, 0.0], high: vec![2.0, 0.5] };
    instance.store.data_mut().action_space = Space::Box(bounds);
    instance.create(r#"{"student": {"algorithm": {"hidden": [8], "batch_size": 8}}}"#).unwrap();
    assert!(instance.train(200).unwrap().updates > 0, "soft actor-critic, since actions are continuous");
    let Action::Box(values) = instance.act(&[0.0; 4]).unwrap() else { panic!("a vector") };
    assert!(values[0].abs() <= 2.0 && (0.0..=0.5).contains(&values[1]), "{values:?}");
}

/// A learner's file for a plant of three numbers and a torque, in a folder of its own.
fn learner(name: &str) -> std::path::PathBuf {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let keep = folder.join("kept");
    let text = format!(
        r#"{{"env": "Pendulum-v1", "reward": "pendulum", "keep": {keep:?}, "checkpoint_seconds": 0.5, "learning_starts": 100,
            "algorithm": {{"name": "ddpg", "hidden": [16, 16], "batch_size": 16}}}}"#
    );
    let file = folder.join("learner.json");
    std::fs::write(&file, text).unwrap();
    file
}

mod acting {
    use super::learner;
    use oto_tests::actor::Instance;
    use oto_tests::actor::bindings::exports::oto::edge::acting::{Action, Error, Lengths, Space};
    use oto_tests::actor::bindings::oto::edge::types::Bounds;
    use oto_tests::server::{Server, free_port};
    use std::time::{Duration, Instant};
    use wasmtime::component::ResourceAny;

    fn of(width: usize, bound: f32) -> Space {
        Space::Box(Bounds { low: vec![-bound; width], high: vec![bound; width] })
    }

    fn config(port: u16, more: &str) -> String {
        format!(r#"{{"cloud": "127.0.0.1:{port}", "policy": "learner", "actor": {{"hz": 500{more}}}}}"#)
    }

    /// Steps at the deadlines of the component until this holds; an episode has 40 steps.
    fn until(host: &mut Instance, one: ResourceAny, mut holds: impl FnMut(&mut Instance) -> bool) {
        let (start, mut steps) = (Instant::now(), 0);
        while !holds(host) {
            assert!(start.elapsed() < Duration::from_secs(120), "{:?}", host.status(one));
            host.serve(one).unwrap();
            match host.due(one) {
                None => host.begin(one, &[1.0, 0.0, 0.0]).unwrap(),
                Some(due) if due > 0 => std::thread::sleep(Duration::from_nanos(due.min(1_000_000))),
                Some(_) => {
                    let Action::Box(torque) = host.act(one).unwrap() else { panic!("a torque") };
                    assert!(torque.len() == 1 && torque[0].abs() <= 2.0, "{torque:?}");
                    steps += 1;
                    let angle = steps as f32 * 0.1;
                    let over = host.observe(one, &[angle.cos(), angle.sin(), torque[0]], steps % 40 == 0);
                    assert_eq!(over.unwrap(), steps % 40 == 0);
                }
            }
        }
    }

    /// A host's plant is driven with the learner's weights; the learner is gone for a while, and no row is lost or counted twice.
    #[test]
    fn a_hosts_plant_is_driven_by_a_learner_that_comes_and_goes() {
        let file = learner("actor");
        let server = Server::learning(0, &file);
        let port = server.port;
        let mut host = Instance::new();
        let one = host.create(&config(port, ""), &of(3, 8.0), &of(1, 2.0)).unwrap();
        until(&mut host, one, |host| host.status(one).version > 1 && host.status(one).acknowledged > 200);
        drop(server);
        let steps = host.status(one).steps;
        until(&mut host, one, |host| host.status(one).steps > steps + 60 && !host.status(one).connected);
        assert!(host.status(one).problem.is_some() && host.status(one).held > 0);
        let server = Server::learning(port, &file);
        until(&mut host, one, |host| host.status(one).sessions >= 2);
        let last = host.close(one, 60_000).unwrap();
        assert_eq!((last.held, last.dropped, last.acknowledged), (0, 0, last.recorded), "{last:?}");
        assert!(last.pushes > 1 && last.episodes > 2 && last.staleness.max > 0, "{last:?}");
        assert!(last.jitter.max >= last.jitter.p50, "{last:?}");
        drop(server);
    }

    /// What a host does wrongly is a typed error, and the actor continues.
    #[test]
    fn a_host_is_answered_with_typed_errors() {
        let mut host = Instance::new();
        let (seen, torque) = (of(3, 8.0), of(1, 2.0));
        let port = free_port();
        for (config, words) in [
            ("{".to_owned(), ""),
            (config(port, r#", "speed": 1"#), "actor.speed"),
            (config(port, r#", "ring": 1"#), "ring"),
            (config(port, r#", "safe_action": [3]"#), "safe action"),
            (r#"{"cloud": "127.0.0.1:1"}"#.to_owned(), "policy"),
        ] {
            match host.create(&config, &seen, &torque) {
                Err(Error::Configuration(text)) => assert!(text.contains(words), "{words}: {text}"),
                other => panic!("{config}: {other:?}"),
            }
        }
        let all = config(port, "");
        assert!(matches!(host.create(&all, &seen, &of(1, f32::INFINITY)), Err(Error::Space(_))));
        assert!(matches!(
            host.create(&all, &Space::Discrete(4), &torque),
            Err(Error::Space(_) | Error::Configuration(_))
        ));
        let elsewhere = r#"{"cloud": "http://127.0.0.1:1", "policy": "p"}"#;
        assert!(matches!(host.create(elsewhere, &seen, &torque), Err(Error::Address(_))));

        let one = host.create(&config(port, r#", "safe_action": [0.5]"#), &seen, &torque).unwrap();
        assert!(matches!(host.act(one), Err(Error::Order(_))));
        let lengths = Lengths { expected: 3, got: 2 };
        assert!(
            matches!(host.begin(one, &[0.0; 2]), Err(Error::ObservationLength(l)) if l.expected == lengths.expected)
        );
        assert!(matches!(host.observe(one, &[0.0; 3], false), Err(Error::Order(_))));
        host.begin(one, &[f32::NAN, 0.0, 0.0]).unwrap();
        assert!(matches!(host.act(one).unwrap(), Action::Box(torque) if torque == [0.5]), "the safe action");
        assert!(matches!(host.act(one), Err(Error::Order(_))));
        assert!(matches!(host.observe(one, &[0.0; 4], false), Err(Error::ObservationLength(_))));
        assert!(!host.observe(one, &[f32::INFINITY, 0.0, 0.0], false).unwrap());
        host.serve(one).unwrap();
        let last = host.close(one, 100).unwrap();
        assert_eq!((last.steps, last.safe, last.version, last.acknowledged), (1, 1, 0, 0), "{last:?}");

        // The server has no such learner.
        let server = Server::start(0);
        let other = host.create(&config(server.port, ""), &seen, &torque).unwrap();
        let start = Instant::now();
        let refused = loop {
            match host.serve(other) {
                Ok(()) => assert!(start.elapsed() < Duration::from_secs(60)),
                Err(error) => break error,
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        assert!(matches!(&refused, Error::Refused(text) if text.contains("learner")), "{refused:?}");
        host.begin(other, &[0.0; 3]).unwrap();
        assert!(host.act(other).is_ok(), "it still acts");
    }
}
