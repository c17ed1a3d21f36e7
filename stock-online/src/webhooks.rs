//! Webhooks: sends settled stock changes to receivers, in batches, in the order of the journal.
//!
//! Each webhook has a position in the journal. [`step`] sends the next batch, and advances the
//! position when the receiver answers 2xx. Until then the batch is sent again, on a schedule of
//! three days, and no later batch is sent; so the seqs that a receiver sees of an account have no
//! gap. At the end of the schedule the webhook is disabled and an error is logged. A webhook that
//! is made active again continues where it stopped. A batch may arrive twice, under the same id.

mod internal;
mod send;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use stock_domain::journal::Entry;
use stock_domain::shard_state::ShardState;
use stock_domain::webhook::{self, Secret};
use stock_mysql::webhooks::{self as table, Delivery, Webhook, WebhookState};
use stock_mysql::{journal, shards};
use tokio::task::{self, JoinSet};
use tokio_util::sync::CancellationToken;

pub use self::internal::is_internal;
use self::send::{Failure, Sender};
pub use self::send::{UrlError, check_url};
use crate::app::App;

/// How often webhooks are checked for something to send.
const EVERY: Duration = Duration::from_millis(200);
/// Maximum of entries read for one batch, and of postings in it, unless a single entry has more.
const ENTRIES_MAX: u32 = 500;
const POSTINGS_MAX: usize = 1_000;
/// How long an instance leases a webhook; longer than an attempt may take.
const LEASE_SECONDS: u64 = 30;

