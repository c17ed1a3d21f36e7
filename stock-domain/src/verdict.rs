//! Verdicts: the answers of the script to requests.
//!
//! A refusal is a normal answer and no error: a [`Refusal`] is a value with a hand-numbered code.
//! The order of the codes is the order of the checks. It stands three times, in the header of
//! `lua/decide.lua`, in its body and here, and a test reaches each code once. A failure on the way
//! to the script is a `DecideError` of `stock-redis`.

use stock_common::id::Position;

use crate::account::Account;
use crate::posting::Posted;

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the journal.
    Accepted(Accepted),
    /// The same key was decided before. This is the answer that was given then.
    Replayed(Replay),
    /// Nothing was changed.
    Refused(Refusal),
}

/// An accepted request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The position of its entry.
    pub position: Position,
    /// The number of its entry.
    pub number: u64,
    /// The postings, with the levels after them.
    pub postings: Vec<Posted>,
    /// Whether these are all postings of the entry. For an entry with branches they are only those
    /// on its own shard.
    pub is_whole: bool,
}

/// The first answer under an Idempotency-Key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replay {
    /// It was accepted. The entry at this position has all that the answer needs.
    Accepted(Position),
    /// It was refused, for this reason.
    Refused(Refusal),
}

/// A key of a shard, accounts aside, whose loss is noticed by a request that needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LostKey {
    /// The states.
    States,
    /// The live holds.
    Deadlines,
    /// A generation of idempotency records.
    Records,
}

impl LostKey {
    /// The name in the script's answer.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::States => "states",
            Self::Deadlines => "deadlines",
            Self::Records => "keys",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::States, Self::Deadlines, Self::Records]
            .into_iter()
            .find(|key| key.as_str() == name)
    }
}

/// Whether units that are short may come back in a moment. The refusal is then not remembered under
/// a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Back {
    /// No units will come back.
    #[default]
    Nothing,
    /// Expired holds wait to be released.
    Due,
    /// Units are held for a cross-shard order that is not decided yet.
    Held,
}

impl Back {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Due => " due",
            Self::Held => " held",
        }
    }

    fn parse(word: Option<&str>) -> Self {
        match word {
            Some("due") => Self::Due,
            Some("held") => Self::Held,
            _ => Self::Nothing,
        }
    }
}

/// When a refusal is remembered under its request's Idempotency-Key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remembered {
    /// For every request.
    Always,
    /// For no request: the reason passes by, or nothing was decided.
    Never,
    /// Unless units may come back.
    UnlessBack,
    /// Unless the request is made anew and sent again.
    UnlessAnew,
    /// Unless the request is made anew with another code.
    UnlessRedraws,
}

/// The fault of a posting's account, in the order of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It does not exist.
    Unknown,
    /// It is closed for sale.
    Closed,
    /// It cannot be read, was lost, or is under quarantine.
    Broken,
    /// It would fall below the least level, which is zero for most postings.
    Insufficient {
        /// The units that may still be taken from it.
        balance: i64,
        /// Whether units may come back in a moment, and why.
        back: Back,
    },
    /// It would pass 2^53 − 1.
    Overflow,
}

impl Why {
    const fn code(self) -> u8 {
        match self {
            Self::Unknown => 60,
            Self::Closed => 61,
            Self::Broken => 62,
            Self::Insufficient { .. } => 63,
            Self::Overflow => 64,
        }
    }

    const fn remembered(self) -> Remembered {
        match self {
            Self::Unknown | Self::Closed | Self::Overflow => Remembered::Always,
            Self::Broken => Remembered::Never,
            Self::Insufficient { .. } => Remembered::UnlessBack,
        }
    }

    /// Parses the text that follows the posting and the account.
    fn parse<'t>(code: &str, mut rest: impl Iterator<Item = &'t str>) -> Option<Self> {
        Some(match code {
            "60" => Self::Unknown,
            "61" => Self::Closed,
            "62" => Self::Broken,
            "63" => Self::Insufficient {
                balance: rest.next()?.parse().ok()?,
                back: Back::parse(rest.next()),
            },
            "64" => Self::Overflow,
            _ => return None,
        })
    }
}

