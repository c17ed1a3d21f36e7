//! Taking orders back: a cancel of all or of a part, and goods that come back.
//!
//! The units that are left stand in the order's state. A step that meets another state than it
//! expects has taken nothing, and is made anew with what is left now.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use stock_common::id::{LocationId, ProductId};
use stock_domain::catalog::Catalog;
use stock_domain::journal::{Entry, Idempotency, Kind};
use stock_domain::order::{self, OrderReversed, OrderStatus, Part, Units, Way};
use stock_domain::request::Request;
use stock_domain::sku::Sku;
use stock_domain::verdict::{Refusal, Replay, Verdict};
use stock_engine::lookup::{self, Located};
use stock_engine::reads::Reader;
use stock_mysql::order_changes::{self, StoredChange};
use stock_mysql::stores;
use utoipa::ToSchema;

use super::wire::{OrderOut, json, replayed};
use super::{find_own, order_id};
use crate::app::App;
use crate::http::auth::{Admin, Caller};
use crate::http::code::Code;
use crate::http::extract::{BodyIn, Keyed, Object, PathId};
use crate::http::problem::Problem;
use crate::http::products::named;
use crate::http::verdicts::{ask_locked, refuse, replayed_entry};

/// How many times a step is made anew because another one came before it.
const ROUNDS: usize = 5;
/// How long a step waits until MySQL has the step before it, to show both.
const STEPS_WAIT: Duration = Duration::from_millis(300);

/// Some units of a product.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::http) struct UnitsIn {
    /// The product, unless `sku` names it.
    product_id: Option<u64>,
    /// The SKU of the product, in place of `productId`.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64)]
    sku: Option<Sku>,
    #[schema(minimum = 1, maximum = 1_000_000)]
    quantity: u32,
}

/// Body of a cancel.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OrderCancelIn, example = json!({ "lines": [{ "productId": 1, "quantity": 1 }] }))]
pub struct CancelIn {
    /// The part to take back; all that is left without it.
    #[schema(value_type = Option<Vec<UnitsIn>>, min_items = 1, max_items = 100)]
    lines: Option<Vec<Object<UnitsIn>>>,
}

/// Goods that came back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "lines": [{ "productId": 1, "quantity": 1 }], "locationId": 0 }))]
pub struct ReturnIn {
    #[schema(value_type = Vec<UnitsIn>, min_items = 1, max_items = 100)]
    lines: Vec<Object<UnitsIn>>,
    /// A store's number, or 0 for the online warehouse; the order's own location without it.
    location_id: Option<u64>,
    /// Whether they are sold no more.
    #[serde(default)]
    written_off: bool,
}

impl BodyIn for CancelIn {
    const MAY_BE_MISSING: bool = true;
}

impl BodyIn for ReturnIn {}

/// The part that a caller wants to take back.
#[derive(Debug, Default)]
pub(in crate::http) struct Asked {
    /// Units by product; none is all that is left.
    lines: Option<Vec<(ProductId, u32)>>,
    /// The way of the units; none is a cancel.
    way: Option<Way>,
    location: Option<LocationId>,
}

fn checked(
    lines: Vec<Object<UnitsIn>>,
    catalog: &Catalog,
) -> Result<Vec<(ProductId, u32)>, Problem> {
    if !(1..=order::LINES_MAX).contains(&lines.len()) {
        let rule = format!("1 to {} lines", order::LINES_MAX);
        return Err(Problem::unprocessable("/lines", rule));
    }
    let lines = lines.into_iter().enumerate().map(|(at, Object(line))| {
        let pointer = || format!("/lines/{at}");
        if !(1..=1_000_000).contains(&line.quantity) {
            let pointer = format!("{}/quantity", pointer());
            return Err(Problem::unprocessable(&pointer, "from 1 to 1000000"));
        }
        let product = named(catalog, line.product_id, line.sku.as_ref(), pointer)?;
        Ok((product, line.quantity))
    });
    lines.collect()
}

impl Asked {
    fn cancel(body: CancelIn, catalog: &Catalog) -> Result<Self, Problem> {
        let lines = body.lines.map(|lines| checked(lines, catalog));
        Ok(Self {
            lines: lines.transpose()?,
            ..Self::default()
        })
    }

