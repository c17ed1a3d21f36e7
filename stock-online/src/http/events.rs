//! GET `/api/events/levels`: the latest levels as server-sent events, resumable by the event's id.
//!
//! A stream begins with a snapshot from Redis. It holds the products and coupons that were asked
//! for, a product at every location; without ids, the first thousand products at the online
//! warehouse. Then come the changes; one event holds all levels that moved within a fifth of a
//! second. With `Last-Event-ID` the stream goes on after that event, on any instance. An instance
//! that has not heard every change since then begins with a snapshot again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use stock_common::id::{CouponId, LocationId, Position, ProductId};
use stock_domain::account::{Account, AccountKind, Level};
use stock_mysql::stores;
use tokio::sync::watch;
use tokio::time::Instant;

use super::auth::Lease;
use super::extract::Filter;
use super::problem::Problem;
use crate::app::App;
use crate::levels::Levels;
use crate::stream_places::{Holder, Place};

/// At most five events a second.
const PACE: Duration = Duration::from_millis(200);
/// Interval of the keep-alive messages on a silent stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Interval at which a stream checks that its watcher's token is still valid.
const LEASE_LOOK: Duration = Duration::from_secs(1);
/// Maximum number of levels in one event, and of products in a snapshot.
const LEVELS_MAX: usize = 1_000;
/// Maximum number of products, and of coupons, in one request.
const IDS_MAX: usize = 100;

/// The products and coupons to watch; all of them when none is named.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventsIn {
    /// Ids, separated by commas.
    product_id: Option<String>,
    /// Ids, separated by commas.
    coupon_id: Option<String>,
}

/// The products and coupons that a watcher named.
pub struct Named {
    /// Products; at every location unless `is_online_only` is set.
    pub products: Vec<ProductId>,
    /// Coupons.
    pub coupons: Vec<CouponId>,
    /// Whether only levels of the online warehouse are sent.
    pub is_online_only: bool,
}

/// A level as a watcher sees it.
#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum LevelOut {
    Stock {
        kind: &'static str,
        product_id: u64,
        location_id: u64,
        available: i64,
        seq: u64,
    },
    Coupon {
        kind: &'static str,
        coupon_id: u64,
        remaining: i64,
        seq: u64,
    },
}

#[derive(Serialize)]
struct LevelsOut {
    levels: Vec<LevelOut>,
}

fn out((account, level): &(Account, Level)) -> Option<LevelOut> {
    let (kind, seq) = (account.kind.as_str(), level.seq);
    match account.kind {
        AccountKind::Available => Some(LevelOut::Stock {
            kind,
            product_id: account.owner,
            location_id: account.location,
            available: level.balance,
            seq,
        }),
        AccountKind::Coupon => Some(LevelOut::Coupon {
            kind,
            coupon_id: account.owner,
            remaining: level.balance,
            seq,
        }),
        AccountKind::Reserved
        | AccountKind::Allowance
        | AccountKind::Points
        | AccountKind::Hold
        | AccountKind::Bucket => None,
    }
}

fn ids_of(text: Option<&str>, pointer: &str) -> Result<Vec<u64>, Problem> {
    let ids = text.into_iter().flat_map(|text| text.split(','));
    let ids: Option<Vec<u64>> = ids.map(|id| id.parse().ok()).collect();
    let ids = ids.filter(|ids| ids.len() <= IDS_MAX);
    let rule = format!("at most {IDS_MAX} ids, separated by commas");
    ids.ok_or_else(|| Problem::unprocessable(pointer, rule))
}

impl Named {
    /// `None` when the query names nothing, which means to watch everything.
    ///
    /// # Errors
    /// 422 for malformed ids, or too many.
    pub fn of(query: &EventsIn) -> Result<Option<Self>, Problem> {
        if query.product_id.is_none() && query.coupon_id.is_none() {
            return Ok(None);
        }
        let products = ids_of(query.product_id.as_deref(), "/productId")?;
        let coupons = ids_of(query.coupon_id.as_deref(), "/couponId")?;
        Ok(Some(Self {
            products: products.into_iter().map(ProductId).collect(),
            coupons: coupons.into_iter().map(CouponId).collect(),
            is_online_only: false,
        }))
    }

    fn has(&self, account: &Account) -> bool {
        match account.kind {
            AccountKind::Available => {
                let is_told = !self.is_online_only || account.location == LocationId::ONLINE.0;
                is_told && self.products.contains(&ProductId(account.owner))
            }
            AccountKind::Coupon => self.coupons.contains(&CouponId(account.owner)),
            AccountKind::Reserved
            | AccountKind::Allowance
            | AccountKind::Points
            | AccountKind::Hold
            | AccountKind::Bucket => false,
        }
    }
}

