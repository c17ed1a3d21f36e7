//! Sales that a till made while it was cut off: one batch, each sale once by its own key.
//!
//! A sale is accepted while there is stock, in the order of the times of sale, at the prices that
//! the till says. The other sales take nothing; they are noted as `OVERSOLD` for a person to
//! resolve. A sale's key is the till's, so a batch may be sent any number of times. A sale that
//! cannot be taken is kept for a person, too ([`super::invalid`]).

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
use stock_common::id::Position;
use stock_common::money::Money;
use stock_domain::order::{self, DeliveryType, OfflineSale, Order, Path, Terms};
use stock_domain::pricing::{self, AskedLine, AskedOrder};
use stock_domain::store::Store;
use stock_domain::verdict::{Refusal, Verdict, Why};
use stock_engine::lookup;
use stock_mysql::archives;
use stock_mysql::invalid_sales::Kept;
use stock_mysql::offline_sales::{self as table, OfflineState, StoredOfflineSale};
use stock_mysql::people::audit_log::Action;
use utoipa::ToSchema;

use super::invalid::Texts;
use super::{Till, find};
use crate::app::{App, CATCH_UP_MAX};
use crate::http::audit;
use crate::http::code::Code;
use crate::http::extract::{BodyIn, Filter, Keyed, Object, PathIds, TimeIn, hash};
use crate::http::once::{self, Begun, Once};
use crate::http::orders::{LineIn, asked_lines, count, json, unpriced};
use crate::http::origin::Origin;
use crate::http::page::{cursor_of, cut, limit_of};
use crate::http::problem::Problem;
use crate::http::products::check_text;
use crate::http::verdicts::decide_stock;

/// Maximum number of sales in one batch.
const SALES_MAX: usize = 1_000;
/// How far a till's clock may be ahead of Redis' clock, in ms.
const AHEAD_MS: u64 = 300_000;

/// Sales made while the till was cut off.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchIn {
    /// Each sale has the form `OfflineSaleIn` and is decided by itself: one that does not fit the
    /// form is answered `INVALID`, the others are sold.
    #[schema(value_type = Vec<serde_json::Value>, min_items = 1, max_items = 1_000)]
    sales: Vec<Box<RawValue>>,
    /// The device within which the keys are unique: 1 to 64 printable ASCII characters, no space at
    /// either end.
    #[schema(min_length = 1, max_length = 64)]
    device_id: Option<String>,
}

/// One sale of a batch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "key": "till 3/17", "soldAt": "2026-11-21T09:00:00Z",
    "orderProducts": [{ "productId": 1, "quantity": 2, "unitPrice": 1_000 }] }))]
pub struct OfflineSaleIn {
    /// The till's key of the sale: 1 to 100 printable ASCII characters, unique within its store and
    /// device.
    #[schema(min_length = 1, max_length = 100)]
    key: String,
    /// The time of the sale.
    #[schema(value_type = String, format = DateTime)]
    sold_at: TimeIn,
    /// Lines with the prices that were paid; a line without a price has the current one.
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
    pub(super) note: String,
}

impl BodyIn for ResolveIn {}

/// The result of a sale of a batch.
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

/// The page and the filter of a list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OversoldQuery {
    pub(super) limit: Option<u32>,
    pub(super) cursor: Option<String>,
    /// Whether to list resolved sales instead of open ones.
    pub(super) resolved: Option<bool>,
}