    /// The units of each line, or the problem that there are not so many.
    fn units(&self, found: &Located) -> Result<Units, Problem> {
        let reversed = found.reversed(&[]);
        let left = reversed.rest();
        let Some(lines) = &self.lines else {
            return Ok(left);
        };
        let exceeded = |product: ProductId, left: u32| {
            let text = format!("{left} units of product {product} are left of the order");
            Problem::new(Code::OrderUnitsExceeded, text)
                .with("productId", product.0)
                .with("remaining", left)
        };
        let products: Vec<ProductId> = found
            .order
            .lines
            .iter()
            .map(|line| line.product_id)
            .collect();
        let mut named = lines.iter().map(|(product, _)| *product);
        let foreign = named.find(|product| !products.contains(product));
        if let Some(product) = foreign {
            return Err(exceeded(product, 0));
        }
        let of = |product: &ProductId| {
            let own = lines.iter().filter(|(of, _)| of == product);
            own.fold(0_u32, |sum, (_, units)| sum.saturating_add(*units))
        };
        let units: Units = products.iter().map(of).collect();
        match reversed.short_of(&units) {
            None => Ok(units),
            Some((product, left)) => Err(exceeded(product, left)),
        }
    }
}

/// Where the step is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Under {
    /// The script alone; MySQL follows.
    Redis,
    /// Row locks in MySQL.
    Locks,
}

/// PATCH `/api/redis/orders/{orderId}/cancel`.
///
/// # Errors
/// The order's problem.
pub async fn cancel_redis(
    State(app): State<Arc<App>>,
    id: Result<PathId, Problem>,
    keyed: Keyed<CancelIn>,
) -> Result<Response, Problem> {
    cancel(&app, order_id(id)?, keyed, Under::Redis).await
}

/// PATCH `/api/orders/{orderId}/cancel`.
///
/// # Errors
/// The order's problem.
pub async fn cancel_lock(
    State(app): State<Arc<App>>,
    id: Result<PathId, Problem>,
    keyed: Keyed<CancelIn>,
) -> Result<Response, Problem> {
    cancel(&app, order_id(id)?, keyed, Under::Locks).await
}

async fn cancel(
    app: &Arc<App>,
    id: u64,
    keyed: Keyed<CancelIn>,
    under: Under,
) -> Result<Response, Problem> {
    let asked = Asked::cancel(keyed.body, &app.selling.catalog)?;
    let found = find_own(app, Reader::Writer, keyed.caller, id).await?;
    take_back(app, found, &asked, keyed.caller, keyed.idempotency, under).await
}

/// Takes a whole order back under row locks in MySQL.
pub(in crate::http) async fn cancel_synchronous(
    app: &Arc<App>,
    found: Located,
    caller: Caller,
    idempotency: Option<Idempotency>,
) -> Result<Response, Problem> {
    let asked = Asked::default();
    take_back(app, found, &asked, caller, idempotency, Under::Locks).await
}

/// POST `/api/orders/{orderId}/returns`.
///
/// # Errors
/// The order's problem, 404 for a store that there is not.
pub async fn give_back(
    State(app): State<Arc<App>>,
    Admin(admin): Admin,
    id: Result<PathId, Problem>,
    Keyed {
        body, idempotency, ..
    }: Keyed<ReturnIn>,
) -> Result<Response, Problem> {
    if body.written_off && body.location_id.is_some() {
        let rule = "goods that are written off come to no location";
        return Err(Problem::unprocessable("/locationId", rule));
    }
    let lines = checked(body.lines, &app.selling.catalog)?;
    let found = find_own(&app, Reader::Writer, admin, order_id(id)?).await?;
    let location = LocationId(body.location_id.unwrap_or(found.order.location().0));
    if location != LocationId::ONLINE && stores::find(&app.pool, location).await?.is_none() {
        return Err(Problem::of(Code::StoreNotFound));
    }
    let asked = Asked {
        lines: Some(lines),
        way: Some(match body.written_off {
            true => Way::WrittenOff,
            false => Way::Returned,
        }),
        location: (!body.written_off).then_some(location),
    };
    take_back(&app, found, &asked, admin, idempotency, Under::Redis).await
}

