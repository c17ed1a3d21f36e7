//! Bad requests around a body: keys, tokens, queries, paths, and HTTP itself.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Untouched, assert_problem, every_callers_body};
use crate::support::{Client, SECRET, Shop};

#[tokio::test(flavor = "multi_thread")]
async fn idempotency_keys_that_are_none_are_refused() {
    let untouched = Untouched::open().await;
    let long = "k".repeat(256);
    for (method, path, body) in every_callers_body() {
        for key in ["", "a b", "a\tb", "\u{e9}", long.as_str()] {
            let call = untouched.client().call(method, path).admin().json(&body);
            let answer = call.header("idempotency-key", key).send().await;
            let what = format!("{method} {path} with key {key:.10?}");
            assert_problem(&answer, &["IDEMPOTENCY_KEY_INVALID"], &what);
        }
        let call = untouched.client().call(method, path).admin().json(&body);
        let answer = call
            .header("idempotency-key", "a")
            .header("idempotency-key", "b")
            .send()
            .await;
        assert_problem(
            &answer,
            &["IDEMPOTENCY_KEY_INVALID"],
            &format!("{method} {path} with two keys"),
        );
    }
    untouched.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_token_of_ours_that_holds_now_is_believed() {
    let untouched = Untouched::open().await;
    let now = untouched.shop.clock.now_ms() / 1_000;
    let claims = json!({ "sub": "2", "role": "admin", "iss": "stock-flow", "aud": "stock-flow",
        "iat": now, "nbf": now, "exp": now + 600 });
    let sign = |algorithm: Algorithm, claims: &Value, secret: &str| {
        encode(
            &Header::new(algorithm),
            claims,
            &EncodingKey::from_secret(secret.as_bytes()).unwrap(),
        )
        .unwrap()
    };
    let with = |name: &str, value: Value| {
        let mut changed = claims.clone();
        changed[name] = value;
        sign(Algorithm::HS256, &changed, SECRET)
    };
    let good = sign(Algorithm::HS256, &claims, SECRET);
    let parts: Vec<&str> = good.split('.').collect();
    let none = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.", parts[1]);
    let confused = format!(
        "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.{}.{}",
        parts[1], parts[2]
    );
    let tokens = [
        (
            "another secret",
            sign(
                Algorithm::HS256,
                &claims,
                "another secret of sufficient length!",
            ),
        ),
        ("another algorithm", sign(Algorithm::HS384, &claims, SECRET)),
        ("alg none", none),
        ("a confused algorithm", confused),
        ("another issuer", with("iss", json!("elsewhere"))),
        ("another audience", with("aud", json!("elsewhere"))),
        ("expired a second ago", with("exp", json!(now - 1))),
        ("not valid yet", with("nbf", json!(now + 60))),
        ("no user", with("sub", json!("0"))),
        ("a user that is no number", with("sub", json!("1 OR 1=1"))),
        ("an unknown role", with("role", json!("root"))),
        ("nothing", String::new()),
        ("noise", "a.b.c".to_owned()),
    ];
    for (method, path, body) in every_callers_body() {
        for (what, token) in &tokens {
            let call = untouched.client().call(method, path).json(&body);
            let answer = call
                .header("authorization", &format!("Bearer {token}"))
                .send()
                .await;
            assert_problem(
                &answer,
                &["UNAUTHORIZED"],
                &format!("{method} {path} with {what}"),
            );
            assert!(!answer.text.contains(SECRET));
        }
        for value in ["", "Bearer", "Basic dXNlcjpwYXNz", "Token x"] {
            let call = untouched.client().call(method, path).json(&body);
            let answer = call.header("authorization", value).send().await;
            assert_problem(
                &answer,
                &["UNAUTHORIZED"],
                &format!("{method} {path} with {value:?}"),
            );
        }
        let is_admins = path.contains("products") || path.contains("ops");
        if is_admins && !path.ends_with("/reserve") {
            let answer = untouched
                .client()
                .call(method, path)
                .user(2)
                .json(&body)
                .send()
                .await;
            assert_problem(
                &answer,
                &["FORBIDDEN"],
                &format!("{method} {path} as a user"),
            );
        }
    }
    untouched.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_paths_and_methods_that_do_not_fit_are_refused() {
    let untouched = Untouched::open().await;
    for path in [
        "/api/orders",
        "/api/products",
        "/api/redis/products",
        "/api/works",
        "/api/coupons",
        "/api/coupons/mine",
        "/api/v1/points/users/2/history",
    ] {
        for query in [
            "limit=0",
            "limit=-1",
            "limit=1000000000",
            "limit=x",
            "limit=1&limit=2",
            "cursor=x",
            "cursor=-1",
            "cursor=99999999999999999999999",
            "sort=price",
            "status=GONE",
            "%zz=1",
            "limit=%00",
        ] {
            let path = format!("{path}?{query}");
            let answer = untouched.client().get(&path).user(2).send().await;
            assert_problem(&answer, &["UNPROCESSABLE"], &path);
        }
    }
    for path in [
        "/api/orders/0",
        "/api/orders/x",
        "/api/orders/-1",
        "/api/orders/18446744073709551616",
        "/api/orders/%31%00",
        "/api/orders/1%2f..%2f2",
        "/api/products/x",
        "/api/products/-1",
        "/api/redis/products/1e3",
        "/api/v2/points/users/x/balance",
        "/api/v1/points/users/3/history",
        "/api/v1/points/users/18446744073709551616/reports",
        "/api/nothing",
        "/api/..%2f..%2fetc/passwd",
        "/%c0%ae%c0%ae/",
        "//x",
    ] {
        let answer = untouched.client().get(path).user(2).send().await;
        let codes = ["NOT_FOUND", "ORDER_NOT_FOUND", "PRODUCT_NOT_FOUND"];
        assert_problem(&answer, &codes, path);
        assert_eq!(answer.status, 404, "{path}");
    }
    for (method, path) in [
        ("DELETE", "/api/orders"),
        ("PUT", "/api/redis/orders"),
        ("GET", "/api/ops/selling"),
        ("OPTIONS", "/api/orders"),
        ("TRACE", "/api/products"),
        ("BREW", "/livez"),
    ] {
        let answer = untouched.client().call(method, path).user(2).send().await;
        assert_problem(
            &answer,
            &["METHOD_NOT_ALLOWED"],
            &format!("{method} {path}"),
        );
        assert!(
            answer.headers.contains_key("allow"),
            "{method} {path} names what is allowed"
        );
    }
    untouched.close().await;
}

/// Sends bytes and reads the answer until the connection ends.
async fn raw(client: &Client, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(&client.address).await.unwrap();
    // The service may close before everything is sent; its answer may then be lost on the way.
    drop(stream.write_all(bytes).await);
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    drop(
        tokio::time::timeout(std::time::Duration::from_secs(20), read)
            .await
            .unwrap(),
    );
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn http_that_is_none_is_refused_or_closed_and_never_hangs() {
    let untouched = Untouched::open().await;
    let client = untouched.client();
    let head = "POST /api/redis/orders HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    let rows: Vec<(&str, String, &[&str])> = vec![
        (
            "two lengths",
            format!("{head}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}x"),
            &["400", ""],
        ),
        (
            "a negative length",
            format!("{head}content-length: -1\r\n\r\n"),
            &["400"],
        ),
        (
            "a bad chunk",
            format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n"),
            &["400", "401", ""],
        ),
        (
            "a space in a name",
            format!("{head}a b: c\r\n\r\n"),
            &["400"],
        ),
        (
            "a header of 64 KB",
            format!("{head}x: {}\r\n\r\n", "y".repeat(65_536)),
            &["431"],
        ),
        (
            "10,000 headers",
            format!("{head}{}\r\n", "x: y\r\n".repeat(10_000)),
            &["431"],
        ),
        ("no HTTP at all", "hello\r\n\r\n".to_owned(), &["400"]),
        (
            "an unknown version",
            "GET /livez HTTP/9.9\r\n\r\n".to_owned(),
            &["400"],
        ),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}".to_owned(), &["400", ""]),
    ];
    for (what, request, statuses) in rows {
        let answer = raw(client, request.as_bytes()).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(statuses.contains(&status), "{what}: {answer:.200}");
    }
    // A body that never ends is given up after a while.
    let bearer = client.bearer(2, stock_online::http::auth::Role::User);
    let short = format!(
        "{head}authorization: {bearer}\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{{"
    );
    let answer = raw(client, short.as_bytes()).await;
    assert!(
        answer.contains("408") && answer.contains("REQUEST_TIMEOUT"),
        "{answer}"
    );
    assert_eq!(client.get("/livez").send().await.status, 200);
    untouched.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_names_its_request_and_goes_on_with_its_trace() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    for path in [
        "/api/products",
        "/api/orders",
        "/livez",
        "/",
        "/no/such/path",
    ] {
        let call = client.get(path).header("X-Request-Id", "web-1.7/a");
        let answer = call.header("traceparent", &parent).send().await;
        assert_eq!(answer.headers["x-request-id"], "web-1.7/a", "{path}");
        let continued = answer.headers["traceparent"].as_str();
        assert!(
            continued.starts_with(&format!("00-{trace}-")),
            "{path}: {continued}"
        );
        assert!(continued.ends_with("-01"), "{path}: {continued}");
        assert_ne!(continued, parent, "{path}");
    }
    let refused = client
        .get("/api/orders")
        .header("X-Request-Id", "web-2")
        .send()
        .await;
    assert_eq!(refused.member("requestId"), "web-2");
    // A text that is no id or trace counts as none.
    for bad in ["", "a b", &"x".repeat(65), "é"] {
        let call = client.get("/livez").header("X-Request-Id", bad);
        let answer = call.header("traceparent", bad).send().await;
        let id = answer.headers["x-request-id"].as_str();
        assert!(!id.is_empty() && id != bad, "{bad:?}: {id}");
        assert!(!answer.headers.contains_key("traceparent"), "{bad:?}");
    }
    service.stop().await;
}
