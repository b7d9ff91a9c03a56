//! Whole students on every backend: the same curve over a thousand updates, steps that are reported later, and a lost device.

use oto_candle::Candle;
use oto_cpu::Cpu;
use oto_env::rng::Rng;
use oto_graph::Backend;
use oto_rl::qrdqn::{LossParts, QrDqn, QrDqnConfig, Schedule, Sizes};
use oto_rl::replay::Batch;
use oto_wgpu::{Gpu, Wgpu};

const SIZES: Sizes = Sizes { observation: 4, actions: 2, teachers: 1 };

fn config() -> QrDqnConfig {
    QrDqnConfig { hidden: vec![32, 32], quantiles: 16, batch_size: 32, ..QrDqnConfig::default() }
}

fn schedule() -> Schedule {
    Schedule { lr: 1e-3, target_mix: 0.01, alpha_aikd: 1.0, delta: 0.5, eta: 0.5, alpha_task: 1.0 }
}

fn webgpu() -> Wgpu {
    let gpu = Gpu::wait().expect("a Vulkan driver, for instance Mesa's lavapipe");
    Wgpu { gpu, fallback: || Box::new(Cpu), now: oto_wgpu::now }
}

/// A batch of a made-up task: the reward is the first number of the state, the teacher goes where the second points.
#[allow(clippy::field_reassign_with_default)]
fn batch(rng: &mut Rng) -> Batch {
    let rows = config().batch_size;
    let observation = (0..rows * SIZES.observation).map(|_| rng.normal() as f32).collect::<Vec<_>>();
    let first = |i: usize, k: usize| observation[i * SIZES.observation + k];
    let mut order = (0..rows).collect::<Vec<_>>();
    rng.shuffle(&mut order);
    let mut batch = Batch::default();
    batch.next_observation = (0..rows * SIZES.observation).map(|_| rng.normal() as f32).collect();
    batch.action = (0..rows).map(|_| rng.below(2) as f32).collect();
    batch.reward = (0..rows).map(|i| first(i, 0)).collect();
    batch.discount = (0..rows).map(|_| if rng.below(10) == 0 { 0.0 } else { 0.9 }).collect();
    batch.teacher_action = (0..rows).map(|i| if first(i, 1) > 0.0 { 1.0 } else { 0.0 }).collect();
    batch.mask = (0..rows).map(|_| if rng.below(4) == 0 { 0.0 } else { 1.0 }).collect();
    batch.perm = order.into_iter().map(|i| i as f32).collect();
    batch.observation = observation;
    batch
}

/// Collects until nothing is on its way any more.
fn catch_up(student: &mut QrDqn) {
    while student.behind() > 0 {
        student.collect().unwrap();
        std::thread::yield_now();
    }
}

/// The loss after every tenth of so many updates.
fn curve(backend: &dyn Backend, updates: usize) -> Vec<LossParts> {
    let rng = &mut Rng::new(11);
    let mut student = QrDqn::new(&config(), SIZES, backend, rng).unwrap();
    let mut curve = Vec::new();
    for i in 1..=updates {
        student.update(&batch(rng), &schedule()).unwrap();
        if i % 10 == 0 {
            catch_up(&mut student);
            curve.push(student.last_loss().unwrap());
        }
    }
    assert_eq!(student.updates(), updates as u64);
    curve
}

#[test]
fn a_thousand_updates_give_the_same_curve() {
    let reference = curve(&Candle, 1000);
    for backend in [&Cpu as &dyn Backend, &webgpu()] {
        for (i, (ours, theirs)) in curve(backend, 1000).iter().zip(&reference).enumerate() {
            let name = backend.name();
            for (part, a, b) in [
                ("loss", ours.loss, theirs.loss),
                ("task", ours.task, theirs.task),
                ("base", ours.base, theirs.base),
                ("rkd_a", ours.rkd_a, theirs.rkd_a),
                ("q", ours.q, theirs.q),
            ] {
                assert!(
                    (a - b).abs() <= 5e-3 * (1.0 + b.abs()),
                    "{name}, update {}0, {part}: {a}, {b} in candle",
                    i + 1
                );
            }
        }
    }
    let (first, last) = (reference[0].q, reference[99].q);
    assert!((last - first).abs() > 0.1, "what is compared moves: Q was {first}, then {last}");
}

#[test]
fn a_lost_device_is_replaced_from_its_last_snapshot() {
    let backend = webgpu();
    let rng = &mut Rng::new(12);
    let mut student = QrDqn::new(&config(), SIZES, &backend, rng).unwrap();
    for _ in 0..450 {
        student.update(&batch(rng), &schedule()).unwrap();
        student.collect().unwrap();
    }
    catch_up(&mut student);
    while !student.settle().unwrap() {}
    let before = student.state().unwrap();
    let q = student.q_values(&[0.1, 0.2, 0.3, 0.4]).to_vec();
    backend.gpu.destroy();
    for _ in 0..100 {
        std::thread::sleep(std::time::Duration::from_millis(2));
        student.collect().unwrap();
        if student.backend() == "cpu" {
            break;
        }
    }
    assert_eq!(student.backend(), "cpu");
    let told = student.lost().unwrap();
    assert!(told.starts_with("the device of the backend \"webgpu\" was lost ("), "{told}");
    assert!(told.ends_with("); \"cpu\" goes on from update 450"), "{told}");
    assert_eq!(student.updates(), 450, "the newest snapshot was the newest state");
    assert_eq!(student.state().unwrap(), before);
    assert_eq!(student.q_values(&[0.1, 0.2, 0.3, 0.4]), q);
    student.update(&batch(rng), &schedule()).unwrap();
    assert_eq!(student.updates(), 451);
}

#[test]
fn a_lost_device_takes_no_state_with_it_that_is_put_later() {
    let backend = webgpu();
    let rng = &mut Rng::new(14);
    let mut here = QrDqn::new(&config(), SIZES, &Cpu, rng).unwrap();
    let mut there = QrDqn::new(&config(), SIZES, &backend, rng).unwrap();
    here.update(&batch(rng), &schedule()).unwrap();
    let state = here.state().unwrap();
    backend.gpu.destroy();
    there.collect().unwrap();
    let find = |name: &str| state.iter().find(|t| t.name == name).map(|t| t.values.clone());
    there.restore(here.updates(), find).unwrap();
    while !there.settle().unwrap() {}
    assert_eq!((there.backend(), there.updates()), ("cpu", 1));
    assert_eq!(there.state().unwrap(), state);
}

#[test]
fn state_moves_between_backends() {
    let rng = &mut Rng::new(13);
    let mut there = QrDqn::new(&config(), SIZES, &webgpu(), rng).unwrap();
    for _ in 0..40 {
        there.update(&batch(rng), &schedule()).unwrap();
    }
    while !there.settle().unwrap() {}
    let state = there.state().unwrap();
    let mut here = QrDqn::new(&config(), SIZES, &Cpu, rng).unwrap();
    let find = |name: &str| state.iter().find(|t| t.name == name).map(|t| t.values.clone());
    here.restore(there.updates(), find).unwrap();
    assert_eq!(here.state().unwrap(), state);
    let next = batch(rng);
    for student in [&mut here, &mut there] {
        student.update(&next, &schedule()).unwrap();
        catch_up(student);
    }
    let (a, b) = (here.last_loss().unwrap().loss, there.last_loss().unwrap().loss);
    assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "{a} {b}");
}
