//! Accounts in MySQL: the level of each account as of the watermark of its shard.

use std::collections::HashMap;

use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, FromRow, MySqlConnection, MySqlPool};
use stock_domain::account::{Account, AccountKind, Book, Level};
use stock_domain::shard_map::ShardMap;

use super::rows::{MultiRow, padded};

/// One equality per row, and the primary key forced: the server would read a row-constructor `IN`
/// by a scan, and lock more rows than it names. A test asserts the plan.
static LOCK: MultiRow = MultiRow::new(
    "SELECT CAST(kind AS CHAR), owner_id, place_id, balance, seq, closed FROM accounts \
     FORCE INDEX (PRIMARY) WHERE",
    "(kind = ? AND owner_id = ? AND place_id = ?)",
    "ORDER BY kind, owner_id, place_id FOR UPDATE",
);
static WRITE: MultiRow = MultiRow::new(
    "INSERT INTO accounts (kind, owner_id, place_id, balance, seq, closed) VALUES",
    "(?, ?, ?, ?, ?, ?)",
    "ON DUPLICATE KEY UPDATE balance = VALUES(balance), seq = VALUES(seq), \
     closed = VALUES(closed), updated_at = NOW(3)",
);
/// Like [`WRITE`], for shards other than 0, which is the default of the column `shard`.
static WRITE_ELSEWHERE: MultiRow = MultiRow::new(
    "INSERT INTO accounts (kind, owner_id, place_id, balance, seq, closed, shard) VALUES",
    "(?, ?, ?, ?, ?, ?, ?)",
    "ON DUPLICATE KEY UPDATE balance = VALUES(balance), seq = VALUES(seq), \
     closed = VALUES(closed), shard = VALUES(shard), updated_at = NOW(3)",
);
/// Accounts that one statement names at most; more accounts take several statements.
const LOCK_MAX: usize = 256;

type Row = (String, u64, u64, i64, u64, bool);

fn parse((kind, owner, location, balance, seq, closed): Row) -> Option<(Account, Level)> {
    let account = Account {
        kind: AccountKind::parse(&kind)?,
        owner,
        location,
    };
    Some((
        account,
        Level {
            balance,
            seq,
            closed,
            ..Level::default()
        },
    ))
}

/// The statement that locks `count` accounts, for the test of its plan; `count` is a power of two.
#[must_use]
pub fn lock_text(count: usize) -> String {
    LOCK.alternatives(count).to_string()
}

/// Locks the rows of existing accounts in the order of their keys, and reads them.
///
/// # Errors
/// When MySQL does not answer, or a lock is not granted in time.
pub async fn lock(
    connection: &mut MySqlConnection,
    accounts: &[Account],
) -> Result<HashMap<Account, Level>, sqlx::Error> {
    let mut sorted = accounts.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let rows: Vec<Row> = select(connection, &sorted, |text| text).await?;
    Ok(rows.into_iter().filter_map(parse).collect())
}

/// Like [`lock`], but skips rows that another transaction has locked; their accounts are absent.
///
/// # Errors
/// When MySQL does not answer.
pub async fn lock_free(
    connection: &mut MySqlConnection,
    accounts: &[Account],
) -> Result<HashMap<Account, Level>, sqlx::Error> {
    let of = |text: String| text.replace("FOR UPDATE", "FOR UPDATE SKIP LOCKED");
    let rows: Vec<Row> = select(connection, accounts, of).await?;
    Ok(rows.into_iter().filter_map(parse).collect())
}

/// Reads accounts by name. `of` changes the text of the statement, which would lock them otherwise.
async fn select<R>(
    connection: &mut MySqlConnection,
    accounts: &[Account],
    of: impl Fn(String) -> String,
) -> Result<Vec<R>, sqlx::Error>
where
    R: for<'r> FromRow<'r, MySqlRow> + Send + Unpin,
{
    let mut found = Vec::with_capacity(accounts.len());
    for part in accounts.chunks(LOCK_MAX) {
        let keys = padded(part);
        let text = of(LOCK.alternatives(keys.len()).to_string());
        let mut query = sqlx::query_as(AssertSqlSafe(text));
        for key in &keys {
            query = query
                .bind(key.kind.as_str())
                .bind(key.owner)
                .bind(key.location);
        }
        found.extend(query.fetch_all(&mut *connection).await?);
    }
    Ok(found)
}

