//! Stock that comes in, by delivery or by file, and stock that is corrected by hand.

use serde::{Deserialize, Serialize};
use stock_common::id::{LocationId, ProductId, UserId};

use crate::account::Account;
use crate::journal::{Closing, Draft, DraftError, Idempotency, Kind};
use crate::posting::Posting;
use crate::request::Request;
use crate::transition::Transition;

/// The largest change of a level by one posting.
pub const CHANGE_MAX: i64 = 1_000_000_000_000;

/// The body of an entry that received stock or adjusted it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StockChanged {
    /// The product.
    pub product_id: ProductId,
    /// The location.
    pub location_id: LocationId,
    /// The change, ±1..=10^12.
    pub quantity: i64,
    /// The reason, as a person said it.
    pub reason: String,
}

/// The conditions of a change of stock.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// The balance that must be available for the change to be made.
    pub expected_available: Option<i64>,
    /// Whether the product is off sale. A store's account that the change opens is then closed at
    /// once.
    pub is_off_sale: bool,
}

/// Takes stock in.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn receive(
    change: &StockChanged,
    terms: &Terms,
    actor: UserId,
    idempotency: Option<Idempotency>,
) -> Result<Request, DraftError> {
    moved(Kind::StockReceived, change, terms, actor, idempotency)
}

/// Corrects a level by hand, also of a product that is off sale; never below zero.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn adjust(
    change: &StockChanged,
    terms: &Terms,
    actor: UserId,
    idempotency: Option<Idempotency>,
) -> Result<Request, DraftError> {
    moved(Kind::StockAdjusted, change, terms, actor, idempotency)
}

fn moved(
    kind: Kind,
    change: &StockChanged,
    terms: &Terms,
    actor: UserId,
    idempotency: Option<Idempotency>,
) -> Result<Request, DraftError> {
    let mut draft = Draft::new(kind, actor, change)?;
    let account = Account::available(change.product_id, change.location_id);
    draft.postings = postings(change.product_id, change.location_id, change.quantity);
    if terms.is_off_sale && change.location_id != LocationId::ONLINE {
        draft.closings = vec![opened_closed(account)];
    }
    let mut request = Request::new(draft);
    request.idempotency = idempotency;
    request.allow_closed = true;
    request.expected = terms.expected_available.map(|balance| (account, balance));
    Ok(request)
}

/// Closes a store's account of a product that is off sale, if the entry opens the account.
const fn opened_closed(account: Account) -> Closing {
    Closing {
        account,
        closed: true,
        only_if_opened: true,
    }
}

/// The postings of a change of available stock. The first stock of a product at a store opens both
/// of its accounts there.
fn postings(product: ProductId, location: LocationId, quantity: i64) -> Vec<Posting> {
    let is_store = location != LocationId::ONLINE;
    let change = Posting::new(Account::available(product, location), quantity);
    let mut postings = vec![Posting {
        open: is_store.then_some(0),
        ..change
    }];
    let reserved = Account::reserved(product, location);
    postings.extend(is_store.then(|| Posting::new(reserved, 0).opening(0)));
    postings
}

/// The body of an entry that wrote a part of a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StockImported {
    /// The import.
    pub import_id: u64,
    /// The first and the last line of that part.
    pub lines: (u64, u64),
}

/// One row of a file: a change of available stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportedRow {
    /// Its line in the file, from 1.
    pub line: u64,
    /// The product.
    pub product_id: ProductId,
    /// The location.
    pub location_id: LocationId,
    /// The change, ±1..=10^12.
    pub quantity: i64,
    /// Whether the product is off sale. A store's account that the row opens is then closed at
    /// once.
    pub is_off_sale: bool,
}

/// The id of a file's state, which says the line that was reached.
#[must_use]
pub fn import_state_id(import_id: u64) -> String {
    format!("import:{import_id}")
}

/// Writes the next part of a file, all or nothing. `reached` is the last line of the part before
/// it; none for the first part. A refusal names a posting, and [`imported_row`] finds the posting's
/// row.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn import(
    import_id: u64,
    reached: Option<&str>,
    rows: &[ImportedRow],
    actor: UserId,
) -> Result<Request, DraftError> {
    let line = |row: Option<&ImportedRow>| row.map_or(0, |row| row.line);
    let body = StockImported {
        import_id,
        lines: (line(rows.first()), line(rows.last())),
    };
    let mut draft = Draft::new(Kind::StockImported, actor, &body)?;
    draft.reference = Some(format!("import {import_id}"));
    draft.postings = rows
        .iter()
        .flat_map(|row| postings(row.product_id, row.location_id, row.quantity))
        .collect();
    let closed = rows
        .iter()
        .filter(|row| row.is_off_sale && row.location_id != LocationId::ONLINE);
    draft.closings = closed
        .map(|row| opened_closed(Account::available(row.product_id, row.location_id)))
        .collect();
    draft.transitions = vec![Transition::new(
        import_state_id(import_id),
        reached.unwrap_or_default(),
        body.lines.1.to_string(),
    )];
    let mut request = Request::new(draft);
    request.allow_closed = true;
    Ok(request)
}

/// The row that a posting of [`import`] belongs to.
#[must_use]
pub fn imported_row(rows: &[ImportedRow], posting: usize) -> Option<&ImportedRow> {
    let mut postings = 0;
    rows.iter().find(|row| {
        postings += if row.location_id == LocationId::ONLINE {
            1
        } else {
            2
        };
        posting < postings
    })
}
