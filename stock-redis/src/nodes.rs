//! Where a shard's Redis is: the only server, or in a cluster the master of the shard's hash slot.
//!
//! A cluster client would follow the masters by itself, and would send a call again that may have
//! been executed. Here each shard has one plain connection to its master. When the master answers
//! that the keys are elsewhere, which executes nothing, the cluster is asked again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, ProtocolVersion, PushInfo,
    PushKind, RedisError, Value, cmd,
};
use stock_common::lock::lock;
use tokio::sync::watch;

use super::info::Info;

/// The schemes of a cluster's URL, each with the scheme by which its nodes are reached.
const CLUSTER_SCHEMES: [(&str, &str); 2] = [
    ("redis-cluster://", "redis://"),
    ("rediss-cluster://", "rediss://"),
];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The Redis servers that a URL names.
#[derive(Debug)]
pub struct Servers {
    /// `redis://login@` or `rediss://login@` in front of a node's address; the URL of the only
    /// server.
    base: String,
    is_cluster: bool,
    /// The nodes that the URL names.
    named: Vec<String>,
    /// The named nodes and others of the cluster, in the order in which they are asked; empty
    /// without a cluster.
    nodes: Mutex<Vec<String>>,
}

/// A connection, and the server to which it leads.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub connection: MultiplexedConnection,
    /// The server's URL, for a second connection to the same server.
    pub url: String,
    /// The node that named the server, and all nodes that this node knows; `None` without a
    /// cluster.
    named_by: Option<(String, Vec<String>)>,
}

impl Connected {
    async fn to(url: String, response_timeout: Duration) -> Result<Self, RedisError> {
        Ok(Self {
            connection: connect(&url, response_timeout).await?,
            url,
            named_by: None,
        })
    }
}

impl Servers {
    /// Reads `redis://host:port/db`, or `redis-cluster://host:port?node=host:port&node=…`.
    ///
    /// # Errors
    /// When the URL is neither.
    pub fn parse(url: &str) -> Result<Self, RedisError> {
        let cluster = CLUSTER_SCHEMES
            .into_iter()
            .find_map(|(scheme, node)| Some((url.strip_prefix(scheme)?, node)));
        let Some((rest, scheme)) = cluster else {
            Client::open(url)?;
            return Ok(Self {
                base: url.to_owned(),
                is_cluster: false,
                named: Vec::new(),
                nodes: Mutex::default(),
            });
        };
        let (first, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, first) = match first.rsplit_once('@') {
            Some((login, first)) => (format!("{login}@"), first),
            None => (String::new(), first),
        };
        let others = query
            .split('&')
            .filter_map(|part| part.strip_prefix("node="));
        let nodes: Vec<String> = [first.trim_end_matches('/')]
            .into_iter()
            .chain(others)
            .map(str::to_owned)
            .collect();
        let base = format!("{scheme}{login}");
        for node in &nodes {
            Client::open(format!("{base}{node}"))?;
        }
        Ok(Self {
            base,
            is_cluster: true,
            named: nodes.clone(),
            nodes: Mutex::new(nodes),
        })
    }

