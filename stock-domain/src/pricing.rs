//! Pricing: from what a client asks for to an order at the server's prices.
//!
//! The client's numbers are only compared, never used (the reference system trusted them:
//! REFERENCE §1.6). Lines of one product become one line with the sum.

use stock_common::id::{ProductId, UserId};
use stock_common::money::Money;

use crate::catalog::{Catalog, ProductStatus};
use crate::order::{DeliveryType, Order, OrderLine, Path, Quantity};

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
    /// The total that the client believes in.
    pub total_amount: Money,
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

/// Prices an order from the catalog.
///
/// # Errors
/// [`Unpriced`], the first reason found, in the order of its variants.
pub fn price(asked: &AskedOrder, catalog: &Catalog) -> Result<Order, Unpriced> {
    let merged = merge(&asked.lines)?;
    if !catalog.is_read() {
        return Err(Unpriced::CatalogUnread);
    }
    let mut products = Vec::with_capacity(merged.len());
    for line in &merged {
        let known = catalog
            .product(line.product_id)
            .filter(|product| !product.is_deleted);
        products.push(known.ok_or(Unpriced::ProductNotFound(line.product_id))?);
    }
    if let Some(stopped) = products
        .iter()
        .find(|product| product.status != ProductStatus::Active)
    {
        return Err(Unpriced::ProductNotOnSale(stopped.id));
    }
    for line in &asked.lines {
        let current = products
            .iter()
            .find(|product| product.id == line.product_id);
        if let (Some(claimed), Some(current)) = (line.unit_price, current)
            && claimed != current.price
        {
            let expected = current.price;
            return Err(Unpriced::PriceChanged {
                product: line.product_id,
                expected,
            });
        }
    }
    let mut total = Money::ZERO;
    let mut lines = Vec::with_capacity(merged.len());
    for (line, product) in merged.iter().zip(&products) {
        let unit_price = product.price;
        let sub_total = unit_price
            .times(line.quantity.get())
            .ok_or(Unpriced::AmountTooLarge)?;
        total = total.plus(sub_total).ok_or(Unpriced::AmountTooLarge)?;
        lines.push(OrderLine {
            product_id: product.id,
            product_name: product.name.clone(),
            quantity: line.quantity,
            price: product.price,
            unit_price,
            sub_total,
        });
    }
    if asked.total_amount != total {
        return Err(Unpriced::TotalAmountMismatch { expected: total });
    }
    Ok(Order {
        user_id: asked.user_id,
        path: asked.path,
        delivery_type: asked.delivery_type,
        store_id: asked.store_id,
        lines,
        total_amount: total,
    })
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
            total_amount: Money::new(total).unwrap(),
        };
        let got = price(&asked, &catalog()).map(|order| {
            order
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
