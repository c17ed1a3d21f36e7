//! The catalog: products and their prices as one immutable snapshot in memory.
//!
//! Orders are priced and products are shown from the snapshot, without asking MySQL. The snapshot
//! is at most a few seconds old, so it decides nothing that must be right at once: the script
//! checks stock, windows and closed products in Redis. `stock-mysql` (`products`) reads the
//! snapshot from MySQL.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize};
use stock_common::id::{ProductId, WorkId};
use stock_common::lock::{read, write};
use stock_common::money::Money;

use crate::discount::Discount;
use crate::reservation::FrozenPrice;
use crate::sale::Sale;
use crate::sku::Sku;

/// Whether a product may be ordered; only an `ACTIVE` one can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

/// The words and numbers that an admin gives a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductFields {
    /// At most 100 characters.
    pub name: String,
    /// The shop's own number of the product; no two products have the same.
    pub sku: Option<Sku>,
    /// At most 255 characters.
    pub description: String,
    /// The price per unit.
    pub price: Money,
    /// Whether it may be ordered.
    pub status: ProductStatus,
    /// The level at or below which stock counts as low.
    pub min_stock_level: i64,
    /// The level at or below which it should be ordered again.
    pub reorder_point: i64,
}

/// A product with everything but its stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// The product.
    pub id: ProductId,
    /// The words and numbers that an admin gave it.
    pub fields: ProductFields,
    /// Rises with every change.
    pub revision: u64,
    /// The time of its creation.
    pub created_at: NaiveDateTime,
    /// The time of its last change.
    pub updated_at: NaiveDateTime,
    /// Whether the product was deleted. A deleted product stays known, so that MySQL is not asked
    /// for it again.
    pub is_deleted: bool,
    /// Its discount, which may not count now.
    pub discount: Option<Discount>,
    /// The sale that governs it.
    pub sale: Option<Sale>,
}

/// The products that a list shows, newest first.
#[derive(Debug, Clone, Default)]
pub struct ProductFilter {
    /// A text that the name contains. Only MySQL compares names.
    pub name: Option<String>,
    /// Only the product of this SKU.
    pub sku: Option<Sku>,
    /// Only in this status.
    pub status: Option<ProductStatus>,
    /// Leaves out products in this status.
    pub without: Option<ProductStatus>,
    /// Only from this price on.
    pub price_gte: Option<i64>,
    /// Only up to this price.
    pub price_lte: Option<i64>,
    /// Only products with a smaller id.
    pub before: Option<ProductId>,
    /// The largest number of products.
    pub limit: u32,
}

/// Which part of a numbered list is asked for; [`ProductFilter::limit`] says how much of it.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Products before it.
    pub offset: u32,
    /// Whether the oldest product comes first.
    pub is_rising: bool,
}

impl ProductFilter {
    /// Whether a list shows a product; its name is not compared.
    fn shows(&self, product: &Product) -> bool {
        let (status, price) = (product.fields.status, product.fields.price.get());
        !product.is_deleted
            && self.status.is_none_or(|only| only == status)
            && self.without != Some(status)
            && (self.sku.is_none() || self.sku == product.fields.sku)
            && self.price_gte.is_none_or(|least| price >= least)
            && self.price_lte.is_none_or(|most| price <= most)
    }
}

impl Product {
    /// A product that can be ordered, for tests.
    #[cfg(test)]
    pub(crate) fn sample(id: ProductId) -> Self {
        Self {
            id,
            fields: ProductFields {
                name: format!("product {id}"),
                sku: None,
                description: String::new(),
                price: Money::ZERO,
                status: ProductStatus::Active,
                min_stock_level: 0,
                reorder_point: 0,
            },
            revision: 1,
            created_at: NaiveDateTime::default(),
            updated_at: NaiveDateTime::default(),
            is_deleted: false,
            discount: None,
            sale: None,
        }
    }

    /// The price of a unit at a time in Unix ms: the sale's price, else the price less the
    /// discount.
    #[must_use]
    pub fn unit_price(&self, now_ms: u64) -> Money {
        unit_price(
            self.fields.price,
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
            price: self.fields.price,
            unit_price: self.unit_price(now_ms),
            sale_id: self.sale_at(now_ms).map(|sale| sale.id),
        }
    }
}

/// The price of a unit at a time in Unix ms. The price of a sale that counts at that time takes no
/// discount. Otherwise it is the product's price less the discount that counts.
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

/// Products that a list looks at in memory. Beyond that MySQL is asked, which has an index.
const WALK_MAX: usize = 10_000;

/// The snapshot that orders are priced from; cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    products: Arc<RwLock<BTreeMap<ProductId, Arc<Product>>>>,
    /// The products that have a SKU and were not deleted.
    by_sku: Arc<RwLock<HashMap<Sku, ProductId>>>,
    works: Arc<RwLock<HashSet<WorkId>>>,
    /// Whether the catalog was ever read. Before that, a product that is missing here may well
    /// exist.
    is_read: Arc<AtomicBool>,
}

