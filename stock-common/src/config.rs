//! Configuration: one documented struct, read from `stock.toml` and then `STOCK_*` variables.
//!
//! Every limit of a queue, a batch, a wait or a retry is a setting here, with the unit in its name.
//! [`Config::load`] refuses settings that contradict each other and names both, so the limits of a
//! running service fit together.

mod parts;
mod policies;

use std::path::{Path, PathBuf};

use chrono_tz::Tz;

pub use self::parts::{
    ApplySettings, Config, DecideSettings, HttpSettings, MySqlSettings, PeopleSettings,
    RedisSettings, ScheduleSettings, SellingSettings, WebhooksSettings,
};
pub use self::policies::{Compat, Durability, ReplicaPolicy, Seed};

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

/// Variables of the admin whom `create-admin --from-env` makes; no settings of the service.
pub const ADMIN_VARIABLES: [&str; 2] = ["STOCK_ADMIN_EMAIL", "STOCK_ADMIN_PASSWORD"];

/// The variables of the environment that are text; a variable that is none is no setting.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// The settings among some variables. Values stay text until the type of their setting is known,
/// because a secret may be all digits.
fn variables(named: impl IntoIterator<Item = (String, String)>) -> config::Environment {
    let is_setting = |(name, _): &(String, String)| !ADMIN_VARIABLES.contains(&name.as_str());
    let settings = named.into_iter().filter(is_setting).collect();
    config::Environment::with_prefix("STOCK")
        .prefix_separator("_")
        .source(Some(settings))
}

impl Config {
    /// Returns the settings with a change.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The number of shards that a new database gets.
    #[must_use]
    pub fn shards(&self) -> u64 {
        match self.redis.shards {
            0 if self.is_cluster() => 16,
            0 => 1,
            shards => shards,
        }
    }

    /// The number of replicas that must have an accepted order before it is answered.
    #[must_use]
    pub fn replicas_min(&self) -> u64 {
        self.redis
            .replicas_min
            .unwrap_or(u64::from(self.is_cluster()))
    }

    fn is_cluster(&self) -> bool {
        self.redis.redis_url.contains("-cluster://")
    }

