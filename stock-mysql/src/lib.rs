//! The MySQL side: it stores in groups what Redis decided, and reads everything that is stored.
//!
//! | file | owns |
//! |---|---|
//! | [`migrate`] | the schema: its state, and pending migrations |
//! | [`from_row`] | rows read into structs |
//! | [`rows`] | multi-row statements of fixed sizes |
//! | [`shards`], [`shard_map`] | watermark, epoch, the row lock of a shard; the number of shards |
//! | [`record`] | the rows of an entry: journal row, postings, its own tables |
//! | [`settle`] | balances and watermark, in journal order, chained without a gap |
//! | [`quarantine`] | accounts whose postings do not chain, and the postings that are kept aside |
//! | [`account_queue`] | the queues in which the transactions of a process wait for account rows |
//! | [`archives`], [`archived_allowances`] | how far the journal was moved into files, and the levels there; accounts of forgotten sales |
//! | [`branches`], [`lost_entries`] | parts of cross-shard entries; entries that Redis lost |
//! | [`server_settings`] | the settings of MySQL on which promises rest |
//! | [`replica_beats`] | how far a replica follows |
//! | [`accounts`], [`journal`], [`movements`], [`orders`], [`order_changes`], [`reservations`], [`checkouts`], [`payments`], [`offline_sales`], [`invalid_sales`], [`products`], [`sales`], [`selling`], [`stores`], [`stock_levels`], [`works`], [`coupons`], [`coupon_issues`], [`point_transactions`], [`point_reports`], [`imports`], [`webhooks`], [`dead_letters`], [`jobs`], [`ledger_checks`] | one table group each |
//! | [`holds`] | live reservations and open checkouts alike |
//! | [`idempotent_requests`] | answers under an Idempotency-Key to requests that MySQL decides |
//! | [`people`] | users, sessions, tokens, the audit log: no part of the ledger |
//!
//! Every connection runs READ COMMITTED in strict mode. Locks are always taken in this order:
//! tickets of the account queues, the shard's row (or, on the synchronous path, the epoch's row in
//! share mode), account rows by key, then reads and inserts. A transaction that holds a shard's row
//! never queues for a ticket; it takes only tickets that are free.

#[macro_use]
mod from_row;

pub mod account_queue;
pub mod accounts;
pub mod archived_allowances;
pub mod archives;
pub mod branches;
pub mod buyers;
pub mod checkouts;
pub mod coupon_issues;
pub mod coupons;
pub mod dead_letters;
pub mod holds;
pub mod idempotent_requests;
pub mod imports;
pub mod invalid_sales;
pub mod jobs;
pub mod journal;
pub mod ledger_checks;
pub mod lost_entries;
pub mod migrate;
pub mod movements;
pub mod offline_sales;
pub mod order_changes;
pub mod orders;
pub mod payments;
pub mod people;
pub mod point_reports;
pub mod point_transactions;
pub mod products;
pub mod quarantine;
pub mod record;
pub mod replica_beats;
pub mod reservations;
pub mod rows;
pub mod sales;
pub mod selling;
pub mod server_settings;
pub mod settle;
pub mod shard_map;
pub mod shards;
pub mod stock_levels;
pub mod stores;
pub mod webhooks;
pub mod works;

use std::str::FromStr;
use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlPoolOptions, MySqlSslMode};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, MySqlPool};
use stock_common::config::Config;

/// Statements that a connection keeps prepared: each size of every multi-row statement, and the
/// rest.
const PREPARED_MAX: usize = 512;
/// Time that an idle connection has to answer before another one replaces it.
const PONG_MAX: Duration = Duration::from_millis(300);
/// Data that does not fit its column is an error; the server never cuts it to fit.
const SQL_MODE: &str = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO";

/// The use of a pool.
///
/// It decides how long a transaction may stay idle before the server rolls it
/// back, so that a paused process does not hold its locks for ever. A transaction is idle while
/// nothing is asked in it, however slow MySQL is. MySQL can only limit idle connections, so
/// `Requests` and `Tool` get 8 hours there; the times below are those of MariaDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The subscriber and row-locked orders, which lock rows that every instance needs: 1 s, also
    /// on MySQL, so that another instance takes over soon. An order whose Redis takes longer is
    /// left to the subscriber.
    Locking,
    /// Other requests: 10 s.
    Requests,
    /// Commands, jobs and health checks, whose transactions may take long: 600 s.
    Tool,
}

impl Role {
    const fn idle_seconds(self) -> u32 {
        match self {
            Self::Locking => 1,
            Self::Requests => 10,
            Self::Tool => 600,
        }
    }
}

