//! Sales that a till made while it was cut off: one batch, each sale once by its own key.
//!
//! Sold is sold: a sale is accepted while there is stock, in the order of the times of sale, at the prices
//! that the till says. For the others nothing is taken; they are noted as `OVERSOLD` for a person to
//! resolve. A sale's key is the till's, so a batch may be sent as often as it takes.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json as value};
use stock_common::clock::rfc3339;
use stock_common::error::Code;
use stock_common::id::Position;
use stock_common::money::Money;
use stock_domain::database::archives;
use stock_domain::database::audit_log::Action;
use stock_domain::database::offline_sales::{self as table, OfflineState, StoredOfflineSale};
use stock_domain::lookup;
use stock_domain::order::{self, DeliveryType, OfflineSale, Order, Path, Terms};
use stock_domain::pricing::{self, AskedLine, AskedOrder, Priced};
use stock_domain::store::Store;
use stock_domain::verdict::{Refusal, Verdict};
use utoipa::ToSchema;

use super::{Till, find};
use crate::app::{App, CATCH_UP_MAX};
use crate::http::audit;
use crate::http::extract::{BodyIn, Filter, Keyed, Object, PathIds, TimeIn, hash};
use crate::http::once::{self, Begun, Once};
use crate::http::orders::{LineIn, asked_lines, count, json, unpriced};
use crate::http::origin::Origin;
use crate::http::page::{cursor_of, cut, limit_of};
use crate::http::problem::Problem;
use crate::http::products::check_text;
use crate::http::verdicts::decide_stock;

/// Sales in one batch.
const SALES_MAX: usize = 1_000;
/// How far ahead of ours a till's clock may be.
const AHEAD_MS: u64 = 300_000;

/// Sales made while the till was cut off.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchIn {
    /// Each of the form `OfflineSaleIn`, and judged by itself: one that is not of it is
    /// answered `INVALID`, the others are sold.
    #[schema(value_type = Vec<serde_json::Value>, min_items = 1, max_items = 1_000)]
    sales: Vec<Box<RawValue>>,
}

/// One sale.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "key": "till 3/17", "soldAt": "2026-11-21T09:00:00Z",
    "orderProducts": [{ "productId": 1, "quantity": 2, "unitPrice": 1_000 }] }))]
pub struct OfflineSaleIn {
    /// The till's own name for it: 1 to 100 printable ASCII characters, unique in its store.
    #[schema(min_length = 1, max_length = 100)]
    key: String,
    /// When it was sold.
    #[schema(value_type = String, format = DateTime)]
    sold_at: TimeIn,
    /// At the prices that were paid; without one at the current price.
    #[schema(value_type = Vec<LineIn>, min_items = 1, max_items = 100)]
    order_products: Vec<Object<LineIn>>,
}

impl BodyIn for BatchIn {
    const BYTES_MAX: Option<usize> = Some(4 * 1024 * 1024);
}

/// How a person resolved a sale.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResolveIn {
    #[schema(min_length = 1, max_length = 255)]
    note: String,
}

impl BodyIn for ResolveIn {}

/// What became of a sale of a batch.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct ResultOut {
    /// The sale's key, as far as it could be read.
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^[0-9]{1,20}$")]
    order_id: Option<Position>,
    #[schema(pattern = "^(ACCEPTED|OVERSOLD|REPLAYED|INVALID)$")]
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    problem: Option<Value>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct BatchOut {
    results: Vec<ResultOut>,
}

/// What to list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OversoldQuery {
    limit: Option<u32>,
    cursor: Option<String>,
    /// Whether those that were resolved.
    resolved: Option<bool>,
}

