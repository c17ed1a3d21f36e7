//! `dev`: one command that starts everything, private servers included, and stops it again.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use stock_common::clock::Clock;
use stock_common::config::{Compat, Config, Durability};
use stock_common::telemetry;
use stock_domain::user::Password;
use stock_domain::webhook::Secret;
use stock_engine::ledger;
use stock_mysql::Role;
use stock_servers::{Server, Spec};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::serve::{prepare, shutdown_on_signal};
use super::{Failure, campaign, output, seed};
use crate::passwords::{Passwords, Ticket};
use crate::seeds;
use crate::serve::listen;
use crate::{ServiceRole, Start, install_metrics};

/// The password of every seeded user.
const PASSWORD: &str = "password";
/// Pause before a private server that died is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// The service's port
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Where the servers keep their data
    #[arg(long, default_value = ".stock", value_name = "DIR")]
    data_dir: PathBuf,
    /// Begin with an empty data directory
    #[arg(long)]
    fresh: bool,
    /// Durability of accepted orders: always (default) or everysec
    #[arg(long, value_parser = parse_durability)]
    durability: Option<Durability>,
    /// Begin with the limits of production
    #[arg(long)]
    limits: bool,
    /// The roles that run
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["http", "subscriber", "scheduler"])]
    roles: Vec<ServiceRole>,
    #[command(flatten)]
    seed: seed::SeedArgs,
}

fn parse_durability(text: &str) -> Result<Durability, String> {
    match text {
        "always" => Ok(Durability::Always),
        "everysec" => Ok(Durability::Everysec),
        _ => Err("always or everysec".to_owned()),
    }
}

pub(super) async fn run(args: DevArgs) -> Result<bool, Failure> {
    let filter = std::env::var("STOCK_LOG").unwrap_or_else(|_| "warn,stock_online=info".to_owned());
    let settings = settings(&args)?;
    telemetry::init(&filter, settings.http.request_profile);
    let shutdown = shutdown_on_signal()?;
    let listener = listen((Ipv4Addr::LOCALHOST, args.port))
        .await
        .map_err(|error| format!("port {} cannot be had: {error}; try --port", args.port))?;
    let address = listener.local_addr()?;
    let folder = prepare_folder(&args, settings.redis.durability).await?;
    let (redis, mysql) = start_servers(&folder, settings.redis.durability).await?;
    mysql.create_database("stock").await?;
    let secret = secret(&folder)?;
    let config = settings.with(|config| {
        config.redis.redis_url = redis.spec.url("0");
        config.mysql.database_url = mysql.spec.url("stock");
        config.people.jwt_secret = secret;
        if config.selling.payment_webhook_secret.is_empty() {
            config.selling.payment_webhook_secret = Secret::random().reveal();
        }
        config.http.http_addr = address.to_string();
    });
    config.check()?;
    write_env(&folder, &config)?;
    let stop_servers = CancellationToken::new();
    let keepers = [
        tokio::spawn(keep(redis, stop_servers.clone())),
        tokio::spawn(keep(mysql, stop_servers.clone())),
    ];
    let result = serve(&config, &args, listener, &folder, shutdown).await;
    stop_servers.cancel();
    for keeper in keepers {
        keeper.await?;
    }
    if let Err(error) = fs::remove_file(folder.join("dev.pid")) {
        tracing::debug!(%error, "no pid file");
    }
    result.map(|()| true)
}

/// The settings of a trial; the environment overrides them.
fn settings(args: &DevArgs) -> Result<Config, Failure> {
    let production = Config::default().with(|config| {
        config.http.metrics_open = true;
        config.http.compat = Compat::all();
        config.http.request_profile = true;
        config.selling.fake_payments = true;
        config.redis.durability = Durability::Always;
    });
    let defaults = match args.limits {
        true => production,
        // A load plan sends from one address with few users. The login limit of an account stays.
        false => production.with(|config| {
            config.people.limit_user_requests = 0;
            config.people.limit_address_requests = 0;
            config.people.limit_user_keys = 0;
            config.people.limit_user_keys_daily = 0;
            config.people.limit_address_logins = 0;
            config.http.http_address_connections_max = 0;
        }),
    };
    let settings = Config::load_over(&defaults)?;
    Ok(settings.with(|config| {
        let known = config.redis.durability;
        config.redis.durability = args.durability.unwrap_or(known);
    }))
}

async fn serve(
    config: &Config,
    args: &DevArgs,
    listener: TcpListener,
    folder: &Path,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let pool = stock_mysql::pool(config, Role::Tool)?;
    prepare(config, &pool).await?;
    let ledger = ledger::start(config, pool.clone(), Clock::system())?;
    if ledger.wait_open(Duration::from_secs(10)).await {
        let password = Password::claimed(PASSWORD).ok_or("no password")?;
        let hash = Passwords::new(1).hash(password, Ticket::OWN).await?;
        seed::seed(&pool, &ledger, &args.seed, Some(&hash)).await?;
        campaign::begin(&pool, &ledger, &args.seed, &hash).await?;
    } else {
        let env = folder.join("env");
        output::complain(&format!(
            "redis is not the one that mysql knows: selling stays suspended; see docs/recovery.md, \
             or run: stock-online recover --env-file {}",
            env.display()
        ));
    }
    drop(ledger);
    pool.close().await;
    welcome(config, folder);
    let start = Start {
        config: config.clone(),
        clock: Clock::system(),
        listener,
        parts: args.roles.clone(),
        prometheus: install_metrics(),
    };
    crate::run(start, shutdown).await?;
    Ok(())
}

