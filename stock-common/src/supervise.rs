//! Supervision: a task that should run as long as the service does, and breaks, is started again.
//!
//! A panic ends the task that it happens in and nothing else; without this, a batcher or a gate would be gone for
//! good while the process looks well. The work that such a task leaves behind is its own affair: requests that it drops
//! answer themselves, locks are taken over, and what it was doing stands in Redis or MySQL.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

/// How long to wait before a task is started again, at first and at most.
const RESTART: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// A task that has run so long breaks for another reason than the last time.
const WELL_FOR: Duration = Duration::from_secs(30);

/// Runs a task until it returns, starting it again whenever it panics; `of` tells it from others of its name. Dropping
/// this ends it.
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
        // Dropped with this future, it takes the task with it.
        let mut running = JoinSet::new();
        running.spawn(breakable(task, of.clone(), make()));
        match running.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                tracing::error!(task, of, %error, "a task broke and is started again");
            }
            // It has ended by itself, or with the runtime.
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

/// Breaks tasks on demand, for tests: a build without debug assertions has none of it.
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

    /// Lets a task panic where it is waiting.
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
                // Also behind a point where it waited.
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
