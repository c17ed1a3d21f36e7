//! Checks of the ledger: past runs of `verify` and `reconcile`, a `verify` on demand, and the
//! status of the ledger.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use stock_common::clock::{rfc3339, unix_ms};
use stock_engine::lookup;
use stock_engine::reconcile::age_seconds;
use stock_mysql::ledger_checks::{self as table, CheckKind, LedgerCheck};
use stock_mysql::people::audit_log::Action;
use stock_mysql::{dead_letters, jobs, shards};
use stock_redis::FenceState;
use utoipa::ToSchema;

use super::auth::Admin;
use super::extract::{BodyIn, Filter, Keyed};
use super::orders::json;
use super::origin::Origin;
use super::page::{PageIn, cursor_of, cut, limit_of};
use super::problem::Problem;
use super::{audit, once};
use crate::app::{App, CATCH_UP_MAX};
use crate::http::code::Code;
use crate::scheduler::verify_ledger;

/// Body of a `verify` on demand.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyIn {
    /// Verify everything instead of what is new since the last run.
    #[serde(default)]
    full: bool,
}

impl BodyIn for VerifyIn {
    const MAY_BE_MISSING: bool = true;
}

/// A run of `verify` or `reconcile` that ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CheckOut {
    id: u64,
    /// `verify` or `reconcile`.
    kind: String,
    #[schema(format = DateTime)]
    ended_at: String,
    took_ms: u64,
    /// Number of differences found.
    differences: u32,
    /// Number of differences corrected.
    corrected: u32,
    /// The report, as the command's `--json` prints it, with at most 100 differences; absent in the
    /// status.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<Box<RawValue>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CheckListOut {
    items: Vec<CheckOut>,
    next_cursor: Option<String>,
}

/// Status of the ledger, as this instance sees it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusOut {
    version: &'static str,
    /// Epoch of the verified Redis; null while orders are refused `FENCED`.
    epoch: Option<String>,
    /// Reason why a shard is fenced, if one is.
    fenced: Option<String>,
    /// The `appendfsync` that the settings expect of Redis.
    durability: &'static str,
    /// Whether selling is open on every shard.
    selling: bool,
    lag_entries: u64,
    /// The last settled position of any shard.
    watermark: Option<String>,
    /// Number of settled entries.
    settled_entries: u64,
    /// Dead letters that wait for a compensation or a person.
    dead_letters: i64,
    /// Accounts that the last `reconcile` found to differ and did not correct.
    drift_accounts: Option<u32>,
    last_verify: Option<CheckOut>,
    last_reconcile: Option<CheckOut>,
    jobs: Vec<JobOut>,
}

/// A job of the scheduler.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct JobOut {
    job: String,
    #[schema(format = DateTime)]
    last_success_at: Option<String>,
    age_seconds: Option<i64>,
}

impl From<LedgerCheck> for CheckOut {
    fn from(check: LedgerCheck) -> Self {
        Self {
            id: check.id,
            kind: check.kind,
            ended_at: rfc3339(unix_ms(check.ended_at)),
            took_ms: check.took_ms,
            differences: check.differences,
            corrected: check.corrected,
            report: check
                .report
                .and_then(|report| RawValue::from_string(report).ok()),
        }
    }
}

/// GET `/api/ops/checks`: admin; newest first.
///
/// # Errors
/// 422 for an invalid limit or cursor.
pub async fn list(
    State(app): State<Arc<App>>,
    Admin(_): Admin,
    Filter(asked): Filter<PageIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(asked.limit)?;
    let before = cursor_of(asked.cursor.as_deref())?;
    let mut found = table::list(&app.pool, before, limit + 1).await?;
    let page = CheckListOut {
        next_cursor: cut(&mut found, limit).map(|last| last.id.to_string()),
        items: found.into_iter().map(CheckOut::from).collect(),
    };
    Ok(json(StatusCode::OK, &page))
}

/// GET `/api/ops/status`: admin.
///
/// # Errors
/// 503 when MySQL does not answer.
pub async fn status(State(app): State<Arc<App>>, Admin(_): Admin) -> Result<Response, Problem> {
    let (epoch, fenced) = match app.ledger.fence_state() {
        FenceState::Open(link) => {
            let fenced = app.ledger.fenced().into_iter().next();
            let fenced = fenced.map(|(shard, reason)| format!("shard {shard}: {reason}"));
            (Some(link.epoch.to_string()), fenced)
        }
        FenceState::Mending(reason) | FenceState::Fenced(reason) => {
            (None, Some(reason.to_string()))
        }
    };
    // An admin who has just stopped selling must see it here.
    lookup::catch_up(&app.pool, &app.ledger, CATCH_UP_MAX).await;
    let states = shards::all(&app.pool).await?;
    let last_reconcile = table::latest(&app.pool, CheckKind::Reconcile).await?;
    let jobs = jobs::last_success(&app.pool).await?;
    let now_ms = app.clock.now_ms();
    let job = |(job, last)| JobOut {
        job,
        last_success_at: Option::map(last, |at| rfc3339(unix_ms(at))),
        age_seconds: age_seconds(last, now_ms),
    };
    let status = StatusOut {
        version: env!("CARGO_PKG_VERSION"),
        epoch,
        fenced,
        durability: app.config.redis.durability.as_str(),
        selling: states.iter().all(|state| state.selling),
        lag_entries: app.lag_entries(),
        watermark: states
            .iter()
            .map(|state| state.watermark)
            .max()
            .map(|at| at.to_string()),
        settled_entries: states.iter().map(|state| state.number).sum(),
        dead_letters: dead_letters::unresolved(&app.pool).await?,
        drift_accounts: last_reconcile
            .as_ref()
            .map(|last| last.differences.saturating_sub(last.corrected)),
        last_verify: table::latest(&app.pool, CheckKind::Verify)
            .await?
            .map(CheckOut::from),
        last_reconcile: last_reconcile.map(CheckOut::from),
        jobs: jobs.into_iter().map(job).collect(),
    };
    Ok(json(StatusCode::OK, &status))
}

/// POST `/api/ops/verify`: admin; verifies the ledger, one run at a time over all instances.
///
/// A run may take longer than a request. The answer is 202, and the result appears in
/// `/api/ops/checks`.
///
/// # Errors
/// 409 while another run is under way.
pub async fn start(
    State(app): State<Arc<App>>,
    Admin(admin): Admin,
    origin: Origin,
    Keyed {
        body, idempotency, ..
    }: Keyed<VerifyIn>,
) -> Result<Response, Problem> {
    if let Some(before) = once::look(&app, idempotency.as_ref()).await? {
        return before;
    }
    let held = verify_ledger::claim(&app).await?.ok_or_else(|| {
        Problem::new(
            Code::RequestInProgress,
            "the ledger is being verified already",
        )
    })?;
    let started = serde_json::json!({ "status": "RUNNING" });
    let started = json(StatusCode::ACCEPTED, &started);
    let response = once::keep(&app, idempotency, Ok(started)).await?;
    audit::note(
        &app,
        &origin,
        Action::LedgerVerified,
        Some(admin.user),
        CheckKind::Verify.as_str(),
    );
    let running = Arc::clone(&app);
    let (claim, pool) = held;
    app.start(async move { verify_ledger::run_claimed(&running, claim, pool, body.full).await });
    Ok(response)
}