/// Writes levels of accounts of one shard. The caller holds the lock of the shard's row and the
/// locks of the existing account rows.
///
/// # Errors
/// When MySQL does not answer.
pub async fn write(
    connection: &mut MySqlConnection,
    shard: u64,
    levels: &[(Account, Level)],
) -> Result<(), sqlx::Error> {
    let text = if shard == 0 { &WRITE } else { &WRITE_ELSEWHERE };
    text.execute(connection, levels, |query, (account, level)| {
        let query = query
            .bind(account.kind.as_str())
            .bind(account.owner)
            .bind(account.location)
            .bind(level.balance)
            .bind(level.seq)
            .bind(level.closed);
        if shard == 0 { query } else { query.bind(shard) }
    })
    .await
}

/// Assigns every account to the shard that `map` names. From then on the journal of that shard
/// moves the account.
///
/// # Errors
/// When MySQL does not answer.
pub async fn set_shards(
    connection: &mut MySqlConnection,
    map: ShardMap,
) -> Result<(), sqlx::Error> {
    const OF_OWNERS: [(&str, &str); 3] = [
        ("product:", "'AVAILABLE', 'RESERVED', 'BUCKET'"),
        ("coupon:", "'COUPON'"),
        ("user:", "'POINTS', 'HOLD'"),
    ];
    for (name, kinds) in OF_OWNERS {
        let text = format!(
            "UPDATE accounts SET shard = CRC32(CONCAT('{name}', owner_id)) MOD ? \
             WHERE kind IN ({kinds})"
        );
        sqlx::query(AssertSqlSafe(text))
            .bind(map.shards())
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query(
        "UPDATE accounts a JOIN sales s ON s.id = a.owner_id \
         SET a.shard = CRC32(CONCAT('product:', s.product_id)) MOD ? WHERE a.kind = 'ALLOWANCE'",
    )
    .bind(map.shards())
    .execute(connection)
    .await?;
    Ok(())
}

/// The shard whose journal moves each account; accounts that MySQL lacks are absent.
///
/// # Errors
/// When MySQL does not answer.
pub async fn shards_of(
    pool: &MySqlPool,
    accounts: &[Account],
) -> Result<HashMap<Account, u64>, sqlx::Error> {
    let of = |text: String| {
        let text = text.replace("balance, seq, closed", "shard");
        text.replace(" FOR UPDATE", "")
    };
    let rows: Vec<(String, u64, u64, u64)> =
        select(&mut *pool.acquire().await?, accounts, of).await?;
    let shard = |(kind, owner, location, shard): (String, u64, u64, u64)| {
        let kind = AccountKind::parse(&kind)?;
        Some((
            Account {
                kind,
                owner,
                location,
            },
            shard,
        ))
    };
    Ok(rows.into_iter().filter_map(shard).collect())
}

/// Reads up to `limit` accounts after `after`, in the order of their keys. Only an empty page means
/// the end.
///
/// # Errors
/// When MySQL does not answer.
pub async fn page(
    connection: &mut MySqlConnection,
    after: Option<Account>,
    limit: u32,
) -> Result<Vec<(Account, Level)>, sqlx::Error> {
    page_of(connection, None, after, limit).await
}

/// Like [`page`], for the accounts of one shard; `None` is all shards.
///
/// # Errors
/// When MySQL does not answer.
pub async fn page_of(
    connection: &mut MySqlConnection,
    shard: Option<u64>,
    after: Option<Account>,
    limit: u32,
) -> Result<Vec<(Account, Level)>, sqlx::Error> {
    // An owner may have a million locations, and each condition is one range of the primary key:
    // the rest of the owner's locations first, then the next owners.
    const PLACES: &str = "SELECT CAST(kind AS CHAR), owner_id, place_id, balance, seq, closed \
         FROM accounts WHERE kind = ? AND owner_id = ? AND place_id > ? \
         AND (? IS NULL OR shard = ?) ORDER BY place_id LIMIT ?";
    const OWNERS: &str = "SELECT CAST(kind AS CHAR), owner_id, place_id, balance, seq, closed \
         FROM accounts WHERE kind = ? AND owner_id > ? \
         AND (? IS NULL OR shard = ?) ORDER BY owner_id, place_id LIMIT ?";
    const FIRST: &str = "SELECT CAST(kind AS CHAR), owner_id, place_id, balance, seq, closed \
         FROM accounts WHERE kind = ? AND (? IS NULL OR shard = ?) \
         ORDER BY owner_id, place_id LIMIT ?";
    let first = after.map_or(AccountKind::Available, |after| after.kind);
    // A page holds one kind, so that its condition is a range of the primary key.
    for kind in AccountKind::ALL
        .into_iter()
        .skip_while(|kind| *kind != first)
    {
        let name = kind.as_str();
        let queries = match after.filter(|after| after.kind == kind) {
            None => vec![sqlx::query_as(FIRST).bind(name)],
            Some(Account {
                owner, location, ..
            }) => vec![
                sqlx::query_as(PLACES).bind(name).bind(owner).bind(location),
                sqlx::query_as(OWNERS).bind(name).bind(owner),
            ],
        };
        for query in queries {
            let query = query.bind(shard).bind(shard).bind(limit);
            let rows: Vec<Row> = query.fetch_all(&mut *connection).await?;
            if !rows.is_empty() {
                return Ok(rows.into_iter().filter_map(parse).collect());
            }
        }
    }
    Ok(Vec::new())
}

/// Reads up to `limit` accounts of a book on one shard, after `after`, in the order of their keys.
///
/// # Errors
/// When MySQL does not answer.
pub async fn page_of_book(
    connection: &mut MySqlConnection,
    book: Book,
    shard: u64,
    after: Option<Account>,
    limit: u32,
) -> Result<Vec<(Account, Level)>, sqlx::Error> {
    const TEXT: &str = "SELECT CAST(kind AS CHAR), owner_id, place_id, balance, seq, closed \
         FROM accounts WHERE kind = ? AND owner_id BETWEEN ? AND ? \
         AND (? OR owner_id > ? OR place_id > ?) AND place_id >= ? AND shard = ? ORDER BY owner_id, place_id LIMIT ?";
    let (first, last) = match book {
        Book::Allowances(sale) => (sale.0, sale.0),
        Book::StoreAvailable | Book::StoreReserved | Book::Points | Book::Holds | Book::Buckets => {
            (0, u64::MAX)
        }
    };
    let is_of_stores = matches!(book, Book::StoreAvailable | Book::StoreReserved);
    // The next page begins with the owner of the last account, because further locations of that
    // owner may follow.
    let after_owner = after.map_or(first, |after| after.owner);
    let rows: Vec<Row> = sqlx::query_as(TEXT)
        .bind(book.kind().as_str())
        .bind(after_owner)
        .bind(last)
        .bind(after.is_none())
        .bind(after_owner)
        .bind(after.map_or(0, |after| after.location))
        .bind(u64::from(is_of_stores))
        .bind(shard)
        .bind(limit)
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().filter_map(parse).collect())
}

/// Reads accounts by name without a lock; accounts that MySQL lacks are absent.
///
/// # Errors
/// When MySQL does not answer.
pub async fn levels(
    pool: &MySqlPool,
    accounts: &[Account],
) -> Result<HashMap<Account, Level>, sqlx::Error> {
    read(&mut *pool.acquire().await?, accounts).await
}

/// Like [`levels`], on a given connection, such as in a transaction that reads one snapshot.
///
/// # Errors
/// When MySQL does not answer.
pub async fn read(
    connection: &mut MySqlConnection,
    accounts: &[Account],
) -> Result<HashMap<Account, Level>, sqlx::Error> {
    let of = |text: String| text.replace(" FOR UPDATE", "");
    let rows: Vec<Row> = select(connection, accounts, of).await?;
    Ok(rows.into_iter().filter_map(parse).collect())
}
