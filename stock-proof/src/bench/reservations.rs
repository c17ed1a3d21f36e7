//! Holds: how fast reservations and checkouts are made and paid beside orders, and how late they
//! expire while a hundred thousand are live.
//!
//! MySQL tells the lateness afterwards: the time of the position of the entry that expired a hold,
//! less the hold's deadline. Every hold counts; nothing is sampled.

use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use sqlx::MySqlPool;
use stock_common::id::{LocationId, Position, ProductId, UserId};
use stock_domain::checkout::{self, Changed, Checkout, OpenTerms, Payment};
use stock_domain::quantity::Quantity;
use stock_domain::request::Request;
use stock_domain::reservation::{self, Reservation};
use stock_domain::verdict::Verdict;
use stock_redis::Ledger;

use super::engine::{one_unit, one_unit_order, through_ledger};
use super::{Run, orders};
use crate::Failure;
use crate::shop::{Seed, Shop, until};

/// Holds that are live at the same time.
const LIVE: u64 = 100_000;
const PRODUCTS: u64 = 10;
const USERS: u64 = 10_000;
/// Time to live of each hold, in ms, while the number of live ones stays the same.
const TTL_MS: u64 = 20_000;
/// How long that number is kept.
const STEADY: Duration = Duration::from_secs(30);
/// Holds that are being made at the same time.
const MAKERS: u64 = 64;

fn hold(number: u64, ttl_ms: u64) -> Result<Request, Failure> {
    let reservation = Reservation {
        user_id: UserId(1 + number % USERS),
        product_id: ProductId(1 + number % PRODUCTS),
        location_id: LocationId::ONLINE,
        quantity: Quantity::new(1)?,
        ttl_ms,
        allowance: None,
        hold_limit: 1_000_000,
        frozen: None,
    };
    Ok(reservation::reserve(&reservation, None, 0, None)?)
}

/// A checkout of one unit of the hot product.
fn cart(user: u64, ttl_ms: u64) -> Result<Checkout, Failure> {
    Ok(Checkout {
        order: one_unit_order(user, 1)?,
        ttl_ms,
        hold_limit: 1_000_000,
    })
}

fn opening(checkout: &Checkout) -> Result<Request, Failure> {
    let terms = OpenTerms {
        window_ms: None,
        retried_anew: false,
        units_max: 0,
    };
    Ok(checkout::open(checkout, terms, None)?)
}

/// Decides all requests, as many at once as four full batches, and returns where each was accepted
/// and how many were decided in a second.
async fn decide_all(
    ledger: &Ledger,
    requests: Vec<Request>,
) -> Result<(Vec<Position>, f64), Failure> {
    let (count, begun) = (requests.len(), Instant::now());
    let deciding = requests.into_iter().map(|request| {
        let ledger = ledger.clone();
        async move {
            match ledger.decide(request).await? {
                Verdict::Accepted(accepted) => Ok(accepted.position),
                other @ (Verdict::Replayed(_) | Verdict::Refused(_)) => {
                    Err(Failure::from(format!("not accepted: {other:?}")))
                }
            }
        }
    });
    let positions = stream::iter(deciding).buffered(1_024).try_collect().await?;
    #[expect(clippy::cast_precision_loss, reason = "a number of requests")]
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    Ok((positions, rate))
}

/// Checkouts of one line beside orders, decided in the same way: opened, and then paid.
async fn checkouts(run: &mut Run<'_>, ledger: &Ledger) -> Result<(), Failure> {
    let buyer = |number: u64| 2 + PRODUCTS * (number % 1_000);
    let order = one_unit(2, 1)?;
    let (_, placed) = decide_all(ledger, vec![order; usize::try_from(LIVE)?]).await?;
    let carts: Vec<Checkout> = (0..LIVE)
        .map(|number| cart(buyer(number), 14_400_000))
        .collect::<Result<_, _>>()?;
    let requests = carts.iter().map(opening).collect::<Result<_, _>>()?;
    let (ids, opened) = decide_all(ledger, requests).await?;
    let payment = Payment {
        id: "pay_bench".to_owned(),
        amount: one_unit_order(2, 1)?.total_amount,
    };
    let confirming = ids.iter().zip(&carts).map(|(id, checkout)| {
        let changed = Changed {
            id: *id,
            checkout,
            extended: None,
        };
        checkout::confirm(changed, &payment, None, UserId(1), None)
    });
    let requests = confirming.collect::<Result<_, _>>()?;
    let (_, paid) = decide_all(ledger, requests).await?;
    for (name, rate) in [("opened", opened), ("paid", paid)] {
        let name = format!("engine only, checkouts of one line {name}");
        let of = Some(("orders, same callers", rate / placed));
        run.note(&name, rate, of, "≥ 0.35");
    }
    Ok(())
}