impl Catalog {
    /// The product, also when it was deleted.
    #[must_use]
    pub fn product(&self, id: ProductId) -> Option<Arc<Product>> {
        read(&self.products).get(&id).map(Arc::clone)
    }

    /// The product of a SKU; [`ProductId::NONE`] when this process knows none.
    #[must_use]
    pub fn named(&self, sku: &Sku) -> ProductId {
        self.of_sku(sku).unwrap_or(ProductId::NONE)
    }

    /// The product of a SKU.
    #[must_use]
    pub fn of_sku(&self, sku: &Sku) -> Option<ProductId> {
        read(&self.by_sku).get(sku).copied()
    }

    /// The products with the smallest ids that were not deleted.
    #[must_use]
    pub fn first(&self, most: usize) -> Vec<ProductId> {
        let products = read(&self.products);
        let known = products.values().filter(|product| !product.is_deleted);
        known.take(most).map(|product| product.id).collect()
    }

    /// Lists products, newest first. `None` when MySQL has to be asked: for a name, before the
    /// catalog was read, and when too many products would have to be looked at.
    #[must_use]
    pub fn list(&self, filter: &ProductFilter) -> Option<Vec<Arc<Product>>> {
        if filter.name.is_some() || !self.is_read() {
            return None;
        }
        if let Some(sku) = &filter.sku {
            let found = self.of_sku(sku).and_then(|id| self.product(id));
            let is_after = |id| filter.before.is_none_or(|before| id < before);
            let found = found.filter(|of| filter.shows(of) && is_after(of.id));
            return Some(found.into_iter().collect());
        }
        let before = filter.before.map_or(Bound::Unbounded, Bound::Excluded);
        let products = read(&self.products);
        let mut range = products.range((Bound::Unbounded, before));
        let mut found = Vec::with_capacity(filter.limit as usize);
        for _ in 0..WALK_MAX {
            if found.len() == filter.limit as usize {
                return Some(found);
            }
            match range.next_back() {
                Some((_, product)) if filter.shows(product) => found.push(Arc::clone(product)),
                Some(_) => {}
                None => return Some(found),
            }
        }
        None
    }

    /// A part of the whole list, and the length of the list. `None` when MySQL has to be asked, as
    /// for [`Self::list`].
    #[must_use]
    pub fn part(&self, filter: &ProductFilter, part: Part) -> Option<(Vec<Arc<Product>>, u64)> {
        let products = read(&self.products);
        if filter.name.is_some() || !self.is_read() || products.len() > WALK_MAX {
            return None;
        }
        let mut shown: Vec<_> = products.values().filter(|of| filter.shows(of)).collect();
        if !part.is_rising {
            shown.reverse();
        }
        let count = shown.len() as u64;
        let wanted = shown.into_iter().skip(part.offset as usize);
        let wanted = wanted.take(filter.limit as usize).map(Arc::clone);
        Some((wanted.collect(), count))
    }

