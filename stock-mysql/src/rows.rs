//! Multi-row statements of fixed sizes: powers of two up to 1,024.
//!
//! The statement of every size stays prepared on each connection, so a batch of any length costs a
//! few executions and no preparation. With a statement prepared anew for every length the journal
//! drained eleven times slower. Rows that may be long are measured, so that a statement stays below
//! the limit of the server ([`set_packet_max`]).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use sqlx::mysql::MySqlArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Encode, MySql, MySqlConnection, QueryBuilder, Type};
use stock_common::id::Position;

/// Exponent of the largest size: one statement has at most 2^10 rows.
const LARGEST: usize = 10;
/// Bytes that the server takes in one statement, as the youngest connection has read it.
static PACKET_MAX: AtomicUsize = AtomicUsize::new(1 << 20);

/// Notes how many bytes the server takes in one statement (`max_allowed_packet`). At most half of
/// it is filled, because the text and the protocol need room too.
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

    /// Executes the statement for all rows, largest sizes first.
    ///
    /// # Errors
    /// The error of the server; earlier parts have then been executed.
    pub async fn execute<T>(
        &self,
        connection: &mut MySqlConnection,
        rows: &[T],
        bind: impl for<'q> Fn(Binding<'q>, &'q T) -> Binding<'q>,
    ) -> Result<(), sqlx::Error> {
        self.execute_sized(connection, rows, |_| 0, bind).await
    }

    /// Like [`Self::execute`], for rows that may be long: `bytes` returns the bytes of text in a
    /// row.
    ///
    /// # Errors
    /// The error of the server; earlier parts have then been executed.
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

    /// Number of the first rows that fit into one statement, at least one. A number takes at most
    /// 11 bytes with its type.
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

    /// The text of a selection by keys, with the repeated part joined by ` OR `. The caller pads
    /// the keys to a power of two.
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

    /// Executes an update of one value in the rows with these ids: `… SET status = ? … WHERE`, `id
    /// = ?`.
    ///
    /// # Errors
    /// The error of the server; earlier parts have then been executed.
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

/// Repeats the last item until the length is a power of two. A repeated alternative changes
/// nothing, and the statement has one of eleven sizes.
#[must_use]
pub fn padded<T: Copy>(items: &[T]) -> Vec<T> {
    let mut padded = items.to_vec();
    if let Some(&last) = items.last() {
        padded.resize(items.len().next_power_of_two(), last);
    }
    padded
}

/// Adds `(?, ?, …)` with values, padded to a power of two, so that the statement has few sizes and
/// stays prepared. A statement that is prepared anew each time costs 40 ms.
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
