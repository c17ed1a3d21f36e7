//! Random combinations of faults that lose nothing under `always`, drawn by seed: the same seed draws
//! the same faults in the same order.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use stock_common::config::Durability::Always;
use stock_online::cli::output::say;

use super::checker::Allowed;
use super::proxy::Mode;
use super::world::World;
use super::{Outcome, Plan, passed};
use crate::Failure;

/// Faults of one round.
const STEPS: u32 = 8;
const MODES: [Mode; 6] = [
    Mode::CutBefore,
    Mode::CutAfter,
    Mode::HalfOpen,
    Mode::Slices,
    Mode::Latency(Duration::from_millis(300)),
    Mode::Down,
];

/// One round.
///
/// # Errors
/// When something does not hold.
pub async fn run(plan: &Plan) -> Result<Outcome, Failure> {
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut world = World::open(Always, plan.seed).await?;
    world.serve().await?;
    let buyers = world.buyers(12);
    let mut drawn = Vec::new();
    for _ in 0..STEPS {
        world.accept(&buyers, 50).await?;
        let pause = Duration::from_millis(rng.random_range(50..1_500));
        let what = rng.random_range(0..7);
        match what {
            0 => {
                // Its buyers meet a closed port from now on; the other service takes over.
                world.serve().await?;
                if world.services.len() > 3 {
                    world.kill_service().await?;
                }
            }
            1 => {
                world.servers.redis.kill().await;
                tokio::time::sleep(pause).await;
                world.servers.redis.restart().await?;
            }
            2 => {
                world.servers.mysql.kill().await;
                tokio::time::sleep(pause).await;
                world.servers.mysql.restart().await?;
            }
            3 | 4 => {
                let mode = *MODES
                    .get(rng.random_range(0..MODES.len()))
                    .ok_or("no mode")?;
                let proxy = if what == 3 {
                    &world.redis
                } else {
                    &world.mysql
                };
                proxy.set(mode);
                tokio::time::sleep(pause).await;
                proxy.set(Mode::Pass);
            }
            5 => {
                world.signal_service(Signal::STOP)?;
                tokio::time::sleep(pause * 2).await;
                world.signal_service(Signal::CONT)?;
                world.services.rotate_left(1);
            }
            _ => {
                let stopped = match rng.random_bool(0.5) {
                    true => &world.servers.redis,
                    false => &world.servers.mysql,
                };
                stopped.signal(Signal::STOP);
                tokio::time::sleep(pause * 2).await;
                stopped.signal(Signal::CONT);
            }
        }
        drawn.push(what.to_string());
    }
    say(&format!("  drawn: {}", drawn.join(" ")));
    passed(world.check(buyers, Allowed::default()).await)
}
