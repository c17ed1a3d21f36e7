//! Open-loop latency: requests leave when the clock says so, whatever became of the earlier ones.
//!
//! Each is measured from the moment at which it should have left. A stall therefore counts for
//! every request that it delayed, and not only for the one that met it (coordinated omission).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use stock_client::{Client, Session, order_json};
use stock_online::http::auth::Role;

use crate::Failure;

/// Connections. When more requests are under way, the rest wait in the generator, and their waiting
/// counts.
const CONNECTIONS: usize = 256;
/// The longest time that is measured, in microseconds; three digits are kept.
const HIGHEST_US: u64 = 60_000_000;

/// The figures of one rate.
#[derive(Debug)]
pub struct Latency {
    /// The 50th percentile, in ms.
    pub p50_ms: f64,
    /// The 99th percentile, in ms.
    pub p99_ms: f64,
    /// The 99.9th percentile, in ms.
    pub p999_ms: f64,
    /// Answers other than 201.
    pub refused: u64,
}

/// Sends orders of one line at a constant rate.
///
/// # Errors
/// When a connection breaks.
pub async fn run(client: &Client, per_second: f64, length: Duration) -> Result<Latency, Failure> {
    let start = Instant::now() + Duration::from_millis(50);
    let interval = Duration::from_secs_f64(1.0 / per_second);
    let ticket = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let (client, ticket) = (client.clone(), Arc::clone(&ticket));
            tokio::spawn(async move {
                let mut session = Session::new(&client.address);
                let mut histogram = Histogram::<u64>::new_with_bounds(1, HIGHEST_US, 3)?;
                let bearer = client.bearer(2 + number as u64 % 100, Role::User);
                let body = order_json(&[(1, 1)]);
                let mut refused = 0_u64;
                loop {
                    let turn = u32::try_from(ticket.fetch_add(1, Ordering::Relaxed))?;
                    let due = start + interval * turn;
                    if due > start + length {
                        return Ok::<_, Failure>((histogram, refused));
                    }
                    tokio::time::sleep_until(due.into()).await;
                    let call = client.post("/api/redis/orders").json(&body);
                    let request = call.header("authorization", &bearer).request()?;
                    let status = session.send_for_status(request).await?;
                    refused += u64::from(status != 201);
                    let took = u64::try_from(due.elapsed().as_micros())?;
                    histogram.saturating_record(took.max(1));
                }
            })
        })
        .collect();
    let mut all = Histogram::<u64>::new_with_bounds(1, HIGHEST_US, 3)?;
    let mut refused = 0;
    for worker in workers {
        let (own, own_refused) = worker.await??;
        all.add(own)?;
        refused += own_refused;
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds need no last digit"
    )]
    let ms = |quantile| all.value_at_quantile(quantile) as f64 / 1_000.0;
    Ok(Latency {
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        p999_ms: ms(0.999),
        refused,
    })
}
