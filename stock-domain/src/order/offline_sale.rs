//! A sale that a till made while it was cut off: its name, and the state under which it is decided
//! once.

use serde::{Deserialize, Serialize};

use super::Order;
use crate::transition::Transition;

/// A sale that a till made while it was cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfflineSale {
    /// The till's own name for it, 1..=100 visible ASCII characters, unique in its store and
    /// device.
    pub key: String,
    /// The device that counts the key, at most 64 visible ASCII characters; empty when the till
    /// names none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device_id: String,
    /// Hash of its time and lines, 32 hexadecimal digits. It tells whether the same key means the
    /// same sale.
    pub fingerprint: String,
    /// When it was sold, in Unix ms.
    pub sold_ms: i64,
}

impl OfflineSale {
    /// The transition that decides a till's sale once, however often and by whomever it is sent.
    /// The state lies with the first product, so that a sale of one product is decided on one
    /// shard.
    pub(super) fn transition(&self, store_id: u64, order: &Order, state: &str) -> Transition {
        let next = offline_state(state, &self.fingerprint);
        Transition {
            product: order.lines.first().map(|line| line.product_id),
            ..Transition::new(
                offline_state_id(store_id, &self.device_id, &self.key),
                "",
                next,
            )
        }
    }
}

/// The state of a till's sale: its outcome and its fingerprint.
#[must_use]
pub fn offline_state(state: &str, fingerprint: &str) -> String {
    format!("{state} {fingerprint}")
}

/// The id of the state of a till's sale: `till:<store>:<key>`, or, where the till names its device,
/// `device:<store>:<length of the device>:<device>:<key>`.
///
/// Device and key are free text, so the length says where the device ends. The second form has a
/// kind of its own, because the previous version takes every `till:` for a state without a device.
#[must_use]
pub fn offline_state_id(store_id: u64, device_id: &str, key: &str) -> String {
    match device_id.len() {
        0 => format!("till:{store_id}:{key}"),
        length => format!("device:{store_id}:{length}:{device_id}:{key}"),
    }
}

/// Parses the id of a till's state into store, device and key; `None` for any other text.
#[must_use]
pub fn parse_offline_state_id(id: &str) -> Option<(u64, &str, &str)> {
    let (kind, rest) = id.split_once(':')?;
    let (store, rest) = rest.split_once(':')?;
    let store = store.parse().ok()?;
    match kind {
        "till" => Some((store, "", rest)),
        "device" => {
            let (length, rest) = rest.split_once(':')?;
            let (device, key) = rest.split_at_checked(length.parse().ok()?)?;
            Some((store, device, key.strip_prefix(':')?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{OfflineSale, offline_state_id, parse_offline_state_id};

    #[test]
    fn devices_and_keys_that_join_to_the_same_text_have_marks_of_their_own() {
        let mut ids = std::collections::HashSet::new();
        for (device, key) in [("", "a:b:c"), ("a", "b:c"), ("a:b", "c"), ("a:3:b", "c")] {
            let id = offline_state_id(7, device, key);
            assert_eq!(parse_offline_state_id(&id), Some((7, device, key)), "{id}");
            assert!(ids.insert(id));
        }
        assert_eq!(offline_state_id(7, "", "17"), "till:7:17");
        for id in [
            "device:7:9:a:b",
            "device:7:1:ab",
            "order:7:8",
            "till:x:y",
            "",
        ] {
            assert_eq!(parse_offline_state_id(id), None, "{id}");
        }
    }

    #[test]
    fn a_sale_without_a_device_has_the_bytes_that_it_always_had() {
        let text = r#"{"key":"17","fingerprint":"ab","sold_ms":5}"#;
        let sale: OfflineSale = serde_json::from_str(text).unwrap();
        assert_eq!(sale.device_id, "");
        assert_eq!(serde_json::to_string(&sale).unwrap(), text);
    }
}