/// A sale for which there was no stock.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct OversoldOut {
    #[schema(value_type = String, pattern = "^[0-9]{1,20}$")]
    sale_id: Position,
    key: String,
    /// The device that sent it, if the batch named one.
    device_id: Option<String>,
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

    /// The result of a sale that was sent before.
    fn known(asked: &Asked, stored: &StoredOfflineSale) -> Self {
        let key = &stored.sale.key;
        if !asked.is(&stored.sale.fingerprint) {
            let reused = Problem::of(Code::IdempotencyKeyReused);
            return Self::new(key, "INVALID").with(&reused);
        }
        match stored.state {
            OfflineState::Sold => Self {
                order_id: Some(stored.id),
                ..Self::new(key, "REPLAYED")
            },
            OfflineState::Oversold | OfflineState::Resolved => Self::new(key, "OVERSOLD"),
        }
    }

    /// The result of a sale whose text a person has resolved; it does not change any more.
    fn kept(asked: &Asked, kept: &Kept) -> Self {
        let code = Code::parse(&kept.code).unwrap_or(Code::Unprocessable);
        let problem = Problem::new(code, kept.detail.as_str());
        Self::new(&asked.sale.key, "INVALID").with(&problem)
    }

    /// Code and detail of the problem of an `INVALID` sale; `None` for any other.
    pub(super) fn invalid(&self) -> Option<(&str, &str)> {
        let problem = self.problem.as_ref().filter(|_| self.status == "INVALID")?;
        let member = |name| problem.get(name).and_then(Value::as_str);
        Some((member("code")?, member("detail")?))
    }

    pub(super) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The status, with the order if there is one.
    pub(super) fn outcome(&self) -> String {
        match self.order_id {
            Some(order) => format!("{} {order}", self.status),
            None => self.status.to_owned(),
        }
    }
}

/// A sale of a batch that can be read.
struct Asked {
    /// Index of the sale in the batch, from 0.
    index: usize,
    /// The sale as a priced order.
    order: Order,
    sale: OfflineSale,
    /// The fingerprint as an earlier version made it: from the time as the till spelled it.
    spelled: String,
}

impl Asked {
    /// Whether a fingerprint is this sale's.
    fn is(&self, fingerprint: &str) -> bool {
        self.sale.fingerprint == fingerprint || self.spelled == fingerprint
    }

    /// Whether the state `found` says that this sale became `state`.
    fn has_become(&self, found: &str, state: &str) -> bool {
        let fingerprints = [&self.sale.fingerprint, &self.spelled];
        fingerprints
            .into_iter()
            .any(|fingerprint| found == order::offline_state(state, fingerprint))
    }
}

/// Reads one sale and prices it. A problem with it concerns this sale only, not the batch.
fn read(
    app: &App,
    till: &Till,
    store: &Store,
    device: &str,
    index: usize,
    raw: &RawValue,
) -> Result<Asked, ResultOut> {
    // The order of the members makes no difference: they are sorted below.
    let mut canonical: Value = serde_json::from_str(raw.get()).unwrap_or_default();
    let key = canonical.get("key").and_then(Value::as_str);
    let key = key.map(str::to_owned);
    let invalid = |problem: &Problem| {
        let mut result = ResultOut::new("", "INVALID").with(problem);
        result.key.clone_from(&key);
        result
    };
    let Object(sale): Object<OfflineSaleIn> = serde_json::from_str(raw.get())
        .map_err(|error| invalid(&Problem::new(Code::Unprocessable, error.to_string())))?;
    let rule = "a key has 1 to 100 printable ASCII characters, and no space at its ends";
    if !is_name(&sale.key, 100) {
        return Err(invalid(&Problem::new(Code::Unprocessable, rule)));
    }
    let now_ms = app.ledger.redis_now_ms();
    if sale.sold_at.unix_ms() > now_ms + AHEAD_MS {
        let rule = "soldAt lies in the future";
        return Err(invalid(&Problem::new(Code::Unprocessable, rule)));
    }
    let lines = asked_lines(&sale.order_products, &app.selling.catalog);
    let lines = lines.map_err(|problem| invalid(&problem))?;
    let has_two_prices = |a: &AskedLine| {
        let same = lines.iter().filter(|b| b.product_id == a.product_id);
        same.into_iter().any(|b| b.unit_price != a.unit_price)
    };
    if lines.iter().any(has_two_prices) {
        let rule = "lines of one product have one unitPrice";
        return Err(invalid(&Problem::new(Code::Unprocessable, rule)));
    }
    let sold_ms = i64::try_from(sale.sold_at.unix_ms()).unwrap_or_default();
    let spelled = hash(&[&canonical.to_string()]);
    // A time is the same sale however it is spelled, so the fingerprint has one spelling.
    if let Some(sold_at) = canonical.get_mut("soldAt") {
        *sold_at = Value::from(rfc3339(sold_ms));
    }
    canonical.sort_all_objects();
    let sale = OfflineSale {
        key: sale.key,
        device_id: device.to_owned(),
        fingerprint: hash(&[&canonical.to_string()]),
        sold_ms,
    };
    let asked = AskedOrder {
        user_id: till.caller.user,
        path: Path::Till,
        delivery_type: DeliveryType::Pickup,
        store_id: Some(store.id.0),
        lines,
        total_amount: None,
        shares_online_stock: store.fields.shares_online_stock,
        offline: Some(sale.clone()),
        buyer: None,
        reference: None,
    };
    let benefits = pricing::Benefits::default();
    let priced = pricing::price(&asked, &app.selling.catalog, benefits, now_ms);
    let priced = priced.map_err(|why| invalid(&unpriced(why)))?;
    Ok(Asked {
        index,
        order: priced.order,
        sale,
        spelled,
    })
}

