//! Long work, such as the parsing of a text of a megabyte: one piece after the other, in a thread of lower priority.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use tokio::sync::{Semaphore, oneshot};

type Work = Box<dyn FnOnce() + Send>;

/// This thread. It starts with the first piece of work.
pub(crate) struct Aside {
    thread: OnceLock<Option<Sender<Work>>>,
    /// Waiting work, in order of arrival. The work of a closed connection is dropped.
    turn: Arc<Semaphore>,
}

impl Aside {
    pub fn new() -> Self {
        Aside { thread: OnceLock::new(), turn: Arc::new(Semaphore::new(1)) }
    }

    /// The result of the work; none if it panics, or if the thread cannot start.
    pub async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let turn = self.turn.clone().acquire_owned().await.ok()?;
        let (done, wait) = oneshot::channel();
        // The next work waits for this one, even if its connection closes.
        let work = Box::new(move || {
            let _turn = turn;
            drop(done.send(work()));
        });
        self.thread.get_or_init(start).as_ref()?.send(work).ok()?;
        wait.await.ok()
    }
}

fn start() -> Option<Sender<Work>> {
    let (sender, works) = channel::<Work>();
    let thread = std::thread::Builder::new().name("aside".into());
    let spawned = thread.spawn(move || {
        // Of this thread alone; it only matters for speed.
        #[cfg(target_os = "linux")]
        let _ = rustix::process::nice(10);
        for work in works {
            // The waiting connection learns of a panic.
            drop(catch_unwind(AssertUnwindSafe(work)));
        }
    });
    spawned.ok().map(|_| sender)
}

#[cfg(test)]
mod tests {
    use super::Aside;

    #[test]
    fn work_that_panics_gives_nothing_and_the_next_is_done() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let aside = Aside::new();
            assert_eq!(aside.work(|| -> u8 { panic!("it is meant to") }).await, None);
            assert_eq!(aside.work(|| 7).await, Some(7));
        });
    }
}