    /// Whether it was read at least once.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Acquire)
    }

    /// Whether there is such a campaign item.
    #[must_use]
    pub fn has_work(&self, id: WorkId) -> bool {
        read(&self.works).contains(&id)
    }

    /// Takes over products and campaign items that were added or changed. `true` says that an item
    /// exists.
    pub fn update(&self, changed: Vec<Product>, works: Vec<(WorkId, bool)>) {
        let mut known = write(&self.works);
        for (work, is_there) in works {
            if is_there {
                known.insert(work);
            } else {
                known.remove(&work);
            }
        }
        drop(known);
        let mut products = write(&self.products);
        let mut by_sku = write(&self.by_sku);
        // All old SKUs go first: one of them may have moved to another product of the list.
        for product in &changed {
            let known = products.get(&product.id);
            if let Some(old) = known.and_then(|known| known.fields.sku.as_ref())
                && by_sku.get(old) == Some(&product.id)
            {
                by_sku.remove(old);
            }
        }
        for product in changed {
            if let Some(sku) = product.fields.sku.clone().filter(|_| !product.is_deleted) {
                by_sku.insert(sku, product.id);
            }
            products.insert(product.id, Arc::new(product));
        }
        self.is_read.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use stock_common::id::ProductId;

    use super::ProductStatus::{Active, Inactive, SoldOut};
    use super::{Catalog, Part, Product, ProductFilter, ProductStatus, Sku, WALK_MAX};

    fn catalog(products: impl IntoIterator<Item = (u64, ProductStatus, bool)>) -> Catalog {
        let catalog = Catalog::default();
        let product = |(id, status, is_deleted)| {
            let mut product = Product::sample(ProductId(id));
            product.fields.status = status;
            product.is_deleted = is_deleted;
            product
        };
        catalog.update(products.into_iter().map(product).collect(), Vec::new());
        catalog
    }

    fn ids(catalog: &Catalog, filter: &ProductFilter) -> Option<Vec<u64>> {
        let found = catalog.list(filter)?;
        Some(found.iter().map(|product| product.id.0).collect())
    }

    #[test]
    fn a_list_is_cut_from_memory_newest_first() {
        let known = catalog([
            (1, Active, false),
            (2, Inactive, false),
            (3, Active, true),
            (4, SoldOut, false),
            (5, Active, false),
        ]);
        let all = ProductFilter {
            limit: 9,
            ..ProductFilter::default()
        };
        assert_eq!(ids(&known, &all), Some(vec![5, 4, 2, 1]));
        let public = ProductFilter {
            without: Some(Inactive),
            ..all.clone()
        };
        assert_eq!(ids(&known, &public), Some(vec![5, 4, 1]));
        let second = ProductFilter {
            before: Some(ProductId(5)),
            limit: 1,
            ..public.clone()
        };
        assert_eq!(ids(&known, &second), Some(vec![4]));
        let active = ProductFilter {
            status: Some(Active),
            ..public
        };
        assert_eq!(ids(&known, &active), Some(vec![5, 1]));
        let named = ProductFilter {
            name: Some("a".to_owned()),
            ..all
        };
        assert_eq!(ids(&known, &named), None, "MySQL compares names");
    }

    #[test]
    fn a_sku_names_the_product_that_has_it_now() {
        let known = catalog([(1, Active, false), (2, Inactive, false), (3, Active, false)]);
        let sku = |text: &str| Sku::try_from(text.to_owned()).unwrap();
        let of = |id: u64, text: Option<&str>, is_deleted| {
            let mut product = Product::sample(ProductId(id));
            product.fields.sku = text.map(sku);
            product.is_deleted = is_deleted;
            product
        };
        let found = |text: &str| known.of_sku(&sku(text)).map(|id| id.0);
        known.update(
            vec![of(1, Some("a"), false), of(2, Some("b"), false)],
            Vec::new(),
        );
        assert_eq!(
            (found("a"), found("b"), found("A")),
            (Some(1), Some(2), None)
        );
        // Two products change their SKUs with each other, in one look or in two.
        known.update(
            vec![of(1, Some("b"), false), of(2, Some("a"), false)],
            Vec::new(),
        );
        assert_eq!((found("a"), found("b")), (Some(2), Some(1)));
        known.update(vec![of(3, Some("b"), false)], Vec::new());
        known.update(vec![of(1, None, false)], Vec::new());
        assert_eq!((found("a"), found("b")), (Some(2), Some(3)));
        known.update(vec![of(3, None, true), of(1, Some("b"), false)], Vec::new());
        assert_eq!(found("b"), Some(1));

        let filter = ProductFilter {
            sku: Some(sku("b")),
            limit: 9,
            ..ProductFilter::default()
        };
        assert_eq!(ids(&known, &filter), Some(vec![1]));
        let later = ProductFilter {
            before: Some(ProductId(1)),
            ..filter.clone()
        };
        assert_eq!(ids(&known, &later), Some(vec![]));
        let other = ProductFilter {
            sku: Some(sku("c")),
            ..filter
        };
        assert_eq!(ids(&known, &other), Some(vec![]));
    }

    #[test]
    fn a_numbered_list_has_parts_in_either_direction_and_a_length() {
        let known = catalog([
            (1, Active, false),
            (2, Inactive, false),
            (3, Active, true),
            (4, SoldOut, false),
            (5, Active, false),
        ]);
        let public = ProductFilter {
            without: Some(Inactive),
            limit: 2,
            ..ProductFilter::default()
        };
        for (offset, is_rising, expected) in [
            (0, false, &[5, 4][..]),
            (2, false, &[1]),
            (0, true, &[1, 4]),
            (2, true, &[5]),
            (3, true, &[]),
        ] {
            let part = Part { offset, is_rising };
            let (found, count) = known.part(&public, part).unwrap();
            let ids: Vec<u64> = found.iter().map(|product| product.id.0).collect();
            assert_eq!((ids.as_slice(), count), (expected, 3), "{part:?}");
        }
        let part = Part {
            offset: 0,
            is_rising: true,
        };
        assert!(Catalog::default().part(&public, part).is_none());
    }

    #[test]
    fn a_list_that_would_look_at_too_many_products_is_asked_of_mysql() {
        let most = u64::try_from(WALK_MAX).unwrap();
        let hidden = (2..=most + 2).map(|id| (id, Inactive, false));
        let known = catalog(hidden.chain([(1, Active, false)]));
        let public = ProductFilter {
            without: Some(Inactive),
            limit: 1,
            ..ProductFilter::default()
        };
        assert_eq!(ids(&known, &public), None);
        let unread = Catalog::default();
        assert_eq!(ids(&unread, &public), None, "nothing was read yet");
    }
}
