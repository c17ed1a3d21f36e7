//! SKUs: the shop's own numbers of its products.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest SKU, in characters.
const SKU_MAX: usize = 64;

/// A SKU: 1 to 64 visible ASCII characters without a comma. Case matters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Sku(String);

/// A text is no SKU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sku is 1 to {SKU_MAX} visible ASCII characters without a comma")]
pub struct NoSku;

impl TryFrom<String> for Sku {
    type Error = NoSku;

    fn try_from(text: String) -> Result<Self, NoSku> {
        let is_part = |byte: u8| byte.is_ascii_graphic() && byte != b',';
        let is_sku = (1..=SKU_MAX).contains(&text.len()) && text.bytes().all(is_part);
        is_sku.then_some(Self(text)).ok_or(NoSku)
    }
}

impl Sku {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Sku;

    #[test]
    fn a_sku_is_short_visible_ascii_without_a_comma() {
        for good in ["1", "LAMP-01/red", "a~!\"#", &"x".repeat(64)] {
            assert!(Sku::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a,b", "ä", "a\n", "\u{7f}", &"x".repeat(65)] {
            assert!(Sku::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