    fn list(&self) -> MutexGuard<'_, Vec<String>> {
        lock(&self.nodes)
    }

    /// Whether the servers are a cluster.
    #[must_use]
    pub const fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    /// Connects to the server that has a key, as named by the first node that leads to a server.
    ///
    /// # Errors
    /// When no server answers, or none has the key.
    pub async fn connect(
        &self,
        key: &str,
        response_timeout: Duration,
    ) -> Result<Connected, RedisError> {
        if !self.is_cluster {
            return Connected::to(self.base.clone(), response_timeout).await;
        }
        let mut failed = None;
        let nodes = self.list().clone();
        for node in nodes {
            let led = async {
                let (url, known) = self.ask(&node, key).await?;
                let connected = Connected::to(url, response_timeout).await?;
                Ok(Connected {
                    named_by: Some((node.clone(), known)),
                    ..connected
                })
            };
            match led.await {
                Ok(connected) => return Ok(connected),
                Err(error) => failed = Some(error),
            }
            // The node does not answer, or names a server that does not.
            self.ask_last(&node);
        }
        Err(failed.unwrap_or_else(|| no_master(key)))
    }

    /// Connects to the server that has a key, as most nodes say. This is for callers that do not
    /// verify the server, such as `recover`.
    ///
    /// # Errors
    /// When no server answers, none has the key, or the nodes do not agree.
    pub async fn connect_agreed(
        &self,
        key: &str,
        response_timeout: Duration,
    ) -> Result<Connected, RedisError> {
        Connected::to(self.agreed(key).await?, response_timeout).await
    }

    /// The URL of the server that more than half of the answering nodes name for a key.
    pub async fn agreed(&self, key: &str) -> Result<String, RedisError> {
        if !self.is_cluster {
            return Ok(self.base.clone());
        }
        let (mut votes, mut failed) = (HashMap::<String, usize>::new(), None);
        let nodes = self.list().clone();
        for node in nodes {
            match self.ask(&node, key).await {
                Ok((url, _)) => *votes.entry(url).or_default() += 1,
                Err(error) => failed = Some(error),
            }
        }
        let all: usize = votes.values().sum();
        match votes.into_iter().find(|(_, votes)| votes * 2 > all) {
            Some((url, _)) => Ok(url),
            None if all > 0 => Err(no_agreement(key)),
            None => Err(failed.unwrap_or_else(|| no_master(key))),
        }
    }

    /// Asks a node for the URL of the master of a key's slot, and for all nodes.
    async fn ask(&self, node: &str, key: &str) -> Result<(String, Vec<String>), RedisError> {
        let url = format!("{}{node}", self.base);
        let mut connection = connect(&url, CONNECT_TIMEOUT).await?;
        let slot: i64 = cmd("CLUSTER")
            .arg("KEYSLOT")
            .arg(key)
            .query_async(&mut connection)
            .await?;
        let ranges: Value = cmd("CLUSTER")
            .arg("SLOTS")
            .query_async(&mut connection)
            .await?;
        let ranges = parse_slots(&ranges, node);
        let master = ranges
            .iter()
            .find(|range| (range.first..=range.last).contains(&slot))
            .and_then(|range| range.nodes.first().cloned())
            .ok_or_else(|| no_master(key))?;
        let known = ranges.into_iter().flat_map(|range| range.nodes).collect();
        Ok((format!("{}{master}", self.base), known))
    }

    /// Notes that a server is the right one. From now on only the nodes of the URL are asked, and
    /// those that the naming node knows.
    pub fn trust(&self, connected: &Connected) {
        let Some((_, known)) = &connected.named_by else {
            return;
        };
        let mut nodes = self.list();
        nodes.retain(|node| self.named.contains(node) || known.contains(node));
        for node in known {
            if !nodes.contains(node) {
                nodes.push(node.clone());
            }
        }
    }

    /// Notes that a server was not verified, so that another node is asked next. The node that
    /// named it may be cut off from the others, or another cluster may have got its address.
    pub fn mistrust(&self, connected: &Connected) {
        if let Some((node, _)) = &connected.named_by {
            self.ask_last(node);
        }
    }

    fn ask_last(&self, node: &str) {
        let mut nodes = self.list();
        if let Some(at) = nodes.iter().position(|other| other == node) {
            let last = nodes.remove(at);
            nodes.push(last);
        }
    }
}

/// Connects to one server, and sends `true` to `has_ended` when the connection ends, because calls
/// after that reach nobody. Only RESP3 tells the end.
pub(crate) async fn connect_watched(
    url: &str,
    response_timeout: Duration,
    has_ended: watch::Sender<bool>,
) -> Result<MultiplexedConnection, RedisError> {
    let note = move |info: PushInfo| {
        if info.kind == PushKind::Disconnection {
            return has_ended.send(true);
        }
        Ok(())
    };
    let config = config(response_timeout).set_push_sender(note);
    let info = url.into_connection_info()?;
    let settings = info.redis_settings().clone();
    let info = info.set_redis_settings(settings.set_protocol(ProtocolVersion::RESP3));
    Client::open(info)?
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

fn config(response_timeout: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(response_timeout))
}

