//! Invalid sales: sales of tills that could not be taken, kept as they were sent until a person
//! resolves them.
//!
//! A sale is identified by its store, its device and the SHA-256 of its text, so that a till may
//! send a batch as often as it likes. A text that a person has resolved stays resolved. A text that
//! can be read when it is sent again becomes an order or an oversold sale, and its row is closed
//! with a note ([`Reread`]).

use std::collections::HashMap;

use chrono::NaiveDateTime;
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, MySql, MySqlConnection, MySqlPool, QueryBuilder, Transaction};
use stock_common::id::UserId;

use super::rows::{MultiRow, push_list};

/// Unresolved sales that one store may have at a time.
pub const OPEN_MAX: i64 = 10_000;
/// Length of the longest text in bytes. A text of 100 lines with much white space takes half of it.
pub const TEXT_BYTES_MAX: usize = 32 * 1024;
/// Characters of a key, and of a detail, that are kept.
const KEY_CHARS_MAX: usize = 100;
const DETAIL_CHARS_MAX: usize = 500;

/// SHA-256 of a sale's text.
pub type TextHash = [u8; 32];

/// The hash of a text.
#[must_use]
pub fn hash_of(text: &str) -> TextHash {
    Sha256::digest(text.as_bytes()).into()
}

/// An invalid sale that is to be kept.
#[derive(Debug, Clone)]
pub struct InvalidSale<'a> {
    /// The till's key, as far as it could be read.
    pub key: Option<&'a str>,
    /// The text as it was sent.
    pub text: &'a str,
    /// The hash of the text.
    pub text_hash: TextHash,
    /// The code of the problem.
    pub code: &'a str,
    /// The problem in words.
    pub detail: &'a str,
}

/// The stored row of a text.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The id of the row.
    pub id: u64,
    /// Whether the sale waits for a person.
    pub is_open: bool,
    /// Whether a person has resolved the sale, so that its answer is final.
    pub is_final: bool,
    /// The code of the problem.
    pub code: String,
    /// The problem in words.
    pub detail: String,
}

/// An invalid sale as it is stored.
#[derive(Debug, Clone)]
pub struct StoredInvalidSale {
    /// Rises with every sale.
    pub id: u64,
    /// The device that sent the sale; empty when the batch named none.
    pub device_id: String,
    /// The till's key, as far as it could be read: its first 100 characters.
    pub sale_key: Option<String>,
    /// The text as it was sent.
    pub text: String,
    /// The code of the problem.
    pub code: String,
    /// The problem in words.
    pub detail: String,
    /// `INVALID` or `RESOLVED`.
    pub state: String,
    /// The note of the person who resolved the sale, or of [`Reread::end`].
    pub note: Option<String>,
    /// The person who resolved the sale; none for a sale that could be read later.
    pub resolved_by: Option<u64>,
    /// When the sale was resolved, UTC.
    pub resolved_at: Option<NaiveDateTime>,
    /// When the sale was first sent, UTC.
    pub received_at: NaiveDateTime,
}

from_row!(StoredInvalidSale {
    id,
    device_id,
    sale_key,
    text,
    code,
    detail,
    state,
    note,
    resolved_by,
    resolved_at,
    received_at
});

fn start(text: &str, chars_max: usize) -> &str {
    let end = text.char_indices().nth(chars_max);
    end.map_or(text, |(end, _)| text.get(..end).unwrap_or_default())
}

/// Keeps a device's sales, all or none; `false` when the store has no room left.
///
/// # Errors
/// When MySQL does not answer.
pub async fn keep(
    pool: &MySqlPool,
    store: u64,
    device: &str,
    sales: &[InvalidSale<'_>],
) -> Result<bool, sqlx::Error> {
    static INSERT: MultiRow = MultiRow::new(
        "INSERT INTO invalid_sales (store_id, device_id, sale_key, text, text_hash, code, detail) \
         VALUES",
        "(?, ?, ?, ?, ?, ?, ?)",
        "ON DUPLICATE KEY UPDATE store_id = store_id",
    );
    let mut transaction = pool.begin().await?;
    // The lock lets in one batch of a store at a time. So the count is exact, and two batches
    // cannot deadlock on each other's rows.
    sqlx::query("SELECT id FROM locations WHERE id = ? FOR UPDATE")
        .bind(store)
        .execute(&mut *transaction)
        .await?;
    let bytes = |sale: &InvalidSale<'_>| {
        let key = sale.key.map_or(0, |key| key.len().min(4 * KEY_CHARS_MAX));
        device.len() + key + sale.text.len() + 32 + sale.code.len() + 4 * DETAIL_CHARS_MAX
    };
    INSERT
        .execute_sized(&mut transaction, sales, bytes, |query, sale| {
            query
                .bind(store)
                .bind(device.to_owned())
                .bind(sale.key.map(|key| start(key, KEY_CHARS_MAX)))
                .bind(sale.text)
                .bind(sale.text_hash.to_vec())
                .bind(sale.code)
                .bind(start(sale.detail, DETAIL_CHARS_MAX))
        })
        .await?;
    let open: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM invalid_sales WHERE store_id = ? AND state = 'INVALID'",
    )
    .bind(store)
    .fetch_one(&mut *transaction)
    .await?;
    if open > OPEN_MAX {
        transaction.rollback().await?;
        return Ok(false);
    }
    transaction.commit().await?;
    Ok(true)
}

