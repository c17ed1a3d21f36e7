//! Growth: whether the cost grows with the work and with nothing else. More products, connections,
//! lines, backlog.

use super::report::Curve;
use super::wrk::Load;
use super::{Run, orders};
use crate::Failure;
use crate::shop::{Seed, Service, Shop};

const REDIS_FIRST: &str = "/api/redis/orders";
/// Length of each load, in seconds.
const SECONDS: u32 = 4;

/// Measures all of it.
///
/// # Errors
/// When an order is not accepted.
pub async fn run(run: &mut Run<'_>) -> Result<(), Failure> {
    products(run).await?;
    let seed = Seed {
        products: 100,
        stock: 900_000_000,
    };
    let shop = Shop::open(run.servers, "growth", seed).await?;
    let held = shop
        .with("STOCK_LAG_SOFT_ENTRIES", "90000000")
        .with("STOCK_LAG_HARD_ENTRIES", "100000000");
    let mut service = held.serve("http").await?;
    lines(run, &service).await?;
    connections(run, &service).await?;
    backlog(run, &service).await?;
    service.stop().await?;
    orders::verify(&shop).await?;
    Ok(())
}

/// Measures a catalog of 1,000 to a million products.
async fn products(run: &mut Run<'_>) -> Result<(), Failure> {
    let mut points = Vec::new();
    for products in [1_000_u32, 10_000, 100_000, 1_000_000] {
        let seed = Seed {
            products: products.into(),
            stock: 1_000_000,
        };
        let shop = Shop::open(run.servers, &format!("products_{products}"), seed).await?;
        let mut service = shop.serve("http,subscriber").await?;
        let ready = service.started.elapsed().as_secs_f64();
        let load = Load::orders(REDIS_FIRST, 3).seconds(SECONDS);
        let rate = load.run(&service.client).await?.accepted()?;
        let what = format!("{products} products, three lines each order");
        run.note(&what, rate, None, "");
        run.note_unit(
            &format!("{products} products, start to first order"),
            ready,
            "s",
            "",
        );
        #[expect(clippy::cast_precision_loss, reason = "megabytes need no last digit")]
        if let Some(bytes) = service.memory_bytes("VmRSS") {
            let what = format!("{products} products, service memory");
            run.note_unit(&what, bytes as f64 / 1e6, "MB", "");
        }
        points.push((f64::from(products), rate));
        service.stop().await?;
        let seconds = orders::verify(&shop).await?;
        let what = format!("{products} products, verify --full");
        run.note_unit(&what, seconds, "s", "");
    }
    curve(run, "products", "orders of three lines", points);
    Ok(())
}

/// Measures orders of 1 to 100 lines.
async fn lines(run: &mut Run<'_>, service: &Service) -> Result<(), Failure> {
    let mut points = Vec::new();
    for lines in [1_u32, 3, 10, 30, 100] {
        let load = Load::orders(REDIS_FIRST, lines.into()).seconds(SECONDS);
        let rate = load.run(&service.client).await?.accepted()? * f64::from(lines);
        let what = format!("orders of {lines} lines: lines");
        run.note(&what, rate, None, "");
        points.push((f64::from(lines), rate));
    }
    curve(run, "lines", "subscriber held", points);
    Ok(())
}

/// Measures 1 to 5,000 connections.
async fn connections(run: &mut Run<'_>, service: &Service) -> Result<(), Failure> {
    let mut points = Vec::new();
    for connections in [1_u32, 10, 100, 1_000, 5_000] {
        let load = Load::orders(REDIS_FIRST, 1)
            .connections(connections)
            .seconds(SECONDS);
        let rate = load.run(&service.client).await?.accepted()?;
        run.note(&format!("{connections} connections"), rate, None, "");
        points.push((f64::from(connections), rate));
    }
    curve(run, "connections", "one line, subscriber held", points);
    Ok(())
}

/// Measures orders while MySQL lacks a million entries.
async fn backlog(run: &mut Run<'_>, service: &Service) -> Result<(), Failure> {
    const BACKLOG: f64 = 1_000_000.0;
    let lag = service.metric("stock_journal_lag_entries").await;
    let missing = BACKLOG - lag.unwrap_or(0.0);
    let load = Load::orders(REDIS_FIRST, 1);
    let before = load
        .clone()
        .seconds(SECONDS)
        .run(&service.client)
        .await?
        .accepted()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole seconds, at most a minute"
    )]
    let seconds = (missing / before).clamp(1.0, 60.0) as u32;
    load.clone().seconds(seconds).run(&service.client).await?;
    let rate = load
        .seconds(SECONDS)
        .run(&service.client)
        .await?
        .accepted()?;
    let of = Some(("the same a million entries earlier", rate / before));
    run.note("a backlog of a million entries", rate, of, "");
    Ok(())
}

fn curve(run: &mut Run<'_>, plot: &'static str, name: &str, points: Vec<(f64, f64)>) {
    let name = format!("{name}, {}", run.durability.as_str());
    run.report.curves.push(Curve { plot, name, points });
}
