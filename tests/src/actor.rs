//! A host of the component `oto:edge/actor`, which owns plant and clock, and one instance of the component in it.

/// What wasmtime makes of the world.
#[allow(missing_docs)]
pub mod bindings {
    wasmtime::component::bindgen!({ path: "../crates/oto-wasi/wit", world: "actor" });
}

use crate::component;
use bindings::Actor as World;
use bindings::exports::oto::edge::acting::{Action, Error, GuestActor, Metrics, Space};
use std::sync::OnceLock;
use wasmtime::component::{Component, Linker, ResourceAny, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView, p2};

/// What a host has.
pub struct Host {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// One instance of the component, with TCP to this machine.
pub struct Instance {
    store: Store<Host>,
    world: World,
}

impl Instance {
    /// An instance.
    ///
    /// # Panics
    /// If the component cannot be built or instantiated.
    pub fn new() -> Self {
        static COMPILED: OnceLock<(Engine, Component)> = OnceLock::new();
        let (engine, component) = COMPILED.get_or_init(|| component::compiled("oto_actor.wasm"));
        let mut linker = Linker::new(engine);
        p2::add_to_linker_sync(&mut linker).expect("WASI");
        let wasi = WasiCtx::builder().inherit_network().allow_tcp(true).build();
        let mut store = Store::new(engine, Host { wasi, table: ResourceTable::new() });
        store.set_epoch_deadline(1_000_000);
        let world = World::instantiate(&mut store, component, &linker).expect("an instance");
        Self { store, world }
    }

    /// A call of the component's actor; a trap fails the test.
    fn call<T>(&mut self, call: impl FnOnce(GuestActor<'_>, &mut Store<Host>) -> wasmtime::Result<T>) -> T {
        call(self.world.oto_edge_acting().actor(), &mut self.store).expect("no trap")
    }

    /// The world's `actor.create`.
    #[allow(clippy::missing_errors_doc)]
    pub fn create(
        &mut self,
        config: &str,
        observation: &Space,
        action: &Space,
    ) -> Result<ResourceAny, Error> {
        self.call(|actor, store| actor.call_create(store, config, observation, action))
    }

    /// The world's `begin`.
    #[allow(clippy::missing_errors_doc)]
    pub fn begin(&mut self, one: ResourceAny, observation: &[f32]) -> Result<(), Error> {
        self.call(|actor, store| actor.call_begin(store, one, observation))
    }

    /// The world's `act`.
    #[allow(clippy::missing_errors_doc)]
    pub fn act(&mut self, one: ResourceAny) -> Result<Action, Error> {
        self.call(|actor, store| actor.call_act(store, one))
    }

    /// The world's `observe`; the reward is 0.
    #[allow(clippy::missing_errors_doc)]
    pub fn observe(
        &mut self,
        one: ResourceAny,
        observation: &[f32],
        terminated: bool,
    ) -> Result<bool, Error> {
        self.call(|actor, store| actor.call_observe(store, one, observation, 0.0, terminated, false))
    }

    /// The world's `due`.
    pub fn due(&mut self, one: ResourceAny) -> Option<u64> {
        self.call(|actor, store| actor.call_due(store, one))
    }

    /// The world's `serve`.
    #[allow(clippy::missing_errors_doc)]
    pub fn serve(&mut self, one: ResourceAny) -> Result<(), Error> {
        self.call(|actor, store| actor.call_serve(store, one))
    }

    /// The world's `status`.
    pub fn status(&mut self, one: ResourceAny) -> Metrics {
        self.call(|actor, store| actor.call_status(store, one))
    }

    /// The world's `close`.
    #[allow(clippy::missing_errors_doc)]
    pub fn close(&mut self, one: ResourceAny, patience: u32) -> Result<Metrics, Error> {
        self.call(|actor, store| actor.call_close(store, one, patience))
    }
}

impl Default for Instance {
    fn default() -> Self {
        Self::new()
    }
}
