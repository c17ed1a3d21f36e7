//! The subscription to Redis' channels, by `fred`, which subscribes again by itself.
//!
//! A lost message is harmless: the subscriber polls, sold-out flags expire, the catalog refreshes.
//! `fred` re-sends commands after a broken connection, so nothing else is ever sent through it.

use std::sync::Arc;
use std::time::Duration;

use fred::clients::SubscriberClient;
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::config::{Config as FredConfig, ReconnectPolicy};
use fred::types::{Builder, Value as FredValue};
use stock_domain::layout::SHARDS_MAX;
use stock_domain::ledger::keys::Keys;
use stock_domain::ledger::levels::LevelsMessage;
use stock_domain::ledger::switch::Switched;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::Bells;
use super::shares::Shares;
use crate::app::App;

/// Milliseconds between attempts to connect, and how they grow.
const RECONNECT: (u32, u32, u32) = (50, 2_000, 2);
const RETRY: Duration = Duration::from_millis(500);
/// How often it is asked whether the link still leads to Redis, and how long the answer may take.
const PING_EVERY: Duration = Duration::from_secs(1);
const PONG_MAX: Duration = Duration::from_secs(1);

/// Hears the levels and catalog channels until `shutdown`; `bells` wake the subscribers.
pub async fn run(app: Arc<App>, bells: Arc<Bells>, shutdown: CancellationToken) {
    let shares = Shares::default();
    tokio::select! {
        () = shares.tell(&app) => {}
        () = hear_until(&app, &bells, &shares, &shutdown) => {}
    }
}

async fn hear_until(app: &App, bells: &Bells, shares: &Shares, shutdown: &CancellationToken) {
    while !shutdown.is_cancelled() {
        tokio::select! {
            () = shutdown.cancelled() => return,
            result = hear(app, bells, shares) => {
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

async fn hear(app: &App, bells: &Bells, shares: &Shares) -> Result<(), fred::error::Error> {
    let client = connect(&app.config.redis_url).await?;
    let mut messages = client.message_rx();
    let mut reconnections = client.reconnect_rx();
    let catalog = app.ledger.keys().catalog();
    let selling = app.ledger.keys().selling();
    client
        .subscribe(vec![catalog.clone(), selling.clone()])
        .await?;
    // Those of shards that there will be are silent.
    let prefix = &app.config.redis_prefix;
    let levels = (0..SHARDS_MAX).map(|shard| Keys::new(prefix, shard).levels());
    client.subscribe(levels.collect::<Vec<String>>()).await?;
    let keeper = client.manage_subscriptions();
    let silent = silence(&client);
    tokio::pin!(silent);
    tracing::info!("subscribed to levels and catalog");
    // The channels were silent until now: look once at what was missed.
    app.levels.interrupted();
    bells.ring_all();
    app.catalog_refresher.bell.notify_one();
    loop {
        let message = tokio::select! {
            biased;
            _ = reconnections.recv() => {
                app.levels.interrupted();
                continue;
            }
            () = &mut silent => break,
            message = messages.recv() => message,
        };
        match message {
            Ok(message) if *message.channel == *selling => {
                let text = message.value.as_str();
                if let Some(switched) = text.and_then(|text| Switched::parse(&text)) {
                    app.ledger.hear_switch(switched);
                }
            }
            Ok(message) if *message.channel != *catalog => {
                let text = message.value.as_str();
                if let Some(message) = text.and_then(|text| LevelsMessage::parse(&text)) {
                    bells.ring(message.position.shard());
                    app.ledger.hear(&message);
                    app.levels.hear(&shares.without(&app.ledger, message));
                }
            }
            Ok(_) => app.catalog_refresher.bell.notify_one(),
            Err(RecvError::Lagged(_)) => {
                app.levels.interrupted();
                bells.ring_all();
            }
            Err(RecvError::Closed) => break,
        }
    }
    keeper.abort();
    Ok(())
}

/// Replaces the link when it does not answer any more: nothing would come over it, and nobody would know. Returns when
/// it cannot be replaced.
async fn silence(client: &SubscriberClient) {
    loop {
        tokio::time::sleep(PING_EVERY).await;
        // A link that is broken, and not silent, is mended by the client itself.
        if !client.is_connected() {
            continue;
        }
        let pong = client.ping::<FredValue>(None);
        if tokio::time::timeout(PONG_MAX, pong).await.is_ok() {
            continue;
        }
        tracing::warn!("the link of the channels is silent: another one is made");
        let replaced = tokio::time::timeout(PONG_MAX, client.force_reconnection()).await;
        if !matches!(replaced, Ok(Ok(()))) {
            return;
        }
    }
}