/// Measures all on its own shops.
///
/// # Errors
/// When a server does not answer or `verify` fails.
pub async fn run(run: &mut Run<'_>) -> Result<(), Failure> {
    rates(run).await?;
    lateness(run).await
}

/// Holds beside orders, through the ledger in this process.
async fn rates(run: &mut Run<'_>) -> Result<(), Failure> {
    let seed = Seed {
        products: PRODUCTS,
        stock: 1_000_000_000,
    };
    let shop = Shop::open(run.servers, "holds", seed).await?;
    let ledger = shop.ledger(run.durability).await?;
    let seconds = run.options.seconds;
    let order = one_unit(2, 1)?;
    let placed = through_ledger(&ledger, seconds, move |_| order.clone()).await?;
    let users: Vec<Request> = (0..1_000)
        .map(|user| hold(PRODUCTS * user, 14_400_000))
        .collect::<Result<_, _>>()?;
    let first = hold(0, 14_400_000)?;
    let held = through_ledger(&ledger, seconds, move |count| {
        let user = usize::try_from(count).unwrap_or(0) % users.len();
        users.get(user).unwrap_or(&first).clone()
    });
    let held = held.await?;
    let of = Some(("orders, same engine", held / placed));
    run.note("engine only, reservations of one hot product", held, of, "");
    checkouts(run, &ledger).await
}

async fn lateness(run: &mut Run<'_>) -> Result<(), Failure> {
    let seed = Seed {
        products: PRODUCTS,
        stock: 900_000_000,
    };
    let shop = Shop::open(run.servers, "expiry", seed).await?;
    let ledger = shop.ledger(run.durability).await?;
    let mut service = shop.serve("http,subscriber,scheduler").await?;
    let pool = shop.pool().await?;

    // First make as many as shall live, with deadlines spread over one time to live. Then make a
    // new one for each that ends.
    make(&ledger, LIVE, |number| TTL_MS / 2 + number * TTL_MS / LIVE).await?;
    let from_ms = ledger.redis_now_ms();
    let every = Duration::from_millis(TTL_MS) / u32::try_from(LIVE / 1_000)?;
    let steady = Instant::now();
    let mut rounds = tokio::time::interval(every);
    while steady.elapsed() < STEADY {
        rounds.tick().await;
        make(&ledger, 1_000, |_| TTL_MS).await?;
    }
    let until_ms = ledger.redis_now_ms();
    report(run, &pool, "100,000 live", from_ms, until_ms, "≤ 2,000").await?;

    // All are reserved with one deadline, so all expire in the same moment.
    none_live(&pool).await?;
    let together = ledger.redis_now_ms() + 15_000;
    make_until(&ledger, LIVE, together).await?;
    none_live(&pool).await?;
    report(run, &pool, "100,000 at once", together, u64::MAX, "").await?;
    let together = ledger.redis_now_ms() + 15_000;
    open_until(&ledger, LIVE, together).await?;
    none_live(&pool).await?;
    let (from, latest) = expired_between(&pool, together).await?;
    #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
    run.note_unit(
        "expiry, 100,000 checkouts at once: latest",
        latest.saturating_sub(from) as f64,
        "ms",
        "≤ 3,000",
    );
    orders::verify(&shop).await?;
    pool.close().await;
    service.stop().await?;
    Ok(())
}

/// Opens so many checkouts that end at one time.
async fn open_until(ledger: &Ledger, count: u64, deadline_ms: u64) -> Result<(), Failure> {
    for first in (0..count).step_by(1_000) {
        let requests = (first..first + 1_000).map(|number| {
            let left_ms = deadline_ms.saturating_sub(ledger.redis_now_ms()).max(1);
            opening(&cart(2 + number % USERS, left_ms)?)
        });
        decide_all(ledger, requests.collect::<Result<_, _>>()?).await?;
    }
    Ok(())
}

