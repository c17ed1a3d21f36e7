//! Levels from Redis: read from their keys, or heard in the message that `lua/decide.lua` publishes
//! about the accounts that a batch has moved.

use std::collections::{BTreeMap, HashMap};

use redis::aio::MultiplexedConnection;
use redis::{RedisError, cmd, pipe};
use stock_common::id::Position;
use stock_domain::account::{Account, Book, Level};

use super::keys::{Address, Keys};
use super::scripts::SCRIPTS;

/// Accounts that are read in one trip.
const PART: usize = 500;

/// Reads the levels of a shard's accounts, some hundreds in one trip. Accounts that Redis lacks, or
/// whose book was lost, are absent.
///
/// # Errors
/// When Redis does not answer.
pub async fn read(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
    accounts: &[Account],
) -> Result<HashMap<Account, Level>, RedisError> {
    let mut levels = HashMap::with_capacity(accounts.len());
    for part in accounts.chunks(PART) {
        let mut commands = pipe();
        let mut groups: BTreeMap<Option<Book>, Vec<Account>> = BTreeMap::new();
        for account in part {
            groups.entry(account.book()).or_default().push(*account);
        }
        for (book, group) in &groups {
            match book {
                None => {
                    let names: Vec<String> = group.iter().map(|of| keys.account(*of)).collect();
                    commands.cmd("MGET").arg(&names);
                }
                Some(book) => {
                    let fields: Vec<String> = group.iter().map(|of| book.field(*of)).collect();
                    commands.cmd("HMGET").arg(keys.book(*book)).arg(&fields);
                }
            }
        }
        let found: Vec<redis::Value> = commands.ignore_errors().query_async(connection).await?;
        for value in &found {
            // A key of another type holds no level. Any other error says nothing about the levels.
            if let redis::Value::ServerError(error) = value
                && error.code() != "WRONGTYPE"
            {
                return Err(error.clone().into());
            }
        }
        for (group, values) in groups.values().zip(found) {
            // A reply of another form tells no level: the accounts stay unknown.
            let values: Vec<Option<String>> = redis::from_redis_value(values).unwrap_or_default();
            for (account, value) in group.iter().zip(values) {
                if let Some(level) = value.as_deref().and_then(Level::parse) {
                    levels.insert(*account, level);
                }
            }
        }
    }
    Ok(levels)
}

/// Sets an account's value, if the value in Redis is still `found`; "" is no value. Returns `false`
/// when the value has changed, when the account's book was lost, or when Redis has another epoch.
///
/// # Errors
/// When Redis does not answer.
pub async fn correct(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
    epoch: &str,
    account: Account,
    found: &str,
    value: &str,
) -> Result<bool, RedisError> {
    let Address { key, field } = keys.address(account);
    let set: i64 = cmd("EVALSHA")
        .arg(&SCRIPTS.correct.sha)
        .arg(2)
        .arg(keys.epoch())
        .arg(key)
        .arg(epoch)
        .arg(field.unwrap_or_default())
        .arg(found)
        .arg(value)
        .query_async(connection)
        .await?;
    Ok(set == 1)
}

/// An account's value as it stands in Redis; "" when there is none, or the key has another type.
///
/// # Errors
/// When Redis does not answer.
pub async fn raw(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
    account: Account,
) -> Result<String, RedisError> {
    let Address { key, field } = keys.address(account);
    let read = match field {
        None => cmd("GET").arg(&key).to_owned(),
        Some(field) => cmd("HGET").arg(&key).arg(field).to_owned(),
    };
    let found: Result<Option<String>, RedisError> = read.query_async(connection).await;
    match found {
        Ok(found) => Ok(found.unwrap_or_default()),
        // An error that says nothing about the value does not mean that there is none.
        Err(error) if error.code() == Some("WRONGTYPE") => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// New levels, in one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelsMessage {
    /// The epoch in which the batch was decided.
    pub epoch: Box<str>,
    /// The position of the batch's last entry.
    pub position: Position,
    /// The announced accounts that the batch moved.
    pub levels: Vec<(Account, Level)>,
}

impl LevelsMessage {
    /// Parses `epoch ms-low unsettled|label balance seq closed|…`. Items of another form are left
    /// out.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('|');
        let mut head = parts.next()?.split(' ');
        let (epoch, position, _unsettled) = (head.next()?, head.next()?, head.next()?);
        let level = |part: &str| {
            let (account, level) = part.split_once(' ')?;
            Some((Account::parse(account)?, Level::parse(level)?))
        };
        Some(Self {
            epoch: epoch.into(),
            position: Position::from_stream_id(position)?,
            levels: parts.filter_map(level).collect(),
        })
    }
}
