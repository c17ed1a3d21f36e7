//! Rows that follow from entries, as texts: the rows that entries state, and the rows that MySQL
//! has.
//!
//! [`stock_mysql::record`] decides which rows an entry writes. Here each of them has the form in
//! which MySQL prints it, so that the same few lines compare tables of any shape. A column is
//! stated either by the entry that made the row (`columns`), or by a later one (`late`), which
//! [`super::late`] compares.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, MySqlPool, Row as _};
use stock_common::id::{Position, Span};

use super::Difference;

/// A value as MySQL prints it.
pub(super) type Text = Option<String>;

/// A table whose rows follow from entries.
#[derive(Debug)]
pub(super) struct Table {
    /// Its name.
    pub(super) name: &'static str,
    /// The column with the position of the entry that made the row.
    position: &'static str,
    /// The columns that this entry states; the first `key` of them identify the row.
    pub(super) columns: &'static [&'static str],
    key: usize,
    /// The columns that later entries state.
    late: &'static [&'static str],
}

/// A row as MySQL has it, or should have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// The entry that made it.
    pub(super) at: Position,
    /// The values of [`Table::columns`].
    pub(super) values: Vec<Text>,
    /// The values of [`Table::late`]; empty for a row that an entry states.
    pub(super) late: Vec<Text>,
}

impl Row {
    /// One of the values that a later entry states.
    pub(super) fn late(&self, index: usize) -> Option<&str> {
        self.late.get(index)?.as_deref()
    }

    /// One of the values that the entry itself states.
    pub(super) fn value(&self, index: usize) -> Option<&str> {
        self.values.get(index)?.as_deref()
    }
}

pub(super) static ORDERS: Table = Table {
    name: "orders",
    position: "id",
    columns: &[
        "id",
        "user_id",
        "path",
        "delivery_type",
        "store_id",
        "total_amount",
        "reservation_id",
        "shares_online_stock",
        "coupon_id",
        "coupon_code",
        "coupon_discount_amount",
        "used_points",
        "earned_points",
        "checkout_id",
        "reference",
    ],
    key: 1,
    late: &["status", "updated_at"],
};

static LINES: Table = Table {
    name: "order_products",
    position: "order_id",
    columns: &[
        "order_id",
        "line",
        "product_id",
        "product_name",
        "quantity",
        "price",
        "unit_price",
        "sale_id",
        "sale_limit",
    ],
    key: 2,
    late: &[],
};

pub(super) static RESERVATIONS: Table = Table {
    name: "reservations",
    position: "id",
    columns: &[
        "id",
        "user_id",
        "product_id",
        "location_id",
        "quantity",
        "ttl_ms",
        "sale_id",
        "sale_limit",
        "hold_limit",
        "price",
        "unit_price",
    ],
    key: 1,
    late: &["status", "order_id", "ended_at"],
};

pub(super) static CHECKOUTS: Table = Table {
    name: "checkouts",
    position: "id",
    columns: &[
        "id",
        "user_id",
        "delivery_type",
        "store_id",
        "total_amount",
        "coupon_id",
        "coupon_code",
        "coupon_discount_amount",
        "used_points",
        "earned_points",
        "ttl_ms",
        "hold_limit",
        "reference",
    ],
    key: 1,
    late: &[
        "status",
        "order_id",
        "ended_at",
        "expires_ms",
        "times_extended",
        "payment_extended",
        "is_late",
        "extended_at",
    ],
};

static CHECKOUT_LINES: Table = Table {
    name: "checkout_lines",
    position: "checkout_id",
    columns: &[
        "checkout_id",
        "line",
        "product_id",
        "product_name",
        "quantity",
        "price",
        "unit_price",
        "sale_id",
        "sale_limit",
    ],
    key: 2,
    late: &[],
};

static CHANGES: Table = Table {
    name: "order_changes",
    position: "id",
    columns: &[
        "id",
        "order_id",
        "way",
        "location_id",
        "left_units",
        "coupon_discount_amount",
        "used_points",
        "earned_points",
    ],
    key: 1,
    late: &[],
};

static BUYERS: Table = Table {
    name: "buyers",
    position: "id",
    columns: &["id", "user_id", "name"],
    key: 1,
    late: &[],
};

static PAYMENTS: Table = Table {
    name: "payments",
    position: "id",
    columns: &["id", "payment_id", "checkout_id", "amount", "outcome"],
    key: 1,
    late: &[],
};

pub(super) static OFFLINE: Table = Table {
    name: "offline_sales",
    position: "journal_id",
    columns: &[
        "journal_id",
        "store_id",
        "sale_key",
        "device_id",
        "LOWER(HEX(fingerprint))",
        "sold_ms",
        // A person who resolved the sale has written all three.
        "IF(state = 'RESOLVED', 'OVERSOLD', state)",
        "(note IS NULL) = (state <> 'RESOLVED')",
        "(resolved_by IS NULL) = (state <> 'RESOLVED')",
        "(resolved_at IS NULL) = (state <> 'RESOLVED')",
    ],
    key: 1,
    late: &[],
};

pub(super) static ISSUES: Table = Table {
    name: "coupon_issues",
    position: "id",
    columns: &["id", "coupon_id", "user_id", "work_id", "code"],
    key: 1,
    late: &["order_id"],
};

pub(super) static POINTS: Table = Table {
    name: "point_transactions",
    position: "id",
    columns: &[
        "id",
        "user_id",
        "seq",
        "type",
        "delta",
        "balance_snapshot",
        "description",
        "cancels_id",
    ],
    key: 3,
    late: &["order_id"],
};

