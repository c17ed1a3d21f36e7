//! Slow or greedy clients: nobody else notices them, and the service does not grow (F34).
//!
//! The service has the limits of production. Strangers come from 127.0.0.2 and buyers from
//! 127.0.0.1, each within the limits of one address: the fault is that one address harms another.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stock_client::Client;
use stock_common::config::Config;
use stock_common::config::Durability::Always;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::buyers::{Buyers, Habits};
use super::checker::Allowed;
use super::world::{PRODUCTS, World};
use super::{Outcome, Plan, passed};
use crate::Failure;
use crate::shop::Service;

const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Buyers stay far below the limits of one address.
const PACED: Habits = Habits {
    pause: Duration::from_millis(60),
    ..Habits::REDIS_ONLY
};
/// Orders before a behaviour, and orders by which it is measured: so many that the strangers soon
/// exceed their limit of a minute.
const BEFORE: usize = 250;
const JUDGED: usize = 1_000;
/// The largest memory that the service may use, in bytes.
const MEMORY_MAX: u64 = 300_000_000;
/// A p95 below this is the machine's noise.
const NOISE: Duration = Duration::from_millis(10);
/// `/livez` must be answered within this time.
const ALIVE_MAX: Duration = Duration::from_secs(1);
/// The largest answers without a login.
const HEAVY: [&str; 4] = [
    "/api/redoc",
    "/api/docs/swagger-ui-bundle.js",
    "/api/openapi.json",
    "/problems",
];

/// A way to burden the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behaviour {
    ReadsNothing,
    OneByteASecond,
    ManyConnections,
    HeaviestAnswers,
    ManyStreams,
}

const BEHAVIOURS: [(Behaviour, &str, usize); 5] = [
    (Behaviour::ReadsNothing, "reads nothing", 350),
    (Behaviour::OneByteASecond, "one byte a second", 500),
    (Behaviour::ManyConnections, "many connections", 5_000),
    (Behaviour::HeaviestAnswers, "the heaviest answers", 16),
    (Behaviour::ManyStreams, "many streams", 500),
];

async fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((STRANGER, 0)))?;
    socket.connect(to).await
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept-encoding: gzip\r\n\r\n")
}

