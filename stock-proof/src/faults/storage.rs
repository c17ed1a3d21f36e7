//! Redis that loses its memory, its files, its role or its room.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use stock_common::config::Durability::{Always, Everysec};
use stock_servers::{Server, Spec};

use super::alarms::{FENCED, Says, Sign, others_are_served};
use super::buyers::Buyers;
use super::checker::Allowed;
use super::history::Asked;
use super::world::World;
use super::{Outcome, Plan, passed};
use crate::Failure;
use crate::shop::until;

const LOST: Allowed = Allowed {
    lost: true,
    dead_letters: false,
};

/// Redis could not append to its file.
const DISK_FULL: Sign = Sign {
    readyz: Some(Says::Setting("aof_last_write_status", "")),
    alert: "StockFlowWeakSetting",
};

/// Redis has no memory left.
const MEMORY_FULL: Sign = Sign {
    readyz: Some(Says::Setting("maxmemory", "degraded")),
    alert: "StockFlowWeakSetting",
};

/// The path of the append-only file that Redis is writing.
fn append_only_file(world: &World) -> Result<PathBuf, Failure> {
    let folder = world
        .servers
        .redis
        .spec
        .pid_file()
        .with_file_name("appendonlydir");
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".incr.aof") {
            return Ok(path);
        }
    }
    Err("there is no append-only file".into())
}

/// F4: the end of the append-only file is cut, then its middle is damaged.
pub async fn f04_a_cut_or_damaged_file_sells_nothing_twice(
    plan: &Plan,
) -> Result<Outcome, Failure> {
    let mut world = World::open(Everysec, plan.seed).await?;
    let buyers = world.buyers(12);
    world.accept(&buyers, 400).await?;
    world.servers.redis.kill().await;
    let path = append_only_file(&world)?;
    let file = OpenOptions::new().write(true).open(&path)?;
    let length = file.metadata()?.len();
    file.set_len(length.saturating_sub(2_000 + plan.seed % 3_000))?;
    world.servers.redis.restart().await?;
    // MySQL is ahead of Redis: nothing is sold before `recover`.
    world.until_ready_says("epoch", "fenced").await?;
    world.recover().await?;
    world.accept(&buyers, 200).await?;

    world.servers.redis.kill().await;
    let path = append_only_file(&world)?;
    let mut file = OpenOptions::new().write(true).open(&path)?;
    let middle = file.metadata()?.len() / 2;
    file.seek(SeekFrom::Start(middle))?;
    // Wide enough to hit the head of a command: inside a value Redis would not notice.
    file.write_all(&[0xff; 4_096])?;
    drop(file);
    if world.servers.redis.restart().await.is_ok() {
        return Err("redis started on a damaged file".into());
    }
    until("orders are refused", || async {
        buyers.refused("FENCED") > 0
    })
    .await?;
    // The runbook: put the damaged folder aside, start empty, rebuild from MySQL.
    let folder = path.parent().ok_or("the file has no folder")?;
    std::fs::rename(folder, folder.with_extension("damaged"))?;
    world.servers.redis.restart().await?;
    world.until_ready_says("epoch", "fenced").await?;
    world.recover().await?;
    world.accept(&buyers, 200).await?;
    passed(world.check(buyers, LOST).await)
}

/// F5: Redis is emptied under load.
pub async fn f05_an_emptied_redis_is_fenced_and_rebuilt(plan: &Plan) -> Result<Outcome, Failure> {
    let mut world = World::open(Always, plan.seed).await?;
    let buyers = world.buyers(12);
    world.accept(&buyers, 400).await?;
    let mut redis = world.redis_connection().await?;
    let since = Instant::now();
    redis::cmd("FLUSHALL").query_async::<()>(&mut redis).await?;
    world.named(FENCED, since).await?;
    let refused = async |more: u64| {
        let goal = buyers.refused("FENCED") + more;
        until("orders are refused", || async {
            buyers.refused("FENCED") >= goal
        })
        .await
    };
    // Answers to earlier decisions may still be on their way.
    refused(50).await?;
    let before = buyers.accepted();
    refused(200).await?;
    if buyers.accepted() > before {
        return Err("an empty redis sold something".into());
    }
    world.recover().await?;
    world.accept(&buyers, 200).await?;
    passed(world.check(buyers, LOST).await)
}

/// A replica of the world's Redis.
struct Replica {
    server: Server,
    connection: MultiplexedConnection,
}

impl Replica {
    /// Starts one, and waits until it follows.
    async fn of(world: &World) -> Result<Self, Failure> {
        let folder = world.servers.folder.path().join("replica");
        let server = Spec::redis(&folder, Everysec)?.start().await?;
        let client = redis::Client::open(server.spec.url("0"))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut follow = redis::cmd("REPLICAOF");
        follow.arg("127.0.0.1").arg(world.servers.redis.spec.port);
        follow.query_async::<()>(&mut connection).await?;
        let replica = Self { server, connection };
        until("the replica is in step", || async {
            let info = replication(&replica.connection).await;
            info.is_ok_and(|info| info.contains("master_link_status:up"))
        })
        .await?;
        Ok(replica)
    }

