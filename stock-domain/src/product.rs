//! Products in the ledger: opening their accounts, taking them off sale, and putting them on sale
//! again.
//!
//! Name, price and description live in MySQL (`products` of `stock-mysql`). Whether stock may be
//! taken is a flag on the accounts, because that must count everywhere at once.

use serde::{Deserialize, Serialize};
use stock_common::id::{LocationId, ProductId, UserId};

use crate::account::Account;
use crate::journal::{Closing, Draft, DraftError, Kind};
use crate::posting::Posting;
use crate::request::Request;
use crate::transition::Transition;

/// The body of the entry that opened a product's accounts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProductOpened {
    /// The product.
    pub product_id: ProductId,
}

/// The body of the entry that closed or opened a product for sale.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProductSwitched {
    /// The product.
    pub product_id: ProductId,
    /// Whether the product is closed for sale.
    pub closed: bool,
}

/// Opens the accounts of a new product in the online warehouse, once, at 0.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn open(product: ProductId, actor: UserId) -> Result<Request, DraftError> {
    let opened = |account| Posting::new(account, 0).opening(0);
    let mut draft = Draft::new(
        Kind::ProductOpened,
        actor,
        &ProductOpened {
            product_id: product,
        },
    )?;
    draft.postings = vec![
        opened(Account::available(product, LocationId::ONLINE)),
        opened(Account::reserved(product, LocationId::ONLINE)),
    ];
    let id = format!("opened:{product}");
    draft.transitions = vec![Transition::new(id, "", "OPEN".to_owned())];
    Ok(Request::new(draft))
}

/// Takes a product off sale at every location, or puts it on sale again.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn switch(
    product: ProductId,
    closed: bool,
    locations: &[LocationId],
    actor: UserId,
) -> Result<Request, DraftError> {
    let body = ProductSwitched {
        product_id: product,
        closed,
    };
    let mut draft = Draft::new(Kind::ProductSwitched, actor, &body)?;
    let close = |&location| Closing {
        account: Account::available(product, location),
        closed,
        only_if_opened: false,
    };
    draft.closings = locations.iter().map(close).collect();
    let mut request = Request::new(draft);
    request.allow_backlog = true;
    Ok(request)
}
