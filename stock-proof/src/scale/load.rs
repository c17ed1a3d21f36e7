//! The load: half of the buyers buy from one shard each, the others from all shards. The figures
//! tell how both groups were served.
//!
//! A buyer waits for its answer. While a shard is away, every buyer of the second group soon waits
//! for that shard. So only the buyers of the first group show how well the other shards are served.

use std::fmt::{self, Display};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::phases::Phase;
use super::world::World;
use crate::Failure;
use crate::faults::buyers::{Buyers, Habits};
use crate::faults::history::{Asked, History, Told};

/// The longest time that the orders of a shard may be away, whatever happens.
const AWAY_MAX: Duration = Duration::from_secs(10);

/// Few orders go under row locks: they take a second among so many buyers, and would soon have all
/// buyers wait.
const HABITS: Habits = Habits {
    row_locked: 0.01,
    ..Habits::ALL
};

/// A load that goes on until it is stopped.
pub struct Load {
    groups: Vec<Buyers>,
    shards: Vec<Vec<u64>>,
    began: Instant,
}

impl Load {
    /// Starts so many buyers.
    #[must_use]
    pub fn start(world: &World, clients: usize, seed: u64) -> Self {
        let client = std::slice::from_ref(&world.client);
        let each = (clients / 2 / world.shards.len()).max(1);
        let mut groups: Vec<Buyers> = world
            .shards
            .iter()
            .zip(1..)
            .map(|(products, number)| {
                let seed = seed.wrapping_add(number << 16);
                Buyers::start(client, each, products.iter().copied(), HABITS, seed)
            })
            .collect();
        let others = clients.saturating_sub(each * groups.len()).max(1);
        let all = world.shards.iter().flatten().copied();
        groups.push(Buyers::start(client, others, all, HABITS, seed));
        Self {
            groups,
            shards: world.shards.clone(),
            began: Instant::now(),
        }
    }

    /// Stops the buyers, and computes the figures.
    ///
    /// # Errors
    /// When a buyer could not even build a request.
    pub async fn stop(self) -> Result<(History, Figures), Failure> {
        let ended = Instant::now();
        // All at once: a group that waits for an answer must not keep the others buying.
        let stopping: Vec<_> = self
            .groups
            .into_iter()
            .map(|group| tokio::spawn(group.stop()))
            .collect();
        let mut history = History::default();
        for group in stopping {
            history.append(group.await??);
        }
        let figures = Figures::of(&history, &self.shards, self.began, ended);
        Ok((history, figures))
    }
}

/// The figures of a phase.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// Orders with a 201.
    pub orders: usize,
    /// Orders with a 201, a second.
    pub orders_per_second: f64,
    /// The median time of an order with a 201, in ms.
    pub p50_ms: u128,
    /// The 99th percentile of the same, in ms.
    pub p99_ms: u128,
    /// Every other answer to an order, by code, most frequent first.
    pub refused: Vec<(String, u64)>,
    /// For each shard before the phase, the longest time without an order of its products, in ms.
    pub away_ms: Vec<u128>,
    /// A shard, and the longest time that MySQL stood still with entries of it to settle.
    pub still: (u64, Duration),
    /// The time from the end of the load until everything was settled and whole, in ms.
    pub rest_ms: u128,
    /// The note that the phase returned.
    pub note: String,
}

impl Figures {
    fn of(history: &History, shards: &[Vec<u64>], began: Instant, ended: Instant) -> Self {
        let is_accepted = |asked: &&Asked| matches!(asked.told, Told::Accepted(_));
        let accepted: Vec<&Asked> = history.orders.iter().filter(is_accepted).collect();
        let mut took: Vec<Duration> = accepted.iter().map(|asked| asked.took).collect();
        took.sort_unstable();
        let at = |hundredth: usize| took.get(took.len() * hundredth / 100);
        let ms = |hundredth| at(hundredth).map_or(0, Duration::as_millis);
        let codes = history.codes.iter().filter(|(code, _)| *code != "201");
        let mut refused: Vec<(String, u64)> = codes.map(|(c, n)| (c.clone(), *n)).collect();
        refused.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let away = |products: &Vec<u64>| {
            let is_here = |asked: &&&Asked| asked.lines.iter().any(|(id, _)| products.contains(id));
            let orders = accepted.iter().filter(is_here);
            let times = orders.map(|asked| (asked.sent + asked.took).min(ended));
            longest_gap(times.collect(), began, ended).as_millis()
        };
        Self {
            orders: accepted.len(),
            orders_per_second: accepted.len() as f64 / (ended - began).as_secs_f64(),
            p50_ms: ms(50),
            p99_ms: ms(99),
            refused,
            away_ms: shards.iter().map(away).collect(),
            still: (0, Duration::ZERO),
            rest_ms: 0,
            note: String::new(),
        }
    }

    /// A text if something took longer than it may.
    #[must_use]
    pub fn complaint(&self, phase: &Phase) -> Option<String> {
        let (shard, still) = self.still;
        if still > phase.still_max {
            return Some(format!(
                "MySQL stood still for {still:?} with shard {shard}"
            ));
        }
        let (shard, ms) = self.away()?;
        (ms > AWAY_MAX.as_millis()).then(|| format!("shard {shard} was away for {ms} ms"))
    }

    /// The shard whose orders were away for longest.
    fn away(&self) -> Option<(usize, u128)> {
        let shards = self.away_ms.iter().copied().enumerate();
        shards.max_by_key(|(_, ms)| *ms)
    }
}

fn longest_gap(mut times: Vec<Instant>, began: Instant, ended: Instant) -> Duration {
    times.push(ended);
    times.sort_unstable();
    let mut last = began;
    let gaps = times.into_iter().map(|time| {
        let gap = time - last;
        last = time;
        gap
    });
    gaps.max().unwrap_or_default()
}

impl Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused: Vec<String> = self
            .refused
            .iter()
            .map(|(code, count)| format!("{code} {count}"))
            .collect();
        let refused = match refused.is_empty() {
            true => "none".to_owned(),
            false => refused.join(", "),
        };
        let (shard, away_ms) = self.away().unwrap_or_default();
        let (still_shard, still) = self.still;
        write!(
            f,
            "{:.0} orders/s, p50 {} ms, p99 {} ms; refused: {refused}; longest without an order {away_ms} ms (shard \
             {shard}); MySQL stood still for {} ms at most (shard {still_shard}), at rest after {} ms",
            self.orders_per_second,
            self.p50_ms,
            self.p99_ms,
            still.as_millis(),
            self.rest_ms
        )?;
        if !self.note.is_empty() {
            write!(f, "; {}", self.note)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::longest_gap;

    #[test]
    fn a_gap_may_lie_at_the_edges() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        for (times, gap) in [
            (vec![], 100),
            (vec![10, 20], 80),
            (vec![90, 95], 90),
            (vec![30, 80], 50),
        ] {
            let times = times.into_iter().map(at).collect();
            assert_eq!(longest_gap(times, began, at(100)).as_millis(), gap);
        }
    }
}
