//! Closed loop: as many orders as the service answers, beside a bare echo of the same JSON.
//!
//! Each round measures everything once, so that a slow minute of the machine slows all of it. The
//! median of the rounds' ratios counts.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::json;
use stock_common::config::Durability;
use stock_online::cli::output::say;

use super::echo::Echo;
use super::wrk::Load;
use super::{Run, median, pure_sql};
use crate::Failure;
use crate::shop::{Seed, Service, Shop, until};

pub(super) const REDIS_FIRST: &str = "/api/redis/orders";
const IN_BATCHES: &str = "/api/orders/batch";
/// Orders of a batch.
const BATCH: u32 = 500;
const ROW_LOCK: &str = "/api/orders";
const HOLD: &str = "100000000";

const ECHO: &str = "bare axum echo";
const ONE: &str = "Redis first, one line, subscriber held";
const UNLIMITED: &str = "Redis first, one line, subscriber held, requests not counted";
const BY_KEY: &str = "Redis first, one line, subscriber held, by key and buyer";
const BATCHES: &str = "Redis first, batches of 500 through one connection, subscriber held";
const THREE: &str = "Redis first, three lines, subscriber held";
const KEYED: &str = "Redis first, one line, with Idempotency-Key, subscriber held";
const SOLD_OUT: &str = "Redis first, sold-out product";
const KEEPING_UP: &str = "Redis first, one line, MySQL keeping up";
const LOCK: &str = "row lock in MySQL";
const SQL: &str = "pure-SQL order, one hot row";

/// The figures of a round, and the share of the echo's rate that each should reach under `everysec`
/// and `always`.
const FIGURES: [(&str, &str, &str); 10] = [
    (ONE, "≥ 0.62", "≥ 0.50"),
    (UNLIMITED, "", ""),
    (BY_KEY, "", ""),
    (BATCHES, "", ""),
    (THREE, "≥ 0.50", ""),
    (KEYED, "≥ 0.50", ""),
    (SOLD_OUT, "≥ 0.80", "≥ 0.80"),
    (KEEPING_UP, "", ""),
    (LOCK, "", ""),
    (SQL, "", ""),
];

/// Measures everything; returns the orders per second with MySQL keeping up.
///
/// # Errors
/// When an order is not accepted or `verify` fails.
pub async fn run(run: &mut Run<'_>) -> Result<f64, Failure> {
    let seed = Seed {
        products: 10,
        stock: 900_000_000,
    };
    // In the first shop nobody settles, so that only accepting is measured. The second one settles
    // too.
    let held = Shop::open(run.servers, "held", seed).await?;
    let held_only = held
        .with("STOCK_LAG_SOFT_ENTRIES", "90000000")
        .with("STOCK_LAG_HARD_ENTRIES", HOLD);
    let shop = Shop::open(run.servers, "shop", seed).await?;
    let unlimited = held_only
        .with("STOCK_LIMIT_USER_REQUESTS", 0)
        .with("STOCK_LIMIT_ADDRESS_REQUESTS", 0);
    let (mut held_service, mut unlimited_service, mut service) = (
        held_only.serve("http").await?,
        unlimited.serve("http").await?,
        shop.serve("http,subscriber,scheduler").await?,
    );
    let gone = open_product_without_stock(&held_service).await?;
    let secret = service_key(&unlimited_service).await?;
    let echo = Echo::start().await?;
    let mut measured = BTreeMap::<&str, Vec<f64>>::new();
    for round in 0..=run.options.rounds {
        let seconds = if round == 0 { 2 } else { run.options.seconds };
        let at = |load: Load| load.seconds(seconds);
        let bare = at(Load::orders("/", 1)).run(&echo.client).await?;
        let mut found = vec![(ECHO, bare.accepted()?)];
        let held = &held_service.client;
        for (what, load) in [
            (ONE, Load::orders(REDIS_FIRST, 1)),
            (THREE, Load::orders(REDIS_FIRST, 3)),
            (KEYED, Load::orders(REDIS_FIRST, 1).keyed()),
        ] {
            found.push((what, at(load).run(held).await?.accepted()?));
        }
        let uncounted = at(Load::orders(REDIS_FIRST, 1));
        let uncounted = uncounted.run(&unlimited_service.client).await?;
        found.push((UNLIMITED, uncounted.accepted()?));
        let by_key = at(Load::orders_by_key(REDIS_FIRST, &secret));
        let by_key = by_key.run(&unlimited_service.client).await?;
        found.push((BY_KEY, by_key.accepted()?));
        let batches = at(Load::orders_by_key(IN_BATCHES, &secret));
        found.push((BATCHES, in_batches(&unlimited_service, batches).await?));
        let sold_out = at(Load::orders_of(REDIS_FIRST, gone));
        found.push((SOLD_OUT, sold_out.run(held).await?.refused()?));
        for (what, load) in [
            (KEEPING_UP, Load::orders(REDIS_FIRST, 1)),
            (LOCK, Load::orders(ROW_LOCK, 1)),
        ] {
            found.push((what, at(load).run(&service.client).await?.accepted()?));
            settled(&service).await?;
        }
        found.push((SQL, pure_sql::run(run.servers, seconds).await?));
        if round > 0 {
            for (what, value) in found {
                measured.entry(what).or_default().push(value);
            }
        }
    }
    drop(echo);
    report(run, &measured);
    service.stop().await?;
    held_service.stop().await?;
    unlimited_service.stop().await?;
    verify(&held_only).await?;
    verify(&shop).await?;
    Ok(median(
        measured.get(KEEPING_UP).cloned().unwrap_or_default(),
    ))
}