    /// Waits until it has everything that the world's Redis has. That Redis must not change
    /// meanwhile.
    async fn has_all(&self, world: &World) -> Result<(), Failure> {
        let master = world.redis_connection().await?;
        let offset = async |of: &MultiplexedConnection| {
            let info = replication(of).await.ok()?;
            let offset = |line: &str| line.strip_prefix("master_repl_offset:").map(str::to_owned);
            info.lines().find_map(offset)
        };
        until("the replica has everything", || async {
            let (all, own) = (offset(&master).await, offset(&self.connection).await);
            all.is_some() && all == own
        })
        .await
    }

    /// Stops following its master.
    async fn leave(&mut self) -> Result<(), Failure> {
        let mut leave = redis::cmd("REPLICAOF");
        leave.arg("NO").arg("ONE");
        Ok(leave.query_async::<()>(&mut self.connection).await?)
    }

    /// Takes the place of the world's Redis.
    fn take_over(&self, world: &mut World) {
        let url = self.server.spec.url("0");
        world.redis.redirect(self.server.spec.port);
        world.shop.redis_url.clone_from(&url);
        world.shop = world.shop.with("STOCK_REDIS_URL", url);
    }
}

async fn replication(of: &MultiplexedConnection) -> Result<String, RedisError> {
    let info = redis::cmd("INFO").arg("replication").to_owned();
    info.query_async(&mut of.clone()).await
}

/// F6: failover to a replica that lags. Acknowledged orders are gone, and are listed.
pub async fn f06_a_failover_to_a_lagging_replica_lists_what_is_lost(
    plan: &Plan,
) -> Result<Outcome, Failure> {
    let mut world = World::open(Everysec, plan.seed).await?;
    let mut replica = Replica::of(&world).await?;
    let buyers = world.buyers(12);
    world.accept(&buyers, 300).await?;
    // The replica falls behind for good: it never gets the orders that are acknowledged from here
    // on.
    replica.leave().await?;
    world.accept(&buyers, 300).await?;
    world.servers.redis.kill().await;
    replica.take_over(&mut world);
    world.until_ready_says("epoch", "fenced").await?;
    world.recover().await?;
    world.accept(&buyers, 200).await?;
    let done = passed(world.check(buyers, LOST).await);
    replica.server.stop().await;
    done
}

/// For F24: the disk of Redis is full, so nothing is sold. A complete replica takes its place, and
/// orders go on without an operator. Returns how soon; `None` where mounting is not allowed.
pub async fn full_disk_and_failover(plan: &Plan) -> Result<Option<Duration>, Failure> {
    let Some((mut world, disk)) = redis_on_small_disk(plan).await? else {
        return Ok(None);
    };
    let mut replica = Replica::of(&world).await?;
    let buyers = world.buyers(12);
    world.accept(&buyers, 300).await?;
    disk.fill()?;
    refused_for_the_disk(&buyers).await?;
    replica.has_all(&world).await?;
    replica.leave().await?;
    replica.take_over(&mut world);
    let since = Instant::now();
    world.accept(&buyers, 200).await?;
    let again = since.elapsed();
    passed(world.check(buyers, Allowed::default()).await)?;
    replica.server.stop().await;
    // End the server before its file system is unmounted.
    world.servers.redis.kill().await;
    drop(disk);
    Ok(Some(again))
}

/// F14: Redis is full. Orders are refused as a whole, reads work, and orders go on when there is
/// room.
pub async fn f14_a_full_redis_refuses_whole_orders(plan: &Plan) -> Result<Outcome, Failure> {
    let mut world = World::open(Always, plan.seed).await?;
    let buyers = world.buyers(12);
    world.accept(&buyers, 300).await?;
    let mut redis = world.redis_connection().await?;
    let set = |bytes: u64| {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg("maxmemory").arg(bytes);
        command
    };
    let since = Instant::now();
    set(1_000_000).query_async::<()>(&mut redis).await?;
    let code = "OVERLOADED";
    until("orders are refused", || async { buyers.refused(code) > 20 }).await?;
    world.named(MEMORY_FULL, since).await?;
    let read = world
        .client()?
        .get("/api/redis/products/1")
        .user(2)
        .try_send()
        .await?;
    if read.status != 200 {
        return Err(format!("a full redis cannot be read: {}", read.text).into());
    }
    set(0).query_async::<()>(&mut redis).await?;
    world.accept(&buyers, 200).await?;
    passed(world.check(buyers, Allowed::default()).await)
}

