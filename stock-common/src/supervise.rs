//! Supervision: a task that should run as long as the service does is started again when it panics.
//!
//! A panic ends only the task in which it happens. Without supervision, a batcher or a fence's task
//! would be gone for good while the process looks healthy. The supervisor does not clean up after
//! the broken task: the requests that the task drops answer themselves, its locks are taken over,
//! and its work stands in Redis or MySQL.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

/// The first and the longest wait before a task is started again.
const RESTART: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// A run this long resets the wait before the next start: the task broke for another reason.
const WELL_FOR: Duration = Duration::from_secs(30);

/// Runs a task until it returns, and starts it again whenever it panics. `of` tells the task from
/// others of its name. Dropping this future ends the task.
pub async fn supervise<F, T>(task: &'static str, of: String, mut make: F)
where
    F: FnMut() -> T,
    T: Future<Output = ()> + Send + 'static,
{
    let restarts = metrics::counter!("stock_task_restarts_total", "task" => task);
    restarts.increment(0);
    let (mut wait, wait_max) = RESTART;
    loop {
        let began = Instant::now();
        // The set ends its task when this future drops the set.
        let mut running = JoinSet::new();
        running.spawn(breakable(task, of.clone(), make()));
        match running.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                tracing::error!(task, of, %error, "a task broke and is started again");
            }
            // The task returned, or the runtime is shutting down.
            Some(Ok(()) | Err(_)) | None => return,
        }
        restarts.increment(1);
        if began.elapsed() > WELL_FOR {
            wait = RESTART.0;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(wait_max);
    }
}

#[cfg(not(debug_assertions))]
async fn breakable(_task: &'static str, _of: String, running: impl Future<Output = ()>) {
    running.await;
}

#[cfg(debug_assertions)]
pub use self::breaking::break_task;
#[cfg(debug_assertions)]
use self::breaking::breakable;

/// Breaks tasks on demand, for tests. A build without debug assertions leaves this module out.
#[cfg(debug_assertions)]
mod breaking {
    use std::collections::HashMap;
    use std::future::Future;
    use std::sync::{Arc, LazyLock, Mutex};

    use tokio::sync::Notify;

    use crate::lock::lock;

    type Tasks = HashMap<(&'static str, String), Arc<Notify>>;

    static RUNNING: LazyLock<Mutex<Tasks>> = LazyLock::new(Mutex::default);

    fn wake_up(task: &'static str, of: String) -> Arc<Notify> {
        let mut running = lock(&RUNNING);
        Arc::clone(running.entry((task, of)).or_default())
    }

    /// Makes a task panic at the point where it waits.
    pub fn break_task(task: &'static str, of: &str) {
        wake_up(task, of.to_owned()).notify_one();
    }

    pub(super) async fn breakable(
        task: &'static str,
        of: String,
        running: impl Future<Output = ()>,
    ) {
        let wake_up = wake_up(task, of);
        tokio::select! {
            biased;
            () = wake_up.notified() => panic!("a test breaks {task}"),
            () = running => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::supervise;

    #[tokio::test]
    async fn a_task_that_panics_runs_again_and_one_that_returns_does_not() {
        let runs = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&runs);
        supervise("test", "a test".to_owned(), move || {
            let runs = Arc::clone(&counted);
            async move {
                // The panic comes after an await, and not in the first poll.
                tokio::task::yield_now().await;
                assert!(runs.fetch_add(1, Ordering::Relaxed) >= 2, "not yet");
            }
        })
        .await;
        assert_eq!(runs.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_task_ends_with_who_supervises_it() {
        let (held, mut left) = tokio::sync::mpsc::channel::<()>(1);
        let supervising = tokio::spawn(supervise("test", "another".to_owned(), move || {
            let held = held.clone();
            async move {
                std::future::pending::<()>().await;
                drop(held);
            }
        }));
        tokio::task::yield_now().await;
        supervising.abort();
        let ended = tokio::time::timeout(Duration::from_secs(10), left.recv()).await;
        assert_eq!(ended, Ok(None));
    }
}
