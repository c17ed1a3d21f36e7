//! Limits of logins and requests, shared by all instances.

use serde_json::json;
use stock_client::Client;

use super::{PASSWORD, log_in_with, sign_up};
use crate::support::{Shop, until};

/// A window of logins that does not end while a test runs: the ordinary one ends every quarter of
/// an hour.
const LONG_SECONDS: u64 = 100_000_000;

/// Sends wrong passwords until an attempt has to wait; returns how many attempts were checked.
async fn fail_until_delayed(client: &Client, email: &str) -> u32 {
    for judged in 0..100 {
        let answer = log_in_with(client, email, "wrong").await;
        match answer.status {
            401 => {}
            429 => return judged,
            status => panic!("{status}: {}", answer.text),
        }
    }
    panic!("nobody is delayed");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_ten_failures_the_next_attempt_waits_for_a_moment_on_every_instance() {
    let mut shop = Shop::open(1, 10).await;
    shop.config.people.limit_login_seconds = LONG_SECONDS;
    let (here, there) = (shop.serve().await, shop.serve().await);
    for email in ["one@example.com", "two@example.com"] {
        sign_up(&here.client, email).await;
    }
    // A success forgets the failures before it.
    for _ in 0..9 {
        let failed = log_in_with(&here.client, "one@example.com", "wrong").await;
        assert_eq!(failed.status, 401);
    }
    let right = log_in_with(&here.client, "one@example.com", PASSWORD).await;
    assert_eq!(right.status, 200);
    assert!(fail_until_delayed(&here.client, "ONE@example.com ").await >= 10);
    // On another instance the right password has to wait too, unless the delay is over.
    let refused = log_in_with(&there.client, "one@example.com", PASSWORD).await;
    assert!([200, 429].contains(&refused.status), "{}", refused.text);
    if refused.status == 429 {
        assert_eq!(refused.code(), "TOO_MANY_REQUESTS");
        let seconds: u64 = refused.headers["retry-after"].parse().unwrap();
        assert!((1..=60).contains(&seconds), "{seconds}");
        let policy = format!("\"default\";q=10;w={LONG_SECONDS}");
        assert_eq!(refused.headers["ratelimit-policy"], policy);
    }
    // An unknown address is delayed in the same way; other accounts are not delayed.
    assert!(fail_until_delayed(&here.client, "nobody@example.com").await >= 10);
    let other = log_in_with(&here.client, "two@example.com", PASSWORD).await;
    assert_eq!(other.status, 200);
    // Nobody is locked out: after a moment the right password is accepted.
    until("the owner is let in", || async {
        let answer = log_in_with(&there.client, "one@example.com", PASSWORD).await;
        answer.status == 200
    })
    .await;
    here.stop().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_of_an_account_is_not_kept_out_by_others_who_guess() {
    // Danger: wrong passwords from anywhere, again and again, keep the admin out for ever. Method:
    // a browser in which the owner has logged in before, and a login that is still valid.
    let mut shop = Shop::open(1, 10).await;
    shop.config.people.limit_login_seconds = LONG_SECONDS;
    let service = shop.serve().await;
    let client = &service.client;
    sign_up(client, "one@example.com").await;
    let form = format!(
        "email=one%40example.com&password={}",
        PASSWORD.replace(' ', "+")
    );
    let post = |form: &str| client.post("/account/login").form(form);
    let first = post(&form).send().await;
    assert_eq!(first.status, 303, "{}", first.text);
    let device = first
        .cookies
        .iter()
        .find(|cookie| cookie.starts_with("device="));
    let device = device.unwrap();
    let tokens = log_in_with(client, "one@example.com", PASSWORD).await;
    let bearer = tokens.member("access").to_owned();
    // Somebody else has guessed so often that the next guess waits for a minute.
    let account = {
        let mut link = shop.ledger.live_link().await.unwrap();
        fail_until_delayed(client, "one@example.com").await;
        let pattern = format!("{}:limit:*login:*", shop.config.redis.redis_prefix);
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg(pattern)
            .query_async(&mut link.read)
            .await
            .unwrap();
        let delay = keys.into_iter().find(|key| key.ends_with(":1")).unwrap();
        let _: () = redis::cmd("SET")
            .arg(&delay)
            .arg(1)
            .query_async(&mut link.read)
            .await
            .unwrap();
        delay
    };
    assert!(account.contains("login"), "{account}");
    let elsewhere = post(&form).send().await;
    assert_eq!(
        elsewhere.status, 429,
        "another device waits: {}",
        elsewhere.text
    );
    let here = post(&form).header("cookie", device).send().await;
    assert_eq!(here.status, 303, "{}", here.text);
    let forged = device.replace('.', ".x");
    let forged = post(&form).header("cookie", &forged).send().await;
    assert_eq!(forged.status, 429, "a cookie that was not signed here");
    let body = json!({
        "currentPassword": PASSWORD,
        "newPassword": "another sesame, please",
        "confirmPassword": "another sesame, please",
    });
    let change = client.post("/api/me/password").bearer(&bearer).json(&body);
    let changed = change.send().await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_come_in_from_one_address_do_not_count() {
    let mut shop = Shop::open(1, 10).await;
    shop.config.people.limit_address_logins = 3;
    shop.config.people.limit_login_seconds = LONG_SECONDS;
    let service = shop.serve().await;
    sign_up(&service.client, "one@example.com").await;
    for _ in 0..6 {
        let right = log_in_with(&service.client, "one@example.com", PASSWORD).await;
        assert_eq!(right.status, 200, "{}", right.text);
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_guesses_are_counted_before_they_are_judged() {
    // Danger: many guesses at once all read the count before any has failed.
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    sign_up(&service.client, "one@example.com").await;
    let guesses: Vec<_> = (0..30)
        .map(|_| {
            let client = service.client.clone();
            tokio::spawn(async move {
                log_in_with(&client, "one@example.com", "wrong")
                    .await
                    .status
            })
        })
        .collect();
    let mut judged = 0;
    for guess in guesses {
        judged += u32::from(guess.await.unwrap() == 401);
    }
    // One more for each delay that ends while the guesses are checked.
    assert!((10..15).contains(&judged), "{judged}");
    service.stop().await;
}

async fn list(client: &Client, user: u64) -> u16 {
    client.get("/api/orders").user(user).status().await
}

/// Reads products, claiming to come from an address of a documentation network.
async fn read(client: &Client, from: u8) -> u16 {
    let from = format!("203.0.113.{from}");
    let call = client.get("/api/products").header("x-forwarded-for", &from);
    call.status().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_requests_are_limited_across_instances() {
    let mut shop = Shop::open(1, 1_000).await;
    shop.config.people.limit_user_requests = 40;
    shop.config.people.limit_user_keys = 3;
    // One window for the whole test, whenever it begins.
    shop.config.people.limit_window_seconds = 1_000_000_000_000;
    let (here, there) = (shop.serve().await, shop.serve().await);
    for _ in 0..40 {
        assert_eq!(list(&here.client, 2).await, 200);
    }
    let refused = here.client.get("/api/orders").user(2).send().await;
    assert_eq!((refused.status, refused.code()), (429, "TOO_MANY_REQUESTS"));
    assert!(refused.headers.contains_key("retry-after"));
    let let_in = std::sync::atomic::AtomicU32::new(0);
    until("the other instance has heard of it", || async {
        let status = list(&there.client, 2).await;
        if status == 200 {
            let_in.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        status == 429
    })
    .await;
    assert!(let_in.into_inner() < 40);
    assert_eq!(list(&there.client, 3).await, 200, "others are not limited");
    let keyed = |key: u32| {
        let order = here.client.order("/api/redis/orders", 3, &[(1, 1)]);
        order.header("idempotency-key", &key.to_string())
    };
    for key in 0..3 {
        assert_eq!(keyed(key).send().await.status, 201);
    }
    assert_eq!(keyed(3).send().await.status, 429);
    let plain = here.client.order("/api/redis/orders", 3, &[(1, 1)]);
    assert_eq!(
        plain.send().await.status,
        201,
        "an order without a key is remembered by nobody"
    );
    here.stop().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_the_connections_unless_a_trusted_proxy_names_another() {
    let mut shop = Shop::open(1, 10).await;
    shop.config.people.limit_address_requests = 5;
    shop.config.people.limit_window_seconds = 1_000_000_000_000;
    let service = shop.serve_roles(&[stock_online::ServiceRole::Http]).await;
    // The wait for readiness sends orders, so some of the five requests are used up.
    until("the address has asked too often", || async {
        read(&service.client, 1).await == 429
    })
    .await;
    assert_eq!(
        read(&service.client, 2).await,
        429,
        "whatever the client writes"
    );
    assert_eq!(service.client.get("/livez").send().await.status, 200);
    service.stop().await;
    shop.config.http.trusted_proxies = "127.0.0.0/8".to_owned();
    let service = shop.serve_roles(&[stock_online::ServiceRole::Http]).await;
    for _ in 0..5 {
        assert_eq!(read(&service.client, 3).await, 200);
    }
    assert_eq!(read(&service.client, 3).await, 429);
    assert_eq!(read(&service.client, 4).await, 200);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_logins_are_counted_all_the_same() {
    let own = crate::support::OwnServers::start(stock_common::config::Durability::Everysec).await;
    let mut shop = Shop::open_on(&own.redis.spec, &own.mysql.spec, 1, 10).await;
    shop.config.people.limit_login_seconds = LONG_SECONDS;
    let service = shop.serve().await;
    sign_up(&service.client, "one@example.com").await;
    let mut redis = own.redis;
    redis.kill().await;
    until("the ledger is fenced", || async {
        service.client.get("/readyz").send().await.status == 503
    })
    .await;
    for _ in 0..10 {
        assert_eq!(
            log_in_with(&service.client, "one@example.com", "wrong")
                .await
                .status,
            401
        );
    }
    assert_eq!(
        log_in_with(&service.client, "one@example.com", PASSWORD)
            .await
            .status,
        429
    );
    let body = json!({ "email": "one@example.com" });
    let malformed = service.client.post("/api/token").json(&body).send().await;
    assert_eq!(malformed.status, 422);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_paths_make_no_series_of_their_own() {
    // Danger: each made-up path that is answered with anything but 404 becomes a histogram that
    // stays for ever.
    let mut shop = Shop::open(1, 10).await;
    shop.config.http.cors_origins = "https://shop.example.com".to_owned();
    shop.config.people.limit_address_requests = 10;
    shop.config.people.limit_window_seconds = 1_000_000_000_000;
    let service = shop.serve_roles(&[stock_online::ServiceRole::Http]).await;
    let client = &service.client;
    let cancel = client.patch("/api/orders/madeupbysomebody/cancel");
    assert!([401, 429].contains(&cancel.status().await));
    let preflight = client.call("OPTIONS", "/api/madeupbysomebody");
    let preflight = preflight.header("origin", "https://shop.example.com");
    preflight
        .header("access-control-request-method", "GET")
        .send()
        .await;
    until("the address has asked too often", || async {
        client.get("/api/madeupbysomebody").status().await == 429
    })
    .await;
    let metrics = client.get("/metrics").send().await.text;
    assert!(
        metrics.contains("status=\"429\"") && !metrics.contains("madeup"),
        "{metrics}"
    );
    service.stop().await;
}
