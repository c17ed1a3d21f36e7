//! Orders: place and cancel on both paths, read one, list one's own.
//!
//! | verb | path | answers |
//! |---|---|---|
//! | [`place_redis`] | POST `/api/redis/orders` | 201 `ORDER_PENDING`: decided, MySQL follows |
//! | [`place_batch`] | POST `/api/orders/batch` | 200: a verdict for each order of a back end |
//! | [`place_lock`] | POST `/api/orders` | 201 `SUCCESS`: decided and stored under row locks |
//! | [`cancel_redis`] | PATCH `/api/redis/orders/{orderId}/cancel` | 200 `CANCEL_REQUESTED` |
//! | [`cancel_lock`] | PATCH `/api/orders/{orderId}/cancel` | 200 `CANCEL` |
//! | [`give_back`] | POST `/api/orders/{orderId}/returns` | 200: goods that came back |
//! | [`show`] | GET `/api/orders/{orderId}` | 200 |
//! | [`list`] | GET `/api/orders` | 200, newest first |

mod batch;
mod own_hold;
mod take_back;
mod unpriced;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use stock_common::id::{Position, UserId};
use stock_domain::coupon::{self, CodeState, Coupon};
use stock_domain::hold::Held;
use stock_domain::journal::{DraftError, Entry, Idempotency};
use stock_domain::order::{self, Order, OrderStatus, Path, Terms};
use stock_domain::pricing::{self, AskedOrder, Priced, Unpriced};
use stock_domain::request::Request;
use stock_domain::verdict::{Refusal, Replay, Verdict};
use stock_engine::lookup::{self, Located, LocatedReservation};
use stock_engine::reads::Reader;
use stock_mysql::coupon_issues;
use stock_mysql::order_changes;
use stock_mysql::orders::{self as table, OrderFilter};

pub use self::batch::{OrderBatchIn, place_batch};
pub(super) use self::batch::{OrderBatchOut, OrderResultOut};
use self::own_hold::{Anew, Own, own_hold, price_or_hold};
pub use self::take_back::{CancelIn, ReturnIn, cancel_lock, cancel_redis, give_back};
pub(super) use self::take_back::{UnitsIn, cancel_synchronous};
pub(super) use self::unpriced::unpriced;
pub(super) use self::wire::{
    Benefits, ChangeOut, DeliveryTypeName, LineIn, LineOut, ListOut as OrderListOut,
    OrderOut as OrderBody, OrderStatusName, UnitsOut, WayName, asked_lines, located,
};
pub use self::wire::{ListIn, NothingIn, OrderIn};
use self::wire::{ListOut, OrderOut, created};
pub(crate) use self::wire::{json, replayed};
use super::auth::Caller;
use super::extract::{Filter, ID_MAX, Keyed, PathId};
use super::page::{cursor_of, cut, limit_of};
use super::problem::Problem;
use super::reader::Reading;
use super::verdicts::{Round, decide_stock, refuse, remember, replayed_entry, sell_locked};
use crate::app::{App, CATCH_UP_MAX};
use crate::http::code::Code;

/// How long a synchronous order waits until MySQL has its coupon's code. A 503 under a flood must
/// be quick.
const CODE_WAIT: Duration = Duration::from_millis(300);

pub(super) fn count(app: &App, path: Path, verdict: &Verdict) {
    let (path, verdict) = (path.as_str(), verdict.name());
    app.live.history.count(verdict);
    metrics::counter!("stock_orders_total", "path" => path, "verdict" => verdict).increment(1);
}

/// A priced order, and the conditions of its price.
pub(super) struct Placing {
    pub(super) order: Order,
    pub(super) window_ms: Option<(u64, u64)>,
    /// Whether the order has another price outside `window_ms`.
    pub(super) is_repriced: bool,
    /// The reservation whose stock the order takes, and its expiry in Unix ms.
    held: Option<(Held, u64)>,
    /// The reservation's entry, which MySQL must have before the order.
    before: Option<Entry>,
    /// Whether the reservation was found without being asked for.
    is_own: bool,
}