/// Why a request was refused, in the order of the checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Redis holds another epoch, none, or keys that are not ours.
    Fenced,
    /// A key in Redis that the request needs was lost. It is being brought back.
    Lost(LostKey),
    /// The Idempotency-Key belongs to another request.
    KeyReused,
    /// The Idempotency-Key was claimed for this request on another shard, whose number this is.
    Claimed(u64),
    /// The deadline had passed when the script ran.
    Expired,
    /// Too many entries are not settled.
    Backlog,
    /// The answer was predecided and is only remembered here.
    Predecided(String),
    /// The window has not opened.
    NotOpen,
    /// The window has closed.
    Closed,
    /// A thing is in another state than a transition expects.
    StaleState {
        /// Index of the transition, from 0.
        transition: usize,
        /// The state that was found; empty for none.
        state: String,
    },
    /// All selling is stopped.
    SellingStopped,
    /// An account's balance is not the one that the request expects.
    Changed {
        /// The balance of the account.
        balance: i64,
    },
    /// The time of the hold that the request ends is over.
    HoldExpired,
    /// The user would hold more units of the product than one may.
    HeldEnough {
        /// How many more units the user may hold.
        left: i64,
        /// Whether units may come back in a moment, and why.
        back: Back,
    },
    /// The user holds units of a product that the request takes.
    OwnHold,
    /// The account of a posting does not allow it.
    Posting {
        /// Index of the posting, from 0.
        posting: usize,
        /// Its account.
        account: Account,
        /// The fault of that account.
        why: Why,
    },
    /// A thing is in another state than the transition of the late check expects.
    Taken {
        /// Index of the transition, from 0.
        transition: usize,
        /// The state that was found; empty for none.
        state: String,
    },
}

impl Verdict {
    /// Its name in metrics; for a refusal, the name of its code.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "ACCEPTED",
            Self::Replayed(_) => "REPLAYED",
            Self::Refused(refusal) => refusal.name(),
        }
    }
}

