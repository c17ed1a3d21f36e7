//! Sessions of pages, and requests that another site's page makes a browser send.

use stock_client::{Answer, Client};

use super::{PASSWORD, sign_up};
use crate::support::{Shop, order_json, until};

const FORM: &str = "email=one%40example.com&password=open+sesame%2C+please";

/// The cookie that an answer sets, as a browser sends it back.
fn cookie(answer: &Answer) -> String {
    let set = &answer.headers["set-cookie"];
    set.split(';').next().unwrap().to_owned()
}

async fn me(client: &Client, cookie: &str) -> u16 {
    client
        .get("/api/me")
        .header("cookie", cookie)
        .status()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_begins_a_session_and_a_logout_ends_it() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let form = format!("email=one%40example.com&password={PASSWORD}&confirm_password={PASSWORD}")
        .replace(' ', "+");
    let made = client.post("/account/signup").form(&form).send().await;
    assert_eq!(
        (made.status, made.headers["location"].as_str()),
        (303, "/login?new=true"),
        "{}",
        made.text
    );
    let wrong = client
        .post("/account/login")
        .form("email=one%40example.com&password=x");
    let wrong = wrong.send().await;
    assert_eq!(wrong.code(), "INVALID_CREDENTIALS");
    assert!(!wrong.headers.contains_key("set-cookie"));

    // A planted cookie is worth nothing: the session gets another id at login.
    let planted = "session=AAAAAAAAAAAAAAAAAAAAAA";
    let login = client
        .post("/account/login")
        .form(FORM)
        .header("cookie", planted);
    let login = login.send().await;
    assert_eq!(
        (login.status, login.headers["location"].as_str()),
        (303, "/")
    );
    let set = &login.headers["set-cookie"];
    for part in ["HttpOnly", "SameSite=Lax", "Max-Age=3600", "Path=/"] {
        assert!(set.contains(part), "{set}");
    }
    let cookie = cookie(&login);
    assert_ne!(cookie, planted);
    assert_eq!(
        (me(client, &cookie).await, me(client, planted).await),
        (200, 401)
    );

    let order = client
        .post("/api/redis/orders")
        .json(&order_json(&[(1, 1)]));
    assert_eq!(order.header("cookie", &cookie).status().await, 201);
    let again = client
        .post("/account/login")
        .form(FORM)
        .header("cookie", &cookie);
    let other = self::cookie(&again.send().await);
    assert_ne!(other, cookie);
    assert_eq!(
        (me(client, &cookie).await, me(client, &other).await),
        (401, 200)
    );

    let logout = client
        .post("/account/logout")
        .header("cookie", &other)
        .send()
        .await;
    assert_eq!(logout.status, 303, "{}", logout.text);
    assert_eq!(me(client, &other).await, 401);
    assert_eq!(client.post("/account/logout").status().await, 401);
    assert_eq!(shop.count("SELECT COUNT(*) FROM sessions").await, 0);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_time_and_with_its_users_tokens_on_every_instance() {
    let shop = Shop::open(1, 10).await;
    let (here, there) = (shop.serve().await, shop.serve().await);
    sign_up(&here.client, "one@example.com").await;
    let login = async || {
        let login = here.client.post("/account/login").form(FORM);
        cookie(&login.send().await)
    };
    let first = login().await;
    assert_eq!(
        (
            me(&here.client, &first).await,
            me(&there.client, &first).await
        ),
        (200, 200)
    );
    sqlx::query("UPDATE sessions SET expires_at = NOW(3) - INTERVAL 1 SECOND")
        .execute(&shop.pool)
        .await
        .unwrap();
    // After reading a session, an instance remembers it for a second.
    until("it has ended", || async {
        me(&there.client, &first).await == 401
    })
    .await;
    let second = login().await;
    let out = here
        .client
        .post("/api/auth/logout-everywhere")
        .header("cookie", &second);
    assert_eq!(out.status().await, 204);
    assert_eq!(me(&here.client, &second).await, 401);
    until("it has ended there too", || async {
        me(&there.client, &second).await == 401
    })
    .await;
    assert_eq!(me(&here.client, &login().await).await, 200);
    here.stop().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_sites_page_changes_nothing() {
    // Danger: a page of another site posts with the visitor's cookie. Method: the headers in which
    // browsers name the origin.
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    sign_up(client, "one@example.com").await;
    let login = client
        .post("/account/login")
        .form(FORM)
        .header("sec-fetch-site", "same-origin");
    let cookie = cookie(&login.send().await);
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
    ] {
        let order = client
            .post("/api/redis/orders")
            .json(&order_json(&[(1, 1)]));
        let order = order
            .header("cookie", &cookie)
            .header(name, value)
            .send()
            .await;
        assert_eq!(
            (order.status, order.code()),
            (403, "CROSS_SITE_REQUEST"),
            "{name}: {value}"
        );
        for path in ["/account/login", "/account/signup"] {
            let form = client
                .post(path)
                .form(FORM)
                .header(name, value)
                .send()
                .await;
            assert_eq!(form.code(), "CROSS_SITE_REQUEST", "{path}");
        }
        let read = client
            .get("/api/me")
            .header("cookie", &cookie)
            .header(name, value);
        assert_eq!(read.status().await, 200, "reading changes nothing");
        // A browser does not send a token by itself, so a request with one is accepted.
        let order = client
            .order("/api/redis/orders", 2, &[(1, 1)])
            .header(name, value);
        assert_eq!(order.status().await, 201);
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_tell_browsers_to_be_careful_and_only_allowed_origins_may_read() {
    let mut shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let origin = ("origin", "https://shop.example.com");
    let answer = service
        .client
        .get("/api/products")
        .header(origin.0, origin.1)
        .send()
        .await;
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("cache-control", "public, max-age=1"),
        ("content-security-policy", "frame-ancestors 'none'"),
    ] {
        assert_eq!(answer.headers[name], value);
    }
    for name in ["access-control-allow-origin", "strict-transport-security"] {
        assert!(!answer.headers.contains_key(name), "{name}");
    }
    let own = service.client.get("/api/orders").user(2).send().await;
    assert_eq!(own.headers["cache-control"], "no-store");
    service.stop().await;
    shop.config.http.cors_origins =
        "https://shop.example.com, https://other.example.com".to_owned();
    shop.config.http.public_tls = true;
    let service = shop.serve().await;
    let preflight = service
        .client
        .call("OPTIONS", "/api/redis/orders")
        .header(origin.0, origin.1)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "authorization,content-type,idempotency-key",
        );
    let preflight = preflight.send().await;
    assert_eq!(preflight.headers["access-control-allow-origin"], origin.1);
    let get = |from: &str| service.client.get("/api/products").header("origin", from);
    assert_eq!(
        get(origin.1).send().await.headers["access-control-allow-origin"],
        origin.1
    );
    let evil = get("https://evil.example").send().await;
    assert!(!evil.headers.contains_key("access-control-allow-origin"));
    assert!(evil.headers.contains_key("strict-transport-security"));
    sign_up(&service.client, "one@example.com").await;
    let login = service
        .client
        .post("/account/login")
        .form(FORM)
        .send()
        .await;
    let set = &login.headers["set-cookie"];
    assert!(
        set.starts_with("__Host-session=") && set.contains("Secure"),
        "{set}"
    );
    service.stop().await;
}