impl Placing {
    fn request(
        &self,
        retried_anew: bool,
        asks_for_hold: bool,
        idempotency: Option<&Idempotency>,
    ) -> Result<Request, DraftError> {
        let terms = Terms {
            window_ms: self.window_ms,
            retried_anew: retried_anew || self.is_own,
            held: self.held.as_ref(),
        };
        let mut request = order::place(&self.order, terms, idempotency.cloned())?;
        request.own_hold = asks_for_hold && self.held.is_none();
        Ok(request)
    }
}

/// Why an order has no price.
struct Unfit {
    problem: Problem,
    /// Whether the refusal is remembered whatever its code.
    is_remembered: bool,
}

/// Prices an order at a time in Unix ms.
async fn try_price(
    app: &App,
    asked: &AskedOrder,
    benefits: &Benefits,
    now_ms: u64,
) -> Result<Result<Placing, Unfit>, Problem> {
    let reservation = match benefits.reservation_id {
        None => None,
        Some(id) => Some(Box::pin(find_hold(app, asked.user_id, id)).await?),
    };
    let made = reservation.as_ref().and_then(|found| found.as_ref().ok());
    let code = benefits.coupon_code.as_deref();
    let coupon = match code {
        None => None,
        Some(code) => Box::pin(find_coupon(app, asked.user_id, code)).await?,
    };
    let benefits = pricing::Benefits {
        held: made.map(|of| &of.reservation),
        coupon: code.map(|code| (code, coupon.as_deref())),
        use_points: benefits.use_points,
        earn_rate: app.selling.earn_rate,
    };
    let unfit = |problem, is_remembered| Unfit {
        problem,
        is_remembered,
    };
    Ok(
        match pricing::price(asked, &app.selling.catalog, benefits, now_ms) {
            Ok(priced) => take_hold(priced, reservation).map_err(|problem| unfit(problem, false)),
            // Only the current price makes the points too many.
            Err(reason) => {
                let is_remembered = matches!(reason, Unpriced::PointsTooMany { .. });
                Err(unfit(unpriced(reason), is_remembered))
            }
        },
    )
}

/// Prices an order, or returns the verdict that refuses it.
pub(super) async fn price(
    app: &App,
    asked: &AskedOrder,
    benefits: &Benefits,
    idempotency: Option<&Idempotency>,
    now_ms: u64,
) -> Result<Result<Placing, Verdict>, Problem> {
    match try_price(app, asked, benefits, now_ms).await? {
        Ok(placing) => Ok(Ok(placing)),
        Err(unfit) => Ok(Err(Box::pin(remember_unfit(app, unfit, idempotency)).await?)),
    }
}

async fn remember_unfit(
    app: &App,
    unfit: Unfit,
    idempotency: Option<&Idempotency>,
) -> Result<Verdict, Problem> {
    match unfit.is_remembered {
        true => remember(app, idempotency.cloned(), unfit.problem).await,
        false => refuse(app, idempotency.cloned(), unfit.problem).await,
    }
}

/// Refuses an order of a product in a sale that sells through checkouts only. A till hands over
/// what it was paid for.
async fn refuse_sale(
    app: &App,
    order: &Order,
    key: Option<&Idempotency>,
    now_ms: u64,
) -> Result<Option<Verdict>, Problem> {
    if !app.config.selling.sale_needs_checkout || order.path == Path::Till {
        return Ok(None);
    }
    let in_sale = |id| {
        let product = app.selling.catalog.product(id);
        product.is_some_and(|product| product.sale_at(now_ms).is_some())
    };
    let mut products = order.lines.iter().map(|line| line.product_id);
    let Some(id) = products.find(|id| in_sale(*id)) else {
        return Ok(None);
    };
    let text = format!("product {id} is in a sale: open a checkout");
    let problem = Problem::new(Code::CheckoutRequired, text).with("productId", id.0);
    refuse(app, key.cloned(), problem).await.map(Some)
}

/// The coupon of a code, if the code is the caller's and may be used now. The script decides
/// whether an order has used it already.
async fn find_coupon(app: &App, user: UserId, code: &str) -> Result<Option<Arc<Coupon>>, Problem> {
    if !coupon::is_code(code) {
        return Ok(None);
    }
    let state = app.ledger.state(&coupon::code_state_id(code)).await?;
    let state = state.as_deref().and_then(CodeState::parse);
    let Some(own) = state.filter(|state| state.user_id == user) else {
        return Ok(None);
    };
    let coupon = app.selling.coupons.find(&app.pool, own.coupon_id).await?;
    Ok(coupon.filter(|coupon| coupon.is_valid(app.ledger.redis_now_ms())))
}

