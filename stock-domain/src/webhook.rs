//! Webhooks: messages that tell other systems about stock, signed as Standard Webhooks asks.
//!
//! A message holds the postings of a batch of consecutive journal entries, so the seqs of each
//! account follow one another without a gap. The message is signed over its id, its time and its
//! bytes (<https://www.standardwebhooks.com>). A receiver may ignore an id that it has seen before.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use stock_common::clock::rfc3339;

use crate::account::AccountKind;
use crate::journal::Entry;
use crate::posting::Posted;

/// The only kind of message so far: stock has moved.
pub const STOCK_CHANGED: &str = "stock.changed";
/// Every kind of message.
pub const EVENTS: [&str; 1] = [STOCK_CHANGED];
/// Bytes of a secret's key.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const PREFIX: &str = "whsec_";

/// The key that messages are signed with, as `whsec_` and base64.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// The text does not begin with `whsec_`, or is not base64 of 24 to 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret is whsec_ and base64 of 24 to 64 bytes")]
pub struct SecretError;

impl Secret {
    /// A new random secret.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random::<[u8; 32]>().to_vec())
    }

    /// Signs a message: its id, its time in Unix seconds, its bytes.
    #[must_use]
    pub fn sign(&self, id: &str, at_seconds: i64, body: &[u8]) -> String {
        let mac = self.mac(id, at_seconds, body).map(Mac::finalize);
        let signature = mac.map(|mac| STANDARD.encode(mac.into_bytes()));
        format!("v1,{}", signature.unwrap_or_default())
    }

    /// Whether one of the signatures of a message, separated by spaces, was made with this secret.
    #[must_use]
    pub fn has_signed(&self, id: &str, at_seconds: i64, body: &[u8], signatures: &str) -> bool {
        signatures
            .split(' ')
            .filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok())
            .any(|signature| {
                self.mac(id, at_seconds, body)
                    .is_some_and(|mac| mac.verify_slice(&signature).is_ok())
            })
    }

    /// HMAC takes a key of any length, so this cannot fail.
    fn mac(&self, id: &str, at_seconds: i64, body: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        mac.update(format!("{id}.{at_seconds}.").as_bytes());
        mac.update(body);
        Some(mac)
    }

    /// The text that is stored, and shown once.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }
}

impl FromStr for Secret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let key = text.strip_prefix(PREFIX).ok_or(SecretError)?;
        let key = STANDARD.decode(key).map_err(|_not_base64| SecretError)?;
        if KEY_BYTES.contains(&key.len()) {
            Ok(Self(key))
        } else {
            Err(SecretError)
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The message of some entries; `None` when no stock moved in them.
#[must_use]
pub fn stock_changed(entries: &[Entry]) -> Option<Vec<u8>> {
    let postings: Vec<Value> = entries
        .iter()
        .flat_map(|entry| {
            entry
                .postings
                .iter()
                .filter_map(|posted| one(entry, posted))
        })
        .collect();
    let last = entries.last().filter(|_| !postings.is_empty())?;
    let body = json!({
        "type": STOCK_CHANGED,
        "timestamp": time(last),
        "data": { "postings": postings },
    });
    Some(body.to_string().into_bytes())
}

fn time(entry: &Entry) -> String {
    rfc3339(entry.position.unix_ms())
}

fn one(entry: &Entry, posted: &Posted) -> Option<Value> {
    let account = posted.account;
    let is_stock = matches!(account.kind, AccountKind::Available | AccountKind::Reserved);
    is_stock.then(|| {
        json!({
            "position": entry.position,
            "kind": account.kind.as_str(),
            "productId": account.owner,
            "locationId": account.location,
            "seq": posted.seq,
            "delta": posted.delta,
            "balanceAfter": posted.balance_after,
            "cause": entry.kind.as_str(),
            "reference": entry.reference,
            "createdAt": time(entry),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn a_message_is_signed_as_the_standards_example() {
        // The example of the Standard Webhooks specification's reference libraries.
        let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let signature = secret.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(secret.reveal(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        for text in [
            "",
            "whsec_",
            "whsec_x",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_YWJj",
        ] {
            assert!(text.parse::<Secret>().is_err(), "{text}");
        }
    }
}
