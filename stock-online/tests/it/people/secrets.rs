//! Secrets are in no log, no metric and no table.

use serde_json::json;

use super::{PASSWORD, log_in, log_in_with, refresh, sign_up, tokens_of};
use crate::support::{SECRET, ServiceProcess, Shop, folder, until};

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_logged_measured_or_stored() {
    let shop = Shop::open(1, 10).await;
    let log = folder("secrets").join("log");
    let settings = vec![
        ("STOCK_LOG", "trace".to_owned()),
        ("STOCK_ACCESS_LOG", "true".to_owned()),
        (
            "STOCK_JWT_PREVIOUS_SECRET",
            "the key of last year, also a secret".to_owned(),
        ),
    ];
    let service = ServiceProcess::start_logging(&shop, settings, &log).await;
    let client = &service.client;
    sign_up(client, "one@example.com").await;
    let (access, first) = log_in(client, "one@example.com").await;
    let (_, second) = tokens_of(&refresh(client, &first).await);
    log_in_with(client, "one@example.com", "a wrong sesame").await;
    let form = "email=one%40example.com&password=open+sesame%2C+please";
    let login = client.post("/account/login").form(form).send().await;
    let cookie = login.headers["set-cookie"]
        .split([';', '='])
        .nth(1)
        .unwrap()
        .to_owned();
    let order = client.order("/api/redis/orders", 2, &[(1, 1)]);
    let keyed = order
        .header("idempotency-key", "a key of somebody's")
        .header("cookie", "session=x");
    keyed.send().await;
    client
        .post("/api/token")
        .raw(b"{\"email\":\"one@example.com\",\"password\":\"a broken sesame")
        .send()
        .await;
    let key = json!({ "name": "web", "scopes": ["orders:read"] });
    let key = client.post("/api/keys").admin().json(&key).send().await;
    let key = key.member("secret").to_owned();
    let read = client.get("/api/orders").bearer(&key).send().await;
    assert_eq!(read.status, 200, "{}", read.text);
    let metrics = client.get("/metrics").send().await.text;
    until("requests are logged", || async {
        std::fs::read_to_string(&log)
            .is_ok_and(|text| text.contains("trace") || text.contains("TRACE"))
    })
    .await;
    let log = std::fs::read_to_string(&log).unwrap();
    let dump = shop.all_text().await;
    for (name, secret) in [
        ("password", PASSWORD),
        ("password of the form", "open+sesame%2C+please"),
        ("wrong password", "a wrong sesame"),
        ("broken password", "a broken sesame"),
        ("access token", access.as_str()),
        ("refresh token", first.as_str()),
        ("second refresh token", second.as_str()),
        ("session", cookie.as_str()),
        ("service key", key.as_str()),
        ("key", SECRET),
        ("previous key", "the key of last year"),
    ] {
        assert!(!log.contains(secret), "the log holds the {name}");
        assert!(!metrics.contains(secret), "the metrics hold the {name}");
        assert!(!dump.contains(secret), "a table holds the {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_says_who_did_what_from_where() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let id = sign_up(client, "one@example.com").await;
    log_in(client, "one@example.com").await;
    log_in_with(client, "one@example.com", "wrong").await;
    let role = serde_json::json!({ "role": "admin" });
    client
        .patch(&format!("/api/users/{id}"))
        .admin()
        .json(&role)
        .send()
        .await;
    let product = serde_json::json!({ "name": "new", "price": 1, "status": "ACTIVE" });
    let made = client
        .post("/api/products")
        .admin()
        .json(&product)
        .send()
        .await;
    let path = format!("/api/products/{}", made.body["id"]);
    client
        .patch(&path)
        .admin()
        .json(&serde_json::json!({ "price": 2 }))
        .send()
        .await;
    let deleted = client.call("DELETE", &path).admin().send().await;
    let open = serde_json::json!({ "open": true });
    client
        .call("PUT", "/api/ops/selling")
        .admin()
        .json(&open)
        .send()
        .await;
    let rows = async || -> Vec<(String, Option<u64>, String, String)> {
        sqlx::query_as("SELECT action, actor_id, subject, address FROM audit_log ORDER BY action")
            .fetch_all(&shop.pool)
            .await
            .unwrap()
    };
    until("the last line is written", || async {
        rows().await.len() == 8
    })
    .await;
    let rows = rows().await;
    let product = path.replace("/api/products/", "product:");
    let (email, user) = ("one@example.com", format!("user:{id} is admin"));
    let expected = [
        ("logged_in", Some(id), email),
        ("login_failed", None, email),
        ("product_changed", Some(1), product.as_str()),
        ("product_created", Some(1), product.as_str()),
        ("product_deleted", Some(1), product.as_str()),
        ("role_changed", Some(1), user.as_str()),
        ("selling_switched", Some(1), "selling open"),
        ("signed_up", Some(id), email),
    ];
    for ((action, actor, subject, address), expected) in rows.iter().zip(expected) {
        assert_eq!((action.as_str(), *actor, subject.as_str()), expected);
        assert_eq!(address, "127.0.0.1");
    }
    let request: String =
        sqlx::query_scalar("SELECT request_id FROM audit_log WHERE action = 'product_deleted'")
            .fetch_one(&shop.pool)
            .await
            .unwrap();
    assert_eq!(deleted.headers["x-request-id"], request);
    service.stop().await;
}
