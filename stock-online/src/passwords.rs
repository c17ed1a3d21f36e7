//! Password hashes: argon2id with 19 MiB, t = 2, p = 1 (OWASP), computed off the async threads, a
//! few at a time.

mod queue;

use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use stock_domain::user::Password;

use self::queue::Queue;
pub use self::queue::{Ticket, Urgency};

/// How long a hash may wait for its slot.
const PATIENCE: Duration = Duration::from_secs(3);
/// A hash that no password matches, with the cost of a real one.
const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdC4uLg$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Why there is no hash.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many wait: come back later.
    #[error("too many passwords are being checked")]
    Busy,
    /// A fault of ours, such as a stored hash that cannot be parsed.
    #[error("{0}")]
    Failed(String),
}

/// Computes hashes.
///
/// Each hash takes 19 MiB and about 20 ms of a core. Only a few run at a time, so that a flood of
/// logins fills neither the memory nor the cores that take orders. Waiting requests are served
/// round-robin by network, so that a flood from one network keeps out no other.
#[derive(Debug)]
pub struct Passwords {
    queue: Queue,
}

impl Passwords {
    /// Computes at most `hashes_max` hashes at a time.
    #[must_use]
    pub fn new(hashes_max: usize) -> Self {
        Self {
            queue: Queue::new(hashes_max),
        }
    }

    /// Hashes a new password with a salt of its own.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn hash(&self, password: Password, ticket: Ticket) -> Result<String, PasswordError> {
        self.off_thread(ticket, move || {
            let hash = Argon2::default().hash_password(password.as_bytes());
            hash.map(|hash: PasswordHash| hash.to_string())
                .map_err(|error| PasswordError::Failed(error.to_string()))
        })
        .await
    }

    /// Whether a password matches a hash. Without a hash the answer is `false` and takes as long,
    /// so that the time does not reveal whether an account exists.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub async fn verify(
        &self,
        password: Password,
        hash: Option<String>,
        ticket: Ticket,
    ) -> Result<bool, PasswordError> {
        self.off_thread(ticket, move || {
            let text = hash.as_deref().unwrap_or(NOBODYS);
            let parsed = PasswordHash::new(text)
                .map_err(|error| PasswordError::Failed(error.to_string()))?;
            let matches = Argon2::default().verify_password(password.as_bytes(), &parsed);
            Ok(hash.is_some() && matches.is_ok())
        })
        .await
    }

    async fn off_thread<T: Send + 'static>(
        &self,
        ticket: Ticket,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let slot = self.queue.wait(ticket, PATIENCE).await;
        let slot = slot.ok_or(PasswordError::Busy)?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(slot);
            done
        });
        done.await
            .unwrap_or_else(|error| Err(PasswordError::Failed(error.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use stock_domain::user::Password;

    use super::{NOBODYS, Passwords, Ticket};

    #[tokio::test]
    async fn a_password_is_the_one_of_its_hash_and_of_no_other() {
        let passwords = Passwords::new(1);
        let sesame = || Password::choose("open sesame").unwrap();
        let hash = passwords.hash(sesame(), Ticket::OWN).await.unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        assert!(
            passwords
                .verify(sesame(), Some(hash.clone()), Ticket::OWN)
                .await
                .unwrap()
        );
        let other = Password::choose("close sesame").unwrap();
        assert!(
            !passwords
                .verify(other, Some(hash.clone()), Ticket::OWN)
                .await
                .unwrap()
        );
        assert!(!passwords.verify(sesame(), None, Ticket::OWN).await.unwrap());
        // The hash that is checked for an unknown address costs as much as a real one.
        let cost = |hash: &str| hash.rsplitn(3, '$').last().map(str::to_owned);
        assert_eq!(cost(NOBODYS), cost(&hash));
        assert!(
            !passwords
                .verify(sesame(), Some(NOBODYS.to_owned()), Ticket::OWN)
                .await
                .unwrap()
        );
        assert!(
            passwords
                .verify(sesame(), Some("no hash".to_owned()), Ticket::OWN)
                .await
                .is_err()
        );
    }
}
