//! Microseconds of one QR-DQN + AIKD update.
use oto_cpu::Cpu;
use oto_env::rng::Rng;
use oto_graph::{Backend, InputId, Role};
use oto_rl::qrdqn::{QrDqnConfig, Sizes, program};
use std::time::Instant;

fn main() {
    for (hidden, quantiles) in [(64, 32), (128, 51), (128, 200)] {
        let config = QrDqnConfig { hidden: vec![hidden; 2], quantiles, ..QrDqnConfig::default() };
        let program = program(&config, Sizes { observation: 4, actions: 2, teachers: 1 });
        let mut exe = Cpu.compile(program.clone()).unwrap();
        let rng = &mut Rng::new(1);
        for (i, input) in program.inputs.iter().enumerate().filter(|(_, i)| i.role == Role::State) {
            let scale = if input.name.starts_with("adam") { 0.0 } else { 0.1 };
            let v = (0..input.len()).map(|_| (rng.normal() * scale) as f32).collect::<Vec<_>>();
            exe.write(InputId(i), &v).unwrap();
        }
        let data = program
            .data()
            .map(|(_, i)| match i.name.as_str() {
                "lr" => vec![1e-3],
                "action" | "teacher_action" | "mask" => (0..i.len()).map(|k| (k % 2) as f32).collect(),
                "perm" => (0..i.len()).rev().map(|k| k as f32).collect(),
                _ => (0..i.len()).map(|_| rng.f64() as f32).collect::<Vec<_>>(),
            })
            .collect::<Vec<_>>();
        let data = data.iter().map(Vec::as_slice).collect::<Vec<_>>();
        let mut out = vec![Vec::new(); program.outputs.len()];
        for _ in 0..50 {
            exe.run(&data, &mut out).unwrap();
        }
        let mut times = (0..300)
            .map(|_| {
                let t = Instant::now();
                exe.run(&data, &mut out).unwrap();
                t.elapsed().as_secs_f64() * 1e6
            })
            .collect::<Vec<_>>();
        times.sort_by(f64::total_cmp);
        println!("{hidden} {quantiles}: {:.0} us (p10 {:.0})", times[150], times[30]);
    }
}