/// Finds the rows of a device's texts; unknown texts are absent.
///
/// # Errors
/// When MySQL does not answer.
pub async fn find(
    pool: &MySqlPool,
    store: u64,
    device: &str,
    hashes: &[TextHash],
) -> Result<HashMap<TextHash, Kept>, sqlx::Error> {
    type Row = (Vec<u8>, u64, String, Option<u64>, String, String);
    let mut found = HashMap::new();
    for part in hashes.chunks(512) {
        let mut query: QueryBuilder<MySql> = QueryBuilder::new(
            "SELECT text_hash, id, CAST(state AS CHAR), resolved_by, code, detail \
             FROM invalid_sales WHERE store_id = ",
        );
        query.push_bind(store);
        query.push(" AND device_id = ").push_bind(device);
        query.push(" AND text_hash IN ");
        let part: Vec<&[u8]> = part.iter().map(<[u8; 32]>::as_slice).collect();
        push_list(&mut query, &part);
        let rows: Vec<Row> = query.build_query_as().fetch_all(pool).await?;
        for (hash, id, state, resolved_by, code, detail) in rows {
            let kept = Kept {
                id,
                is_open: state == "INVALID",
                is_final: resolved_by.is_some(),
                code,
                detail,
            };
            found.extend(TextHash::try_from(hash).ok().map(|hash| (hash, kept)));
        }
    }
    Ok(found)
}

/// Kept sales that can be read now. Their rows stay locked while the sales are decided, so that no
/// person resolves one meanwhile.
#[derive(Debug)]
pub struct Reread {
    transaction: Option<Transaction<'static, MySql>>,
    open: Vec<u64>,
}

impl Reread {
    /// Locks the rows that no person has resolved. Until [`Reread::end`] the caller must not ask
    /// the pool for another connection, unless there are no rows.
    ///
    /// # Errors
    /// When MySQL does not answer.
    pub async fn begin(pool: &MySqlPool, ids: &[u64]) -> Result<Self, sqlx::Error> {
        let mut open = Vec::with_capacity(ids.len());
        if ids.is_empty() {
            let transaction = None;
            return Ok(Self { transaction, open });
        }
        let mut transaction = pool.begin().await?;
        for part in ids.chunks(512) {
            let mut query: QueryBuilder<MySql> =
                QueryBuilder::new("SELECT id FROM invalid_sales WHERE id IN ");
            push_list(&mut query, part);
            query.push(" AND resolved_by IS NULL ORDER BY id FOR UPDATE");
            let rows: Vec<u64> = query
                .build_query_scalar()
                .fetch_all(&mut *transaction)
                .await?;
            open.extend(rows);
        }
        let transaction = Some(transaction);
        Ok(Self { transaction, open })
    }

    /// Whether no person had resolved this sale.
    #[must_use]
    pub fn has(&self, id: u64) -> bool {
        self.open.contains(&id)
    }

    /// Closes rows, each with a note that says what became of the sale, and commits.
    ///
    /// # Errors
    /// When MySQL does not answer.
    pub async fn end(self, closed: &[(u64, String)]) -> Result<(), sqlx::Error> {
        let Some(mut transaction) = self.transaction else {
            return Ok(());
        };
        for (id, note) in closed {
            sqlx::query(
                "UPDATE invalid_sales SET state = 'RESOLVED', note = ?, resolved_at = NOW(3) \
                 WHERE id = ? AND state = 'INVALID'",
            )
            .bind(note)
            .bind(id)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await
    }
}

/// Lists a store's resolved or unresolved sales, newest first, with ids below `before`.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(
    pool: &MySqlPool,
    store: u64,
    is_resolved: bool,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<StoredInvalidSale>, sqlx::Error> {
    let text = "SELECT id, device_id, sale_key, text, code, detail, CAST(state AS CHAR) AS state, \
                note, resolved_by, resolved_at, received_at FROM invalid_sales \
                WHERE store_id = ? AND state = ? AND id < ? ORDER BY id DESC LIMIT ?";
    sqlx::query_as(AssertSqlSafe(text))
        .bind(store)
        .bind(if is_resolved { "RESOLVED" } else { "INVALID" })
        .bind(before.unwrap_or(u64::MAX))
        .bind(limit)
        .fetch_all(pool)
        .await
}

/// Notes that a person has resolved a sale; `false` when there is none to resolve.
///
/// # Errors
/// When MySQL does not answer.
pub async fn resolve(
    connection: &mut MySqlConnection,
    store: u64,
    id: u64,
    by: UserId,
    note: &str,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE invalid_sales SET state = 'RESOLVED', note = ?, resolved_by = ?, \
         resolved_at = NOW(3) WHERE id = ? AND store_id = ? AND state = 'INVALID'",
    )
    .bind(note)
    .bind(by.0)
    .bind(id)
    .bind(store)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}
