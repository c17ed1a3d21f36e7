//! Payments in MySQL, and what became of each.

use sqlx::{MySql, MySqlConnection, MySqlPool, QueryBuilder};
use stock_common::id::Position;
use stock_common::money::Money;
use stock_domain::checkout::PaymentOutcome;

use super::rows::MultiRow;

static INSERT: MultiRow = MultiRow::new(
    "INSERT INTO payments (id, payment_id, checkout_id, amount, outcome) VALUES",
    "(?, ?, ?, ?, ?)",
    "ON DUPLICATE KEY UPDATE outcome = VALUES(outcome)",
);

/// A payment as MySQL has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPayment {
    /// The position of the entry that says what became of it; of a confirmed one also the order.
    pub id: Position,
    /// The payment provider's id.
    pub payment_id: String,
    /// The checkout that it was for.
    pub checkout_id: Position,
    /// The amount that was paid.
    pub amount: Money,
    /// Its outcome.
    pub outcome: PaymentOutcome,
}

/// The filter of [`list`].
#[derive(Debug, Clone, Default)]
pub struct PaymentFilter {
    /// Only payments of this checkout.
    pub checkout: Option<Position>,
    /// Only payments that are to be refunded.
    pub is_refund_due: bool,
    /// Only payments with ids below this one.
    pub before: Option<Position>,
    /// Largest number of payments.
    pub limit: u32,
}

/// Inserts payments. A confirmed one may be there already, because its order was a dead letter.
///
/// # Errors
/// When MySQL does not answer, or a value does not fit.
pub async fn insert(
    connection: &mut MySqlConnection,
    paid: &[StoredPayment],
) -> Result<(), sqlx::Error> {
    INSERT
        .execute(connection, paid, |query, of| {
            query
                .bind(of.id.get())
                .bind(of.payment_id.as_str())
                .bind(of.checkout_id.get())
                .bind(of.amount.get())
                .bind(of.outcome.as_str())
        })
        .await
}

type Row = (u64, String, u64, i64, String);

fn parse((id, payment_id, checkout, amount, outcome): Row) -> Option<StoredPayment> {
    Some(StoredPayment {
        id: Position::new(id),
        payment_id,
        checkout_id: Position::new(checkout),
        amount: Money::new(amount).ok()?,
        outcome: PaymentOutcome::parse(&outcome)?,
    })
}

/// Lists payments, newest first. To be refunded are payments that sold nothing, and payments whose
/// order could not be stored.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(
    pool: &MySqlPool,
    filter: &PaymentFilter,
) -> Result<Vec<StoredPayment>, sqlx::Error> {
    let mut query: QueryBuilder<MySql> = QueryBuilder::new(
        "SELECT p.id, p.payment_id, p.checkout_id, p.amount, CAST(p.outcome AS CHAR) \
         FROM payments p WHERE p.id < ",
    );
    query.push_bind(filter.before.map_or(u64::MAX, Position::get));
    if let Some(checkout) = filter.checkout {
        query
            .push(" AND p.checkout_id = ")
            .push_bind(checkout.get());
    }
    if filter.is_refund_due {
        query.push(
            " AND IF(p.outcome = 'CONFIRMED', \
             EXISTS (SELECT 1 FROM orders o WHERE o.id = p.id AND o.status = 'FAIL') OR EXISTS \
             (SELECT 1 FROM dead_letters d WHERE d.journal_id = p.id AND d.state = 'COMPENSATED'), \
             NOT EXISTS (SELECT 1 FROM payments c WHERE c.checkout_id = p.checkout_id \
             AND c.payment_id = p.payment_id AND c.outcome = 'CONFIRMED'))",
        );
    }
    query
        .push(" ORDER BY p.id DESC LIMIT ")
        .push_bind(filter.limit);
    let rows: Vec<Row> = query.build_query_as().fetch_all(pool).await?;
    Ok(rows.into_iter().filter_map(parse).collect())
}

/// The outcome of a payment, as far as MySQL knows.
///
/// # Errors
/// When MySQL does not answer.
pub async fn outcome(
    pool: &MySqlPool,
    checkout: Position,
    payment_id: &str,
) -> Result<Option<PaymentOutcome>, sqlx::Error> {
    let found: Option<String> = sqlx::query_scalar(
        "SELECT CAST(outcome AS CHAR) FROM payments WHERE checkout_id = ? AND payment_id = ? \
         ORDER BY id DESC LIMIT 1",
    )
    .bind(checkout.get())
    .bind(payment_id)
    .fetch_optional(pool)
    .await?;
    Ok(found.and_then(|outcome| PaymentOutcome::parse(&outcome)))
}
