//! "auto": the real program is run for a moment, and the faster backend taken.

use oto_graph::{Backend, BackendError, Executable, Program};

/// How long a backend is timed, in milliseconds; what it does for the first time is not.
const MOMENT: f64 = 120.0;
/// A device that has not finished its first step by then is not worth waiting for.
const PATIENCE: f64 = 5_000.0;

/// Time and pauses: a page has no others than its own.
pub trait Clock {
    /// Milliseconds.
    fn now(&self) -> f64;
    /// Lets the device's callbacks run.
    fn pause(&self) -> impl Future<Output = ()>;
}

/// Updates of `program` that a backend makes in a second.
pub async fn updates_per_second(
    backend: &dyn Backend,
    program: &Program,
    clock: &impl Clock,
) -> Result<f64, BackendError> {
    let mut executable = backend.compile(program.clone())?;
    let zeros = program.data().map(|(_, input)| vec![0.0; input.len()]).collect::<Vec<_>>();
    let data = zeros.iter().map(Vec::as_slice).collect::<Vec<_>>();
    match executable.device().is_some() {
        true => beside(executable.as_mut(), &data, clock).await,
        false => at_once(executable.as_mut(), &data, clock),
    }
}

fn at_once(
    executable: &mut dyn Executable,
    data: &[&[f32]],
    clock: &impl Clock,
) -> Result<f64, BackendError> {
    let mut outputs = vec![Vec::new(); executable.program().outputs.len()];
    // A browser compiles what runs often once more, and better.
    let began = clock.now();
    while clock.now() - began < MOMENT {
        executable.run(data, &mut outputs)?;
    }
    let (start, mut count) = (clock.now(), 0u64);
    loop {
        executable.run(data, &mut outputs)?;
        count += 1;
        let passed = clock.now() - start;
        if passed >= MOMENT {
            return Ok(count as f64 / passed * 1000.0);
        }
    }
}

/// Times ever more steps until they take long enough to be timed.
async fn beside(
    executable: &mut dyn Executable,
    data: &[&[f32]],
    clock: &impl Clock,
) -> Result<f64, BackendError> {
    let began = clock.now();
    // The first step compiles.
    let mut steps = 1u64;
    for round in 0.. {
        let start = clock.now();
        let device = executable.device().expect("it was one");
        for _ in 0..steps {
            device.start(data)?;
        }
        while executable.device().expect("it was one").behind() > 0 {
            executable.device().expect("it was one").report()?;
            if clock.now() - began > PATIENCE {
                return Err(BackendError::Device(format!(
                    "{steps} steps took longer than {} s",
                    (PATIENCE / 1e3) as u64
                )));
            }
            clock.pause().await;
        }
        let passed = clock.now() - start;
        if round > 0 && (passed >= MOMENT / 2.0 || steps >= 1 << 16) {
            return Ok(steps as f64 / passed * 1000.0);
        }
        steps *= if round > 0 { 2 } else { 1 };
    }
    unreachable!("rounds do not end by themselves")
}

/// [`updates_per_second`], waiting for it.
#[cfg(not(target_arch = "wasm32"))]
pub fn wait_for_updates_per_second(backend: &dyn Backend, program: &Program) -> Result<f64, BackendError> {
    struct Native;
    impl Clock for Native {
        fn now(&self) -> f64 {
            now()
        }
        async fn pause(&self) {
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
    }
    pollster::block_on(updates_per_second(backend, program, &Native))
}

/// Milliseconds since the first call.
#[cfg(not(target_arch = "wasm32"))]
pub fn now() -> f64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed().as_secs_f64() * 1000.0
}
