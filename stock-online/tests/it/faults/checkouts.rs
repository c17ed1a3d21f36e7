//! Checkouts under everything at once: payments that come late, twice, out of order, of other
//! amounts or never, while holds expire and processes are killed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use stock_common::clock::Clock;
use stock_common::config::Durability;
use stock_common::id::UserId;
use stock_domain::points::{self, PointsMoved};
use stock_domain::verdict::{Refusal, Verdict, Why};
use stock_domain::webhook::Secret;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::checkouts::opening;
use crate::support::{Client, OwnServers, ServiceProcess, Shop, until};

const UNITS: i64 = 100;
const BUYERS: u64 = 1_000;
/// Buyers who have 300 points, and use 100 of them.
const WITH_POINTS: u64 = 50;
const TTL_MS: u64 = 1_000;

/// A payment as the provider reports it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Report {
    payment: String,
    amount: i64,
    after_ms: u64,
}

/// The reports of one checkout: most are paid in time or late, some twice, some by two payments,
/// some with another amount first, some never.
fn reports(random: &mut StdRng, buyer: u64, total: i64) -> Vec<Report> {
    let mut all = Vec::new();
    let mut report = |payment: &str, amount: i64, random: &mut StdRng| {
        all.push(Report {
            payment: format!("{payment}-{buyer}"),
            amount,
            after_ms: random.random_range(0..3 * TTL_MS),
        });
    };
    match random.random_range(0..10) {
        0 => {}
        1 => report("lie", total + 1, random),
        2 => {
            report("lie", total - 1, random);
            report("lie", total, random);
        }
        3 => {
            report("one", total, random);
            report("two", total, random);
        }
        _ => report("pay", total, random),
    }
    for _ in 0..random.random_range(0..2) {
        if let Some(first) = all.first().cloned() {
            let after_ms = random.random_range(0..3 * TTL_MS);
            all.push(Report { after_ms, ..first });
        }
    }
    all.shuffle(random);
    all
}

