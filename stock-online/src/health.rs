//! Health: the last seen state of MySQL, so that `/readyz` answers at once, whatever MySQL does
//! now.
//!
//! [`crate::tasks::health`] asks MySQL whether it answers, and for the settings on which a promise
//! depends. The ledger reads the settings of Redis by itself.

use std::sync::Mutex;

use stock_common::lock::lock;
use stock_domain::server_settings::Setting;
use stock_mysql::migrate::Schema;

/// MySQL as last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Database {
    /// Whether it answers.
    pub is_up: bool,
    /// Its schema, kept while MySQL does not answer; `None` until its first answer.
    pub schema: Option<Schema>,
}

impl Database {
    /// Whether it has answered once and does not answer now.
    #[must_use]
    pub const fn is_away(self) -> bool {
        !self.is_up && self.schema.is_some()
    }
}

#[derive(Default)]
struct Seen {
    database: Database,
    settings: Vec<Setting>,
}

/// The last seen state of the servers.
#[derive(Default)]
pub struct Health {
    seen: Mutex<Seen>,
}

/// A setting of one of the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSetting {
    /// `redis` or `mysql`.
    pub server: &'static str,
    /// The setting.
    pub setting: Setting,
}

impl Health {
    /// MySQL as last seen.
    #[must_use]
    pub fn database(&self) -> Database {
        let seen = lock(&self.seen);
        seen.database
    }

    pub(crate) fn note(&self, answer: Option<Schema>) {
        let mut seen = lock(&self.seen);
        seen.database = Database {
            is_up: answer.is_some(),
            schema: answer.or(seen.database.schema),
        };
    }

    pub(crate) fn note_settings(&self, settings: Vec<Setting>) {
        let mut seen = lock(&self.seen);
        let known = std::mem::replace(&mut seen.settings, settings);
        for setting in &seen.settings {
            if setting.is_wrong() && !known.contains(setting) {
                let Setting {
                    name,
                    found,
                    advice,
                    ..
                } = setting;
                tracing::warn!(name, found, advice, "mysql is weak");
            }
        }
    }

    pub(crate) fn database_settings(&self) -> Vec<Setting> {
        let seen = lock(&self.seen);
        seen.settings.clone()
    }
}
