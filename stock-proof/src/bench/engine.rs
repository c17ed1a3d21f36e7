//! The engine without HTTP: orders of one hot product through the ledger in this process, beside
//! bare script calls with the same batch.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::cmd;
use stock_common::config::Durability;
use stock_common::id::{ProductId, SaleId, UserId};
use stock_common::money::Money;
use stock_domain::account::{Account, AccountKind, Book};
use stock_domain::journal::Idempotency;
use stock_domain::order::{self, DeliveryType, Order, OrderLine, Path, Terms};
use stock_domain::posting::Posting;
use stock_domain::quantity::Quantity;
use stock_domain::request::Request;
use stock_domain::verdict::Verdict;
use stock_redis::Ledger;
use stock_redis::codec::{BatchHead, encode};
use stock_redis::encoded_request::EncodedRequest;
use stock_redis::epoch::FIRST_GENERATION;
use stock_redis::keys::Records;

use crate::Failure;
use crate::shop::{Seed, Servers, Shop};

/// Requests under way at the same time: four full batches.
const CALLERS: u64 = 1_024;
/// Requests in a bare script call, the largest batch that the engine sends.
const BATCH: usize = 256;
/// Bare calls under way at the same time, as many as the engine's.
const CALLS: usize = 2;
/// Spreads the counted keys over the whole width of the hash, as with real ones.
const KEY_FACTOR: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
/// Buyers who share a limited sale.
const BUYERS: u64 = 50_000;

/// Orders per second, by the way they were decided.
pub struct EngineRates {
    /// Through the ledger, orders of one product.
    pub engine: f64,
    /// In bare script calls.
    pub raw: f64,
    /// Through the ledger, in a sale with a window and a limit per buyer.
    pub limited: f64,
    /// Through the ledger, each under its own Idempotency-Key.
    pub keyed: f64,
    /// Bytes of Redis' memory for one key.
    pub bytes_per_key: f64,
}

/// The request that places an order of one unit.
pub fn one_unit(user: u64, product: u64) -> Result<Request, Failure> {
    let order = one_unit_order(user, product)?;
    Ok(order::place(&order, Terms::default(), None)?)
}

/// An order of one unit.
pub fn one_unit_order(user: u64, product: u64) -> Result<Order, Failure> {
    let price = Money::new(1_000)?;
    Ok(Order {
        user_id: UserId(user),
        path: Path::Redis,
        delivery_type: DeliveryType::Online,
        store_id: None,
        lines: vec![OrderLine {
            product_id: ProductId(product),
            product_name: format!("product {product}"),
            quantity: Quantity::new(1)?,
            price,
            unit_price: price,
            sub_total: price,
            allowance: None,
        }],
        total_amount: price,
        coupon: None,
        used_points: Money::ZERO,
        earned_points: Money::ZERO,
        reservation_id: None,
        checkout_id: None,
        paid: None,
        shares_online_stock: false,
        offline: None,
        buyer: None,
        reference: None,
    })
}

/// An order of a sale: the sale's window, and one unit of the buyer's allowance.
pub fn limited(base: &Request, user: u64) -> Request {
    let mut request = base.clone();
    request.window_ms = Some((1, u64::from(u32::MAX) * 1_000));
    let allowance = Account {
        kind: AccountKind::Allowance,
        owner: 1,
        location: user,
    };
    let posting = Posting::new(allowance, -1).opening(1_000_000).leaving(1);
    request.draft.postings.push(posting);
    request
}

/// An order under its own key.
fn keyed(base: &Request, count: u64) -> Request {
    let mut request = base.clone();
    let key = format!("{:032x}", u128::from(count).wrapping_mul(KEY_FACTOR));
    request.idempotency = Some(Idempotency {
        user: UserId(2),
        fingerprint: key.clone(),
        key,
    });
    request
}

/// Measures all of them.
///
/// # Errors
/// When a server does not answer or an order is not accepted.
pub async fn run(
    servers: &Servers,
    durability: Durability,
    seconds: u32,
) -> Result<EngineRates, Failure> {
    let seed = Seed {
        products: 1,
        stock: 1_000_000_000,
    };
    let shop = Shop::open(servers, "engine", seed).await?;
    let ledger = shop.ledger(durability).await?;
    let base = one_unit(2, 1)?;
    let engine = through_ledger(&ledger, seconds, {
        let base = base.clone();
        move |_| base.clone()
    });
    let engine = engine.await?;
    let raw = raw(&shop, &ledger, &base, seconds).await?;
    let keyed_base = base.clone();
    let book = Book::Allowances(SaleId(1));
    ledger.begin_book(book, ProductId(1)).await?;
    let limited = through_ledger(&ledger, seconds, move |count| {
        limited(&base, count % BUYERS)
    });
    let limited = limited.await?;
    let keyed = through_ledger(&ledger, seconds, move |count| keyed(&keyed_base, count)).await?;
    let records = ledger.keys().records(Records::Accepted, FIRST_GENERATION);
    Ok(EngineRates {
        bytes_per_key: bytes_per_field(&ledger, &records).await?,
        engine,
        raw,
        limited,
        keyed,
    })
}

