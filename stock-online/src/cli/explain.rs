//! `explain`: everything known about one order or one account, for the night shift.

use clap::Args;
use serde_json::{Value, json};
use sqlx::MySqlPool;
use stock_common::clock::rfc3339;
use stock_common::config::Config;
use stock_common::id::Position;
use stock_domain::account::{Account, Level};
use stock_domain::journal::Entry;
use stock_domain::order;
use stock_mysql::{accounts, archives, dead_letters, journal, orders, shards};
use stock_redis::Ledger;

use super::{Common, Failure, connect, output};

/// Postings shown of an account.
const POSTINGS: u32 = 20;

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// An order's id, or an account such as AVAILABLE:7:0
    subject: String,
}

pub(super) async fn run(
    config: &Config,
    common: &Common,
    args: &ExplainArgs,
) -> Result<bool, Failure> {
    let (pool, ledger) = connect(config).await?;
    let report = if let Ok(position) = args.subject.parse::<Position>() {
        explain_entry(&pool, &ledger, position).await?
    } else if let Some(account) = Account::parse(&args.subject) {
        explain_account(&pool, &ledger, account).await?
    } else {
        let subject = &args.subject;
        let text =
            format!("{subject} is neither an order's id nor an account such as AVAILABLE:7:0");
        return Err(text.into());
    };
    if common.json {
        output::document(&report)?;
    } else {
        say_lines("", &report);
    }
    let found = report.get("found").and_then(Value::as_bool);
    if found != Some(true) {
        let subject = &args.subject;
        let is_blind = ["redis", "redisJournal"].iter().any(|part| {
            let of_redis = report.get(part).and_then(|of| of.get("error"));
            of_redis.is_some()
        });
        output::complain(&match is_blind {
            true => format!("{subject} is unknown to MySQL, and Redis could not be asked"),
            false => format!("{subject} is unknown to Redis and to MySQL"),
        });
    }
    Ok(found == Some(true))
}

/// Prints each value on a line of its own, after its path.
fn say_lines(path: &str, value: &Value) {
    let below = |name: &str| match path {
        "" => name.to_owned(),
        _ => format!("{path}.{name}"),
    };
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                say_lines(&below(name), member);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (number, item) in items.iter().enumerate() {
                say_lines(&below(&number.to_string()), item);
            }
        }
        Value::Null | Value::Array(_) => output::say(&format!("{path}: none")),
        Value::String(text) => output::say(&format!("{path}: {text}")),
        Value::Bool(_) | Value::Number(_) => output::say(&format!("{path}: {value}")),
    }
}

fn entry_json(entry: &Entry) -> Value {
    let postings: Vec<Value> = entry
        .postings
        .iter()
        .map(|posted| {
            json!({
                "account": posted.account.to_string(), "seq": posted.seq,
                "delta": posted.delta, "balanceAfter": posted.balance_after,
            })
        })
        .collect();
    let at = entry.position.unix_ms();
    json!({
        "kind": entry.kind.as_str(), "number": entry.number, "decidedAt": rfc3339(at),
        "actor": entry.actor, "reference": entry.reference, "postings": postings,
        "body": serde_json::from_str::<Value>(entry.body.get()).unwrap_or_default(),
    })
}

async fn explain_entry(
    pool: &MySqlPool,
    ledger: &Ledger,
    position: Position,
) -> Result<Value, Failure> {
    let in_redis = ledger.find(position).await;
    let order_state = ledger
        .state(&order::state_id(position))
        .await
        .ok()
        .flatten();
    let mut connection = pool.acquire().await?;
    let in_mysql = journal::find(&mut connection, position).await?;
    let row = orders::find(pool, position).await?;
    let state = shards::load(pool, position.shard()).await?;
    let later: Vec<(u64, String)> =
        sqlx::query_as("SELECT id, kind FROM journal WHERE reference = ? ORDER BY id")
            .bind(position.to_string())
            .fetch_all(pool)
            .await
            .unwrap_or_default();
    let lost: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM lost_entries WHERE journal_id = ?")
        .bind(position.get())
        .fetch_one(pool)
        .await?;
    let journal_redis = match &in_redis {
        Ok(entry) => json!(entry.as_ref().map(entry_json)),
        Err(error) => json!({ "error": error.to_string() }),
    };
    let journal_mysql = match &in_mysql {
        Some(Ok(entry)) => entry_json(entry),
        Some(Err(error)) => json!({ "error": error.to_string() }),
        None => Value::Null,
    };
    let archive = match in_mysql {
        Some(_) => None,
        None => archives::holding(pool, position).await?,
    };
    let found = matches!(in_redis, Ok(Some(_))) || in_mysql.is_some() || row.is_some() || lost > 0;
    Ok(json!({
        "found": found,
        "position": position, "streamId": position.stream_id(), "shard": position.shard(),
        "isSettled": state.is_some_and(|state| position <= state.watermark),
        "archived": archive.map(|of| json!({ "month": of.month, "file": of.file })),
        "redisJournal": journal_redis, "mark": order_state, "mysqlJournal": journal_mysql,
        "order": row.map(|row| json!({
            "status": row.status, "userId": row.order.user_id, "totalAmount": row.order.total_amount,
        })),
        "updatedAt": orders::updated_at(pool, position).await?.map(|at| at.to_string()),
        "deadLetter": dead_letters::state(pool, position).await?,
        "wasLost": lost > 0,
        "laterEntries": later.iter()
            .map(|(id, kind)| json!({ "position": id.to_string(), "kind": kind }))
            .collect::<Vec<_>>(),
    }))
}

fn level_json(level: Option<&Level>) -> Value {
    json!(level.map(|level| {
        json!({ "balance": level.balance, "seq": level.seq, "closed": level.closed })
    }))
}

async fn explain_account(
    pool: &MySqlPool,
    ledger: &Ledger,
    account: Account,
) -> Result<Value, Failure> {
    let redis = ledger.levels(&[account]).await;
    let mysql = accounts::levels(pool, &[account]).await?;
    let rows: Vec<(u64, u64, i64, i64, String)> = sqlx::query_as(
        "SELECT p.seq, p.journal_id, p.delta, p.balance_after, j.kind FROM postings p \
         JOIN journal j ON j.id = p.journal_id \
         WHERE p.kind = ? AND p.owner_id = ? AND p.place_id = ? ORDER BY p.seq DESC LIMIT ?",
    )
    .bind(account.kind.as_str())
    .bind(account.owner)
    .bind(account.location)
    .bind(POSTINGS)
    .fetch_all(pool)
    .await?;
    let mut connection = pool.acquire().await?;
    let archived = archives::levels(&mut connection, &[account]).await?;
    let archived = archived.get(&account);
    let in_redis = match &redis {
        Ok(levels) => level_json(levels.get(&account)),
        Err(error) => json!({ "error": error.to_string() }),
    };
    let postings: Vec<Value> = rows
        .iter()
        .map(|(seq, entry, delta, after, kind)| {
            json!({
                "seq": seq, "entry": entry.to_string(), "kind": kind,
                "delta": delta, "balanceAfter": after,
            })
        })
        .collect();
    let found = mysql.contains_key(&account) || redis.is_ok_and(|l| l.contains_key(&account));
    Ok(json!({
        "found": found, "account": account.to_string(), "key": ledger.keys().account(account),
        "redis": in_redis, "mysql": level_json(mysql.get(&account)), "lastPostings": postings,
        "archived": archived.map(|last| json!({ "seq": last.seq, "balance": last.balance })),
    }))
}
