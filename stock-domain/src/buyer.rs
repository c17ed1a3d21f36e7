//! Buyers: people whom only the shop knows, by names of its own.
//!
//! A buyer owns limits, holds, coupons and points as a user does, under a number that follows from
//! the name. So every instance knows the number without asking anybody. The first sight of a buyer
//! is an entry, from which the name can be found again.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use stock_common::id::UserId;

use crate::journal::{Draft, DraftError, Kind};
use crate::request::Request;

/// The longest name, in characters.
pub const NAME_MAX: usize = 64;

/// A buyer's name: 1 to 64 visible characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Buyer(String);

/// A text is no name of a buyer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a buyer is 1 to {NAME_MAX} visible characters")]
pub struct NoName;

impl TryFrom<String> for Buyer {
    type Error = NoName;

    fn try_from(name: String) -> Result<Self, NoName> {
        let is_visible = |of: char| !of.is_control() && !of.is_whitespace();
        let is_name =
            (1..=NAME_MAX).contains(&name.chars().count()) && name.chars().all(is_visible);
        is_name.then_some(Self(name)).ok_or(NoName)
    }
}

/// A buyer's number, and a second hash of the name that tells two names of one number apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    /// The number, from 2^52 on, and exact in every JSON reader.
    pub user_id: UserId,
    /// The second hash.
    pub print: u64,
}

impl Buyer {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number of the buyer. `taken` counts how many of the numbers before belong to others.
    #[must_use]
    pub fn number(&self, taken: u8) -> Number {
        let mut hasher = Sha256::new();
        hasher.update(self.0.as_bytes());
        if taken > 0 {
            hasher.update([0, taken]);
        }
        let digest = hasher.finalize();
        let part = |of: Option<&[u8; 8]>| u64::from_be_bytes(of.copied().unwrap_or_default());
        Number {
            user_id: UserId::of_buyer(part(digest.first_chunk())),
            print: part(digest.last_chunk()),
        }
    }
}

/// The body of `buyer_seen`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuyerSeen {
    /// The buyer's number.
    pub user_id: UserId,
    /// The name.
    pub name: Buyer,
}

/// Notes the first sight of a buyer.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn see(name: Buyer, user_id: UserId) -> Result<Request, DraftError> {
    let draft = Draft::new(Kind::BuyerSeen, user_id, &BuyerSeen { user_id, name })?;
    Ok(Request::new(draft))
}

#[cfg(test)]
mod tests {
    use super::Buyer;

    #[test]
    fn a_name_has_visible_characters_and_one_number() {
        for bad in ["", "a b", "a\n", "\u{7f}", &"x".repeat(65)] {
            assert!(Buyer::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
        let name = Buyer::try_from("구매자-77".to_owned()).unwrap();
        let number = name.number(0).user_id.0;
        assert!((1 << 52..1 << 53).contains(&number));
        // The values are frozen: another function would give every buyer another number.
        let known = Buyer::try_from("shopuser-77".to_owned()).unwrap();
        assert_eq!(known.number(0).user_id.0, 6_095_138_050_352_656);
        assert_ne!(known.number(0).user_id, known.number(1).user_id);
    }
}