/// A pool that connects on its first use, so that a service starts while MySQL is away.
///
/// # Errors
/// When `database_url` cannot be parsed.
pub fn pool(config: &Config, role: Role) -> Result<MySqlPool, sqlx::Error> {
    let mut options = MySqlConnectOptions::from_str(&config.mysql.database_url)?
        .statement_cache_capacity(PREPARED_MAX)
        .charset("utf8mb4");
    if !config.mysql.database_url.contains("ssl-mode") {
        options = options.ssl_mode(MySqlSslMode::Disabled);
    }
    let orders = u32::try_from(config.mysql.synchronous_orders_max).unwrap_or(u32::MAX);
    let connections = match role {
        // Two connections for each of the 64 possible shards; they are opened when they are needed.
        Role::Locking => orders.saturating_add(128),
        Role::Requests => config.mysql.database_connections_max,
        Role::Tool => 4,
    };
    Ok(MySqlPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_millis(
            config.mysql.database_acquire_timeout_ms,
        ))
        .after_connect(move |connection, _| Box::pin(prepare_session(connection, role)))
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(still_answers(connection)))
        .connect_lazy_with(options))
}

/// Whether an idle connection may be used. A connection that the server has closed is replaced. A
/// connection that swallows what is sent is replaced so soon that no request fails for it.
async fn still_answers(connection: &mut MySqlConnection) -> Result<bool, sqlx::Error> {
    let answered = tokio::time::timeout(PONG_MAX, connection.ping()).await;
    Ok(matches!(answered, Ok(Ok(()))))
}

async fn prepare_session(connection: &mut MySqlConnection, role: Role) -> Result<(), sqlx::Error> {
    let (version, packet): (String, u64) =
        sqlx::query_as("SELECT VERSION(), CAST(@@max_allowed_packet AS UNSIGNED)")
            .fetch_one(&mut *connection)
            .await?;
    rows::set_packet_max(packet);
    // On MySQL the limit ends idle connections, so it must be longer than the pool's own idle time
    // between requests. A locking connection that was idle for long is opened anew instead.
    let seconds = match role {
        Role::Requests | Role::Tool if !version.contains("MariaDB") => 28_800,
        Role::Requests | Role::Locking | Role::Tool => role.idle_seconds(),
    };
    let text = format!(
        "SET SESSION {} = {seconds}, SESSION sql_mode = '{SQL_MODE}', \
         SESSION transaction_isolation = 'READ-COMMITTED', SESSION innodb_lock_wait_timeout = 5",
        silence_limit(&version)
    );
    let legacy = text.replace("transaction_isolation", "tx_isolation");
    if connection.execute(AssertSqlSafe(text)).await.is_err() {
        // MariaDB before 11.1 knows the variable only by its older name.
        connection.execute(AssertSqlSafe(legacy)).await?;
    }
    Ok(())
}

/// The variable that limits a connection's silence, in seconds. MariaDB ends an idle transaction;
/// MySQL can only end an idle connection.
fn silence_limit(version: &str) -> &'static str {
    match version.contains("MariaDB") {
        true => "idle_transaction_timeout",
        false => "wait_timeout",
    }
}

/// Makes the server roll back a connection's transaction after so many seconds of silence.
///
/// # Errors
/// When MySQL does not answer.
async fn limit_silence(connection: &mut MySqlConnection, seconds: u32) -> Result<(), sqlx::Error> {
    let version: String = sqlx::query_scalar("SELECT VERSION()")
        .fetch_one(&mut *connection)
        .await?;
    let text = format!("SET SESSION {} = {seconds}", silence_limit(&version));
    connection.execute(AssertSqlSafe(text)).await?;
    Ok(())
}

/// The server's error number, such as 1213 for a deadlock.
#[must_use]
pub fn error_number(error: &sqlx::Error) -> Option<u16> {
    let sqlx::Error::Database(database) = error else {
        return None;
    };
    database
        .try_downcast_ref::<MySqlDatabaseError>()
        .map(MySqlDatabaseError::number)
}

/// Whether the transaction as a whole may be tried again.
///
/// That is so after a lock wait that timed out (1205),
/// a deadlock (1213), a row that another transaction holds (3572), or a row that another
/// transaction inserted first (1062).
#[must_use]
pub fn is_passing(error: &sqlx::Error) -> bool {
    matches!(error_number(error), Some(1205 | 1213 | 3572 | 1062))
}

/// Whether the data does not fit its column or breaks a constraint, so that trying again cannot
/// help. Errors of connections, locks, disks, read-only servers and missing columns are not among
/// them.
#[must_use]
pub fn is_data_error(error: &sqlx::Error) -> bool {
    const DATA: [u16; 12] = [
        1048, 1062, 1264, 1265, 1292, 1366, 1406, 1452, 1690, 3140, 3819, 4025,
    ];
    error_number(error).is_some_and(|number| DATA.contains(&number))
}
