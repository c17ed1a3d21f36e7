//! Settings of the servers on which a promise rests: each as it was found, and its meaning.
//!
//! The service reads the settings every few seconds, and `doctor` when it is asked. Both check them
//! here. A setting by which Redis keeps less than `durability` promises is [`Standing::Unsafe`],
//! and nothing is sold then.

use stock_common::config::Durability;

const APPENDONLY: &str = "set appendonly yes: without it a restart loses every order";
const FSYNC_ALWAYS: &str = "set appendfsync always, or STOCK_DURABILITY=everysec";
const FSYNC_EVERYSEC: &str =
    "set appendfsync everysec: without it a crash loses half a minute of orders";
const ON_REWRITE: &str = "set no-appendfsync-on-rewrite no: a rewrite would suspend durability";
const POLICY: &str = "set maxmemory-policy noeviction: eviction would delete stock, or what is \
                      remembered of a key";
const MEMORY: &str = "raise maxmemory: a full Redis refuses every order";
const LAST_WRITE: &str = "make room on Redis' disk: it refuses writes until it can append them";
const LAST_REWRITE: &str = "see Redis' log, then run BGREWRITEAOF: the append-only file grows until \
                            it can be rewritten";
const MIN_REPLICAS: &str =
    "set min-replicas-to-write 1: a master that is cut off would go on alone";

/// The meaning of a setting's value for the promises of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// As it must be.
    Good,
    /// The server does not tell it to this user.
    Unknown,
    /// Orders are safe, but something else is not as it should be.
    Weak,
    /// Accepted orders may be lost or decided twice: nothing is sold.
    Unsafe,
}

/// A setting as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The server's name for it.
    pub name: &'static str,
    /// Its value.
    pub found: String,
    /// The meaning of this value.
    pub standing: Standing,
    /// The advice to the operator, where something is to be done.
    pub advice: &'static str,
}

impl Setting {
    /// A setting whose wrong value breaks the promise.
    fn unsafe_unless(
        name: &'static str,
        found: Option<&str>,
        is_good: impl Fn(&str) -> bool,
        advice: &'static str,
    ) -> Self {
        Self::judge(name, found, is_good, Standing::Unsafe, advice)
    }

    /// A setting whose wrong value needs somebody soon.
    fn weak_unless(
        name: &'static str,
        found: Option<&str>,
        is_good: impl Fn(&str) -> bool,
        advice: &'static str,
    ) -> Self {
        Self::judge(name, found, is_good, Standing::Weak, advice)
    }

    fn judge(
        name: &'static str,
        found: Option<&str>,
        is_good: impl Fn(&str) -> bool,
        otherwise: Standing,
        advice: &'static str,
    ) -> Self {
        let standing = match found {
            None => Standing::Unknown,
            Some(value) if is_good(value) => Standing::Good,
            Some(_) => otherwise,
        };
        let is_named = matches!(standing, Standing::Weak | Standing::Unsafe);
        Self {
            name,
            found: found
                .unwrap_or("not told: CONFIG is not allowed")
                .to_owned(),
            standing,
            advice: if is_named { advice } else { "" },
        }
    }

    /// Whether somebody has to act on it.
    #[must_use]
    pub const fn is_wrong(&self) -> bool {
        matches!(self.standing, Standing::Weak | Standing::Unsafe)
    }
}

/// The settings that a Redis reports of itself; a field is `None` where `CONFIG` is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RedisSettings {
    /// Whether it appends each write to a file.
    pub appendonly: bool,
    /// Whether that file is being written anew, or is about to be.
    pub is_rewriting: bool,
    /// How often it brings the file to disk.
    pub appendfsync: Option<String>,
    /// Whether it stops doing that while it rewrites the file.
    pub no_appendfsync_on_rewrite: Option<String>,
    /// The policy by which it removes keys when its memory is full.
    pub maxmemory_policy: Option<String>,
    /// Whether four fifths of its memory are in use.
    pub is_nearly_full: bool,
    /// How many replicas are connected.
    pub replicas: Option<u64>,
    /// How many replicas must be connected for it to accept writes.
    pub min_replicas_to_write: Option<String>,
    /// Whether the last write to the file succeeded: `ok` or `err`.
    pub aof_last_write_status: Option<String>,
    /// Whether the last rewrite of the file succeeded: `ok` or `err`.
    pub aof_last_bgrewrite_status: Option<String>,
}