/// A sale for which there was no stock.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct OversoldOut {
    #[schema(value_type = String, pattern = "^[0-9]{1,20}$")]
    sale_id: Position,
    key: String,
    #[schema(value_type = String, format = DateTime)]
    sold_at: String,
    #[schema(pattern = "^(OVERSOLD|RESOLVED)$")]
    state: &'static str,
    note: Option<String>,
    order_products: Vec<SoldLineOut>,
    #[schema(value_type = u64)]
    total_amount: Money,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct SoldLineOut {
    product_id: u64,
    product_name: String,
    quantity: u32,
    #[schema(value_type = u64)]
    unit_price: Money,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct OversoldListOut {
    items: Vec<OversoldOut>,
    next_cursor: Option<String>,
}

impl ResultOut {
    fn new(key: &str, status: &'static str) -> Self {
        Self {
            key: Some(key.to_owned()),
            order_id: None,
            status,
            problem: None,
        }
    }

    fn with(mut self, problem: &Problem) -> Self {
        let mut members = problem.members.clone();
        members.insert("code".to_owned(), value!(problem.code.as_str()));
        members.insert("detail".to_owned(), value!(problem.detail));
        self.problem = Some(Value::Object(members));
        self
    }

    /// A sale that was sent before.
    fn known(sale: &OfflineSale, stored: &StoredOfflineSale) -> Self {
        if stored.sale.fingerprint != sale.fingerprint {
            let reused = Problem::of(Code::IdempotencyKeyReused);
            return Self::new(&sale.key, "INVALID").with(&reused);
        }
        match stored.state {
            OfflineState::Sold => Self {
                order_id: Some(stored.id),
                ..Self::new(&sale.key, "REPLAYED")
            },
            OfflineState::Oversold | OfflineState::Resolved => Self::new(&sale.key, "OVERSOLD"),
        }
    }
}

/// Reads one sale and prices it; a problem with it is its own, not the batch's.
fn read(app: &App, till: &Till, store: &Store, raw: &RawValue) -> Result<Priced, ResultOut> {
    // Its members in the order of their names: how they stood makes no other sale of it.
    let canonical: Value = serde_json::from_str(raw.get()).unwrap_or_default();
    let key = canonical.get("key").and_then(Value::as_str);
    let invalid = |problem: &Problem| {
        let mut result = ResultOut::new("", "INVALID").with(problem);
        result.key = key.map(str::to_owned);
        result
    };
    let Object(sale): Object<OfflineSaleIn> = serde_json::from_str(raw.get())
        .map_err(|error| invalid(&Problem::new(Code::Unprocessable, error.to_string())))?;
    let is_printable = sale.key.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    // To MySQL's comparison a space at the end is none.
    let is_trimmed = sale.key.trim() == sale.key;
    if !(1..=100).contains(&sale.key.len()) || !is_printable || !is_trimmed {
        let rule = "a key has 1 to 100 printable ASCII characters, and no space at its ends";
        return Err(invalid(&Problem::new(Code::Unprocessable, rule)));
    }
    let now_ms = app.ledger.redis_now_ms();
    if sale.sold_at.unix_ms() > now_ms + AHEAD_MS {
        let rule = "soldAt lies in the future";
        return Err(invalid(&Problem::new(Code::Unprocessable, rule)));
    }
    let lines = asked_lines(&sale.order_products).map_err(|problem| invalid(&problem))?;
    let has_two_prices = |a: &AskedLine| {
        let same = lines.iter().filter(|b| b.product_id == a.product_id);
        same.into_iter().any(|b| b.unit_price != a.unit_price)
    };
    if lines.iter().any(has_two_prices) {
        let rule = "lines of one product have one unitPrice";
        return Err(invalid(&Problem::new(Code::Unprocessable, rule)));
    }
    let asked = AskedOrder {
        user_id: till.caller.user,
        path: Path::Till,
        delivery_type: DeliveryType::Pickup,
        store_id: Some(store.id.0),
        lines,
        total_amount: None,
        shares_online_stock: store.fields.shares_online_stock,
        offline: Some(OfflineSale {
            key: sale.key,
            fingerprint: hash(&[&canonical.to_string()]),
            sold_ms: i64::try_from(sale.sold_at.unix_ms()).unwrap_or_default(),
        }),
    };
    let benefits = pricing::Benefits::default();
    pricing::price(&asked, &app.catalog, benefits, now_ms).map_err(|why| invalid(&unpriced(why)))
}

/// POST `/api/stores/{storeId}/orders/batch`.
///
/// # Errors
/// 422 for a batch that is none; 503 when some could not be decided: sending it again goes on.
pub async fn place_batch(
    State(app): State<Arc<App>>,
    till: Till,
    Keyed {
        body, idempotency, ..
    }: Keyed<BatchIn>,
) -> Result<Response, Problem> {
    let count = body.sales.len();
    if !(1..=SALES_MAX).contains(&count) {
        let rule = format!("a batch has 1 to {SALES_MAX} sales, not {count}");
        return Err(Problem::unprocessable("/sales", rule));
    }
    let store = find(&app, till.store).await?;
    if !app.catalog.is_read() {
        return Err(Problem::of(Code::DatabaseUnavailable));
    }
    if let Some(before) = once::look(&app, idempotency.as_ref()).await? {
        return before;
    }
    // Each sale is decided once by its own key, however often the batch is.
    let sold = sell(&app, &till, &store, &body.sales).await;
    let sold = sold.map(|results| json(StatusCode::OK, &BatchOut { results }));
    once::keep(&app, idempotency, sold).await
}

async fn sell(
    app: &App,
    till: &Till,
    store: &Store,
    asked: &[Box<RawValue>],
) -> Result<Vec<ResultOut>, Problem> {
    let mut results: Vec<Option<ResultOut>> = vec![None; asked.len()];
    let mut sales: Vec<(usize, Order)> = Vec::with_capacity(asked.len());
    for (index, (raw, result)) in asked.iter().zip(&mut results).enumerate() {
        match read(app, till, store, raw) {
            Ok(priced) => sales.push((index, priced.order)),
            Err(invalid) => *result = Some(invalid),
        }
    }
    let known = find_known(app, store, &sales).await?;
    sales.retain(|(index, order)| {
        let Some(sale) = &order.offline else {
            return false;
        };
        let stored = known.get(&sale.key);
        if let (Some(stored), Some(result)) = (stored, results.get_mut(*index)) {
            *result = Some(ResultOut::known(sale, stored));
        }
        stored.is_none()
    });
    // Asked for in the order of the times of sale: the ledger's queue keeps it.
    sales.sort_by_key(|(_, order)| order.offline.as_ref().map(|sale| sale.sold_ms));
    let decided = join_all(sales.iter().map(|(_, order)| decide(app, order))).await;
    let mut twins = Vec::new();
    for ((index, order), decided) in sales.into_iter().zip(decided) {
        match (decided?, results.get_mut(index)) {
            (Some(done), Some(result)) => *result = Some(done),
            _ => twins.push((index, order)),
        }
    }
    if !twins.is_empty() {
        // Decided before, and not in MySQL when it was asked.
        lookup::catch_up(&app.pool, &app.ledger, CATCH_UP_MAX).await;
        let known = find_known(app, store, &twins).await?;
        for (index, order) in twins {
            if let (Some(sale), Some(result)) = (&order.offline, results.get_mut(index)) {
                let of = known
                    .get(&sale.key)
                    .map(|stored| ResultOut::known(sale, stored));
                *result = Some(of.unwrap_or_else(|| ResultOut::new(&sale.key, "REPLAYED")));
            }
        }
    }
    Ok(results.into_iter().flatten().collect())
}

async fn find_known(
    app: &App,
    store: &Store,
    sales: &[(usize, Order)],
) -> Result<HashMap<String, StoredOfflineSale>, Problem> {
    let keys: Vec<&str> = sales
        .iter()
        .filter_map(|(_, order)| Some(order.offline.as_ref()?.key.as_str()))
        .collect();
    let found = table::find(&app.pool, store.id.0, &keys).await?;
    Ok(found
        .into_iter()
        .map(|stored| (stored.sale.key.clone(), stored))
        .collect())
}

/// Decides one sale; `None` when it is an order since before.
async fn decide(app: &App, order: &Order) -> Result<Option<ResultOut>, Problem> {
    let key = order.offline.as_ref().map_or("", |sale| &sale.key);
    let build = |is_last_try| {
        let terms = Terms {
            is_last_try,
            ..Terms::default()
        };
        order::place(order, terms, None)
    };
    let verdict = decide_stock(app, build).await?;
    count(Path::Till, &verdict);
    let problem = match verdict {
        Verdict::Accepted(accepted) => {
            return Ok(Some(ResultOut {
                order_id: Some(accepted.position),
                ..ResultOut::new(key, "ACCEPTED")
            }));
        }
        Verdict::Refused(refusal) if refusal.short().is_some() => Problem::from(refusal),
        other @ (Verdict::Refused(_) | Verdict::Replayed(_)) => {
            return decided_before(order, other);
        }
    };
    match app.ledger.decide(order::oversold(order)?).await? {
        Verdict::Accepted(_) => Ok(Some(ResultOut::new(key, "OVERSOLD").with(&problem))),
        other @ (Verdict::Refused(_) | Verdict::Replayed(_)) => decided_before(order, other),
    }
}

/// What the mark says of a sale that was decided before: its order's id is MySQL's to say, none for now.
fn decided_before(order: &Order, verdict: Verdict) -> Result<Option<ResultOut>, Problem> {
    let (Verdict::Refused(refusal), Some(sale)) = (verdict, &order.offline) else {
        return Err(Problem::of(Code::Internal));
    };
    let Refusal::StaleState { state, .. } = &refusal else {
        // What concerns them all, as a ledger that cannot decide: the batch is to be sent again.
        return Err(refusal.into());
    };
    if *state == order::offline_state("SOLD", &sale.fingerprint) {
        return Ok(None);
    }
    if *state == order::offline_state("OVERSOLD", &sale.fingerprint) {
        return Ok(Some(ResultOut::new(&sale.key, "OVERSOLD")));
    }
    let reused = Problem::of(Code::IdempotencyKeyReused);
    Ok(Some(ResultOut::new(&sale.key, "INVALID").with(&reused)))
}

/// GET `/api/stores/{storeId}/oversold`.
///
/// # Errors
/// 404, 422.
pub async fn oversold(
    State(app): State<Arc<App>>,
    till: Till,
    Filter(query): Filter<OversoldQuery>,
) -> Result<Response, Problem> {
    let limit = limit_of(query.limit)?;
    let before = cursor_of(query.cursor.as_deref())?.map(Position::new);
    let state = match query.resolved {
        Some(true) => OfflineState::Resolved,
        Some(false) | None => OfflineState::Oversold,
    };
    let store = find(&app, till.store).await?.id;
    lookup::catch_up(&app.pool, &app.ledger, CATCH_UP_MAX).await;
    let mut found = table::list(&app.pool, store.0, state, (before, limit + 1)).await?;
    let next_cursor = cut(&mut found, limit).map(|last| last.id.to_string());
    let mut items = Vec::with_capacity(found.len());
    for stored in found {
        let entry = lookup::entry(&app.pool, &app.ledger, stored.id).await?;
        if entry.is_none() && is_archived(&app, stored.id).await? {
            continue;
        }
        let order: Option<Order> = entry.and_then(|entry| entry.body().ok());
        let order = order.ok_or_else(|| Problem::of(Code::Internal))?;
        items.push(OversoldOut {
            sale_id: stored.id,
            key: stored.sale.key,
            sold_at: rfc3339(stored.sale.sold_ms),
            state: stored.state.as_str(),
            note: stored.note,
            total_amount: order.total_amount,
            order_products: order
                .lines
                .into_iter()
                .map(|line| SoldLineOut {
                    product_id: line.product_id.0,
                    product_name: line.product_name,
                    quantity: line.quantity.get(),
                    unit_price: line.unit_price,
                })
                .collect(),
        });
    }
    Ok(json(
        StatusCode::OK,
        &OversoldListOut { items, next_cursor },
    ))
}

/// What was resolved and archived is not listed any more.
async fn is_archived(app: &App, sale: Position) -> Result<bool, Problem> {
    let mut connection = app.pool.acquire().await?;
    Ok(archives::is_removed(&mut connection, sale).await?)
}

/// POST `/api/stores/{storeId}/oversold/{saleId}/resolve`: a person has done what was to be done.
///
/// # Errors
/// 404 when there is none to resolve, 422.
pub async fn resolve(
    State(app): State<Arc<App>>,
    till: Till,
    origin: Origin,
    ids: Result<PathIds, Problem>,
    Keyed {
        mut body,
        idempotency,
        ..
    }: Keyed<ResolveIn>,
) -> Result<Response, Problem> {
    check_text(&mut body.note, 255, "/note", 1)?;
    let missing = || Problem::new(Code::NotFound, "there is no such sale to resolve");
    let PathIds(_, sale) = ids.map_err(|_not_numbers| missing())?;
    lookup::catch_up(&app.pool, &app.ledger, CATCH_UP_MAX).await;
    let mut once = match Once::begin(&app, idempotency).await? {
        Begun::Fresh(once) => once,
        Begun::Before(answer) => return answer,
    };
    let by = (till.caller.user, body.note.as_str());
    let resolving = table::resolve(once.connection(), till.store.0, Position::new(sale), by);
    let resolved = match resolving.await {
        Ok(true) => {
            let id = sale.to_string();
            let body = value!({ "saleId": id, "state": "RESOLVED", "note": body.note });
            Ok((json(StatusCode::OK, &body), ()))
        }
        Ok(false) => Err(missing()),
        Err(error) => Err(error.into()),
    };
    let (response, ()) = once.end(resolved).await?;
    let subject = format!("store:{} sale:{sale}", till.store);
    let action = Action::OversoldResolved;
    audit::note(&app, &origin, action, (Some(till.caller.user), &subject));
    Ok(response)
}
