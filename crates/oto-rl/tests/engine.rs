//! What an engine does around a program: its data, its periods, its memory, its numbers.

use crate::allocations::allocations;
use oto_cpu::{Cpu, Threads};
use oto_graph::{Activation, Backend, InputId, Program, Role, Trace};
use oto_rl::actions::Actions;
use oto_rl::algorithms::Sizes;
use oto_rl::algorithms::sac::{self, SacConfig};
use oto_rl::engine::{Engine, LearnError};
use oto_rl::optimiser::{Adam, Optimiser, Updates, ensemble_parameters, mlp};
use std::num::NonZeroUsize;

/// One parameter at every update, one at every second; their gradients are the sum of `count` inputs.
fn program(count: usize) -> Program {
    let t = &Trace::new();
    let param = |name: &str| (name.to_string(), t.state(name, &[3]));
    let (often, seldom) = (param("acting.often"), param("acting.seldom"));
    let given = (0..count).map(|i| t.data(format!("input {i}"), &[3])).reduce(|a, b| a + b).unwrap();
    let loss = ((often.1 + seldom.1) * given).sum();
    let lr = t.data("lr", &[]);
    let mut updates = Updates::new(t);
    updates.minimise(&Optimiser::new("often", Adam::default(), lr), std::slice::from_ref(&often), loss);
    updates.minimise(&Optimiser::new("seldom", Adam::default(), lr).every(2), &[seldom], loss);
    let size = often.1.square().sum();
    t.finish(&updates.pairs(), &[("loss", loss), ("size", size)])
}

fn engine(count: usize) -> Engine {
    let mut engine = Engine::new(program(count), "acting.", &Cpu).unwrap();
    let initial = |name: &str| if name.starts_with("adam") { 0.0 } else { 0.5 };
    engine.start(|input| vec![initial(&input.name); input.len()]).unwrap();
    engine
}

fn update(engine: &mut Engine) -> Result<bool, LearnError> {
    engine.update(|name| Some(if name == "lr" { &[0.01] } else { &[1.0, 2.0, 3.0] }))
}

#[test]
fn an_update_allocates_nothing_however_many_inputs_there_are() {
    for count in [1, 40, 200] {
        let mut engine = engine(count);
        (0..3).for_each(|_| assert!(update(&mut engine).unwrap()));
        let before = allocations();
        (0..10).for_each(|_| assert!(update(&mut engine).unwrap()));
        assert_eq!(allocations(), before, "{count} inputs");
    }
}

#[test]
fn what_nothing_gives_is_named_and_changes_nothing() {
    let mut engine = engine(2);
    let before = engine.state().unwrap();
    let error = engine.update(|name| (name != "input 1").then_some(&[1.0, 2.0, 3.0][..])).unwrap_err();
    assert!(matches!(&error, LearnError::Input(name) if name == "input 1"), "{error}");
    assert!(error.to_string().contains("input 1"), "{error}");
    assert_eq!((engine.updates(), engine.state().unwrap()), (0, before));
    assert!(update(&mut engine).unwrap(), "and the next one goes through");
}

#[test]
fn a_period_is_counted_over_all_of_a_students_updates() {
    let values = |engine: &mut Engine, i: usize| {
        let mut values = [0.0; 3];
        engine.acting(i, &mut values).unwrap();
        values
    };
    let mut first = engine(1);
    for at in 1..=5u64 {
        let before = [0, 1].map(|i| values(&mut first, i));
        update(&mut first).unwrap();
        let after = [0, 1].map(|i| values(&mut first, i));
        assert_eq!([0, 1].map(|i| before[i] != after[i]), [true, at % 2 == 0], "update {at}");
    }
    // Restored after five updates, the next one is the sixth.
    let state = first.state().unwrap();
    let mut second = engine(1);
    let mut find = |name: &str| state.iter().find(|t| t.name == name).map(|t| t.values.clone());
    second.restore(first.updates(), &mut find).unwrap();
    update(&mut first).unwrap();
    update(&mut second).unwrap();
    assert!(values(&mut second, 1) != find("acting.seldom").unwrap()[..]);
    assert_eq!(first.state().unwrap(), second.state().unwrap());
}

