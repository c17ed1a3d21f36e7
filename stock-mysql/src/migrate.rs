//! The tables of `migrations/`: how the schema compares with this program, and how pending
//! migrations are applied.
//!
//! `serve` and `migrate` apply pending migrations, one process at a time, statement by statement.
//! The next run finishes a run that was killed (`run`). A schema that is ahead of the program is
//! left alone, because each migration lets the previous version go on. Migrations that were
//! released are never edited.

mod run;

use sqlx::migrate::{Migration, MigrationType};
use sqlx::{AssertSqlSafe, MySqlConnection, MySqlPool, SqlSafeStr};

pub use self::run::Run;
use super::error_number;

/// Version, description and text of every migration, in order.
const MIGRATIONS: [(i64, &str, &str); 29] = [
    (
        20_261_121_000_000,
        "create ledger",
        include_str!("../../migrations/20261121000000_create_ledger.sql"),
    ),
    (
        20_261_121_000_100,
        "create catalog",
        include_str!("../../migrations/20261121000100_create_catalog.sql"),
    ),
    (
        20_261_121_000_200,
        "create orders",
        include_str!("../../migrations/20261121000200_create_orders.sql"),
    ),
    (
        20_261_121_000_300,
        "derive columns",
        include_str!("../../migrations/20261121000300_derive_columns.sql"),
    ),
    (
        20_261_121_000_400,
        "people",
        include_str!("../../migrations/20261121000400_people.sql"),
    ),
    (
        20_261_121_000_500,
        "sales reservations stores",
        include_str!("../../migrations/20261121000500_sales_reservations_stores.sql"),
    ),
    (
        20_261_121_000_600,
        "create imports",
        include_str!("../../migrations/20261121000600_create_imports.sql"),
    ),
    (
        20_261_121_000_700,
        "create webhooks",
        include_str!("../../migrations/20261121000700_create_webhooks.sql"),
    ),
    (
        20_261_121_000_800,
        "create benefits",
        include_str!("../../migrations/20261121000800_create_benefits.sql"),
    ),
    (
        20_261_122_000_000,
        "create ledger checks",
        include_str!("../../migrations/20261122000000_create_ledger_checks.sql"),
    ),
    (
        20_261_122_000_100,
        "grow past one machine",
        include_str!("../../migrations/20261122000100_grow_past_one_machine.sql"),
    ),
    (
        20_261_122_000_200,
        "create archives",
        include_str!("../../migrations/20261122000200_create_archives.sql"),
    ),
    (
        20_261_122_000_210,
        "create replica beats",
        include_str!("../../migrations/20261122000210_create_replica_beats.sql"),
    ),
    (
        20_261_122_000_300,
        "divide hot products",
        include_str!("../../migrations/20261122000300_divide_hot_products.sql"),
    ),
    (
        20_261_129_000_000,
        "forget allowances",
        include_str!("../../migrations/20261129000000_forget_allowances.sql"),
    ),
    (
        20_261_129_000_100,
        "keep the switch",
        include_str!("../../migrations/20261129000100_keep_the_switch.sql"),
    ),
    (
        20_261_129_000_200,
        "freeze held prices",
        include_str!("../../migrations/20261129000200_freeze_held_prices.sql"),
    ),
    (
        20_261_129_000_210,
        "change sales",
        include_str!("../../migrations/20261129000210_change_sales.sql"),
    ),
    (
        20_261_129_000_220,
        "create idempotent requests",
        include_str!("../../migrations/20261129000220_create_idempotent_requests.sql"),
    ),
    (
        20_261_129_000_300,
        "quarantine accounts",
        include_str!("../../migrations/20261129000300_quarantine_accounts.sql"),
    ),
    (
        20_261_130_000_100,
        "rotate webhook secrets",
        include_str!("../../migrations/20261130000100_rotate_webhook_secrets.sql"),
    ),
    (
        20_261_130_000_200,
        "keep invalid sales",
        include_str!("../../migrations/20261130000200_keep_invalid_sales.sql"),
    ),
    (
        20_261_130_000_300,
        "fix the shard map",
        include_str!("../../migrations/20261130000300_fix_the_shard_map.sql"),
    ),
    (
        20_261_201_000_100,
        "create checkouts",
        include_str!("../../migrations/20261201000100_create_checkouts.sql"),
    ),
    (
        20_261_201_000_200,
        "create order changes",
        include_str!("../../migrations/20261201000200_create_order_changes.sql"),
    ),
    (
        20_261_201_000_300,
        "create service keys",
        include_str!("../../migrations/20261201000300_create_service_keys.sql"),
    ),
    (
        20_261_201_000_400,
        "create buyers",
        include_str!("../../migrations/20261201000400_create_buyers.sql"),
    ),
    (
        20_261_201_000_500,
        "name orders",
        include_str!("../../migrations/20261201000500_name_orders.sql"),
    ),
    (
        20_261_201_000_600,
        "name products",
        include_str!("../../migrations/20261201000600_name_products.sql"),
    ),
];