/// A deadline, and the time of the last entry that expired a checkout, in Unix ms.
async fn expired_between(pool: &MySqlPool, deadline_ms: u64) -> Result<(u64, u64), Failure> {
    const LAST: &str = "SELECT CAST(COALESCE(MAX(id >> 22), 0) AS UNSIGNED) FROM journal \
         WHERE kind = 'checkout_expired'";
    let last: u64 = sqlx::query_scalar(LAST).fetch_one(pool).await?;
    Ok((deadline_ms, last + POSITION_EPOCH_MS))
}

async fn make_until(ledger: &Ledger, count: u64, deadline_ms: u64) -> Result<(), Failure> {
    let ledger_now = ledger.clone();
    make(ledger, count, move |_| {
        deadline_ms.saturating_sub(ledger_now.redis_now_ms()).max(1)
    })
    .await
}

/// Makes so many holds, each with the time to live of its number.
async fn make(
    ledger: &Ledger,
    count: u64,
    ttl_ms: impl Fn(u64) -> u64 + Clone + Send + 'static,
) -> Result<(), Failure> {
    let making: Vec<_> = (0..MAKERS)
        .map(|maker| {
            let (ledger, ttl_ms) = (ledger.clone(), ttl_ms.clone());
            tokio::spawn(async move {
                for number in (maker..count).step_by(usize::try_from(MAKERS)?) {
                    match ledger.decide(hold(number, ttl_ms(number))?).await? {
                        Verdict::Accepted(_) => {}
                        other @ (Verdict::Replayed(_) | Verdict::Refused(_)) => {
                            return Err(format!("a hold was not made: {other:?}").into());
                        }
                    }
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    for maker in making {
        maker.await??;
    }
    Ok(())
}

/// Waits until MySQL has no live hold.
async fn none_live(pool: &MySqlPool) -> Result<(), Failure> {
    const LIVE: &str = "SELECT EXISTS (SELECT 1 FROM reservations WHERE status = 'PENDING') \
         OR EXISTS (SELECT 1 FROM checkouts WHERE status = 'OPEN')";
    until("every hold has expired", || async {
        let live: Result<bool, _> = sqlx::query_scalar(LIVE).fetch_one(pool).await;
        live.is_ok_and(|live| !live)
    })
    .await
}

/// Notes how late the holds ended whose deadline lies in a span of Redis' time.
async fn report(
    run: &mut Run<'_>,
    pool: &MySqlPool,
    what: &str,
    from_ms: u64,
    until_ms: u64,
    goal: &str,
) -> Result<(), Failure> {
    // MySQL settles the entries of the end of the span a moment later.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let late_ms: Vec<i64> = sqlx::query_scalar(
        "SELECT CAST(j.id >> 22 AS SIGNED) - CAST((r.id >> 22) + r.ttl_ms AS SIGNED) AS late \
         FROM journal j JOIN reservations r ON r.id = CAST(j.reference AS UNSIGNED) \
         WHERE j.kind = 'reservation_expired' \
         AND (r.id >> 22) + r.ttl_ms BETWEEN ? AND ? ORDER BY late",
    )
    .bind(from_ms - POSITION_EPOCH_MS)
    .bind(until_ms.saturating_sub(POSITION_EPOCH_MS))
    .fetch_all(pool)
    .await?;
    let at = |part: usize| {
        let index = late_ms.len().saturating_sub(1) * part / 1_000;
        late_ms.get(index).copied().unwrap_or_default()
    };
    if late_ms.is_empty() {
        return Err(format!("no hold has expired: {what}").into());
    }
    #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
    let mut note = |name: &str, ms: i64, goal: &str| {
        run.note_unit(&format!("expiry, {what}: {name}"), ms as f64, "ms", goal);
    };
    note("median lateness", at(500), "");
    note("99 % within", at(990), goal);
    note("latest", at(1_000), "");
    Ok(())
}

/// The moment from which positions count, 2025-01-01 in Unix ms.
const POSITION_EPOCH_MS: u64 = 1_735_689_600_000;
