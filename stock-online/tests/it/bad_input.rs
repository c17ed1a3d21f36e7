//! Bad input: each answer is a 4xx problem with a code, quick, and without effect.
//!
//! One table per kind of badness; every endpoint that takes such input meets every row.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Answer, Client, SECRET, Service, Shop};

/// Every endpoint that reads a body, with a body that fits.
fn bodies() -> Vec<(&'static str, &'static str, Value)> {
    let order = json!({ "orderProducts": [{ "productId": 1, "quantity": 1 }],
        "totalAmount": 1_000, "deliveryType": "ONLINE" });
    let product = json!({ "name": "x", "description": "", "price": 1, "status": "ACTIVE" });
    vec![
        ("POST", "/api/redis/orders", order.clone()),
        ("POST", "/api/orders", order),
        ("PATCH", "/api/redis/orders/1/cancel", json!({})),
        ("PATCH", "/api/orders/1/cancel", json!({})),
        ("POST", "/api/products", product.clone()),
        ("PUT", "/api/products/1", product.clone()),
        ("PATCH", "/api/products/1", product),
        ("PUT", "/api/ops/selling", json!({ "open": true })),
    ]
}

/// A shop whose stock and orders must be the same afterwards.
struct Untouched {
    shop: Shop,
    service: Service,
}

impl Untouched {
    async fn open() -> Self {
        let shop = Shop::open(2, 5).await;
        let service = shop.serve().await;
        Self { shop, service }
    }

    fn client(&self) -> &Client {
        &self.service.client
    }

    async fn close(self) {
        self.shop.drained().await;
        assert_eq!(self.shop.available(1).await, 5, "stock was touched");
        assert_eq!(self.shop.count("SELECT COUNT(*) FROM orders").await, 0);
        assert_eq!(self.shop.count("SELECT COUNT(*) FROM products").await, 2);
        let renamed = "SELECT COUNT(*) FROM products WHERE name LIKE 'product %'";
        assert_eq!(self.shop.count(renamed).await, 2, "a product was touched");
        self.shop.prove().await;
        self.service.stop().await;
    }
}

