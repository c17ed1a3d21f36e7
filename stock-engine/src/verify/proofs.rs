//! Remembers how far each subject is verified, so that a run need not begin at zero.

use std::collections::HashMap;

use sqlx::MySqlPool;
use stock_mysql::rows::MultiRow;

/// How far a subject is verified: an account's `seq` and its balance there, or an entry's number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Verified {
    pub(super) upto: u64,
    pub(super) balance: i64,
}

/// Reads how far some subjects are verified.
pub(super) async fn verified(
    pool: &MySqlPool,
    subjects: &[String],
) -> Result<HashMap<String, Verified>, sqlx::Error> {
    let mut known = HashMap::new();
    for part in subjects.chunks(256) {
        let mut query: sqlx::QueryBuilder<sqlx::MySql> = sqlx::QueryBuilder::new(
            "SELECT subject, proved, balance FROM proofs WHERE subject IN (",
        );
        let mut list = query.separated(", ");
        for subject in part {
            list.push_bind(subject);
        }
        query.push(")");
        let rows: Vec<(String, u64, i64)> = query.build_query_as().fetch_all(pool).await?;
        let rows = rows.into_iter();
        known.extend(rows.map(|(subject, upto, balance)| (subject, Verified { upto, balance })));
    }
    Ok(known)
}

/// Notes how far subjects are verified now.
pub(super) async fn remember(
    pool: &MySqlPool,
    subjects: &[(String, Verified)],
) -> Result<(), sqlx::Error> {
    static WRITE: MultiRow = MultiRow::new(
        "INSERT INTO proofs (subject, proved, balance) VALUES",
        "(?, ?, ?)",
        "ON DUPLICATE KEY UPDATE proved = VALUES(proved), balance = VALUES(balance)",
    );
    let mut connection = pool.acquire().await?;
    WRITE
        .execute(&mut connection, subjects, |query, (subject, verified)| {
            query
                .bind(subject)
                .bind(verified.upto)
                .bind(verified.balance)
        })
        .await
}
