//! Configuration: one documented struct, read from `stock.toml` and then `STOCK_*` variables.
//!
//! Every limit of a queue, a batch, a wait or a retry is a setting here, with the unit in its name.
//! [`Config::load`] refuses settings that contradict each other and names both, so the limits of a
//! running service fit together.

mod policies;

use std::path::{Path, PathBuf};

use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

pub use self::policies::{Durability, ReplicaPolicy};

/// The settings of a service. The environment variable of a setting is `STOCK_` and its name in
/// capitals: `redis_url` is `STOCK_REDIS_URL`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The address of Redis: `redis://host:port/db`, or some nodes of a cluster,
    /// `redis-cluster://host:port?node=host:port&node=host:port`.
    pub redis_url: String,
    /// The number of shards of a new database, 1..=64; 0 is 1 on a single Redis and 16 on a
    /// cluster. `rehome` changes the number later.
    pub shards: u64,
    /// Whether the service rebuilds a promoted cluster master that lacks entries which MySQL has.
    pub failover_recovers: bool,
    /// The number of replicas of a shard's Redis that must have an accepted order before it is
    /// answered. Without a number it is 1 on a cluster, and 0 elsewhere.
    pub replicas_min: Option<u64>,
    /// The fate of an order that too few replicas have in time. `available` answers that the order
    /// is accepted, and counts it. `strict` answers that its outcome is unknown.
    pub replica_policy: ReplicaPolicy,
    /// How long a replica may take to have an order.
    pub replica_wait_ms: u64,
    /// How long a branch is held before somebody looks at the outcome of its order.
    pub branch_hold_ms: u64,
    /// The prefix of every key; two services with different prefixes share nothing.
    pub redis_prefix: String,
    /// How long an answer of Redis may take before its outcome counts as unknown.
    pub redis_response_timeout_ms: u64,
    /// The weakest `appendfsync` of Redis that is accepted. Nothing is sold on a Redis that keeps
    /// less. With `always`, script calls are larger.
    pub durability: Durability,
    /// Whether orders are also taken on a Redis that breaks `durability`, or may evict keys.
    pub allow_unsafe_redis: bool,
    /// The address of MySQL or MariaDB, `mysql://user:password@host:port/database`.
    pub database_url: String,
    /// Replicas for reads of products, orders and stock, separated by commas. Empty is none.
    pub database_read_urls: String,
    /// How far a replica may lag behind and still be asked.
    pub read_lag_ms_max: u64,
    /// How long a user who has written something reads the primary; above `read_lag_ms_max`.
    pub read_your_writes_ms: u64,
    /// How long a replica may take before the primary is asked instead; below `read_lag_ms_max`.
    pub read_timeout_ms: u64,
    /// Connections for reads, and for everything that is no order.
    pub database_connections_max: u32,
    /// How long a request waits for a connection.
    pub database_acquire_timeout_ms: u64,
    /// How long a transaction that writes may take before its connection is given up, as behind a
    /// half-open link that swallowed a statement.
    pub database_transaction_timeout_ms: u64,
    /// Synchronous orders at the same time. Each has a connection of its own.
    pub synchronous_orders_max: usize,
    /// The HS256 key of access tokens, at least 32 bytes.
    pub jwt_secret: String,
    /// A second HS256 key: tokens that name it by its id are accepted too. Empty is none.
    pub jwt_previous_secret: String,
    /// How long an access token of a login holds.
    pub access_token_seconds: i64,
    /// How long a refresh token holds.
    pub refresh_token_seconds: i64,
    /// How long a page's session lasts after the login.
    pub session_seconds: i64,
    /// Whether browsers use TLS (of a proxy): cookies are then `Secure`, and answers carry HSTS.
    pub public_tls: bool,
    /// Password hashes computed at the same time, 19 MiB each.
    pub password_hashes_max: usize,
    /// The window in which requests are counted.
    pub limit_window_seconds: u64,
    /// Requests of one user in a window; 0 is no limit.
    pub limit_user_requests: u32,
    /// Requests from one address in a window; 0 is no limit.
    pub limit_address_requests: u32,
    /// Requests with an Idempotency-Key of one user in a window; 0 is no limit.
    pub limit_user_keys: u32,
    /// Requests with a key of one user in a day, as each takes memory for a day; 0 is no limit.
    pub limit_user_keys_daily: u32,
    /// The window in which attempts to log in are counted.
    pub limit_login_seconds: u64,
    /// Attempts to log in to one account in a window. After these each further attempt has to wait:
    /// one second, then two, up to a minute. A successful attempt clears the count. 0 is no limit.
    pub limit_login_failures: u32,
    /// Failed attempts to log in, and sign-ups, from one address in a window. After these each
    /// further one has to wait likewise. 0 is no limit.
    pub limit_address_logins: u32,
    /// Proxies whose `X-Forwarded-For` is believed: addresses or networks, separated by commas.
    pub trusted_proxies: String,
    /// Origins whose pages may call the interface, separated by commas, such as `https://shop.example.com`.
    pub cors_origins: String,
    /// The address on which the service listens.
    pub http_addr: String,
    /// How long a request may take altogether.
    pub http_timeout_ms: u64,
    /// How long a client may take to send the head of a request, from its first byte on.
    pub http_header_timeout_ms: u64,
    /// How long a connection may be idle. This is longer than the 60 s of common proxies, so that
    /// the proxy closes the connection and not the service.
    pub http_idle_timeout_ms: u64,
    /// How long a client may take nothing of its answer.
    pub http_write_timeout_ms: u64,
    /// The largest body.
    pub http_body_bytes_max: usize,
    /// The largest file of stock.
    pub import_bytes_max: usize,
    /// How long a file of stock may take to arrive and to be checked.
    pub import_timeout_ms: u64,
    /// Connections at the same time. Some further ones are answered health checks only.
    pub http_connections_max: usize,
    /// Connections of one address at the same time, trusted proxies aside; 0 is no limit.
    pub http_address_connections_max: usize,
    /// How long open requests and the last batches may take after SIGTERM.
    pub shutdown_timeout_ms: u64,
    /// Requests in one script call, 1..=256.
    pub batch_requests_max: usize,
    /// Postings in one script call, 1..=1000, unless a single request has more.
    pub batch_postings_max: usize,
    /// Script calls under way at the same time.
    pub batches_in_flight_max: usize,
    /// Requests that wait for a script call. One more is answered `OVERLOADED`.
    pub queue_requests_max: usize,
    /// How long a request may wait for its verdict before it is dropped as `OVERLOADED`.
    pub queue_wait_ms_max: u64,
    /// How long a product that was seen at zero is refused without asking Redis.
    pub sold_out_flag_ms: u64,
    /// Unsettled entries from which batches are slowed down to the rate at which MySQL settles.
    pub lag_soft_entries: u64,
    /// Unsettled entries from which orders are refused with `BACKLOG`.
    pub lag_hard_entries: u64,
    /// Further unsettled entries allowed to cancels and compensations.
    pub lag_reserve_entries: u64,
    /// How long an acceptance is remembered under its Idempotency-Key.
    pub idempotency_accepted_ms: u64,
    /// How long a refusal is remembered under its Idempotency-Key.
    pub idempotency_refused_ms: u64,
    /// Entries in one MySQL transaction of the subscriber, 1..=1024.
    pub apply_entries_max: usize,
    /// How long the subscriber lets entries gather after a batch that was large and not full,
    /// because full batches cost MySQL less per entry. A quiet hour does not wait.
    pub apply_gather_ms: u64,
    /// How long the subscriber waits for a message before it looks by itself.
    pub apply_poll_ms: u64,
    /// Settled entries that stay in the journal below the watermark.
    pub journal_keep_entries: u64,
    /// How old a final state must be before it is removed.
    pub marks_keep_ms: u64,
    /// Live reservations that one user may have at once; 0 is no limit. Reservations that were made
    /// under another number are counted separately until they end.
    pub holds_per_user_max: u32,
    /// Units of one product that one user may hold at once; 0 is no limit. A hold that counts
    /// against a sale's limit is bounded by that limit instead.
    pub hold_units_per_user_max: u32,
    /// The longest life that a reservation may ask for, 30..=14400.
    pub hold_ttl_seconds_max: u64,
    /// How often expired reservations are looked for.
    pub expire_reservations_ms: u64,
    /// Streams of levels at the same time. One more is answered `OVERLOADED`.
    pub event_streams_max: usize,
    /// Streams of levels to pages at the same time, without login. Further pages show fixed levels.
    pub page_streams_max: usize,
    /// Streams of one user at the same time, and to pages of one address; 0 is no limit.
    pub streams_each_max: usize,
    /// Whether webhooks may go to internal addresses and without TLS, as on a private network.
    pub webhook_internal_allowed: bool,
    /// Seconds to wait after each failed attempt of a webhook's delivery. After the last attempt
    /// the webhook is disabled. Each wait is varied by a tenth.
    pub webhook_retry_seconds: String,
    /// How many days delivered batches of webhooks stay in the log.
    pub webhook_log_days: u32,
    /// The time zone by which days of points end, such as `Asia/Seoul`.
    pub time_zone: String,
    /// When the daily reports of points are written, for the whole day before: a cron expression
    /// with seconds, in that time zone.
    pub points_report_cron: String,
    /// The part of what a buyer pays that is earned as points, in hundredths of a percent.
    pub points_earn_hundredths: u32,
    /// Dead letters of one reason within a minute from which the subscriber stops applying, if most
    /// entries are dead letters.
    pub dead_letters_per_minute_max: u32,
    /// The age from which the catalog snapshot is read again without a message.
    pub catalog_refresh_ms: u64,
    /// When `reconcile` runs: a cron expression with seconds.
    pub reconcile_cron: String,
    /// When `verify` runs: a cron expression with seconds, at least every six hours. Each run
    /// verifies again a part of what was verified before, so that all of it is verified within a
    /// day.
    pub verify_cron: String,
    /// When final states are removed: a cron expression with seconds.
    pub forget_marks_cron: String,
    /// When ended refresh tokens and sessions are removed: a cron expression with seconds.
    pub forget_logins_cron: String,
    /// Whether the scheduled `reconcile` corrects what it finds.
    pub reconcile_apply: bool,
    /// Whether `/metrics` is open to everyone. Otherwise an admin's token is required.
    pub metrics_open: bool,
    /// The log filter, such as `info` or `stock_online=debug,info`.
    pub log: String,
}