/// Whether a text is a name that MySQL compares exactly. MySQL ignores a space at the end.
fn is_name(text: &str, length_max: usize) -> bool {
    let is_printable = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    (1..=length_max).contains(&text.len()) && is_printable && text.trim() == text
}

/// POST `/api/stores/{storeId}/orders/batch`.
///
/// # Errors
/// 422 for an invalid batch; 429 when too many invalid sales wait for a person; 503 when some sales
/// could not be decided or kept: the batch can be sent again.
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
    if !body.device_id.as_deref().is_none_or(|id| is_name(id, 64)) {
        let rule = "1 to 64 printable ASCII characters, and no space at the ends";
        return Err(Problem::unprocessable("/deviceId", rule));
    }
    let store = find(&app, till.store).await?;
    if !app.selling.catalog.is_read() {
        return Err(Problem::of(Code::DatabaseUnavailable));
    }
    if let Some(before) = once::look(&app, idempotency.as_ref()).await? {
        return before;
    }
    // Each sale is decided once by its own key, however often the batch is sent.
    let sold = sell(&app, &till, &store, &body).await;
    let sold = sold.map(|results| json(StatusCode::OK, &BatchOut { results }));
    once::keep(&app, idempotency, sold).await
}

async fn sell(
    app: &App,
    till: &Till,
    store: &Store,
    body: &BatchIn,
) -> Result<Vec<ResultOut>, Problem> {
    let device = body.device_id.as_deref().unwrap_or_default();
    let texts = Texts::read(app, store.id, device, &body.sales).await?;
    let mut results: Vec<Option<ResultOut>> = vec![None; body.sales.len()];
    let mut sales: Vec<Asked> = Vec::with_capacity(body.sales.len());
    for (index, (raw, result)) in body.sales.iter().zip(&mut results).enumerate() {
        let asked = read(app, till, store, device, index, raw);
        match (asked, texts.resolved(index)) {
            (Ok(asked), None) => sales.push(asked),
            (Ok(asked), Some(kept)) => *result = Some(ResultOut::kept(&asked, kept)),
            (Err(invalid), _) => *result = Some(invalid),
        }
    }
    let known = find_known(app, store, device, &sales).await?;
    let reread = texts
        .reread(app, sales.iter().map(|asked| asked.index))
        .await?;
    sales.retain(|asked| {
        // A person may have resolved the sale a moment ago.
        let resolved = texts.resolved_meanwhile(&reread, asked.index);
        let result = match (resolved, known.get(&asked.sale.key)) {
            (Some(kept), _) => ResultOut::kept(asked, kept),
            (None, Some(stored)) => ResultOut::known(asked, stored),
            (None, None) => return true,
        };
        set(&mut results, asked, result);
        false
    });
    // Sales are sent in the order of their times; the ledger's queue keeps that order.
    sales.sort_by_key(|asked| asked.sale.sold_ms);
    let decided = join_all(sales.iter().map(|asked| sell_one(app, asked))).await;
    let mut twins = Vec::new();
    for (asked, decided) in sales.into_iter().zip(decided) {
        match decided? {
            Some(done) => set(&mut results, &asked, done),
            None => twins.push(asked),
        }
    }
    reread.end(&texts.taken(&results)).await?;
    if !twins.is_empty() {
        // These sales were decided before, but were not in MySQL when it was asked.
        lookup::catch_up(&app.pool, &app.ledger, CATCH_UP_MAX).await;
        let known = find_known(app, store, device, &twins).await?;
        for asked in twins {
            let stored = known.get(&asked.sale.key);
            let result = stored.map(|stored| ResultOut::known(&asked, stored));
            let replayed = || ResultOut::new(&asked.sale.key, "REPLAYED");
            set(&mut results, &asked, result.unwrap_or_else(replayed));
        }
    }
    texts.keep(app, &results).await?;
    Ok(results.into_iter().flatten().collect())
}

