//! A whole host of the component `oto:edge/student`, with an environment of its own that no part of oto knows: a corridor
//! of nine places with a prize at its far end. The host gives the environment, the component learns in it.
//!
//! ```text
//! cargo xtask wasm edge
//! cargo run --release --package oto-tests --example host -- target/edge/oto_edge.wasm
//! ```

#![allow(missing_docs)] // What bindgen makes has none.

wasmtime::component::bindgen!({ path: "../crates/oto-wasi/wit", world: "student" });

use exports::oto::edge::learner::Action;
use oto::edge::environment::{Space, Transition};
use oto::edge::types::Bounds;
use wasmtime::component::{Component, HasSelf, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView, p2};

/// The corridor, and the WASI that the component's standard library asks for: nothing is granted.
#[derive(Default)]
struct Corridor {
    place: f32,
    steps: u32,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl oto::edge::environment::Host for Corridor {
    fn observation_space(&mut self) -> Space {
        Space::Box(Bounds { low: vec![0.0], high: vec![1.0] })
    }
    fn action_space(&mut self) -> Space {
        Space::Discrete(2) // back, ahead
    }
    fn reset(&mut self, _seed: Option<u64>) -> Result<Vec<f32>, String> {
        (self.place, self.steps) = (0.0, 0);
        Ok(vec![0.0])
    }
    fn step(&mut self, action: Action) -> Result<Transition, String> {
        let ahead = matches!(action, Action::Discrete(1));
        self.place = (self.place + if ahead { 1.0 } else { -1.0 }).max(0.0);
        self.steps += 1;
        let (terminated, truncated) = (self.place == 8.0, self.steps == 40);
        let reward = if terminated { 1.0 } else { -0.01 };
        Ok(Transition { observation: vec![self.place / 8.0], reward, terminated, truncated })
    }
}

impl oto::edge::types::Host for Corridor {}

impl WasiView for Corridor {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// Trains a student in the corridor and gives its greedy actions in each of the places before the prize.
pub fn teach(component: &str) -> wasmtime::Result<Vec<Action>> {
    let engine = Engine::default();
    let mut linker = Linker::new(&engine);
    p2::add_to_linker_sync(&mut linker)?;
    Student::add_to_linker::<_, HasSelf<_>>(&mut linker, |corridor: &mut Corridor| corridor)?;
    let mut store = Store::new(&engine, Corridor::default());
    let component = Component::from_file(&engine, component)?;
    let world = Student::instantiate(&mut store, &component, &linker)?;

    let student = world.oto_edge_learner();
    student.call_create(&mut store, r#"{"student": {"seed": 1, "qrdqn": {"hidden": [32]}}}"#)??;
    for _ in 0..4 {
        let progress = student.call_train(&mut store, 1000)??;
        println!("{} steps, last return {:?}", progress.step, progress.last_return);
    }
    (0..8).map(|place| Ok(student.call_act(&mut store, &[place as f32 / 8.0])??)).collect()
}

/// Takes the path of the component.
fn main() -> wasmtime::Result<()> {
    let component = std::env::args().nth(1).unwrap_or("target/edge/oto_edge.wasm".into());
    println!("{:?}", teach(&component)?);
    Ok(())
}
