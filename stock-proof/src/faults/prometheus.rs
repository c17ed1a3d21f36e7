//! A Prometheus as an operator runs it, with the configuration and the rules of `observability/`.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::Value;
use stock_client::Client;
use stock_servers::free_port;
use tokio::process::{Child, Command};

use super::world::World;
use crate::Failure;
use crate::shop::{Folder, until};

const CONFIG: &str = include_str!("../../../observability/prometheus.yml");
const RULES: &str = include_str!("../../../observability/alerts.yml");
/// The target that the configuration names.
const TARGET: &str = "\"stock-online:8080\"";

/// A Prometheus that scrapes the services of a world. Dropping it ends it.
pub(super) struct Prometheus {
    client: Client,
    _child: Child,
    _folder: Folder,
}

impl Prometheus {
    /// Starts it, and waits until it has scraped every service.
    ///
    /// # Errors
    /// When it is not installed, or does not scrape.
    pub(super) async fn start(world: &World) -> Result<Self, Failure> {
        let folder = Folder::new("prometheus")?;
        let addresses = world.services.iter().map(|of| &of.client.address);
        let targets: Vec<String> = addresses.map(|address| format!("{address:?}")).collect();
        let config = CONFIG.replace(TARGET, &targets.join(", "));
        let (config_path, port) = (folder.path().join("prometheus.yml"), free_port()?);
        std::fs::write(&config_path, config)?;
        std::fs::write(folder.path().join("alerts.yml"), RULES)?;
        let address = format!("127.0.0.1:{port}");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config_path.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                format!("prometheus: {error}; `scripts/install.sh alerts` installs it")
            })?;
        let prometheus = Self {
            client: world.client()?.at(&address),
            _child: child,
            _folder: folder,
        };
        until("prometheus has scraped every service", || async {
            let up = prometheus.ask("/api/v1/query?query=sum(up)").await;
            let up = up.map(|body| body.pointer("/data/result/0/value/1").cloned());
            up.is_ok_and(|up| up == Some(targets.len().to_string().into()))
        })
        .await?;
        Ok(prometheus)
    }

    async fn ask(&self, path: &str) -> Result<Value, Failure> {
        Ok(self.client.get(path).try_send().await?.body)
    }

    /// The alerts that fire now.
    ///
    /// # Errors
    /// When Prometheus does not answer.
    pub(super) async fn firing(&self) -> Result<BTreeSet<String>, Failure> {
        let body = self.ask("/api/v1/alerts").await?;
        let alerts = body.pointer("/data/alerts").and_then(Value::as_array);
        let alerts = alerts.ok_or("prometheus lists no alerts")?.iter();
        let firing = alerts.filter(|alert| alert.get("state") == Some(&"firing".into()));
        let names = firing
            .filter_map(|alert| Some(alert.pointer("/labels/alertname")?.as_str()?.to_owned()));
        Ok(names.collect())
    }
}
