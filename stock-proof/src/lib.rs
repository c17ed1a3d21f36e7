//! Programs that prove the claims of Stock Flow, on servers that they start and stop themselves.
//!
//! | module | content |
//! |---|---|
//! | [`client`] | calls a service over HTTP, as a buyer or an admin |
//! | [`shop`] | private servers, a stocked shop on them, service processes to kill |
//! | [`mod@bench`] | each figure beside its ceiling, in one run (`make bench`) |
//! | [`faults`] | real servers, load, faults, invariants (`make faults`) |
//! | [`scale`] | several instances and shards, replaced and moved under load (`make scale`) |
//!
//! All of them look at the service from outside: processes, HTTP, and their own SQL and Redis
//! reads. The tests of `stock-online` use the same client.

pub mod bench;
pub mod faults;
pub mod scale;
pub mod shop;

use stock_client::Client;
/// Any error that ends a program or a scenario.
pub use stock_client::Failure;
use stock_common::clock::Clock;
use stock_online::tokens::Tokens;

/// A client of a service, with tokens that [`shop::SECRET`] signs.
///
/// # Errors
/// When the secret is empty.
pub fn client(address: &str) -> Result<Client, Failure> {
    let tokens = Tokens::new(shop::SECRET, "", None, Clock::system())?;
    Ok(Client::new(address, tokens.into_bearers()))
}

/// Waits for SIGINT or SIGTERM, and returns the failure that reports it.
pub async fn interrupted() -> Failure {
    use tokio::signal::unix::{SignalKind, signal};
    let (interrupt, terminate) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    match (interrupt, terminate) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            "interrupted".into()
        }
        (Err(error), _) | (_, Err(error)) => error.into(),
    }
}
