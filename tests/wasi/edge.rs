//! The component `oto_edge.wasm` in wasmtime: it learns in environments that only its host knows, is taught there, and
//! answers whatever a host gives it with a typed error.

#[allow(dead_code)]
#[path = "host.rs"]
mod host;

use host::Student;
use host::exports::oto::edge::learner::{Action, Component as Number, Error, Guest, Lengths, Link, Progress};
use host::oto::edge::environment::{Host, Space, Transition};
use host::oto::edge::types::Bounds;
use oto_tests::server::{Server, free_port};
use std::sync::OnceLock;
use wasmtime::component::{Component, HasSelf, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView, p2};

#[test]
fn a_host_of_fifty_lines_teaches_its_corridor() {
    let path = oto_tests::component::path("oto_edge.wasm");
    let actions = host::teach(path.to_str().unwrap()).unwrap();
    assert!(actions.iter().all(|a| matches!(a, Action::Discrete(1))), "always ahead: {actions:?}");
}

/// An environment that a test can break: `observation` and `reward` are what it gives, whatever happens.
struct World {
    observation_space: Space,
    action_space: Space,
    observation: Vec<f32>,
    reward: f64,
    failure: Option<String>,
    resets: Vec<Option<u64>>,
    steps: u64,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl Host for World {
    fn observation_space(&mut self) -> Space {
        self.observation_space.clone()
    }
    fn action_space(&mut self) -> Space {
        self.action_space.clone()
    }
    fn reset(&mut self, seed: Option<u64>) -> Result<Vec<f32>, String> {
        self.resets.push(seed);
        self.failure.clone().map_or(Ok(self.observation.clone()), Err)
    }
    fn step(&mut self, action: Action) -> Result<Transition, String> {
        assert!(matches!(action, Action::Discrete(0 | 1)));
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.steps += 1;
        let (observation, reward, truncated) =
            (self.observation.clone(), self.reward, self.steps.is_multiple_of(50));
        Ok(Transition { observation, reward, terminated: false, truncated })
    }
}

impl host::oto::edge::types::Host for World {}

impl WasiView for World {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// One instance of the component in a [`World`], with TCP.
struct Instance {
    store: Store<World>,
    world: Student,
}

impl Instance {
    fn new() -> Self {
        static COMPILED: OnceLock<(Engine, Component)> = OnceLock::new();
        let (engine, component) = COMPILED.get_or_init(|| oto_tests::component::compiled("oto_edge.wasm"));
        let mut linker = Linker::new(engine);
        p2::add_to_linker_sync(&mut linker).unwrap();
        Student::add_to_linker::<_, HasSelf<_>>(&mut linker, |world: &mut World| world).unwrap();
        let limits = [4.8, f32::INFINITY, 0.42, f32::INFINITY];
        let low = limits.iter().map(|limit| -limit).collect();
        let world = World {
            observation_space: Space::Box(Bounds { low, high: limits.into() }),
            action_space: Space::Discrete(2),
            observation: vec![0.1, 0.2, -0.05, 0.3],
            reward: 1.0,
            failure: None,
            resets: Vec::new(),
            steps: 0,
            wasi: WasiCtx::builder().inherit_network().allow_tcp(true).build(),
            table: ResourceTable::new(),
        };
        let mut store = Store::new(engine, world);
        let world = Student::instantiate(&mut store, component, &linker).unwrap();
        Self { store, world }
    }

    fn created(config: &str) -> Self {
        let mut instance = Self::new();
        instance.create(config).unwrap();
        instance
    }

    fn call<T>(&mut self, call: impl FnOnce(&Guest, &mut Store<World>) -> wasmtime::Result<T>) -> T {
        call(self.world.oto_edge_learner(), &mut self.store).expect("no trap")
    }

    fn create(&mut self, config: &str) -> Result<(), Error> {
        self.call(|student, store| student.call_create(store, config))
    }

    fn train(&mut self, steps: u64) -> Result<Progress, Error> {
        self.call(|student, store| student.call_train(store, steps))
    }

    fn status(&mut self) -> Result<Progress, Error> {
        self.call(|student, store| student.call_status(store))
    }

    fn act(&mut self, observation: &[f32]) -> Result<Action, Error> {
        self.call(|student, store| student.call_act(store, observation))
    }

    fn save(&mut self, replay: bool) -> Result<Vec<u8>, Error> {
        self.call(|student, store| student.call_save(store, replay))
    }

    fn load(&mut self, file: &[u8]) -> Result<(), Error> {
        self.call(|student, store| student.call_load(store, file))
    }
}

const SMALL: &str =
    r#"{"student": {"seed": 3, "qrdqn": {"hidden": [16], "quantiles": 8, "batch_size": 16}}}"#;

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
    let refused = |change: fn(&mut World)| {
        let mut instance = Instance::new();
        change(instance.store.data_mut());
        assert!(matches!(instance.create(SMALL), Err(Error::Space(_))));
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
    let mut other = Instance::created(r#"{"student": {"qrdqn": {"hidden": [8]}}}"#);
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
    let mut instance = Instance::created(r#"{"student": {"steps": 40, "qrdqn": {"hidden": [8]}}}"#);
    assert!(!instance.train(39).unwrap().done);
    let progress = instance.train(1_000).unwrap();
    assert!(progress.done && progress.step == 40);
    assert_eq!(instance.train(1).unwrap().step, 40);
}

/// The configuration of a student that is taught by the bundled agent of InvertedPendulum, which observes what this one
/// does in another order.
fn taught(port: u16, policy: &str) -> String {
    let adapter = r#"{"observation": {"permutation": [0, 2, 1, 3]},
        "action": {"kind": "sign", "component": 0, "negative": 0, "positive": 1}}"#;
    format!(
        r#"{{"student": {{"qrdqn": {{"hidden": [16]}}}},
            "teachers": [{{"url": "127.0.0.1:{port}", "policy": "{policy}", "adapter": {adapter}}}]}}"#
    )
}

#[test]
fn a_teacher_answers_for_the_hosts_environment_until_it_leaves() {
    let server = Server::start(0);
    let mut instance = Instance::created(&taught(server.port, "sac_inverted_pendulum_v5"));
    let progress = instance.train(400).unwrap();
    let teacher = &progress.teachers[0];
    assert!(matches!(teacher.link, Link::Ready));
    assert!(teacher.labels > 350 && teacher.bytes_up > teacher.bytes_down, "{teacher:?}");
    drop(server);
    let progress = instance.train(400).unwrap();
    let teacher = &progress.teachers[0];
    assert_eq!(progress.step, 800);
    assert!(!matches!(teacher.link, Link::Ready) && teacher.problem.is_some(), "{teacher:?}");
}

#[test]
fn a_teacher_that_is_absent_or_refuses_is_told_apart() {
    let mut alone = Instance::created(&taught(free_port(), "sac_inverted_pendulum_v5"));
    let progress = alone.train(100).unwrap();
    assert_eq!((progress.step, progress.teachers[0].labels), (100, 0));
    let server = Server::start(0);
    match Instance::new().create(&taught(server.port, "nobody")) {
        Err(Error::Teacher(text)) => assert!(text.contains("nobody"), "{text}"),
        other => panic!("{other:?}"),
    }
}
