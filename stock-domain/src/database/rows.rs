//! Multi-row statements of fixed sizes: powers of two up to 1,024.
//!
//! A statement text of every size stays prepared on each connection, so a batch of any length costs a
//! handful of executions and no preparation. Statements prepared anew for every length drained eleven
//! times slower (DESIGN §2).

use std::sync::{Arc, OnceLock};

use sqlx::mysql::MySqlArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Encode, MySql, MySqlConnection, QueryBuilder, Type};
use stock_common::id::Position;

/// 2^10 rows at most in one statement.
const LARGEST: usize = 10;

/// A query that values are being bound to.
pub type Binding<'q> = Query<'q, MySql, MySqlArguments>;

/// A statement whose middle repeats once per row.
#[derive(Debug)]
pub struct MultiRow {
    head: &'static str,
    row: &'static str,
    tail: &'static str,
    texts: [OnceLock<Arc<str>>; LARGEST + 1],
}

impl MultiRow {
    /// `head row, row, … tail`.
    #[must_use]
    pub const fn new(head: &'static str, row: &'static str, tail: &'static str) -> Self {
        Self {
            head,
            row,
            tail,
            texts: [const { OnceLock::new() }; LARGEST + 1],
        }
    }

    fn text(&self, rows: usize) -> Arc<str> {
        let build = || {
            let rows = vec![self.row; rows].join(", ");
            Arc::from(format!("{} {rows} {}", self.head, self.tail))
        };
        match self.texts.get(rows.ilog2() as usize) {
            Some(text) => Arc::clone(text.get_or_init(build)),
            None => build(),
        }
    }

    /// Executes the statement for all rows, the largest sizes first.
    ///
    /// # Errors
    /// As the server answers; earlier parts have then been executed.
    pub async fn execute<T>(
        &self,
        connection: &mut MySqlConnection,
        rows: &[T],
        bind: impl for<'q> Fn(Binding<'q>, &'q T) -> Binding<'q>,
    ) -> Result<(), sqlx::Error> {
        let mut rest = rows;
        while !rest.is_empty() {
            let size = 1 << rest.len().ilog2().min(LARGEST.try_into().unwrap_or(0));
            let (part, behind) = rest.split_at(size);
            let mut query = sqlx::query(AssertSqlSafe(self.text(size)));
            for row in part {
                query = bind(query, row);
            }
            query.execute(&mut *connection).await?;
            rest = behind;
        }
        Ok(())
    }

    /// The text for a selection by keys, whose repeated part is joined by ` OR `, padded by the caller
    /// to a power of two.
    #[must_use]
    pub fn alternatives(&self, count: usize) -> Arc<str> {
        let build = || {
            let rows = vec![self.row; count].join(" OR ");
            Arc::from(format!("{} {rows} {}", self.head, self.tail))
        };
        match self.texts.get(count.ilog2() as usize) {
            Some(text) => Arc::clone(text.get_or_init(build)),
            None => build(),
        }
    }

    /// Executes an update of one value in the rows of these ids: `… SET status = ? … WHERE`, `id = ?`.
    ///
    /// # Errors
    /// As the server answers; earlier parts have then been executed.
    pub async fn set(
        &self,
        connection: &mut MySqlConnection,
        value: &str,
        ids: &[Position],
    ) -> Result<(), sqlx::Error> {
        for part in ids.chunks(1 << LARGEST) {
            let ids = padded(part);
            let mut query = sqlx::query(AssertSqlSafe(self.alternatives(ids.len()))).bind(value);
            for id in &ids {
                query = query.bind(id.get());
            }
            query.execute(&mut *connection).await?;
        }
        Ok(())
    }
}

/// `items` with the last one repeated until the length is a power of two: a repeated alternative
/// changes nothing, and the statement's text has one of eleven sizes.
#[must_use]
pub fn padded<T: Copy>(items: &[T]) -> Vec<T> {
    let mut padded = items.to_vec();
    if let Some(&last) = items.last() {
        padded.resize(items.len().next_power_of_two(), last);
    }
    padded
}

/// Adds `(?, ?, …)` with values, padded to a power of two, so that the statement's text has few sizes and
/// stays prepared. A statement prepared anew each time costs 40 ms.
pub fn push_list<'v, T>(query: &mut QueryBuilder<MySql>, values: &[T])
where
    T: Copy + Encode<'v, MySql> + Type<MySql> + 'v,
{
    query.push("(");
    let mut list = query.separated(", ");
    for value in padded(values) {
        list.push_bind(value);
    }
    query.push(")");
}
