//! The scheduler: runs jobs by cron expression, each on one instance at a time.
//!
//! Most jobs use cron expressions, because tokio-cron-scheduler's repeated jobs can stop for ever
//! after a late tick. Expired reservations, files of stock and webhooks have loops of their own,
//! because they run several times a second or at once. A job that is still running at its next time
//! is skipped on this instance, and its row in `jobs` keeps other instances out. Its age is a
//! metric, so that a stopped job is noticed.

mod apply_imports;
mod daily_points_report;
mod expire_reservations;
mod forget_logins;
mod forget_states;
pub mod verify_ledger;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono_tz::Tz;
use stock_common::supervise::supervise;
use stock_engine::reconcile;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::webhooks;

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;
type Run = fn(Arc<App>) -> Running;

/// Runs the jobs until `shutdown`.
///
/// # Errors
/// When a cron expression cannot be read.
pub async fn run(app: Arc<App>, shutdown: CancellationToken) -> Result<(), JobSchedulerError> {
    let mut scheduler = JobScheduler::new().await?;
    let config = &app.config;
    let jobs: [(&str, Tz, Run); 5] = [
        (&config.schedule.reconcile_cron, Tz::UTC, |app| {
            Box::pin(run_reconcile(app))
        }),
        (&config.schedule.verify_cron, Tz::UTC, |app| {
            Box::pin(verify_ledger::run(app))
        }),
        (&config.schedule.forget_marks_cron, Tz::UTC, |app| {
            Box::pin(forget_states::run(app))
        }),
        (&config.schedule.forget_logins_cron, Tz::UTC, |app| {
            Box::pin(forget_logins::run(app))
        }),
        (&config.schedule.points_report_cron, config.tz(), |app| {
            Box::pin(daily_points_report::run(app))
        }),
    ];
    for (cron, zone, run) in jobs {
        scheduler.add(job(&app, cron, zone, run)?).await?;
    }
    scheduler.start().await?;
    // These tasks have no cron expression.
    let of = app.config.redis.redis_prefix.clone();
    let every = (app, shutdown);
    tokio::join!(
        keep(
            "daily_points_report",
            &of,
            &every,
            daily_points_report::at_start
        ),
        keep("expire_reservations", &of, &every, expire_reservations::run),
        keep("apply_imports", &of, &every, apply_imports::run),
        keep("webhooks", &of, &every, webhooks::run),
    );
    scheduler.shutdown().await
}

/// Runs a task until it returns, and restarts it when it panics.
async fn keep<T>(
    name: &'static str,
    of: &str,
    (app, shutdown): &(Arc<App>, CancellationToken),
    run: impl Fn(Arc<App>, CancellationToken) -> T,
) where
    T: Future<Output = ()> + Send + 'static,
{
    let make = || run(Arc::clone(app), shutdown.clone());
    supervise(name, of.to_owned(), make).await;
}

/// A job that is skipped while its last run is still going.
fn job(app: &Arc<App>, cron: &str, zone: Tz, run: Run) -> Result<Job, JobSchedulerError> {
    let app = Arc::clone(app);
    let is_running = Arc::new(AtomicBool::new(false));
    Job::new_async_tz(cron, zone, move |_id, _scheduler| {
        let (app, is_running) = (Arc::clone(&app), Arc::clone(&is_running));
        Box::pin(async move {
            if is_running.swap(true, Ordering::AcqRel) {
                return tracing::warn!("a job is skipped: its last run is not over");
            }
            // A run that panics has ended too; the job runs again at its next time.
            if let Err(error) = tokio::spawn(run(app)).await {
                metrics::counter!("stock_task_restarts_total", "task" => "job").increment(1);
                tracing::error!(%error, "a job broke");
            }
            is_running.store(false, Ordering::Release);
        })
    })
}

async fn run_reconcile(app: Arc<App>) {
    match reconcile::reconcile(
        &app.jobs_pool,
        &app.ledger,
        app.config.schedule.reconcile_apply,
    )
    .await
    {
        Ok(Some(done)) => tracing::info!(
            differences = done.differences.len(),
            corrected = done.corrected,
            "reconciled"
        ),
        Ok(None) => tracing::debug!("another instance is reconciling"),
        Err(error) => tracing::warn!(%error, "reconcile will be tried again at its next time"),
    }
}