/// Makes the data directory, and refuses one that another `dev` is using.
async fn prepare_folder(args: &DevArgs, durability: Durability) -> Result<PathBuf, Failure> {
    fs::create_dir_all(&args.data_dir)?;
    let folder = fs::canonicalize(&args.data_dir)?;
    let pid_file = folder.join("dev.pid");
    let other = fs::read_to_string(&pid_file)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let is_alive = |pid: &i32| {
        let pid = rustix::process::Pid::from_raw(*pid);
        pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
    };
    let own = i32::try_from(std::process::id())?;
    let is_dev = |pid: &i32| {
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline"));
        *pid != own
            && command.map_or(cfg!(target_os = "macos"), |line| {
                line.contains("stock-online")
            })
    };
    if let Some(pid) = other.filter(|pid| is_alive(pid) && is_dev(pid)) {
        return Err(format!("process {pid} is already using {}", folder.display()).into());
    }
    if args.fresh {
        // Servers that an earlier run left behind would write into the folders that are removed
        // now.
        Spec::redis(&folder.join("redis"), durability)?
            .stop_orphan()
            .await?;
        if folder.join("mysql/data").is_dir() {
            Spec::mysql(&folder.join("mysql"))
                .await?
                .stop_orphan()
                .await?;
        }
        for name in ["redis", "mysql", "env", "dev.pid"] {
            let path = folder.join(name);
            if path.is_dir() {
                fs::remove_dir_all(&path)?;
            } else if path.exists() {
                fs::remove_file(&path)?;
            }
        }
    }
    fs::write(&pid_file, own.to_string())?;
    Ok(folder)
}

async fn start_servers(folder: &Path, durability: Durability) -> Result<(Server, Server), Failure> {
    let redis = Spec::redis(&folder.join("redis"), durability)?;
    redis.stop_orphan().await?;
    let is_first = !folder.join("mysql/data").is_dir();
    if is_first {
        output::complain("making a private database, a few seconds …");
    }
    let mysql = Spec::mysql(&folder.join("mysql")).await?;
    mysql.stop_orphan().await?;
    let (redis, mysql) = tokio::join!(redis.start(), mysql.start());
    Ok((redis?, mysql?))
}

/// Keeps a server running; stops it in order when told to.
async fn keep(mut server: Server, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = server.ended() => {}
        }
        if stop.is_cancelled() {
            break;
        }
        tracing::error!(
            port = server.spec.port,
            "a private server ended; starting it again"
        );
        tokio::time::sleep(RESTART_PAUSE).await;
        if let Err(error) = server.restart().await {
            tracing::error!(%error, "cannot start it");
        }
    }
    server.stop().await;
}

/// The secret that signs tokens, kept across restarts so that tokens stay valid.
fn secret(folder: &Path) -> Result<String, Failure> {
    let file = folder.join("secret");
    if let Ok(known) = fs::read_to_string(&file) {
        return Ok(known.trim().to_owned());
    }
    let secret = format!(
        "{:032x}{:032x}",
        rand::random::<u128>(),
        rand::random::<u128>()
    );
    write_private(&file, &secret)?;
    Ok(secret)
}

/// Writes a file that only its owner can read, as a whole or not at all.
fn write_private(file: &Path, text: &str) -> Result<(), Failure> {
    let begun = file.with_extension("new");
    let mut out = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&begun)?;
    out.write_all(text.as_bytes())?;
    Ok(fs::rename(begun, file)?)
}

fn write_env(folder: &Path, config: &Config) -> Result<(), Failure> {
    let lines = format!(
        "STOCK_REDIS_URL={}\nSTOCK_DATABASE_URL={}\nSTOCK_JWT_SECRET={}\nSTOCK_HTTP_ADDR={}\n\
         STOCK_DURABILITY={}\nSTOCK_PAYMENT_WEBHOOK_SECRET={}\n",
        config.redis.redis_url,
        config.mysql.database_url,
        config.people.jwt_secret,
        config.http.http_addr,
        config.redis.durability.as_str(),
        config.selling.payment_webhook_secret
    );
    write_private(&folder.join("env"), &lines)
}

/// Prints the first text that a person sees, with three lines to copy.
fn welcome(config: &Config, folder: &Path) {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("stock-online"));
    let env = folder.join("env");
    let (program, env, url) = (program.display(), env.display(), &config.http.http_addr);
    let seeds = config.http.compat.seeds();
    let seeds: String = seeds
        .map(|seed| {
            format!(
                "Clients of {}: http://{url}{}\n",
                seed.as_str(),
                seeds::base(seed)
            )
        })
        .collect();
    output::say(&format!(
        "\nStock Flow is selling on http://{url} (durability {}). Log in as user2@example.com, or as \
         user1@example.com, the admin; every password is `{PASSWORD}`. Or, in another terminal:\n\n\
         TOKEN=$({program} token --env-file {env} --user-id 2)\n\n\
         ORDER=$(curl -s http://{url}/api/redis/orders -H \"Authorization: Bearer $TOKEN\" \
         -H 'Content-Type: application/json' -d '{{\"orderProducts\":[{{\"productId\":1,\
         \"quantity\":2}}],\"totalAmount\":2000,\"deliveryType\":\"ONLINE\"}}'); echo \"$ORDER\"\n\n\
         curl -s http://{url}/api/orders/$(echo \"$ORDER\" | sed 's/.*\"orderId\":\"\\([0-9]*\\).*/\\1/') \
         -H \"Authorization: Bearer $TOKEN\"\n\n\
         Verify that nothing is missing: {program} verify --env-file {env}\n\
         {seeds}Stop with Ctrl-C.\n",
        config.redis.durability.as_str()
    ));
}
