//! Every key in Redis. No other file spells a key.
//!
//! All keys of a shard share a hash tag, so that one script may touch them on a cluster. `v1` in
//! the prefix is the version of the formats below. A change of a format changes it.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `…:epoch` | hash | epoch, ms, low (last position), number, settled, selling; `accepted`, `refused` (numbers of the younger generations of records), `accepted_from`, `refused_from` (ms at which they began) |
//! | `…:journal` | stream | frames of up to 100 entries |
//! | `…:states` | book | state id → `state@ms` |
//! | `…:deadlines` | zset | `ms-low text` of each live hold and held branch → ms at which it expires; and `.` |
//! | `…:held_units` | hash | `product:user` → units that the user holds of the product now; `branches` → number of held branches; and `.`; derived from `…:deadlines` |
//! | `…:a:<kind>:<owner>:<location>` | string | `balance seq flag` of an account that must be there |
//! | `…:b:<kind>`, `…:b:ALLOWANCE:<sale>` | book | `owner:location`, or user → `balance seq`, or `balance seq flag`, of accounts that are opened at their first touch |
//! | `…:k:accepted:<0 or 1>` | book | key hash → print `A` ms-low, or print `C` ms ` ` shard |
//! | `…:k:refused:<0 or 1>` | book | key hash → print `R` ms ` ` code … |
//! | `<prefix>:limit:{0}:<subject>:<window>` | string | requests counted in a window; belongs to no shard |
//! | `<prefix>:wrote:{0}:<user>` | string | a user has written just now; belongs to no shard |
//! | `…:levels@<database>` | channel | new levels, and a wake-up for the subscriber |
//! | `…:catalog@<database>` | channel | products have changed; `selling` and `beats` are channels likewise |
//!
//! A book is a hash with a sentinel: its field `.` holds the epoch, or the number of a generation
//! of idempotency records. The sentinel is written when the book is begun, so a hash without it was
//! lost. No key of a shard has a time to live, because none may vanish by itself. `stock-engine`
//! (`heal`) brings back what is lost.

use std::fmt::Display;
use std::sync::Arc;

use crc::{CRC_16_XMODEM, Crc};
use stock_common::config::Config;
use stock_common::id::UserId;
use stock_domain::account::{Account, AccountKind, Book};

/// The fields of the epoch's hash.
pub const HEAD_FIELDS: [&str; 10] = [
    "epoch",
    "ms",
    "low",
    "number",
    "settled",
    "selling",
    "accepted",
    "accepted_from",
    "refused",
    "refused_from",
];

/// The kinds of keys of a shard: the rows of the table above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The epoch's hash.
    Head,
    /// The journal.
    Journal,
    /// The states.
    States,
    /// The live holds.
    Deadlines,
    /// The units that each user holds.
    HeldUnits,
    /// An account with a key of its own.
    Account,
    /// A book of accounts.
    Book,
    /// A generation of idempotency records.
    Records,
}

impl Kind {
    /// Every kind of key of a shard. Other keys, and channels, hold nothing of the ledger.
    pub const ALL: [Self; 8] = [
        Self::Head,
        Self::Journal,
        Self::States,
        Self::Deadlines,
        Self::HeldUnits,
        Self::Account,
        Self::Book,
        Self::Records,
    ];
}

/// The meaning of a key's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// An account with a key of its own.
    Account(Account),
    /// A book of accounts, by its label.
    Book(String),
    /// Any other key.
    Other(Kind),
}

impl Shape {
    /// The kind of key.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Account(_) => Kind::Account,
            Self::Book(_) => Kind::Book,
            Self::Other(kind) => *kind,
        }
    }
}

/// The field of a book, and the member of `deadlines`, whose presence says that the key was not
/// lost.
pub const SENTINEL: &str = ".";
/// The score of the sentinel in `deadlines`: a time that never comes.
pub const SENTINEL_SCORE: u64 = (1 << 53) - 1;

/// The address of an account's level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The key.
    pub key: String,
    /// The field, where the key is a book.
    pub field: Option<String>,
}

/// Which idempotency records a generation holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Records {
    /// Acceptances, and claims for other shards.
    Accepted,
    /// Refusals.
    Refused,
}