/// Sends until `shutdown`. An attempt under way is given up, and another instance makes it again.
pub async fn run(app: Arc<App>, shutdown: CancellationToken) {
    let sender = match Sender::new(&app.config) {
        Ok(sender) => Arc::new(sender),
        Err(error) => return tracing::error!(%error, "webhooks cannot be sent"),
    };
    let holder: Arc<str> = format!("{:032x}", rand::random::<u128>()).into();
    // Each webhook has a task of its own, so that a slow receiver delays no other webhook.
    let mut running = JoinSet::new();
    let mut busy: HashMap<u64, task::Id> = HashMap::new();
    while !shutdown.is_cancelled() {
        while let Some(ended) = running.try_join_next_with_id() {
            // The task of a webhook that panicked is over too, and the webhook gets another one.
            let ended = match ended {
                Ok((task, ())) => task,
                Err(error) => {
                    tracing::error!(%error, "sending a webhook broke");
                    error.id()
                }
            };
            busy.retain(|_, task| *task != ended);
        }
        // While MySQL does not answer, nothing is begun; the next look asks again.
        let all = table::all(&app.pool).await.unwrap_or_default();
        for webhook in all {
            if webhook.state == WebhookState::Active && !busy.contains_key(&webhook.id) {
                let (app, sender) = (Arc::clone(&app), Arc::clone(&sender));
                let (holder, id) = (Arc::clone(&holder), webhook.id);
                let task = running.spawn(async move { drive(&app, &sender, id, &holder).await });
                busy.insert(id, task.id());
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    running.abort_all();
}

/// Sends a webhook's batches one after the other, until there is nothing to send now.
async fn drive(app: &App, sender: &Sender, id: u64, holder: &str) {
    loop {
        match step(app, sender, id, holder).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                return tracing::warn!(webhook.id = id, %error, "a webhook waits for mysql");
            }
        }
    }
}

/// Sends the next batch, if there is one and it is due. Returns whether a batch was delivered or
/// sent once more; then there may be another one.
async fn step(app: &App, sender: &Sender, id: u64, holder: &str) -> Result<bool, sqlx::Error> {
    if !table::lease(&app.pool, id, holder, LEASE_SECONDS).await? {
        return Ok(false);
    }
    // Read after the lease was taken: until then another instance may have changed it.
    let Some(webhook) = table::find(&app.pool, id).await? else {
        return Ok(false);
    };
    if let Some(delivery) = table::next_resent(&app.pool, id).await? {
        return resend(app, sender, &webhook, &delivery).await;
    }
    if table::next_pending(&app.pool, id).await?.is_none() {
        next_batch(app, &webhook).await?;
    }
    match table::next_pending(&app.pool, id).await? {
        Some((delivery, true)) => attempt(app, sender, &webhook, &delivery).await,
        Some((_, false)) | None => Ok(false),
    }
}

/// Entries of a shard's journal between two numbers, both included, up to the first entry that this
/// program cannot read.
async fn entries(app: &App, shard: u64, first: u64, last: u64) -> Result<Vec<Entry>, sqlx::Error> {
    let after = first.saturating_sub(1);
    let mut connection = app.pool.acquire().await?;
    let page = journal::page(&mut connection, shard, after, last, ENTRIES_MAX).await?;
    Ok(page.into_iter().map_while(Result::ok).collect())
}

/// Makes one batch per shard of the entries settled since the last batch.
async fn next_batch(app: &App, webhook: &Webhook) -> Result<(), sqlx::Error> {
    for state in shards::all(&app.pool).await? {
        next_batch_of(app, webhook, &state).await?;
    }
    Ok(())
}

async fn next_batch_of(
    app: &App,
    webhook: &Webhook,
    state: &ShardState,
) -> Result<(), sqlx::Error> {
    let shard = state.shard;
    let sent = table::sent(&app.pool, webhook.id, shard).await?;
    if sent >= state.number {
        return Ok(());
    }
    let found = entries(app, shard, sent + 1, state.number).await?;
    let mut postings = 0;
    let batch = found.iter().take_while(|entry| {
        let fits = postings == 0 || postings + entry.postings.len() <= POSTINGS_MAX;
        postings += entry.postings.len();
        fits
    });
    let batch: Vec<Entry> = batch.cloned().collect();
    let (Some(first), Some(last)) = (batch.first(), batch.last()) else {
        return Ok(());
    };
    if webhook::stock_changed(&batch).is_none() {
        return table::pass(&app.pool, webhook.id, shard, last.number).await;
    }
    table::insert_delivery(&app.pool, webhook.id, shard, first.number, last.number).await
}

/// Posts a batch. Its body is the same each time it is sent.
async fn post(
    app: &App,
    sender: &Sender,
    webhook: &Webhook,
    delivery: &Delivery,
) -> Result<Result<u16, Failure>, sqlx::Error> {
    let unknown = |text: &str| Failure {
        status: None,
        text: text.to_owned(),
    };
    let secrets = table::secrets(&app.pool, webhook.id).await?;
    let secrets = secrets.iter().map(|secret| secret.parse());
    let secrets: Vec<Secret> = secrets.filter_map(Result::ok).collect();
    if secrets.is_empty() {
        return Ok(Err(unknown("its secret cannot be read")));
    }
    let (first, last) = (delivery.first_number, delivery.last_number);
    let batch = entries(app, delivery.shard, first, last).await?;
    if batch.first().map(|entry| entry.number) != Some(delivery.first_number) {
        return Ok(Err(unknown("its entries were archived")));
    }
    let Some(body) = webhook::stock_changed(&batch) else {
        return Ok(Err(unknown("its entries cannot be read")));
    };
    let id = message_id(webhook.id, delivery.id);
    let now = app.clock.now_ms() / 1_000;
    let sent = sender.post(&webhook.url, &secrets, &id, now, body).await;
    let result = match &sent {
        Ok(_) => "delivered",
        Err(_) => "failed",
    };
    metrics::counter!("stock_webhook_attempts_total", "result" => result).increment(1);
    Ok(sent)
}

/// Sends an earlier batch once more. Whatever the answer, the webhook keeps its position.
async fn resend(
    app: &App,
    sender: &Sender,
    webhook: &Webhook,
    delivery: &Delivery,
) -> Result<bool, sqlx::Error> {
    let sent = post(app, sender, webhook, delivery).await?;
    let (status, error) = match &sent {
        Ok(status) => (Some(*status), None),
        Err(failure) => (failure.status, Some(failure.text.as_str())),
    };
    table::resent(&app.pool, delivery.id, status, error).await?;
    Ok(true)
}

async fn attempt(
    app: &App,
    sender: &Sender,
    webhook: &Webhook,
    delivery: &Delivery,
) -> Result<bool, sqlx::Error> {
    let failure = match post(app, sender, webhook, delivery).await? {
        Ok(status) => {
            table::delivered(&app.pool, webhook.id, delivery, status).await?;
            return Ok(true);
        }
        Err(failure) => failure,
    };
    let attempt = usize::try_from(delivery.attempts).unwrap_or(usize::MAX);
    let next = sender.next_attempt(attempt).filter(|_| !failure.is_gone());
    let next_ms = next.map(|next| u64::try_from(next.as_millis()).unwrap_or(u64::MAX));
    table::failed(
        &app.pool,
        delivery.id,
        failure.status,
        &failure.text,
        next_ms,
    )
    .await?;
    if next.is_none() {
        table::disable(&app.pool, webhook.id).await?;
        tracing::error!(
            webhook.id = webhook.id,
            status = failure.status,
            error = failure.text,
            "a webhook is disabled: its receiver was away for too long, or is gone"
        );
    }
    Ok(false)
}

/// The id of a message, the same on every attempt.
#[must_use]
pub fn message_id(webhook: u64, delivery: u64) -> String {
    format!("msg_{webhook}_{delivery}")
}
