//! Pricing: from what a client asks for to an order at the server's prices.
//!
//! The client's numbers are only compared, never used (the reference system trusted them:
//! REFERENCE §1.6). Lines of one product become one line with the sum.

use std::sync::Arc;

use stock_common::id::{ProductId, UserId};
use stock_common::money::Money;

use crate::catalog::{Catalog, CatalogProduct, ProductStatus};
use crate::order::{DeliveryType, OfflineSale, Order, OrderLine, Path, Quantity};
use crate::reservation::Reservation;
use crate::sale::{self, Sale};

/// One product asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskedLine {
    /// The product.
    pub product_id: ProductId,
    /// How many units.
    pub quantity: Quantity,
    /// The unit price that the client believes in, if it said one.
    pub unit_price: Option<Money>,
}

/// What a client asks for, its form checked.
#[derive(Debug, Clone)]
pub struct AskedOrder {
    /// Who buys.
    pub user_id: UserId,
    /// Which way it is placed.
    pub path: Path,
    /// How it reaches the buyer.
    pub delivery_type: DeliveryType,
    /// The store whose stock it takes; none for ONLINE.
    pub store_id: Option<u64>,
    /// What is bought, in the client's order.
    pub lines: Vec<AskedLine>,
    /// The total that the client believes in; none when a sale of the past is told.
    pub total_amount: Option<Money>,
    /// Whether what the store sells is taken from the online stock too.
    pub shares_online_stock: bool,
    /// The sale that a till made while it was cut off: at the prices it says, of any product that ever was.
    pub offline: Option<OfflineSale>,
}

/// An order with its price, and what it depends on.
#[derive(Debug, Clone)]
pub struct Priced {
    /// The order.
    pub order: Order,
    /// The time between which its sales are open, in Unix ms; none without a sale.
    pub window_ms: Option<(u64, u64)>,
}

/// Why an order has no price, in the order of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpriced {
    /// The catalog was never read, so nothing is known of any product.
    CatalogUnread,
    /// There is no such product, or it was deleted.
    ProductNotFound(ProductId),
    /// The product cannot be ordered now.
    ProductNotOnSale(ProductId),
    /// The client's unit price is not the current one.
    PriceChanged {
        /// The product.
        product: ProductId,
        /// Its current unit price.
        expected: Money,
    },
    /// The client's total is not the computed one.
    TotalAmountMismatch {
        /// The computed total.
        expected: Money,
    },
    /// The sum of a product's lines is above 1,000,000.
    QuantityTooLarge(ProductId),
    /// The amount is above 2^53 − 1.
    AmountTooLarge,
}

/// Prices an order from the catalog at a time in Unix ms. `held` is the reservation whose stock it takes: its
/// product is neither limited nor bound to a window again.
///
/// # Errors
/// [`Unpriced`], the first reason found, in the order of its variants.
pub fn price(
    asked: &AskedOrder,
    catalog: &Catalog,
    held: Option<&Reservation>,
    now_ms: u64,
) -> Result<Priced, Unpriced> {
    let merged = merge(&asked.lines)?;
    let products = find_products(asked, &merged, catalog)?;
    let is_offline = asked.offline.is_some();
    if !is_offline {
        check_prices(asked, &products, now_ms)?;
    }
    let mut total = Money::ZERO;
    let mut lines = Vec::with_capacity(merged.len());
    let mut sales = Vec::new();
    for (line, product) in merged.iter().zip(&products) {
        let current = product.unit_price(now_ms);
        let unit_price = match line.unit_price {
            Some(claimed) if is_offline => claimed,
            _ => current,
        };
        let sub_total = unit_price
            .times(line.quantity.get())
            .ok_or(Unpriced::AmountTooLarge)?;
        total = total.plus(sub_total).ok_or(Unpriced::AmountTooLarge)?;
        let held = held.filter(|held| held.product_id == product.id);
        let sale = product
            .sale
            .as_ref()
            .filter(|_| held.is_none() && !is_offline);
        sales.extend(sale);
        let allowance = match held {
            Some(held) => held.allowance,
            // Who buys at a till is not known.
            None if asked.path == Path::Till => None,
            None => sale.and_then(Sale::allowance),
        };
        lines.push(OrderLine {
            product_id: product.id,
            product_name: product.name.clone(),
            quantity: line.quantity,
            price: product.price,
            unit_price,
            sub_total,
            allowance,
        });
    }
    let window_ms = sale::window(sales.into_iter());
    if asked.total_amount.is_some_and(|claimed| claimed != total) {
        return Err(Unpriced::TotalAmountMismatch { expected: total });
    }
    let order = Order {
        user_id: asked.user_id,
        path: asked.path,
        delivery_type: asked.delivery_type,
        store_id: asked.store_id,
        lines,
        total_amount: total,
        reservation_id: None,
        shares_online_stock: asked.shares_online_stock,
        offline: asked.offline.clone(),
    };
    Ok(Priced { order, window_ms })
}

