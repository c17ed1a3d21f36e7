//! Pricing: makes an order at the server's prices from an order that a client asks for.
//!
//! The client's numbers are only compared and never used, because a client can send any price.
//! Lines of one product become one line with their sum.

use std::sync::Arc;

use stock_common::id::{ProductId, UserId};
use stock_common::money::Money;

use crate::buyer::Buyer;
use crate::catalog::{Catalog, Product, ProductStatus};
use crate::coupon::{Coupon, UsedCoupon};
use crate::discount::Percentage;
use crate::order::{DeliveryType, OfflineSale, Order, OrderLine, Path};
use crate::points;
use crate::quantity::Quantity;
use crate::reservation::{FrozenPrice, Reservation};
use crate::sale::{self, Sale};

/// One product that a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskedLine {
    /// The product.
    pub product_id: ProductId,
    /// The number of units.
    pub quantity: Quantity,
    /// The unit price that the client expects, if it sent one.
    pub unit_price: Option<Money>,
}

/// The order that a client asks for, with its form checked.
#[derive(Debug, Clone)]
pub struct AskedOrder {
    /// The buyer.
    pub user_id: UserId,
    /// The path by which it is placed.
    pub path: Path,
    /// How it reaches the buyer.
    pub delivery_type: DeliveryType,
    /// The store whose stock it takes; none for ONLINE.
    pub store_id: Option<u64>,
    /// The lines, in the client's order.
    pub lines: Vec<AskedLine>,
    /// The total that the client expects; none for a till's sale of the past.
    pub total_amount: Option<Money>,
    /// Whether the units that the store sells are also taken from the online stock.
    pub shares_online_stock: bool,
    /// The sale that a till made while it was cut off: at the till's prices, of any product that
    /// ever existed.
    pub offline: Option<OfflineSale>,
    /// The shop's own name of the buyer.
    pub buyer: Option<Buyer>,
    /// The shop's own name for the order.
    pub reference: Option<String>,
}

impl AskedOrder {
    /// The units of a product, over all of its lines.
    #[must_use]
    pub fn units_of(&self, product: ProductId) -> u64 {
        let lines = self.lines.iter().filter(|line| line.product_id == product);
        lines.map(|line| u64::from(line.quantity.get())).sum()
    }
}

/// The reservation, the coupon and the points of an order.
#[derive(Debug, Clone, Copy, Default)]
pub struct Benefits<'a> {
    /// The reservation whose stock it takes. Its product costs what the reservation promises, and
    /// is neither limited nor bound to a window again.
    pub held: Option<&'a Reservation>,
    /// A code and its coupon; no coupon when this buyer may not use the code now.
    pub coupon: Option<(&'a str, Option<&'a Coupon>)>,
    /// Points to pay with.
    pub use_points: Money,
    /// The part of the paid amount that comes back as points.
    pub earn_rate: Option<Percentage>,
}

impl Benefits<'_> {
    /// The reservation, if it is of this product.
    fn hold_of(&self, product: ProductId) -> Option<&Reservation> {
        self.held.filter(|held| held.product_id == product)
    }

    /// The price of a product at a time in Unix ms: the reservation's, else the current one.
    fn price_of(&self, product: &Product, now_ms: u64) -> FrozenPrice {
        let frozen = self.hold_of(product.id).and_then(|held| held.frozen);
        frozen.unwrap_or_else(|| product.frozen(now_ms))
    }
}

/// A priced order, and the conditions of its prices.
#[derive(Debug, Clone)]
pub struct Priced {
    /// The order.
    pub order: Order,
    /// The times between which its prices hold, in Unix ms, where 0 is no bound; none without a
    /// sale.
    pub window_ms: Option<(u64, u64)>,
    /// Whether it has another price outside that time, so that it is priced anew instead of
    /// refused.
    pub is_repriced: bool,
}

