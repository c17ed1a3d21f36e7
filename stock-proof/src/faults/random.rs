//! Random pairs of faults that overlap and lose nothing under `always`. The seed decides which
//! pairs are drawn, and in which order.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stock_common::config::Durability::Always;
use stock_online::cli::output::say;

use super::checker::Allowed;
use super::singles::Single;
use super::world::World;
use super::{Outcome, Plan, passed};
use crate::Failure;

/// Pairs of one round.
const PAIRS: u32 = 3;

/// Runs one round.
///
/// # Errors
/// When something does not hold.
pub async fn run(plan: &Plan) -> Result<Outcome, Failure> {
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut world = World::open(Always, plan.seed).await?;
    world.serve().await?;
    let buyers = world.buyers(12);
    let mut longest = Duration::ZERO;
    for _ in 0..PAIRS {
        world.accept(&buyers, 50).await?;
        let (one, other) = draw(&mut rng)?;
        say(&format!("  {one:?} and {other:?}"));
        overlap(&mut world, one, other, &mut rng).await?;
        let over = Instant::now();
        world.accept(&buyers, 50).await?;
        longest = longest.max(over.elapsed());
    }
    passed(world.check(buyers, Allowed::default()).await)?;
    Ok(Outcome::PassedWith(format!(
        "50 orders at most {longest:.1?} after a pair was over"
    )))
}

/// Draws two faults that can happen at once.
///
/// # Errors
/// Never.
pub fn draw(rng: &mut StdRng) -> Result<(Single, Single), Failure> {
    loop {
        let pair = (Single::draw(rng)?, Single::draw(rng)?);
        if pair.0.goes_with(pair.1) {
            return Ok(pair);
        }
    }
}

/// Begins the second fault while the first lasts; either of them ends first.
///
/// # Errors
/// When one cannot begin or end.
pub async fn overlap(
    world: &mut World,
    one: Single,
    other: Single,
    rng: &mut StdRng,
) -> Result<(), Failure> {
    let mut pause = async || {
        tokio::time::sleep(Duration::from_millis(rng.random_range(50..1_500))).await;
    };
    let first = one.begin(world).await?;
    pause().await;
    let second = other.begin(world).await?;
    pause().await;
    pause().await;
    if rng.random_bool(0.5) {
        one.end(first, world).await?;
        tokio::time::sleep(Duration::from_millis(rng.random_range(50..1_500))).await;
        other.end(second, world).await
    } else {
        other.end(second, world).await?;
        tokio::time::sleep(Duration::from_millis(rng.random_range(50..1_500))).await;
        one.end(first, world).await
    }
}
