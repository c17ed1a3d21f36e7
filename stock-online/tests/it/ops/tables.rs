//! `docs/tables.md` shows every table of the schema: its purpose, its columns, and the rows that
//! they refer to.
//!
//! The page's generated part is compared with the schema of the server that the tests run on. After
//! a migration, write it anew: `TABLES=write cargo test -p stock-online --test it ops::tables`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use crate::support::Shop;

/// A subject, and its tables with the purpose of each.
type Group = (&'static str, &'static [(&'static str, &'static str)]);

const GROUPS: [Group; 9] = [
    (
        "The ledger",
        &[
            (
                "journal",
                "every entry that was accepted, in order; `id` is its position",
            ),
            ("postings", "the changes of each account, chained by `seq`"),
            ("accounts", "the balance of each account at the watermark"),
            (
                "shards",
                "how far each shard's journal is settled; its row is the lock between subscribers",
            ),
            ("epochs", "the epoch that each shard's Redis must carry"),
            ("shard_map", "the number of shards, in its only row"),
            ("shard_map_changes", "a `rehome` under way"),
            (
                "selling",
                "the switch that stops all selling, as an operator asked for it last",
            ),
            (
                "branches",
                "the parts of cross-shard orders that were held on other shards",
            ),
            (
                "entry_branches",
                "the branches that an entry of the coordinator took over",
            ),
            (
                "idempotent_requests",
                "answers that MySQL decided, by Idempotency-Key",
            ),
        ],
    ),
    (
        "Verification and repair",
        &[
            ("proofs", "how far `verify` has compared each subject"),
            ("ledger_checks", "the runs of `verify` and `reconcile`"),
            ("drifts", "the differences that `reconcile` found"),
            ("dead_letters", "entries that their own tables refused"),
            (
                "lost_entries",
                "entries that an instance accepted and Redis lost",
            ),
            (
                "quarantined_accounts",
                "accounts whose postings do not continue their chain",
            ),
            (
                "quarantined_postings",
                "the postings of such an account, kept aside",
            ),
            (
                "archives",
                "the stretches of the journal that were written to files",
            ),
            (
                "archived_levels",
                "the balance of each account where the rest of the journal begins",
            ),
            (
                "archived_allowances",
                "the allowances of sales that are over",
            ),
        ],
    ),
    (
        "The shop",
        &[
            (
                "products",
                "products, with the sale and the discount that govern them",
            ),
            ("sales", "every flash sale there ever was"),
            ("discounts", "every discount there ever was"),
            (
                "locations",
                "stores; location 0 is the warehouse of online orders",
            ),
            ("imports", "files of stock"),
            ("import_rows", "the rows of a file, until they are applied"),
        ],
    ),
    (
        "Orders, reservations and checkouts",
        &[
            ("orders", "orders; `id` is the position of the entry"),
            (
                "order_products",
                "the lines of an order, with the price that was charged",
            ),
            (
                "reservations",
                "holds, with the price and the sale that they keep",
            ),
            (
                "order_changes",
                "the steps in which parts of an order were taken back",
            ),
            (
                "checkouts",
                "orders that are held at a frozen total until they are paid",
            ),
            ("checkout_lines", "the lines of a checkout"),
            ("payments", "payments of checkouts, and what became of each"),
            ("offline_sales", "sales of tills that were cut off"),
            ("invalid_sales", "sales of tills that wait for a person"),
        ],
    ),
    (
        "Coupons and points",
        &[
            ("coupons", "coupons, and how many codes of each there are"),
            ("coupon_issues", "the codes that users hold"),
            ("works", "the items of campaigns"),
            ("point_transactions", "each change of a user's points"),
            ("daily_point_reports", "a user's points by day"),
        ],
    ),
    (
        "People",
        &[
            ("users", "accounts of people"),
            (
                "buyers",
                "the shop's own names of its buyers, and their numbers",
            ),
            (
                "service_keys",
                "keys of the shop's back ends, by the hash of their secret",
            ),
            ("refresh_tokens", "hashes of refresh tokens, by family"),
            ("sessions", "sessions of pages, by the hash of their id"),
            ("audit_log", "the actions of admins, and logins"),
        ],
    ),
    (
        "Webhooks",
        &[
            (
                "webhooks",
                "the receivers, and which instance sends to each",
            ),
            (
                "webhook_cursors",
                "how far each receiver was told of each shard's journal",
            ),
            (
                "webhook_deliveries",
                "the batches, and the attempts to send them",
            ),
        ],
    ),
    (
        "Housekeeping",
        &[
            (
                "jobs",
                "one row for each job of the schedule; its lock lets one instance run it",
            ),
            (
                "replica_beats",
                "a number that shows how far a read replica follows",
            ),
            ("_sqlx_migrations", "the migrations that were applied"),
            (
                "migration_steps",
                "the statements of a migration that is under way",
            ),
        ],
    ),
    (
        "Left by 0.1.0",
        &[
            ("buckets", "divided stock; `verify` reads the rows of then"),
            ("layouts", "earlier shard maps; empty in a new shop"),
            ("slots", "earlier shard maps; empty in a new shop"),
            ("masters", "earlier failovers; empty in a new shop"),
            ("witnesses", "earlier failovers; empty in a new shop"),
            ("instances", "earlier failovers; empty in a new shop"),
        ],
    ),
];