impl Default for Config {
    #[expect(clippy::too_many_lines, reason = "every setting in one table")]
    fn default() -> Self {
        Self {
            redis_url: "redis://127.0.0.1:6379/0".to_owned(),
            shards: 0,
            failover_recovers: true,
            replicas_min: None,
            replica_policy: ReplicaPolicy::Available,
            replica_wait_ms: 200,
            branch_hold_ms: 10_000,
            redis_prefix: "sf:v1".to_owned(),
            redis_response_timeout_ms: 2_000,
            durability: Durability::Always,
            allow_unsafe_redis: false,
            database_url: "mysql://root@127.0.0.1:3306/stock".to_owned(),
            database_read_urls: String::new(),
            read_lag_ms_max: 2_000,
            read_your_writes_ms: 5_000,
            read_timeout_ms: 500,
            database_connections_max: 24,
            database_acquire_timeout_ms: 5_000,
            database_transaction_timeout_ms: 20_000,
            synchronous_orders_max: 16,
            jwt_secret: String::new(),
            jwt_previous_secret: String::new(),
            access_token_seconds: 900,
            refresh_token_seconds: 14 * 86_400,
            session_seconds: 3_600,
            public_tls: false,
            password_hashes_max: 2,
            limit_window_seconds: 10,
            limit_user_requests: 200,
            limit_address_requests: 2_000,
            limit_user_keys: 100,
            limit_user_keys_daily: 20_000,
            limit_login_seconds: 900,
            limit_login_failures: 10,
            limit_address_logins: 100,
            trusted_proxies: String::new(),
            cors_origins: String::new(),
            http_addr: "127.0.0.1:8080".to_owned(),
            http_timeout_ms: 10_000,
            http_header_timeout_ms: 10_000,
            http_idle_timeout_ms: 75_000,
            http_write_timeout_ms: 30_000,
            http_body_bytes_max: 64 * 1024,
            import_bytes_max: 64 * 1024 * 1024,
            import_timeout_ms: 300_000,
            http_connections_max: 20_000,
            http_address_connections_max: 1_000,
            shutdown_timeout_ms: 8_000,
            batch_requests_max: 256,
            batch_postings_max: 1_000,
            batches_in_flight_max: 2,
            queue_requests_max: 20_000,
            queue_wait_ms_max: 5_000,
            sold_out_flag_ms: 200,
            lag_soft_entries: 40_000,
            lag_hard_entries: 1_000_000,
            lag_reserve_entries: 50_000,
            idempotency_accepted_ms: 24 * 3_600_000,
            idempotency_refused_ms: 600_000,
            apply_entries_max: 1_024,
            apply_gather_ms: 30,
            apply_poll_ms: 200,
            journal_keep_entries: 10_000,
            marks_keep_ms: 24 * 3_600_000,
            holds_per_user_max: 20,
            hold_units_per_user_max: 200,
            hold_ttl_seconds_max: 1_800,
            expire_reservations_ms: 200,
            event_streams_max: 1_000,
            page_streams_max: 2_000,
            streams_each_max: 100,
            webhook_internal_allowed: false,
            webhook_retry_seconds: "5,300,1800,7200,18000,36000,50400,72000,86400".to_owned(),
            webhook_log_days: 7,
            time_zone: "Asia/Seoul".to_owned(),
            points_report_cron: "0 0 1 * * *".to_owned(),
            points_earn_hundredths: 0,
            dead_letters_per_minute_max: 100,
            catalog_refresh_ms: 5_000,
            reconcile_cron: "0 */5 * * * *".to_owned(),
            verify_cron: "0 47 * * * *".to_owned(),
            forget_marks_cron: "30 7 * * * *".to_owned(),
            forget_logins_cron: "0 17 * * * *".to_owned(),
            reconcile_apply: true,
            metrics_open: false,
            log: "info".to_owned(),
        }
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or variable cannot be read or does not fit its setting.
    #[error("cannot read the configuration: {0}")]
    Read(#[from] config::ConfigError),
    /// The file with variables cannot be read.
    #[error("cannot read {path}: {source}")]
    EnvFile {
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A line of the file with variables cannot be read, or names a variable again.
    #[error(
        "{path}, line {line}: it is neither NAME=value with a name of its own, nor a comment; a value with spaces, \
         quotes or $ stands in '…'"
    )]
    EnvLine {
        /// The path of the file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A setting is out of its range, or two settings contradict each other.
    #[error("the configuration contradicts itself: {0}")]
    Contradiction(String),
}

impl Config {
    /// The number of shards that a new database gets.
    #[must_use]
    pub fn shards(&self) -> u64 {
        match self.shards {
            0 if self.is_cluster() => 16,
            0 => 1,
            shards => shards,
        }
    }

    /// The number of replicas that must have an accepted order before it is answered.
    #[must_use]
    pub fn replicas_min(&self) -> u64 {
        self.replicas_min.unwrap_or(u64::from(self.is_cluster()))
    }

    fn is_cluster(&self) -> bool {
        self.redis_url.contains("-cluster://")
    }

    /// The number of Redis' database, as `redis_url` names it.
    #[must_use]
    pub fn redis_database(&self) -> u32 {
        let (address, query) = self
            .redis_url
            .split_once('?')
            .unwrap_or((&self.redis_url, ""));
        let named = query.split('&').find_map(|pair| pair.strip_prefix("db="));
        let path = address.split_once("://").map_or(address, |(_, rest)| rest);
        let last = path.rsplit_once('/').map(|(_, last)| last);
        named
            .or(last)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    }

    /// Reads `stock.toml` in the current folder, if there is one, then the `STOCK_*` variables of
    /// `env_file`, then those of the environment. A later source wins.
    ///
    /// # Errors
    /// [`ConfigError`] when a value does not fit its setting, or settings contradict each other.
    pub fn load(env_file: Option<&Path>) -> Result<Self, ConfigError> {
        // Values stay text until the type of their setting is known: a secret may be all digits.
        let variables = || config::Environment::with_prefix("STOCK").prefix_separator("_");
        let mut builder =
            config::Config::builder().add_source(config::File::with_name("stock").required(false));
        if let Some(path) = env_file {
            let path_of = || path.to_owned();
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::EnvFile {
                path: path_of(),
                source,
            })?;
            let read = parse_env(&text).map_err(|line| ConfigError::EnvLine {
                path: path_of(),
                line,
            })?;
            builder = builder.add_source(variables().source(Some(read)));
        }
        let read: Self = builder.add_source(variables()).build()?.try_deserialize()?;
        read.check()?;
        Ok(read)
    }

    /// Reads the `STOCK_*` variables of the environment over the given defaults.
    ///
    /// # Errors
    /// [`ConfigError`] when a value does not fit its setting. The caller checks for contradictions.
    pub fn load_over(defaults: &Self) -> Result<Self, ConfigError> {
        let variables = config::Environment::with_prefix("STOCK").prefix_separator("_");
        let builder = config::Config::builder().add_source(config::Config::try_from(defaults)?);
        Ok(builder.add_source(variables).build()?.try_deserialize()?)
    }

    /// Refuses settings that contradict each other.
    ///
    /// # Errors
    /// [`ConfigError::Contradiction`] with both settings named.
    #[expect(clippy::too_many_lines, reason = "every rule in one table")]
    pub fn check(&self) -> Result<(), ConfigError> {
        let rules: [(bool, &str); 19] = [
            (self.shards <= 64, "shards must be 0..=64"),
            (
                self.queue_wait_ms_max + self.redis_response_timeout_ms < self.branch_hold_ms,
                "branch_hold_ms must be above queue_wait_ms_max and redis_response_timeout_ms together",
            ),
            (
                !self.cors_origins.contains('*'),
                "cors_origins names origins one by one: * would let every page read answers",
            ),
            (
                self.jwt_previous_secret.is_empty() || self.jwt_previous_secret.len() >= 32,
                "jwt_previous_secret must have at least 32 bytes, as jwt_secret",
            ),
            (
                self.access_token_seconds > 0
                    && self.refresh_token_seconds > self.access_token_seconds,
                "refresh_token_seconds must be above access_token_seconds, and both above 0",
            ),
            (
                self.limit_window_seconds > 0
                    && self.limit_login_seconds > 0
                    && self.password_hashes_max > 0,
                "limit_window_seconds, limit_login_seconds and password_hashes_max must be above 0",
            ),
            (
                self.redis_response_timeout_ms < self.http_timeout_ms,
                "redis_response_timeout_ms must be below http_timeout_ms",
            ),
            (
                self.queue_wait_ms_max < self.http_timeout_ms,
                "queue_wait_ms_max must be below http_timeout_ms",
            ),
            (
                (30..=14_400).contains(&self.hold_ttl_seconds_max),
                "hold_ttl_seconds_max must be 30..=14400",
            ),
            (
                self.synchronous_orders_max > 0,
                "synchronous_orders_max must be above 0",
            ),
            (
                self.read_timeout_ms < self.read_lag_ms_max
                    && self.read_lag_ms_max < self.read_your_writes_ms,
                "read_timeout_ms must be below read_lag_ms_max, and that below read_your_writes_ms",
            ),
            (
                self.lag_soft_entries < self.lag_hard_entries,
                "lag_soft_entries must be below lag_hard_entries",
            ),
            (
                self.shutdown_timeout_ms < 10_000,
                "shutdown_timeout_ms must be below the 10 s within which the service exits",
            ),
            (
                (1..=256).contains(&self.batch_requests_max),
                "batch_requests_max must be 1..=256",
            ),
            (
                (1..=1_000).contains(&self.batch_postings_max),
                "batch_postings_max must be 1..=1000",
            ),
            (
                (1..=1_024).contains(&self.apply_entries_max),
                "apply_entries_max must be 1..=1024",
            ),
            (
                self.time_zone.parse::<Tz>().is_ok(),
                "time_zone must be a name of the IANA list, such as Asia/Seoul or UTC",
            ),
            (
                self.points_earn_hundredths <= 10_000,
                "points_earn_hundredths must be 0..=10000, which is all of it",
            ),
            (
                !self.redis_prefix.contains(['{', '}']),
                "redis_prefix must not contain { or }, which choose a cluster's slot",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(ConfigError::Contradiction((*rule).to_owned())),
            None => Ok(()),
        }
    }

    /// The time zone by which days end. [`Config::check`] has refused a name that is no time zone.
    #[must_use]
    pub fn tz(&self) -> Tz {
        self.time_zone.parse().unwrap_or(Tz::UTC)
    }

    /// Refuses a secret that is too short for HS256 (RFC 7518 §3.2: at least as long as the hash).
    ///
    /// # Errors
    /// [`ConfigError::Contradiction`] when `jwt_secret` has fewer than 32 bytes.
    pub fn check_secret(&self) -> Result<(), ConfigError> {
        if self.jwt_secret.len() < 32 {
            let text = "jwt_secret (STOCK_JWT_SECRET) must have at least 32 bytes".to_owned();
            return Err(ConfigError::Contradiction(text));
        }
        Ok(())
    }

    /// The effective settings as JSON, with passwords and secrets masked.
    #[must_use]
    pub fn masked(&self) -> serde_json::Value {
        let mut shown = self.clone();
        shown.redis_url = without_password(&shown.redis_url);
        shown.database_url = without_password(&shown.database_url);
        let replicas = shown.database_read_urls.split(',').map(without_password);
        shown.database_read_urls = replicas.collect::<Vec<_>>().join(",");
        for secret in [&mut shown.jwt_secret, &mut shown.jwt_previous_secret] {
            if !secret.is_empty() {
                "***".clone_into(secret);
            }
        }
        serde_json::to_value(shown).unwrap_or_default()
    }
}

/// Parses the variables of a file with `dotenvy`. The error is the number of the first line that
/// cannot be read or that names a variable again: `dotenvy`'s own error would show the line, which
/// may hold a secret.
fn parse_env(text: &str) -> Result<config::Map<String, String>, usize> {
    // The last line may have no end, and some editors begin a file with a byte order mark.
    let text = format!("{}\n", text.trim_start_matches('\u{feff}'));
    let read = |text: &str| {
        let mut variables = config::Map::new();
        for item in dotenvy::from_read_iter(text.as_bytes()) {
            let (name, value) = item.ok()?;
            if variables.insert(name, value).is_some() {
                return None;
            }
        }
        Some(variables)
    };
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let begin = |count: usize| lines.iter().take(count).copied().collect::<String>();
    read(&text).ok_or_else(|| {
        let good = (0..lines.len()).rfind(|&count| read(&begin(count)).is_some());
        good.unwrap_or(0) + 1
    })
}

/// `scheme://user:password@host` with the password replaced.
#[must_use]
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let Some((login, host)) = rest.rsplit_once('@') else {
        return url.to_owned();
    };
    match login.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***@{host}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, parse_env};