/// Bytes of Redis' memory for each field of a hash.
///
/// # Errors
/// When Redis does not answer.
pub async fn bytes_per_field(ledger: &Ledger, key: &str) -> Result<f64, Failure> {
    let mut link = ledger.live_link().await?;
    let mut usage = cmd("MEMORY");
    usage.arg("USAGE").arg(key).arg("SAMPLES").arg(0);
    let bytes: f64 = usage.query_async(&mut link.read).await?;
    let fields: f64 = cmd("HLEN").arg(key).query_async(&mut link.read).await?;
    Ok(bytes / fields)
}

/// Requests per second that the ledger in this process accepts.
///
/// # Errors
/// When a request is not accepted.
pub async fn through_ledger(
    ledger: &Ledger,
    seconds: u32,
    request: impl Fn(u64) -> Request + Send + Sync + 'static,
) -> Result<f64, Failure> {
    let (count, request) = (Arc::new(AtomicU64::new(0)), Arc::new(request));
    let step = move |ledger: Ledger| {
        let (count, request) = (Arc::clone(&count), Arc::clone(&request));
        async move {
            match ledger
                .decide(request(count.fetch_add(1, Ordering::Relaxed)))
                .await?
            {
                Verdict::Accepted(_) => Ok(1),
                Verdict::Replayed(_) => Err("an order was replayed".into()),
                Verdict::Refused(refusal) => Err(format!("refused: {}", refusal.name()).into()),
            }
        }
    };
    let callers = usize::try_from(CALLERS)?;
    let ledger = ledger.clone();
    rate(callers, seconds, move || step(ledger.clone())).await
}

async fn raw(shop: &Shop, ledger: &Ledger, base: &Request, seconds: u32) -> Result<f64, Failure> {
    let batch = (0..BATCH)
        .map(|_| EncodedRequest::new(base.clone()))
        .collect::<Result<Vec<_>, _>>()?;
    let (link, config) = (ledger.link()?, ledger.config());
    let head = BatchHead {
        epoch: &link.epoch,
        lag_entries_max: (config.decide.lag_hard_entries, 0),
        remember_ms: (
            config.decide.idempotency_accepted_ms,
            config.decide.idempotency_refused_ms,
        ),
        deadline_ms: ledger.redis_now_ms() + 600_000,
    };
    let call = Arc::new(encode(&ledger.keys(), &head, batch.iter()));
    let client = redis::Client::open(shop.redis_url.as_str())?;
    let connection = client.get_multiplexed_async_connection().await?;
    rate(CALLS, seconds, move || {
        let (call, mut connection) = (Arc::clone(&call), connection.clone());
        async move {
            let reply: Vec<redis::Value> = call.query_async(&mut connection).await?;
            if reply.len() != BATCH + 3 {
                return Err("the script answered something else".into());
            }
            Ok(BATCH as u64)
        }
    })
    .await
}

/// Repeats a step in so many tasks. Returns the sum of the steps' counts, per second.
async fn rate<F>(
    tasks: usize,
    seconds: u32,
    step: impl Fn() -> F + Clone + Send + 'static,
) -> Result<f64, Failure>
where
    F: Future<Output = Result<u64, Failure>> + Send + 'static,
{
    let (warm, length) = (Duration::from_secs(1), Duration::from_secs(seconds.into()));
    let from = Instant::now() + warm;
    let until = from + length;
    let running: Vec<_> = (0..tasks)
        .map(|_| {
            let step = step.clone();
            tokio::spawn(async move {
                let mut counted = 0;
                while Instant::now() < until {
                    let did = step().await?;
                    if Instant::now() >= from {
                        counted += did;
                    }
                }
                Ok::<_, Failure>(counted)
            })
        })
        .collect();
    let mut counted = 0;
    for task in running {
        counted += task.await??;
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no last digit")]
    Ok(counted as f64 / length.as_secs_f64())
}