/// The schema of the database, compared with the one that this program needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// Both are the same.
    Current,
    /// A later version of the program has migrated; this program still works.
    Ahead,
    /// A migration that this program needs is missing.
    Behind,
}

impl Schema {
    /// All values.
    pub const ALL: [Self; 3] = [Self::Current, Self::Ahead, Self::Behind];

    /// The word that `/readyz` shows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Ahead => "ahead",
            Self::Behind => "behind",
        }
    }
}

/// Why the schema was not brought up to the program. Once the reason is gone, the migration may run
/// again.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// MySQL did not answer, or refused.
    #[error("mysql: {0}")]
    Database(#[from] sqlx::Error),
    /// A statement failed.
    #[error("statement {number} of migration {version}: {source}")]
    Statement {
        /// The version of the migration.
        version: i64,
        /// The number of the statement, from 1.
        number: usize,
        /// The error from MySQL.
        source: sqlx::Error,
    },
    /// The text of a migration differs from the one that was applied.
    #[error(
        "migration {0} was applied with another text: this program is no release of this shop's"
    )]
    Changed(i64),
    /// Neither of the two schemas contains the other.
    #[error(
        "migration {missing} is missing, and {unknown} is there, which this program does not know: it is no release \
         before or after the one that migrated"
    )]
    Diverged {
        /// The first migration that the program needs.
        missing: i64,
        /// A migration of the database that the program does not know.
        unknown: i64,
    },
}

/// A row of the table of migrations.
struct Applied {
    version: i64,
    success: bool,
    checksum: Vec<u8>,
}

from_row!(Applied {
    version,
    success,
    checksum
});

fn migration((version, description, text): (i64, &'static str, &'static str)) -> Migration {
    let sql = AssertSqlSafe(text).into_sql_str();
    Migration::new(
        version,
        description.into(),
        MigrationType::Simple,
        sql,
        false,
    )
}

fn is_known(version: i64) -> bool {
    MIGRATIONS.iter().any(|(known, ..)| *known == version)
}

async fn applied(connection: &mut MySqlConnection) -> Result<Vec<Applied>, sqlx::Error> {
    const NO_TABLE: u16 = 1146;
    let rows = sqlx::query_as("SELECT version, success, checksum FROM _sqlx_migrations")
        .fetch_all(connection)
        .await;
    match rows {
        Err(error) if error_number(&error) == Some(NO_TABLE) => Ok(Vec::new()),
        rows => rows,
    }
}

/// The migrations that are not applied, or not completely.
async fn pending(connection: &mut MySqlConnection) -> Result<Vec<Migration>, MigrateError> {
    let applied = applied(connection).await?;
    let mut pending = Vec::new();
    for migration in MIGRATIONS.map(migration) {
        let row = applied
            .iter()
            .find(|row| row.version == migration.version && row.success);
        match row {
            Some(row) if *row.checksum == *migration.checksum => {}
            Some(_) => return Err(MigrateError::Changed(migration.version)),
            None => pending.push(migration),
        }
    }
    let unknown = applied.iter().find(|row| !is_known(row.version));
    match (pending.first(), unknown) {
        (Some(missing), Some(unknown)) => Err(MigrateError::Diverged {
            missing: missing.version,
            unknown: unknown.version,
        }),
        _ => Ok(pending),
    }
}

/// Applies pending migrations. The call waits while another process applies them, and leaves a
/// schema that is current or ahead alone.
///
/// # Errors
/// [`MigrateError`]
pub async fn migrate(pool: &MySqlPool) -> Result<(), MigrateError> {
    let Some(mut run) = Run::begin(pool).await? else {
        return Ok(());
    };
    while run.step().await? {}
    run.end().await
}

/// Compares the schema of the database with this program.
///
/// # Errors
/// When MySQL does not answer.
pub async fn schema(pool: &MySqlPool) -> Result<Schema, sqlx::Error> {
    let applied = applied(&mut *pool.acquire().await?).await?;
    let has = |version| {
        let mut rows = applied.iter();
        rows.any(|row| row.version == version && row.success)
    };
    let is_behind = MIGRATIONS.iter().any(|(version, ..)| !has(*version));
    let is_ahead = applied.iter().any(|row| !is_known(row.version));
    Ok(match (is_behind, is_ahead) {
        (true, _) => Schema::Behind,
        (false, true) => Schema::Ahead,
        (false, false) => Schema::Current,
    })
}
