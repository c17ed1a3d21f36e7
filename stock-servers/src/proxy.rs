//! A TCP proxy that misbehaves on demand: latency, cuts before or after a request is passed on,
//! half-open links, slices of one byte, and little bandwidth.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The way in which the proxy treats bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything on.
    Pass,
    /// Passes everything on after this time, both ways.
    Latency(Duration),
    /// Closes the connection when a request comes. The server never sees the request.
    CutBefore,
    /// Passes a request on, and closes the connection before its answer.
    CutAfter,
    /// Swallows everything and answers nothing.
    HalfOpen,
    /// Passes everything on, one byte at a time.
    Slices,
    /// Passes this many bytes on per second.
    Bandwidth(u32),
    /// Refuses connections and closes the open ones.
    Down,
}

/// A running proxy. Dropping it ends it.
pub struct Proxy {
    /// The address that it listens on, `host:port`.
    pub address: String,
    mode: watch::Sender<Mode>,
    target: watch::Sender<u16>,
    swallowed: Arc<AtomicU64>,
    /// Number of losses. A connection that is older than the last loss swallows everything,
    /// whatever the mode.
    lost: watch::Sender<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Starts a proxy in front of a port of this machine.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (mode, target) = (watch::Sender::new(Mode::Pass), watch::Sender::new(port));
        let (modes, targets) = (mode.subscribe(), target.subscribe());
        let swallowed = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&swallowed);
        let lost = watch::Sender::new(0);
        let losses = lost.subscribe();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (mode, target) = (modes.clone(), targets.clone());
                let swallowed = Arc::clone(&count);
                let losses = losses.clone();
                let born = *losses.borrow();
                if *mode.borrow() != Mode::Down {
                    tokio::spawn(async move {
                        let fate = Fate { mode, losses, born };
                        if let Err(error) = serve(client, fate, target, &swallowed).await {
                            tracing::debug!(%error, "a connection ended");
                        }
                    });
                }
            }
        });
        Ok(Self {
            address,
            mode,
            target,
            swallowed,
            lost,
            task,
        })
    }

    /// Changes the mode, for open connections too.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Loses the open connections silently: they swallow everything from now on, and new ones do
    /// not.
    pub fn lose(&self) {
        self.lost.send_modify(|lost| *lost += 1);
    }

    /// How often half-open links have swallowed something so far.
    #[must_use]
    pub fn swallowed(&self) -> u64 {
        self.swallowed.load(Ordering::Relaxed)
    }

    /// Sends new connections to another port, and ends the open ones.
    pub fn redirect(&self, port: u16) {
        self.target.send_replace(port);
    }
}

/// The state that decides how a connection treats its bytes.
#[derive(Clone)]
struct Fate {
    mode: watch::Receiver<Mode>,
    losses: watch::Receiver<u64>,
    /// Number of losses before the connection was made.
    born: u64,
}

impl Fate {
    fn mode(&self) -> Mode {
        match *self.losses.borrow() > self.born {
            true => Mode::HalfOpen,
            false => *self.mode.borrow(),
        }
    }
}

async fn serve(
    client: TcpStream,
    fate: Fate,
    mut target: watch::Receiver<u16>,
    swallowed: &AtomicU64,
) -> io::Result<()> {
    let port = *target.borrow_and_update();
    let server = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // When one direction ends, the whole connection ends: the halves are dropped, and with them
    // both sockets.
    tokio::select! {
        ended = pass(from_client, to_server, &fate, swallowed, Side::Client) => ended,
        ended = pass(from_server, to_client, &fate, swallowed, Side::Server) => ended,
        () = down(fate.mode.clone()) => Ok(()),
        _ = target.changed() => Ok(()),
    }
}

async fn down(mut mode: watch::Receiver<Mode>) {
    if mode.wait_for(|mode| *mode == Mode::Down).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    fate: &Fate,
    swallowed: &AtomicU64,
    side: Side,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        let bytes = buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        match (fate.mode(), side) {
            (Mode::Pass, _) => to.write_all(bytes).await?,
            (Mode::Latency(by), _) => {
                tokio::time::sleep(by).await;
                to.write_all(bytes).await?;
            }
            (Mode::CutBefore, Side::Client) | (Mode::CutAfter, Side::Server) | (Mode::Down, _) => {
                return Ok(());
            }
            (Mode::CutBefore, Side::Server) | (Mode::CutAfter, Side::Client) => {
                to.write_all(bytes).await?;
            }
            (Mode::HalfOpen, _) => {
                swallowed.fetch_add(1, Ordering::Relaxed);
            }
            (Mode::Slices, _) => {
                for byte in bytes.chunks(1) {
                    to.write_all(byte).await?;
                }
            }
            (Mode::Bandwidth(per_second), _) => {
                for part in bytes.chunks(512) {
                    to.write_all(part).await?;
                    let took = Duration::from_secs(1)
                        * u32::try_from(part.len()).unwrap_or(u32::MAX)
                        / per_second.max(1);
                    tokio::time::sleep(took).await;
                }
            }
        }
    }
}
