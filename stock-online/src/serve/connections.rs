//! Connections: limits on their number, on the share of one client, and on the time that a slow
//! client may take.
//!
//! Each address has a share, so that one address cannot take every connection. When all are taken,
//! a few more are accepted for health checks only, because an orchestrator that gets no answer
//! would kill a working service. A client that sends its request head or takes its answer too
//! slowly is cut off, because others need the connection.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use metrics::Gauge;
use stock_common::config::Config;
use stock_common::lock::lock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, ToSocketAddrs, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::limits::network_of;

/// Extra connections for health checks when all others are taken.
const HEALTH_MAX: usize = 32;
/// A refused connection is held this long before it is closed, because a client that retries at
/// once would cost more than one that is served.
const REFUSED_LIFE: Duration = Duration::from_secs(5);
/// Maximum number of refused connections that are held; further ones are closed at once.
const REFUSED_MAX: usize = 8_192;
/// Longest life of a connection for health checks.
pub(super) const HEALTH_LIFE: Duration = Duration::from_secs(2);

/// Connections that may wait to be accepted. The system caps the number (`net.core.somaxconn`). If
/// it is too small, clients that connect in the second in which a sale opens are not heard, and
/// retry a second later.
const BACKLOG: u32 = 65_535;

/// Listens on the first address that can be bound.
///
/// # Errors
/// When no address can be bound.
pub async fn listen(address: impl ToSocketAddrs) -> io::Result<TcpListener> {
    let mut refused = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in lookup_host(address).await? {
        let socket = match address.is_ipv4() {
            true => TcpSocket::new_v4()?,
            false => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// The connections of this process.
pub(super) struct Connections {
    all: Arc<Semaphore>,
    for_health: Arc<Semaphore>,
    refused: Arc<Semaphore>,
    /// Connections that one address may have; 0 is unlimited.
    share: usize,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    open: Gauge,
}

/// A connection that is counted until this is dropped.
pub(super) struct Place {
    _slot: OwnedSemaphorePermit,
    address: IpAddr,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    open: Gauge,
    /// Whether it serves health checks only.
    pub(super) is_for_health: bool,
}

impl Connections {
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub(super) fn new(config: &Config) -> Self {
        metrics::gauge!("stock_http_connections_max").set(config.http.http_connections_max as f64);
        Self {
            all: Arc::new(Semaphore::new(config.http.http_connections_max)),
            for_health: Arc::new(Semaphore::new(HEALTH_MAX)),
            refused: Arc::new(Semaphore::new(REFUSED_MAX)),
            share: config.http.http_address_connections_max,
            by_address: Arc::default(),
            open: metrics::gauge!("stock_http_connections"),
        }
    }

    /// Closes a connection that got no place, after a delay.
    pub(super) fn refuse(&self, stream: TcpStream) {
        if let Ok(kept) = Arc::clone(&self.refused).try_acquire_owned() {
            tokio::spawn(async move {
                sleep(REFUSED_LIFE).await;
                drop((stream, kept));
            });
        }
    }

    /// Counts a connection; `None` when its address or the service has too many. A trusted proxy
    /// has no share, because it speaks for many clients.
    pub(super) fn take(&self, peer: IpAddr, is_proxy: bool) -> Option<Place> {
        let address = network_of(peer.to_canonical());
        let own = {
            let mut by_address = lock(&self.by_address);
            let own = by_address.entry(address).or_default();
            *own += 1;
            *own
        };
        // From here on, dropping a place takes the count back.
        let place = |slot, is_for_health| {
            self.open.increment(1);
            Place {
                _slot: slot,
                address,
                by_address: Arc::clone(&self.by_address),
                open: self.open.clone(),
                is_for_health,
            }
        };
        let has_share = self.share == 0 || is_proxy || own <= self.share;
        let slot = Arc::clone(&self.all).try_acquire_owned();
        let taken = match slot {
            Ok(slot) if has_share => Some(place(slot, false)),
            Ok(_) => None,
            Err(_full) => {
                let slot = Arc::clone(&self.for_health).try_acquire_owned();
                slot.ok().map(|slot| place(slot, true))
            }
        };
        if taken.is_none() {
            release(&self.by_address, address);
            let reason = if has_share { "full" } else { "address" };
            metrics::counter!("stock_connections_refused_total", "reason" => reason).increment(1);
        }
        taken
    }
}

fn release(by_address: &Mutex<HashMap<IpAddr, usize>>, address: IpAddr) {
    let mut by_address = lock(by_address);
    if let Some(own) = by_address.get_mut(&address) {
        *own -= 1;
        if *own == 0 {
            by_address.remove(&address);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.decrement(1);
        release(&self.by_address, self.address);
    }
}

/// The progress of a connection's requests, shared by its stream and its request handler.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Number of request heads that were read.
    heads: AtomicU64,
    /// Whether a request is being answered.
    is_answering: AtomicBool,
}

impl Progress {
    /// Notes that a head was read completely.
    pub(super) fn begin(&self) {
        self.heads.fetch_add(1, Ordering::Relaxed);
        self.is_answering.store(true, Ordering::Relaxed);
    }

    /// Notes that the answer begins to be sent.
    pub(super) fn end(&self) {
        self.is_answering.store(false, Ordering::Relaxed);
    }
}

/// A stream that ends when its client is too slow.
pub(super) struct Timed {
    stream: TcpStream,
    progress: Arc<Progress>,
    head_max: Duration,
    write_max: Duration,
    /// Deadline of a head that has begun to arrive, and the number of heads read before it.
    head: Option<(Instant, u64)>,
    /// Timer that runs while the rest of a head is missing.
    rest: Option<Pin<Box<Sleep>>>,
    /// Timer that runs while the client takes no data.
    write: Option<Pin<Box<Sleep>>>,
}

impl Timed {
    pub(super) fn new(stream: TcpStream, progress: Arc<Progress>, config: &Config) -> Self {
        Self {
            stream,
            progress,
            head_max: Duration::from_millis(config.http.http_header_timeout_ms),
            write_max: Duration::from_millis(config.http.http_write_timeout_ms),
            head: None,
            rest: None,
            write: None,
        }
    }

    /// Starts or stops the write timer after an attempt to write.
    fn wrote<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.write = None;
            return polled;
        }
        let write_max = self.write_max;
        let timer = self.write.get_or_insert_with(|| Box::pin(sleep(write_max)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        let heads = this.progress.heads.load(Ordering::Relaxed);
        if this.head.is_some_and(|(_, before)| before != heads) {
            (this.head, this.rest) = (None, None);
        }
        let is_answering = this.progress.is_answering.load(Ordering::Relaxed);
        match polled {
            Poll::Ready(Ok(())) if buf.filled().len() > before && !is_answering => {
                let until = Instant::now() + this.head_max;
                this.head.get_or_insert((until, heads));
                polled
            }
            Poll::Ready(_) => polled,
            Poll::Pending => {
                let Some((until, _)) = this.head else {
                    return Poll::Pending;
                };
                let rest = this
                    .rest
                    .get_or_insert_with(|| Box::pin(sleep_until(until)));
                ready!(rest.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncWrite for Timed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use stock_common::config::Config;

    use super::{Connections, HEALTH_MAX};

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    fn connections(most: usize, share: usize) -> Connections {
        Connections::new(&Config::default().with(|config| {
            config.http.http_connections_max = most;
            config.http.http_address_connections_max = share;
        }))
    }

    #[test]
    fn one_address_has_its_share_and_no_more() {
        let connections = connections(10, 2);
        let (first, second) = (
            connections.take(address(1), false),
            connections.take(address(1), false),
        );
        assert!(first.is_some() && second.is_some());
        assert!(connections.take(address(1), false).is_none());
        assert!(connections.take(address(2), false).is_some(), "another");
        assert!(connections.take(address(1), true).is_some(), "a proxy");
        drop(first);
        assert!(connections.take(address(1), false).is_some(), "given back");
        drop(second);
        assert!(connections.by_address.lock().unwrap().is_empty());
    }

    #[test]
    fn a_few_connections_are_left_for_questions_of_health() {
        let connections = connections(1, 0);
        let first = connections.take(address(1), false).unwrap();
        assert!(!first.is_for_health);
        let more: Vec<_> = (0..HEALTH_MAX)
            .map(|_| connections.take(address(1), false).unwrap())
            .collect();
        assert!(more.iter().all(|place| place.is_for_health));
        assert!(connections.take(address(1), false).is_none());
        drop(first);
        assert!(!connections.take(address(1), false).unwrap().is_for_health);
    }
}
