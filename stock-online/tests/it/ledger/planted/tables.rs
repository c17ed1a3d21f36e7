//! The data of MySQL, changed one column and one row at a time: every column of every table, as the
//! schema names them.

use std::collections::BTreeMap;

use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, MySqlPool, Row as _};

/// Tables that follow from the journal.
pub(super) const LEDGER: [&str; 23] = [
    "accounts",
    "archived_allowances",
    "archived_levels",
    "archives",
    "branches",
    "buyers",
    "checkout_lines",
    "checkouts",
    "coupon_issues",
    "daily_point_reports",
    "dead_letters",
    "entry_branches",
    "epochs",
    "journal",
    "offline_sales",
    "order_changes",
    "order_products",
    "orders",
    "payments",
    "point_transactions",
    "postings",
    "reservations",
    "shards",
];

/// A column that this program no longer reads.
pub(super) const FIRST_RELEASE: (&str, &str) = ("shards", "layout");

/// Columns of other tables that follow from the journal.
pub(super) const FACTS: [(&str, &str); 4] = [
    ("coupons", "count"),
    ("coupons", "opened"),
    ("products", "opened"),
    ("sales", "counted_from"),
];

/// Tables without a row that follows from the journal, and the reason.
pub(super) const OTHERS: [(&str, &str); 37] = [
    ("_sqlx_migrations", "the schema, not what happened"),
    ("audit_log", "who asked: people are no part of the ledger"),
    ("buckets", "the first release's"),
    (
        "coupons",
        "what a coupon is worth: an admin's word; what the ledger knows of it is in FACTS",
    ),
    (
        "discounts",
        "an admin's word; what was charged stands in each order",
    ),
    ("drifts", "a diary of reconcile"),
    (
        "idempotent_requests",
        "what MySQL alone decided; its answer is in no journal",
    ),
    (
        "import_rows",
        "a worksheet that ends with its file; what was written stands in entries",
    ),
    ("imports", "as import_rows"),
    ("instances", "the first release's"),
    (
        "invalid_sales",
        "what a till sent and nobody could read: in no journal",
    ),
    ("migration_steps", "the schema, not what happened"),
    ("jobs", "when jobs ran"),
    ("layouts", "the first release's"),
    ("ledger_checks", "a diary of verify and reconcile"),
    ("locations", "an admin's word"),
    (
        "lost_entries",
        "what instances alone remember; each row is named as lost",
    ),
    ("masters", "the first release's"),
    (
        "products",
        "an admin's word; what the ledger knows of it is in FACTS",
    ),
    (
        "proofs",
        "what verify remembers of itself: a full run does not read it",
    ),
    ("refresh_tokens", "people are no part of the ledger"),
    ("replica_beats", "how far replicas are"),
    (
        "sales",
        "an admin's word; what was counted stands in accounts, and what follows is in FACTS",
    ),
    (
        "selling",
        "what an operator asked for last; what came of it is in shards",
    ),
    ("service_keys", "people are no part of the ledger"),
    ("sessions", "people are no part of the ledger"),
    (
        "shard_map",
        "how many shards there are: each account is looked for by it",
    ),
    ("shard_map_changes", "a change that is not finished"),
    ("slots", "the first release's"),
    ("users", "people are no part of the ledger"),
    ("webhook_cursors", "what receivers have taken"),
    ("webhook_deliveries", "what receivers have taken"),
    ("webhooks", "who is told"),
    ("witnesses", "the first release's"),
    ("works", "an admin's word"),
    (
        "quarantined_accounts",
        "what waits for a person; each row is named",
    ),
    (
        "quarantined_postings",
        "what waits for a person; each account is named",
    ),
];

/// Columns of the ledger's tables whose values are known from nowhere else, and the reason.
pub(super) const NO_FACT: [(&str, &str, &str); 13] = [
    ("accounts", "updated_at", "when MySQL was told"),
    (
        "archives",
        "checksum",
        "`archive` compares it with the file",
    ),
    ("archives", "file", "`archive` looks for it"),
    ("archives", "month", "for people"),
    (
        "archives",
        "position",
        "the entry that it names is in the file",
    ),
    ("archives", "written_at", "for people"),
    ("branches", "updated_at", "when MySQL was told"),
    ("daily_point_reports", "updated_at", "when it was written"),
    ("dead_letters", "attempts", "for people"),
    ("dead_letters", "created_at", "when MySQL was told"),
    ("dead_letters", "reason", "for people"),
    ("dead_letters", "updated_at", "when MySQL was told"),
    ("shards", "updated_at", "when MySQL was told"),
];

