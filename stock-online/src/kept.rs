//! Answers of MySQL that pages and product reads keep for a moment, so that a silent MySQL does not
//! silence them.
//!
//! An answer younger than a second is used as it is. An older one is read again. When MySQL does
//! not answer within 50 ms, the kept answer is used once more, and for the next second no reader
//! waits at all. Only an answer that was never read makes its reader wait.

use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use moka::future::Cache;
use stock_common::lock::lock;

/// Age from which an answer is read again.
const FRESH: Duration = Duration::from_secs(1);
/// How long a reader waits for a new answer while an old one is kept.
const PATIENCE: Duration = Duration::from_millis(50);
/// After MySQL was silent, how long kept answers are used without asking it.
const SILENT: Duration = Duration::from_secs(1);
/// How long an answer is kept after it was read.
const KEPT: Duration = Duration::from_secs(600);

/// Whether MySQL was silent a moment ago; shared by all kept answers.
#[derive(Debug, Default)]
pub struct Silence {
    until: Mutex<Option<Instant>>,
}

impl Silence {
    /// Whether MySQL did not answer in time within the last second.
    #[must_use]
    pub fn is_now(&self) -> bool {
        let until = lock(&self.until);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Notes that MySQL did not answer in time.
    pub fn note(&self) {
        let mut until = lock(&self.until);
        *until = Some(Instant::now() + SILENT);
    }
}

/// Kept answers by key.
pub struct Kept<K, V> {
    answers: Cache<K, (V, Instant)>,
    silence: Arc<Silence>,
}

impl<K, V> std::fmt::Debug for Kept<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl<K, V> Kept<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Keeps at most `capacity` answers.
    #[must_use]
    pub fn new(capacity: u64, silence: &Arc<Silence>) -> Self {
        let answers = Cache::builder()
            .max_capacity(capacity)
            .time_to_live(KEPT)
            .build();
        Self {
            answers,
            silence: Arc::clone(silence),
        }
    }

    /// The kept answer if it is young, else the answer of `read`, else the kept answer again.
    ///
    /// # Errors
    /// The error of `read`, when no answer is kept.
    pub async fn get<E>(&self, key: K, read: impl Future<Output = Result<V, E>>) -> Result<V, E> {
        let kept = self.answers.get(&key).await;
        let answer = match kept {
            Some((answer, at)) => {
                if at.elapsed() < FRESH || self.silence.is_now() {
                    return Ok(answer);
                }
                let Ok(Ok(newer)) = tokio::time::timeout(PATIENCE, read).await else {
                    self.silence.note();
                    return Ok(answer);
                };
                newer
            }
            None => read.await?,
        };
        self.answers
            .insert(key, (answer.clone(), Instant::now()))
            .await;
        Ok(answer)
    }

    /// Forgets an answer that is not true any more.
    pub async fn forget(&self, key: &K) {
        self.answers.invalidate(key).await;
    }

    /// Forgets all answers.
    pub fn forget_all(&self) {
        self.answers.invalidate_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::{FRESH, Kept, Silence};

    async fn ask(kept: &Kept<u8, u8>, answer: Option<u8>) -> Result<u8, &'static str> {
        kept.get(1, async { answer.ok_or("no answer") }).await
    }

    #[tokio::test]
    async fn an_old_answer_is_used_when_there_is_no_newer_one() {
        let silence = Arc::new(Silence::default());
        let kept = Kept::new(10, &silence);
        assert_eq!(ask(&kept, None).await, Err("no answer"));
        assert_eq!(ask(&kept, Some(1)).await, Ok(1));
        assert_eq!(ask(&kept, Some(2)).await, Ok(1), "young");
        let old = Instant::now().checked_sub(2 * FRESH).unwrap();
        kept.answers.insert(1, (1, old)).await;
        assert_eq!(ask(&kept, None).await, Ok(1), "old, and no newer one");
        assert!(silence.is_now());
        assert_eq!(ask(&kept, Some(3)).await, Ok(1), "nobody waits for MySQL");
        *silence.until.lock().unwrap() = None;
        let never = kept.get(1, std::future::pending::<Result<u8, ()>>());
        let limit = Duration::from_secs(5);
        let found = tokio::time::timeout(limit, never).await;
        assert_eq!(found, Ok(Ok(1)), "an old answer does not wait for ever");
        *silence.until.lock().unwrap() = None;
        assert_eq!(ask(&kept, Some(4)).await, Ok(4));
        kept.forget(&1).await;
        assert_eq!(ask(&kept, None).await, Err("no answer"));
        assert_eq!(ask(&kept, Some(5)).await, Ok(5));
        kept.forget_all();
        assert_eq!(ask(&kept, None).await, Err("no answer"));
    }
}