/// The table that a column of this name refers to. The schema has no foreign keys where record
/// writes, so that a group of entries is written without looking up their parents.
const REFERENCES: [(&str, &str); 19] = [
    ("actor_id", "users"),
    ("branch_id", "branches"),
    ("cancels_id", "point_transactions"),
    ("checkout_id", "checkouts"),
    ("commit_id", "journal"),
    ("coupon_id", "coupons"),
    ("discount_id", "discounts"),
    ("entry_id", "journal"),
    ("import_id", "imports"),
    ("journal_id", "journal"),
    ("location_id", "locations"),
    ("order_id", "orders"),
    ("product_id", "products"),
    ("reservation_id", "reservations"),
    ("sale_id", "sales"),
    ("store_id", "locations"),
    ("user_id", "users"),
    ("webhook_id", "webhooks"),
    ("work_id", "works"),
];

/// Tables whose `id` is the position of the entry that made the row.
const OF_ENTRIES: [&str; 9] = [
    "branches",
    "buyers",
    "checkouts",
    "coupon_issues",
    "order_changes",
    "orders",
    "payments",
    "point_transactions",
    "reservations",
];

/// Columns that end in `_id` and refer to no single table.
const NO_REFERENCES: [&str; 8] = [
    "device_id",
    "end_id",
    "first_id",
    "last_id",
    "owner_id",
    "payment_id",
    "place_id",
    "request_id",
];

struct Column {
    name: String,
    kind: &'static str,
    is_key: bool,
}

/// The kind of a column's values, the same on MariaDB and MySQL.
fn kind(data_type: &str) -> &'static str {
    match data_type {
        "bigint" | "int" | "smallint" | "tinyint" | "mediumint" | "decimal" | "double" => "number",
        "datetime" | "timestamp" | "date" => "time",
        "binary" | "varbinary" | "blob" | "mediumblob" | "longblob" => "bytes",
        "varchar" | "char" | "text" | "mediumtext" | "longtext" | "json" | "enum" => "text",
        other => panic!("a column of the type {other}"),
    }
}

async fn schema(shop: &Shop) -> BTreeMap<String, Vec<Column>> {
    let rows: Vec<(String, String, String, String)> = sqlx::query_as(
        "SELECT CAST(table_name AS CHAR), CAST(column_name AS CHAR), CAST(data_type AS CHAR), \
         CAST(column_key AS CHAR) FROM information_schema.columns \
         WHERE table_schema = DATABASE() ORDER BY table_name, ordinal_position",
    )
    .fetch_all(&shop.pool)
    .await
    .unwrap();
    let mut tables: BTreeMap<String, Vec<Column>> = BTreeMap::new();
    for (table, name, data_type, key) in rows {
        tables.entry(table).or_default().push(Column {
            name,
            kind: kind(&data_type),
            is_key: key == "PRI",
        });
    }
    tables
}

fn parent(table: &str, column: &str) -> Option<&'static str> {
    if column == "id" {
        return OF_ENTRIES.contains(&table).then_some("journal");
    }
    let found = REFERENCES.iter().find(|(name, _)| *name == column);
    found.map(|(_, parent)| *parent)
}

/// The diagram of a group; tables of other groups that its columns refer to are boxes without
/// columns.
fn diagram(names: &[&str], tables: &BTreeMap<String, Vec<Column>>) -> String {
    let mut text = "```mermaid\nerDiagram\n".to_owned();
    for name in names {
        writeln!(text, "  {name} {{").unwrap();
        for Column { name, kind, is_key } in &tables[*name] {
            let key = if *is_key { " PK" } else { "" };
            writeln!(text, "    {kind} {name}{key}").unwrap();
        }
        text.push_str("  }\n");
    }
    for name in names {
        for column in &tables[*name] {
            let Some(parent) = parent(name, &column.name) else {
                continue;
            };
            // An entry makes one such row; several rows may refer to the same parent.
            let many = if column.name == "id" { "o|" } else { "o{" };
            writeln!(text, "  {parent} ||--{many} {name} : {}", column.name).unwrap();
        }
    }
    text + "```\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_tables_shows_the_schema() {
    let shop = Shop::open(0, 0).await;
    let tables = schema(&shop).await;
    let shown: Vec<&str> = GROUPS
        .iter()
        .flat_map(|(_, group)| group.iter().map(|(table, _)| *table))
        .collect();
    let known: BTreeSet<&str> = tables.keys().map(String::as_str).collect();
    assert_eq!(shown.iter().copied().collect::<BTreeSet<_>>(), known);
    assert_eq!(shown.len(), known.len(), "a table stands in two groups");
    for (table, columns) in &tables {
        for Column { name, .. } in columns.iter().filter(|of| of.name.ends_with("_id")) {
            let is_explained = NO_REFERENCES.contains(&name.as_str());
            assert!(
                is_explained || parent(table, name).is_some(),
                "{table}.{name} refers to no table"
            );
        }
    }

    let mut text = String::new();
    for (title, group) in GROUPS {
        writeln!(text, "\n## {title}\n\n| table | one row is |\n|---|---|").unwrap();
        for (table, purpose) in group {
            writeln!(text, "| `{table}` | {purpose} |").unwrap();
        }
        let names: Vec<&str> = group.iter().map(|(table, _)| *table).collect();
        write!(text, "\n{}", diagram(&names, &tables)).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tables.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let marker = "<!-- tables: written by a test -->\n";
    let (head, rest) = page.split_once(marker).unwrap();
    if std::env::var_os("TABLES").is_some_and(|wish| wish == "write") {
        std::fs::write(&path, format!("{head}{marker}{text}")).unwrap();
    } else {
        assert_eq!(rest, text, "write docs/tables.md anew, as this file says");
    }
}
