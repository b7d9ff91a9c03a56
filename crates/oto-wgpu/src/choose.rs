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
    executable.run(data, &mut outputs)?;
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

/// Keeps the device busy, and counts what it reports after its first report.
async fn beside(
    executable: &mut dyn Executable,
    data: &[&[f32]],
    clock: &impl Clock,
) -> Result<f64, BackendError> {
    let began = clock.now();
    let mut first: Option<(f64, u64)> = None;
    loop {
        let device = executable.device().expect("it was one");
        while device.has_room() {
            device.start(data)?;
        }
        let steps = device.report()?.map(|r| r.steps);
        let now = clock.now();
        match (first, steps) {
            (None, Some(steps)) => first = Some((now, steps)),
            (Some((start, before)), Some(steps)) if now - start >= MOMENT => {
                return Ok((steps - before) as f64 / (now - start) * 1000.0);
            }
            _ => {}
        }
        if first.is_none() && now - began > PATIENCE || now - began > PATIENCE + 10.0 * MOMENT {
            return Err(BackendError::Device(format!(
                "no step was finished within {:.0} s",
                PATIENCE / 1000.0
            )));
        }
        clock.pause().await;
    }
}

/// [`updates_per_second`], waiting for it.
#[cfg(not(target_arch = "wasm32"))]
pub fn wait_for_updates_per_second(backend: &dyn Backend, program: &Program) -> Result<f64, BackendError> {
    struct Native(std::time::Instant);
    impl Clock for Native {
        fn now(&self) -> f64 {
            self.0.elapsed().as_secs_f64() * 1000.0
        }
        async fn pause(&self) {
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
    }
    pollster::block_on(updates_per_second(backend, program, &Native(std::time::Instant::now())))
}