/// A small file system, mounted until this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path, megabytes: u32) -> Result<Option<Self>, Failure> {
        std::fs::create_dir_all(path)?;
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(path)
            .output();
        Ok(done
            .is_ok_and(|done| done.status.success())
            .then(|| Self(path.to_owned())))
    }

    /// Fills the free space; returns the file that takes it.
    fn fill(&self) -> Result<PathBuf, Failure> {
        let path = self.0.join("ballast");
        let mut file = File::create(&path)?;
        while file.write_all(&[1; 65_536]).is_ok() {}
        while file.write_all(&[1; 512]).is_ok() {}
        Ok(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = Command::new("umount").arg("-l").arg(&self.0).status() {
            tracing::warn!(%error, "cannot unmount");
        }
    }
}

/// Copies a folder of a stopped server to another path, and leaves a link to it.
fn move_behind_link(own: &Path, there: &Path) -> Result<(), Failure> {
    let copied = Command::new("cp").arg("-a").arg(own).arg(there).status()?;
    if !copied.success() {
        return Err(format!("{} cannot be moved", own.display()).into());
    }
    std::fs::rename(own, own.with_extension("before"))?;
    Ok(std::os::unix::fs::symlink(there, own)?)
}

/// F15: the disk of Redis is full, then that of MySQL.
pub async fn f15_a_full_disk_loses_nothing(plan: &Plan) -> Result<Outcome, Failure> {
    match redis_disk(plan).await? {
        Outcome::Passed | Outcome::PassedWith(_) => mysql_disk(plan).await,
        skipped @ Outcome::Skipped(_) => Ok(skipped),
    }
}

fn not_allowed() -> Outcome {
    Outcome::Skipped("mounting a tmpfs is not allowed here".to_owned())
}

/// A shop whose Redis appends to a small file system; `None` where mounting is not allowed.
async fn redis_on_small_disk(plan: &Plan) -> Result<Option<(World, SmallDisk)>, Failure> {
    let mut world = World::closed(Everysec, plan.seed).await?;
    let place = world.servers.folder.path().join("small");
    let Some(disk) = SmallDisk::mount(&place, 64)? else {
        return Ok(None);
    };
    world.serve().await?;
    world.servers.redis.kill().await;
    let pid_file = world.servers.redis.spec.pid_file();
    let own = pid_file.with_file_name("appendonlydir");
    move_behind_link(&own, &place.join("appendonlydir"))?;
    world.servers.redis.restart().await?;
    world.until_ready_says("epoch", "ok").await?;
    Ok(Some((world, disk)))
}

async fn refused_for_the_disk(buyers: &Buyers) -> Result<(), Failure> {
    until("orders are refused", || async {
        buyers.refused("OVERLOADED") > 20 || buyers.refused("FENCED") > 20
    })
    .await
}

/// The disk of Redis is full: orders are refused as a whole until there is room.
async fn redis_disk(plan: &Plan) -> Result<Outcome, Failure> {
    let Some((mut world, disk)) = redis_on_small_disk(plan).await? else {
        return Ok(not_allowed());
    };
    let buyers = world.buyers(12);
    world.accept(&buyers, 300).await?;
    let since = Instant::now();
    let ballast = disk.fill()?;
    refused_for_the_disk(&buyers).await?;
    world.named(DISK_FULL, since).await?;
    std::fs::remove_file(ballast)?;
    world.accept(&buyers, 200).await?;
    let done = passed(world.check(buyers, LOST).await);
    // End the server before its file system is unmounted.
    world.servers.redis.kill().await;
    drop(disk);
    done
}

/// MySQL's tables lie in a small file system. Redis-first orders go on, and all are stored when
/// there is room.
async fn mysql_disk(plan: &Plan) -> Result<Outcome, Failure> {
    let mut world = World::closed(Everysec, plan.seed).await?;
    let place = world.servers.folder.path().join("small");
    let Some(disk) = SmallDisk::mount(&place, 256)? else {
        return Ok(not_allowed());
    };
    world.servers.mysql.kill().await;
    let pid_file = world.servers.mysql.spec.pid_file();
    let own = pid_file.with_file_name("data").join("faults");
    move_behind_link(&own, &place.join("faults"))?;
    world.servers.mysql.restart().await?;
    world.serve().await?;
    let buyers = world.buyers(12);
    world.accept(&buyers, 300).await?;
    let first = buyers.asked();
    let ballast = disk.fill()?;
    let waiting = async || {
        let service = world.services.first()?;
        service.metric("stock_journal_lag_seconds").await
    };
    until("mysql stores nothing more", || async {
        waiting().await.is_some_and(|seconds| seconds > 5.0)
    })
    .await?;
    world.accept(&buyers, 200).await?;
    others_are_served(&buyers, first, Asked::needs_mysql)?;
    std::fs::remove_file(ballast)?;
    // Some versions end on a full disk; an operator, or systemd, starts them again.
    if world.servers.mysql.has_ended() {
        world.servers.mysql.restart().await?;
    }
    world.accept(&buyers, 200).await?;
    let done = passed(world.check(buyers, Allowed::default()).await);
    world.servers.mysql.kill().await;
    drop(disk);
    done
}