async fn take_back(
    app: &Arc<App>,
    mut found: Located,
    asked: &Asked,
    caller: Caller,
    idempotency: Option<Idempotency>,
    under: Under,
) -> Result<Response, Problem> {
    for _ in 0..ROUNDS {
        found = with_steps(app, found, STEPS_WAIT).await?;
        let units = match refuse_status(&found) {
            Some(problem) => Err(problem),
            None => asked.units(&found),
        };
        let (verdict, is_recorded) = match units {
            Ok(units) => {
                let forgotten =
                    lookup::forgotten_sales(&app.pool, &app.ledger, &found.order).await?;
                let part = Part {
                    units: &units,
                    way: asked.way.unwrap_or(Way::Cancelled),
                    location: asked.location,
                };
                let of = found.reversed(&forgotten);
                let request = order::take_back(of, &part, caller.user, idempotency.clone())?;
                ask(app, &mut found, request, under).await?
            }
            Err(problem) => (refuse(app, idempotency.clone(), problem).await?, false),
        };
        match verdict {
            Verdict::Accepted(accepted) => {
                let entry = replayed_entry(app, accepted.position).await?;
                return answer(found, &entry, is_recorded);
            }
            Verdict::Replayed(Replay::Accepted(position)) => {
                let entry = replayed_entry(app, position).await?;
                return answer(found, &entry, under == Under::Locks).map(replayed);
            }
            Verdict::Replayed(Replay::Refused(refusal)) => {
                return Err(Problem::from(refusal).replayed());
            }
            Verdict::Refused(Refusal::StaleState { transition: 0, .. }) => {}
            Verdict::Refused(refusal) => return Err(refusal.into()),
        }
        let again = lookup::find(&app.pool, &app.ledger, found.id).await?;
        found = again.ok_or_else(|| Problem::of(Code::OrderNotFound))?;
    }
    Err(Problem::of(Code::Overloaded))
}

/// The order with all of its steps. MySQL may not have one yet that was taken a moment ago.
pub(super) async fn with_steps(
    app: &App,
    found: Located,
    patience: Duration,
) -> Result<Located, Problem> {
    if found.left.is_none() || found.left == order_changes::left(&found.changes) {
        return Ok(found);
    }
    lookup::catch_up(&app.pool, &app.ledger, patience).await;
    let again = lookup::find(&app.pool, &app.ledger, found.id).await?;
    Ok(again.unwrap_or(found))
}

/// Asks for a step. Returns the verdict, and whether MySQL has the step.
async fn ask(
    app: &Arc<App>,
    found: &mut Located,
    request: Request,
    under: Under,
) -> Result<(Verdict, bool), Problem> {
    if under == Under::Redis || !has_checkout(app, found).await? {
        return Ok((app.ledger.decide(request).await?, false));
    }
    // MySQL must have the order before its cancel, and before the order the reservation that it
    // took.
    let mut before = Vec::new();
    if let Some(entry) = &found.entry {
        if let Some(reservation) = found.order.reservation_id {
            before.extend(app.ledger.find(reservation).await?);
        }
        before.push(entry.clone());
    }
    let decided = ask_locked(app, request, before).await?;
    Ok((decided.verdict, decided.is_recorded))
}

/// Whether MySQL has the checkout that the order was. An order without one needs none.
///
/// An order is never recorded before its checkout: the subscriber, which comes to the checkout
/// later, would store it as open.
async fn has_checkout(app: &App, found: &mut Located) -> Result<bool, Problem> {
    if found.order.checkout_id.is_none() || found.entry.is_none() {
        return Ok(true);
    }
    lookup::catch_up(&app.pool, &app.ledger, STEPS_WAIT).await;
    let again = lookup::find(&app.pool, &app.ledger, found.id).await?;
    *found = again.ok_or_else(|| Problem::of(Code::OrderNotFound))?;
    Ok(found.entry.is_none())
}

/// Refuses to take back an order that is final in MySQL. Redis may have forgotten the order's
/// state, so its status decides.
fn refuse_status(found: &Located) -> Option<Problem> {
    if found.status.may_become(OrderStatus::CancelRequested) {
        return None;
    }
    let text = format!(
        "an order that is {} cannot be cancelled",
        found.status.as_str()
    );
    Some(Problem::new(Code::InvalidOrderStatus, text))
}

/// The order as it is after a step.
fn answer(mut found: Located, entry: &Entry, is_recorded: bool) -> Result<Response, Problem> {
    let OrderReversed { step, .. } = entry.body().map_err(|error| Problem::internal(&error))?;
    let status = match (entry.kind == Kind::OrderCancelled, is_recorded) {
        (true, true) => OrderStatus::Cancel,
        (true, false) => OrderStatus::CancelRequested,
        // The order stands, with fewer units.
        (false, _) if found.status.may_become(OrderStatus::CancelRequested) => found.status,
        (false, _) => OrderStatus::Success,
    };
    found.changes.retain(|change| change.id < entry.position);
    found.changes.extend(step.map(|step| StoredChange {
        id: entry.position,
        order_id: found.id,
        step,
    }));
    let out = OrderOut::new(found.id, &found.order, status).with_changes(&found.changes);
    Ok(json(StatusCode::OK, &out))
}
