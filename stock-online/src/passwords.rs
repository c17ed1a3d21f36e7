//! Password hashes: argon2id with 19 MiB, t = 2, p = 1 (OWASP), off the async threads, few at a time.

mod queue;

use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use stock_domain::user::Password;

use self::queue::Queue;
pub use self::queue::{Ticket, Urgency};

/// How long a hash may wait for its ticket.
const PATIENCE: Duration = Duration::from_secs(3);
/// What nobody's password has, with the cost of everybody's.
const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdC4uLg$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Why there is no hash.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many wait: come back later.
    #[error("too many passwords are being checked")]
    Busy,
    /// A fault of ours, such as a stored hash that is none.
    #[error("{0}")]
    Failed(String),
}

/// Computes hashes.
///
/// Each takes 19 MiB and some 20 ms of a core, so only a few run at a time: a flood of
/// logins fills neither the memory nor the cores that take orders. Those who wait are served by turns of
/// their networks, so that a flood keeps out nobody else.
#[derive(Debug)]
pub struct Passwords {
    queue: Queue,
}

impl Passwords {
    /// At most so many at the same time.
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

    /// Whether a password is the one of a hash. Without a hash it is not, and takes as long to say so.
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
        // What is checked for an unknown address costs what everybody's costs.
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
