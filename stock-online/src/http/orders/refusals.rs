//! What a refused order means to a client: each reason with its code and its product.

use stock_common::error::Code;
use stock_common::id::{LocationId, ProductId};
use stock_domain::account::{Account, AccountKind};
use stock_domain::order::Quantity;
use stock_domain::pricing::Unpriced;
use stock_domain::verdict::Refusal;

use super::Placing;
use crate::app::App;
use crate::http::problem::Problem;
use crate::http::reservations::ended_otherwise;

/// Translates why an order has no price.
pub(in crate::http) fn unpriced(reason: Unpriced) -> Problem {
    match reason {
        Unpriced::ProductNotFound(id) => {
            Problem::new(Code::ProductNotFound, format!("there is no product {id}"))
                .with("productId", id.0)
        }
        Unpriced::CatalogUnread => Problem::of(Code::DatabaseUnavailable),
        Unpriced::ProductNotOnSale(id) => Problem::new(
            Code::ProductNotOnSale,
            format!("product {id} cannot be ordered now"),
        )
        .with("productId", id.0),
        Unpriced::PriceChanged { product, expected } => {
            let text = format!("the unit price of product {product} is {expected}");
            Problem::new(Code::PriceChanged, text)
                .with("productId", product.0)
                .with("expected", expected.get())
        }
        Unpriced::TotalAmountMismatch { expected } => Problem::new(
            Code::TotalAmountMismatch,
            format!("the total amount is {expected}"),
        )
        .with("expected", expected.get()),
        Unpriced::QuantityTooLarge(id) => Problem::unprocessable(
            "/orderProducts",
            format!(
                "the quantities of product {id} add up to more than {}",
                Quantity::MAX
            ),
        ),
        Unpriced::AmountTooLarge => {
            Problem::unprocessable("/orderProducts", "the amount is too large")
        }
    }
}

/// Translates a refusal of an order's verdict, naming the product of the posting.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what else there is means the same to every request"
)]
pub(super) fn refused(app: &App, placing: &Placing, refusal: Refusal) -> Problem {
    let held = placing.held.as_ref().map(|(held, _)| held);
    let postings = placing.order.postings(held);
    let account = |posting: usize| postings.get(posting).map(|posting| posting.account);
    if let Some((posting, left)) = refusal.short() {
        return short(placing, account(posting), left);
    }
    match &refusal {
        Refusal::ClosedAccount { posting } => {
            let owner = account(*posting).map_or(0, |account| account.owner);
            off_sale(app, ProductId(owner))
        }
        // The reservation ran out before the sale did.
        Refusal::Closed if placing.has_run_out(app.ledger.redis_now_ms()) => {
            Problem::of(Code::ReservationAlreadyExpired)
        }
        // It has ended otherwise: no other mark is asked for by an order.
        _ => ended_otherwise(&refusal).unwrap_or_else(|| refusal.into()),
    }
}

/// What an account that holds too little means to a buyer.
pub(in crate::http) fn short_of(account: Account, left: i64) -> Problem {
    match account.kind {
        AccountKind::Allowance => Problem::new(
            Code::PurchaseLimitReached,
            format!("the sale allows this buyer {left} more"),
        )
        .with("remaining", left),
        AccountKind::Hold => Problem::new(
            Code::HoldLimitReached,
            format!("at most {} reservations may be live", account.place),
        ),
        AccountKind::Available
        | AccountKind::Reserved
        | AccountKind::Coupon
        | AccountKind::Points => Problem::new(
            Code::InsufficientStock,
            format!("product {} has {left} left", account.owner),
        )
        .with("productId", account.owner)
        .with("available", left),
    }
}

fn short(placing: &Placing, account: Option<Account>, left: i64) -> Problem {
    let problem = short_of(
        account.unwrap_or_else(|| Account::available(ProductId(0), LocationId::ONLINE)),
        left,
    );
    let of_sale = placing.order.lines.iter().find(|line| {
        let sale = line.allowance.map(|allowance| allowance.sale_id.0);
        account.is_some_and(|account| sale == Some(account.owner))
    });
    match (problem.code, of_sale) {
        (Code::PurchaseLimitReached, Some(line)) => problem.with("productId", line.product_id.0),
        _ => problem,
    }
}

/// What a closed account means: its product was deleted, or is off sale.
pub(in crate::http) fn off_sale(app: &App, id: ProductId) -> Problem {
    let is_deleted = app.catalog.product(id).is_none_or(|known| known.is_deleted);
    unpriced(if is_deleted {
        Unpriced::ProductNotFound(id)
    } else {
        Unpriced::ProductNotOnSale(id)
    })
}
