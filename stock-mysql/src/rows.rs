//! Multi-row statements of fixed sizes: powers of two up to 1,024.
//!
//! A statement text of every size stays prepared on each connection, so a batch of any length costs a
//! handful of executions and no preparation. Statements prepared anew for every length drained eleven
//! times slower (DESIGN §2). Rows that may be long are counted: a statement stays below what the server takes
//! ([`set_packet_max`]).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use sqlx::mysql::MySqlArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Encode, MySql, MySqlConnection, QueryBuilder, Type};
use stock_common::id::Position;

/// 2^10 rows at most in one statement.
const LARGEST: usize = 10;
/// Bytes that the server takes in one statement, as the youngest connection was told.
static PACKET_MAX: AtomicUsize = AtomicUsize::new(1 << 20);

/// Notes what the server takes in one statement (`max_allowed_packet`). Half of it is filled at most: the text itself, and
/// what the protocol adds, need room too.
pub fn set_packet_max(bytes: u64) {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    PACKET_MAX.store(bytes, Ordering::Relaxed);
}

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
        self.execute_sized(connection, rows, |_| 0, bind).await
    }

    /// The same of rows that may be long: `bytes` says how much text a row carries.
    ///
    /// # Errors
    /// As the server answers; earlier parts have then been executed.
    pub async fn execute_sized<T>(
        &self,
        connection: &mut MySqlConnection,
        rows: &[T],
        bytes: impl Fn(&T) -> usize,
        bind: impl for<'q> Fn(Binding<'q>, &'q T) -> Binding<'q>,
    ) -> Result<(), sqlx::Error> {
        let mut rest = rows;
        while !rest.is_empty() {
            let fitting = self.fitting(rest, &bytes);
            let size = 1 << fitting.ilog2().min(LARGEST.try_into().unwrap_or(0));
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

    /// How many of the first rows fit into one statement; at least one. A number takes 11 bytes at most with its type.
    fn fitting<T>(&self, rows: &[T], bytes: impl Fn(&T) -> usize) -> usize {
        const NUMBER: usize = 11;
        let columns = self.row.matches('?').count();
        let mut room = PACKET_MAX.load(Ordering::Relaxed) / 2;
        let fits = rows.iter().take(1 << LARGEST).take_while(|row| {
            let size = self.row.len() + 2 + columns * NUMBER + bytes(row);
            let fits = size <= room;
            room = room.saturating_sub(size);
            fits
        });
        fits.count().max(1)
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

#[cfg(test)]
mod tests {
    use super::{MultiRow, PACKET_MAX};
    use std::sync::atomic::Ordering;

    #[test]
    fn a_statement_stays_below_half_of_what_the_server_takes() {
        static INSERT: MultiRow = MultiRow::new("INSERT INTO t VALUES", "(?, ?)", "");
        let half = PACKET_MAX.load(Ordering::Relaxed) / 2;
        let rows = vec![(); 2_000];
        assert_eq!(INSERT.fitting(&rows, |()| 0), 1_024);
        let fitting = INSERT.fitting(&rows, |()| 10_000);
        assert!(
            fitting * 10_000 <= half && (fitting + 1) * 10_100 > half,
            "{fitting}"
        );
        assert_eq!(INSERT.fitting(&rows, |()| 10 * half), 1);
        assert_eq!(INSERT.fitting(&rows[..3], |()| 0), 3);
    }
}
