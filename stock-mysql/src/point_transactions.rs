//! Movements of points in MySQL: postings of `POINTS` accounts with their reasons.

use sqlx::{AssertSqlSafe, MySqlConnection, MySqlPool};
use stock_common::id::{Position, UserId};
use stock_domain::points::{PointTransaction, PointType};

use super::rows::MultiRow;

static INSERT: MultiRow = MultiRow::new(
    "INSERT INTO point_transactions (user_id, seq, id, type, delta, balance_snapshot, description, \
     order_id, cancels_id) VALUES",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "",
);

/// Inserts movements of points.
///
/// # Errors
/// When MySQL does not answer, or a value does not fit.
pub async fn insert(
    connection: &mut MySqlConnection,
    moved: &[PointTransaction],
) -> Result<(), sqlx::Error> {
    INSERT
        .execute(connection, moved, |query, of| {
            query
                .bind(of.user_id.0)
                .bind(of.seq)
                .bind(of.id.get())
                .bind(of.point_type.as_str())
                .bind(of.delta)
                .bind(of.balance_snapshot)
                .bind(of.description.as_str())
                .bind(of.order_id.map(Position::get))
                .bind(of.cancels_id.map(Position::get))
        })
        .await
}

/// Removes the movements of an entry.
///
/// # Errors
/// When MySQL does not answer.
pub async fn delete(connection: &mut MySqlConnection, id: Position) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM point_transactions WHERE id = ?")
        .bind(id.get())
        .execute(connection)
        .await?;
    Ok(())
}

type Row = (
    u64,
    u64,
    u64,
    String,
    i64,
    i64,
    String,
    Option<u64>,
    Option<u64>,
);

const COLUMNS: &str = "SELECT user_id, seq, id, CAST(type AS CHAR), delta, balance_snapshot, \
     description, order_id, cancels_id FROM point_transactions";

fn parse(row: Row) -> Option<PointTransaction> {
    let (user, seq, id, point_type, delta, balance_snapshot, description, order, cancels) = row;
    Some(PointTransaction {
        id: Position::new(id),
        user_id: UserId(user),
        seq,
        point_type: PointType::parse(&point_type)?,
        delta,
        balance_snapshot,
        description,
        order_id: order.map(Position::new),
        cancels_id: cancels.map(Position::new),
    })
}

/// A user's movements with a `seq` below `before`, newest first.
///
/// # Errors
/// When MySQL does not answer.
pub async fn of_user(
    pool: &MySqlPool,
    user: UserId,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<PointTransaction>, sqlx::Error> {
    let text = format!("{COLUMNS} WHERE user_id = ? AND seq < ? ORDER BY seq DESC LIMIT ?");
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(text))
        .bind(user.0)
        .bind(before.unwrap_or(u64::MAX))
        .bind(limit)
        .fetch_all(pool)
        .await?;
    Ok(rows.into_iter().filter_map(parse).collect())
}

/// The number of a user's movements. Their `seq` has no gap, so it is read from the first and the
/// last one.
///
/// # Errors
/// When MySQL does not answer.
pub async fn count_of(pool: &MySqlPool, user: UserId) -> Result<u64, sqlx::Error> {
    let bounds: Option<(u64, u64)> = sqlx::query_as(
        "SELECT MIN(seq), MAX(seq) FROM point_transactions WHERE user_id = ? HAVING MIN(seq) > 0",
    )
    .bind(user.0)
    .fetch_optional(pool)
    .await?;
    Ok(bounds.map_or(0, |(first, last)| last - first + 1))
}

/// The movements between two ids, both included, in the order of id and `seq`; for `verify`.
///
/// # Errors
/// When MySQL does not answer.
pub async fn between(
    pool: &MySqlPool,
    first: Position,
    last: Position,
) -> Result<Vec<PointTransaction>, sqlx::Error> {
    let text = format!("{COLUMNS} WHERE id BETWEEN ? AND ? ORDER BY id, seq");
    let rows: Vec<Row> = sqlx::query_as(AssertSqlSafe(text))
        .bind(first.get())
        .bind(last.get())
        .fetch_all(pool)
        .await?;
    Ok(rows.into_iter().filter_map(parse).collect())
}

/// The movements of an entry; none when it moved no points, or is not settled.
///
/// # Errors
/// When MySQL does not answer.
pub async fn of_entry(
    pool: &MySqlPool,
    id: Position,
) -> Result<Vec<PointTransaction>, sqlx::Error> {
    between(pool, id, id).await
}

/// Whether a movement was cancelled.
///
/// # Errors
/// When MySQL does not answer.
pub async fn is_cancelled(pool: &MySqlPool, id: Position) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM point_transactions WHERE cancels_id = ?)")
        .bind(id.get())
        .fetch_one(pool)
        .await
}

/// Notes the order for which a branch moved points. The order's id is known since the branch was
/// confirmed.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_order(
    connection: &mut MySqlConnection,
    branch: Position,
    order: Position,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE point_transactions SET order_id = ? WHERE id = ? AND order_id IS NULL")
        .bind(order.get())
        .bind(branch.get())
        .execute(connection)
        .await?;
    Ok(())
}
