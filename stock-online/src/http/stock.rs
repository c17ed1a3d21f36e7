//! Stock: current levels and low levels, inbound, corrections, and history.
//!
//! | verb | path | answers |
//! |---|---|---|
//! | [`available`] | GET `/api/products/stock/available` | levels by product and location |
//! | [`inbound`] | POST `/api/products/stock/inbound` | 201: taken in |
//! | [`adjust`] | POST `/api/products/{id}/stock` | 200: corrected, by compare-and-set if asked |
//! | [`movements`] | GET `/api/products/{id}/stock/movements` | every posting, newest first |
//! | [`statistics`] | GET `/api/products/{id}/stock/statistics` | per day |

mod change;

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{Days, NaiveDate, NaiveTime};
use serde::{Deserialize, Serialize};
use sqlx::MySqlPool;
use stock_common::clock::{rfc3339, unix_ms};
use stock_common::id::{LocationId, Position, ProductId, Span};
use stock_domain::account::Account;
use stock_domain::catalog::Product;
use stock_engine::reads::Reader;
use stock_mysql::movements::{self as postings, Movement, MovementCursor};
use stock_mysql::products;
use stock_mysql::stock_levels::{self, StockLevel, StockLevelFilter};
use utoipa::ToSchema;

pub use self::change::{AdjustIn, InboundIn, adjust, inbound};
pub(super) use self::change::{AdjustOut, InboundOut};
use super::auth::{Admin, Caller};
use super::extract::{Filter, IdIn, PathId};
use super::orders::json;
use super::page::{cursor_pair_of, cut, days_of, limit_of};
use super::problem::Problem;
use super::products as products_out;
use super::reader::Reading;
use crate::app::{App, CATCH_UP_MAX};
use crate::http::code::Code;

/// The page and the filters of a list of levels.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LevelsIn {
    limit: Option<u32>,
    cursor: Option<String>,
    product_id: Option<IdIn>,
    location_id: Option<IdIn>,
    low: Option<bool>,
    reorder: Option<bool>,
}

/// The stock of a product at a location.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LevelOut {
    product_id: u64,
    location_id: u64,
    available: i64,
    reserved: i64,
    /// Available plus reserved.
    physical: i64,
    /// For admins; null for others.
    min_stock_level: Option<i64>,
    /// For admins; null for others.
    reorder_point: Option<i64>,
    /// Whether the available stock is at most `minStockLevel`; for admins, null for others.
    is_low: Option<bool>,
    /// Whether the available stock is at most `reorderPoint`; for admins, null for others.
    needs_reorder: Option<bool>,
    /// Rises with every change of the available stock.
    stock_version: u64,
    #[schema(value_type = String, format = DateTime)]
    updated_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LevelListOut {
    items: Vec<LevelOut>,
    next_cursor: Option<String>,
}

/// The page and the filters of a list of movements.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MovementsIn {
    limit: Option<u32>,
    cursor: Option<String>,
    location_id: Option<IdIn>,
}

/// One posting.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct MovementOut {
    #[schema(value_type = String, pattern = "^[0-9]{1,20}$")]
    position: Position,
    /// Sequence number of this posting within its account, from 1 without a gap.
    seq: u64,
    /// The kind of stock that moved.
    #[schema(pattern = "^(AVAILABLE|RESERVED)$")]
    kind: &'static str,
    location_id: u64,
    delta: i64,
    balance_after: i64,
    /// The kind of the journal's entry, such as `order_placed`.
    cause: String,
    /// The object that the entry refers to, such as an order's id.
    reference: Option<String>,
    /// The user who caused it; 0 is the engine.
    actor_id: u64,
    reason: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct MovementListOut {
    items: Vec<MovementOut>,
    next_cursor: Option<String>,
    /// Movements up to this time were archived, and are no longer listed.
    #[schema(value_type = Option<String>, format = DateTime)]
    archived_until: Option<String>,
}

/// The days and the location to sum up.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatisticsIn {
    from: Option<NaiveDate>,
    to: Option<NaiveDate>,
    location_id: Option<IdIn>,
}

/// The movements of a day (UTC), in units.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DayOut {
    #[schema(value_type = String, format = Date)]
    date: NaiveDate,
    /// Units that came in.
    r#in: i64,
    /// Units that left with an order or a confirmed reservation.
    sold: i64,
    /// Units that came back from orders and confirmed reservations.
    cancelled: i64,
    /// Units set aside.
    reserved: i64,
    /// Units set aside and given back, by cancel or expiry.
    released: i64,
    /// Corrected units, both directions added up.
    adjusted: i64,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatisticsOut {
    product_id: u64,
    items: Vec<DayOut>,
    /// Movements up to this time were archived, and are no longer counted.
    #[schema(value_type = Option<String>, format = DateTime)]
    archived_until: Option<String>,
}