impl Records {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Accepted, Self::Refused];

    /// The name in keys. The field of the epoch's hash with the number of the younger generation
    /// has the same name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
        }
    }

    /// The field of the epoch's hash with the ms at which the younger generation began.
    #[must_use]
    pub const fn began(self) -> &'static str {
        match self {
            Self::Accepted => "accepted_from",
            Self::Refused => "refused_from",
        }
    }
}

/// The cluster slot of a hash tag: CRC-16/XMODEM, modulo 16,384.
fn cluster_slot(tag: &str) -> u16 {
    const XMODEM: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);
    XMODEM.checksum(tag.as_bytes()) % 16_384
}

/// The hash tag of a shard, chosen so that shards spread evenly over a cluster's slots, however
/// many shards there are.
///
/// Each shard has one of 64 equal ranges of slots to itself, and the range of the next shard is the
/// farthest from those before. The first shard's tag is `0`. The others have the form `7-113`,
/// where the second number is the first that leads into the range.
fn hash_tag(shard: u64) -> String {
    const SLOTS_EACH: u16 = 16_384 / 64;
    let range = |tag: &str| cluster_slot(tag) / SLOTS_EACH;
    // The six bits of the shard's number, reversed, give the farthest range.
    let farthest = u16::try_from(shard.reverse_bits() >> 58).unwrap_or_default();
    let wanted = (range("0") + farthest) % 64;
    if shard == 0 {
        return "0".to_owned();
    }
    let mut number = 0;
    loop {
        let tag = format!("{shard}-{number}");
        if range(&tag) == wanted {
            return tag;
        }
        number += 1;
    }
}

/// The keys of one shard.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: Arc<str>,
    base: Arc<str>,
    shard: u64,
    /// The number of the database that holds the keys. Channels belong to no database, so their
    /// names carry the number.
    database: u32,
}

impl Keys {
    /// The keys of `shard` below the configured prefix, such as `sf:v1`.
    #[must_use]
    pub fn new(config: &Config, shard: u64) -> Self {
        Self::tagged(config, shard, &hash_tag(shard))
    }

    /// The names that the first release gave to a shard's keys.
    #[must_use]
    pub fn of_first_release(config: &Config, shard: u64) -> Self {
        Self::tagged(config, shard, &shard.to_string())
    }

    fn tagged(config: &Config, shard: u64, tag: &str) -> Self {
        let prefix = &config.redis.redis_prefix;
        Self {
            prefix: prefix.as_str().into(),
            base: format!("{prefix}:{{{tag}}}").into(),
            shard,
            database: config.redis_database(),
        }
    }

    /// The shard, 0..=63.
    #[must_use]
    pub const fn shard(&self) -> u64 {
        self.shard
    }

