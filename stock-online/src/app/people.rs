//! The state that people need: tokens, passwords, sessions, and the limits of requests.

use std::sync::Arc;

use stock_common::clock::Clock;
use stock_common::config::Config;
use stock_common::id::UserId;
use stock_domain::user::User;
use stock_mysql::people::sessions::IdHash;

use crate::RunError;
use crate::buyers::Buyers;
use crate::kept::{Kept, Silence};
use crate::limits::Limits;
use crate::passwords::Passwords;
use crate::service_keys::ServiceKeys;
use crate::tokens::Tokens;
use crate::tokens::issuer::Issuer;

/// Maximum number of users of whom an answer is kept.
pub(super) const USERS_KEPT: u64 = 50_000;

/// The state that people need.
pub struct People {
    /// Makes and checks tokens.
    pub tokens: Tokens,
    /// Keys of the shop's back ends.
    pub service_keys: ServiceKeys,
    /// The shop's own names of its buyers.
    pub buyers: Buyers,
    /// Hashes passwords.
    pub passwords: Passwords,
    /// Counts requests.
    pub limits: Limits,
    /// Users who read pages; `None` for a deleted one.
    pub users: Kept<UserId, Option<User>>,
    /// Sessions: the data of each, and the Unix second in which it ends.
    pub sessions: Arc<Kept<IdHash, Option<(String, i64)>>>,
}

impl People {
    pub(super) fn new(
        config: &Config,
        clock: &Clock,
        silence: &Arc<Silence>,
    ) -> Result<Self, RunError> {
        let (secret, previous) = (
            &config.people.jwt_secret,
            &config.people.jwt_previous_secret,
        );
        Ok(Self {
            tokens: Tokens::new(secret, previous, Issuer::new(config)?, clock.clone())?,
            service_keys: ServiceKeys::new(clock.clone()),
            buyers: Buyers::default(),
            passwords: Passwords::new(config.people.password_hashes_max),
            limits: Limits::new(config, clock.clone()),
            users: Kept::new(USERS_KEPT, silence),
            sessions: Arc::new(Kept::new(USERS_KEPT, silence)),
        })
    }
}
