//! The nginx in front of the instances: the files of `deploy/nginx`, with other addresses.

use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use stock_servers::find;
use tokio::process::{Child, Command};

use crate::Failure;
use crate::shop::{free_address, until};

const SITE: &str = include_str!("../../../deploy/nginx/stock-flow.conf");
const FRAME: &str = include_str!("../../../deploy/nginx/nginx.conf");
/// The texts in [`SITE`] for an instance, and for the address on which nginx listens.
const INSTANCE: &str = "stock-online-1:8080";
const OTHERS: &str = "server stock-online-";
const LISTEN: &str = "listen 8080;";

/// A running nginx. Dropping it ends it.
pub struct Nginx {
    child: Child,
    /// The address on which it listens.
    pub address: String,
}

impl Nginx {
    /// Starts an nginx that forwards to these instances. Its files are in `folder`.
    ///
    /// # Errors
    /// When nginx is not installed or does not listen.
    pub async fn start(folder: &Path, instances: &[String]) -> Result<Self, Failure> {
        let program = find(&["nginx"]).ok_or(
            "nginx is not installed: `sh scripts/install.sh scale`, or the Debian package nginx-light",
        )?;
        std::fs::create_dir_all(folder)?;
        let address = free_address()?;
        std::fs::write(folder.join("site.conf"), site(&address, instances)?)?;
        std::fs::write(folder.join("nginx.conf"), frame(folder))?;
        let (conf, log) = (folder.join("nginx.conf"), folder.join("error.log"));
        let child = Command::new(program)
            .args(["-g", "daemon off;"])
            .arg("-c")
            .arg(&conf)
            .arg("-e")
            .arg(&log)
            .arg("-p")
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        let nginx = Self { child, address };
        until("nginx listens", || async {
            tokio::net::TcpStream::connect(&nginx.address).await.is_ok()
        })
        .await?;
        Ok(nginx)
    }
}

impl Drop for Nginx {
    /// Asks nginx to end, because its workers outlive a kill.
    fn drop(&mut self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw)
            && let Err(error) = kill_process(pid, Signal::TERM)
        {
            tracing::debug!(%error, "nginx has ended");
        }
    }
}

fn site(address: &str, instances: &[String]) -> Result<String, Failure> {
    let first = SITE.lines().find(|line| line.contains(INSTANCE));
    let first = first.ok_or("stock-flow.conf names no instance")?;
    if !SITE.contains(LISTEN) {
        return Err("stock-flow.conf listens elsewhere".into());
    }
    let servers: Vec<String> = instances
        .iter()
        .map(|instance| first.replace(INSTANCE, instance))
        .collect();
    let own = SITE.replace(first, &servers.join("\n"));
    let lines = own.lines().filter(|line| !line.contains(OTHERS));
    let lines: Vec<&str> = lines.collect();
    Ok(lines
        .join("\n")
        .replace(LISTEN, &format!("listen {address};")))
}

fn frame(folder: &Path) -> String {
    let folder = folder.display();
    // Limits on descriptors are left out: the user who runs this may have fewer.
    let lines = FRAME.lines().filter(|line| {
        !["worker_rlimit_nofile", "worker_connections"]
            .iter()
            .any(|name| line.contains(name))
    });
    let lines: Vec<&str> = lines.collect();
    lines
        .join("\n")
        .replace("/tmp/", &format!("{folder}/"))
        .replace("/etc/nginx/conf.d/*.conf", &format!("{folder}/site.conf"))
        .replace("error_log stderr", &format!("error_log {folder}/error.log"))
}

#[cfg(test)]
mod tests {
    use super::site;

    #[test]
    fn instances_take_the_place_of_those_in_the_file() {
        let instances = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"].map(str::to_owned);
        let text = site("127.0.0.1:9", &instances).unwrap();
        let servers = text.matches("server 127.0.0.1:").count();
        assert_eq!((servers, text.matches("stock-online-").count()), (3, 0));
        assert!(text.contains("listen 127.0.0.1:9;"));
    }
}