/// The products of the lines; what was sold in the past may be off sale or deleted by now.
fn find_products(
    asked: &AskedOrder,
    merged: &[AskedLine],
    catalog: &Catalog,
) -> Result<Vec<Arc<CatalogProduct>>, Unpriced> {
    if !catalog.is_read() {
        return Err(Unpriced::CatalogUnread);
    }
    let is_offline = asked.offline.is_some();
    let mut products = Vec::with_capacity(merged.len());
    for line in merged {
        let known = catalog
            .product(line.product_id)
            .filter(|product| is_offline || !product.is_deleted);
        products.push(known.ok_or(Unpriced::ProductNotFound(line.product_id))?);
    }
    let stopped = products
        .iter()
        .find(|product| product.status != ProductStatus::Active);
    match stopped {
        Some(stopped) if !is_offline => Err(Unpriced::ProductNotOnSale(stopped.id)),
        _ => Ok(products),
    }
}

/// Each unit price that the client believes in is the current one.
fn check_prices(
    asked: &AskedOrder,
    products: &[Arc<CatalogProduct>],
    now_ms: u64,
) -> Result<(), Unpriced> {
    for line in &asked.lines {
        let current = products
            .iter()
            .find(|product| product.id == line.product_id)
            .map(|product| product.unit_price(now_ms));
        if let (Some(claimed), Some(expected)) = (line.unit_price, current)
            && claimed != expected
        {
            return Err(Unpriced::PriceChanged {
                product: line.product_id,
                expected,
            });
        }
    }
    Ok(())
}

/// One line per product, in the order of first mention.
fn merge(lines: &[AskedLine]) -> Result<Vec<AskedLine>, Unpriced> {
    let mut merged: Vec<AskedLine> = Vec::with_capacity(lines.len());
    for line in lines {
        match merged
            .iter_mut()
            .find(|known| known.product_id == line.product_id)
        {
            Some(known) => {
                let sum = known.quantity.plus(line.quantity);
                known.quantity = sum.ok_or(Unpriced::QuantityTooLarge(line.product_id))?;
            }
            None => merged.push(*line),
        }
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use stock_common::id::{ProductId, UserId};
    use stock_common::money::Money;

    use super::{AskedLine, AskedOrder, Unpriced, price};
    use crate::catalog::{Catalog, CatalogProduct, ProductStatus};
    use crate::order::{DeliveryType, Path, Quantity};

    fn catalog() -> Catalog {
        let catalog = Catalog::default();
        let product = |id, price, status, is_deleted| CatalogProduct {
            id: ProductId(id),
            name: format!("product {id}"),
            price: Money::new(price).unwrap(),
            status,
            is_deleted,
            discount: None,
            sale: None,
        };
        catalog.update(vec![
            product(1, 1_000, ProductStatus::Active, false),
            product(2, 700, ProductStatus::Active, false),
            product(3, 1, ProductStatus::SoldOut, false),
            product(4, 1, ProductStatus::Active, true),
            product(5, Money::MAX, ProductStatus::Active, false),
        ]);
        catalog
    }

    /// `lines` as (product, quantity, claimed unit price or 0 for none).
    fn check(lines: &[(u64, u32, i64)], total: i64, expected: Result<&[(u64, u32)], Unpriced>) {
        let asked = AskedOrder {
            user_id: UserId(1),
            path: Path::Redis,
            delivery_type: DeliveryType::Online,
            store_id: None,
            lines: lines
                .iter()
                .map(|&(id, quantity, claimed)| AskedLine {
                    product_id: ProductId(id),
                    quantity: Quantity::new(quantity).unwrap(),
                    unit_price: (claimed > 0).then(|| Money::new(claimed).unwrap()),
                })
                .collect(),
            total_amount: Some(Money::new(total).unwrap()),
            shares_online_stock: false,
            offline: None,
        };
        let got = price(&asked, &catalog(), None, 0).map(|priced| {
            priced
                .order
                .lines
                .iter()
                .map(|l| (l.product_id.0, l.quantity.get()))
                .collect::<Vec<_>>()
        });
        assert_eq!(
            got.as_deref().map_err(|e| *e),
            expected.map(<[_]>::as_ref),
            "{lines:?}"
        );
    }

    #[test]
    fn an_order_is_priced_by_the_server_and_refused_for_the_first_reason() {
        let money = |units| Money::new(units).unwrap();
        check(&[(1, 2, 1_000), (2, 1, 0)], 2_700, Ok(&[(1, 2), (2, 1)]));
        check(
            &[(1, 2, 0), (2, 1, 0), (1, 3, 0)],
            5_700,
            Ok(&[(1, 5), (2, 1)]),
        );
        check(
            &[(9, 1, 0)],
            0,
            Err(Unpriced::ProductNotFound(ProductId(9))),
        );
        check(
            &[(3, 1, 0), (4, 1, 0)],
            0,
            Err(Unpriced::ProductNotFound(ProductId(4))),
        );
        check(
            &[(3, 1, 9)],
            0,
            Err(Unpriced::ProductNotOnSale(ProductId(3))),
        );
        check(
            &[(1, 1, 999)],
            999,
            Err(Unpriced::PriceChanged {
                product: ProductId(1),
                expected: money(1_000),
            }),
        );
        check(
            &[(1, 1, 0)],
            1,
            Err(Unpriced::TotalAmountMismatch {
                expected: money(1_000),
            }),
        );
        check(
            &[(1, 999_999, 0), (1, 2, 0)],
            0,
            Err(Unpriced::QuantityTooLarge(ProductId(1))),
        );
        check(&[(5, 2, 0)], 0, Err(Unpriced::AmountTooLarge));
    }
}
