//! How fast the Atari network's convolutions (Mnih et al. 2015) are here, forward and both gradients: `cargo run --release -p
//! oto-cpu --example convolution`.

use oto_cpu::Cpu;
use oto_graph::{Activation, Backend, Conv, Trace, grad};
use std::time::Instant;

/// Few, so that a step is over before another program has its turn on the core: images are worked on one by one anyway.
const BATCH: usize = 2;

fn main() {
    for ([channels, side], outputs, kernel, stride) in
        [([4, 84], 32, 8, 4), ([32, 20], 64, 4, 2), ([64, 9], 64, 3, 1)]
    {
        let conv = Conv { stride, padding: 0 };
        let to = conv.output(side, kernel);
        let flop = 2 * BATCH * outputs * to * to * channels * kernel * kernel;
        for (what, products) in [("forward", 1), ("forward and gradients", 3)] {
            let t = Trace::new();
            let x = t.data("x", &[BATCH, channels, side, side]);
            let w = t.data("w", &[outputs, channels, kernel, kernel]);
            let b = t.data("b", &[outputs]);
            let y = x.conv2d(w, b, conv, Activation::Relu);
            let shown = match products {
                1 => vec![("y", y)],
                _ => ["x", "w"].into_iter().zip(grad(y.square().mean(), &[x, w])).collect(),
            };
            let program = t.finish(&[], &shown);
            let number = |i: usize| ((i * 37) % 101) as f32 / 101.0 - 0.5;
            let data = program.data().map(|(_, i)| (0..i.len()).map(number).collect::<Vec<_>>());
            let data = data.collect::<Vec<_>>();
            let data = data.iter().map(Vec::as_slice).collect::<Vec<_>>();
            let mut out = vec![Vec::new(); program.outputs.len()];
            let mut compiled = Cpu.compile(program).expect("a program that fits");
            let mut best = f64::INFINITY;
            for _ in 0..200 {
                let start = Instant::now();
                compiled.run(&data, &mut out).expect("the data fit");
                best = best.min(start.elapsed().as_secs_f64());
            }
            let rate = (products * flop) as f64 / best / 1e9;
            println!(
                "{channels} x {side} x {side}, {outputs} kernels of {kernel}: {what}: {:.2} ms, {rate:.1} GFLOP/s",
                best * 1e3
            );
        }
    }
}
