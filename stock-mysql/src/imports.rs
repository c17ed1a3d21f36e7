//! Imports: files of stock, and their rows from the check until they are written.

use sqlx::{MySql, MySqlConnection, MySqlPool, QueryBuilder};
use stock_common::id::{LocationId, ProductId, UserId};
use stock_domain::stock::ImportedRow;

use super::rows::{MultiRow, push_list};

/// The state of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportState {
    /// The rows are being checked.
    Staging,
    /// The rows are being written.
    Applying,
    /// The rows are written.
    Done,
}

impl ImportState {
    /// The name in the table and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Staging => "STAGING",
            Self::Applying => "APPLYING",
            Self::Done => "DONE",
        }
    }

    /// The state that has this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Staging, Self::Applying, Self::Done]
            .into_iter()
            .find(|state| state.as_str() == name)
    }
}

/// An import of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The number of the import.
    pub id: u64,
    /// The user who sent the file.
    pub actor: UserId,
    /// The state of the import.
    pub state: ImportState,
    /// Number of rows, including those that change nothing.
    pub total: u64,
    /// Number of written rows, including those that change nothing; 0 until the import is done.
    pub applied: u64,
    /// Number of rows that could not be written; 0 until the import is done.
    pub failed: u64,
}

/// The key of an import, and the fingerprint of its request; 16 bytes each.
#[derive(Debug, Clone)]
pub struct ImportKey {
    /// Hash of the user and the Idempotency-Key.
    pub key_hash: Vec<u8>,
    /// Hash of the file.
    pub fingerprint: Vec<u8>,
}

/// A row that waits to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StagedRow {
    /// The line in the file, from 1.
    pub line: u64,
    /// The product.
    pub product_id: ProductId,
    /// The location.
    pub location_id: LocationId,
    /// The change, in units.
    pub delta: i64,
}

type Row = (u64, u64, String, u64, u64, u64);
const COLUMNS: &str =
    "SELECT id, actor_id, CAST(state AS CHAR), total, applied, failed FROM imports";

fn parse((id, actor, state, total, applied, failed): Row) -> Option<Import> {
    Some(Import {
        id,
        actor: UserId(actor),
        state: ImportState::parse(&state)?,
        total,
        applied,
        failed,
    })
}

/// Begins an import and returns its number. A key that was used before violates the unique key
/// `imports_key` (error 1062).
///
/// # Errors
/// When MySQL does not answer, or the key was used before.
pub async fn begin(
    pool: &MySqlPool,
    actor: UserId,
    key: Option<&ImportKey>,
) -> Result<u64, sqlx::Error> {
    let done =
        sqlx::query("INSERT INTO imports (key_hash, fingerprint, actor_id) VALUES (?, ?, ?)")
            .bind(key.map(|key| key.key_hash.as_slice()))
            .bind(key.map(|key| key.fingerprint.as_slice()))
            .bind(actor.0)
            .execute(pool)
            .await?;
    Ok(done.last_insert_id())
}

/// Writes the fingerprint of an import, after its file has been read.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_fingerprint(
    pool: &MySqlPool,
    import: u64,
    fingerprint: &[u8],
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE imports SET fingerprint = ? WHERE id = ?")
        .bind(fingerprint)
        .bind(import)
        .execute(pool)
        .await?;
    Ok(())
}

/// Finds an import.
///
/// # Errors
/// When MySQL does not answer.
pub async fn find(pool: &MySqlPool, id: u64) -> Result<Option<Import>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(format!("{COLUMNS} WHERE id = ?")))
        .bind(id)
        .fetch_optional(pool)
        .await?;
    Ok(row.and_then(parse))
}

/// Finds the import that was sent under a key, and its fingerprint. An import that is still being
/// checked ten minutes after it began counts as given up, and is removed first.
///
/// # Errors
/// When MySQL does not answer.
pub async fn find_by_key(
    pool: &MySqlPool,
    key: &ImportKey,
) -> Result<Option<(Import, Vec<u8>)>, sqlx::Error> {
    let given_up: Option<u64> = sqlx::query_scalar(
        "SELECT id FROM imports WHERE key_hash = ? AND state = 'STAGING' \
         AND created_at < NOW(3) - INTERVAL 10 MINUTE",
    )
    .bind(&key.key_hash)
    .fetch_optional(pool)
    .await?;
    if let Some(id) = given_up {
        remove(pool, id).await?;
    }
    let row: Option<(u64, Vec<u8>)> =
        sqlx::query_as("SELECT id, fingerprint FROM imports WHERE key_hash = ?")
            .bind(&key.key_hash)
            .fetch_optional(pool)
            .await?;
    let Some((id, fingerprint)) = row else {
        return Ok(None);
    };
    Ok(find(pool, id).await?.map(|import| (import, fingerprint)))
}