    #[test]
    fn a_file_of_variables_is_read_as_a_shell_would_or_refused_by_line() {
        let text = "\u{feff}export STOCK_REDIS_URL=redis://a:1/0\n# a comment\n\nSTOCK_LOG = \"warn\" # why\r\n\
                    STOCK_JWT_SECRET='two\nlines $HOME'\nSTOCK_REDIS_PREFIX=007";
        let read = parse_env(text).unwrap();
        let of = |name: &str| read.get(name).map(String::as_str);
        assert_eq!(of("STOCK_REDIS_URL"), Some("redis://a:1/0"));
        assert_eq!(of("STOCK_LOG"), Some("warn"));
        assert_eq!(of("STOCK_JWT_SECRET"), Some("two\nlines $HOME"));
        assert_eq!(of("STOCK_REDIS_PREFIX"), Some("007"));
        for (line, wrong) in [
            (2, "A=1\nexport\nB=2"),
            (4, "A=1\nB='2\n3'\nC=4 5\nD=6\n"),
            (1, "STOCK_REDIS_URL: redis://a"),
            (3, "A=1\n# A\nA=2\n"),
            (2, "A=1\nB='open\nC=3\n"),
        ] {
            assert_eq!(parse_env(wrong), Err(line), "{wrong}");
        }
    }