#[test]
fn a_program_names_what_it_reports() {
    let mut engine = engine(1);
    assert!(engine.last_loss().is_none());
    update(&mut engine).unwrap();
    let reported = engine.last_loss().unwrap();
    assert_eq!(reported.iter().collect::<Vec<_>>(), [("loss", 6.0), ("size", 0.75)]);
    assert_eq!((reported.get("size"), reported.get("q")), (Some(0.75), None));
    assert_eq!(oto_json::write(reported), r#"{"loss":6.0,"size":0.75}"#);
    assert_eq!(serde_json::to_string(reported).unwrap(), r#"{"loss":6.0,"size":0.75}"#);
}

#[test]
fn a_loss_that_is_no_number_is_an_error_that_names_it() {
    let t = &Trace::new();
    let x = t.state("acting.x", &[2]);
    let actor_loss = (x * t.data("input", &[2])).sum();
    let program =
        t.finish(&[(x, x + 0.0)], &[("loss", x.sum()), ("actor_loss", actor_loss), ("own", actor_loss)]);
    let mut engine = Engine::new(program, "acting.", &Cpu).unwrap();
    engine.start(|input| vec![1.0; input.len()]).unwrap();
    engine.update(|_| Some(&[1.0, 2.0])).unwrap();
    let error = engine.update(|_| Some(&[1.0, f32::NAN])).unwrap_err();
    assert!(
        matches!(&error, LearnError::Diverged { update: 2, name, .. } if name == "actor_loss"),
        "{error}"
    );
    assert!(error.to_string().starts_with("update 2: the actor loss is NaN, not a finite number"), "{error}");
}

/// An update of three large critics.
fn critics() -> Program {
    let t = &Trace::new();
    let [critics, targets] =
        ["critics.", "target.critics."].map(|name| ensemble_parameters(t, name, 3, &[23, 256, 200, 1]));
    let q = mlp(&critics, t.data("observation", &[150, 23]), Activation::Relu).reshape(&[3, 150]);
    let loss = (q - t.data("target", &[150])).square().sum_last().sum() * (1.0 / 150.0);
    let mut updates = Updates::new(t);
    updates.minimise(&Optimiser::new("", Adam::default(), t.data("lr", &[])), &critics, loss);
    updates.follow(&targets, &critics, t.data("target_mix", &[]), 1);
    t.finish(&updates.pairs(), &[("loss", loss)])
}

/// Outputs and state, as bits, after some updates, and the allocations of the last ones.
fn updated(program: &Program, backend: &dyn Backend) -> (Vec<Vec<u32>>, usize) {
    let numbers =
        |len: usize, seed: usize| (0..len).map(|i| ((i * 37 + seed) % 101) as f32 / 1010.0 - 0.05).collect();
    let value = |name: &str, len, seed| match name {
        "lr" | "target_mix" => vec![0.005],
        "perm" => (0..len).map(|i| i as f32).collect(),
        _ => numbers(len, seed),
    };
    let mut executable = backend.compile(program.clone()).unwrap();
    let states = || program.inputs.iter().enumerate().filter(|(_, input)| input.role == Role::State);
    for (i, input) in states().filter(|(_, input)| !input.name.starts_with("adam")) {
        executable.write(InputId(i), &value(&input.name, input.len(), i)).unwrap();
    }
    let data = program.data().enumerate().map(|(i, (_, input))| value(&input.name, input.len(), i));
    let data = data.collect::<Vec<_>>();
    let data = data.iter().map(Vec::as_slice).collect::<Vec<_>>();
    let mut outputs = vec![Vec::new(); program.outputs.len()];
    executable.run(&data, &mut outputs).unwrap();
    let before = allocations();
    (0..2).for_each(|_| executable.run(&data, &mut outputs).unwrap());
    let allocated = allocations() - before;
    for (i, input) in states() {
        let mut values = vec![0.0; input.len()];
        executable.read(InputId(i), &mut values).unwrap();
        outputs.push(values);
    }
    (outputs.iter().map(|values| values.iter().map(|x| x.to_bits()).collect()).collect(), allocated)
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let config = SacConfig { hidden: vec![256; 2], batch_size: 250, ..SacConfig::default() };
    let sizes = Sizes { observation: 17, actions: Actions::Continuous(6), teachers: 0, weighted: false };
    for program in [sac::program(&config, sizes), critics()] {
        let (one, _) = updated(&program, &Cpu);
        assert!(one.iter().flatten().all(|bits| f32::from_bits(*bits).is_finite()));
        for threads in [2, 7] {
            let (several, allocated) = updated(&program, &Threads(NonZeroUsize::new(threads).unwrap()));
            assert!(several == one, "{threads} threads");
            assert_eq!(allocated, 0, "{threads} threads");
        }
    }
}
