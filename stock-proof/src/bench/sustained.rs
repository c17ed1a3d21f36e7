//! A minute at full speed with MySQL on the same cores; then latency at shares of that rate, memory
//! and start-up time.

use std::time::Duration;

use super::echo::Echo;
use super::report::Curve;
use super::watch::{Look, Watch};
use super::wrk::Load;
use super::{Run, latency, median, orders};
use crate::Failure;
use crate::shop::{Seed, Shop, until};

const ROLES: &str = "http,subscriber,scheduler";
/// How often the service is started.
const STARTS: usize = 5;
/// Seconds of each open-loop rate.
const LATENCY_SECONDS: u64 = 15;

/// Measures all of them. Latency is measured at shares of `peak`, or of the sustained rate if there
/// is none.
///
/// # Errors
/// When an order is not accepted or `verify` fails.
pub async fn run(run: &mut Run<'_>, peak: Option<f64>) -> Result<(), Failure> {
    let seed = Seed {
        products: 10,
        stock: 900_000_000,
    };
    let shop = Shop::open(run.servers, "sustained", seed).await?;
    start_up(run, &shop).await?;
    let mut service = shop.serve(ROLES).await?;
    let load = Load::orders("/api/redis/orders", 1);
    load.clone().seconds(3).run(&service.client).await?;
    // The echo is measured before and after, because the machine may be slower a minute later.
    let bare = Echo::start().await?;
    let bare_load = Load::orders("/", 1).seconds(run.options.seconds);
    let before = bare_load.run(&bare.client).await?.accepted()?;
    let watch = Watch::start(&shop).await?;
    let loaded = load
        .seconds(run.options.sustained_seconds)
        .run(&service.client)
        .await?;
    let looks = watch.stop().await?;
    let after = bare_load.run(&bare.client).await?.accepted()?;
    drop(bare);
    let sustained = loaded.accepted()?;
    let of = Some(("bare axum echo", 2.0 * sustained / (before + after)));
    let seconds = run.options.sustained_seconds;
    let what = format!("sustained {seconds} s, MySQL keeping up");
    run.note(&what, sustained, of, "≥ 0.40");
    let lag = looks
        .iter()
        .map(|look| look.lag_seconds)
        .fold(0.0, f64::max);
    run.note_unit("largest lag in that time", lag, "s", "≤ 2");
    curves(run, &looks);
    if let Some(bytes) = service.memory_bytes("VmHWM") {
        #[expect(clippy::cast_precision_loss, reason = "megabytes need no last digit")]
        let megabytes = bytes as f64 / 1e6;
        run.note_unit("service memory at its peak", megabytes, "MB", "≤ 100");
    }
    latencies(run, &service.client, peak.unwrap_or(sustained)).await?;
    until("mysql has everything", || async {
        service.metric("stock_journal_lag_entries").await == Some(0.0)
    })
    .await?;
    service.stop().await?;
    orders::verify(&shop).await?;
    Ok(())
}

/// Measures the time from the start of the process to the first ready answer, with both servers up.
async fn start_up(run: &mut Run<'_>, shop: &Shop) -> Result<(), Failure> {
    let mut seconds = Vec::new();
    for _ in 0..STARTS {
        let mut service = shop.spawn(ROLES)?;
        let client = service.client.clone();
        until("the service is ready", || async {
            let ready = client.get("/readyz").try_send().await;
            ready.is_ok_and(|answer| answer.status == 200)
        })
        .await?;
        seconds.push(service.started.elapsed().as_secs_f64());
        service.stop().await?;
    }
    run.note_unit("start to ready", median(seconds), "s", "≤ 1");
    Ok(())
}

fn curves(run: &mut Run<'_>, looks: &[Look]) {
    let mode = run.durability.as_str();
    #[expect(clippy::cast_precision_loss, reason = "a curve needs no last digit")]
    let rate = |by: fn(&Look) -> u64| -> Vec<(f64, f64)> {
        // One point a second.
        let every: Vec<&Look> = looks.iter().step_by(4).collect();
        every
            .windows(2)
            .filter_map(|pair| match pair {
                [a, b] => Some((
                    b.second,
                    (by(b) - by(a)) as f64 / (b.second - a.second).max(0.1),
                )),
                _ => None,
            })
            .collect()
    };
    let lag = looks
        .iter()
        .map(|look| (look.second, look.lag_seconds))
        .collect();
    for (plot, name, points) in [
        (
            "sustained",
            format!("accepted, {mode}"),
            rate(|l| l.accepted),
        ),
        ("sustained", format!("settled, {mode}"), rate(|l| l.settled)),
        ("lag", mode.to_owned(), lag),
    ] {
        run.report.curves.push(Curve { plot, name, points });
    }
}

async fn latencies(
    run: &mut Run<'_>,
    client: &stock_client::Client,
    peak: f64,
) -> Result<(), Failure> {
    let mut curves = [
        ("p50", Vec::new()),
        ("p99", Vec::new()),
        ("p99.9", Vec::new()),
    ];
    for percent in [25.0, 50.0, 75.0] {
        let length = Duration::from_secs(LATENCY_SECONDS);
        let found = latency::run(client, peak * percent / 100.0, length).await?;
        if found.refused > 0 {
            return Err(format!("{} orders were refused at {percent} %", found.refused).into());
        }
        for ((name, points), ms) in
            curves
                .iter_mut()
                .zip([found.p50_ms, found.p99_ms, found.p999_ms])
        {
            points.push((percent, ms));
            let is_goal = percent == 50.0 && *name == "p99";
            let goal = if is_goal { "≤ 10" } else { "" };
            let what = format!("open loop at {percent} % of peak, {name}");
            run.note_unit(&what, ms, "ms", goal);
        }
    }
    for (name, points) in curves {
        let name = format!("{name}, {}", run.durability.as_str());
        run.report.curves.push(Curve {
            plot: "latency",
            name,
            points,
        });
    }
    Ok(())
}
