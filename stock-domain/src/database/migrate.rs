//! The tables, from `migrations/`, and the first epoch.
//!
//! `serve` applies pending migrations: sqlx takes a lock, so one instance wins and the others wait.
//! Only `migrate` writes a first epoch, and only when neither side has one with history.

use sqlx::MySqlPool;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr};

/// Version, description and text of every migration, in order.
const MIGRATIONS: [(i64, &str, &str); 20] = [
    (
        20_261_121_000_000,
        "create ledger",
        include_str!("../../../migrations/20261121000000_create_ledger.sql"),
    ),
    (
        20_261_121_000_100,
        "create catalog",
        include_str!("../../../migrations/20261121000100_create_catalog.sql"),
    ),
    (
        20_261_121_000_200,
        "create orders",
        include_str!("../../../migrations/20261121000200_create_orders.sql"),
    ),
    (
        20_261_121_000_300,
        "derive columns",
        include_str!("../../../migrations/20261121000300_derive_columns.sql"),
    ),
    (
        20_261_121_000_400,
        "people",
        include_str!("../../../migrations/20261121000400_people.sql"),
    ),
    (
        20_261_121_000_500,
        "sales reservations stores",
        include_str!("../../../migrations/20261121000500_sales_reservations_stores.sql"),
    ),
    (
        20_261_121_000_600,
        "create imports",
        include_str!("../../../migrations/20261121000600_create_imports.sql"),
    ),
    (
        20_261_121_000_700,
        "create webhooks",
        include_str!("../../../migrations/20261121000700_create_webhooks.sql"),
    ),
    (
        20_261_121_000_800,
        "create benefits",
        include_str!("../../../migrations/20261121000800_create_benefits.sql"),
    ),
    (
        20_261_122_000_000,
        "create ledger checks",
        include_str!("../../../migrations/20261122000000_create_ledger_checks.sql"),
    ),
    (
        20_261_122_000_100,
        "grow past one machine",
        include_str!("../../../migrations/20261122000100_grow_past_one_machine.sql"),
    ),
    (
        20_261_122_000_200,
        "create archives",
        include_str!("../../../migrations/20261122000200_create_archives.sql"),
    ),
    (
        20_261_122_000_210,
        "create replica beats",
        include_str!("../../../migrations/20261122000210_create_replica_beats.sql"),
    ),
    (
        20_261_122_000_300,
        "divide hot products",
        include_str!("../../../migrations/20261122000300_divide_hot_products.sql"),
    ),
    (
        20_261_129_000_000,
        "forget allowances",
        include_str!("../../../migrations/20261129000000_forget_allowances.sql"),
    ),
    (
        20_261_129_000_100,
        "keep the switch",
        include_str!("../../../migrations/20261129000100_keep_the_switch.sql"),
    ),
    (
        20_261_129_000_200,
        "freeze held prices",
        include_str!("../../../migrations/20261129000200_freeze_held_prices.sql"),
    ),
    (
        20_261_129_000_210,
        "change sales",
        include_str!("../../../migrations/20261129000210_change_sales.sql"),
    ),
    (
        20_261_129_000_220,
        "create idempotent requests",
        include_str!("../../../migrations/20261129000220_create_idempotent_requests.sql"),
    ),
    (
        20_261_129_000_300,
        "quarantine accounts",
        include_str!("../../../migrations/20261129000300_quarantine_accounts.sql"),
    ),
];

fn migrator() -> Migrator {
    let migrations = MIGRATIONS.into_iter().map(|(version, description, text)| {
        let sql = AssertSqlSafe(text).into_sql_str();
        Migration::new(
            version,
            description.into(),
            MigrationType::Simple,
            sql,
            false,
        )
    });
    Migrator::with_migrations(migrations.collect())
}

/// Applies pending migrations; refuses a schema that a newer program has changed.
///
/// # Errors
/// When MySQL does not answer, a migration fails, or the schema is newer than this program.
pub async fn migrate(pool: &MySqlPool) -> Result<(), MigrateError> {
    migrator().run(pool).await
}

/// Whether the schema is exactly this program's.
///
/// # Errors
/// When MySQL does not answer.
pub async fn is_current(pool: &MySqlPool) -> Result<bool, MigrateError> {
    let mut connection = pool.acquire().await.map_err(MigrateError::Execute)?;
    let applied = connection
        .list_applied_migrations("_sqlx_migrations")
        .await?;
    let versions: Vec<i64> = applied.iter().map(|migration| migration.version).collect();
    Ok(versions == MIGRATIONS.map(|(version, ..)| version))
}
