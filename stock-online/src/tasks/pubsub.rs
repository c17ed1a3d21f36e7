//! The subscription to Redis' channels, by `fred`, which subscribes again by itself.
//!
//! A lost message is harmless: the subscriber polls, sold-out flags expire, the catalog refreshes.
//! `fred` sends commands again after a broken connection, so only subscriptions go through it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fred::clients::SubscriberClient;
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::Builder;
use fred::types::config::{Config as FredConfig, ReconnectPolicy};
use stock_common::lock::lock;
use stock_domain::selling::Switched;
use stock_domain::shard_map::SHARDS_MAX;
use stock_redis::Heard;
use stock_redis::keys::Keys;
use stock_redis::levels::LevelsMessage;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::subscriber::WakeUps;

/// Pauses between attempts to connect: the shortest and the longest in ms, and the factor by which
/// they grow.
const RECONNECT: (u32, u32, u32) = (50, 2_000, 2);
const RETRY: Duration = Duration::from_millis(500);
/// How often a beat is published, and how long the channels may be silent before they are
/// subscribed again.
const BEAT_EVERY: Duration = Duration::from_secs(1);
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// Listens to the channels until `shutdown`: levels wake the subscribers, catalog messages the
/// catalog refresher, and switches of selling go to the ledger.
pub async fn run(app: Arc<App>, wake_ups: Arc<WakeUps>, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        tokio::select! {
            () = shutdown.cancelled() => return,
            result = hear(&app, &wake_ups) => {
                is_subscribed(false);
                if let Err(error) = result {
                    tracing::debug!(%error, "cannot subscribe yet");
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn connect(url: &str) -> Result<SubscriberClient, fred::error::Error> {
    let (min, max, base) = RECONNECT;
    let client = Builder::from_config(FredConfig::from_url(url)?)
        .set_policy(ReconnectPolicy::new_exponential(0, min, max, base))
        .build_subscriber_client()?;
    client.init().await?;
    Ok(client)
}

async fn hear(app: &App, wake_ups: &WakeUps) -> Result<(), fred::error::Error> {
    let client = connect(&app.config.redis.redis_url).await?;
    let mut messages = client.message_rx();
    let mut reconnections = client.reconnect_rx();
    let keys = app.ledger.keys();
    let catalog = keys.catalog();
    let (selling, beats) = (keys.selling(), keys.beats());
    client
        .subscribe(vec![catalog.clone(), selling.clone(), beats.clone()])
        .await?;
    // The channels of shards that do not exist yet are silent.
    let levels = (0..SHARDS_MAX).map(|shard| Keys::new(&app.config, shard).levels());
    client.subscribe(levels.collect::<Vec<String>>()).await?;
    let keeper = client.manage_subscriptions();
    let heard = Mutex::new(Instant::now());
    let silent = silence(app, &heard);
    tokio::pin!(silent);
    tracing::info!("subscribed to levels and catalog");
    is_subscribed(true);
    // Messages sent before now were missed, so everything is looked at once.
    app.live.levels.interrupted();
    wake_ups.notify_all();
    app.selling.catalog_refresher.wake_up.notify_one();
    loop {
        let message = tokio::select! {
            biased;
            _ = reconnections.recv() => {
                app.live.levels.interrupted();
                continue;
            }
            () = &mut silent => {
                tracing::warn!("the channels are silent: they are subscribed again");
                break;
            }
            message = messages.recv() => message,
        };
        *lock(&heard) = Instant::now();
        match message {
            Ok(message) if *message.channel == *beats => {}
            Ok(message) if *message.channel == *selling => {
                let text = message.value.as_str();
                match text.and_then(|text| Switched::parse(&text)) {
                    Some(switched) => app.ledger.hear_switch(switched),
                    None => ignore(),
                }
            }
            Ok(message) if *message.channel != *catalog => {
                let text = message.value.as_str();
                let Some(message) = text.and_then(|text| LevelsMessage::parse(&text)) else {
                    ignore();
                    continue;
                };
                match app.ledger.hear(&message) {
                    Heard::Own => {
                        wake_ups.notify(message.position.shard());
                        app.live.levels.hear(&message);
                    }
                    Heard::TooEarly => {}
                    Heard::Foreign => ignore(),
                }
            }
            Ok(_) => app.selling.catalog_refresher.wake_up.notify_one(),
            Err(RecvError::Lagged(_)) => {
                app.live.levels.interrupted();
                wake_ups.notify_all();
            }
            Err(RecvError::Closed) => break,
        }
    }
    keeper.abort();
    Ok(())
}

fn is_subscribed(is: bool) {
    metrics::gauge!("stock_pubsub_up").set(f64::from(u8::from(is)));
}

/// Counts a message that this process does not understand.
fn ignore() {
    metrics::counter!("stock_ignored_messages_total").increment(1);
}

/// Returns when nothing was heard for long although beats were published. Without this, a
/// connection that broke silently would be listened to for ever.
async fn silence(app: &App, heard: &Mutex<Instant>) {
    loop {
        tokio::time::sleep(BEAT_EVERY).await;
        // Without Redis there is nothing to hear.
        let Ok(mut link) = app.ledger.live_link().await else {
            *lock(heard) = Instant::now();
            continue;
        };
        let mut beat = redis::cmd("PUBLISH");
        beat.arg(app.ledger.keys().beats()).arg("");
        let published = beat.query_async::<i64>(&mut link.read).await;
        let last = *lock(heard);
        if published.is_ok() && last.elapsed() > SILENCE_MAX {
            return;
        }
    }
}
