//! Reads beside the bare echo: one product, a list of thirty, the shop's page, and an answer that
//! the client already has.
//!
//! The bare echo answers an order; a read has less to do and more to send. Reads are measured with
//! a thousand and with a million products, because their cost must not grow with the number of
//! products.

use std::collections::BTreeMap;

use super::echo::Echo;
use super::wrk::Load;
use super::{Run, median};
use crate::Failure;
use crate::shop::{Seed, Shop};

const ECHO: &str = "bare axum echo";
const ONE: &str = "/api/products/1";
const LIST: &str = "/api/products?limit=30";
/// The reads, and the share of the echo's rate that each should reach.
const READS: [(&str, &str); 4] = [
    (ONE, "≥ 0.60"),
    (LIST, "≥ 0.25"),
    ("/", "≥ 0.25"),
    (SAME, "≥ 0.70"),
];
const SAME: &str = "304 of one product";

/// Measures all of it.
///
/// # Errors
/// When a read fails.
pub async fn run(run: &mut Run<'_>) -> Result<(), Failure> {
    for products in [1_000_u64, 1_000_000] {
        let seed = Seed {
            products,
            stock: 1_000_000,
        };
        let shop = Shop::open(run.servers, &format!("reads_{products}"), seed).await?;
        let mut service = shop.serve("http,subscriber,scheduler").await?;
        let echo = Echo::start().await?;
        let tag = service.client.get(ONE).user(2).try_send().await?;
        let tag = tag.headers.get("etag").ok_or("a product has no tag")?;
        let mut ratios = BTreeMap::<&str, Vec<(f64, f64)>>::new();
        for round in 0..=run.options.rounds {
            let seconds = if round == 0 { 2 } else { run.options.seconds };
            let at = |load: Load| load.seconds(seconds);
            let bare = at(Load::orders("/", 1))
                .run(&echo.client)
                .await?
                .accepted()?;
            for (what, _) in READS {
                let load = match what {
                    SAME => Load::get(ONE).header("If-None-Match", tag),
                    "/" => Load::get(what).anonymous(),
                    path => Load::get(path),
                };
                let rate = at(load).run(&service.client).await?.accepted()?;
                if round > 0 {
                    ratios.entry(what).or_default().push((rate, rate / bare));
                }
            }
        }
        drop(echo);
        for (what, goal) in READS {
            let (rates, of): (Vec<_>, Vec<_>) =
                ratios.remove(what).unwrap_or_default().into_iter().unzip();
            let what = format!("GET {what}, {products} products");
            run.note(&what, median(rates), Some((ECHO, median(of))), goal);
        }
        service.stop().await?;
    }
    Ok(())
}
