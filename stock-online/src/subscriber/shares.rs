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
/// How long a shard that does not answer is left alone.
const RETRY: Duration = Duration::from_secs(1);

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
            self.note(moved);
        }
        message
    }

    fn note(&self, mut moved: BTreeSet<ProductId>) {
        let mut all = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        all.append(&mut moved);
        self.bell.notify_one();
    }

    /// Tells whoever watches what their levels are now, for ever.
    pub(super) async fn tell(&self, app: &App) {
        loop {
            self.bell.notified().await;
            let moved =
                std::mem::take(&mut *self.moved.lock().unwrap_or_else(PoisonError::into_inner));
            let online = |product: &ProductId| Account::available(*product, LocationId::ONLINE);
            let names: Vec<Account> = moved.iter().map(online).collect();
            match app.ledger.levels(&names).await {
                Ok(levels) => app.levels.hear(&LevelsMessage {
                    epoch: Box::default(),
                    position: app.levels.last(),
                    levels: levels.into_iter().collect(),
                }),
                Err(error) => {
                    tracing::debug!(%error, "levels of divided products are read again");
                    self.note(moved);
                    tokio::time::sleep(RETRY).await;
                }
            }
            tokio::time::sleep(PACE).await;
        }
    }
}