fn set(results: &mut [Option<ResultOut>], asked: &Asked, result: ResultOut) {
    if let Some(of) = results.get_mut(asked.index) {
        *of = Some(result);
    }
}

async fn find_known(
    app: &App,
    store: &Store,
    device: &str,
    sales: &[Asked],
) -> Result<HashMap<String, StoredOfflineSale>, Problem> {
    let keys: Vec<&str> = sales.iter().map(|asked| asked.sale.key.as_str()).collect();
    let found = table::find(&app.pool, store.id.0, device, &keys).await?;
    Ok(found
        .into_iter()
        .map(|stored| (stored.sale.key.clone(), stored))
        .collect())
}

/// Decides one sale; `None` when it already was an order.
async fn sell_one(app: &App, asked: &Asked) -> Result<Option<ResultOut>, Problem> {
    let key = &asked.sale.key;
    let build = || {
        let terms = Terms { ..Terms::default() };
        order::place(&asked.order, terms, None)
    };
    let verdict = decide_stock(app, build).await?;
    count(app, Path::Till, &verdict);
    let problem = match verdict {
        Verdict::Accepted(accepted) => {
            return Ok(Some(ResultOut {
                order_id: Some(accepted.position),
                ..ResultOut::new(key, "ACCEPTED")
            }));
        }
        Verdict::Refused(
            refusal @ Refusal::Posting {
                why: Why::Insufficient { .. } | Why::Unknown,
                ..
            },
        ) => Problem::from(refusal),
        other @ (Verdict::Refused(_) | Verdict::Replayed(_)) => {
            return known_before(asked, other);
        }
    };
    match app.ledger.decide(order::oversold(&asked.order)?).await? {
        Verdict::Accepted(_) => Ok(Some(ResultOut::new(key, "OVERSOLD").with(&problem))),
        other @ (Verdict::Refused(_) | Verdict::Replayed(_)) => known_before(asked, other),
    }
}

/// Reads the state of a sale that was decided before. `None` when it is an order, whose id only
/// MySQL can tell.
fn known_before(asked: &Asked, verdict: Verdict) -> Result<Option<ResultOut>, Problem> {
    let Verdict::Refused(refusal) = verdict else {
        return Err(Problem::of(Code::Internal));
    };
    let Refusal::StaleState { state, .. } = &refusal else {
        // This refusal is not about this one sale: the ledger cannot decide now, and the till must
        // send the batch again.
        return Err(refusal.into());
    };
    if asked.has_become(state, "SOLD") {
        return Ok(None);
    }
    let key = &asked.sale.key;
    if asked.has_become(state, "OVERSOLD") {
        return Ok(Some(ResultOut::new(key, "OVERSOLD")));
    }
    let reused = Problem::of(Code::IdempotencyKeyReused);
    Ok(Some(ResultOut::new(key, "INVALID").with(&reused)))
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
    let mut found = table::list(&app.pool, store.0, state, before, limit + 1).await?;
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
            device_id: Some(stored.sale.device_id).filter(|device| !device.is_empty()),
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

/// Whether a sale was archived after it was resolved; then it is no longer listed.
async fn is_archived(app: &App, sale: Position) -> Result<bool, Problem> {
    let mut connection = app.pool.acquire().await?;
    Ok(archives::is_removed(&mut connection, sale).await?)
}

/// POST `/api/stores/{storeId}/oversold/{saleId}/resolve`: notes that a person has dealt with the
/// sale.
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
    let (store, by) = (till.store.0, till.caller.user);
    let resolving = table::resolve(
        once.connection(),
        store,
        Position::new(sale),
        by,
        &body.note,
    );
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
    audit::note(&app, &origin, action, Some(till.caller.user), &subject);
    Ok(response)
}
