//! Limits: how many requests a user or an address may send, over all instances.
//!
//! Each process counts requests in windows of fixed length, and adds its counts to Redis ten times
//! a second, so that an order waits for no counter. An instance reports a count once it reaches a
//! twentieth of the limit. So n instances together let through at most n twentieths too many. Login
//! attempts are few, and each one matters: [`attempts`] counts every attempt in Redis before it is
//! checked. Without Redis every instance counts alone.

pub mod attempts;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::{RedisError, pipe};
use stock_common::clock::Clock;
use stock_common::config::Config;
use stock_common::lock::lock;
use stock_redis::Ledger;

const DAY_MS: u64 = 86_400_000;
/// `Retry-After` of a request whose key is refused because Redis is nearly full.
const SCARCE_SECONDS: u64 = 30;
/// A count below limit / `UNTOLD_PART` is not sent to Redis.
const UNTOLD_PART: u32 = 20;
/// Maps over which the subjects are spread, so that cores rarely contend for a lock.
const MAPS: usize = 16;

/// A subject whose requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A user's requests.
    User(u64),
    /// An address's requests.
    Address(IpAddr),
    /// A user's requests with an Idempotency-Key: each is remembered for a day.
    Keys(u64),
    /// The same requests, counted per day.
    KeysOfDay(u64),
    /// Attempts to log in to an account, by the hash of its address.
    Login(u64),
    /// Attempts to log in to an account from a device that its owner is known to use, by the hash
    /// of both.
    Device(u64),
    /// A user's attempts to name their own password.
    Own(u64),
    /// Attempts to log in or sign up from an address.
    LoginAddress(IpAddr),
}

impl Subject {
    /// Requests from an address. An IPv6 address counts by its first 64 bits, because one client
    /// usually owns such a network.
    #[must_use]
    pub fn requests_from(address: IpAddr) -> Self {
        Self::Address(network_of(address))
    }

    /// Attempts to log in or sign up from an address.
    #[must_use]
    pub fn login_from(address: IpAddr) -> Self {
        Self::LoginAddress(network_of(address))
    }
}

/// The network that counts as one client: an IPv4 address, or the first 64 bits of an IPv6 address.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "user:{id}"),
            Self::Address(address) => write!(f, "address:{address}"),
            Self::Keys(id) => write!(f, "keys:{id}"),
            Self::KeysOfDay(id) => write!(f, "keys-of-day:{id}"),
            Self::Login(hash) => write!(f, "login:{hash:016x}"),
            Self::Device(hash) => write!(f, "device:{hash:016x}"),
            Self::Own(id) => write!(f, "own:{id}"),
            Self::LoginAddress(address) => write!(f, "login-address:{address}"),
        }
    }
}

/// A limit is exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// Requests allowed in a window.
    pub limit: u32,
    /// Length of a window, in seconds.
    pub window_seconds: u64,
    /// Seconds after which to try again.
    pub retry_after_seconds: u64,
}

/// A number of requests per window.
#[derive(Debug, Clone, Copy)]
struct Rule {
    limit: u32,
    window_ms: u64,
}

/// The counts of a subject in a window.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    window: u64,
    /// Counted by this process.
    own: u32,
    /// The part of `own` that Redis knows.
    told: u32,
    /// Counted by other instances, as Redis last said.
    elsewhere: u32,
}

/// The counters of this process.
pub struct Limits {
    maps: [Mutex<HashMap<Subject, Count>>; MAPS],
    hasher: RandomState,
    requests: Rule,
    addresses: Rule,
    keys: Rule,
    keys_of_day: Rule,
    /// Whether Redis is too full for further keys.
    is_scarce: AtomicBool,
    logins: Rule,
    login_addresses: Rule,
    clock: Clock,
}

impl Limits {
    /// Counters with the limits of the settings; 0 means no limit.
    #[must_use]
    pub fn new(config: &Config, clock: Clock) -> Self {
        let often = |limit| Rule {
            limit,
            window_ms: config.people.limit_window_seconds * 1_000,
        };
        let logins = |limit| Rule {
            limit,
            window_ms: config.people.limit_login_seconds * 1_000,
        };
        Self {
            maps: Default::default(),
            hasher: RandomState::new(),
            requests: often(config.people.limit_user_requests),
            addresses: often(config.people.limit_address_requests),
            keys: often(config.people.limit_user_keys),
            keys_of_day: Rule {
                limit: config.people.limit_user_keys_daily,
                window_ms: DAY_MS,
            },
            is_scarce: AtomicBool::new(false),
            logins: logins(config.people.limit_login_failures),
            login_addresses: logins(config.people.limit_address_logins),
            clock,
        }
    }

