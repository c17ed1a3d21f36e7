//! The catalog: products and their prices as one immutable snapshot in memory.
//!
//! Orders are priced from it without asking MySQL. It is at most a few seconds old, and never decides
//! what matters at once: stock, windows and closed products are judged in Redis. Reading it from
//! MySQL is [`crate::database::products`]' work.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use stock_common::id::{ProductId, WorkId};
use stock_common::money::Money;

use crate::discount::Discount;
use crate::reservation::FrozenPrice;
use crate::sale::Sale;

/// Whether a product may be ordered; only `ACTIVE` can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ProductStatus {
    /// It can be ordered.
    Active,
    /// Shown as sold out by hand.
    SoldOut,
    /// Its sale has ended for good.
    EndOfSale,
    /// Not shown for sale.
    Inactive,
}

impl ProductStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Active, Self::SoldOut, Self::EndOfSale, Self::Inactive];

    /// The name in the table and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::SoldOut => "SOLD_OUT",
            Self::EndOfSale => "END_OF_SALE",
            Self::Inactive => "INACTIVE",
        }
    }

    /// The status of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

/// What an order needs to know of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogProduct {
    /// The product.
    pub id: ProductId,
    /// Its name, copied into the order.
    pub name: String,
    /// Its price per unit.
    pub price: Money,
    /// Whether it may be ordered.
    pub status: ProductStatus,
    /// Whether it was deleted; it stays known so that it is not asked for again.
    pub is_deleted: bool,
    /// Its discount, whose dates may lie elsewhere.
    pub discount: Option<Discount>,
    /// The sale that governs it.
    pub sale: Option<Sale>,
}

impl CatalogProduct {
    /// The price of a unit at a time in Unix ms: the sale's price, else the price less the discount.
    #[must_use]
    pub fn unit_price(&self, now_ms: u64) -> Money {
        unit_price(
            self.price,
            self.sale.as_ref(),
            self.discount.as_ref(),
            now_ms,
        )
    }

    /// The sale that counts at a time in Unix ms, if one does.
    #[must_use]
    pub fn sale_at(&self, now_ms: u64) -> Option<&Sale> {
        self.sale.as_ref().filter(|sale| sale.counts(now_ms))
    }

    /// The price at a time in Unix ms, as a reservation freezes it.
    #[must_use]
    pub fn frozen(&self, now_ms: u64) -> FrozenPrice {
        FrozenPrice {
            price: self.price,
            unit_price: self.unit_price(now_ms),
            sale_id: self.sale_at(now_ms).map(|sale| sale.id),
        }
    }
}

/// The price of a unit at a time in Unix ms: that of the sale that counts, which takes no discount, else the
/// price less the discount whose dates count.
#[must_use]
pub fn unit_price(
    price: Money,
    sale: Option<&Sale>,
    discount: Option<&Discount>,
    now_ms: u64,
) -> Money {
    let counting = sale.filter(|sale| sale.counts(now_ms));
    if let Some(price) = counting.and_then(|sale| sale.price) {
        return price;
    }
    let off = discount.map_or(Money::ZERO, |discount| discount.amount(price, now_ms));
    Money::new(price.get() - off.get()).unwrap_or(price)
}

/// The snapshot that orders are priced from; cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    products: Arc<RwLock<HashMap<ProductId, Arc<CatalogProduct>>>>,
    works: Arc<RwLock<HashSet<WorkId>>>,
    /// Whether it was ever read: before that, a product that is not here may well exist.
    is_read: Arc<AtomicBool>,
}

impl Catalog {
    /// The product, also when it was deleted.
    #[must_use]
    pub fn product(&self, id: ProductId) -> Option<Arc<CatalogProduct>> {
        self.products
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .map(Arc::clone)
    }

    /// The products with the smallest ids that were not deleted.
    #[must_use]
    pub fn first(&self, most: usize) -> Vec<ProductId> {
        let products = self.products.read().unwrap_or_else(PoisonError::into_inner);
        let known = products.values().filter(|product| !product.is_deleted);
        let mut ids: Vec<ProductId> = known.map(|product| product.id).collect();
        drop(products);
        if ids.len() > most {
            ids.select_nth_unstable(most);
            ids.truncate(most);
        }
        ids.sort_unstable();
        ids
    }

    /// Whether it was read at least once.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Acquire)
    }

    /// Whether there is such a campaign item.
    #[must_use]
    pub fn has_work(&self, id: WorkId) -> bool {
        self.works
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&id)
    }

    /// Takes over products and campaign items that were added or changed; of an item, whether it is there.
    pub fn update(&self, changed: Vec<CatalogProduct>, works: Vec<(WorkId, bool)>) {
        let mut known = self.works.write().unwrap_or_else(PoisonError::into_inner);
        for (work, is_there) in works {
            if is_there {
                known.insert(work);
            } else {
                known.remove(&work);
            }
        }
        drop(known);
        let mut products = self
            .products
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        for product in changed {
            products.insert(product.id, Arc::new(product));
        }
        self.is_read.store(true, Ordering::Release);
    }
}