    /// The number of Redis' database, as `redis_url` names it.
    #[must_use]
    pub fn redis_database(&self) -> u32 {
        let (address, query) = self
            .redis
            .redis_url
            .split_once('?')
            .unwrap_or((&self.redis.redis_url, ""));
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
            builder = builder.add_source(variables(read));
        }
        let environment = variables(environment());
        let read: Self = builder.add_source(environment).build()?.try_deserialize()?;
        read.check()?;
        Ok(read)
    }

    /// Reads the `STOCK_*` variables of the environment over the given defaults.
    ///
    /// # Errors
    /// [`ConfigError`] when a value does not fit its setting. The caller checks for contradictions.
    pub fn load_over(defaults: &Self) -> Result<Self, ConfigError> {
        let builder = config::Config::builder().add_source(config::Config::try_from(defaults)?);
        let environment = variables(environment());
        Ok(builder.add_source(environment).build()?.try_deserialize()?)
    }

    /// Refuses settings that contradict each other.
    ///
    /// # Errors
    /// [`ConfigError::Contradiction`] with both settings named.
    #[expect(clippy::too_many_lines, reason = "every rule in one table")]
    pub fn check(&self) -> Result<(), ConfigError> {
        let rules: [(bool, &str); 22] = [
            (self.redis.shards <= 64, "shards must be 0..=64"),
            (
                self.decide.queue_wait_ms_max + self.redis.redis_response_timeout_ms
                    < self.decide.branch_hold_ms,
                "branch_hold_ms must be above queue_wait_ms_max and redis_response_timeout_ms together",
            ),
            (
                !self.http.cors_origins.contains('*'),
                "cors_origins names origins one by one: * would let every page read answers",
            ),
            (
                self.people.jwt_previous_secret.is_empty()
                    || self.people.jwt_previous_secret.len() >= 32,
                "jwt_previous_secret must have at least 32 bytes, as jwt_secret",
            ),
            (
                self.people.jwt_jwks_url.is_empty() || self.people.jwt_jwks_file.is_empty(),
                "jwt_jwks_url and jwt_jwks_file exclude each other",
            ),
            (
                (self.people.jwt_jwks_url.is_empty() && self.people.jwt_jwks_file.is_empty())
                    || !(self.people.jwt_issuer.is_empty() || self.people.jwt_audience.is_empty()),
                "jwt_jwks_url and jwt_jwks_file need jwt_issuer and jwt_audience, or tokens for \
                 others would be accepted",
            ),
            (
                self.people.access_token_seconds > 0
                    && self.people.refresh_token_seconds > self.people.access_token_seconds,
                "refresh_token_seconds must be above access_token_seconds, and both above 0",
            ),
            (
                self.people.limit_window_seconds > 0
                    && self.people.limit_login_seconds > 0
                    && self.people.password_hashes_max > 0,
                "limit_window_seconds, limit_login_seconds and password_hashes_max must be above 0",
            ),
            (
                self.redis.redis_response_timeout_ms < self.http.http_timeout_ms,
                "redis_response_timeout_ms must be below http_timeout_ms",
            ),
            (
                self.decide.queue_wait_ms_max < self.http.http_timeout_ms,
                "queue_wait_ms_max must be below http_timeout_ms",
            ),
            (
                (30..=14_400).contains(&self.selling.hold_ttl_seconds_max),
                "hold_ttl_seconds_max must be 30..=14400",
            ),
            (
                // The state that says how far a checkout was extended outlives the checkout.
                self.selling.checkout_life_seconds_max.saturating_mul(1_000)
                    < self.decide.marks_keep_ms,
                "checkout_life_seconds_max must be below marks_keep_ms",
            ),
            (
                self.mysql.synchronous_orders_max > 0,
                "synchronous_orders_max must be above 0",
            ),
            (
                self.mysql.read_timeout_ms < self.mysql.read_lag_ms_max
                    && self.mysql.read_lag_ms_max < self.mysql.read_your_writes_ms,
                "read_timeout_ms must be below read_lag_ms_max, and that below read_your_writes_ms",
            ),
            (
                self.decide.lag_soft_entries < self.decide.lag_hard_entries,
                "lag_soft_entries must be below lag_hard_entries",
            ),
            (
                self.http.shutdown_timeout_ms < 10_000,
                "shutdown_timeout_ms must be below the 10 s within which the service exits",
            ),
            (
                (1..=256).contains(&self.decide.batch_requests_max),
                "batch_requests_max must be 1..=256",
            ),
            (
                (1..=1_000).contains(&self.decide.batch_postings_max),
                "batch_postings_max must be 1..=1000",
            ),
            (
                (1..=1_024).contains(&self.apply.apply_entries_max),
                "apply_entries_max must be 1..=1024",
            ),
            (
                self.schedule.time_zone.parse::<Tz>().is_ok(),
                "time_zone must be a name of the IANA list, such as Asia/Seoul or UTC",
            ),
            (
                self.selling.points_earn_hundredths <= 10_000,
                "points_earn_hundredths must be 0..=10000, which is all of it",
            ),
            (
                !self.redis.redis_prefix.contains(['{', '}']),
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
        self.schedule.time_zone.parse().unwrap_or(Tz::UTC)
    }

    /// Refuses a secret that is too short for HS256 (RFC 7518 §3.2: at least as long as the hash).
    ///
    /// # Errors
    /// [`ConfigError::Contradiction`] when `jwt_secret` has fewer than 32 bytes.
    pub fn check_secret(&self) -> Result<(), ConfigError> {
        if self.people.jwt_secret.len() < 32 {
            let text = "jwt_secret (STOCK_JWT_SECRET) must have at least 32 bytes".to_owned();
            return Err(ConfigError::Contradiction(text));
        }
        Ok(())
    }

    /// The effective settings as JSON, with passwords and secrets masked.
    #[must_use]
    pub fn masked(&self) -> serde_json::Value {
        let mut shown = self.clone();
        shown.redis.redis_url = without_password(&shown.redis.redis_url);
        shown.mysql.database_url = without_password(&shown.mysql.database_url);
        let replicas = shown
            .mysql
            .database_read_urls
            .split(',')
            .map(without_password);
        shown.mysql.database_read_urls = replicas.collect::<Vec<_>>().join(",");
        for secret in [
            &mut shown.people.jwt_secret,
            &mut shown.people.jwt_previous_secret,
            &mut shown.selling.payment_webhook_secret,
        ] {
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
            let config = Config::default().with(|config| {
                config.redis.redis_url = redis_url.to_owned();
            });
            assert_eq!(config.redis_database(), expected, "{redis_url}");
        }
    }

    #[test]
    fn a_contradiction_names_both_settings() {
        let config = Config::default().with(|config| {
            config.decide.lag_soft_entries = 9;
            config.decide.lag_hard_entries = 9;
        });
        let text = config.check().unwrap_err().to_string();
        assert!(
            text.contains("lag_soft_entries") && text.contains("lag_hard_entries"),
            "{text}"
        );
        assert!(Config::default().check().is_ok());
    }

    #[test]
    fn secrets_are_masked() {
        let config = Config::default().with(|config| {
            config.redis.redis_url = "redis://:geheim@cache:6379".to_owned();
            config.mysql.database_url = "mysql://shop:geheim@db/stock".to_owned();
            config.mysql.database_read_urls =
                "mysql://shop:geheim@a/stock, mysql://shop:geheim@b/stock".to_owned();
            config.people.jwt_secret = "geheim".repeat(6);
            config.people.jwt_previous_secret = "geheim".repeat(7);
        });
        let shown = config.masked().to_string();
        assert!(!shown.contains("geheim"), "{shown}");
        assert!(shown.contains("mysql://shop:***@db/stock"), "{shown}");
    }
}