/// Connects to one server.
pub async fn connect(
    url: &str,
    response_timeout: Duration,
) -> Result<MultiplexedConnection, RedisError> {
    Client::open(url)?
        .get_multiplexed_async_connection_with_config(&config(response_timeout))
        .await
}

/// The run id of the server. It differs after each start, and on each node.
///
/// # Errors
/// When Redis does not answer.
pub async fn run_id(connection: &mut MultiplexedConnection) -> Result<String, RedisError> {
    let info = Info::read(connection, &["server"]).await?;
    Ok(info.field("run_id").unwrap_or_default().to_owned())
}

fn no_master(key: &str) -> RedisError {
    let text = format!("no node of the cluster names a master for {key}");
    (ErrorKind::Io, "cluster", text).into()
}

fn no_agreement(key: &str) -> RedisError {
    let text = format!("the nodes of the cluster name different masters for {key}");
    (ErrorKind::Io, "cluster", text).into()
}

/// A range of slots with its nodes, the master first.
struct Range {
    first: i64,
    last: i64,
    nodes: Vec<String>,
}

/// Parses the reply of `CLUSTER SLOTS`. A node without an address is the node that was asked.
fn parse_slots(reply: &Value, asked: &str) -> Vec<Range> {
    let Value::Array(ranges) = reply else {
        return Vec::new();
    };
    let host_asked = asked.rsplit_once(':').map_or(asked, |(host, _)| host);
    let node = |node: &Value| {
        let Value::Array(parts) = node else {
            return None;
        };
        let (host, port) = (parts.first()?, parts.get(1)?);
        let named = if let Value::BulkString(host) = host {
            String::from_utf8(host.clone()).ok()?
        } else {
            String::new()
        };
        let host = if named.is_empty() { host_asked } else { &named };
        let Value::Int(port) = port else {
            return None;
        };
        Some(format!("{host}:{port}"))
    };
    let range = |range: &Value| {
        let Value::Array(parts) = range else {
            return None;
        };
        let [Value::Int(first), Value::Int(last), nodes @ ..] = parts.as_slice() else {
            return None;
        };
        Some(Range {
            first: *first,
            last: *last,
            nodes: nodes.iter().filter_map(node).collect(),
        })
    };
    ranges.iter().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::{Servers, parse_slots};

    #[test]
    fn a_url_names_one_server_or_the_nodes_of_a_cluster() {
        let one = Servers::parse("redis://:geheim@cache:6379/2").unwrap();
        assert!(!one.is_cluster());
        let many = Servers::parse("redis-cluster://u:p@a:1?node=b:2&node=c:3").unwrap();
        assert_eq!(
            (many.base.as_str(), many.list().clone()),
            (
                "redis://u:p@",
                vec!["a:1".to_owned(), "b:2".to_owned(), "c:3".to_owned(),]
            )
        );
        for wrong in ["", "http://a", "redis-cluster://"] {
            assert!(Servers::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn who_misled_is_asked_last() {
        let servers = Servers::parse("redis-cluster://a:1?node=b:2&node=c:3").unwrap();
        servers.ask_last("b:2");
        assert_eq!(*servers.list(), ["a:1", "c:3", "b:2"]);
        servers.ask_last("a:1");
        servers.ask_last("z:9");
        assert_eq!(*servers.list(), ["c:3", "b:2", "a:1"]);
    }

    #[test]
    fn a_range_of_slots_has_its_master_first() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let node = |host: &str, port| Value::Array(vec![text(host), Value::Int(port), text("id")]);
        let reply = Value::Array(vec![Value::Array(vec![
            Value::Int(0),
            Value::Int(16_383),
            node("10.0.0.1", 7_000),
            node("", 7_001),
        ])]);
        let ranges = parse_slots(&reply, "seed:6379");
        let nodes: Vec<&[String]> = ranges.iter().map(|range| &*range.nodes).collect();
        assert_eq!(nodes, [["10.0.0.1:7000", "seed:7001"]]);
    }
}
