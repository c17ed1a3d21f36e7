//! Servers that do not answer: stopped processes, and links that were idle.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redis::cmd;
use rustix::process::Signal;
use serde_json::json;
use sqlx::Executor;
use stock_client::{Call, Client};
use stock_common::config::Durability::Always;

use super::alarms::{MYSQL_DOWN, REDIS_DOWN, others_are_served};
use super::buyers::Habits;
use super::checker::Allowed;
use super::history::Told;
use super::world::World;
use super::{Outcome, Plan, passed};
use crate::Failure;
use crate::shop::until;

/// Everything must be settled within this time after the server answers again.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);
/// `/readyz` and the reads must be answered within the first time, half of the times, and always
/// within the second. It is only half because builds and other servers share the cores here.
const LOOK_WITHIN: Duration = Duration::from_millis(100);
const LOOK_MAX: Duration = Duration::from_secs(1);
/// How often each path is asked for.
const EVERY: Duration = Duration::from_millis(200);
/// Reads that need no silent server.
const READS: [&str; 4] = [
    "/api/redis/products/1",
    "/api/products/1",
    "/api/products",
    "/",
];

/// The result of every look at a path, by path.
type Looks = BTreeMap<&'static str, Vec<(Duration, u16)>>;

/// F23: MySQL does not answer for a while, then Redis.
pub async fn f23_silent_servers_silence_nothing_else(plan: &Plan) -> Result<Outcome, Failure> {
    let mysql = silent_mysql(plan).await?;
    let redis = silent_redis(plan).await?;
    Ok(Outcome::PassedWith(format!(
        "MySQL: {mysql}; Redis: {redis}"
    )))
}

/// Asks for `/readyz` and the reads again and again, each by its own task, for so long.
async fn look(client: &Client, how_long: Duration) -> Looks {
    let mut tasks = Vec::new();
    for path in READS.into_iter().chain(["/readyz"]) {
        let client = client.clone();
        tasks.push(tokio::spawn(async move {
            let (began, mut looks) = (Instant::now(), Vec::new());
            while began.elapsed() < how_long {
                let asked = Instant::now();
                let status = match client.get(path).try_send().await {
                    Ok(answer) => answer.status,
                    Err(_) => 0,
                };
                looks.push((asked.elapsed(), status));
                tokio::time::sleep(EVERY.saturating_sub(asked.elapsed())).await;
            }
            (path, looks)
        }));
    }
    let mut all = Looks::new();
    for task in tasks {
        all.extend(task.await.ok());
    }
    all
}

