//! A whole host of the component `oto:edge/student`, with an environment of its own that no part of oto knows: a corridor
//! of nine places with a prize at its far end. The host gives the environment, the component learns in it.
//!
//! ```text
//! cargo xtask wasm edge
//! cargo run --release --package oto-wasi --example edge-host -- target/edge/oto_edge.wasm
//! cargo run --release --package oto-wasi --example edge-host -- target/edge/oto_edge.wasm ws://127.0.0.1:8080 my_policy
//! ```

#![allow(missing_docs)] // What bindgen makes has none.

wasmtime::component::bindgen!({ path: "wit", world: "student" });

use exports::oto::edge::learner::Action;
use oto::edge::environment::{Space, Transition};
use oto::edge::types::Bounds;
use wasmtime::component::{Component, HasSelf, Linker, ResourceTable};
use wasmtime::{Engine, Store, StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView, p2};

/// The most memory that the component may have, in bytes.
const MEMORY: usize = 256 << 20;

/// The corridor, and what the component may use.
struct Corridor {
    place: f32,
    steps: u32,
    wasi: WasiCtx,
    table: ResourceTable,
    limits: StoreLimits,
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

/// Trains a student in the corridor, taught if there is a teacher (address and policy), and gives its greedy actions in each of
/// the places before the prize.
fn train(component: &str, teacher: Option<(&str, &str)>) -> wasmtime::Result<Vec<Action>> {
    let engine = Engine::default();
    let mut linker = Linker::new(&engine);
    p2::add_to_linker_sync(&mut linker)?;
    Student::add_to_linker::<_, HasSelf<_>>(&mut linker, |corridor: &mut Corridor| corridor)?;

    // Nothing is granted but, with a teacher, TCP.
    let mut wasi = WasiCtx::builder();
    if teacher.is_some() {
        wasi.inherit_network();
    }
    let limits = StoreLimitsBuilder::new().memory_size(MEMORY).build();
    let corridor = Corridor { place: 0.0, steps: 0, wasi: wasi.build(), table: ResourceTable::new(), limits };
    let mut store = Store::new(&engine, corridor);
    store.limiter(|corridor| &mut corridor.limits);
    let component = Component::from_file(&engine, component)?;
    let world = Student::instantiate(&mut store, &component, &linker)?;

    let teachers = teacher.map(|(url, policy)| format!(r#"{{"url": "{url}", "policy": "{policy}"}}"#));
    // A random walk seldom gets to the prize, hence the long exploration.
    let student = r#"{"seed": 1, "steps": 4000, "algorithm": {"hidden": [32]}, "epsilon": {"start": 1, "end": 0.05, "steps": 2000}}"#;
    let config = format!(r#"{{"student": {student}, "teachers": [{}]}}"#, teachers.unwrap_or_default());
    let student = world.oto_edge_learner();
    student.call_create(&mut store, &config)??;
    for _ in 0..4 {
        let progress = student.call_train(&mut store, 1000)??;
        println!("{} steps, last return {:?}", progress.step, progress.last_return);
        for teacher in progress.teachers {
            println!("  {} labels of {}: {:?}", teacher.labels, teacher.policy, teacher.problem);
        }
    }
    (0..8).map(|place| Ok(student.call_act(&mut store, &[place as f32 / 8.0])??)).collect()
}

/// Takes the path of the component, and the address and the policy of a teacher.
fn main() -> wasmtime::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let actions = match given[..] {
        [] => train("target/edge/oto_edge.wasm", None)?,
        [component] => train(component, None)?,
        [component, url, policy] => train(component, Some((url, policy)))?,
        _ => return Err(wasmtime::Error::msg("expected COMPONENT, or COMPONENT URL POLICY")),
    };
    println!("{actions:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_components_learn_the_corridor() {
        for name in ["oto_edge.wasm", "oto_edge_plain.wasm"] {
            let path = oto_tests::component::path(name);
            let actions = train(path.to_str().unwrap(), None).unwrap();
            assert!(
                actions.iter().all(|a| matches!(a, Action::Discrete(1))),
                "always ahead: {name}, {actions:?}"
            );
        }
    }
}
