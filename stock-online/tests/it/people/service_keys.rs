//! Service keys: what each scope allows, for whom a key acts, and how a key ends.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use stock_client::{Answer, Client};
use stock_domain::service_key::Scope;

use crate::support::{Shop, until};

async fn make(client: &Client, body: &Value) -> Answer {
    client.post("/api/keys").admin().json(body).send().await
}

/// A key with some scopes.
async fn key(client: &Client, scopes: &[&str]) -> String {
    let made = make(client, &json!({ "name": "back end", "scopes": scopes })).await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.member("secret").to_owned()
}

/// An order of one unit of product 1.
fn one_unit(buyer: Option<&str>) -> Value {
    let mut body = json!({
        "orderProducts": [{ "productId": 1, "quantity": 1 }],
        "totalAmount": 1_000,
        "deliveryType": "ONLINE",
    });
    if let Some(buyer) = buyer {
        body["buyer"] = json!(buyer);
    }
    body
}

/// Orders a unit for a buyer.
async fn buy(client: &Client, secret: &str) -> Answer {
    let body = one_unit(Some("a"));
    let call = client.post("/api/redis/orders").bearer(secret);
    call.json(&body).send().await
}

/// The scopes that the document names for an operation; `None` for one that anybody may call.
fn scopes_of(operation: &Value) -> Option<BTreeSet<String>> {
    let schemes = operation["security"].as_array()?;
    if schemes.is_empty() {
        return None;
    }
    let scopes = schemes.iter().filter_map(|of| of["serviceKey"].as_array());
    let names = scopes.flatten().filter_map(Value::as_str);
    Some(names.map(str::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_may_do_what_its_scopes_say_and_nothing_else() {
    // Danger: a key with one scope does what another allows. Method: the served document names
    // every operation with its scopes; each is called with a key of each scope.
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let mut keys = Vec::new();
    for scope in Scope::ALL {
        keys.push((scope.as_str(), key(client, &[scope.as_str()]).await));
    }
    let document = client.get("/api/openapi.json").send().await.body;
    let mut allowed = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let scopes = scopes_of(operation);
            let real: String = path
                .split('/')
                .map(|part| if part.starts_with('{') { "999" } else { part })
                .collect::<Vec<_>>()
                .join("/")
                .replace("/api/events/levels", "/api/events/levels?productId=x");
            for (scope, secret) in &keys {
                let call = client.call(&method.to_uppercase(), &real).bearer(secret);
                let answer = call.send().await;
                let (status, code) = (answer.status, answer.code());
                let of = format!("{method} {path} with {scope}: {}", answer.text);
                match &scopes {
                    None => assert_ne!((status, code), (403, "SCOPE_MISSING"), "{of}"),
                    Some(names) if names.contains(*scope) => {
                        assert!(![401, 403].contains(&status), "{of}");
                        allowed.insert(*scope);
                    }
                    Some(names) if names.is_empty() => {
                        assert_eq!((status, code), (403, "FORBIDDEN"), "{of}");
                    }
                    Some(names) => {
                        assert_eq!((status, code), (403, "SCOPE_MISSING"), "{of}");
                        let missing = answer.body["scope"].as_str().unwrap();
                        assert!(names.contains(missing), "{of}");
                    }
                }
            }
        }
    }
    assert_eq!(
        allowed.len(),
        Scope::ALL.len(),
        "each scope allows something"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_acts_for_the_buyer_whom_it_names() {
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let key = key(client, &["orders:write", "orders:read", "points:write"]).await;
    let order = |body: &Value| {
        client
            .post("/api/redis/orders")
            .bearer(&key)
            .json(body)
            .send()
    };

    // In the body, in the header, in both.
    let placed = order(&one_unit(Some("shopuser-77"))).await;
    assert_eq!(
        (placed.status, placed.member("buyer")),
        (201, "shopuser-77")
    );
    let in_header = |buyer: &str, body: &Value| {
        let call = client.post("/api/redis/orders").bearer(&key);
        call.header("Stock-Buyer", buyer).json(body).send()
    };
    let korean = in_header("구매자-1", &one_unit(None)).await;
    assert_eq!((korean.status, korean.member("buyer")), (201, "구매자-1"));
    let both = in_header("shopuser-77", &one_unit(Some("shopuser-77"))).await;
    assert_eq!(both.status, 201, "{}", both.text);
    let other = in_header("구매자-1", &one_unit(Some("shopuser-77"))).await;
    assert_eq!((other.status, other.code()), (403, "USER_MISMATCH"));

    // Nobody is named, or nobody who could be.
    let nobody = order(&one_unit(None)).await;
    assert_eq!((nobody.status, nobody.code()), (422, "UNPROCESSABLE"));
    for bad in ["", "a b", &"x".repeat(65)] {
        let refused = order(&one_unit(Some(bad))).await;
        assert_eq!(
            (refused.status, refused.code()),
            (422, "UNPROCESSABLE"),
            "{bad}"
        );
    }
    let refused = in_header("a b", &one_unit(None)).await;
    assert_eq!((refused.status, refused.code()), (400, "BAD_REQUEST"));
    let user = client
        .post("/api/redis/orders")
        .user(2)
        .json(&one_unit(Some("shopuser-77")));
    assert_eq!(user.send().await.code(), "USER_MISMATCH");

    // The order is that buyer's, and for the key it is there.
    let path = format!("/api/orders/{}", placed.order_id());
    let show = |buyer: Option<&str>| {
        let call = client.get(&path).bearer(&key);
        match buyer {
            None => call.send(),
            Some(buyer) => call.header("Stock-Buyer", buyer).send(),
        }
    };
    for buyer in [None, Some("shopuser-77")] {
        let shown = show(buyer).await;
        assert_eq!((shown.status, shown.member("buyer")), (200, "shopuser-77"));
    }
    for other in ["구매자-1", "never-seen"] {
        assert_eq!(show(Some(other)).await.code(), "ORDER_NOT_FOUND");
    }
    shop.drained().await;
    assert_eq!(show(None).await.member("buyer"), "shopuser-77");
    let list = client
        .get("/api/orders?buyer=shopuser-77")
        .bearer(&key)
        .send()
        .await;
    let items = list.body["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "{}", list.text);
    assert!(
        items.iter().all(|of| of["buyer"] == "shopuser-77"),
        "{}",
        list.text
    );

    // An engine's own user may be named too.
    let mut body = one_unit(None);
    body["userId"] = json!(5);
    let placed = order(&body).await;
    assert_eq!((placed.status, placed.body.get("buyer")), (201, None));

    // Points are a buyer's as well.
    let body = json!({ "buyer": "shopuser-77", "amount": 500, "description": "welcome" });
    let earned = client
        .post("/api/v2/points/earn")
        .bearer(&key)
        .json(&body)
        .send()
        .await;
    assert_eq!(earned.status, 201, "{}", earned.text);
    let mut paid = one_unit(Some("shopuser-77"));
    (paid["usePoints"], paid["totalAmount"]) = (json!(500), json!(500));
    let paid = order(&paid).await;
    assert_eq!((paid.status, &paid.body["usedPoints"]), (201, &json!(500)));

    // The same name is the same person on another instance, which notes nobody again.
    shop.drained().await;
    let seen = "SELECT COUNT(*) FROM buyers";
    assert_eq!(shop.count(seen).await, 2);
    let second = shop.serve().await;
    let body = one_unit(Some("shopuser-77"));
    let placed = second
        .client
        .post("/api/redis/orders")
        .bearer(&key)
        .json(&body);
    assert_eq!(placed.send().await.status, 201);
    shop.drained().await;
    assert_eq!(shop.count(seen).await, 2);
    let owners = "SELECT COUNT(DISTINCT user_id) FROM orders WHERE user_id >= 1 << 52";
    assert_eq!(shop.count(owners).await, 2);
    shop.verify().await;
    second.stop().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_buyer_is_one_owner_of_a_limit() {
    let shop = Shop::open(1, 100).await;
    let service = shop.serve().await;
    let client = &service.client;
    let (starts, ends) = ("2026-01-01T00:00:00Z", "2030-01-01T00:00:00Z");
    let sale = json!({ "startsAt": starts, "endsAt": ends, "limitPerUser": 2 });
    let made = client
        .post("/api/products/1/sales")
        .admin()
        .json(&sale)
        .send()
        .await;
    assert_eq!(made.status, 201, "{}", made.text);
    let key = key(client, &["orders:write"]).await;
    let order = |buyer: &str| {
        let body = one_unit(Some(buyer));
        client
            .post("/api/redis/orders")
            .bearer(&key)
            .json(&body)
            .send()
    };
    for buyer in ["a", "b"] {
        for expected in [201, 201, 409] {
            let answer = order(buyer).await;
            assert_eq!(answer.status, expected, "{buyer}: {}", answer.text);
        }
    }
    assert_eq!(order("a").await.code(), "PURCHASE_LIMIT_REACHED");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_told_once_kept_as_a_hash_and_ends() {
    let shop = Shop::open(1, 1_000_000).await;
    let service = shop.serve().await;
    let second = shop.serve().await;
    let client = &service.client;
    let body = json!({ "name": "web shop", "scopes": ["orders:write"] });
    let ask = || {
        client
            .post("/api/keys")
            .admin()
            .json(&body)
            .header("Idempotency-Key", "k-1")
    };
    let made = ask().send().await;
    assert_eq!(made.status, 201, "{}", made.text);
    let (id, secret) = (
        made.body["keyId"].as_u64().unwrap(),
        made.member("secret").to_owned(),
    );
    assert!(secret.starts_with("sfk_"), "{secret}");
    let again = ask().send().await;
    assert_eq!(
        (again.body["keyId"].as_u64(), again.body.get("secret")),
        (Some(id), None)
    );
    let kept =
        "SELECT COUNT(*) FROM idempotent_requests WHERE CONVERT(body USING utf8mb4) LIKE '%sfk_%'";
    assert_eq!(shop.count(kept).await, 0);
    let list = client.get("/api/keys").admin().send().await;
    assert_eq!(list.body["items"][0]["scopes"], json!(["orders:write"]));
    assert!(!list.text.contains("sfk_"), "{}", list.text);

    // Another instance knows it at once, and forgets it when it is taken back.
    assert_eq!(buy(client, &secret).await.status, 201);
    assert_eq!(buy(&second.client, &secret).await.status, 201);
    let path = format!("/api/keys/{id}");
    assert_eq!(
        client.call("DELETE", &path).admin().send().await.status,
        204
    );
    assert_eq!(buy(client, &secret).await.code(), "UNAUTHORIZED");
    until("the other instance forgets the key", || async {
        buy(&second.client, &secret).await.status == 401
    })
    .await;
    assert_eq!(
        client.call("DELETE", &path).admin().send().await.code(),
        "SERVICE_KEY_NOT_FOUND"
    );

    // A key that ends.
    let ends = stock_common::clock::rfc3339(shop.clock.now_ms() + 60_000);
    let body = json!({ "name": "short", "scopes": ["orders:write"], "expiresAt": ends });
    let secret = make(client, &body).await.member("secret").to_owned();
    assert_eq!(buy(client, &secret).await.status, 201);
    shop.clock.shift(61_000);
    assert_eq!(buy(client, &secret).await.code(), "UNAUTHORIZED");

    shop.clock.shift(0);
    for (wrong, pointer) in [
        (json!({ "name": "", "scopes": ["orders:write"] }), "/name"),
        (json!({ "name": "x", "scopes": [] }), "/scopes"),
        (
            json!({ "name": "x", "scopes": ["orders:write", "all"] }),
            "/scopes/1",
        ),
        (
            json!({ "name": "x", "scopes": ["orders:write"], "expiresAt": "2020-01-01T00:00:00Z" }),
            "/expiresAt",
        ),
    ] {
        let refused = make(client, &wrong).await;
        assert_eq!(refused.status, 422, "{}", refused.text);
        assert_eq!(
            refused.body["errors"][0]["pointer"], pointer,
            "{}",
            refused.text
        );
    }
    second.stop().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_order_of_a_batch_has_its_own_key_and_verdict() {
    let shop = Shop::open(2, 5).await;
    let service = shop.serve().await;
    let client = &service.client;
    let key = key(client, &["orders:write"]).await;
    let send = |orders: Value| {
        let call = client.post("/api/orders/batch").bearer(&key);
        call.json(&json!({ "orders": orders })).send()
    };
    let of = |key: &str, buyer: &str, more: Value| {
        let mut order = one_unit(Some(buyer));
        order["key"] = json!(key);
        let more = more.as_object().unwrap().clone();
        order.as_object_mut().unwrap().extend(more);
        order
    };
    let none = json!({});
    let six = json!([{ "productId": 2, "quantity": 6 }]);
    let orders = json!([
        of("k-1", "a", none.clone()),
        of("k-2", "b", json!({ "totalAmount": 999 })),
        of("k-3", "b", none.clone()),
        of("k-3", "b", none.clone()),
        of("k-4", "c", json!({ "orderProducts": six, "totalAmount": 6_000 })),
        of("k-5", "c", json!({ "colour": "red" })),
        { "key": 7 },
        of("k-6", "d", json!({ "buyer": null })),
        of("k-7", "d", json!({ "buyer": null, "userId": 9 })),
    ]);
    let answer = send(orders.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let seen = |answer: &Answer| -> Vec<(Value, u64, String)> {
        let results = answer.body["results"].as_array().unwrap().iter();
        let row = |of: &Value| {
            let code = of["problem"]["code"].as_str().unwrap_or_default();
            (
                of["key"].clone(),
                of["status"].as_u64().unwrap(),
                code.to_owned(),
            )
        };
        results.map(row).collect()
    };
    let expected: Vec<(Value, u64, String)> = [
        (json!("k-1"), 201, ""),
        (json!("k-2"), 422, "TOTAL_AMOUNT_MISMATCH"),
        (json!("k-3"), 201, ""),
        (json!("k-3"), 201, ""),
        (json!("k-4"), 409, "INSUFFICIENT_STOCK"),
        (json!("k-5"), 422, "UNPROCESSABLE"),
        (Value::Null, 422, "UNPROCESSABLE"),
        (json!("k-6"), 422, "UNPROCESSABLE"),
        (json!("k-7"), 201, ""),
    ]
    .map(|(key, status, code)| (key, status, code.to_owned()))
    .to_vec();
    assert_eq!(seen(&answer), expected, "{}", answer.text);
    let result = |at: usize| answer.body["results"][at].clone();
    assert_eq!(result(2)["orderId"], result(3)["orderId"]);

    // The same batch again gets the same answers, and so does one of its orders alone.
    let again = send(orders).await;
    assert_eq!(seen(&again), expected, "{}", again.text);
    assert_eq!(again.body["results"][0]["orderId"], result(0)["orderId"]);
    assert_eq!(again.body["results"][0]["replayed"], true);
    let alone = client.post("/api/redis/orders").bearer(&key);
    let alone = alone
        .json(&one_unit(Some("a")))
        .header("Idempotency-Key", "k-1");
    let alone = alone.send().await;
    assert_eq!(alone.order_id(), result(0)["orderId"], "{}", alone.text);
    // An order of a batch is read as strictly as one that is sent alone.
    let twice = of("k-8", "a", none.clone()).to_string();
    let twice = twice.replacen('{', "{\"totalAmount\":1,", 1);
    let call = client.post("/api/orders/batch").bearer(&key);
    let refused = call
        .raw(format!("{{\"orders\":[{twice}]}}").as_bytes())
        .header("content-type", "application/json")
        .send()
        .await;
    assert_eq!(
        seen(&refused),
        [(json!("k-8"), 422, "UNPROCESSABLE".to_owned())]
    );
    let keyed = client.post("/api/redis/orders").bearer(&key);
    let keyed = keyed.json(&of("k-9", "a", none.clone())).send().await;
    assert_eq!(
        (keyed.status, &keyed.body["errors"][0]["pointer"]),
        (422, &json!("/key"))
    );
    let other = send(json!([of("k-1", "a", json!({ "reference": "another" }))])).await;
    assert_eq!(
        seen(&other)[0].2,
        "IDEMPOTENCY_KEY_REUSED",
        "{}",
        other.text
    );

    for (orders, status) in [(json!([]), 422), (json!(vec![none; 1_001]), 422)] {
        assert_eq!(send(orders).await.status, status);
    }
    let user = client
        .post("/api/orders/batch")
        .user(2)
        .json(&json!({ "orders": [] }));
    assert_eq!(user.send().await.status, 403);
    shop.drained().await;
    assert_eq!(shop.count("SELECT COUNT(*) FROM orders").await, 3);
    shop.verify().await;
    service.stop().await;
}