impl RedisSettings {
    /// Checks the settings against what `durability` promises. `was_off` tells that Redis did not
    /// append a moment ago: until its first file is complete, that file lacks earlier orders.
    #[must_use]
    pub fn judge(&self, durability: Durability, is_cluster: bool, was_off: bool) -> Vec<Setting> {
        let appends = match (self.appendonly, was_off && self.is_rewriting) {
            (true, false) => "yes",
            (true, true) => "yes, and its first file is not whole yet",
            (false, _) => "no",
        };
        let syncs: (&[&str], &str) = match durability {
            Durability::Always => (&["always"], FSYNC_ALWAYS),
            Durability::Everysec => (&["everysec", "always"], FSYNC_EVERYSEC),
        };
        let mut settings = vec![
            Setting::unsafe_unless(
                "appendonly",
                Some(appends),
                |value| value == "yes",
                APPENDONLY,
            ),
            Setting::unsafe_unless(
                "appendfsync",
                self.appendfsync.as_deref(),
                |value| syncs.0.contains(&value),
                syncs.1,
            ),
            Setting::unsafe_unless(
                "no-appendfsync-on-rewrite",
                self.no_appendfsync_on_rewrite.as_deref(),
                |value| value == "no",
                ON_REWRITE,
            ),
            Setting::unsafe_unless(
                "maxmemory-policy",
                self.maxmemory_policy.as_deref(),
                |value| value == "noeviction",
                POLICY,
            ),
            Setting::weak_unless(
                "maxmemory",
                Some(match self.is_nearly_full {
                    true => "four fifths are in use",
                    false => "has room",
                }),
                |value| value == "has room",
                MEMORY,
            ),
            Setting::weak_unless(
                "aof_last_write_status",
                self.aof_last_write_status.as_deref(),
                |value| value == "ok",
                LAST_WRITE,
            ),
            Setting::weak_unless(
                "aof_last_bgrewrite_status",
                self.aof_last_bgrewrite_status.as_deref(),
                |value| value == "ok",
                LAST_REWRITE,
            ),
        ];
        if is_cluster {
            settings.push(Setting::weak_unless(
                "min-replicas-to-write",
                self.min_replicas_to_write.as_deref(),
                |value| value != "0",
                MIN_REPLICAS,
            ));
        }
        settings
    }
}

/// The settings that a MySQL reports of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseSettings {
    /// Whether it refuses writes.
    pub is_read_only: bool,
    /// `innodb_flush_log_at_trx_commit`.
    pub flush_log_at_commit: u64,
    /// `sync_binlog`; `None` for a server that writes no binary log.
    pub sync_binlog: Option<u64>,
}

