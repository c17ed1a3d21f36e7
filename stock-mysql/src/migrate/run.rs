//! A run of the pending migrations: one process at a time, statement by statement, and each
//! statement is noted when it is done.
//!
//! MySQL commits before and after every statement that changes a table, so a migration that is
//! killed stays half done. The row of `migration_steps` holds the number of its statements that are
//! done, and the next run goes on after them. The statement that was under way may be done without
//! its note. Its second attempt is then refused because its effect is there already, and counts as
//! done. Statements that change rows commit together with their note.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use sqlx::migrate::{Migrate, Migration};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, MySqlPool};

use super::{MigrateError, pending};
use crate::error_number;

/// Pause between two attempts to get the lock while another process has it.
const LOCK_EVERY: Duration = Duration::from_millis(200);
/// Errors of a statement whose effect is there already: a table, column, key, row, primary key or
/// constraint that exists, and a column or key that is gone.
const DONE: [u16; 9] = [1050, 1054, 1060, 1061, 1062, 1068, 1091, 1826, 3822];

/// Pending migrations under the lock of the database.
///
/// The connection that runs the statements holds the lock, so both are lost together. Dropping the
/// run stops it where it is. The lock is free when the server has ended the statement under way.
#[derive(Debug)]
pub struct Run {
    connection: MySqlConnection,
    pending: VecDeque<Migration>,
    /// The progress of the first pending migration, once it has begun.
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    statements: Vec<String>,
    done: usize,
    /// Indexes of the statements that an earlier run may have done without a note.
    doubtful: Range<usize>,
}

impl Run {
    /// Waits for the lock and begins. `None` when nothing is pending, which needs no lock and only
    /// the right to read.
    ///
    /// # Errors
    /// [`MigrateError`]
    pub async fn begin(pool: &MySqlPool) -> Result<Option<Self>, MigrateError> {
        let mut pooled = pool.acquire().await?;
        if pending(&mut pooled).await?.is_empty() {
            return Ok(None);
        }
        // The run has a connection of its own. Dropping it closes it at once, and frees the lock.
        let mut connection = pooled.detach();
        lock(&mut connection).await?;
        let created = connection.ensure_migrations_table("_sqlx_migrations").await;
        created.map_err(|error| sqlx::Error::Protocol(error.to_string()))?;
        connection
            .execute(
                "CREATE TABLE IF NOT EXISTS migration_steps (version BIGINT NOT NULL, \
                 done INT UNSIGNED NOT NULL, PRIMARY KEY (version)) ENGINE = InnoDB",
            )
            .await?;
        // Another process may have applied them while this one waited.
        let pending = pending(&mut connection).await?.into();
        Ok(Some(Self {
            connection,
            pending,
            begun: None,
        }))
    }

    /// Runs the next statement, or notes that a migration is applied; `false` when nothing is left.
    ///
    /// # Errors
    /// [`MigrateError`]; another run can go on from here.
    pub async fn step(&mut self) -> Result<bool, MigrateError> {
        let Some(migration) = self.pending.front() else {
            return Ok(false);
        };
        let begun = match &mut self.begun {
            Some(begun) => begun,
            begun @ None => begun.insert(Begun::read(&mut self.connection, migration).await?),
        };
        if begun.done < begun.statements.len() {
            begun.step(&mut self.connection, migration.version).await?;
        } else {
            finish(&mut self.connection, migration).await?;
            self.begun = None;
            self.pending.pop_front();
        }
        Ok(true)
    }

    /// Releases the lock.
    ///
    /// # Errors
    /// When MySQL does not answer.
    pub async fn end(self) -> Result<(), MigrateError> {
        Ok(self.connection.close().await?)
    }
}