/// Why an order has no price, in the order of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpriced {
    /// The catalog was never read, so no product is known.
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
    /// The order uses more points than there is to pay.
    PointsTooMany {
        /// The amount to pay.
        payable: Money,
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

/// Prices an order from the catalog at a time in Unix ms: the products' discounts, then the coupon
/// on the sum, then the points.
///
/// # Errors
/// [`Unpriced`], the first reason found, in the order of its variants.
pub fn price(
    asked: &AskedOrder,
    catalog: &Catalog,
    benefits: Benefits<'_>,
    now_ms: u64,
) -> Result<Priced, Unpriced> {
    let merged = merge(&asked.lines)?;
    let products = find_products(asked, &merged, catalog, &benefits)?;
    if asked.offline.is_none() {
        check_prices(asked, &products, &benefits, now_ms)?;
    }
    let mut sum = Money::ZERO;
    let mut lines = Vec::with_capacity(merged.len());
    for (line, product) in merged.iter().zip(&products) {
        let line = price_line(asked, line, product, &benefits, now_ms)?;
        sum = sum.plus(line.sub_total).ok_or(Unpriced::AmountTooLarge)?;
        lines.push(line);
    }
    let coupon = benefits.coupon.map(|(code, coupon)| match coupon {
        Some(coupon) => coupon.used(code, sum),
        None => UsedCoupon::unusable(code),
    });
    let off = coupon.as_ref().map(|coupon| coupon.discount_amount);
    let payable = sum.minus(off.unwrap_or_default());
    let payable = payable.ok_or(Unpriced::AmountTooLarge)?;
    let total = payable.minus(benefits.use_points);
    let total = total.ok_or(Unpriced::PointsTooMany { payable })?;
    // The code will be refused, so the client's total is not compared.
    let is_unusable = matches!(benefits.coupon, Some((_, None)));
    if !is_unusable && asked.total_amount.is_some_and(|claimed| claimed != total) {
        return Err(Unpriced::TotalAmountMismatch { expected: total });
    }
    let binding = || {
        let is_bound = |product: &&Arc<Product>| {
            asked.offline.is_none() && benefits.hold_of(product.id).is_none()
        };
        let bound = products.iter().filter(is_bound);
        bound.filter_map(|product| product.sale.as_ref())
    };
    let window_ms = sale::window(binding(), now_ms);
    let is_repriced = binding().any(Sale::is_repriced);
    let order = Order {
        user_id: asked.user_id,
        path: asked.path,
        delivery_type: asked.delivery_type,
        store_id: asked.store_id,
        lines,
        total_amount: total,
        coupon,
        used_points: benefits.use_points,
        earned_points: earned(asked, benefits.earn_rate, total),
        buyer: asked.buyer.clone(),
        reference: asked.reference.clone(),
        reservation_id: None,
        checkout_id: None,
        paid: None,
        shares_online_stock: asked.shares_online_stock,
        offline: asked.offline.clone(),
    };
    Ok(Priced {
        order,
        window_ms,
        is_repriced,
    })
}

/// Prices one line: at the server's price, or at the till's for a sale of the past.
fn price_line(
    asked: &AskedOrder,
    line: &AskedLine,
    product: &Product,
    benefits: &Benefits<'_>,
    now_ms: u64,
) -> Result<OrderLine, Unpriced> {
    let is_offline = asked.offline.is_some();
    let current = benefits.price_of(product, now_ms);
    let unit_price = match line.unit_price {
        Some(claimed) if is_offline => claimed,
        _ => current.unit_price,
    };
    let sub_total = unit_price.times(line.quantity.get());
    let allowance = match benefits.hold_of(product.id) {
        Some(held) => held.allowance,
        // The buyer at a till is not known.
        None if asked.path == Path::Till => None,
        None => product.sale_at(now_ms).and_then(Sale::allowance),
    };
    Ok(OrderLine {
        product_id: product.id,
        product_name: product.fields.name.clone(),
        quantity: line.quantity,
        price: current.price,
        unit_price,
        sub_total: sub_total.ok_or(Unpriced::AmountTooLarge)?,
        allowance,
    })
}

/// The points that an order earns. A till's order earns none, because its buyer is not known.
fn earned(asked: &AskedOrder, rate: Option<Percentage>, total: Money) -> Money {
    let rate = rate.filter(|_| asked.path != Path::Till);
    let most = Money::new(points::AMOUNT_MAX).unwrap_or_default();
    rate.map_or(Money::ZERO, |rate| rate.of(total).min(most))
}

/// Finds the products of the lines. A product of a past sale may be off sale or deleted by now.
fn find_products(
    asked: &AskedOrder,
    merged: &[AskedLine],
    catalog: &Catalog,
    benefits: &Benefits<'_>,
) -> Result<Vec<Arc<Product>>, Unpriced> {
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
    // A product that an admin marked as sold out is still owed to a user who holds units of it.
    let is_owed = |product: &Product| {
        product.fields.status == ProductStatus::SoldOut && benefits.hold_of(product.id).is_some()
    };
    let stopped = products
        .iter()
        .find(|product| product.fields.status != ProductStatus::Active && !is_owed(product));
    match stopped {
        Some(stopped) if !is_offline => Err(Unpriced::ProductNotOnSale(stopped.id)),
        _ => Ok(products),
    }
}

/// Checks that each unit price that the client expects is the current one.
fn check_prices(
    asked: &AskedOrder,
    products: &[Arc<Product>],
    benefits: &Benefits<'_>,
    now_ms: u64,
) -> Result<(), Unpriced> {
    for line in &asked.lines {
        let current = products
            .iter()
            .find(|product| product.id == line.product_id)
            .map(|product| benefits.price_of(product, now_ms).unit_price);
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

/// Merges the lines of each product, in the order of first mention.
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

    use super::{AskedLine, AskedOrder, Benefits, Unpriced, price};
    use crate::catalog::{Catalog, Product, ProductStatus};
    use crate::order::{DeliveryType, Path};
    use crate::quantity::Quantity;

    fn catalog() -> Catalog {
        let catalog = Catalog::default();
        let product = |id, price, status, is_deleted| {
            let mut product = Product::sample(ProductId(id));
            product.fields.price = Money::new(price).unwrap();
            product.fields.status = status;
            product.is_deleted = is_deleted;
            product
        };
        catalog.update(
            vec![
                product(1, 1_000, ProductStatus::Active, false),
                product(2, 700, ProductStatus::Active, false),
                product(3, 1, ProductStatus::SoldOut, false),
                product(4, 1, ProductStatus::Active, true),
                product(5, Money::MAX, ProductStatus::Active, false),
            ],
            Vec::new(),
        );
        catalog
    }

    /// `lines` are (product, quantity, expected unit price or 0 for none).
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
            buyer: None,
            reference: None,
        };
        let got = price(&asked, &catalog(), Benefits::default(), 0).map(|priced| {
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