/// The `hundredths`-th percentile of some times.
fn quantile(mut times: Vec<Duration>, hundredths: usize) -> Duration {
    times.sort_unstable();
    let at = times.len() * hundredths / 100;
    times
        .get(at.min(times.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// Checks that a silent server takes no read away: all are answered with 200, and as quickly as
/// `/readyz`.
fn judge(looks: &Looks) -> Result<String, Failure> {
    let mut most_of_all = Duration::ZERO;
    for (path, looks) in looks {
        let times: Vec<Duration> = looks.iter().map(|(took, _)| *took).collect();
        let [half, most, all] = [50, 90, 100].map(|part| quantile(times.clone(), part));
        if half > LOOK_WITHIN || all > LOOK_MAX {
            let text = format!("{path} took {half:.0?} half of the times, {all:.0?} once");
            return Err(text.into());
        }
        let is_bad = |(_, status): &&(Duration, u16)| *status != 200 && READS.contains(path);
        if let Some((_, status)) = looks.iter().find(is_bad) {
            return Err(format!("{path} was answered {status}").into());
        }
        most_of_all = most_of_all.max(most);
    }
    Ok(format!(
        "all reads 200, 90 % of each and of /readyz within {most_of_all:.0?}"
    ))
}

/// Waits until MySQL has settled what Redis has accepted by now; returns the time since `since`.
async fn settles(world: &World, since: Instant) -> Result<Duration, Failure> {
    let goal = world.accepted_and_settled().await?.0;
    until("everything is settled", || async {
        let now = world.accepted_and_settled().await;
        now.is_ok_and(|(_, settled)| settled >= goal)
    })
    .await?;
    let took = since.elapsed();
    match took <= SETTLED_WITHIN {
        true => Ok(took),
        false => Err(format!("settled only {took:.1?} after CONT").into()),
    }
}

async fn silent_mysql(plan: &Plan) -> Result<String, Failure> {
    // Longer than every time limit of a request and of a connection to MySQL.
    let silence = Duration::from_secs(if plan.is_long { 30 } else { 12 });
    let mut world = World::open(Always, plan.seed).await?;
    let buyers = world.buyers_with(3, Habits::REDIS_ONLY);
    world.accept(&buyers, 300).await?;
    let usual = quantile(buyers.took_since(0), 95);
    let (first, since) = (buyers.asked(), Instant::now());
    world.servers.mysql.signal(Signal::STOP);
    let client = world.client()?;
    let (looks, named) = tokio::join!(look(&client, silence), world.named(MYSQL_DOWN, since));
    named?;
    let silent = quantile(buyers.took_since(first), 95);
    let served = others_are_served(&buyers, first, |_| false)?;
    let refused = buyers.stop().await?;
    let since = Instant::now();
    world.servers.mysql.signal(Signal::CONT);
    let settled = settles(&world, since).await?;
    let reads = judge(&looks)?;
    if silent > usual * 3 + Duration::from_millis(50) {
        let text = format!("95 % of orders within {usual:.0?} before, within {silent:.0?} during");
        return Err(text.into());
    }
    world.check_history(refused, Allowed::default()).await?;
    Ok(format!(
        "{served:.2} of orders served, 95 % within {silent:.0?} (before {usual:.0?}); {reads}; settled {settled:.1?} \
         after CONT"
    ))
}

async fn silent_redis(plan: &Plan) -> Result<String, Failure> {
    let mut world = World::open(Always, plan.seed).await?;
    let buyers = world.buyers_with(3, Habits::REDIS_ONLY);
    let client = world.client()?;
    let mut report = Vec::new();
    for seconds in [1, 3, 10] {
        world.accept(&buyers, 200).await?;
        // Look once before the silence: a level that nobody has read lately is not known.
        look(&client, EVERY).await;
        let since = Instant::now();
        world.servers.redis.signal(Signal::STOP);
        let looks = look(&client, Duration::from_secs(seconds)).await;
        if seconds == 10 {
            world.named(REDIS_DOWN, since).await?;
        }
        let since = Instant::now();
        world.servers.redis.signal(Signal::CONT);
        world.accept(&buyers, 20).await?;
        let sells = since.elapsed();
        let settled = settles(&world, since).await?;
        let reads =
            judge(&looks).map_err(|error| format!("redis silent for {seconds} s: {error}"))?;
        report.push(format!(
            "{seconds} s: {reads}; sold again after {sells:.1?}, settled after {settled:.1?}"
        ));
    }
    passed(world.check(buyers, Allowed::default()).await)?;
    Ok(report.join("; "))
}

/// The longest time for a request that finds its links lost: less than any time limit of a link.
const AT_ONCE: Duration = Duration::from_millis(1_900);
/// After a silence of this length, a link is tested before it is used.
const IDLE: Duration = Duration::from_millis(300);
/// Longer than the servers keep an idle link.
const CLOSED_AFTER: Duration = Duration::from_secs(5);

/// F29: idle links are closed by their servers, or lost without notice. No request suffers from it.
pub async fn f29_idle_and_lost_links_cost_no_request(plan: &Plan) -> Result<Outcome, Failure> {
    let mut world = World::closed(Always, plan.seed).await?;
    let pool = world.shop.pool().await?;
    pool.execute("SET GLOBAL wait_timeout = 3").await?;
    pool.close().await;
    let mut redis = world.redis_connection().await?;
    let timeout = cmd("CONFIG").arg("SET").arg("timeout").arg(3).to_owned();
    timeout.query_async::<()>(&mut redis).await?;
    world.serve().await?;
    let buyers = world.buyers(8);
    world.accept(&buyers, 200).await?;
    let history = buyers.stop().await?;
    let mut slowest = Duration::ZERO;
    for _ in 0..2 {
        tokio::time::sleep(CLOSED_AFTER).await;
        slowest = slowest.max(all_are_answered(&world, &history, async || {}).await?);
    }
    for proxy in [&world.redis, &world.mysql] {
        let lose = async || {
            tokio::time::sleep(IDLE).await;
            proxy.lose();
        };
        slowest = slowest.max(all_are_answered(&world, &history, lose).await?);
    }
    world.seed = world.seed.wrapping_add(1_000);
    let more = world.buyers(8);
    world.accept(&more, 200).await?;
    let mut both = history;
    both.append(more.stop().await?);
    passed(world.check_history(both, Allowed::default()).await)?;
    Ok(Outcome::PassedWith(format!(
        "the slowest answer after {slowest:.0?}"
    )))
}

/// Sends one request of each kind; returns the time of the slowest. None of them changes anything,
/// so the checks need not know of them.
async fn all_are_answered(
    world: &World,
    history: &super::history::History,
    between: impl AsyncFn(),
) -> Result<Duration, Failure> {
    let client = world.client()?;
    let accepted = history.orders.iter().find_map(|asked| match &asked.told {
        Told::Accepted(id) => Some((asked.user, id)),
        Told::Refused(_) | Told::Unknown => None,
    });
    let (user, id) = accepted.ok_or("no order was accepted")?;
    // An order that only a service that has checked everything can refuse.
    let too_many = json!({ "productId": 1, "quantity": 1_000_000 });
    let order = |path: &str| client.order(path, user, &[(1, 1_000_000), (2, 1_000_000)]);
    let calls: [(Call<'_>, u16); 7] = [
        (order("/api/redis/orders"), 409),
        (
            client
                .get("/api/products/stock/available?productId=1")
                .user(user),
            200,
        ),
        (order("/api/orders"), 409),
        (client.get(&format!("/api/orders/{id}")).user(user), 200),
        (
            client
                .post("/api/products/stock/reserve")
                .user(user)
                .json(&too_many),
            409,
        ),
        (client.get("/api/orders").user(user), 200),
        (client.get("/api/products").user(user), 200),
    ];
    let mut slowest = Duration::ZERO;
    for (number, (call, expected)) in calls.into_iter().enumerate() {
        between().await;
        let asked = Instant::now();
        let answer = call.try_send().await?;
        let took = asked.elapsed();
        if answer.status != expected || took > AT_ONCE {
            return Err(format!(
                "request {number} after {took:.1?}: {} {}",
                answer.status, answer.text
            )
            .into());
        }
        slowest = slowest.max(took);
    }
    Ok(slowest)
}