/// Columns of which only the presence of a value can be verified: the value is a time or a text
/// that only MySQL has.
pub(super) const PRESENCE: [(&str, &str); 7] = [
    ("checkouts", "ended_at"),
    ("checkouts", "extended_at"),
    ("offline_sales", "note"),
    ("offline_sales", "resolved_at"),
    ("offline_sales", "resolved_by"),
    ("orders", "updated_at"),
    ("reservations", "ended_at"),
];

/// A column as the schema describes it.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) table_name: String,
    pub(super) column_name: String,
    column_type: String,
    is_nullable: String,
    column_key: String,
    pub(super) is_generated: bool,
}

/// Every column of every table.
pub(super) async fn columns(pool: &MySqlPool) -> Vec<Column> {
    sqlx::query(
        "SELECT CAST(table_name AS CHAR) AS table_name, CAST(column_name AS CHAR) AS column_name, \
         CAST(column_type AS CHAR) AS column_type, CAST(is_nullable AS CHAR) AS is_nullable, \
         CAST(column_key AS CHAR) AS column_key, \
         generation_expression IS NOT NULL AND generation_expression <> '' AS is_generated \
         FROM information_schema.columns WHERE table_schema = DATABASE() \
         AND table_name NOT LIKE 'kept\\_%' ORDER BY table_name, ordinal_position",
    )
    .map(|row: MySqlRow| Column {
        table_name: row.get("table_name"),
        column_name: row.get("column_name"),
        column_type: row.get("column_type"),
        is_nullable: row.get("is_nullable"),
        column_key: row.get("column_key"),
        is_generated: row.get("is_generated"),
    })
    .fetch_all(pool)
    .await
    .unwrap()
}

/// A change of a table.
#[derive(Debug, Clone)]
pub(super) struct Planting {
    pub(super) table: String,
    pub(super) statement: String,
}

impl Column {
    fn is(&self, list: &[(&str, &str)]) -> bool {
        list.contains(&(self.table_name.as_str(), self.column_name.as_str()))
    }

    fn is_key(&self) -> bool {
        self.column_key == "PRI"
    }

    /// Sets another value of the column's type, in the newest row that has a value.
    fn changed(&self) -> String {
        let (name, kind) = (&self.column_name, self.column_type.as_str());
        let value = if let Some(members) = kind.strip_prefix("enum(") {
            let members = members.trim_end_matches(')');
            let count = members.split(',').count();
            match self.is_key() {
                true => format!("ELT({count}, {members})"),
                false => format!("ELT(FIELD({name}, {members}) % {count} + 1, {members})"),
            }
        } else if kind == "tinyint(1)" {
            format!("1 - {name}")
        } else if kind.contains("int") {
            format!("{name} + {}", if self.is_key() { 7_777 } else { 1 })
        } else if kind.contains("binary") || kind.contains("blob") {
            format!("CONCAT(SUBSTRING({name}, 1, LENGTH({name}) - 1), X'01')")
        } else if kind.starts_with("date") {
            format!("{name} + INTERVAL 1 DAY")
        } else {
            format!("CONCAT(IF({name} LIKE 'x%', 'y', 'x'), SUBSTRING({name}, 2))")
        };
        self.update(&value, "IS NOT NULL")
    }

    /// Sets a value in the newest row that has none.
    fn filled(&self) -> String {
        let kind = self.column_type.as_str();
        let value = if kind.contains("binary") {
            "REPEAT('x', 16)"
        } else if kind.starts_with("date") {
            "NOW(3)"
        } else {
            "1"
        };
        self.update(value, "IS NULL")
    }

    /// Sets `value` in the newest row that fits `is`: `IS NULL` or `IS NOT NULL`.
    fn update(&self, value: &str, is: &str) -> String {
        let (table, name) = (&self.table_name, &self.column_name);
        let newest = newest(table);
        format!("UPDATE {table} SET {name} = {value} WHERE {name} {is} ORDER BY {newest} LIMIT 1")
    }
}

