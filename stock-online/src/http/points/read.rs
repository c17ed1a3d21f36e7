//! Reads of points: users see their own points, admins see everybody's.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use stock_common::clock::day_of;
use stock_common::id::UserId;
use stock_domain::account::Account;
use stock_domain::points::PointTransaction;
use stock_engine::lookup;
use stock_mysql::people::users;
use stock_mysql::point_reports::{self, PointReport};
use stock_mysql::{accounts, point_transactions as table};
use utoipa::ToSchema;

use super::{PointOut, no_user};
use crate::app::{App, CATCH_UP_MAX};
use crate::http::auth::Caller;
use crate::http::extract::{Filter, PathId};
use crate::http::orders::json;
use crate::http::page::{PageIn, cursor_of, cut, days_of, limit_of};
use crate::http::problem::Problem;

/// The days to report.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DaysIn {
    from: Option<NaiveDate>,
    to: Option<NaiveDate>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct PointListOut {
    items: Vec<PointOut>,
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct BalanceOut {
    user_id: u64,
    balance: i64,
}

/// The movements of a user's points on a day of the service's time zone.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct PointReportOut {
    #[schema(value_type = String, format = Date)]
    report_date: NaiveDate,
    earn_amount: i64,
    use_amount: i64,
    /// Cancelled points, both directions added up.
    cancel_amount: i64,
    /// Earned less used; a cancel counts against what it cancels.
    net_amount: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct PointReportListOut {
    items: Vec<PointReportOut>,
    /// Always null: the answer has all days that were asked for.
    next_cursor: Option<String>,
}

impl From<PointReport> for PointReportOut {
    fn from(of: PointReport) -> Self {
        Self {
            report_date: of.report_date,
            earn_amount: of.earn_amount,
            use_amount: of.use_amount,
            cancel_amount: of.cancel_amount,
            net_amount: of.net_amount,
        }
    }
}

/// A user whose points the caller may see.
fn user_id(caller: Caller, id: Result<PathId, Problem>) -> Result<UserId, Problem> {
    let PathId(id) = id.map_err(|_not_a_number| no_user())?;
    let user = UserId(id);
    if caller.is_admin() || user == caller.user {
        Ok(user)
    } else {
        Err(no_user())
    }
}

/// Checks that a user exists: a user without points is shown, an unknown user is a 404.
async fn find_user(app: &App, user: UserId) -> Result<(), Problem> {
    let found = users::find(&app.pool, user).await?;
    found.map(drop).ok_or_else(no_user)
}

/// GET `/api/v1/points/users/{userId}/balance`, `/api/v2/…`.
///
/// # Errors
/// 404 for another user.
pub async fn balance(
    State(app): State<Arc<App>>,
    caller: Caller,
    id: Result<PathId, Problem>,
) -> Result<Response, Problem> {
    let user = user_id(caller, id)?;
    let account = Account::points(user);
    let levels = match app.ledger.levels(&[account]).await {
        Ok(levels) => levels,
        // While Redis does not answer, the balance is MySQL's.
        Err(_) => accounts::levels(&app.pool, &[account]).await?,
    };
    let level = levels.get(&account).copied();
    if level.is_none() {
        find_user(&app, user).await?;
    }
    let body = BalanceOut {
        user_id: user.0,
        balance: level.unwrap_or_default().balance,
    };
    Ok(json(StatusCode::OK, &body))
}

/// GET `/api/v1/points/users/{userId}/history`, `/api/v2/…`.
///
/// # Errors
/// 404 for another user, 422 for an invalid limit or cursor.
pub async fn history(
    State(app): State<Arc<App>>,
    caller: Caller,
    id: Result<PathId, Problem>,
    Filter(query): Filter<PageIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(query.limit)?;
    let before = cursor_of(query.cursor.as_deref())?;
    let user = user_id(caller, id)?;
    lookup::catch_up(&app.pool, &app.ledger, CATCH_UP_MAX).await;
    let mut found = table::of_user(&app.pool, user, before, limit + 1).await?;
    if found.is_empty() {
        find_user(&app, user).await?;
    }
    let next_cursor = cut(&mut found, limit).map(|last| last.seq.to_string());
    let items = found.into_iter().map(PointOut::from).collect();
    Ok(json(StatusCode::OK, &PointListOut { items, next_cursor }))
}

/// A part of a user's movements, newest first, and their number.
///
/// # Errors
/// 404 for another user.
pub(crate) async fn part_of(
    app: &App,
    caller: Caller,
    id: Option<u64>,
    limit: u32,
    offset: u64,
) -> Result<(Vec<PointTransaction>, u64), Problem> {
    let user = user_id(caller, id.map(PathId).ok_or_else(no_user))?;
    lookup::catch_up(&app.pool, &app.ledger, CATCH_UP_MAX).await;
    let last = table::of_user(&app.pool, user, None, 1).await?;
    let Some(last) = last.first().map(|last| last.seq) else {
        find_user(app, user).await?;
        return Ok((Vec::new(), 0));
    };
    let count = table::count_of(&app.pool, user).await?;
    let before = (last + 1).saturating_sub(offset);
    let found = table::of_user(&app.pool, user, Some(before), limit).await?;
    Ok((found, count))
}

/// GET `/api/v1/points/users/{userId}/reports`, `/api/v2/…`.
///
/// # Errors
/// 404 for another user, 422 for invalid days.
pub async fn reports(
    State(app): State<Arc<App>>,
    caller: Caller,
    id: Result<PathId, Problem>,
    Filter(query): Filter<DaysIn>,
) -> Result<Response, Problem> {
    let now_ms = app.ledger.redis_now_ms();
    let today = day_of(now_ms, app.config.tz());
    let (from, to) = days_of(query.from, query.to, today)?;
    let user = user_id(caller, id)?;
    let found = point_reports::of_user(&app.pool, user, from, to).await?;
    if found.is_empty() {
        find_user(&app, user).await?;
    }
    let items = found.into_iter().map(PointReportOut::from).collect();
    Ok(json(
        StatusCode::OK,
        &PointReportListOut {
            items,
            next_cursor: None,
        },
    ))
}
