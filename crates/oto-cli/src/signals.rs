//! How a program learns that it is to stop: by Ctrl-C; on Unix also by a termination signal (service managers, schedulers) and by a
//! terminal that hangs up (an SSH session that ends).

#[cfg(feature = "native")]
use std::sync::Arc;
#[cfg(feature = "native")]
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that is set when this process is to stop, so that it can save its work. A second Ctrl-C or termination signal ends the process
/// at once. A hang-up does not count for that: shell, terminal and service manager send one each, besides a termination signal.
///
/// # Errors
/// No thread or runtime that waits for it.
#[cfg(feature = "native")]
pub(crate) fn flag() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let (flag, hung_up) = (stop.clone(), stop.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_io().build()?;
    if !hangup_ignored() {
        runtime.spawn(each_hangup(move || hung_up.store(true, Ordering::Relaxed)));
    }
    std::thread::Builder::new().name("stop".into()).spawn(move || {
        runtime.block_on(async {
            told().await;
            flag.store(true, Ordering::Relaxed);
            crate::note!("saving; Ctrl-C again to leave at once");
            told().await;
            std::process::exit(130);
        });
    })?;
    Ok(stop)
}

/// Whether this process was started by `nohup`, so that a hang-up means nothing to it. Only Linux tells.
#[cfg(feature = "native")]
fn hangup_ignored() -> bool {
    // Bit N - 1 is signal N; a hang-up is signal 1.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// Done at Ctrl-C, and at a termination signal where there are such.
pub(crate) async fn told() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// Does something each time the terminal hangs up or `kill -HUP` says so, which would else end the program. Where there is no such
/// signal, never.
pub(crate) async fn each_hangup(mut work: impl FnMut() + Send + 'static) {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
        while hangup.recv().await.is_some() {
            // It reads files.
            tokio::task::block_in_place(&mut work);
        }
    }
    #[cfg(not(unix))]
    drop(work);
}
