//! A service in a process of its own, which tests signal and kill.

use std::path::Path;
use std::process::Stdio;

use super::{Client, PATIENCE, Shop, until};

/// Every role of the service.
pub(crate) const ROLES: &str = "http,subscriber,scheduler";

/// A service in a process of its own, to be killed.
pub(crate) struct ServiceProcess {
    pub(crate) client: Client,
    pub(crate) child: tokio::process::Child,
}

impl ServiceProcess {
    pub(crate) async fn start(shop: &Shop) -> Self {
        Self::start_with(shop, Vec::new()).await
    }

    /// Starts it with further variables, which override the shop's.
    pub(crate) async fn start_with(shop: &Shop, variables: Vec<(&'static str, String)>) -> Self {
        Self::spawn(shop, variables, ROLES, Stdio::inherit()).await
    }

    /// The same, with its log in a file.
    pub(crate) async fn start_logging(
        shop: &Shop,
        variables: Vec<(&'static str, String)>,
        log: &Path,
    ) -> Self {
        let log = std::fs::File::create(log).unwrap().into();
        Self::spawn(shop, variables, ROLES, log).await
    }

    pub(crate) async fn spawn(
        shop: &Shop,
        variables: Vec<(&'static str, String)>,
        roles: &str,
        log: Stdio,
    ) -> Self {
        let service = Self::begin(shop, variables, roles, log);
        let client = &service.client;
        until("the process is ready", || client.is_ready()).await;
        service
    }

    /// The same, without waiting until it is ready.
    pub(crate) fn begin(
        shop: &Shop,
        variables: Vec<(&'static str, String)>,
        roles: &str,
        log: Stdio,
    ) -> Self {
        let port = stock_servers::free_port().unwrap();
        let address = format!("127.0.0.1:{port}");
        let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_stock-online"))
            .args(["serve", "--roles", roles])
            .envs(shop.variables())
            .env("STOCK_HTTP_ADDR", &address)
            .env("STOCK_LOG", "error")
            .envs(variables)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let client = shop.client(&address);
        Self { client, child }
    }

    /// Ends the process by a signal; it must exit with 0.
    pub(crate) async fn end_by(mut self, signal: rustix::process::Signal) {
        self.signal(signal);
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        assert_eq!(ended.unwrap().unwrap().code(), Some(0));
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal)
            .unwrap();
    }
}