struct Watcher {
    app: Arc<App>,
    /// The levels to send; `None` sends all.
    named: Option<Named>,
    changed: watch::Receiver<Position>,
    /// Position up to which the watcher has every change; `None` before the first snapshot.
    after: Option<Position>,
    /// When the last event was sent.
    sent: Option<Instant>,
    /// Counts the stream against the maximum number of streams.
    _place: Place,
}

impl Watcher {
    fn wants(&self, account: &Account) -> bool {
        self.named.as_ref().is_none_or(|named| named.has(account))
    }

    /// Waits for the next event; `None` ends the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(sent) = self.sent {
                tokio::time::sleep_until(sent + PACE).await;
            }
            self.changed.borrow_and_update();
            let known = self
                .after
                .and_then(|after| self.app.live.levels.since(after, LEVELS_MAX));
            let (upto, levels) = match known {
                Some(changes) => (changes.upto, changes.levels),
                // The position is read before Redis is asked, so a change in between is sent again.
                None => (self.app.live.levels.last(), self.snapshot().await?),
            };
            let is_first = self.after.is_none();
            self.after = Some(upto);
            let levels: Vec<LevelOut> = levels
                .iter()
                .filter(|(account, _)| self.wants(account))
                .filter_map(out)
                .collect();
            if levels.is_empty() && !is_first && upto < self.app.live.levels.last() {
                // None of these changes concerns the watcher, and there are more.
                continue;
            }
            if !levels.is_empty() || is_first {
                self.sent = Some(Instant::now());
                let event = Event::default().event("levels").id(upto.to_string());
                return event.json_data(LevelsOut { levels }).ok();
            }
            self.changed.changed().await.ok()?;
        }
    }

    async fn snapshot(&self) -> Option<Vec<(Account, Level)>> {
        // Without Redis or MySQL the stream ends; the browser reconnects by itself.
        let (products, coupons, places) = match &self.named {
            Some(named) => {
                let places = match named.is_online_only {
                    true => Vec::new(),
                    false => stores::ids(&self.app.pool).await.ok()?,
                };
                (named.products.clone(), named.coupons.clone(), places)
            }
            None => (
                self.app.selling.catalog.first(LEVELS_MAX),
                Vec::new(),
                Vec::new(),
            ),
        };
        let places = || [LocationId::ONLINE].iter().chain(&places);
        let names: Vec<Account> = products
            .iter()
            .flat_map(|product| places().map(|place| Account::available(*product, *place)))
            .chain(coupons.into_iter().map(Account::coupon))
            .collect();
        let levels = self.app.ledger.levels(&names).await.ok()?;
        let level = |name: &Account| Some((*name, *levels.get(name)?));
        Some(names.iter().filter_map(level).collect())
    }
}

/// GET `/api/events/levels`.
///
/// # Errors
/// 422 for malformed ids; 429 or 503 when too many streams are open.
pub async fn levels(
    State(app): State<Arc<App>>,
    lease: Lease,
    Filter(query): Filter<EventsIn>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let named = Named::of(&query)?;
    let holder = match lease.caller.is_admin() {
        true => Holder::Admin,
        false => Holder::User(lease.caller.user),
    };
    let place = app.live.event_streams.take(holder)?;
    Ok(stream(app, named, &headers, place, Some(lease)))
}

/// Opens the stream. It ends with its watcher's token or session, if there is one.
pub fn stream(
    app: Arc<App>,
    named: Option<Named>,
    headers: &HeaderMap,
    place: Place,
    lease: Option<Lease>,
) -> Response {
    // A malformed id begins with a snapshot.
    let after = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok()?.parse().ok());
    let is_divided = app.ledger.shards().len() > 1;
    let after = after.map(|at| if is_divided { Levels::resumed(at) } else { at });
    let watcher = Watcher {
        changed: app.live.levels.watch(),
        named,
        after,
        sent: None,
        _place: place,
        app,
    };
    let events = stream::unfold(watcher, move |mut watcher| async move {
        let closing = watcher.app.closing.clone();
        let app = Arc::clone(&watcher.app);
        let event = tokio::select! {
            () = closing.cancelled() => return None,
            () = ended(&app, lease) => return None,
            event = watcher.next() => event?,
        };
        Some((Ok::<_, Infallible>(event), watcher))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Sse::new(events).keep_alive(keep_alive).into_response()
}

/// Returns when a watcher's token or session is no longer valid.
async fn ended(app: &App, lease: Option<Lease>) {
    let Some(lease) = lease else {
        return std::future::pending().await;
    };
    while lease.holds(app) {
        tokio::time::sleep(LEASE_LOOK).await;
    }
}