/// One stranger, until it is cut off.
async fn behave(behaviour: Behaviour, number: usize, mut stream: TcpStream) -> std::io::Result<()> {
    match behaviour {
        Behaviour::ReadsNothing => {
            for _ in 0..20 {
                stream.write_all(get("/api/redoc").as_bytes()).await?;
            }
            std::future::pending().await
        }
        Behaviour::OneByteASecond => {
            for byte in get("/api/products").bytes() {
                stream.write_all(&[byte]).await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(())
        }
        Behaviour::ManyConnections => {
            // A server that refuses the connection closes it; then the next attempt is free.
            let _read = stream.read(&mut [0; 1]).await?;
            Ok(())
        }
        Behaviour::HeaviestAnswers => {
            let path = HEAVY.get(number % HEAVY.len()).copied().unwrap_or("/");
            let mut buffer = vec![0; 64 * 1_024];
            loop {
                stream.write_all(get(path).as_bytes()).await?;
                // The next answer is asked for as soon as this one has begun.
                if stream.read(&mut buffer).await? == 0 {
                    return Ok(());
                }
            }
        }
        Behaviour::ManyStreams => {
            let path = format!("/live/levels?productId={}", 1 + number as u64 % PRODUCTS);
            stream.write_all(get(&path).as_bytes()).await?;
            let mut buffer = [0; 4_096];
            while stream.read(&mut buffer).await? > 0 {}
            Ok(())
        }
    }
}

/// Starts strangers that come back whenever they are cut off, until `stop`. Returns when each has
/// come once: it was connected or refused.
async fn let_in(behaviour: Behaviour, count: usize, to: SocketAddr, stop: &CancellationToken) {
    let (come, mut seen) = mpsc::unbounded_channel();
    for number in 0..count {
        let (stop, come) = (stop.clone(), come.clone());
        tokio::spawn(async move {
            let mut come = Some(come);
            while !stop.is_cancelled() {
                let visit = async {
                    let connected = connect(to).await;
                    drop(come.take());
                    behave(behaviour, number, connected?).await
                };
                tokio::select! {
                    () = stop.cancelled() => {}
                    _ended = visit => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        });
    }
    drop(come);
    // The channel closes when the last one has come.
    let _none: Option<()> = seen.recv().await;
}

/// The p95 of so many orders, and the largest memory of the service meanwhile, in bytes.
async fn judge(
    world: &World,
    buyers: &Buyers,
    service: &Service,
    orders: usize,
) -> Result<(Duration, u64), Failure> {
    let (first, goal) = (buyers.asked(), buyers.asked() + orders);
    let mut memory = 0;
    while buyers.asked() < goal {
        memory = memory.max(
            service
                .memory_bytes("VmRSS")
                .ok_or("the service tells no memory")?,
        );
        alive(&service.client).await?;
        world.accept(buyers, 10).await?;
    }
    let took = buyers.took_since(first);
    let p95 = took
        .get(took.len() * 95 / 100)
        .copied()
        .ok_or("nothing was ordered")?;
    Ok((p95, memory))
}

async fn alive(client: &Client) -> Result<(), Failure> {
    let began = Instant::now();
    let answer = tokio::time::timeout(ALIVE_MAX, client.get("/livez").try_send()).await;
    let answer = answer.map_err(|_elapsed| format!("/livez took more than {ALIVE_MAX:?}"))??;
    match answer.status {
        200 => Ok(()),
        status => Err(format!("/livez answered {status} after {:?}", began.elapsed()).into()),
    }
}

/// F34: clients that read nothing, send a byte a second, open connections, ask for the heaviest
/// answers, or fill streams.
pub async fn f34_slow_and_greedy_clients_harm_nobody(plan: &Plan) -> Result<Outcome, Failure> {
    let mut world = World::closed(Always, plan.seed).await?;
    let limits = Config::default();
    world.via = world
        .via
        .with(
            "STOCK_LIMIT_USER_REQUESTS",
            limits.people.limit_user_requests,
        )
        .with(
            "STOCK_LIMIT_ADDRESS_REQUESTS",
            limits.people.limit_address_requests,
        )
        .with("STOCK_LIMIT_USER_KEYS", limits.people.limit_user_keys)
        .with(
            "STOCK_LIMIT_USER_KEYS_DAILY",
            limits.people.limit_user_keys_daily,
        )
        .with(
            "STOCK_HTTP_ADDRESS_CONNECTIONS_MAX",
            limits.http.http_address_connections_max,
        );
    world.serve().await?;
    let service = world.services.first().ok_or("no service")?;
    let to: SocketAddr = service.client.address.parse()?;
    let clients = Arc::new([service.client.clone()]);
    let buyers = Buyers::start(clients.as_slice(), 6, 1..=PRODUCTS, PACED, plan.seed);
    world.accept(&buyers, 100).await?;
    let mut said = Vec::new();
    let mut worst = Vec::new();
    for (behaviour, name, count) in BEHAVIOURS {
        let (before, _) = judge(&world, &buyers, service, BEFORE).await?;
        let stop = CancellationToken::new();
        let_in(behaviour, count, to, &stop).await;
        let judged = judge(&world, &buyers, service, JUDGED).await;
        stop.cancel();
        let (during, memory) = judged.map_err(|error| format!("{name}: {error}"))?;
        said.push(format!(
            "{name}: p95 {:.1} → {:.1} ms, {} MB",
            before.as_secs_f64() * 1e3,
            during.as_secs_f64() * 1e3,
            memory / 1_000_000
        ));
        if during > 2 * before.max(NOISE) || memory > MEMORY_MAX {
            worst.push(name);
        }
    }
    passed(world.check(buyers, Allowed::default()).await)?;
    let said = said.join("; ");
    match worst.is_empty() {
        true => Ok(Outcome::PassedWith(said)),
        false => Err(format!("noticed by others: {}; {said}", worst.join(", ")).into()),
    }
}
