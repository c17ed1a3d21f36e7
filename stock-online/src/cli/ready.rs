//! `ready`: whether the service on this machine takes orders, as a container's health check asks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use stock_common::config::Config;
use tokio::net::TcpStream;

use super::{Failure, output};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn run(config: &Config) -> Result<bool, Failure> {
    let (is_ready, said) = tokio::time::timeout(PATIENCE, ask(config))
        .await
        .unwrap_or_else(|_elapsed| Err(format!("no answer within {PATIENCE:?}").into()))
        .map_err(|error| {
            let address = &config.http.http_addr;
            format!("http://{address}/readyz: {error}; is a service running there? STOCK_HTTP_ADDR names its address")
        })?;
    output::say(&said);
    Ok(is_ready)
}

/// The answer of `/readyz`, and whether it is ready or degraded.
async fn ask(config: &Config) -> Result<(bool, String), Failure> {
    let mut address: SocketAddr = config.http.http_addr.parse()?;
    // A service that listens on all addresses also listens on localhost.
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/readyz")
        .header(header::HOST, address.to_string())
        .body(Body::empty())?;
    let response = sender.send_request(request).await?;
    let is_ready = response.status().is_success();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((is_ready, String::from_utf8_lossy(&body).into_owned()))
}
