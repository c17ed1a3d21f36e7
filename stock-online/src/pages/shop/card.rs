//! A product as the shop shows it: its price, what is left, and whether it can be bought now.

use std::collections::HashMap;
use std::sync::Arc;

use stock_common::id::LocationId;
use stock_domain::account::{Account, Level};
use stock_domain::catalog::{Product, ProductStatus};
use stock_domain::sale::{Sale, SaleState};

use crate::http::problem::Problem;
use crate::pages::context::PageContext;

/// The number of units that are shown as the last ones, unless the product's own `minStockLevel` is
/// higher.
const LAST_UNITS: i64 = 5;

/// The state that the button of a product shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuyState {
    /// Its sale has not begun.
    Soon,
    /// It can be bought.
    Buy,
    /// It can be bought, and few are left.
    LastUnits,
    /// None is left, for now.
    SoldOut,
    /// The reader has what the sale allows one buyer.
    LimitReached,
    /// Its sale is over, or it is not sold any more.
    Ended,
}

impl BuyState {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Soon,
        Self::Buy,
        Self::LastUnits,
        Self::SoldOut,
        Self::LimitReached,
        Self::Ended,
    ];

    /// Its name in the page; the id of its text is `buy-<name>`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Soon => "soon",
            Self::Buy => "buy",
            Self::LastUnits => "last-units",
            Self::SoldOut => "sold-out",
            Self::LimitReached => "limit-reached",
            Self::Ended => "ended",
        }
    }

    /// Whether it can be bought.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Buy | Self::LastUnits)
    }

    /// Decides the state from, in this order: the product, its sale's time, the units left, the
    /// reader's limit.
    fn of(status: ProductStatus, sale: Option<SaleState>, left: Left) -> Self {
        match (status, sale) {
            (ProductStatus::EndOfSale | ProductStatus::Inactive, _)
            | (_, Some(SaleState::Over)) => Self::Ended,
            (ProductStatus::SoldOut, _) => Self::SoldOut,
            (ProductStatus::Active, Some(SaleState::Upcoming)) => Self::Soon,
            (ProductStatus::Active, _) if left.available <= 0 => Self::SoldOut,
            (ProductStatus::Active, _) if left.of_limit == Some(0) => Self::LimitReached,
            (ProductStatus::Active, _) if left.available <= left.last_units => Self::LastUnits,
            (ProductStatus::Active, _) => Self::Buy,
        }
    }
}

/// The units that are left of a product.
#[derive(Debug, Clone, Copy)]
struct Left {
    available: i64,
    last_units: i64,
    /// Units that the sale still allows the reader.
    of_limit: Option<i64>,
}

/// A product on a page.
pub struct Card {
    /// The product.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
    /// Its price.
    pub price: i64,
    /// The price of a unit now.
    pub unit_price: i64,
    /// How much `unit_price` is below `price`, in percent, rounded down.
    pub off_percent: i64,
    /// Units left.
    pub available: i64,
    /// The highest number of units that this instance has seen.
    pub peak: i64,
    /// The number of units that are shown as the last ones.
    pub last_units: i64,
    /// Whether it can be bought.
    pub state: BuyState,
    /// When its sale begins, in Unix ms, if it has not.
    pub starts_ms: Option<i64>,
    /// When its sale ends, in Unix ms, if it has not.
    pub ends_ms: Option<i64>,
    /// Units that one buyer may have.
    pub limit: Option<i64>,
}

/// The sale whose price and limit count now.
fn counting(product: &Product, now_ms: u64) -> Option<&Sale> {
    product.sale.as_ref().filter(|sale| sale.counts(now_ms))
}