impl Begun {
    /// Reads how far an earlier run came.
    async fn read(
        connection: &mut MySqlConnection,
        migration: &Migration,
    ) -> Result<Self, sqlx::Error> {
        let version = migration.version;
        let done: Option<u32> =
            sqlx::query_scalar("SELECT done FROM migration_steps WHERE version = ?")
                .bind(version)
                .fetch_optional(&mut *connection)
                .await?;
        // Releases before `migration_steps` only noted that a migration had begun.
        let is_dirty: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM _sqlx_migrations WHERE version = ? AND success = FALSE)",
        )
        .bind(version)
        .fetch_one(&mut *connection)
        .await?;
        if done.is_none() {
            sqlx::query("INSERT INTO migration_steps (version, done) VALUES (?, 0)")
                .bind(version)
                .execute(&mut *connection)
                .await?;
        }
        let statements = statements(migration.sql.as_str());
        let is_new = done.is_none();
        let done = usize::try_from(done.unwrap_or(0)).unwrap_or(usize::MAX);
        let doubtful = match (is_dirty, is_new) {
            (true, _) => 0..statements.len(),
            (false, false) => done..done + 1,
            (false, true) => 0..0,
        };
        Ok(Self {
            statements,
            done,
            doubtful,
        })
    }

    async fn step(
        &mut self,
        connection: &mut MySqlConnection,
        version: i64,
    ) -> Result<(), MigrateError> {
        let number = self.done + 1;
        let text = self.statements.get(self.done).cloned().unwrap_or_default();
        let mut transaction = connection.begin().await?;
        if let Err(source) = transaction.execute(AssertSqlSafe(text)).await {
            let is_done = error_number(&source).is_some_and(|error| DONE.contains(&error));
            if !is_done || !self.doubtful.contains(&self.done) {
                return Err(MigrateError::Statement {
                    version,
                    number,
                    source,
                });
            }
        }
        sqlx::query("UPDATE migration_steps SET done = done + 1 WHERE version = ?")
            .bind(version)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        self.done = number;
        Ok(())
    }
}

/// Notes that a migration is applied, as `sqlx` notes it in its table.
async fn finish(connection: &mut MySqlConnection, of: &Migration) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (?, ?, TRUE, ?, -1) ON DUPLICATE KEY UPDATE success = TRUE, checksum = VALUES(checksum)",
    )
    .bind(of.version)
    .bind(&*of.description)
    .bind(&*of.checksum)
    .execute(&mut *transaction)
    .await?;
    sqlx::query("DELETE FROM migration_steps WHERE version = ?")
        .bind(of.version)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

/// Waits for the lock of this database. It is asked for again and again, because MariaDB cannot
/// wait without a time limit.
async fn lock(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    loop {
        let locked: Option<i64> =
            sqlx::query_scalar("SELECT GET_LOCK(CONCAT('stock ', SHA2(DATABASE(), 224)), 0)")
                .fetch_one(&mut *connection)
                .await?;
        match locked {
            Some(1) => return Ok(()),
            Some(_) => tokio::time::sleep(LOCK_EVERY).await,
            None => {
                let text = "the lock of migrations was not given";
                return Err(sqlx::Error::Protocol(text.to_owned()));
            }
        }
    }
}

/// The statements of a migration, without comments. Each statement ends at a semicolon.
fn statements(text: &str) -> Vec<String> {
    let (mut all, mut is_quoted) = (vec![String::new()], false);
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        match (next, all.last_mut()) {
            ('-', Some(_)) if !is_quoted && rest.peek() == Some(&'-') => {
                rest.by_ref().find(|&skipped| skipped == '\n');
            }
            (';', _) if !is_quoted => all.push(String::new()),
            (_, Some(statement)) => {
                is_quoted ^= next == '\'';
                statement.push(next);
            }
            (_, None) => {}
        }
    }
    all.retain(|statement| !statement.trim().is_empty());
    all
}

#[cfg(test)]
mod tests {
    use super::statements;

    #[test]
    fn statements_end_at_semicolons_that_no_quote_or_comment_holds() {
        let text = "-- Why; a comment.\nCREATE TABLE a (\n  b INT -- one; two\n    COMMENT 'it''s; -- so');\n\n\
                    INSERT INTO a VALUES (1);\n-- The end.\n";
        let found = statements(text);
        assert_eq!(
            found.iter().map(|one| one.trim()).collect::<Vec<_>>(),
            [
                "CREATE TABLE a (\n  b INT     COMMENT 'it''s; -- so')",
                "INSERT INTO a VALUES (1)"
            ]
        );
    }
}