/// The caller's live reservation, or why it cannot be taken.
async fn find_hold(
    app: &App,
    user: UserId,
    id: Position,
) -> Result<Result<LocatedReservation, Problem>, Problem> {
    let found = lookup::reservation(&app.pool, &app.ledger, id).await?;
    let own = found.filter(|found| found.reservation.user_id == user);
    Ok(match own {
        None => Err(Problem::of(Code::ReservationNotFound)),
        Some(found) => match Problem::of_ended(found.status) {
            None => Ok(found),
            Some(problem) => Err(problem),
        },
    })
}

/// Lets the order take a reservation's stock, if the order asks for exactly those units.
fn take_hold(
    priced: Priced,
    reservation: Option<Result<LocatedReservation, Problem>>,
) -> Result<Placing, Problem> {
    let Priced {
        mut order,
        window_ms,
        is_repriced,
    } = priced;
    let Some(found) = reservation.transpose()? else {
        return Ok(Placing {
            order,
            window_ms,
            is_repriced,
            held: None,
            before: None,
            is_own: false,
        });
    };
    let of = &found.reservation;
    let is_held = order.location() == of.location_id
        && order
            .lines
            .iter()
            .any(|line| line.product_id == of.product_id && line.quantity == of.quantity);
    if !is_held {
        let text = format!(
            "{} units of product {} at location {} are reserved",
            of.quantity.get(),
            of.product_id,
            of.location_id
        );
        return Err(Problem::new(Code::ReservationMismatch, text));
    }
    order.reservation_id = Some(found.id);
    Ok(Placing {
        order,
        window_ms,
        is_repriced,
        held: Some((of.held(found.id), of.expires_ms(found.id))),
        before: found.entry,
        is_own: false,
    })
}

/// POST `/api/redis/orders`. Futures that few orders need are boxed, here and below: otherwise each
/// order that waits for its verdict would keep room for them, and in a rush thousands wait.
///
/// # Errors
/// The order's problem.
pub async fn place_redis(
    State(app): State<Arc<App>>,
    Keyed {
        caller,
        body,
        idempotency,
        buyer,
    }: Keyed<OrderIn>,
) -> Result<Response, Problem> {
    let benefits = body.benefits()?;
    let asked = body.into_asked(caller, buyer, Path::Redis, &app.selling.catalog)?;
    let placed = place(&app, &asked, &benefits, idempotency.as_ref()).await?;
    Ok(placed.answer())
}

/// An order that was placed, now or earlier under the same key.
pub(super) struct Placed {
    pub(super) id: Position,
    order: Order,
    status: OrderStatus,
    is_replayed: bool,
}

impl Placed {
    fn answer(&self) -> Response {
        let response = created(self.id, &self.order, self.status);
        match self.is_replayed {
            true => replayed(response),
            false => response,
        }
    }
}

/// Places an order, Redis first.
pub(super) async fn place(
    app: &App,
    asked: &AskedOrder,
    benefits: &Benefits,
    key: Option<&Idempotency>,
) -> Result<Placed, Problem> {
    let mut round = Round::first(app);
    let mut own = Own::new(asked, benefits);
    loop {
        let pricing = price_or_hold(app, asked, benefits, key, round.now_ms);
        let placing = match own.hold.take() {
            Some(placing) => placing,
            None => match pricing.await? {
                Ok(placing) => placing,
                Err(verdict) => return Box::pin(unplaced(app, verdict)).await,
            },
        };
        if app.config.selling.sale_needs_checkout {
            let refusing = refuse_sale(app, &placing.order, key, round.now_ms);
            if let Some(verdict) = Box::pin(refusing).await? {
                return Box::pin(unplaced(app, verdict)).await;
            }
        }
        let retried_anew = placing.is_repriced && !round.is_last();
        let build = || placing.request(retried_anew, own.is_asked(), key);
        let verdict = decide_stock(app, build).await?;
        if let Some(anew) = own.anew(&placing, &verdict) {
            if matches!(anew, Anew::WithHold) {
                own.hold = Box::pin(own_hold(app, asked, benefits, round.now_ms)).await;
            }
            continue;
        }
        if retried_anew && let Some(next) = round.next(app, &verdict, placing.window_ms) {
            round = next;
            continue;
        }
        count(app, Path::Redis, &verdict);
        return match verdict {
            Verdict::Accepted(accepted) => Ok(Placed {
                id: accepted.position,
                order: placing.order,
                status: OrderStatus::OrderPending,
                is_replayed: false,
            }),
            other @ (Verdict::Replayed(_) | Verdict::Refused(_)) => {
                Box::pin(unplaced(app, other)).await
            }
        };
    }
}

