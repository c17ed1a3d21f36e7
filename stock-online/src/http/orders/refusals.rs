//! What a refused order means to a client: each reason with its code and its product.

use stock_common::error::Code;
use stock_common::id::ProductId;
use stock_domain::order::{Order, Quantity};
use stock_domain::pricing::Unpriced;
use stock_domain::verdict::Refusal;

use crate::app::App;
use crate::http::problem::Problem;

/// Translates why an order has no price.
pub(super) fn unpriced(reason: Unpriced) -> Problem {
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
pub(super) fn refused(app: &App, order: &Order, refusal: Refusal) -> Problem {
    let product = |posting: usize| order.lines.get(posting).map_or(0, |line| line.product_id.0);
    let insufficient = |posting: usize, available: i64| {
        let text = format!("product {} has {available} left", product(posting));
        Problem::new(Code::InsufficientStock, text)
            .with("productId", product(posting))
            .with("available", available)
    };
    match refusal {
        Refusal::Insufficient { posting, balance } => insufficient(posting, balance),
        // A store that never had the product.
        Refusal::UnknownAccount { posting } => insufficient(posting, 0),
        Refusal::ClosedAccount { posting } => {
            let id = ProductId(product(posting));
            let is_deleted = app.catalog.product(id).is_none_or(|known| known.is_deleted);
            unpriced(if is_deleted {
                Unpriced::ProductNotFound(id)
            } else {
                Unpriced::ProductNotOnSale(id)
            })
        }
        Refusal::Fenced
        | Refusal::KeyReused
        | Refusal::Expired
        | Refusal::Backlog
        | Refusal::Outside(_)
        | Refusal::NotOpen
        | Refusal::Closed
        | Refusal::StaleState { .. }
        | Refusal::SellingStopped
        | Refusal::Broken { .. }
        | Refusal::Overflow { .. } => refusal.into(),
    }
}