/// Reports until the message is answered, as a provider does.
async fn tell(clients: &[Client], secret: &Secret, checkout: &str, report: &Report) {
    let data = json!({ "checkoutId": checkout, "paymentId": report.payment,
        "amount": report.amount });
    let body = json!({ "type": "payment.succeeded", "data": data }).to_string();
    sleep(Duration::from_millis(report.after_ms)).await;
    let mut tries = 0;
    loop {
        let client = &clients[tries % clients.len()];
        let at = Clock::system().now_ms() / 1_000;
        let call = client.post("/api/payments/events").raw(body.as_bytes());
        let call = call
            .header("content-type", "application/json")
            .header("webhook-id", &report.payment)
            .header("webhook-timestamp", &at.to_string());
        let signature = secret.sign(&report.payment, at, body.as_bytes());
        let sent = call
            .header("webhook-signature", &signature)
            .try_send()
            .await;
        match sent {
            Ok(answer) if answer.status == 200 => return,
            Ok(answer) => assert!(answer.status >= 500, "{}", answer.text),
            Err(_unreachable) => {}
        }
        tries += 1;
        assert!(tries < 600, "{report:?} is never answered");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Opens a checkout for one unit; `None` when nothing is left.
async fn open(shop: &Shop, buyer: u64) -> Option<(String, i64)> {
    let points = if buyer < WITH_POINTS { 100 } else { 0 };
    for _ in 0..8 {
        let request = opening(1_000 + buyer, 1, points, TTL_MS);
        match shop.ledger.decide(request).await {
            Ok(Verdict::Accepted(accepted)) => {
                return Some((accepted.position.to_string(), 1_000 - points));
            }
            Ok(Verdict::Refused(Refusal::Posting {
                why: Why::Insufficient { .. },
                ..
            })) => sleep(Duration::from_millis(400)).await,
            other => panic!("{other:?}"),
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sold_is_paid_and_what_is_paid_is_sold_or_to_be_refunded() {
    // Danger: a unit is sold without a payment, a payment is neither used nor to be refunded, a
    // hold stays for ever, or points and stock come back twice. Method: 1,000 buyers for 100 units
    // and a provider that delays up to three lives of a hold, repeats, reorders and lies. In
    // between an instance and MySQL are killed.
    let seed = rand::random::<u64>();
    let mut own = OwnServers::start(Durability::Everysec).await;
    let mut shop = Shop::open_on(&own.redis.spec, &own.mysql.spec, 1, UNITS).await;
    let secret = Secret::random();
    shop.config.selling.payment_webhook_secret = secret.reveal();
    let variables = || vec![("STOCK_PAYMENT_WEBHOOK_SECRET", secret.reveal())];
    let mut first = ServiceProcess::start_with(&shop, variables()).await;
    let second = ServiceProcess::start_with(&shop, variables()).await;
    for buyer in 0..WITH_POINTS {
        let moved = PointsMoved {
            user_id: UserId(1_000 + buyer),
            amount: 300,
            description: "a gift".to_owned(),
        };
        let request = points::earn(&moved, true, UserId(1), None).unwrap();
        let verdict = shop.ledger.decide(request).await.unwrap();
        assert!(matches!(verdict, Verdict::Accepted(_)), "{verdict:?}");
    }
    let clients: Arc<[Client]> = [first.client.clone(), second.client.clone()].into();
    let mut buyers = JoinSet::new();
    for buyer in 0..BUYERS {
        let (shop, clients, secret) = (shop.clone(), Arc::clone(&clients), secret.clone());
        let mut random = StdRng::seed_from_u64(seed ^ buyer);
        buyers.spawn(async move {
            sleep(Duration::from_millis(random.random_range(0..5_000))).await;
            let Some((checkout, total)) = open(&shop, buyer).await else {
                return Vec::new();
            };
            let reports = reports(&mut random, buyer, total);
            let told = reports
                .iter()
                .map(|report| tell(&clients, &secret, &checkout, report));
            futures_util::future::join_all(told).await;
            let told = reports.into_iter();
            told.map(|report| (checkout.clone(), report.payment, report.amount))
                .collect()
        });
    }
    sleep(Duration::from_millis(1_500)).await;
    first.child.kill().await.unwrap();
    own.mysql.kill().await;
    sleep(Duration::from_millis(800)).await;
    own.mysql.restart().await.unwrap();
    let third = ServiceProcess::start_with(&shop, variables()).await;
    let mut told: BTreeSet<(String, String, i64)> = BTreeSet::new();
    while let Some(reports) = buyers.join_next().await {
        told.extend(reports.unwrap());
    }
    until("nothing is held", || async {
        shop.count("SELECT COUNT(*) FROM checkouts WHERE status = 'OPEN'")
            .await
            == 0
    })
    .await;
    shop.drained().await;
    let sold = shop
        .count("SELECT COUNT(*) FROM orders WHERE status = 'SUCCESS'")
        .await;
    let seeded = format!("seed {seed}: {sold} sold, {} payments", told.len());
    assert_eq!(shop.available(1).await, UNITS - sold, "{seeded}");
    for (text, expected) in [
        (
            "SELECT COUNT(*) FROM payments WHERE outcome = 'CONFIRMED'",
            sold,
        ),
        (
            "SELECT COUNT(*) FROM checkouts WHERE status = 'CONFIRMED'",
            sold,
        ),
        (
            "SELECT COUNT(*) FROM payments p JOIN orders o ON o.id = p.id \
             AND o.checkout_id = p.checkout_id AND o.total_amount = p.amount \
             WHERE p.outcome = 'CONFIRMED'",
            sold,
        ),
        (
            "SELECT CAST(COALESCE(SUM(balance), 0) AS SIGNED) FROM accounts \
             WHERE kind = 'RESERVED'",
            0,
        ),
        (
            "SELECT CAST(SUM(a.balance) AS SIGNED) + (SELECT COUNT(*) FROM orders \
             WHERE used_points = 100) * 100 FROM accounts a WHERE a.kind = 'POINTS'",
            300 * i64::try_from(WITH_POINTS).unwrap(),
        ),
    ] {
        assert_eq!(shop.count(text).await, expected, "{seeded}: {text}");
    }
    let rows: Vec<(u64, String, i64)> =
        sqlx::query_as("SELECT checkout_id, payment_id, amount FROM payments")
            .fetch_all(&shop.pool)
            .await
            .unwrap();
    let noted: BTreeSet<(String, String, i64)> = rows
        .into_iter()
        .map(|(checkout, payment, amount)| (checkout.to_string(), payment, amount))
        .collect();
    // A payment that was noted with another amount before keeps that note, unless it was confirmed.
    let known = |of: &(String, String, i64)| noted.iter().any(|n| (&n.0, &n.1) == (&of.0, &of.1));
    let lost: Vec<_> = told.iter().filter(|of| !known(of)).collect();
    assert!(
        lost.is_empty(),
        "{seeded}: paid, and neither sold nor to be refunded: {lost:?}"
    );
    let invented: Vec<_> = noted.iter().filter(|of| !told.contains(of)).collect();
    assert!(invented.is_empty(), "{seeded}: {invented:?}");
    assert!(sold > UNITS / 2, "{seeded}");
    shop.verify().await;
    drop((second, third));
}
