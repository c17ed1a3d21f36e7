//! Webhooks: brings what is settled to the receivers, batch by batch, each in the journal's order.
//!
//! A webhook is a place in the journal. [`step`] sends the batch that comes next and moves the place when the
//! receiver has said 2xx; until then the batch is tried again, by a schedule of three days, and nothing behind it
//! is sent: per account the seqs that a receiver sees have no gap. When the schedule is over the webhook is
//! disabled and says so; made active again it goes on where it stopped. A batch may come twice, under one id.

mod internal;
mod send;

use std::sync::Arc;
use std::time::Duration;

use stock_domain::database::webhooks::{self as table, Delivery, Webhook, WebhookState};
use stock_domain::database::{journal, shards};
use stock_domain::journal::Entry;
use stock_domain::webhook;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::internal::is_internal;
use self::send::Sender;
pub use self::send::{UrlError, check_url};
use crate::app::App;

/// How often receivers are told what is new.
const EVERY: Duration = Duration::from_millis(200);
/// Entries in one batch.
const ENTRIES_MAX: u32 = 200;
/// How long a webhook is an instance's; longer than an attempt may take.
const LEASE_SECONDS: u64 = 30;

/// Sends until `shutdown`; an attempt under way is given up, and made again by whoever comes next.
pub async fn run(app: Arc<App>, shutdown: CancellationToken) {
    let sender = match Sender::new(&app.config) {
        Ok(sender) => Arc::new(sender),
        Err(error) => return tracing::error!(%error, "webhooks cannot be sent"),
    };
    let holder: Arc<str> = format!("{:032x}", rand::random::<u128>()).into();
    while !shutdown.is_cancelled() {
        let round = send_all(&app, &sender, &holder);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = round => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// One step of every active webhook, all at the same time: a slow receiver delays only its own.
async fn send_all(app: &Arc<App>, sender: &Arc<Sender>, holder: &Arc<str>) {
    let all = match table::all(&app.pool).await {
        Ok(all) => all,
        Err(error) => return tracing::debug!(%error, "cannot read webhooks"),
    };
    let mut running = JoinSet::new();
    for webhook in all {
        if webhook.state == WebhookState::Active {
            let (app, sender, holder) = (Arc::clone(app), Arc::clone(sender), Arc::clone(holder));
            running.spawn(async move {
                if let Err(error) = step(&app, &sender, &webhook, &holder).await {
                    tracing::warn!(webhook.id = webhook.id, %error, "a webhook waits for mysql");
                }
            });
        }
    }
    while running.join_next().await.is_some() {}
}

/// Sends the batch that comes next, if there is one and it is its time.
async fn step(
    app: &App,
    sender: &Sender,
    webhook: &Webhook,
    holder: &str,
) -> Result<(), sqlx::Error> {
    if !table::lease(&app.pool, webhook.id, (holder, LEASE_SECONDS)).await? {
        return Ok(());
    }
    let delivery = match table::next_pending(&app.pool, webhook.id).await? {
        Some((_, false)) => return Ok(()),
        Some((delivery, true)) => Some(delivery),
        None => next_batch(app, webhook).await?,
    };
    match delivery {
        Some(delivery) => attempt(app, sender, webhook, delivery).await,
        None => Ok(()),
    }
}

/// Makes a batch of what was settled since the last one.
async fn next_batch(app: &App, webhook: &Webhook) -> Result<Option<Delivery>, sqlx::Error> {
    let shard = app.ledger.keys().shard();
    let Some(state) = shards::load(&app.pool, shard).await? else {
        return Ok(None);
    };
    // Read anew: the lease may have been another's a moment ago.
    let Some(webhook) = table::find(&app.pool, webhook.id).await? else {
        return Ok(None);
    };
    let span = (webhook.sent_number, state.number);
    if span.0 >= span.1 {
        return Ok(None);
    }
    let mut connection = app.pool.acquire().await?;
    let page = journal::page(&mut connection, shard, span, ENTRIES_MAX).await?;
    drop(connection);
    let entries: Vec<Entry> = page.into_iter().flatten().collect();
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        return Ok(None);
    };
    let numbers = (first.number, last.number);
    let Some(body) = webhook::stock_changed(&entries) else {
        table::pass(&app.pool, webhook.id, numbers.1).await?;
        return Ok(None);
    };
    table::insert_delivery(&app.pool, webhook.id, numbers, &body).await?;
    let next = table::next_pending(&app.pool, webhook.id).await?;
    Ok(next.map(|(delivery, _)| delivery))
}

async fn attempt(
    app: &App,
    sender: &Sender,
    webhook: &Webhook,
    delivery: Delivery,
) -> Result<(), sqlx::Error> {
    let secret = table::secret(&app.pool, webhook.id).await?;
    let Some(secret) = secret.and_then(|secret| secret.parse().ok()) else {
        return Ok(());
    };
    let body = table::body(&app.pool, delivery.id).await?;
    let id = message_id(webhook.id, delivery.id);
    let now = app.clock.now_ms() / 1_000;
    let sent = sender.post(&webhook.url, &secret, (&id, now), body).await;
    let result = match &sent {
        Ok(_) => "delivered",
        Err(_) => "failed",
    };
    metrics::counter!("stock_webhook_attempts_total", "result" => result).increment(1);
    let failure = match sent {
        Ok(status) => {
            let done = (delivery.id, delivery.last_number);
            return table::delivered(&app.pool, webhook.id, done, status).await;
        }
        Err(failure) => failure,
    };
    let attempt = usize::try_from(delivery.attempts).unwrap_or(usize::MAX);
    let next = sender.next_attempt(attempt).filter(|_| !failure.is_gone());
    let why = (failure.status, failure.text.as_str());
    let next_ms = next.map(|next| u64::try_from(next.as_millis()).unwrap_or(u64::MAX));
    table::failed(&app.pool, delivery.id, why, next_ms).await?;
    if next.is_none() {
        table::disable(&app.pool, webhook.id).await?;
        tracing::error!(
            webhook.id = webhook.id,
            status = failure.status,
            error = failure.text,
            "a webhook is disabled: its receiver was away for too long, or is gone"
        );
    }
    Ok(())
}

/// The id of a message: whoever sends it again says the same.
#[must_use]
pub fn message_id(webhook: u64, delivery: u64) -> String {
    format!("msg_{webhook}_{delivery}")
}