/// Imports that are being written, oldest first, at most 100.
///
/// # Errors
/// When MySQL does not answer.
pub async fn applying(pool: &MySqlPool) -> Result<Vec<Import>, sqlx::Error> {
    let text = format!("{COLUMNS} WHERE state = 'APPLYING' ORDER BY id LIMIT 100");
    let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(text))
        .fetch_all(pool)
        .await?;
    Ok(rows.into_iter().filter_map(parse).collect())
}

/// Inserts rows that were checked.
///
/// # Errors
/// When MySQL does not answer.
pub async fn stage(
    connection: &mut MySqlConnection,
    import: u64,
    rows: &[StagedRow],
) -> Result<(), sqlx::Error> {
    static INSERT: MultiRow = MultiRow::new(
        "INSERT INTO import_rows (import_id, line, product_id, location_id, delta, state) VALUES",
        "(?, ?, ?, ?, ?, ?)",
        "",
    );
    INSERT
        .execute(connection, rows, |query, row| {
            query
                .bind(import)
                .bind(row.line)
                .bind(row.product_id.0)
                .bind(row.location_id.0)
                .bind(row.delta)
                // A row that changes nothing needs no entry.
                .bind(if row.delta == 0 { "APPLIED" } else { "STAGED" })
        })
        .await
}

/// Products that a file names more than once for one location: product, location, first line and
/// last line.
///
/// # Errors
/// When MySQL does not answer.
pub async fn twice(
    pool: &MySqlPool,
    import: u64,
    limit: u32,
) -> Result<Vec<(u64, u64, u64, u64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT product_id, location_id, MIN(line), MAX(line) FROM import_rows \
         WHERE import_id = ? GROUP BY product_id, location_id HAVING COUNT(*) > 1 LIMIT ?",
    )
    .bind(import)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// Notes that all rows passed the check, so that they are written from now on.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_applying(pool: &MySqlPool, import: u64, total: u64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE imports SET state = 'APPLYING', total = ? WHERE id = ?")
        .bind(total)
        .bind(import)
        .execute(pool)
        .await?;
    Ok(())
}

/// Removes an import and its rows, in parts.
///
/// # Errors
/// When MySQL does not answer.
pub async fn remove(pool: &MySqlPool, import: u64) -> Result<(), sqlx::Error> {
    const TEXT: &str = "DELETE FROM import_rows WHERE import_id = ? LIMIT 10000";
    while sqlx::query(TEXT)
        .bind(import)
        .execute(pool)
        .await?
        .rows_affected()
        > 0
    {}
    sqlx::query("DELETE FROM imports WHERE id = ?")
        .bind(import)
        .execute(pool)
        .await?;
    Ok(())
}

/// Removes imports that are still being checked ten minutes after they began; returns their number.
///
/// # Errors
/// When MySQL does not answer.
pub async fn forget(pool: &MySqlPool) -> Result<u64, sqlx::Error> {
    let ids: Vec<u64> = sqlx::query_scalar(
        "SELECT id FROM imports WHERE state = 'STAGING' \
         AND created_at < NOW(3) - INTERVAL 10 MINUTE",
    )
    .fetch_all(pool)
    .await?;
    for id in &ids {
        remove(pool, *id).await?;
    }
    Ok(ids.len() as u64)
}

/// Products with store rows in the import that were changed since it began, each with whether it is
/// off sale.
///
/// # Errors
/// When MySQL does not answer.
pub async fn restated(
    pool: &MySqlPool,
    import: u64,
) -> Result<Vec<(ProductId, bool)>, sqlx::Error> {
    let rows: Vec<(u64, bool)> = sqlx::query_as(
        "SELECT DISTINCT p.id, p.status <> 'ACTIVE' OR p.is_deleted FROM imports i \
         JOIN products p ON p.updated_at >= i.created_at \
         JOIN import_rows r ON r.import_id = i.id AND r.product_id = p.id AND r.location_id > 0 \
         WHERE i.id = ?",
    )
    .bind(import)
    .fetch_all(pool)
    .await?;
    let row = |(id, is_off_sale)| (ProductId(id), is_off_sale);
    Ok(rows.into_iter().map(row).collect())
}

