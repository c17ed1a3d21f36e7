//! Row-locked orders beside a queue: how long an order of another product takes while 64 buyers
//! want one row, or eight.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use stock_client::{Client, Session, order_json};
use stock_online::http::auth::Role;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Run, orders};
use crate::Failure;
use crate::shop::{Seed, Shop};

/// Buyers who want the same rows.
const CROWD: u64 = 64;
/// The product that the crowd does not want.
const OTHER: u64 = 10;
/// Orders of that product in each measurement.
const ORDERS: u32 = 400;
/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(10);

/// Measures it on its own shop.
///
/// # Errors
/// When an order is not accepted or `verify` fails.
pub async fn run(run: &mut Run<'_>) -> Result<(), Failure> {
    let seed = Seed {
        products: OTHER,
        stock: 900_000_000,
    };
    let shop = Shop::open(run.servers, "rows", seed).await?;
    let mut service = shop.serve("http,subscriber").await?;
    let client = service.client.clone();
    other_p50_ms(&client).await?;
    let idle = other_p50_ms(&client).await?;
    run.note_unit("row-locked order, p50, nobody else", idle, "ms", "");
    for (rows, what) in [
        (1, "the same beside 64 buyers of one other product"),
        (8, "the same beside 64 buyers of eight other products"),
    ] {
        let ended = CancellationToken::new();
        let mut crowd = JoinSet::new();
        for number in 0..CROWD {
            let buying = buy(client.clone(), number, 1 + number % rows, ended.clone());
            crowd.spawn(buying);
        }
        let busy = other_p50_ms(&client).await?;
        ended.cancel();
        let mut bought = 0;
        while let Some(buyer) = crowd.join_next().await {
            bought += buyer??;
        }
        if bought < CROWD {
            return Err("the crowd bought nothing".into());
        }
        let of = Some(("nobody else", busy / idle));
        run.add(what, busy, "ms", of, "≤ 3.00");
    }
    service.stop().await?;
    orders::verify(&shop).await?;
    Ok(())
}

/// Orders until `ended` is cancelled; returns how many orders were accepted.
async fn buy(
    client: Client,
    number: u64,
    product: u64,
    ended: CancellationToken,
) -> Result<u64, Failure> {
    let mut session = Session::new(&client.address);
    let mut accepted = 0;
    while !ended.is_cancelled() {
        accepted += u64::from(order(&client, &mut session, 2 + number, product).await? == 201);
    }
    Ok(accepted)
}

async fn other_p50_ms(client: &Client) -> Result<f64, Failure> {
    let mut session = Session::new(&client.address);
    let mut took = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    for _ in 0..ORDERS {
        tokio::time::sleep(PAUSE).await;
        let asked = Instant::now();
        let status = order(client, &mut session, 100, OTHER).await?;
        if status != 201 {
            return Err(format!("an order beside the crowd was answered with {status}").into());
        }
        took.saturating_record(u64::try_from(asked.elapsed().as_micros())?);
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds need no last digit"
    )]
    Ok(took.value_at_quantile(0.5) as f64 / 1_000.0)
}

async fn order(
    client: &Client,
    session: &mut Session,
    user: u64,
    product: u64,
) -> Result<u16, Failure> {
    let bearer = client.bearer(user, Role::User);
    let body = order_json(&[(product, 1)]);
    let call = client.post("/api/orders").json(&body);
    let request = call.header("authorization", &bearer).request()?;
    session.send_for_status(request).await
}
