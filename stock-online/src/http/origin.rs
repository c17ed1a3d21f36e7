//! The origin of a request: its client address, as far as proxies are trusted, and its id.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use super::problem::Problem;
use crate::app::App;
use crate::http::code::Code;

/// The header that names a request.
pub const REQUEST_ID: &str = "x-request-id";
/// The longest name that a client may give its request.
const REQUEST_ID_MAX: usize = 64;

/// The id of a request.
#[derive(Debug, Clone)]
pub enum RequestId {
    /// The client's own.
    Given(HeaderValue),
    /// Unique across instances and restarts.
    Made {
        /// A random number of the process.
        instance: u32,
        /// Sequence number of the request within the process, from 0.
        number: u64,
    },
}

impl RequestId {
    /// The client's own id, if it gave one of 1 to 64 visible ASCII characters.
    #[must_use]
    pub fn new(headers: &HeaderMap, instance: u32, number: u64) -> Self {
        let is_id = |given: &&HeaderValue| {
            let bytes = given.as_bytes();
            (1..=REQUEST_ID_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
        };
        let given = headers.get(REQUEST_ID).filter(is_id);
        given.map_or(Self::Made { instance, number }, |given| {
            Self::Given(given.clone())
        })
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(given) => f.write_str(given.to_str().unwrap_or_default()),
            Self::Made { instance, number } => write!(f, "{instance:08x}-{number:x}"),
        }
    }
}

/// The origin of a request.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The client's address.
    pub address: IpAddr,
    /// The id of the request.
    pub request_id: RequestId,
}

impl FromRequestParts<Arc<App>> for Origin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _app: &Arc<App>) -> Result<Self, Problem> {
        let known = parts.extensions.get::<Self>().cloned();
        known.ok_or_else(|| Problem::of(Code::Internal))
    }
}

/// Proxies that are trusted to name the client's address.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpNet>);

/// A text that is neither an address nor a network.
#[derive(Debug, thiserror::Error)]
#[error("trusted_proxies: {0:?} is neither an address nor a network such as 10.0.0.0/8")]
pub struct NotANetwork(String);

impl TrustedProxies {
    /// Reads addresses and networks, separated by commas.
    ///
    /// # Errors
    /// [`NotANetwork`] names the first text that is neither.
    pub fn parse(text: &str) -> Result<Self, NotANetwork> {
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let networks = parts.map(|part| {
            let address = || part.parse::<IpAddr>().map(IpNet::from);
            part.parse::<IpNet>()
                .or_else(|_not_a_network| address())
                .map_err(|_neither| NotANetwork(part.to_owned()))
        });
        Ok(Self(networks.collect::<Result<_, _>>()?))
    }

    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client's address: the connection's address, or behind a trusted proxy the last address
    /// in `X-Forwarded-For` that is not a trusted proxy. Anybody may have written the addresses to
    /// the left of it.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if self.0.is_empty() || !self.trusts(peer) {
            return peer;
        }
        let mut client = peer;
        let values = headers.get_all("x-forwarded-for").iter().rev();
        for part in values.flat_map(|value| value.to_str().unwrap_or("").rsplit(',')) {
            // Entries to the left of a malformed address are not trusted.
            let Ok(address) = part.trim().parse::<IpAddr>() else {
                break;
            };
            client = address.to_canonical();
            if !self.trusts(client) {
                break;
            }
        }
        client
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use axum::http::{HeaderMap, HeaderValue};

    use super::TrustedProxies;

    fn client(proxies: &str, peer: &str, forwarded: &[&'static str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_static(value));
        }
        let peer: IpAddr = peer.parse().unwrap();
        let proxies = TrustedProxies::parse(proxies).unwrap();
        proxies.client(peer, &headers).to_string()
    }

    #[test]
    fn forwarded_addresses_are_believed_from_trusted_proxies_only() {
        let own = "10.0.0.0/8, 192.168.1.1";
        for (proxies, peer, forwarded, expected) in [
            ("", "10.0.0.1", &["1.1.1.1"][..], "10.0.0.1"),
            (own, "9.9.9.9", &["1.1.1.1"], "9.9.9.9"),
            (own, "10.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            (own, "10.0.0.1", &["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
            (
                own,
                "10.0.0.1",
                &["6.6.6.6, 1.1.1.1, 192.168.1.1"],
                "1.1.1.1",
            ),
            (
                own,
                "10.0.0.1",
                &["6.6.6.6", "1.1.1.1, 10.2.3.4"],
                "1.1.1.1",
            ),
            (own, "10.0.0.1", &["1.1.1.1, nonsense"], "10.0.0.1"),
            (own, "10.0.0.1", &[], "10.0.0.1"),
            (own, "::ffff:10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
        ] {
            assert_eq!(
                client(proxies, peer, forwarded),
                expected,
                "{peer} {forwarded:?}"
            );
        }
        assert!(TrustedProxies::parse("10.0.0.0/8, proxy").is_err());
    }
}