impl DatabaseSettings {
    /// Checks the settings.
    #[must_use]
    pub fn judge(&self) -> Vec<Setting> {
        use Standing::Weak;
        let read_only = if self.is_read_only { "on" } else { "off" };
        let mut settings = vec![
            Setting::weak_unless(
                "read_only",
                Some(read_only),
                |value| value == "off",
                "set read_only off, or name the primary: nothing can be stored",
            ),
            Setting::judge(
                "innodb_flush_log_at_trx_commit",
                Some(&self.flush_log_at_commit.to_string()),
                |value| value == "1",
                Weak,
                "set innodb_flush_log_at_trx_commit = 1: a crash would lose settled orders",
            ),
        ];
        if let Some(sync) = self.sync_binlog {
            settings.push(Setting::judge(
                "sync_binlog",
                Some(&sync.to_string()),
                |value| value == "1",
                Weak,
                "set sync_binlog = 1: a crash would part replicas and backups from the primary",
            ));
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use stock_common::config::Durability;

    use super::{DatabaseSettings, RedisSettings, Setting, Standing};

    fn safe() -> RedisSettings {
        RedisSettings {
            appendonly: true,
            is_rewriting: false,
            appendfsync: Some("always".to_owned()),
            no_appendfsync_on_rewrite: Some("no".to_owned()),
            maxmemory_policy: Some("noeviction".to_owned()),
            is_nearly_full: false,
            replicas: Some(1),
            min_replicas_to_write: Some("1".to_owned()),
            aof_last_write_status: Some("ok".to_owned()),
            aof_last_bgrewrite_status: Some("ok".to_owned()),
        }
    }

    fn wrong(settings: &[Setting]) -> Vec<(&str, Standing)> {
        let wrong = settings.iter().filter(|setting| setting.is_wrong());
        wrong
            .map(|setting| (setting.name, setting.standing))
            .collect()
    }

    #[test]
    fn each_setting_of_redis_that_breaks_a_promise_is_named() {
        let check = |changed: RedisSettings, durability, expected: &[(&str, Standing)]| {
            assert_eq!(wrong(&changed.judge(durability, true, false)), expected);
        };
        let (always, everysec) = (Durability::Always, Durability::Everysec);
        check(safe(), always, &[]);
        // More than is promised is no fault.
        check(safe(), everysec, &[]);
        let fsync = |value: &str| RedisSettings {
            appendfsync: Some(value.to_owned()),
            ..safe()
        };
        check(fsync("everysec"), everysec, &[]);
        check(
            fsync("everysec"),
            always,
            &[("appendfsync", Standing::Unsafe)],
        );
        check(fsync("no"), everysec, &[("appendfsync", Standing::Unsafe)]);
        let off = RedisSettings {
            appendonly: false,
            ..safe()
        };
        check(off, everysec, &[("appendonly", Standing::Unsafe)]);
        for policy in [
            "allkeys-lru",
            "allkeys-lfu",
            "allkeys-random",
            "volatile-lru",
            "volatile-lfu",
            "volatile-random",
            "volatile-ttl",
        ] {
            let evicting = RedisSettings {
                maxmemory_policy: Some(policy.to_owned()),
                ..safe()
            };
            check(evicting, always, &[("maxmemory-policy", Standing::Unsafe)]);
        }
        let full = RedisSettings {
            is_nearly_full: true,
            ..safe()
        };
        check(full, always, &[("maxmemory", Standing::Weak)]);
        let alone = RedisSettings {
            min_replicas_to_write: Some("0".to_owned()),
            aof_last_write_status: Some("err".to_owned()),
            ..safe()
        };
        check(
            alone,
            always,
            &[
                ("aof_last_write_status", Standing::Weak),
                ("min-replicas-to-write", Standing::Weak),
            ],
        );
    }

    #[test]
    fn what_info_does_not_tell_is_unknown_and_not_good() {
        let silent = RedisSettings {
            appendfsync: None,
            no_appendfsync_on_rewrite: None,
            ..safe()
        };
        let judged = silent.judge(Durability::Always, false, false);
        assert_eq!(wrong(&judged), []);
        let unknown = |setting: &&Setting| setting.standing == Standing::Unknown;
        let names: Vec<&str> = judged
            .iter()
            .filter(unknown)
            .map(|setting| setting.name)
            .collect();
        assert_eq!(names, ["appendfsync", "no-appendfsync-on-rewrite"]);
    }

    #[test]
    fn a_file_that_is_not_whole_yet_keeps_nothing() {
        let beginning = RedisSettings {
            is_rewriting: true,
            ..safe()
        };
        let judge = |was_off| wrong(&beginning.judge(Durability::Always, false, was_off)).len();
        assert_eq!((judge(false), judge(true)), (0, 1));
    }

    #[test]
    fn each_setting_of_mysql_that_is_weak_is_named() {
        let settings = DatabaseSettings {
            is_read_only: true,
            flush_log_at_commit: 2,
            sync_binlog: Some(0),
        };
        let names: Vec<(&str, Standing)> =
            ["read_only", "innodb_flush_log_at_trx_commit", "sync_binlog"]
                .map(|name| (name, Standing::Weak))
                .into();
        let judged = settings.judge();
        assert_eq!(wrong(&judged), names);
    }
}
