//! Users: their role, their email address, and the rules for a password.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use email_address::{EmailAddress, Options};
use serde::{Deserialize, Serialize};
use stock_common::id::UserId;

/// Characters of a password. NIST SP 800-63B asks for a length and a list of common passwords, and
/// for no other rules.
const PASSWORD_LENGTH: std::ops::RangeInclusive<usize> = 8..=128;
/// Bytes of an email address (RFC 5321 §4.5.3.1.3, less its angle brackets).
const EMAIL_BYTES_MAX: usize = 254;

/// The role of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Buys.
    User,
    /// Runs one store's till.
    Store,
    /// Writes catalog and stock.
    Admin,
}

/// A text that names no role.
#[derive(Debug, thiserror::Error)]
#[error("a role is user, store or admin")]
pub struct UnknownRole;

impl Role {
    /// Its name in tokens, tables and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Store => "store",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        [Self::User, Self::Store, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(UnknownRole)
    }
}

/// A user as MySQL has them, without their password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's id.
    pub id: UserId,
    /// Their normalised address.
    pub email: String,
    /// Their name.
    pub name: String,
    /// Their role.
    pub role: Role,
    /// The store whose till they run; exactly those of role `store` have one.
    pub store_id: Option<u64>,
    /// The least number that their tokens and sessions must carry. It rises when earlier ones are
    /// ended.
    pub tokens_from: i64,
}

/// An email address, normalised: addresses that differ only in case or in spaces around them are
/// one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Email(String);

/// A text that is no email address.
#[derive(Debug, thiserror::Error)]
#[error("an email address such as name@example.com, at most 254 bytes")]
pub struct NotAnEmail;

impl Email {
    /// Normalises an address.
    ///
    /// # Errors
    /// [`NotAnEmail`] for a text that is no address.
    pub fn new(text: &str) -> Result<Self, NotAnEmail> {
        let normal = text.trim().to_lowercase();
        let options = Options::default()
            .with_required_tld()
            .without_domain_literal()
            .without_display_text();
        let is_address = EmailAddress::parse_with_options(&normal, options).is_ok();
        if is_address && normal.len() <= EMAIL_BYTES_MAX {
            Ok(Self(normal))
        } else {
            Err(NotAnEmail)
        }
    }

    /// The address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A password as a user chose it. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Why a password cannot be chosen.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeakPassword {
    /// Too short or too long.
    #[error("a password has 8 to 128 characters")]
    Length,
    /// It is one of the most common passwords.
    #[error("this password is among the most common ones")]
    Common,
}

impl Password {
    /// Takes a new password, if it may be chosen.
    ///
    /// # Errors
    /// [`WeakPassword`] when it may not be chosen.
    pub fn choose(text: &str) -> Result<Self, WeakPassword> {
        if !PASSWORD_LENGTH.contains(&text.chars().count()) {
            return Err(WeakPassword::Length);
        }
        if common().contains(text.to_lowercase().as_str()) {
            return Err(WeakPassword::Common);
        }
        Ok(Self(text.to_owned()))
    }

    /// Takes the password that somebody claims to have, whatever it is. `None` when it is too long
    /// for anybody to have chosen it.
    #[must_use]
    pub fn claimed(text: &str) -> Option<Self> {
        (text.chars().count() <= *PASSWORD_LENGTH.end()).then(|| Self(text.to_owned()))
    }

    /// A password that nobody can have chosen. It is checked in place of one that is too long, and
    /// never matches.
    #[must_use]
    pub const fn nobodys() -> Self {
        Self(String::new())
    }

    /// Its bytes, for the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// The 3,000 most common passwords that are long enough, in lower case. Source: the frequency list
/// of zxcvbn (MIT), which was counted in published leaks.
fn common() -> &'static HashSet<&'static str> {
    static COMMON: OnceLock<HashSet<&'static str>> = OnceLock::new();
    COMMON.get_or_init(|| {
        include_str!("../data/common_passwords.txt")
            .lines()
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::{Email, Password, WeakPassword, common};

    #[test]
    fn an_address_is_one_whatever_its_case_and_spaces() {
        let one = Email::new("  User1@Example.COM ").unwrap();
        assert_eq!(one.as_str(), "user1@example.com");
        for bad in [
            "",
            "user1",
            "@example.com",
            "user1@",
            "user1@example",
            "a b@example.com",
            "user1@[127.0.0.1]",
            "User <user1@example.com>",
            "a@b@example.com",
        ] {
            assert!(Email::new(bad).is_err(), "{bad}");
        }
        let long = format!("{}@example.com", "a".repeat(260));
        assert!(Email::new(&long).is_err());
    }

    #[test]
    fn a_password_is_neither_short_nor_long_nor_common() {
        assert_eq!(common().len(), 3_000);
        assert_eq!(Password::choose("short77"), Err(WeakPassword::Length));
        assert_eq!(Password::choose("PassWord"), Err(WeakPassword::Common));
        assert_eq!(
            Password::choose(&"é".repeat(129)),
            Err(WeakPassword::Length)
        );
        assert!(Password::choose(&"é".repeat(128)).is_ok());
        assert!(Password::choose("correct horse battery").is_ok());
        assert_eq!(
            format!("{:?}", Password::choose("sesame, open").unwrap()),
            "Password(…)"
        );
    }
}
