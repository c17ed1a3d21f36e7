//! Faults that begin and end, lose nothing under `always`, and so can overlap.

use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use redis::{Cmd, Value, cmd};
use rustix::process::Signal;
use sqlx::{Connection, Executor, MySqlConnection};
use stock_servers::proxy::Mode;
use tokio::task::JoinHandle;

use super::world::World;
use crate::Failure;
use crate::shop::Shop;

const MODES: [Mode; 6] = [
    Mode::CutBefore,
    Mode::CutAfter,
    Mode::HalfOpen,
    Mode::Slices,
    Mode::Latency(Duration::from_millis(300)),
    Mode::Down,
];
/// The longest wait for a busy Redis, longer than the script that keeps it busy.
const BUSY_MAX: Duration = Duration::from_secs(10);
/// Keys that are lost: one of each type that is restored.
const KEYS: [&str; 6] = [
    "a:AVAILABLE:1:0",
    "a:RESERVED:2:0",
    "b:POINTS",
    "b:HOLD",
    "states",
    "deadlines",
];
/// A `maxmemory` that Redis already exceeds.
const FULL_BYTES: u64 = 1_000_000;

/// The target of a fault. Two faults with one target would undo each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    RedisProcess,
    MysqlProcess,
    RedisLink,
    MysqlLink,
    RedisData,
    MysqlData,
    Service,
    Commands,
}

/// A fault that begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Single {
    /// Redis is killed, and started again at the end.
    RedisKilled,
    /// Redis is stopped, and goes on at the end.
    RedisStopped,
    /// Redis is busy with a script.
    RedisBusy,
    /// Redis has no memory left.
    RedisFull,
    /// Redis is set not to sync its file during a rewrite.
    RedisUnsafe,
    /// MySQL is killed, and started again at the end.
    MysqlKilled,
    /// MySQL is stopped, and goes on at the end.
    MysqlStopped,
    /// Links to Redis misbehave.
    RedisLink(Mode),
    /// All open links to Redis swallow everything.
    RedisLinksLost,
    /// Redis drops every link.
    RedisLinksReset,
    /// Links to MySQL misbehave.
    MysqlLink(Mode),
    /// All open links to MySQL swallow everything.
    MysqlLinksLost,
    /// A key of Redis is deleted.
    KeyLost(&'static str),
    /// Another transaction holds the accounts' rows.
    RowsLocked,
    /// The first service is killed, and started again at the end.
    ServiceKilled,
    /// The first service is stopped, and goes on at the end.
    ServiceStopped,
    /// `reconcile --apply` and `verify` run one after the other.
    Repairs,
}

/// The state of a fault that has begun, which its end needs.
pub enum Begun {
    /// The fault has ended by itself, or its end needs only the [`Single`].
    Nothing,
    /// The connection that holds the rows.
    Locks(Box<MySqlConnection>),
    /// The task that runs beside the fault.
    Task(JoinHandle<Result<(), Failure>>),
}

impl Single {
    /// Draws a fault.
    ///
    /// # Errors
    /// Never.
    pub fn draw(rng: &mut StdRng) -> Result<Self, Failure> {
        let mode = *MODES
            .get(rng.random_range(0..MODES.len()))
            .ok_or("no mode")?;
        let key = *KEYS.get(rng.random_range(0..KEYS.len())).ok_or("no key")?;
        let all = [
            Self::RedisKilled,
            Self::RedisStopped,
            Self::RedisBusy,
            Self::RedisFull,
            Self::RedisUnsafe,
            Self::MysqlKilled,
            Self::MysqlStopped,
            Self::RedisLink(mode),
            Self::RedisLinksLost,
            Self::RedisLinksReset,
            Self::MysqlLink(mode),
            Self::MysqlLinksLost,
            Self::KeyLost(key),
            Self::RowsLocked,
            Self::ServiceKilled,
            Self::ServiceStopped,
            Self::Repairs,
        ];
        Ok(*all.get(rng.random_range(0..all.len())).ok_or("no fault")?)
    }

    const fn place(self) -> Place {
        match self {
            Self::RedisKilled
            | Self::RedisStopped
            | Self::RedisBusy
            | Self::RedisFull
            | Self::RedisUnsafe => Place::RedisProcess,
            Self::MysqlKilled | Self::MysqlStopped => Place::MysqlProcess,
            Self::RedisLink(_) | Self::RedisLinksLost | Self::RedisLinksReset => Place::RedisLink,
            Self::MysqlLink(_) | Self::MysqlLinksLost => Place::MysqlLink,
            Self::KeyLost(_) => Place::RedisData,
            Self::RowsLocked => Place::MysqlData,
            Self::ServiceKilled | Self::ServiceStopped => Place::Service,
            Self::Repairs => Place::Commands,
        }
    }

    /// Whether both can happen at once: a server that one takes away cannot be asked to do the
    /// other.
    #[must_use]
    pub fn goes_with(self, other: Self) -> bool {
        let asks = |one: Self| {
            let asks_redis = matches!(
                one,
                Self::RedisBusy
                    | Self::RedisFull
                    | Self::RedisUnsafe
                    | Self::RedisLinksReset
                    | Self::KeyLost(_)
            );
            let redis = asks_redis.then_some(Place::RedisProcess);
            redis.or((one == Self::RowsLocked).then_some(Place::MysqlProcess))
        };
        let is_away = |one: Self| {
            matches!(
                one,
                Self::RedisKilled | Self::RedisStopped | Self::MysqlKilled | Self::MysqlStopped
            )
        };
        let hinders = |one: Self, of: Self| is_away(one) && asks(of) == Some(one.place());
        self.place() != other.place() && !hinders(self, other) && !hinders(other, self)
    }