    const fn rule(&self, subject: Subject) -> Rule {
        match subject {
            Subject::User(_) => self.requests,
            Subject::Address(_) => self.addresses,
            Subject::Keys(_) => self.keys,
            Subject::KeysOfDay(_) => self.keys_of_day,
            Subject::Login(_) | Subject::Device(_) | Subject::Own(_) => self.logins,
            Subject::LoginAddress(_) => self.login_addresses,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.now_ms()).unwrap_or(0)
    }

    fn map(&self, subject: Subject) -> &Mutex<HashMap<Subject, Count>> {
        let hash = usize::try_from(self.hasher.hash_one(subject)).unwrap_or(0);
        // The remainder is always a valid index.
        self.maps.get(hash % MAPS).unwrap_or(&self.maps[0])
    }

    /// Counts a request here.
    ///
    /// # Errors
    /// [`Exceeded`] when the window is full; then the request is not counted.
    pub fn admit(&self, subject: Subject) -> Result<(), Exceeded> {
        let rule = self.rule(subject);
        if rule.limit == 0 {
            return Ok(());
        }
        let now = self.now_ms();
        let window = now / rule.window_ms;
        let mut map = lock(self.map(subject));
        let count = map.entry(subject).or_default();
        if count.window != window {
            *count = Count {
                window,
                ..Count::default()
            };
        }
        if count.own.saturating_add(count.elsewhere) >= rule.limit {
            return Err(rule.exceeded(now));
        }
        count.own += 1;
        Ok(())
    }

    /// Counts a user's request with an Idempotency-Key, which takes memory of Redis for a day.
    ///
    /// # Errors
    /// [`Exceeded`] when the user has sent too many, or when Redis is nearly full.
    pub fn admit_key(&self, user: u64) -> Result<(), Exceeded> {
        if self.is_scarce.load(Ordering::Relaxed) {
            return Err(Exceeded {
                limit: 0,
                window_seconds: SCARCE_SECONDS,
                retry_after_seconds: SCARCE_SECONDS,
            });
        }
        self.admit(Subject::Keys(user))?;
        self.admit(Subject::KeysOfDay(user))
    }

    /// Notes whether Redis is too full for further keys.
    pub fn note_scarce(&self, is_scarce: bool) {
        self.is_scarce.store(is_scarce, Ordering::Relaxed);
    }

    /// The counts that are due to be sent to Redis: subject, window, and requests not sent yet.
    fn untold(&self) -> Vec<(Subject, u64, u32)> {
        let now = self.now_ms();
        let mut found = Vec::new();
        for map in &self.maps {
            lock(map).retain(|&subject, count| {
                let rule = self.rule(subject);
                let more = count.own.saturating_sub(count.told);
                if more > 0 && more >= rule.limit / UNTOLD_PART {
                    found.push((subject, count.window, more));
                }
                count.window == now / rule.window_ms
            });
        }
        found
    }

    pub(crate) async fn tell(&self, ledger: &Ledger) -> Result<(), RedisError> {
        let untold = self.untold();
        let Ok(mut link) = ledger.link() else {
            return Ok(());
        };
        for part in untold.chunks(500) {
            let mut pipe = pipe();
            for &(subject, window, more) in part {
                let (key, rule) = (ledger.keys().limit(&subject, window), self.rule(subject));
                pipe.cmd("INCRBY").arg(&key).arg(more);
                pipe.cmd("PEXPIRE").arg(&key).arg(rule.window_ms).ignore();
            }
            let sums: Vec<u64> = pipe.query_async(&mut link.read).await?;
            for (&(subject, window, more), sum) in part.iter().zip(sums) {
                if let Some(count) = lock(self.map(subject)).get_mut(&subject)
                    && count.window == window
                {
                    count.told += more;
                    let elsewhere = sum.saturating_sub(count.told.into());
                    count.elsewhere = u32::try_from(elsewhere).unwrap_or(u32::MAX);
                }
            }
        }
        Ok(())
    }
}

impl Rule {
    const fn exceeded(self, now_ms: u64) -> Exceeded {
        let left_ms = self.window_ms - now_ms % self.window_ms;
        Exceeded {
            limit: self.limit,
            window_seconds: self.window_ms / 1_000,
            retry_after_seconds: left_ms.div_ceil(1_000),
        }
    }
}