pub(super) static BRANCHES: Table = Table {
    name: "branches",
    position: "id",
    columns: &["id", "across"],
    key: 1,
    late: &["state", "commit_id", "updated_at"],
};

static OWNED: Table = Table {
    name: "entry_branches",
    position: "entry_id",
    columns: &["entry_id", "branch_id", "across"],
    key: 2,
    late: &[],
};

pub(super) static LETTERS: Table = Table {
    name: "dead_letters",
    position: "journal_id",
    columns: &["journal_id"],
    key: 1,
    late: &["kind", "state"],
};

/// Every table whose rows an entry's position names, except the journal's own.
pub(super) const TABLES: [&Table; 14] = [
    &ORDERS,
    &LINES,
    &RESERVATIONS,
    &CHECKOUTS,
    &CHECKOUT_LINES,
    &PAYMENTS,
    &CHANGES,
    &BUYERS,
    &OFFLINE,
    &ISSUES,
    &POINTS,
    &BRANCHES,
    &OWNED,
    &LETTERS,
];

impl Table {
    /// Reads its rows of the entries after one position and up to another.
    pub(super) async fn between(
        &self,
        pool: &MySqlPool,
        Span { after, upto }: Span,
    ) -> Result<Vec<Row>, sqlx::Error> {
        let at = self.position;
        let condition = format!("{at} > {after} AND {at} <= {upto}");
        self.read(pool, &condition).await
    }

    /// Reads its rows after a position for which a condition holds, in order, at most `limit`.
    pub(super) async fn page(
        &self,
        pool: &MySqlPool,
        condition: &str,
        after: Position,
        limit: u32,
    ) -> Result<Vec<Row>, sqlx::Error> {
        let at = self.position;
        let condition = format!("{at} > {after} AND {condition} ORDER BY {at} LIMIT {limit}");
        self.read(pool, &condition).await
    }

    async fn read(&self, pool: &MySqlPool, condition: &str) -> Result<Vec<Row>, sqlx::Error> {
        let columns: Vec<&str> = self.columns.iter().chain(self.late).copied().collect();
        let text = format!(
            "SELECT {at}, {columns} FROM {name} WHERE {condition}",
            at = self.position,
            columns = columns.join(", "),
            name = self.name,
        );
        // Not prepared, because the server then answers in texts.
        let rows = sqlx::raw_sql(AssertSqlSafe(text)).fetch_all(pool).await?;
        let mut read = Vec::with_capacity(rows.len());
        for row in rows {
            let value = |index: usize| row.try_get_unchecked::<Text, _>(index);
            let values = (1..=self.columns.len()).map(value);
            let late = (self.columns.len() + 1..=columns.len()).map(value);
            let at = value(0)?.and_then(|at| at.parse().ok());
            read.push(Row {
                at: at.unwrap_or_default(),
                values: values.collect::<Result<_, _>>()?,
                late: late.collect::<Result<_, _>>()?,
            });
        }
        Ok(read)
    }

    /// The first of its rows after a position that names an entry which does not exist.
    pub(super) async fn stray(
        &self,
        pool: &MySqlPool,
        shard: Option<u64>,
        after: Position,
    ) -> Result<Option<u64>, sqlx::Error> {
        stray(pool, self.name, self.position, shard, after).await
    }

    /// Compares the rows that entries state with those that MySQL has.
    pub(super) fn compare(&self, told: Vec<Row>, stored: &[Row]) -> Vec<Difference> {
        let key = |row: &Row| -> Vec<Text> { row.values.iter().take(self.key).cloned().collect() };
        let mut told: HashMap<Vec<Text>, Row> =
            told.into_iter().map(|row| (key(&row), row)).collect();
        let mut found = Vec::new();
        for row in stored {
            let text = match told.remove(&key(row)) {
                Some(of) if of.values == row.values => continue,
                Some(of) => self.differing(row, &of),
                None => format!("row {:?} has no entry that made it", self.name_of(row)),
            };
            found.push(Difference::new(self.name, row.at, text));
        }
        let missing = told.values().map(|row| {
            let text = format!("row {:?} is missing", self.name_of(row));
            Difference::new(self.name, row.at, text)
        });
        found.extend(missing);
        found
    }

    fn name_of(&self, row: &Row) -> String {
        let parts = row.values.iter().take(self.key);
        let parts: Vec<&str> = parts
            .map(|part| part.as_deref().unwrap_or("NULL"))
            .collect();
        parts.join(":")
    }

    fn differing(&self, row: &Row, of: &Row) -> String {
        let pairs = self.columns.iter().zip(row.values.iter().zip(&of.values));
        let wrong = pairs.filter(|(_, (is, says))| is != says);
        let wrong: Vec<String> = wrong
            .map(|(column, (is, says))| format!("{column} is {is:?}, its entry says {says:?}"))
            .collect();
        wrong.join("; ")
    }
}

/// The first row of a table after a position, on one shard or on any, that names an entry which
/// does not exist.
pub(super) async fn stray(
    pool: &MySqlPool,
    table: &str,
    position: &str,
    shard: Option<u64>,
    after: Position,
) -> Result<Option<u64>, sqlx::Error> {
    let on_shard = shard.map_or(String::new(), |shard| {
        format!("AND ((t.{position} >> 16) & 63) = {shard}")
    });
    let text = format!(
        "SELECT MIN(t.{position}) FROM {table} t WHERE t.{position} > {after} {on_shard} \
         AND NOT EXISTS (SELECT 1 FROM journal j WHERE j.id = t.{position})"
    );
    sqlx::query_scalar(AssertSqlSafe(text))
        .fetch_one(pool)
        .await
}
