//! The reasons why an order has no price, each with its code and its product.

use stock_common::id::ProductId;
use stock_domain::pricing::Unpriced;
use stock_domain::quantity::Quantity;

use crate::http::code::Code;
use crate::http::problem::Problem;

/// Translates the reason why an order has no price.
pub(in crate::http) fn unpriced(reason: Unpriced) -> Problem {
    match reason {
        Unpriced::ProductNotFound(ProductId::NONE) => {
            Problem::new(Code::ProductNotFound, "no product has this sku")
        }
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
        Unpriced::PointsTooMany { payable } => {
            Problem::unprocessable("/usePoints", format!("there is only {payable} to pay"))
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
