//! A host of the component `oto:edge/student` whose environment a test can break, and one instance of the component in it.

/// What wasmtime makes of the world.
#[allow(missing_docs)]
pub mod bindings {
    wasmtime::component::bindgen!({ path: "../crates/oto-wasi/wit", world: "student" });
}

use crate::component;
use bindings::Student;
use bindings::exports::oto::edge::learner::{Action, Error, Guest, Progress};
use bindings::oto::edge::environment::{Host, Space, Transition};
use bindings::oto::edge::types::Bounds;
use std::sync::OnceLock;
use wasmtime::component::{Component, HasSelf, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView, p2};

/// An environment that a test can break: `observation` and `reward` are what it gives, whatever happens.
pub struct World {
    /// What it says of its observations.
    pub observation_space: Space,
    /// What it says of its actions.
    pub action_space: Space,
    /// Every observation.
    pub observation: Vec<f32>,
    /// Every reward.
    pub reward: f64,
    /// Why resets and steps fail, if they do.
    pub failure: Option<String>,
    /// The seeds of all resets.
    pub resets: Vec<Option<u64>>,
    /// All steps; an episode ends after every fiftieth.
    pub steps: u64,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl World {
    /// CartPole's spaces, with or without sockets.
    fn new(network: bool) -> Self {
        let limits = [4.8, f32::INFINITY, 0.42, f32::INFINITY];
        let low = limits.iter().map(|limit| -limit).collect();
        let mut wasi = WasiCtx::builder();
        if network {
            wasi.inherit_network().allow_tcp(true);
        }
        Self {
            observation_space: Space::Box(Bounds { low, high: limits.into() }),
            action_space: Space::Discrete(2),
            observation: vec![0.1, 0.2, -0.05, 0.3],
            reward: 1.0,
            failure: None,
            resets: Vec::new(),
            steps: 0,
            wasi: wasi.build(),
            table: ResourceTable::new(),
        }
    }
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
        let fits = match (&action, &self.action_space) {
            (Action::Discrete(index), Space::Discrete(n)) => index < n,
            (Action::Box(values), Space::Box(Bounds { low, high })) => {
                let inside = |(v, (low, high)): (&f32, (&f32, &f32))| (*low..=*high).contains(v);
                values.len() == low.len() && values.iter().zip(low.iter().zip(high)).all(inside)
            }
            _ => false,
        };
        assert!(fits, "{action:?} is not in the action space");
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.steps += 1;
        let (observation, reward, truncated) =
            (self.observation.clone(), self.reward, self.steps.is_multiple_of(50));
        Ok(Transition { observation, reward, terminated: false, truncated })
    }
}

impl bindings::oto::edge::types::Host for World {}

impl WasiView for World {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// Which component an instance is made of, and what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With relaxed SIMD and TCP.
    Fast,
    /// With relaxed SIMD, without sockets.
    Isolated,
    /// Without relaxed SIMD, in an engine that has none; with TCP.
    Plain,
}

/// One instance of the component in a [`World`].
pub struct Instance {
    /// Holds the world: `store.data_mut()`.
    pub store: Store<World>,
    /// The component's functions.
    pub world: Student,
}

impl Instance {
    /// With TCP.
    pub fn new() -> Self {
        Self::of(Kind::Fast)
    }

    /// Of a kind.
    pub fn of(kind: Kind) -> Self {
        let (engine, component) = compiled(kind);
        Self::made_of(engine, component, kind != Kind::Isolated)
    }

    /// Of a component of the caller's.
    pub fn made_of(engine: &Engine, component: &Component, network: bool) -> Self {
        let mut linker = Linker::new(engine);
        p2::add_to_linker_sync(&mut linker).expect("WASI");
        Student::add_to_linker::<_, HasSelf<_>>(&mut linker, |world: &mut World| world).expect("the world");
        let mut store = Store::new(engine, World::new(network));
        // Only counts in an engine that can interrupt.
        store.set_epoch_deadline(1_000_000);
        let world = Student::instantiate(&mut store, component, &linker).expect("an instance");
        Self { store, world }
    }

    /// With TCP and a student.
    pub fn created(config: &str) -> Self {
        let mut instance = Self::new();
        instance.create(config).expect("a student");
        instance
    }

    /// A call of the component; a trap fails the test.
    fn call<T>(&mut self, call: impl FnOnce(&Guest, &mut Store<World>) -> wasmtime::Result<T>) -> T {
        call(self.world.oto_edge_learner(), &mut self.store).expect("no trap")
    }

    /// The world's `create`.
    #[allow(clippy::missing_errors_doc)]
    pub fn create(&mut self, config: &str) -> Result<(), Error> {
        self.call(|student, store| student.call_create(store, config))
    }

    /// The world's `create-from`.
    #[allow(clippy::missing_errors_doc)]
    pub fn create_from(&mut self, config: &str, file: &[u8]) -> Result<(), Error> {
        self.call(|student, store| student.call_create_from(store, config, file))
    }

    /// The world's `train`.
    #[allow(clippy::missing_errors_doc)]
    pub fn train(&mut self, steps: u64) -> Result<Progress, Error> {
        self.call(|student, store| student.call_train(store, steps))
    }

    /// The world's `status`.
    #[allow(clippy::missing_errors_doc)]
    pub fn status(&mut self) -> Result<Progress, Error> {
        self.call(|student, store| student.call_status(store))
    }

    /// The world's `act`.
    #[allow(clippy::missing_errors_doc)]
    pub fn act(&mut self, observation: &[f32]) -> Result<Action, Error> {
        self.call(|student, store| student.call_act(store, observation))
    }

    /// The world's `save`.
    #[allow(clippy::missing_errors_doc)]
    pub fn save(&mut self, replay: bool) -> Result<Vec<u8>, Error> {
        self.call(|student, store| student.call_save(store, replay))
    }

    /// The world's `load`.
    #[allow(clippy::missing_errors_doc)]
    pub fn load(&mut self, file: &[u8]) -> Result<(), Error> {
        self.call(|student, store| student.call_load(store, file))
    }
}

impl Default for Instance {
    fn default() -> Self {
        Self::new()
    }
}

/// The component of a kind, compiled once for all tests of a process.
fn compiled(kind: Kind) -> &'static (Engine, Component) {
    static FAST: OnceLock<(Engine, Component)> = OnceLock::new();
    static PLAIN: OnceLock<(Engine, Component)> = OnceLock::new();
    match kind {
        Kind::Fast | Kind::Isolated => FAST.get_or_init(|| component::compiled("oto_edge.wasm")),
        Kind::Plain => PLAIN.get_or_init(|| {
            component::compiled_for(component::without_relaxed_simd(), "oto_edge_plain.wasm")
        }),
    }
}