fn report(run: &mut Run<'_>, measured: &BTreeMap<&str, Vec<f64>>) {
    let values = |what: &str| measured.get(what).cloned().unwrap_or_default();
    let ratio = |what: &str, of: &str| {
        let pairs = values(what).into_iter().zip(values(of));
        median(pairs.map(|(value, ceiling)| value / ceiling).collect())
    };
    run.note(ECHO, median(values(ECHO)), None, "");
    for (what, everysec, always) in FIGURES {
        let goal = match run.durability {
            Durability::Everysec => everysec,
            Durability::Always => always,
        };
        let of = Some((ECHO, ratio(what, ECHO)));
        run.note(what, median(values(what)), of, goal);
    }
    let what = format!("{ONE}, beside the same uncounted");
    let of = Some((UNLIMITED, ratio(ONE, UNLIMITED)));
    run.note(&what, median(values(ONE)), of, "≥ 0.95");
    let of = Some((UNLIMITED, ratio(BY_KEY, UNLIMITED)));
    let what = format!("{BY_KEY}, beside JWT and number");
    run.note(&what, median(values(BY_KEY)), of, "≥ 0.95");
    for slow in [LOCK, SQL] {
        let what = format!("{KEEPING_UP}, beside {slow}");
        let of = Some((slow, ratio(KEEPING_UP, slow)));
        run.note(&what, median(values(KEEPING_UP)), of, "≥ 20 ×");
    }
}

/// Orders that were accepted in batches through one connection, each second.
async fn in_batches(service: &Service, load: Load) -> Result<f64, Failure> {
    let accepted = || async {
        let name = "stock_orders_total{path=\"redis\",verdict=\"ACCEPTED\"}";
        service.metric(name).await.unwrap_or_default()
    };
    let before = accepted().await;
    let loaded = load
        .batch(BATCH)
        .connections(1)
        .run(&service.client)
        .await?;
    let rate = loaded.accepted()? * f64::from(BATCH);
    #[expect(clippy::cast_precision_loss, reason = "a number of orders")]
    let sent = loaded.requests() as f64 * f64::from(BATCH);
    // A batch is answered 200 whatever becomes of its orders.
    if accepted().await - before < sent {
        return Err("not every order of the batches was accepted".into());
    }
    Ok(rate)
}

/// Makes a service key that may order.
async fn service_key(service: &Service) -> Result<String, Failure> {
    let key = json!({ "name": "bench", "scopes": ["orders:write"] });
    let call = service.client.post("/api/keys").admin().json(&key);
    let answer = call.try_send().await?;
    let secret = answer
        .body
        .get("secret")
        .and_then(serde_json::Value::as_str);
    let secret = secret.ok_or_else(|| format!("no key was made: {}", answer.text))?;
    Ok(secret.to_owned())
}

async fn open_product_without_stock(service: &Service) -> Result<u64, Failure> {
    let product = json!({ "name": "sold out", "description": "nothing is left of it",
        "price": 1_000, "status": "ACTIVE", "stock": 0 });
    let answer = service
        .client
        .post("/api/products")
        .admin()
        .json(&product)
        .try_send()
        .await?;
    let id = answer.body.get("id").and_then(serde_json::Value::as_u64);
    let id = id.ok_or_else(|| format!("no product was made: {}", answer.text))?;
    until("the product can be asked for", || async {
        let order = service.client.order(REDIS_FIRST, 2, &[(id, 1)]);
        order
            .try_send()
            .await
            .is_ok_and(|answer| answer.code() == "INSUFFICIENT_STOCK")
    })
    .await?;
    Ok(id)
}

/// Waits until MySQL has everything, so that one figure does not pay for the one before.
async fn settled(service: &Service) -> Result<(), Failure> {
    until("mysql has everything", || async {
        service.metric("stock_journal_lag_entries").await == Some(0.0)
    })
    .await
}

/// Runs `verify --full` on a shop when all its orders are settled. Returns how long that took, in
/// seconds.
///
/// # Errors
/// When something differs.
pub async fn verify(shop: &Shop) -> Result<f64, Failure> {
    let mut service = shop.serve("http,subscriber").await?;
    settled(&service).await?;
    let began = Instant::now();
    let said = shop.command(&["verify", "--full"]).await;
    let seconds = began.elapsed().as_secs_f64();
    service.stop().await?;
    say(&format!("verify: {}, in {seconds:.1} s", said?.trim()));
    Ok(seconds)
}