async fn find_product(app: &App, id: u64) -> Result<Product, Problem> {
    products::find(&app.pool, ProductId(id))
        .await?
        .ok_or_else(|| Problem::of(Code::ProductNotFound))
}

/// GET `/api/products/stock/available`: the current levels in Redis.
///
/// # Errors
/// 422 for an invalid filter.
pub async fn available(
    State(app): State<Arc<App>>,
    caller: Caller,
    Reading(reader): Reading,
    Filter(query): Filter<LevelsIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(query.limit)?;
    let (is_low, needs_reorder) = (query.low == Some(true), query.reorder == Some(true));
    let is_admin = caller.is_admin();
    let filter = StockLevelFilter {
        product: query.product_id.map(|IdIn(id)| ProductId(id)),
        location: query.location_id.map(|IdIn(id)| LocationId(id)),
        is_low,
        needs_reorder,
        after: cursor_pair_of(query.cursor.as_deref())?
            .map(|(product, location)| (ProductId(product), LocationId(location))),
        limit: limit + 1,
        ..StockLevelFilter::default()
    };
    let filter = &filter;
    let list = |pool| async move { stock_levels::list(&pool, filter).await };
    let mut found = app
        .reads
        .read_settled(&app.ledger, CATCH_UP_MAX, reader, list)
        .await?;
    let next_cursor =
        cut(&mut found, limit).map(|last| format!("{}-{}", last.product_id, last.location_id));
    // Only products that the caller may see.
    found.retain(|level| products_out::find_shown(&app, level.product_id, Some(caller)).is_ok());
    current(&app, &mut found).await?;
    let items = found.iter().map(|level| LevelOut {
        product_id: level.product_id.0,
        location_id: level.location_id.0,
        available: level.available,
        reserved: level.reserved,
        physical: level.available + level.reserved,
        min_stock_level: is_admin.then_some(level.min_stock_level),
        reorder_point: is_admin.then_some(level.reorder_point),
        is_low: is_admin.then_some(level.available <= level.min_stock_level),
        needs_reorder: is_admin.then_some(level.available <= level.reorder_point),
        stock_version: level.seq,
        updated_at: rfc3339(unix_ms(level.updated_at)),
    });
    let items = items
        .filter(|item| !is_low || item.is_low != Some(false))
        .filter(|item| !needs_reorder || item.needs_reorder != Some(false))
        .collect();
    Ok(json(StatusCode::OK, &LevelListOut { items, next_cursor }))
}

/// Takes over what Redis has now into what MySQL had settled.
async fn current(app: &App, found: &mut [StockLevel]) -> Result<(), Problem> {
    let names: Vec<Account> = found.iter().flat_map(accounts_of).collect();
    let now = app.ledger.levels(&names).await?;
    for level in found {
        let [available, reserved] = accounts_of(level);
        if let Some(newer) = now.get(&available) {
            level.available = newer.balance;
            level.seq = newer.seq;
        }
        if let Some(newer) = now.get(&reserved) {
            level.reserved = newer.balance;
        }
    }
    Ok(())
}

/// A part of the list of current levels, and the length of the list.
///
/// # Errors
/// 503 when a server does not answer.
pub(crate) async fn part_of(
    app: &App,
    caller: Caller,
    filter: StockLevelFilter,
    offset: u32,
) -> Result<(Vec<StockLevel>, u64), Problem> {
    let filter = &StockLevelFilter {
        without: products_out::shown_to(Some(caller)),
        ..filter
    };
    let part = |pool: MySqlPool| async move { stock_levels::part(&pool, filter, offset).await };
    let (mut found, count) = app
        .reads
        .read_settled(&app.ledger, CATCH_UP_MAX, Reader::Other, part)
        .await?;
    current(app, &mut found).await?;
    Ok((found, count))
}

fn accounts_of(level: &StockLevel) -> [Account; 2] {
    let (product, location) = (level.product_id, level.location_id);
    [
        Account::available(product, location),
        Account::reserved(product, location),
    ]
}

