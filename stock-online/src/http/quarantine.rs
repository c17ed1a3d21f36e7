//! Accounts under quarantine, as an admin sees and releases them.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use stock_common::clock::{rfc3339, unix_ms};
use stock_common::id::Position;
use stock_domain::account::Account;
use stock_engine::quarantine::{ReleaseError, release as release_account};
use stock_mysql::people::audit_log::Action;
use stock_mysql::quarantine::{self as table, Quarantined};
use utoipa::ToSchema;

use super::auth::Admin;
use super::extract::{BodyIn, Keyed};
use super::orders::json;
use super::origin::Origin;
use super::problem::Problem;
use super::{audit, once};
use crate::app::App;
use crate::http::code::Code;

/// An account from which nothing may be taken.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct QuarantinedOut {
    /// The account's name, such as `AVAILABLE:7:0`.
    account: String,
    shard: u64,
    /// Position of the first entry whose posting does not continue the account's chain.
    #[schema(value_type = String, pattern = "^[0-9]{1,20}$")]
    position: Position,
    reason: String,
    /// Number of postings that are kept aside.
    kept: u64,
    #[schema(format = DateTime)]
    created_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct QuarantinedListOut {
    items: Vec<QuarantinedOut>,
    next_cursor: Option<String>,
}

/// The level of a released account.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReleasedOut {
    account: String,
    balance: i64,
    seq: u64,
}

/// Body of a release.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Whether MySQL's level is taken where the copies contradict each other.
    #[serde(default)]
    force: bool,
}

impl BodyIn for Release {
    const MAY_BE_MISSING: bool = true;
}

impl From<Quarantined> for QuarantinedOut {
    fn from(of: Quarantined) -> Self {
        Self {
            account: of.broken.account.to_string(),
            shard: of.shard,
            position: of.broken.position,
            reason: of.broken.reason,
            kept: of.kept,
            created_at: rfc3339(unix_ms(of.created_at)),
        }
    }
}

/// GET `/api/ops/quarantine`: admin; the oldest first, at most 1,000.
///
/// # Errors
/// 403 for anybody but an admin.
pub async fn list(State(app): State<Arc<App>>, Admin(_): Admin) -> Result<Response, Problem> {
    let all = table::list(&app.pool).await?;
    let page = QuarantinedListOut {
        items: all.into_iter().map(QuarantinedOut::from).collect(),
        next_cursor: None,
    };
    Ok(json(StatusCode::OK, &page))
}

/// POST `/api/ops/quarantine/{account}/release`: admin; adds the postings that were kept aside to
/// the level that two of three copies agree on, and opens the account.
///
/// # Errors
/// 404, 409 when the quarantine goes on.
pub async fn release(
    State(app): State<Arc<App>>,
    Admin(admin): Admin,
    origin: Origin,
    Path(name): Path<String>,
    Keyed {
        body, idempotency, ..
    }: Keyed<Release>,
) -> Result<Response, Problem> {
    if let Some(before) = once::look(&app, idempotency.as_ref()).await? {
        return before;
    }
    let missing = || Problem::new(Code::NotFound, "the account is not under quarantine");
    let account = Account::parse(&name).ok_or_else(missing)?;
    let released = release_account(&app.pool, &app.ledger, account, body.force).await;
    let released = released.map_err(|error| match error {
        ReleaseError::Database(error) => error.into(),
        ReleaseError::Read(error) => error.into(),
        ReleaseError::Missing => missing(),
        error @ (ReleaseError::Busy | ReleaseError::Contradiction(_) | ReleaseError::Short(_)) => {
            Problem::new(Code::QuarantineStays, error.to_string())
        }
    });
    if released.is_ok() {
        let subject = format!("account:{account}");
        let action = Action::AccountReleased;
        audit::note(&app, &origin, action, Some(admin.user), &subject);
    }
    let answer = |level: stock_domain::account::Level| {
        let out = ReleasedOut {
            account: account.to_string(),
            balance: level.balance,
            seq: level.seq,
        };
        json(StatusCode::OK, &out)
    };
    once::keep(&app, idempotency, released.map(answer)).await
}