    #[test]
    fn the_database_of_redis_is_read_from_every_form_of_its_url() {
        for (redis_url, expected) in [
            ("redis://127.0.0.1:6379/0", 0),
            ("redis://127.0.0.1:6379/12", 12),
            ("rediss://:word@cache:6379", 0),
            ("rediss://:w/7@cache/3?insecure=true", 3),
            ("unix:///run/redis.sock?db=4", 4),
            ("redis-cluster://a:1,b:2", 0),
        ] {
            let config = Config {
                redis_url: redis_url.to_owned(),
                ..Config::default()
            };
            assert_eq!(config.redis_database(), expected, "{redis_url}");
        }
    }

    #[test]
    fn a_contradiction_names_both_settings() {
        let config = Config {
            lag_soft_entries: 9,
            lag_hard_entries: 9,
            ..Config::default()
        };
        let text = config.check().unwrap_err().to_string();
        assert!(
            text.contains("lag_soft_entries") && text.contains("lag_hard_entries"),
            "{text}"
        );
        assert!(Config::default().check().is_ok());
    }

    #[test]
    fn secrets_are_masked() {
        let config = Config {
            redis_url: "redis://:geheim@cache:6379".to_owned(),
            database_url: "mysql://shop:geheim@db/stock".to_owned(),
            database_read_urls: "mysql://shop:geheim@a/stock, mysql://shop:geheim@b/stock"
                .to_owned(),
            jwt_secret: "geheim".repeat(6),
            jwt_previous_secret: "geheim".repeat(7),
            ..Config::default()
        };
        let shown = config.masked().to_string();
        assert!(!shown.contains("geheim"), "{shown}");
        assert!(shown.contains("mysql://shop:***@db/stock"), "{shown}");
    }
}