    /// The hash with the epoch, the last position and the selling switch.
    #[must_use]
    pub fn epoch(&self) -> String {
        format!("{}:epoch", self.base)
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> String {
        format!("{}:journal", self.base)
    }

    /// The hash of states.
    #[must_use]
    pub fn states(&self) -> String {
        format!("{}:states", self.base)
    }

    /// The live holds by the time at which they expire.
    #[must_use]
    pub fn deadlines(&self) -> String {
        format!("{}:deadlines", self.base)
    }

    /// The units of each product that each user holds.
    #[must_use]
    pub fn held_units(&self) -> String {
        format!("{}:held_units", self.base)
    }

    /// The key of an account that has one of its own.
    #[must_use]
    pub fn account(&self, account: Account) -> String {
        format!("{}:a:{account}", self.base)
    }

    /// A book of accounts.
    #[must_use]
    pub fn book(&self, book: Book) -> String {
        format!("{}:b:{book}", self.base)
    }

    /// The address of an account's level.
    #[must_use]
    pub fn address(&self, account: Account) -> Address {
        match account.book() {
            None => Address {
                key: self.account(account),
                field: None,
            },
            Some(book) => Address {
                key: self.book(book),
                field: Some(book.field(account)),
            },
        }
    }

    /// A generation of idempotency records. Two generations that follow each other have two keys.
    #[must_use]
    pub fn records(&self, records: Records, generation: u64) -> String {
        format!("{}:k:{}:{}", self.base, records.as_str(), generation % 2)
    }

    /// The number of requests of a subject in a window. No script touches the key. It lies with the
    /// first shard, so that one connection reaches all such keys.
    #[must_use]
    pub fn limit(&self, subject: &impl Display, window: u64) -> String {
        format!("{}:limit:{{0}}:{subject}:{window}", self.prefix)
    }

    /// The note that a user has written just now. No script touches the key. It lies with the first
    /// shard.
    #[must_use]
    pub fn wrote(&self, user: UserId) -> String {
        format!("{}:wrote:{{0}}:{user}", self.prefix)
    }

    fn channel(&self, name: &str) -> String {
        format!("{}:{name}@{}", self.base, self.database)
    }

    /// The channel of new levels.
    #[must_use]
    pub fn levels(&self) -> String {
        self.channel("levels")
    }

    /// The channel that says that products have changed.
    #[must_use]
    pub fn catalog(&self) -> String {
        self.channel("catalog")
    }

    /// The channel that says whether selling is open.
    #[must_use]
    pub fn selling(&self) -> String {
        self.channel("selling")
    }

    /// The channel on which instances hear that their subscriptions are alive.
    #[must_use]
    pub fn beats(&self) -> String {
        self.channel("beats")
    }

    /// The shape of a key of this shard; `None` when the shard has no such key.
    #[must_use]
    pub fn shape(&self, key: &str) -> Option<Shape> {
        let rest = key.strip_prefix(&*self.base)?.strip_prefix(':')?;
        let (first, behind) = rest.split_once(':').unwrap_or((rest, ""));
        let alone = [
            ("epoch", Kind::Head),
            ("journal", Kind::Journal),
            ("states", Kind::States),
            ("deadlines", Kind::Deadlines),
            ("held_units", Kind::HeldUnits),
        ];
        let other = alone.into_iter().find(|(name, _)| *name == rest);
        match first {
            "a" => {
                let account = Account::parse(behind)?;
                account.book().is_none().then_some(Shape::Account(account))
            }
            "b" => {
                let (kind, sale) = behind.split_once(':').unwrap_or((behind, "0"));
                let kind = AccountKind::parse(kind)?;
                let is_of_sale = kind == AccountKind::Allowance && sale.parse::<u64>().is_ok();
                let of_every = Book::OF_EVERY_SHARD
                    .iter()
                    .any(|book| book.to_string() == behind);
                (is_of_sale || of_every).then(|| Shape::Book(behind.to_owned()))
            }
            "k" => {
                let books = Records::ALL.into_iter().flat_map(|of| [(of, 0), (of, 1)]);
                let mut own = books.map(|(of, generation)| self.records(of, generation));
                own.any(|own| own == key)
                    .then_some(Shape::Other(Kind::Records))
            }
            _ => other.map(|(_, kind)| Shape::Other(kind)),
        }
    }

    /// A `SCAN` pattern for every key of the shard, for `recover`.
    #[must_use]
    pub fn everything(&self) -> String {
        let escaped: String = self
            .base
            .chars()
            .flat_map(|c| "*?[]\\".contains(c).then_some('\\').into_iter().chain([c]))
            .collect();
        format!("{escaped}:*")
    }
}

#[cfg(test)]
mod tests {
    use super::{cluster_slot, hash_tag};

    #[test]
    fn a_slot_is_what_the_servers_say() {
        assert_eq!(cluster_slot("123456789"), 12_739);
        assert_eq!(cluster_slot("0"), 13_907);
    }

    #[test]
    fn shards_are_spread_evenly_over_the_masters_of_a_cluster() {
        for shards in [16, 32, 64] {
            for masters in 3..=16_u64 {
                let mut counts = vec![0_u64; usize::try_from(masters).unwrap()];
                for shard in 0..shards {
                    let slot = u64::from(cluster_slot(&hash_tag(shard)));
                    counts[usize::try_from(slot * masters / 16_384).unwrap()] += 1;
                }
                let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
                assert!(
                    most - least <= 2 && (*least > 0 || 2 * masters > shards),
                    "{shards} on {masters}: {counts:?}"
                );
            }
        }
        let tags: std::collections::BTreeSet<String> = (0..64).map(hash_tag).collect();
        assert_eq!(tags.len(), 64);
    }
}
