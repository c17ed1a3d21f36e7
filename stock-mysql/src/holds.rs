//! Holds in MySQL: live reservations and open checkouts alike, for what treats both alike.

use std::collections::{BTreeMap, HashSet};

use sqlx::{MySql, MySqlConnection, MySqlPool, QueryBuilder};
use stock_common::id::Position;
use stock_domain::account::Account;
use stock_domain::hold::{Held, HoldKind};

use super::rows::push_list;
use super::{checkouts, reservations};

/// A live hold as MySQL has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveHold {
    /// The hold.
    pub held: Held,
    /// Its deadline, in Unix ms of Redis' clock.
    pub expires_ms: u64,
}

/// Live holds after an id, in order.
///
/// # Errors
/// When MySQL does not answer.
pub async fn live(
    connection: &mut MySqlConnection,
    after: Position,
    limit: u32,
) -> Result<Vec<LiveHold>, sqlx::Error> {
    let mut found = BTreeMap::new();
    for of in reservations::pending(connection, after, limit).await? {
        let hold = LiveHold {
            held: of.reservation.held(of.id),
            expires_ms: of.reservation.expires_ms(of.id),
        };
        found.insert(of.id, hold);
    }
    for of in checkouts::open(connection, after, limit).await? {
        let hold = LiveHold {
            held: of.checkout.held(of.id),
            expires_ms: of.extended.until_ms,
        };
        found.insert(of.id, hold);
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(found.into_values().take(limit).collect())
}

/// The hold as MySQL has it, if it is live.
///
/// # Errors
/// When MySQL does not answer.
pub async fn find_live(pool: &MySqlPool, id: Position) -> Result<Option<LiveHold>, sqlx::Error> {
    let after = Position::new(id.get().saturating_sub(1));
    let found = live(&mut *pool.acquire().await?, after, 1).await?;
    Ok(found.into_iter().find(|hold| hold.held.id == id))
}

/// The ids of those holds that are live.
///
/// # Errors
/// When MySQL does not answer.
pub async fn live_of(pool: &MySqlPool, ids: &[Position]) -> Result<HashSet<Position>, sqlx::Error> {
    const LIVE: [&str; 2] = [
        "SELECT id FROM reservations WHERE status = 'PENDING' AND id IN ",
        "SELECT id FROM checkouts WHERE status = 'OPEN' AND id IN ",
    ];
    let mut found = HashSet::with_capacity(ids.len());
    for part in ids.chunks(500) {
        let ids: Vec<_> = part.iter().map(|id| id.get()).collect();
        for text in LIVE {
            let mut query: QueryBuilder<MySql> = QueryBuilder::new(text);
            push_list(&mut query, &ids);
            let rows: Vec<u64> = query.build_query_scalar().fetch_all(pool).await?;
            found.extend(rows.into_iter().map(Position::new));
        }
    }
    Ok(found)
}

/// Whether MySQL has a row of the hold, live or over.
///
/// # Errors
/// When MySQL does not answer.
pub async fn is_known(pool: &MySqlPool, held: &Held) -> Result<bool, sqlx::Error> {
    Ok(match held.kind {
        HoldKind::Reservation => reservations::find(pool, held.id).await?.is_some(),
        HoldKind::Checkout => checkouts::find(pool, held.id).await?.is_some(),
    })
}

/// The order that took the hold, if MySQL knows it.
///
/// # Errors
/// When MySQL does not answer.
pub async fn order_of(pool: &MySqlPool, held: &Held) -> Result<Option<Position>, sqlx::Error> {
    Ok(match held.kind {
        HoldKind::Reservation => {
            let found = reservations::find(pool, held.id).await?;
            found.and_then(|found| found.order_id)
        }
        HoldKind::Checkout => {
            let found = checkouts::find(pool, held.id).await?;
            found.and_then(|found| found.course.order_id)
        }
    })
}

/// The entry that ended a hold: it gives the user's hold back and refers to this hold. `None` when
/// there is none, or when it cannot be found because users were not limited.
///
/// # Errors
/// When MySQL does not answer.
pub async fn ended_by(pool: &MySqlPool, held: &Held) -> Result<Option<Position>, sqlx::Error> {
    let account = Account::hold(held.user_id, held.hold_limit);
    let id: Option<u64> = sqlx::query_scalar(
        "SELECT j.id FROM postings p JOIN journal j ON j.id = p.journal_id \
         WHERE p.kind = ? AND p.owner_id = ? AND p.place_id = ? AND p.journal_id > ? \
         AND p.delta > 0 AND j.reference = ? LIMIT 1",
    )
    .bind(account.kind.as_str())
    .bind(account.owner)
    .bind(account.location)
    .bind(held.id.get())
    .bind(held.id.to_string())
    .fetch_optional(pool)
    .await?;
    Ok(id.map(Position::new))
}