/// The order that puts the newest row first.
fn newest(table: &str) -> &'static str {
    match table {
        "accounts" | "archived_levels" => "kind, owner_id, place_id",
        "archived_allowances" => "sale_id",
        "archives" => "shard, first_number",
        "branches" | "buyers" | "checkouts" | "coupon_issues" | "journal" | "orders"
        | "order_changes" | "payments" | "reservations" | "coupons" | "products" | "sales" => {
            "id DESC"
        }
        "checkout_lines" => "checkout_id DESC",
        "daily_point_reports" => "user_id",
        "dead_letters" | "offline_sales" => "journal_id DESC",
        "postings" => "journal_id DESC, kind, owner_id",
        "entry_branches" => "entry_id DESC",
        "epochs" | "shards" => "shard",
        "order_products" => "order_id DESC",
        "point_transactions" => "id DESC, seq",
        other => panic!("{other} has no order"),
    }
}

/// Every change of a column: another value, a value where there was none, and none where there was
/// one.
pub(super) fn changes(column: &Column) -> Vec<Planting> {
    let is_listed = |(table, name, _): &&(&str, &str, &str)| {
        (*table, *name) == (column.table_name.as_str(), column.column_name.as_str())
    };
    if column.is_generated {
        return Vec::new();
    }
    let mut statements = Vec::new();
    let has_no_fact = NO_FACT.iter().any(|of| is_listed(&of));
    if !has_no_fact && !column.is(&PRESENCE) {
        statements.push(column.changed());
    }
    if (!has_no_fact || column.is(&PRESENCE)) && column.is_nullable == "YES" {
        statements.push(column.update("NULL", "IS NOT NULL"));
        statements.push(column.filled());
    }
    let planting = |statement| Planting {
        table: column.table_name.clone(),
        statement,
    };
    statements.into_iter().map(planting).collect()
}

/// Changes of whole rows: one row is removed, and one is added that no entry made.
pub(super) fn rows(table: &str, columns: &[Column]) -> Vec<Planting> {
    let own = columns
        .iter()
        .filter(|of| of.table_name == table && !of.is_generated);
    let own: Vec<&Column> = own.collect();
    let names: Vec<&str> = own.iter().map(|of| of.column_name.as_str()).collect();
    let first_key = own
        .iter()
        .find(|of| of.is_key() && of.column_type.contains("int"));
    let first_key = first_key.map(|of| of.column_name.as_str());
    let value = |name: &&str| match (table, *name) {
        (_, name) if Some(name) == first_key => format!("{name} + 7777"),
        ("journal", "number") => "number + 7777".to_owned(),
        ("offline_sales", "sale_key") => "'planted'".to_owned(),
        (_, name) => name.to_owned(),
    };
    let values: Vec<String> = names.iter().map(value).collect();
    let (names, values, newest) = (names.join(", "), values.join(", "), newest(table));
    let statements = [
        format!("DELETE FROM {table} ORDER BY {newest} LIMIT 1"),
        format!(
            "INSERT INTO {table} ({names}) SELECT {values} FROM {table} ORDER BY {newest} LIMIT 1"
        ),
    ];
    let planting = |statement| Planting {
        table: table.to_owned(),
        statement,
    };
    statements.map(planting).into()
}

/// Copies of tables, from which each change is undone.
pub(super) struct Kept<'a> {
    pool: &'a MySqlPool,
    names: BTreeMap<String, String>,
}

impl<'a> Kept<'a> {
    pub(super) async fn of(pool: &'a MySqlPool, columns: &[Column]) -> Self {
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        for column in columns.iter().filter(|of| !of.is_generated) {
            let own = names.entry(column.table_name.clone()).or_default();
            if !own.is_empty() {
                own.push_str(", ");
            }
            own.push_str(&format!("`{}`", column.column_name));
        }
        let kept = Self { pool, names };
        for (table, names) in &kept.names {
            let keep = format!("CREATE TABLE kept_{table} AS SELECT {names} FROM {table}");
            kept.run(&keep).await;
        }
        kept
    }

    /// Runs a statement; returns how many rows it changed.
    pub(super) async fn run(&self, statement: &str) -> u64 {
        let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
            .execute(self.pool)
            .await;
        match done {
            Ok(done) => done.rows_affected(),
            Err(error) => panic!("{statement}: {error}"),
        }
    }

    /// Restores a table.
    pub(super) async fn restore(&self, table: &str) {
        let names = &self.names[table];
        self.run(&format!("DELETE FROM {table}")).await;
        self.run(&format!(
            "INSERT INTO {table} ({names}) SELECT {names} FROM kept_{table}"
        ))
        .await;
    }
}
