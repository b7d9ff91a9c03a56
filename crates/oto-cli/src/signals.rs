//! When a program is told to stop: by Ctrl-C, and where there are such by a termination signal, as service managers and schedulers send it.

#[cfg(feature = "native")]
use std::sync::Arc;
#[cfg(feature = "native")]
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that is set when this process is told to stop, so that it can save what it has. Told again, it ends at once.
///
/// # Errors
/// No thread or runtime that waits for it.
#[cfg(feature = "native")]
pub(crate) fn flag() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::Builder::new().name("stop".into()).spawn(move || {
        runtime.block_on(async {
            told().await;
            flag.store(true, Ordering::Relaxed);
            eprintln!("saving; Ctrl-C again to leave at once");
            told().await;
            std::process::exit(130);
        });
    })?;
    Ok(stop)
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
