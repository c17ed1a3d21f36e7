//! The MySQL side: what Redis decided, stored in groups, and everything that is read from there.
//!
//! | file | owns |
//! |---|---|
//! | [`migrate`] | the tables: where the schema stands, and pending migrations |
//! | [`rows`] | multi-row statements of fixed sizes |
//! | [`shards`] | watermark, epoch, the row lock that fences subscribers, lost entries |
//! | [`record`] | what belongs to an entry: journal row, postings, its own tables |
//! | [`settle`] | balances and watermark, in journal order, chained without a gap |
//! | [`quarantine`] | accounts whose postings do not chain, and what is kept aside of them |
//! | [`account_queue`] | which transaction of a process may lock the row of an account next |
//! | [`archives`] | how far the journal was removed into files, and the levels there |
//! | [`server_settings`] | whether MySQL keeps what is promised |
//! | [`replica_beats`] | how far a replica follows |
//! | [`accounts`], [`journal`], [`movements`], [`orders`], [`reservations`], [`offline_sales`], [`invalid_sales`], [`products`], [`sales`], [`selling`], [`stores`], [`stock_levels`], [`works`], [`coupons`], [`coupon_issues`], [`point_transactions`], [`point_reports`], [`imports`], [`webhooks`], [`dead_letters`], [`jobs`], [`ledger_checks`] | one table group each |
//! | [`idempotent_requests`] | answers under an Idempotency-Key, of what is decided here |
//! | [`people`] | users, sessions, tokens, the audit log: no part of the ledger |
//!
//! Every connection runs READ COMMITTED in strict mode. Locks are always taken in this order: the turn in the
//! process, shard row (or, on the synchronous path, the epoch's row in share mode), account rows by key, then
//! reads and inserts. Who has a shard's row only takes a turn that nobody has.

pub mod account_queue;
pub mod accounts;
pub mod archived_allowances;
pub mod archives;
pub mod branches;
pub mod coupon_issues;
pub mod coupons;
pub mod dead_letters;
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
pub mod orders;
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

/// Statements that a connection keeps prepared: a size of every multi-row insert, and the rest.
const PREPARED_MAX: usize = 512;
/// How long an idle connection may take to say that it is alive before another one is made.
const PONG_MAX: Duration = Duration::from_millis(300);
/// What data must be: an error, never cut to fit.
const SQL_MODE: &str = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO";

/// How long a transaction may stay idle before the server rolls it back, so that a paused process
/// does not hold its locks for ever. Idle is one that is not asked anything, however slow MySQL is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Who locks rows that every instance needs, the subscriber and row-locked orders: 1 s, so that another instance
    /// takes over soon. An order whose Redis takes longer is left to the subscriber.
    Locking,
    /// Other requests: 10 s.
    Requests,
    /// `recover` and `verify`, whose transactions may take long.
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

/// A pool that connects when it is first used, so that a service starts while MySQL is away.
///
/// # Errors
/// When `database_url` cannot be parsed.
pub fn pool(config: &Config, role: Role) -> Result<MySqlPool, sqlx::Error> {
    let mut options = MySqlConnectOptions::from_str(&config.database_url)?
        .statement_cache_capacity(PREPARED_MAX)
        .charset("utf8mb4");
    if !config.database_url.contains("ssl-mode") {
        options = options.ssl_mode(MySqlSslMode::Disabled);
    }
    let orders = u32::try_from(config.synchronous_orders_max).unwrap_or(u32::MAX);
    let connections = match role {
        // Two for each shard that there may be; they are opened when they are needed.
        Role::Locking => orders.saturating_add(128),
        Role::Requests => config.database_connections_max,
        Role::Tool => 4,
    };
    Ok(MySqlPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_millis(config.database_acquire_timeout_ms))
        .after_connect(move |connection, _| Box::pin(prepare_session(connection, role)))
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(still_answers(connection)))
        .connect_lazy_with(options))
}

/// Whether an idle connection may be used: one that the server has closed is replaced, and one that swallows what is
/// sent soon enough that no request fails for it.
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
    // A pooled connection of MySQL must outlive the pool's own idle time between requests. One that locks is opened
    // anew instead when it was idle for long.
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
        // MariaDB before 11.1 knows the variable by its older name only.
        connection.execute(AssertSqlSafe(legacy)).await?;
    }
    Ok(())
}

/// The variable after whose seconds of silence the server rolls a transaction back. MariaDB ends an idle transaction;
/// MySQL only knows the idle connection.
fn silence_limit(version: &str) -> &'static str {
    match version.contains("MariaDB") {
        true => "idle_transaction_timeout",
        false => "wait_timeout",
    }
}

/// Makes the server roll back what a connection has begun as soon as it hears nothing of it for so long.
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

/// A lock wait that timed out (1205), a deadlock (1213), a row that another holds (3572), or a twin
/// that was quicker (1062): the transaction as a whole may be tried again.
#[must_use]
pub fn is_passing(error: &sqlx::Error) -> bool {
    matches!(error_number(error), Some(1205 | 1213 | 3572 | 1062))
}

/// The data does not fit its column or breaks a constraint: trying again cannot help. Connection,
/// lock, disk, read-only and missing-column errors are not among them.
#[must_use]
pub fn is_data_error(error: &sqlx::Error) -> bool {
    const DATA: [u16; 12] = [
        1048, 1062, 1264, 1265, 1292, 1366, 1406, 1452, 1690, 3140, 3819, 4025,
    ];
    error_number(error).is_some_and(|number| DATA.contains(&number))
}
