//! Divided products among the levels: a share's new level says that the product has another one, which is read.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use stock_common::id::{LocationId, ProductId};
use stock_domain::account::Account;
use stock_domain::ledger::Ledger;
use stock_domain::ledger::levels::LevelsMessage;
use tokio::sync::Notify;

use crate::app::App;

/// How often what moves all the time is read.
const PACE: Duration = Duration::from_millis(100);

/// The divided products that have moved.
#[derive(Default)]
pub(super) struct Shares {
    moved: Mutex<BTreeSet<ProductId>>,
    bell: Notify,
}

impl Shares {
    /// A message without what is only a share of a level; its product is noted.
    pub(super) fn without(&self, ledger: &Ledger, mut message: LevelsMessage) -> LevelsMessage {
        let Some(layout) = ledger.layout().filter(|layout| !layout.buckets.is_empty()) else {
            return message;
        };
        let mut moved = BTreeSet::new();
        message.levels.retain(|(account, _)| {
            let product = layout.buckets.divided(*account);
            moved.extend(product);
            product.is_none()
        });
        if !moved.is_empty() {
            let mut all = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
            all.append(&mut moved);
            self.bell.notify_one();
        }
        message
    }

    /// Tells whoever watches what their levels are now, for ever.
    pub(super) async fn tell(&self, app: &App) {
        loop {
            self.bell.notified().await;
            let moved =
                std::mem::take(&mut *self.moved.lock().unwrap_or_else(PoisonError::into_inner));
            let online = |product| Account::available(product, LocationId::ONLINE);
            let names: Vec<Account> = moved.into_iter().map(online).collect();
            match app.ledger.levels(&names).await {
                Ok(levels) => app.levels.hear(&LevelsMessage {
                    position: app.levels.last(),
                    levels: levels.into_iter().collect(),
                }),
                Err(error) => {
                    tracing::debug!(%error, "levels of divided products cannot be read");
                    app.levels.interrupted();
                }
            }
            tokio::time::sleep(PACE).await;
        }
    }
}