/// Rows that wait to be written, after a line.
///
/// # Errors
/// When MySQL does not answer.
pub async fn staged(
    pool: &MySqlPool,
    import: u64,
    after: u64,
    limit: u32,
) -> Result<Vec<ImportedRow>, sqlx::Error> {
    let rows: Vec<(u64, u64, u64, i64, bool)> = sqlx::query_as(
        "SELECT r.line, r.product_id, r.location_id, r.delta, \
         COALESCE(p.status <> 'ACTIVE' OR p.is_deleted, 1) FROM import_rows r \
         LEFT JOIN products p ON p.id = r.product_id \
         WHERE r.import_id = ? AND r.state = 'STAGED' AND r.line > ? ORDER BY r.line LIMIT ?",
    )
    .bind(import)
    .bind(after)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let row = |(line, product, location, quantity, is_off_sale)| ImportedRow {
        line,
        product_id: ProductId(product),
        location_id: LocationId(location),
        quantity,
        is_off_sale,
    };
    Ok(rows.into_iter().map(row).collect())
}

/// Notes that a row cannot be written, and why.
///
/// # Errors
/// When MySQL does not answer.
pub async fn fail(pool: &MySqlPool, import: u64, line: u64, note: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE import_rows SET state = 'FAILED', note = ? WHERE import_id = ? AND line = ?",
    )
    .bind(note)
    .bind(import)
    .bind(line)
    .execute(pool)
    .await?;
    Ok(())
}

/// Notes that the lines of an entry were written: import, first line and last line. Rows among them
/// that failed stay failed.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_applied(
    connection: &mut MySqlConnection,
    written: &[(u64, u64, u64)],
) -> Result<(), sqlx::Error> {
    for (import, first, last) in written {
        sqlx::query(
            "UPDATE import_rows SET state = 'APPLIED' WHERE import_id = ? AND state = 'STAGED' \
             AND line BETWEEN ? AND ?",
        )
        .bind(import)
        .bind(first)
        .bind(last)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Number of rows that still wait.
///
/// # Errors
/// When MySQL does not answer.
pub async fn waiting(pool: &MySqlPool, import: u64) -> Result<u64, sqlx::Error> {
    let count: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM import_rows WHERE import_id = ? AND state = 'STAGED'",
    )
    .bind(import)
    .fetch_one(pool)
    .await?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// Ends an import: removes the written rows and keeps the failed ones.
///
/// # Errors
/// When MySQL does not answer.
pub async fn finish(pool: &MySqlPool, import: u64) -> Result<(), sqlx::Error> {
    const TEXT: &str =
        "DELETE FROM import_rows WHERE import_id = ? AND state = 'APPLIED' LIMIT 10000";
    while sqlx::query(TEXT)
        .bind(import)
        .execute(pool)
        .await?
        .rows_affected()
        > 0
    {}
    sqlx::query(
        "UPDATE imports i SET state = 'DONE', finished_at = NOW(3), failed = (SELECT COUNT(*) \
         FROM import_rows r WHERE r.import_id = i.id), applied = total - failed WHERE id = ?",
    )
    .bind(import)
    .execute(pool)
    .await?;
    Ok(())
}

/// The rows of an import that could not be written: line and reason.
///
/// # Errors
/// When MySQL does not answer.
pub async fn failed(
    pool: &MySqlPool,
    import: u64,
    limit: u32,
) -> Result<Vec<(u64, String)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT line, COALESCE(note, '') FROM import_rows \
         WHERE import_id = ? AND state = 'FAILED' ORDER BY line LIMIT ?",
    )
    .bind(import)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// The ids of those products that exist and are not deleted.
///
/// # Errors
/// When MySQL does not answer.
pub async fn known_products(
    connection: &mut MySqlConnection,
    products: &[u64],
) -> Result<Vec<u64>, sqlx::Error> {
    if products.is_empty() {
        return Ok(Vec::new());
    }
    let mut query: QueryBuilder<MySql> =
        QueryBuilder::new("SELECT id FROM products WHERE is_deleted = 0 AND id IN ");
    push_list(&mut query, products);
    let rows: Vec<(u64,)> = query.build_query_as().fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}