impl Refusal {
    /// Codes and names, in the order of the checks. They are numbered by hand and never reused (11
    /// was the first release's).
    pub const CODES: [(u8, &'static str); 21] = [
        (10, "FENCED"),
        (12, "LOST"),
        (20, "KEY_REUSED"),
        (21, "CLAIMED"),
        (30, "EXPIRED"),
        (31, "BACKLOG"),
        (32, "REFUSED"),
        (40, "NOT_OPEN"),
        (41, "CLOSED"),
        (50, "STALE_STATE"),
        (51, "SELLING_STOPPED"),
        (52, "CHANGED"),
        (53, "HOLD_EXPIRED"),
        (54, "HELD_ENOUGH"),
        (55, "OWN_HOLD"),
        (60, "UNKNOWN_ACCOUNT"),
        (61, "CLOSED_ACCOUNT"),
        (62, "BROKEN"),
        (63, "INSUFFICIENT"),
        (64, "OVERFLOW"),
        (65, "TAKEN"),
    ];

    /// When it is remembered under the key of its request. This is the rule; `lua/decide.lua` has a
    /// copy, and a test compares the two.
    #[must_use]
    pub const fn remembered(&self) -> Remembered {
        match self {
            Self::Predecided(_) | Self::Changed { .. } => Remembered::Always,
            Self::Fenced
            | Self::Lost(_)
            | Self::KeyReused
            | Self::Claimed(_)
            | Self::Expired
            | Self::Backlog
            | Self::SellingStopped
            | Self::OwnHold => Remembered::Never,
            Self::HeldEnough { .. } => Remembered::UnlessBack,
            Self::Posting { why, .. } => why.remembered(),
            Self::NotOpen | Self::Closed | Self::StaleState { .. } | Self::HoldExpired => {
                Remembered::UnlessAnew
            }
            Self::Taken { .. } => Remembered::UnlessRedraws,
        }
    }

    /// Whether units are short only until others come back in a moment.
    #[must_use]
    pub fn passes_by(&self) -> bool {
        matches!(
            self,
            Self::HeldEnough { back, .. }
                | Self::Posting { why: Why::Insufficient { back, .. }, .. }
                if *back != Back::Nothing
        )
    }

    /// Whether it is remembered under the key of a request that may be made anew, or made anew
    /// with another code.
    #[must_use]
    pub fn is_remembered(&self, retried_anew: bool, retried_with_new_code: bool) -> bool {
        match self.remembered() {
            Remembered::Always => true,
            Remembered::Never => false,
            Remembered::UnlessBack => !self.passes_by(),
            Remembered::UnlessAnew => !retried_anew,
            Remembered::UnlessRedraws => !retried_with_new_code,
        }
    }

    /// The number of the code.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Fenced => 10,
            Self::Lost(_) => 12,
            Self::KeyReused => 20,
            Self::Claimed(_) => 21,
            Self::Expired => 30,
            Self::Backlog => 31,
            Self::Predecided(_) => 32,
            Self::NotOpen => 40,
            Self::Closed => 41,
            Self::StaleState { .. } => 50,
            Self::SellingStopped => 51,
            Self::Changed { .. } => 52,
            Self::HoldExpired => 53,
            Self::HeldEnough { .. } => 54,
            Self::OwnHold => 55,
            Self::Posting { why, .. } => why.code(),
            Self::Taken { .. } => 65,
        }
    }

    /// The name of the code, as metrics label it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        Self::CODES
            .iter()
            .find(|(code, _)| *code == self.code())
            .map_or("", |(_, name)| name)
    }

    /// Index of the posting that it is about, if it is about one.
    #[must_use]
    pub const fn posting(&self) -> Option<usize> {
        if let Self::Posting { posting, .. } = self {
            return Some(*posting);
        }
        None
    }

    /// Turns the refusal of a part into the refusal of the whole request. `postings` and
    /// `transitions` are the indices that the part's own have in the whole request.
    #[must_use]
    pub fn of_whole(mut self, postings: &[usize], transitions: &[usize]) -> Self {
        let at = |own: &[usize], index: usize| own.get(index).copied().unwrap_or(index);
        if let Self::StaleState { transition, .. } | Self::Taken { transition, .. } = &mut self {
            *transition = at(transitions, *transition);
        } else if let Self::Posting { posting, .. } = &mut self {
            *posting = at(postings, *posting);
        }
        self
    }

    /// The text that the script writes for it. A branch's refusal is remembered in this form under
    /// the key of the whole request.
    #[must_use]
    pub fn text(&self) -> String {
        let code = self.code();
        match self {
            Self::StaleState { transition, state } | Self::Taken { transition, state } => {
                format!("{code} {transition} {state}")
            }
            Self::Posting {
                posting,
                account,
                why: Why::Insufficient { balance, back },
            } => format!("{code} {posting} {account} {balance}{}", back.as_str()),
            Self::Posting {
                posting, account, ..
            } => format!("{code} {posting} {account}"),
            Self::Changed { balance } => format!("{code} {balance}"),
            Self::HeldEnough { left, back } => format!("{code} {left}{}", back.as_str()),
            Self::Claimed(shard) => format!("{code} {shard}"),
            Self::Lost(key) => format!("{code} {}", key.as_str()),
            Self::Predecided(answer) => format!("{code} {answer}"),
            Self::Fenced
            | Self::KeyReused
            | Self::Expired
            | Self::Backlog
            | Self::NotOpen
            | Self::Closed
            | Self::SellingStopped
            | Self::HoldExpired
            | Self::OwnHold => code.to_string(),
        }
    }

    /// Parses `code rest`, as the script writes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut parts = rest.split(' ');
        let transition = || {
            let (transition, state) = rest.split_once(' ')?;
            Some((transition.parse().ok()?, state.to_owned()))
        };
        Some(match code {
            "10" => Self::Fenced,
            "12" => Self::Lost(LostKey::parse(rest)?),
            "20" => Self::KeyReused,
            "21" => Self::Claimed(rest.parse().ok()?),
            "30" => Self::Expired,
            "31" => Self::Backlog,
            "32" => Self::Predecided(rest.to_owned()),
            "40" => Self::NotOpen,
            "41" => Self::Closed,
            "50" => {
                let (transition, state) = transition()?;
                Self::StaleState { transition, state }
            }
            "51" => Self::SellingStopped,
            "52" => Self::Changed {
                balance: rest.parse().ok()?,
            },
            "53" => Self::HoldExpired,
            "54" => Self::HeldEnough {
                left: parts.next()?.parse().ok()?,
                back: Back::parse(parts.next()),
            },
            "55" => Self::OwnHold,
            "65" => {
                let (transition, state) = transition()?;
                Self::Taken { transition, state }
            }
            _ => Self::Posting {
                posting: parts.next()?.parse().ok()?,
                account: Account::parse(parts.next()?)?,
                why: Why::parse(code, parts)?,
            },
        })
    }
}