/// POST `/api/orders`.
///
/// # Errors
/// The order's problem.
pub async fn place_lock(
    State(app): State<Arc<App>>,
    Keyed {
        caller,
        body,
        idempotency,
        buyer,
    }: Keyed<OrderIn>,
) -> Result<Response, Problem> {
    let benefits = body.benefits()?;
    let asked = body.into_asked(caller, buyer, Path::Lock, &app.selling.catalog)?;
    place_synchronous(&app, asked, benefits, idempotency).await
}

/// Places an order under row locks in MySQL. It runs beside the requests ([`App::start`]), so that
/// no request delays an order that holds locks.
pub(super) async fn place_synchronous(
    app: &Arc<App>,
    asked: AskedOrder,
    benefits: Benefits,
    idempotency: Option<Idempotency>,
) -> Result<Response, Problem> {
    let of = Arc::clone(app);
    let placing = async move { place_locked(&of, asked, benefits, idempotency).await };
    app.start(placing).await?
}

async fn place_locked(
    app: &Arc<App>,
    asked: AskedOrder,
    benefits: Benefits,
    idempotency: Option<Idempotency>,
) -> Result<Response, Problem> {
    let (path, key) = (asked.path, idempotency.as_ref());
    let mut round = Round::first(app);
    let mut own = Own::new(&asked, &benefits);
    loop {
        let pricing = price_or_hold(app, &asked, &benefits, key, round.now_ms);
        let placing = match own.hold.take() {
            Some(placing) => placing,
            None => match pricing.await? {
                Ok(placing) => placing,
                Err(verdict) => return answer_unplaced(app, verdict).await,
            },
        };
        if let Some(verdict) = refuse_sale(app, &placing.order, key, round.now_ms).await? {
            return answer_unplaced(app, verdict).await;
        }
        wait_for_code(app, &placing.order).await?;
        let retried_anew = placing.is_repriced && !round.is_last();
        let build = || placing.request(retried_anew, own.is_asked(), key);
        let before = placing.before.iter().cloned().collect();
        let decided = sell_locked(app, build, before).await?;
        if let Some(anew) = own.anew(&placing, &decided.verdict) {
            if matches!(anew, Anew::WithHold) {
                own.hold = own_hold(app, &asked, &benefits, round.now_ms).await;
            }
            continue;
        }
        if retried_anew && let Some(next) = round.next(app, &decided.verdict, placing.window_ms) {
            round = next;
            continue;
        }
        count(app, path, &decided.verdict);
        return match decided.verdict {
            Verdict::Accepted(accepted) => {
                let status = match decided.is_recorded {
                    true => OrderStatus::Success,
                    false => OrderStatus::OrderPending,
                };
                Ok(created(accepted.position, &placing.order, status))
            }
            other @ (Verdict::Replayed(_) | Verdict::Refused(_)) => {
                answer_unplaced(app, other).await
            }
        };
    }
}

/// MySQL must know a code before it can note which order used it. A code that was drawn a moment
/// ago may be on its way.
async fn wait_for_code(app: &App, order: &Order) -> Result<(), Problem> {
    let Some(used) = order.coupon.as_ref().filter(|used| used.is_usable()) else {
        return Ok(());
    };
    if coupon_issues::is_known(&app.pool, used).await? {
        return Ok(());
    }
    lookup::catch_up(&app.pool, &app.ledger, CODE_WAIT).await;
    if coupon_issues::is_known(&app.pool, used).await? {
        return Ok(());
    }
    Err(Problem::of(Code::Backlog))
}

/// Answers a verdict that placed no new order.
async fn answer_unplaced(app: &App, verdict: Verdict) -> Result<Response, Problem> {
    unplaced(app, verdict).await.map(|placed| placed.answer())
}

