//! Encrypted links to both servers, and a certificate that expires.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use stock_common::config::Durability;
use stock_servers::{Server, Spec, free_port};

use crate::support::{ServiceProcess, Shop, folder, start, until};

/// A certificate authority, and the certificates that it has signed for 127.0.0.1.
struct Certificates {
    folder: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        let made = Self {
            folder: folder("certificates"),
            authority,
        };
        std::fs::write(made.file("ca.pem"), made.authority.pem()).unwrap();
        made.sign("server", 2100);
        made.sign("expired", 2020);
        made
    }

    /// Writes a certificate that is valid until the first day of a year, and its key.
    fn sign(&self, name: &str, year: i32) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2010, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        std::fs::write(self.file(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

/// Both servers with certificates, a shop on them, and the variables that make a service use TLS
/// only.
struct Encrypted {
    redis: Server,
    tls_port: String,
    certificates: Certificates,
    shop: Shop,
    variables: Vec<(&'static str, String)>,
}

impl Encrypted {
    async fn open() -> Self {
        let certificates = Certificates::new();
        let folder = folder("encrypted");
        let port = free_port().unwrap().to_string();
        let redis = Spec::redis(&folder.join("redis"), Durability::Everysec).unwrap();
        let redis = redis.with(&[
            "--tls-port",
            &port,
            "--tls-auth-clients",
            "no",
            "--tls-ca-cert-file",
            &certificates.file("ca.pem"),
            "--tls-cert-file",
            &certificates.file("server.pem"),
            "--tls-key-file",
            &certificates.file("server.key"),
        ]);
        let mysql = mysql_with(&folder.join("mysql"), &certificates).await;
        let (redis, mysql) = (start(&redis).await, start(&mysql).await);
        let shop = Shop::open_on(&redis.spec, &mysql.spec, 1, 1_000).await;
        let database = &shop.config.mysql.database_url;
        let variables = vec![
            ("SSL_CERT_FILE", certificates.file("ca.pem")),
            ("STOCK_REDIS_URL", format!("rediss://127.0.0.1:{port}/0")),
            (
                "STOCK_DATABASE_URL",
                format!("{database}?ssl-mode=VERIFY_IDENTITY"),
            ),
        ];
        // The database server runs until the tests end; nobody has to hold it.
        std::mem::forget(mysql);
        Self {
            redis,
            tls_port: port,
            certificates,
            shop,
            variables,
        }
    }

    async fn redis(&self, words: &[&str]) -> redis::Value {
        let client = redis::Client::open(self.redis.spec.url("0")).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::cmd(words[0]);
        command
            .arg(&words[1..])
            .query_async(&mut connection)
            .await
            .unwrap()
    }
}

async fn mysql_with(folder: &Path, certificates: &Certificates) -> Spec {
    let spec = Spec::mysql(folder).await.unwrap();
    spec.with(&[
        &format!("--ssl-ca={}", certificates.file("ca.pem")),
        &format!("--ssl-cert={}", certificates.file("server.pem")),
        &format!("--ssl-key={}", certificates.file("server.key")),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn both_links_are_encrypted_when_the_urls_say_so() {
    let servers = Encrypted::open().await;
    let service = ServiceProcess::start_with(&servers.shop, servers.variables.clone()).await;
    for path in ["/api/redis/orders", "/api/orders"] {
        let answer = service.client.order(path, 2, &[(1, 1)]).send().await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }
    servers.shop.drained().await;
    let (name, accepted): (String, String) =
        sqlx::query_as("SHOW GLOBAL STATUS LIKE 'Ssl_finished_accepts'")
            .fetch_one(&servers.shop.pool)
            .await
            .unwrap();
    assert!(accepted.parse::<u64>().unwrap() > 0, "{name} is {accepted}");
    until("the wake-up channel is subscribed", || async {
        let channel = servers.shop.ledger.keys().levels();
        let heard = servers.redis(&["PUBSUB", "NUMSUB", &channel]).await;
        let heard: (String, u64) = redis::from_redis_value(heard).unwrap();
        heard.1 == 1
    })
    .await;
    let clients = servers.redis(&["CLIENT", "LIST"]).await;
    let clients: String = redis::from_redis_value(clients).unwrap();
    let encrypted = format!("laddr=127.0.0.1:{}", servers.tls_port);
    let encrypted = clients.lines().filter(|line| line.contains(&encrypted));
    assert!(encrypted.count() >= 2, "ledger and wake-ups: {clients}");
    servers.shop.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_stops_new_connections_and_loses_nothing() {
    // Danger: a link that falls back to plain text, or an order that is half done. Method: Redis
    // shows another certificate and drops its clients, and then shows the old certificate again.
    let servers = Encrypted::open().await;
    let service = ServiceProcess::start_with(&servers.shop, servers.variables.clone()).await;
    let order = || service.client.order("/api/redis/orders", 2, &[(1, 1)]);
    assert_eq!(order().send().await.status, 201);
    let show = async |name: &str| {
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        servers
            .redis(&[
                "CONFIG",
                "SET",
                "tls-cert-file",
                &servers.certificates.file(&certificate),
                "tls-key-file",
                &servers.certificates.file(&key),
            ])
            .await;
        for kind in ["normal", "pubsub"] {
            servers.redis(&["CLIENT", "KILL", "TYPE", kind]).await;
        }
    };
    show("expired").await;
    until("nothing can be decided", || async {
        order().send().await.status == 503
    })
    .await;
    show("server").await;
    until("orders are decided again", || async {
        order().send().await.status == 201
    })
    .await;
    servers.shop.drained().await;
    servers.shop.verify().await;
}