impl Card {
    /// The cards of some products.
    ///
    /// # Errors
    /// 503 when Redis does not answer.
    pub async fn of_all(
        context: &PageContext,
        products: &[Arc<Product>],
    ) -> Result<Vec<Self>, Problem> {
        let user = context.caller.map(|caller| caller.user);
        let now_ms = context.app.ledger.redis_now_ms();
        let limited = |product: &Product| counting(product, now_ms)?.allowance();
        let allowance =
            |product: &Product| Some(Account::allowance(limited(product)?.sale_id, user?));
        let online = |product: &Product| Account::available(product.id, LocationId::ONLINE);
        let mut names: Vec<Account> = products.iter().map(|product| online(product)).collect();
        names.extend(products.iter().filter_map(|product| allowance(product)));
        let found = context.app.ledger.recent_levels(&names).await?.levels;
        let levels: HashMap<Account, Level> = names
            .into_iter()
            .zip(found)
            .filter_map(|(account, found)| Some((account, found.level?)))
            .collect();
        let card = |product: &Arc<Product>| {
            let available = levels
                .get(&online(product))
                .map_or(0, |level| level.balance);
            let of_limit = allowance(product).and_then(|account| levels.get(&account));
            let left = Left {
                available,
                last_units: product.fields.min_stock_level.max(LAST_UNITS),
                // The account counts down from a number above the limit.
                of_limit: of_limit
                    .zip(limited(product))
                    .map(|(level, limit)| (level.balance - limit.least()).max(0)),
            };
            let peak = context.app.live.levels.peak(online(product), available);
            Self::new(product, left, peak, now_ms)
        };
        Ok(products.iter().map(card).collect())
    }

    fn new(product: &Product, left: Left, peak: i64, now_ms: u64) -> Self {
        let fields = &product.fields;
        let (sale, counting) = (product.sale.as_ref(), counting(product, now_ms));
        let unit_price = product.unit_price(now_ms).get();
        let price = fields.price.get();
        let off = price - unit_price;
        let state = sale.map(|sale| sale.state(now_ms));
        let time = |states: &[SaleState], at: fn(&Sale) -> u64| {
            sale.filter(|_| state.is_some_and(|state| states.contains(&state)))
                .map(|sale| i64::try_from(at(sale)).unwrap_or(i64::MAX))
        };
        Self {
            id: product.id.0,
            name: fields.name.clone(),
            description: fields.description.clone(),
            price,
            unit_price,
            off_percent: if price > 0 && off > 0 {
                // Prices are below 2^53, so nothing saturates.
                off.saturating_mul(100) / price
            } else {
                0
            },
            available: left.available,
            peak,
            last_units: left.last_units,
            // Before and after its sale a product that is always sold is like one without a sale.
            state: BuyState::of(fields.status, counting.and(state), left),
            starts_ms: time(&[SaleState::Upcoming], |sale| sale.starts_ms),
            ends_ms: time(&[SaleState::Upcoming, SaleState::Running], |sale| {
                sale.ends_ms
            }),
            limit: counting.and_then(|sale| sale.limit_per_user).map(i64::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use stock_domain::catalog::ProductStatus::{self, Active, EndOfSale, SoldOut};
    use stock_domain::sale::SaleState::{self, Over, Running, Upcoming};

    use super::{BuyState, Left};

    fn check(
        status: ProductStatus,
        sale: Option<SaleState>,
        available: i64,
        of_limit: Option<i64>,
        expected: BuyState,
    ) {
        let left = Left {
            available,
            last_units: 5,
            of_limit,
        };
        let state = BuyState::of(status, sale, left);
        assert_eq!(state, expected, "{status:?} {sale:?} {left:?}");
    }

    #[test]
    fn the_button_says_what_would_happen() {
        check(Active, None, 6, None, BuyState::Buy);
        check(Active, None, 5, None, BuyState::LastUnits);
        check(Active, None, 0, None, BuyState::SoldOut);
        check(Active, Some(Upcoming), 6, None, BuyState::Soon);
        check(Active, Some(Upcoming), 0, None, BuyState::Soon);
        check(Active, Some(Running), 6, Some(1), BuyState::Buy);
        check(Active, Some(Running), 6, Some(0), BuyState::LimitReached);
        check(Active, Some(Running), 0, Some(0), BuyState::SoldOut);
        check(Active, Some(Over), 6, None, BuyState::Ended);
        check(SoldOut, None, 6, None, BuyState::SoldOut);
        check(EndOfSale, None, 6, None, BuyState::Ended);
    }
}