/// The order that was placed before, or the problem of a verdict that placed none.
async fn unplaced(app: &App, verdict: Verdict) -> Result<Placed, Problem> {
    let translate = |refusal: Refusal| Problem::of_refusal(&app.selling.catalog, refusal);
    match verdict {
        Verdict::Replayed(Replay::Accepted(position)) => {
            let entry = replayed_entry(app, position).await?;
            let order: Order = entry.body().map_err(|error| Problem::internal(&error))?;
            let status = match order.path {
                Path::Redis => OrderStatus::OrderPending,
                Path::Lock | Path::Till => OrderStatus::Success,
            };
            Ok(Placed {
                id: position,
                order,
                status,
                is_replayed: true,
            })
        }
        Verdict::Replayed(Replay::Refused(refusal)) => Err(translate(refusal).replayed()),
        Verdict::Refused(refusal) => Err(translate(refusal)),
        Verdict::Accepted(_) => Err(Problem::of(Code::Internal)),
    }
}

/// Finds an order that the caller may see. Other users' orders answer 404.
async fn find_own(app: &App, reader: Reader, caller: Caller, id: u64) -> Result<Located, Problem> {
    let (ledger, id) = (&app.ledger, Position::new(id));
    let find = |pool| async move { lookup::find(&pool, ledger, id).await };
    let found = app.reads.find(reader, find).await?;
    found
        .filter(|found| caller.is_admin() || found.order.user_id == caller.user)
        .ok_or_else(|| Problem::of(Code::OrderNotFound))
}

/// An order's id in the path, checked after the caller; a malformed one is a 404.
pub(super) fn order_id(id: Result<PathId, Problem>) -> Result<u64, Problem> {
    id.map(|PathId(id)| id)
        .map_err(|_not_a_number| Problem::of(Code::OrderNotFound))
}

/// GET `/api/orders/{orderId}`.
///
/// # Errors
/// 404 for an order that is not the caller's.
pub async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Reading(reader): Reading,
    id: Result<PathId, Problem>,
) -> Result<Response, Problem> {
    let found = find_own(&app, reader, caller, order_id(id)?).await?;
    let found = take_back::with_steps(&app, found, CATCH_UP_MAX).await?;
    let out = OrderOut::new(found.id, &found.order, found.status);
    Ok(json(StatusCode::OK, &out.with_changes(&found.changes)))
}

/// GET `/api/orders`.
///
/// # Errors
/// 403 when a user asks for another's orders.
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Reading(reader): Reading,
    Filter(query): Filter<ListIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(query.limit)?;
    let before = cursor_of(query.cursor.as_deref())?.map(Position::new);
    let asked = match query.user_id {
        Some(id) if id > ID_MAX => {
            let rule = format!("an id is at most {ID_MAX}");
            return Err(Problem::unprocessable("/userId", rule));
        }
        id => id.map(UserId),
    };
    let names_another = asked.is_some_and(|user| user != caller.user) || query.buyer.is_some();
    if !caller.is_admin() && names_another {
        return Err(Problem::of(Code::Forbidden));
    }
    let named = query
        .buyer
        .as_ref()
        .map(|buyer| app.people.buyers.number_of(buyer));
    let user = match caller.is_admin() {
        true => named.or(asked),
        false => Some(caller.user),
    };
    let filter = OrderFilter {
        user,
        status: query.status,
        before,
        limit: limit + 1,
    };
    if reader == Reader::Writer {
        // An order that was accepted a moment ago may not be settled yet.
        lookup::catch_up(&app.pool, &app.ledger, CATCH_UP_MAX).await;
    }
    let filter = &filter;
    let list = |pool| async move { table::list(&pool, filter).await };
    let mut found = app.reads.read(reader, list).await?;
    let next = cut(&mut found, limit).map(|last| last.id.to_string());
    let ids: Vec<Position> = found.iter().map(|of| of.id).collect();
    let ids = &ids;
    let changes = |pool| async move { order_changes::of_orders(&pool, ids).await };
    let changes = app.reads.read(reader, changes).await?;
    let items = found.iter().map(|of| {
        let changes = changes.get(&of.id).map_or(&[][..], Vec::as_slice);
        OrderOut::new(of.id, &of.order, of.status).with_changes(changes)
    });
    let items = items.collect();
    Ok(json(
        StatusCode::OK,
        &ListOut {
            items,
            next_cursor: next,
        },
    ))
}
