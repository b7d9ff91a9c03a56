//! `cargo bench -p oto-bench --bench update`: oto's backends, the step fused by hand and the peers, in one run.
//!
//! The large updates (SAC, TD3, ensembles of critics) run with one thread and with two, oto's and PyTorch's.
//!
//! Options come after `--`: `--json FILE`, `--repeats N`, `--python PROGRAM` (one that has torch), `--compile` (torch.compile
//! as well), `--burn PROGRAM`, `--only NAME` (workloads whose name contains it).

use oto_bench::measure::{ByHand, Contestant, Failure};
use oto_bench::peer::Peer;
use oto_bench::report::{Entry, Report, measure};
use oto_bench::workload::{Continuous, Shape, Task, Workload, distillation};
use oto_wgpu::{Gpu, GpuError, Wgpu};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

const SHAPES: [(usize, usize); 3] = [(64, 32), (128, 51), (128, 200)];
const BATCH: usize = 64;
const LARGE: [Task; 4] = {
    let shape = Continuous { hidden: 256, batch: 256 };
    [Task::Sac(shape), Task::Td3(shape), Task::Critics(1, shape), Task::Critics(10, shape)]
};
const SEED: u64 = 1;

struct Options {
    json: Option<PathBuf>,
    repeats: u32,
    python: String,
    compile: bool,
    burn: PathBuf,
    only: String,
}

fn main() -> ExitCode {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    // Test runners start every target; only `cargo bench` says so.
    if !arguments.iter().any(|a| a == "--bench") {
        return ExitCode::SUCCESS;
    }
    // candle would take all cores; its threads are counted once, at the start of a process.
    let run = match std::env::var_os(THREADS) {
        Some(_) => options(&arguments).and_then(|o| run(&o)),
        None => alone(&arguments),
    };
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// How many threads rayon starts, in candle and in burn.
const THREADS: &str = "RAYON_NUM_THREADS";

/// glibc would give every large tensor back to the system and fetch it anew; PyTorch's manual says to avoid that.
const MALLOC: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "33554432"), ("MALLOC_TRIM_THRESHOLD_", "1073741824")];

/// The same again in a process where everyone has one thread and keeps its memory.
fn alone(arguments: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    let status = command.args(arguments).env(THREADS, "1").envs(MALLOC).status()?;
    if status.success() { Ok(()) } else { Err(format!("the measurement ended with {status}").into()) }
}

fn options(arguments: &[String]) -> Result<Options, Box<dyn std::error::Error>> {
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    let mut options = Options {
        json: None,
        repeats: 30,
        python: "python3".into(),
        compile: false,
        burn: peers.join("burn/target/release/oto-bench-burn"),
        only: String::new(),
    };
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let mut value = || rest.next().ok_or(format!("{name} needs a value"));
        match name.as_str() {
            "--bench" => {}
            "--json" => options.json = Some(value()?.into()),
            "--repeats" => options.repeats = value()?.parse()?,
            "--python" => options.python = value()?.clone(),
            "--compile" => options.compile = true,
            "--burn" => options.burn = value()?.into(),
            "--only" => options.only = value()?.clone(),
            other => return Err(format!("no option {other}").into()),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let of = |(hidden, quantiles)| Workload::new(Shape { hidden, quantiles, batch: BATCH }, SEED);
    let large = LARGE.map(|task| Workload::draw(task, SEED));
    let workloads = SHAPES.into_iter().map(of).chain([distillation(SEED)]).chain(large);
    let webgpu = webgpu();
    let mut reports = Vec::new();
    for workload in workloads.filter(|w| w.name().contains(&options.only)) {
        let report = one(&workload, webgpu.as_ref(), options)?;
        println!("{report}");
        reports.push(report);
    }
    if let Some(file) = &options.json {
        let json = reports.iter().map(Report::to_json).collect::<Vec<_>>();
        std::fs::write(file, serde_json::to_string_pretty(&json)? + "\n")?;
    }
    Ok(())
}

/// The device is opened once for all workloads.
fn webgpu() -> Result<Wgpu, GpuError> {
    Ok(Wgpu { gpu: Gpu::wait()?, fallback: || Box::new(oto_cpu::Cpu), now: oto_wgpu::now })
}

fn one(workload: &Workload, webgpu: Result<&Wgpu, &GpuError>, options: &Options) -> Result<Report, Failure> {
    let mut absent = Vec::new();
    let mut entries =
        vec![Entry::of("candle", &oto_candle::Candle, workload)?, Entry::of("cpu", &oto_cpu::Cpu, workload)?];
    match workload.is_small() {
        true => entries.push(Entry::whole(ByHand::new(workload))),
        false => entries.push(Entry::of("cpu, 2 threads", &oto_cpu::Threads(TWO), workload)?),
    }
    match webgpu {
        Ok(backend) => entries.push(Entry::of("webgpu", backend, workload)?),
        Err(error) => absent.push(("webgpu".into(), format!("left out ({error})"))),
    }
    for (name, command, install) in peers(options, workload.is_small()) {
        match Peer::start(name, command, workload) {
            Ok(peer) => {
                eprintln!("{}: {}", peer.name(), peer.description);
                entries.push(Entry::whole(peer));
            }
            Err(error) => absent.push((name.into(), format!("left out ({error}); {install}"))),
        }
    }
    measure(workload, entries, absent, options.repeats, Duration::MAX)
}

/// Name, program and how to get it.
fn peers(options: &Options, small: bool) -> Vec<(&'static str, Command, &'static str)> {
    const TORCH: &str =
        "python3 -m venv DIR && DIR/bin/pip install torch numpy, then --python DIR/bin/python";
    const BURN: &str = "cargo build --release --manifest-path crates/oto-bench/peers/burn/Cargo.toml";
    const BURN_WGPU: &str =
        "cargo build --release --features wgpu --manifest-path crates/oto-bench/peers/burn/Cargo.toml";
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/pytorch.py");
    let torch = |flag: &[&str]| {
        let mut command = Command::new(&options.python);
        command.arg(&script).args(flag);
        command
    };
    let burn = |backend: &str| {
        let mut command = Command::new(&options.burn);
        command.arg(backend);
        command
    };
    let mut peers = vec![("pytorch", torch(&[]), TORCH)];
    if options.compile {
        peers.push(("pytorch-compile", torch(&["--compile"]), TORCH));
    }
    if !small {
        peers.push(("pytorch, 2", torch(&["--threads", "2"]), TORCH));
        return peers;
    }
    peers.push(("burn-flex", burn("flex"), BURN));
    peers.push(("burn-ndarray", burn("ndarray"), BURN));
    peers.push(("burn-wgpu", burn("wgpu"), BURN_WGPU));
    peers
}
