//! The time that a request spends waiting for Redis and MySQL, while somebody measures it.
//!
//! The times are those of the request's own task, and of tasks that it starts with [`continued`]. A
//! request that is not measured pays for one look
//! at a variable of its task.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task_local;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

task_local! {
    static SPENT: Arc<Spending>;
}

#[derive(Debug, Default)]
struct Spending {
    mysql_us: AtomicU64,
    statements: AtomicU64,
    redis_us: AtomicU64,
}

/// The time that a request spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Waiting for MySQL's answers.
    pub mysql: Duration,
    /// The number of statements.
    pub statements: u64,
    /// Waiting for Redis' answers, queues included.
    pub redis: Duration,
}

/// Measures a request.
pub async fn measured<F: Future>(request: F) -> (F::Output, Spent) {
    let measuring = async {
        let output = request.await;
        let spent = SPENT.with(|spent| {
            let us = |of: &AtomicU64| Duration::from_micros(of.load(Ordering::Relaxed));
            Spent {
                mysql: us(&spent.mysql_us),
                statements: spent.statements.load(Ordering::Relaxed),
                redis: us(&spent.redis_us),
            }
        });
        (output, spent)
    };
    SPENT.scope(Arc::default(), measuring).await
}

/// Measures a task for the request that starts it, if that request is measured.
pub fn continued<F: Future>(task: F) -> impl Future<Output = F::Output> {
    let spending = SPENT.try_with(Arc::clone).ok();
    async move {
        match spending {
            Some(spending) => SPENT.scope(spending, task).await,
            None => task.await,
        }
    }
}

fn add(to: &AtomicU64, time: Duration) {
    let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    to.fetch_add(us, Ordering::Relaxed);
}

/// Counts the time until it is dropped as waiting for Redis.
#[derive(Debug)]
#[must_use]
pub struct RedisTimer(Option<Instant>);

/// Begins to count time as waiting for Redis, if the request is measured.
pub fn redis() -> RedisTimer {
    let is_measured = SPENT.try_with(|_| ()).is_ok();
    RedisTimer(is_measured.then(Instant::now))
}

impl Drop for RedisTimer {
    fn drop(&mut self) {
        if let Some(began) = self.0 {
            // A request that was given up is not measured any more.
            let _given_up = SPENT.try_with(|spent| add(&spent.redis_us, began.elapsed()));
        }
    }
}

/// Reads the time of each statement from the events of the client of MySQL.
#[derive(Debug)]
pub(crate) struct StatementTimes;

/// The target of these events.
pub(crate) const STATEMENTS: &str = "sqlx::query";

#[derive(Default)]
struct Elapsed(f64);

impl Visit for Elapsed {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if field.name() == "elapsed_secs" {
            self.0 = value;
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn std::fmt::Debug) {}
}

impl<S: Subscriber> Layer<S> for StatementTimes {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let _not_measured = SPENT.try_with(|spent| {
            let mut elapsed = Elapsed::default();
            event.record(&mut elapsed);
            let time = Duration::try_from_secs_f64(elapsed.0).unwrap_or_default();
            add(&spent.mysql_us, time);
            spent.statements.fetch_add(1, Ordering::Relaxed);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::{STATEMENTS, StatementTimes, continued, measured, redis};

    #[tokio::test]
    async fn a_request_is_told_what_it_waited_for_and_another_is_not_measured() {
        let subscriber = tracing_subscriber::registry().with(StatementTimes);
        let _guard = tracing::subscriber::set_default(subscriber);
        let statement = || tracing::debug!(target: STATEMENTS, elapsed_secs = 0.25);
        statement();
        let wait = Duration::from_millis(2);
        let ((), spent) = measured(async {
            statement();
            statement();
            let task = continued(async move {
                let timer = redis();
                tokio::time::sleep(wait).await;
                drop(timer);
            });
            tokio::spawn(task).await.unwrap();
        })
        .await;
        assert_eq!(spent.mysql, Duration::from_millis(500));
        assert_eq!(spent.statements, 2);
        assert!(spent.redis >= wait, "{spent:?}");
        assert!(redis().0.is_none());
    }
}