/// It is a problem of a known form with one of these codes.
fn assert_problem(answer: &Answer, codes: &[&str], what: &str) {
    assert!(
        (400..500).contains(&answer.status) && codes.contains(&answer.code()),
        "{what}: {} {}",
        answer.status,
        answer.text
    );
    assert_eq!(
        answer.headers["content-type"], "application/problem+json",
        "{what}"
    );
    assert_eq!(answer.body["status"], answer.status, "{what}");
    for member in ["type", "title", "detail", "requestId"] {
        assert!(answer.body[member].is_string(), "{what} has no {member}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_json_or_does_not_fit_changes_nothing_anywhere() {
    const NOT_JSON: &[&str] = &["MALFORMED_JSON"];
    const NO_FIT: &[&str] = &["UNPROCESSABLE"];
    const EITHER: &[&str] = &["MALFORMED_JSON", "UNPROCESSABLE"];
    let untouched = Untouched::open().await;
    let deep = "[".repeat(10_000);
    let deep_object = format!("{}1{}", "{\"a\":".repeat(5_000), "}".repeat(5_000));
    let rows: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("half", b"{".to_vec(), NOT_JSON),
        ("a word", b"nul".to_vec(), NOT_JSON),
        ("NaN", b"{\"totalAmount\":NaN}".to_vec(), NOT_JSON),
        ("a comment", b"{/* */}".to_vec(), NOT_JSON),
        ("single quotes", b"{'a':1}".to_vec(), NOT_JSON),
        ("a byte order mark", b"\xef\xbb\xbf{}".to_vec(), NOT_JSON),
        ("not UTF-8", b"{\"name\":\"\xff\xfe\"}".to_vec(), NOT_JSON),
        (
            "a lone surrogate",
            br#"{"name":"\ud800"}"#.to_vec(),
            NOT_JSON,
        ),
        ("NUL", b"\0".to_vec(), NOT_JSON),
        ("deep", deep.into_bytes(), NOT_JSON),
        ("deep objects", deep_object.into_bytes(), EITHER),
        (
            "gzip",
            b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03".to_vec(),
            NOT_JSON,
        ),
        ("an array", b"[]".to_vec(), NO_FIT),
        (
            "a line as an array",
            br#"{"orderProducts":[[1,1,null]],"totalAmount":1000,"deliveryType":"ONLINE"}"#
                .to_vec(),
            NO_FIT,
        ),
        (
            "fields in an array",
            br#"[null,[{"productId":1,"quantity":1}],1000,"ONLINE",null,null,null,null]"#.to_vec(),
            NO_FIT,
        ),
        ("null", b"null".to_vec(), NO_FIT),
        ("a number", b"7".to_vec(), NO_FIT),
        ("a text", b"\"{}\"".to_vec(), NO_FIT),
        (
            "an unknown field",
            br#"{"price_of_mine":0,"userid":9}"#.to_vec(),
            NO_FIT,
        ),
    ];
    for (method, path, good) in bodies() {
        for (what, body, codes) in &rows {
            let call = untouched.client().call(method, path).admin().raw(body);
            let answer = call.header("content-type", "application/json").send().await;
            assert_problem(&answer, codes, &format!("{method} {path} with {what}"));
        }
        let good = good.to_string();
        let trailing = format!("{good}x");
        let twice = good.replacen(
            '{',
            r#"{"open":true,"name":"y","totalAmount":1,"open":true,"name":"y","totalAmount":1,"#,
            1,
        );
        for (what, body) in [("trailing bytes", trailing), ("fields twice", twice)] {
            let call = untouched
                .client()
                .call(method, path)
                .admin()
                .raw(body.as_bytes());
            let answer = call.header("content-type", "application/json").send().await;
            assert_problem(&answer, EITHER, &format!("{method} {path} with {what}"));
        }
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(1_000_000));
        let call = untouched
            .client()
            .call(method, path)
            .admin()
            .raw(large.as_bytes());
        let answer = call.header("content-type", "application/json").send().await;
        assert_problem(
            &answer,
            &["PAYLOAD_TOO_LARGE"],
            &format!("{method} {path} with 1 MB"),
        );
        for kind in [
            "",
            "text/plain",
            "application/xml",
            "application/json; charset=latin1",
        ] {
            let call = untouched
                .client()
                .call(method, path)
                .admin()
                .raw(b"{\"a\":1}");
            let answer = call.header("content-type", kind).send().await;
            let what = format!("{method} {path} as {kind:?}");
            assert_problem(&answer, &["UNSUPPORTED_MEDIA_TYPE"], &what);
        }
    }
    untouched.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_out_of_its_range_is_refused_wherever_it_stands() {
    let untouched = Untouched::open().await;
    let many_digits = "9".repeat(400);
    let numbers = [
        "-1",
        "-100",
        "1.5",
        "1e3",
        "\"5\"",
        "true",
        "[]",
        "{}",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "1e400",
        many_digits.as_str(),
    ];
    let order = r#"{"orderProducts":[{"productId":1,"quantity":1,"unitPrice":1000}],"totalAmount":1000,"deliveryType":"PICKUP","storeId":1,"usePoints":0,"userId":2}"#;
    let product = r#"{"name":"x","description":"","price":1,"status":"ACTIVE","stock":0,"minStockLevel":0,"reorderPoint":0}"#;
    // Zero is a number of points, a price, a stock; 2^53 fits some of these and no amount.
    let orders = [
        (
            "\"productId\":1",
            "\"productId\":#",
            &["PRODUCT_NOT_FOUND", "UNPROCESSABLE"][..],
        ),
        ("\"quantity\":1", "\"quantity\":#", &["UNPROCESSABLE"]),
        ("\"unitPrice\":1000", "\"unitPrice\":#", &["UNPROCESSABLE"]),
        (
            "\"totalAmount\":1000",
            "\"totalAmount\":#",
            &["UNPROCESSABLE"],
        ),
        (
            "\"storeId\":1",
            "\"storeId\":#",
            &["UNPROCESSABLE", "INSUFFICIENT_STOCK"],
        ),
        ("\"usePoints\":0", "\"usePoints\":#", &["UNPROCESSABLE"]),
        (
            "\"userId\":2",
            "\"userId\":#",
            &["UNPROCESSABLE", "USER_MISMATCH"],
        ),
    ];
    let products = [
        ("\"price\":1", "\"price\":#", &["UNPROCESSABLE"][..]),
        ("\"stock\":0", "\"stock\":#", &["UNPROCESSABLE"]),
        (
            "\"minStockLevel\":0",
            "\"minStockLevel\":#",
            &["UNPROCESSABLE"],
        ),
        (
            "\"reorderPoint\":0",
            "\"reorderPoint\":#",
            &["UNPROCESSABLE"],
        ),
    ];
    let send = async |method: &str, path: &str, body: String| {
        let call = untouched.client().call(method, path);
        let call = if path.contains("orders") {
            call.user(2)
        } else {
            call.admin()
        };
        let call = call.raw(body.as_bytes());
        call.header("content-type", "application/json").send().await
    };
    for number in numbers {
        for path in ["/api/redis/orders", "/api/orders"] {
            for (from, to, codes) in orders {
                let body = order.replace(from, &to.replace('#', number));
                let what = format!("{path} {to} with {number:.40}");
                assert_problem(&send("POST", path, body).await, codes, &what);
            }
        }
        for (method, path) in [("POST", "/api/products"), ("PUT", "/api/products/1")] {
            for (from, to, codes) in products {
                let body = product.replace(from, &to.replace('#', number));
                let what = format!("{method} {path} {to} with {number:.40}");
                assert_problem(&send(method, path, body).await, codes, &what);
            }
        }
    }
    for (path, quantity) in [
        ("/api/redis/orders", "0"),
        ("/api/orders", "1000001"),
        ("/api/redis/orders", "null"),
    ] {
        let body = order.replace("\"quantity\":1", &format!("\"quantity\":{quantity}"));
        let what = format!("a quantity of {quantity}");
        assert_problem(&send("POST", path, body).await, &["UNPROCESSABLE"], &what);
    }
    untouched.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_and_texts_that_do_not_fit_are_refused_whole() {
    let untouched = Untouched::open().await;
    let line = |product: u64, quantity: u64| json!({ "productId": product, "quantity": quantity });
    let many = |count: usize| vec![line(1, 1); count];
    let rows: Vec<(&str, Vec<Value>, &[&str])> = vec![
        ("no line", vec![], &["UNPROCESSABLE"]),
        ("101 lines", many(101), &["UNPROCESSABLE"]),
        ("1,000 lines", many(1_000), &["UNPROCESSABLE"]),
        ("100,000 lines", many(100_000), &["PAYLOAD_TOO_LARGE"]),
        (
            "a sum too large",
            vec![line(1, 600_000), line(1, 600_000)],
            &["UNPROCESSABLE"],
        ),
        (
            "an unknown product among known",
            vec![line(1, 1), line(999, 1)],
            &["PRODUCT_NOT_FOUND"],
        ),
        ("product 0", vec![line(0, 1)], &["PRODUCT_NOT_FOUND"]),
        (
            "one line too much",
            vec![line(2, 1), line(1, 6)],
            &["INSUFFICIENT_STOCK"],
        ),
    ];
    for path in ["/api/redis/orders", "/api/orders"] {
        for (what, lines, codes) in &rows {
            let total: u64 = lines
                .iter()
                .map(|l| l["quantity"].as_u64().unwrap() * 1_000)
                .sum();
            let body =
                json!({ "orderProducts": lines, "totalAmount": total, "deliveryType": "ONLINE" });
            let answer = untouched
                .client()
                .post(path)
                .user(2)
                .json(&body)
                .send()
                .await;
            assert_problem(&answer, codes, &format!("{path} with {what}"));
        }
        for delivery in ["", "online", "ONLINE ", "DRONE"] {
            let body =
                json!({ "orderProducts": many(1), "totalAmount": 1_000, "deliveryType": delivery });
            let answer = untouched
                .client()
                .post(path)
                .user(2)
                .json(&body)
                .send()
                .await;
            assert_problem(
                &answer,
                &["UNPROCESSABLE"],
                &format!("{path} by {delivery:?}"),
            );
        }
    }
    let long = "x".repeat(101);
    for name in [
        "",
        "   ",
        "a\0b",
        "a\r\nSet-Cookie: b",
        "a\u{7f}",
        long.as_str(),
    ] {
        for (method, path) in [
            ("POST", "/api/products"),
            ("PUT", "/api/products/1"),
            ("PATCH", "/api/products/1"),
        ] {
            let body = json!({ "name": name, "description": "", "price": 1, "status": "ACTIVE" });
            let answer = untouched
                .client()
                .call(method, path)
                .admin()
                .json(&body)
                .send()
                .await;
            assert_problem(
                &answer,
                &["UNPROCESSABLE"],
                &format!("{method} a product named {name:?}"),
            );
        }
    }
    untouched.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_text_that_is_allowed_comes_back_as_it_was() {
    let shop = Shop::open(1, 5).await;
    let service = shop.serve().await;
    for name in [
        "' OR 1=1 --",
        "<script>alert(1)</script>",
        "{tag}",
        "a:b*c",
        "=cmd()",
        "\u{202e}rtl",
        "e\u{301} and \u{e9}",
        "\u{1f600}",
        "\"quoted\\",
        "%00%n",
    ] {
        let body = json!({ "name": name, "description": name, "price": 1_000, "status": "ACTIVE", "stock": 3 });
        let made = service
            .client
            .post("/api/products")
            .admin()
            .json(&body)
            .send()
            .await;
        assert_eq!(
            (made.status, &made.body["name"]),
            (201, &json!(name)),
            "{}",
            made.text
        );
        let id = made.body["id"].as_u64().unwrap();
        let order = service
            .client
            .order("/api/redis/orders", 2, &[(id, 1)])
            .send()
            .await;
        assert_eq!(order.body["orderProductInfos"][0]["productName"], name);
        shop.drained().await;
        let shown = service
            .client
            .get(&format!("/api/orders/{}", order.order_id()))
            .user(2)
            .send()
            .await;
        assert_eq!(shown.body["orderProductInfos"][0]["productName"], name);
    }
    shop.prove().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotency_keys_that_are_none_are_refused() {
    let untouched = Untouched::open().await;
    let long = "k".repeat(256);
    for (method, path, body) in bodies() {
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
            &EncodingKey::from_secret(secret.as_bytes()),
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
    for (method, path, body) in bodies() {
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
        if path.contains("products") || path.contains("ops") {
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
    for path in ["/api/orders", "/api/products", "/api/redis/products"] {
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
        "/api/nothing",
        "/api/..%2f..%2fetc/passwd",
        "/%c0%ae%c0%ae/",
        "//",
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

/// Sends bytes and reads what comes until the connection ends.
async fn raw(client: &Client, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(&client.address).await.unwrap();
    // The service may close before everything is sent; what it then said may be lost on the way.
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
    // A body that never comes to its end is given up after a while.
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
