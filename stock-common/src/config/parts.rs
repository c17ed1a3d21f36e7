//! Every setting with its default, in parts: a function takes the part that it needs.
//!
//! A setting's name is the same in `stock.toml`, after `STOCK_` in the environment, and in its
//! part. So the file and the environment are flat, and [`Config`] is read from and written as a
//! flat list.

use serde::{Deserialize, Serialize};

use super::policies::{Compat, Durability, ReplicaPolicy};

/// Declares the parts, [`Config`] and its flat form.
macro_rules! settings {
    ($($(#[doc = $about:literal])* $part:ident: $Part:ident {
        $($(#[doc = $doc:literal])* $name:ident: $type:ty = $default:expr,)*
    })*) => {
        $(
            $(#[doc = $about])*
            #[derive(Debug, Clone)]
            pub struct $Part {
                $($(#[doc = $doc])* pub $name: $type,)*
            }

            impl Default for $Part {
                fn default() -> Self {
                    Self { $($name: $default,)* }
                }
            }
        )*

        /// The settings of a service, by part.
        #[derive(Debug, Clone, Default, Serialize, Deserialize)]
        #[serde(from = "Flat", into = "Flat")]
        pub struct Config {
            $($(#[doc = $about])* pub $part: $Part,)*
        }

        #[derive(Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct Flat {
            $($($name: $type,)*)*
        }

        impl Default for Flat {
            fn default() -> Self {
                Config::default().into()
            }
        }

        impl From<Config> for Flat {
            fn from(config: Config) -> Self {
                Self { $($($name: config.$part.$name,)*)* }
            }
        }

        impl From<Flat> for Config {
            fn from(flat: Flat) -> Self {
                Self { $($part: $Part { $($name: flat.$name,)* },)* }
            }
        }
    };
}

settings! {
    /// Redis, and the copies that an accepted order waits for.
    redis: RedisSettings {
        /// The address of Redis: `redis://host:port/db`, or some nodes of a cluster, `redis-
        /// cluster://host:port?node=host:port&node=host:port`.
        redis_url: String = "redis://127.0.0.1:6379/0".to_owned(),
        /// The number of shards of a new database, 1..=64; 0 is 1 on a single Redis and 16 on a
        /// cluster. `rehome` changes the number later.
        shards: u64 = 0,
        /// Whether the service rebuilds a promoted cluster master that lacks entries which MySQL
        /// has.
        failover_recovers: bool = true,
        /// The number of replicas of a shard's Redis that must have an accepted order before it is
        /// answered. Without a number it is 1 on a cluster, and 0 elsewhere.
        replicas_min: Option<u64> = None,
        /// The fate of an order that too few replicas have in time. `available` answers that the
        /// order is accepted, and counts it. `strict` answers that its outcome is unknown.
        replica_policy: ReplicaPolicy = ReplicaPolicy::Available,
        /// How long a replica may take to have an order.
        replica_wait_ms: u64 = 200,
        /// The prefix of every key; two services with different prefixes share nothing.
        redis_prefix: String = "sf:v1".to_owned(),
        /// How long an answer of Redis may take before its outcome counts as unknown.
        redis_response_timeout_ms: u64 = 2_000,
        /// The weakest `appendfsync` of Redis that is accepted. Nothing is sold on a Redis with a
        /// weaker one. With `always` each script call waits for the disk, so calls are fewer and
        /// larger.
        durability: Durability = Durability::Always,
        /// Whether orders are also taken on a Redis that breaks `durability`, or may evict keys.
        allow_unsafe_redis: bool = false,
    }
    /// MySQL, its replicas, and the connections to them.
    mysql: MySqlSettings {
        /// The address of MySQL or MariaDB, `mysql://user:password@host:port/database`.
        database_url: String = "mysql://root@127.0.0.1:3306/stock".to_owned(),
        /// Replicas for reads of products, orders and stock, separated by commas. Empty is none.
        database_read_urls: String = String::new(),
        /// How far a replica may lag behind and still be asked.
        read_lag_ms_max: u64 = 2_000,
        /// How long a user who has written something reads the primary; above `read_lag_ms_max`.
        read_your_writes_ms: u64 = 5_000,
        /// How long a replica may take before the primary is asked instead; below
        /// `read_lag_ms_max`.
        read_timeout_ms: u64 = 500,
        /// Connections for reads, and for everything that is no order.
        database_connections_max: u32 = 24,
        /// How long a request waits for a connection.
        database_acquire_timeout_ms: u64 = 5_000,
        /// How long a transaction that writes may take before its connection is given up, as behind
        /// a half-open link that swallowed a statement.
        database_transaction_timeout_ms: u64 = 20_000,
        /// Synchronous orders at the same time. Each has a connection of its own.
        synchronous_orders_max: usize = 16,
    }
    /// Script calls: their size and queue, the backlog that they allow, and how long answers are
    /// remembered.
    decide: DecideSettings {
        /// How long a branch is held before somebody looks at the outcome of its order.
        branch_hold_ms: u64 = 10_000,
        /// Requests in one script call, 1..=256.
        batch_requests_max: usize = 256,
        /// Postings in one script call, 1..=1000, unless a single request has more.
        batch_postings_max: usize = 1_000,
        /// Script calls under way at the same time.
        batches_in_flight_max: usize = 2,
        /// Requests that wait for a script call. One more is answered `OVERLOADED`.
        queue_requests_max: usize = 20_000,
        /// How long a request may wait for its verdict before it is dropped as `OVERLOADED`.
        queue_wait_ms_max: u64 = 5_000,
        /// How long a product that was seen at zero is refused without asking Redis.
        sold_out_flag_ms: u64 = 200,
        /// Unsettled entries from which batches are slowed down to the rate at which MySQL settles.
        lag_soft_entries: u64 = 40_000,
        /// Unsettled entries from which orders are refused with `BACKLOG`.
        lag_hard_entries: u64 = 1_000_000,
        /// Further unsettled entries allowed to cancels and compensations.
        lag_reserve_entries: u64 = 50_000,
        /// How long an acceptance is remembered under its Idempotency-Key.
        idempotency_accepted_ms: u64 = 24 * 3_600_000,
        /// How long a refusal is remembered under its Idempotency-Key.
        idempotency_refused_ms: u64 = 600_000,
        /// How old a final state must be before it is removed.
        marks_keep_ms: u64 = 24 * 3_600_000,
    }
    /// The subscriber, which brings the journal to MySQL.
    apply: ApplySettings {
        /// Entries in one MySQL transaction of the subscriber, 1..=1024.
        apply_entries_max: usize = 1_024,
        /// How long the subscriber lets entries gather after a batch that was large and not full,
        /// because full batches cost MySQL less per entry. A quiet hour does not wait.
        apply_gather_ms: u64 = 30,
        /// How long the subscriber waits for a message before it looks by itself.
        apply_poll_ms: u64 = 200,
        /// Settled entries that stay in the journal below the watermark.
        journal_keep_entries: u64 = 10_000,
        /// Dead letters of one reason within a minute from which the subscriber stops applying, if
        /// most entries are dead letters.
        dead_letters_per_minute_max: u32 = 100,
    }
    /// Reservations, checkouts and their payments, points, and the catalog.
    selling: SellingSettings {
        /// Live reservations and open checkouts that one user may have at once; 0 is no limit.
        /// Holds that were made under another number are counted separately until they end.
        holds_per_user_max: u32 = 20,
        /// Units of one product that one user may hold at once; 0 is no limit. A hold that counts
        /// against a sale's limit is bounded by that limit instead.
        hold_units_per_user_max: u32 = 200,
        /// The longest life that a reservation or a checkout may ask for, 30..=14400.
        hold_ttl_seconds_max: u64 = 1_800,
        /// How many times a checkout may be extended by its owner or the shop.
        checkout_extensions_max: u32 = 3,
        /// How long a checkout may live in all when it is extended.
        checkout_life_seconds_max: u64 = 3_600,
        /// Whether products that are in a sale are sold through checkouts only.
        sale_needs_checkout: bool = false,
        /// The secret of the payment provider's messages (Standard Webhooks): `whsec_` and base64.
        /// Without it no message is accepted.
        payment_webhook_secret: String = String::new(),
        /// Whether the page `/pay/{checkoutId}` plays a payment provider, for trying. The image
        /// does not have that page.
        fake_payments: bool = false,
        /// How often expired holds are looked for.
        expire_reservations_ms: u64 = 200,
        /// The part of what a buyer pays that is earned as points, in hundredths of a percent.
        points_earn_hundredths: u32 = 0,
        /// The age from which the catalog snapshot is read again without a message.
        catalog_refresh_ms: u64 = 5_000,
    }
    /// Tokens, sessions, passwords, and the limits of requests.
    people: PeopleSettings {
        /// The HS256 key of access tokens, at least 32 bytes.
        jwt_secret: String = String::new(),
        /// A second HS256 key: tokens that name it by its id are accepted too. Empty is none.
        jwt_previous_secret: String = String::new(),
        /// The address of a JWKS: the keys of the shop's own issuer, whose RS256 and ES256 tokens
        /// are accepted too.
        jwt_jwks_url: String = String::new(),
        /// A file with such a JWKS, in place of an address.
        jwt_jwks_file: String = String::new(),
        /// The `iss` of that issuer's tokens.
        jwt_issuer: String = String::new(),
        /// The `aud` of that issuer's tokens for this service.
        jwt_audience: String = String::new(),
        /// How long an access token of a login holds.
        access_token_seconds: i64 = 900,
        /// How long a refresh token holds.
        refresh_token_seconds: i64 = 14 * 86_400,
        /// How long a page's session lasts after the login.
        session_seconds: i64 = 3_600,
        /// Password hashes computed at the same time, 19 MiB each.
        password_hashes_max: usize = 2,
        /// The window in which requests are counted.
        limit_window_seconds: u64 = 10,
        /// Requests of one user in a window; 0 is no limit.
        limit_user_requests: u32 = 200,
        /// Requests from one address in a window; 0 is no limit.
        limit_address_requests: u32 = 2_000,
        /// Requests with an Idempotency-Key of one user in a window; 0 is no limit.
        limit_user_keys: u32 = 100,
        /// Requests with a key of one user in a day, as each takes memory for a day; 0 is no limit.
        limit_user_keys_daily: u32 = 20_000,
        /// The window in which attempts to log in are counted.
        limit_login_seconds: u64 = 900,
        /// Attempts to log in to one account in a window. After these each further attempt has to
        /// wait: one second, then two, up to a minute. A successful attempt clears the count. 0 is
        /// no limit.
        limit_login_failures: u32 = 10,
        /// Failed attempts to log in, and sign-ups, from one address in a window. After these each
        /// further one has to wait likewise. 0 is no limit.
        limit_address_logins: u32 = 100,
    }
    /// The listener, its connections and streams, and the log.
    http: HttpSettings {
        /// Whether browsers use TLS (of a proxy): cookies are then `Secure`, and answers carry
        /// HSTS.
        public_tls: bool = false,
        /// Proxies whose `X-Forwarded-For` is believed: addresses or networks, separated by commas.
        trusted_proxies: String = String::new(),
        /// Origins whose pages may call the interface, separated by commas, such as
        /// `https://shop.example.com`.
        cors_origins: String = String::new(),
        /// The address on which the service listens.
        http_addr: String = "127.0.0.1:8080".to_owned(),
        /// How long a request may take altogether.
        http_timeout_ms: u64 = 10_000,
        /// How long a client may take to send the head of a request, from its first byte on.
        http_header_timeout_ms: u64 = 10_000,
        /// How long a connection may be idle. This is longer than the 60 s of common proxies, so
        /// that the proxy closes the connection and not the service.
        http_idle_timeout_ms: u64 = 75_000,
        /// How long a client may take nothing of its answer.
        http_write_timeout_ms: u64 = 30_000,
        /// The largest body.
        http_body_bytes_max: usize = 64 * 1024,
        /// The largest file of stock.
        import_bytes_max: usize = 64 * 1024 * 1024,
        /// How long a file of stock may take to arrive and to be checked.
        import_timeout_ms: u64 = 300_000,
        /// Connections at the same time. Some further ones are answered health checks only.
        http_connections_max: usize = 20_000,
        /// Connections of one address at the same time, trusted proxies aside; 0 is no limit.
        http_address_connections_max: usize = 1_000,
        /// How long open requests and the last batches may take after SIGTERM.
        shutdown_timeout_ms: u64 = 8_000,
        /// Streams of levels at the same time. One more is answered `OVERLOADED`.
        event_streams_max: usize = 1_000,
        /// Streams of levels to pages at the same time, without login. Further pages show fixed
        /// levels.
        page_streams_max: usize = 2_000,
        /// Streams of one user at the same time, and to pages of one address; 0 is no limit.
        streams_each_max: usize = 100,
        /// Whether a line is logged for each request.
        access_log: bool = false,
        /// Whether `/metrics` is open to everyone. Otherwise an admin's token is required.
        metrics_open: bool = false,
        /// The systems that this one takes the place of whose clients are served as before, each
        /// under `/seeds/<name>`: `stock-flow`, `traffic`, `points`, `milly`, `toodat`.
        compat: Compat = Compat::default(),
        /// Whether the last 500 requests are kept with their times for the page `/silk/`.
        request_profile: bool = false,
        /// The log filter, such as `info` or `stock_online=debug,info`.
        log: String = "info".to_owned(),
    }
    /// Webhooks.
    webhooks: WebhooksSettings {
        /// Whether webhooks may go to internal addresses and without TLS, as on a private network.
        webhook_internal_allowed: bool = false,
        /// Seconds to wait after each failed attempt of a webhook's delivery. After the last
        /// attempt the webhook is disabled. Each wait is varied by a tenth.
        webhook_retry_seconds: String = "5,300,1800,7200,18000,36000,50400,72000,86400".to_owned(),
        /// How many days delivered batches of webhooks stay in the log.
        webhook_log_days: u32 = 7,
    }
    /// The jobs of the schedule.
    schedule: ScheduleSettings {
        /// The time zone by which days of points end, such as `Asia/Seoul`.
        time_zone: String = "Asia/Seoul".to_owned(),
        /// When the daily reports of points are written, for the whole day before: a cron
        /// expression with seconds, in that time zone.
        points_report_cron: String = "0 0 1 * * *".to_owned(),
        /// When `reconcile` runs: a cron expression with seconds.
        reconcile_cron: String = "0 */5 * * * *".to_owned(),
        /// When `verify` runs: a cron expression with seconds, at least every six hours. Each run
        /// verifies again a part of what was verified before, so that all of it is verified within
        /// a day.
        verify_cron: String = "0 47 * * * *".to_owned(),
        /// When final states are removed: a cron expression with seconds.
        forget_marks_cron: String = "30 7 * * * *".to_owned(),
        /// When ended refresh tokens and sessions are removed: a cron expression with seconds.
        forget_logins_cron: String = "0 17 * * * *".to_owned(),
        /// Whether the scheduled `reconcile` corrects what it finds.
        reconcile_apply: bool = true,
    }
}