    /// Begins the fault.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn begin(self, world: &mut World) -> Result<Begun, Failure> {
        match self {
            Self::RedisKilled => world.servers.redis.kill().await,
            Self::RedisStopped => world.servers.redis.signal(Signal::STOP),
            Self::RedisBusy => return busy(world).await,
            Self::RedisFull => configure(world, "maxmemory", &FULL_BYTES.to_string()).await?,
            Self::RedisUnsafe => configure(world, "no-appendfsync-on-rewrite", "yes").await?,
            Self::MysqlKilled => world.servers.mysql.kill().await,
            Self::MysqlStopped => world.servers.mysql.signal(Signal::STOP),
            Self::RedisLink(mode) => world.redis.set(mode),
            Self::RedisLinksLost => world.redis.lose(),
            Self::RedisLinksReset => {
                ask(world, cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal")).await?;
            }
            Self::MysqlLink(mode) => world.mysql.set(mode),
            Self::MysqlLinksLost => world.mysql.lose(),
            Self::KeyLost(rest) => {
                let key = format!("{}:{{0}}:{rest}", world.shop.prefix);
                ask(world, cmd("UNLINK").arg(key)).await?;
            }
            Self::RowsLocked => return lock(&world.shop).await,
            Self::ServiceKilled => world.first()?.child.kill().await?,
            Self::ServiceStopped => world.signal_service(Signal::STOP)?,
            Self::Repairs => return Ok(repair(world.shop.clone())),
        }
        Ok(Begun::Nothing)
    }

    /// Ends the fault.
    ///
    /// # Errors
    /// When it cannot, or the task that ran beside it found something.
    pub async fn end(self, begun: Begun, world: &mut World) -> Result<(), Failure> {
        match begun {
            Begun::Nothing => {}
            Begun::Locks(connection) => connection.close().await?,
            Begun::Task(task) => task.await??,
        }
        match self {
            Self::RedisKilled => world.servers.redis.restart().await?,
            Self::RedisStopped => world.servers.redis.signal(Signal::CONT),
            Self::RedisFull => configure(world, "maxmemory", "0").await?,
            Self::RedisUnsafe => configure(world, "no-appendfsync-on-rewrite", "no").await?,
            Self::MysqlKilled => world.servers.mysql.restart().await?,
            Self::MysqlStopped => world.servers.mysql.signal(Signal::CONT),
            Self::RedisLink(_) => world.redis.set(Mode::Pass),
            Self::MysqlLink(_) => world.mysql.set(Mode::Pass),
            Self::ServiceKilled => world.restart_service()?,
            Self::ServiceStopped => {
                world.signal_service(Signal::CONT)?;
                world.services.rotate_left(1);
            }
            Self::RedisBusy
            | Self::RedisLinksLost
            | Self::RedisLinksReset
            | Self::MysqlLinksLost
            | Self::KeyLost(_)
            | Self::RowsLocked
            | Self::Repairs => {}
        }
        Ok(())
    }
}

async fn configure(world: &World, name: &str, value: &str) -> Result<(), Failure> {
    ask(world, cmd("CONFIG").arg("SET").arg(name).arg(value)).await
}

/// Sends a command to Redis, and tries again while Redis is busy: the other fault of a pair may
/// keep it busy.
async fn ask(world: &World, command: &Cmd) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        let mut redis = world.redis_connection().await?;
        match command.query_async::<Value>(&mut redis).await {
            Err(error) if error.code() == Some("BUSY") && began.elapsed() < BUSY_MAX => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            asked => return Ok(asked.map(drop)?),
        }
    }
}

/// Keeps Redis busy with a script that runs for two seconds.
async fn busy(world: &World) -> Result<Begun, Failure> {
    const SCRIPT: &str =
        "local t = redis.call('TIME')[1] + 2 while redis.call('TIME')[1] + 0 < t do end return 1";
    configure(world, "busy-reply-threshold", "200").await?;
    let mut redis = world.redis_connection().await?;
    redis.set_response_timeout(Duration::from_secs(30));
    Ok(Begun::Task(tokio::spawn(async move {
        let run = cmd("EVAL").arg(SCRIPT).arg(0).to_owned();
        run.query_async::<i64>(&mut redis).await?;
        Ok(())
    })))
}

async fn lock(shop: &Shop) -> Result<Begun, Failure> {
    let pool = shop.pool().await?;
    let mut connection = pool.acquire().await?.detach();
    connection.execute("START TRANSACTION").await?;
    connection
        .execute("SELECT * FROM accounts WHERE kind = 'AVAILABLE' FOR UPDATE")
        .await?;
    pool.close().await;
    Ok(Begun::Locks(Box::new(connection)))
}

/// Runs the commands that repair and verify beside the other fault. They may fail, because servers
/// may be away. They must not change anything that was right; the checks would find that
/// afterwards.
fn repair(shop: Shop) -> Begun {
    Begun::Task(tokio::spawn(async move {
        for command in [&["reconcile", "--apply"][..], &["verify", "--full"]] {
            if let Err(error) = shop.command(command).await {
                tracing::debug!(%error, "a repair beside a fault");
            }
        }
        Ok(())
    }))
}