/// GET `/api/products/{id}/stock/movements`.
///
/// # Errors
/// 404, 422 for an invalid filter.
pub async fn movements(
    State(app): State<Arc<App>>,
    Admin(_): Admin,
    Reading(reader): Reading,
    id: Result<PathId, Problem>,
    Filter(query): Filter<MovementsIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(query.limit)?;
    let from = cursor_pair_of(query.cursor.as_deref())?.map(|(position, given)| MovementCursor {
        position: Position::new(position),
        // No entry has more postings than this.
        given: usize::try_from(given).unwrap_or(0).min(1_000),
    });
    let PathId(id) = id.map_err(|_not_a_number| Problem::of(Code::ProductNotFound))?;
    let location = query.location_id.map(|IdIn(id)| LocationId(id));
    let product = ProductId(id);
    let list = |pool: MySqlPool| async move {
        let found = postings::list(&pool, product, location, from, limit as usize + 1).await?;
        Ok::<_, sqlx::Error>((found, archived_until(&pool, product, location).await?))
    };
    let (mut found, archived_until) = app
        .reads
        .read_settled(&app.ledger, CATCH_UP_MAX, reader, list)
        .await?;
    if found.is_empty() && archived_until.is_none() {
        // The history of a deleted product stays; a product that never existed is a 404.
        find_product(&app, id).await?;
    }
    let has_more = cut(&mut found, limit).is_some();
    let next_cursor = found.last().filter(|_| has_more).map(|last| {
        let given = found.iter().rev();
        let own = given.take_while(|of| of.position == last.position).count();
        let before = from.filter(|from| from.position == last.position);
        format!(
            "{}-{}",
            last.position,
            own + before.map_or(0, |from| from.given)
        )
    });
    let body = MovementListOut {
        items: found.into_iter().map(MovementOut::from).collect(),
        next_cursor,
        archived_until,
    };
    Ok(json(StatusCode::OK, &body))
}

/// The latest time at which an archived movement of a product's stock may have been made.
async fn archived_until(
    pool: &MySqlPool,
    product: ProductId,
    location: Option<LocationId>,
) -> Result<Option<String>, sqlx::Error> {
    let until = postings::archived_until(pool, product, location).await?;
    Ok(until.map(|until| rfc3339(until.unix_ms())))
}

impl From<Movement> for MovementOut {
    fn from(of: Movement) -> Self {
        Self {
            position: of.position,
            seq: of.posted.seq,
            kind: of.posted.account.kind.as_str(),
            location_id: of.posted.account.location,
            delta: of.posted.delta,
            balance_after: of.posted.balance_after,
            cause: of.cause,
            reference: of.reference,
            actor_id: of.actor.0,
            reason: of.reason,
            created_at: rfc3339(of.position.unix_ms()),
        }
    }
}

/// The last position before a day (UTC) begins.
fn before(day: NaiveDate) -> Position {
    let begins = unix_ms(day.and_time(NaiveTime::MIN));
    let begins = u64::try_from(begins).unwrap_or_default();
    let first = Position::from_parts(begins, 0).unwrap_or_default();
    Position::new(first.get().saturating_sub(1))
}

/// GET `/api/products/{id}/stock/statistics`.
///
/// # Errors
/// 404, 422 for invalid days.
pub async fn statistics(
    State(app): State<Arc<App>>,
    Admin(_): Admin,
    Reading(reader): Reading,
    id: Result<PathId, Problem>,
    Filter(query): Filter<StatisticsIn>,
) -> Result<Response, Problem> {
    let today = stock_common::clock::datetime(app.ledger.redis_now_ms()).date();
    let (from, to) = days_of(query.from, query.to, today)?;
    let rule = || Problem::unprocessable("/to", "the day after it has no name");
    let end = to.checked_add_days(Days::new(1)).ok_or_else(rule)?;
    let PathId(id) = id.map_err(|_not_a_number| Problem::of(Code::ProductNotFound))?;
    let location = query.location_id.map(|IdIn(id)| LocationId(id));
    let span = Span {
        after: before(from),
        upto: before(end),
    };
    let product = ProductId(id);
    let sum = |pool: MySqlPool| async move {
        let days = postings::statistics(&pool, product, location, span).await?;
        Ok::<_, sqlx::Error>((days, archived_until(&pool, product, location).await?))
    };
    let (days, archived_until) = app
        .reads
        .read_settled(&app.ledger, CATCH_UP_MAX, reader, sum)
        .await?;
    if days.is_empty() && archived_until.is_none() {
        find_product(&app, id).await?;
    }
    let items = days.into_iter().map(|(date, day)| DayOut {
        date,
        r#in: day.received,
        sold: day.sold,
        cancelled: day.cancelled,
        reserved: day.reserved,
        released: day.released,
        adjusted: day.adjusted,
    });
    let body = StatisticsOut {
        product_id: id,
        items: items.collect(),
        archived_until,
    };
    Ok(json(StatusCode::OK, &body))
}
