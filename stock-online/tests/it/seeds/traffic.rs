//! T1 to T23; the pages T24 to T26 are tested in [`super`].

use serde_json::{Value, json};

use super::{check, send, served};
use crate::support::{Service, Shop};

const BASE: &str = "/seeds/traffic";
const BOTH: [&str; 2] = ["", BASE];

async fn with_user() -> (Shop, Service) {
    let (shop, service) = served(3, 100).await;
    let body = json!({ "email": "someone@example.com", "password": "open sesame, please",
        "confirmPassword": "open sesame, please" });
    let made = send(service.client.post("/api/auth/signup"), &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    (shop, service)
}

/// The first results of a page.
fn results(answer: &stock_client::Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.body["results"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_given_for_a_name_and_for_an_address() {
    let (_shop, service) = with_user().await;
    let client = &service.client;
    for base in BOTH {
        for name in ["someone", "someone@example.com"] {
            let body = json!({ "username": name, "password": "open sesame, please" });
            let given = send(client.post(&format!("{base}/api/token/")), &body).await;
            check(&given, 200, &json!({ "access": "*", "refresh": "*" }));
            let next = json!({ "refresh": given.member("refresh") });
            let next = send(client.post(&format!("{base}/api/token/refresh/")), &next).await;
            check(&next, 200, &json!({ "access": "*", "refresh": "*" }));
        }
        let wrong = json!({ "username": "someone", "password": "wrong" });
        let wrong = send(client.post(&format!("{base}/api/token/")), &wrong).await;
        check(&wrong, 401, &json!({ "detail": "*" }));
        let nobody = send(
            client.post(&format!("{base}/api/token/")),
            &json!({ "username": "x" }),
        )
        .await;
        assert_eq!(nobody.status, 400, "{}", nobody.text);
        assert!(nobody.body["password"][0].is_string(), "{}", nobody.text);
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn products_are_listed_in_pages_and_filtered() {
    let (_shop, service) = served(3, 100).await;
    let client = &service.client;
    for body in [
        json!({ "name": "Blue chair", "description": "d", "price": 1_250, "status": "ACTIVE" }),
        json!({ "name": "Red chair", "description": "d", "price": 2_500, "status": "SOLD_OUT" }),
    ] {
        assert_eq!(
            send(client.post("/api/products").admin(), &body)
                .await
                .status,
            201
        );
    }
    let bare = client
        .get(&format!("{BASE}/api/products/"))
        .user(2)
        .send()
        .await;
    check(
        &bare,
        200,
        &json!({ "count": 5, "next": null, "previous": null }),
    );
    let wanted = json!({ "id": "*", "name": "Red chair", "description": "d", "price": "2500.00",
        "status": "sold_out", "created_at": "*", "updated_at": "*" });
    super::check_members(&bare.body["results"][0], &wanted, &bare.text);
    for base in BOTH {
        for (query, names) in [
            ("page=1&name=chair", &["Red chair", "Blue chair"][..]),
            ("page=1&name=CHAIR&status=active", &["Blue chair"]),
            ("price=1250.00", &["Blue chair"]),
            ("price_gte=1001&price_lte=2499", &["Blue chair"]),
            ("page=1&name=&status=sold_out", &["Red chair"]),
            ("price_gte=9000", &[]),
        ] {
            let list = client
                .get(&format!("{base}/api/products/?{query}"))
                .send()
                .await;
            let found: Vec<String> = results(&list)
                .iter()
                .map(|of| of["name"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(found, names, "{query}");
        }
        for query in ["page=2", "page=0", "page=x"] {
            let gone = client
                .get(&format!("{base}/api/products/?{query}"))
                .send()
                .await;
            check(&gone, 404, &json!({ "detail": "*" }));
        }
        let wrong = client
            .get(&format!("{base}/api/products/?price=12.50"))
            .send()
            .await;
        assert_eq!(wrong.status, 400, "{}", wrong.text);
        assert!(wrong.body["price"][0].is_string(), "{}", wrong.text);
    }
    // Names of both are the contract's 422.
    let both = client.get("/api/products/?page=1&limit=2").send().await;
    assert_eq!((both.status, both.code()), (422, "UNPROCESSABLE"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_links_its_pages() {
    let (_shop, service) = served(101, 1).await;
    let client = &service.client;
    let first = client.get("/api/products/?page=1").send().await;
    let address = &client.address;
    let next = format!("http://{address}/api/products/?page=2");
    check(
        &first,
        200,
        &json!({ "count": 101, "next": next, "previous": null }),
    );
    assert_eq!(results(&first).len(), 100);
    let second = client
        .get(next.split_once(address.as_str()).unwrap().1)
        .send()
        .await;
    let previous = format!("http://{address}/api/products/?page=1");
    check(&second, 200, &json!({ "next": null, "previous": previous }));
    assert_eq!(results(&second)[0]["name"], "product 1");
    let base = client.get(&format!("{BASE}/api/products/")).send().await;
    let next = format!("http://{address}{BASE}/api/products/?page=2");
    check(&base, 200, &json!({ "next": next }));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_is_made_changed_and_deleted() {
    let (_shop, service) = served(1, 10).await;
    let client = &service.client;
    let path = format!("{BASE}/api/products/");
    let body =
        json!({ "name": "chair", "description": "wood", "price": "1250.00", "status": "active" });
    let made = send(client.post(&path).admin(), &body).await;
    check(
        &made,
        201,
        &json!({ "id": "*", "price": "1250.00", "status": "active", "name": "chair" }),
    );
    let id = made.member("id").to_owned();
    assert_eq!(id.len(), 36);
    let mut broken = body.clone();
    broken["price"] = json!("12.50");
    let refused = send(client.post(&path).admin(), &broken).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert!(refused.body["price"][0].is_string(), "{}", refused.text);
    check(
        &send(client.post(&path).user(2), &body).await,
        403,
        &json!({ "detail": "*" }),
    );
    // The UUID and the plain number name the same product.
    for name in [id.as_str(), "2"] {
        let own = format!("{BASE}/api/products/{name}/");
        check(
            &client.get(&own).user(2).send().await,
            200,
            &json!({ "id": id, "description": "wood" }),
        );
        let whole =
            json!({ "name": "stool", "description": "oak", "price": 1_300, "status": "inactive" });
        let put = send(client.call("PUT", &own).admin(), &whole).await;
        check(
            &put,
            200,
            &json!({ "name": "stool", "price": "1300.00", "status": "inactive" }),
        );
        let patched = send(
            client.patch(&own).admin(),
            &json!({ "price": "1250.0", "status": "active" }),
        )
        .await;
        check(
            &patched,
            200,
            &json!({ "name": "stool", "price": "1250.00", "status": "active" }),
        );
        let part = send(client.call("PUT", &own).admin(), &json!({ "name": "x" })).await;
        assert_eq!(part.status, 400, "{}", part.text);
        send(
            client.patch(&own).admin(),
            &json!({ "description": "wood" }),
        )
        .await;
    }
    for base in BOTH {
        let unknown = format!("{base}/api/products/0b5f9f57-25e5-4d5f-9d3f-0d6d1f9a3c11/");
        check(
            &client.get(&unknown).send().await,
            404,
            &json!({ "detail": "*" }),
        );
        let mut others = send(client.post(&path).admin(), &body).await;
        let own = format!("{base}/api/products/{}/", others.member("id"));
        assert_eq!(client.call("DELETE", &own).user(2).send().await.status, 403);
        let deletes = || client.call("DELETE", &own).admin();
        let keyed = || deletes().header("idempotency-key", &format!("delete{base}"));
        assert_eq!(keyed().send().await.status, 204);
        assert_eq!(keyed().send().await.status, 204, "the first answer again");
        assert_eq!(deletes().send().await.status, 404);
        others = client.get(&own).send().await;
        check(&others, 404, &json!({ "detail": "*" }));
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_is_listed_by_product_by_warehouse_and_within_bounds() {
    let (shop, service) = served(3, 100).await;
    let client = &service.client;
    let inbound = json!({ "productId": 2, "locationId": 3, "quantity": 7, "reason": "first" });
    assert_eq!(
        send(client.post("/api/products/stock/inbound").admin(), &inbound)
            .await
            .status,
        201
    );
    let held = json!({ "productId": 1, "quantity": 5 });
    assert_eq!(
        send(client.post("/api/products/stock/reserve").user(2), &held)
            .await
            .status,
        201
    );
    shop.drained().await;
    let path = "/api/products/stock/available/";
    let bare = client.get(&format!("{BASE}{path}")).user(2).send().await;
    check(&bare, 200, &json!({ "count": 3 }));
    let wanted = json!({ "id": "*", "physical_stock": 100, "reserved_stock": 5,
        "available_stock": 95,
        "min_stock_level": 10, "reorder_point": 100, "warehouse_code": "3077006", "updated_at": "*",
        "product_name": "product 1", "product_price": "1000.00", "product_status": "active" });
    super::check_members(&bare.body["results"][0], &wanted, &bare.text);
    let product = bare.body["results"][0]["product_id"].as_str().unwrap();
    for base in BOTH {
        for (query, count) in [
            (format!("product_id={product}"), 1),
            ("product_id=2".to_owned(), 1),
            ("warehouse_code=3077006".to_owned(), 3),
            ("warehouse_code=3".to_owned(), 1),
            ("available_stock_gte=96".to_owned(), 2),
            ("reserved_stock_gte=1&reserved_stock_lte=5".to_owned(), 1),
            ("warehouse_code=3&physical_stock=7".to_owned(), 1),
            ("physical_stock=7".to_owned(), 0),
            (
                "warehouse_code=3077006&available_stock_gte=1&physical_stock_lte=99".to_owned(),
                0,
            ),
        ] {
            let list = client
                .get(&format!("{base}{path}?{query}"))
                .user(2)
                .send()
                .await;
            assert_eq!(results(&list).len(), count, "{query}: {}", list.text);
        }
        check(
            &client.get(&format!("{base}{path}?page=1")).send().await,
            401,
            &json!({ "detail": "*" }),
        );
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn goods_are_taken_in_and_set_aside() {
    let (shop, service) = served(2, 100).await;
    let client = &service.client;
    let list = client.get("/api/products/?page=1").send().await;
    let product = results(&list).last().unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    for base in BOTH {
        let path = format!("{base}/api/products/stock/inbound/");
        for code in ["3077006", "2"] {
            let body = json!({ "product_id": product, "quantity": 5, "reason": "restock",
                "warehouse_code": code });
            let taken = send(client.post(&path).admin(), &body).await;
            assert_eq!((taken.status, &taken.body), (201, &body), "{}", taken.text);
            check(
                &send(client.post(&path).user(2), &body).await,
                403,
                &json!({ "detail": "*" }),
            );
        }
        for (name, value) in [
            ("warehouse_code", json!("nowhere")),
            ("warehouse_code", json!("77")),
            ("product_id", json!("99")),
            ("quantity", json!(0)),
        ] {
            let mut body = json!({ "product_id": product, "quantity": 5, "reason": "restock",
                "warehouse_code": "2" });
            body[name] = value;
            let refused = send(client.post(&path).admin(), &body).await;
            assert_eq!(refused.status, 400, "{name}: {}", refused.text);
            assert!(
                refused.body[name][0].is_string(),
                "{name}: {}",
                refused.text
            );
        }
        let path = format!("{base}/api/products/stock/reserve/");
        let held = send(
            client.post(&path).user(2),
            &json!({ "product_id": product, "quantity": 5 }),
        )
        .await;
        check(
            &held,
            201,
            &json!({ "success": true, "error_message": null, "error_code": null,
            "reservation": { "id": "*", "product": { "id": product, "price": "1000.00" },
                "quantity": 5,
                "user_id": 2, "status": "pending", "expires_at": "*" } }),
        );
        let short = json!({ "product_id": product, "quantity": 900_000 });
        let short = send(client.post(&path).user(3), &short).await;
        check(
            &short,
            400,
            &json!({ "success": false, "reservation": null, "error_message": "*",
            "error_code": "INSUFFICIENT_STOCK" }),
        );
        let none = send(
            client.post(&path).user(2),
            &json!({ "product_id": product, "quantity": 0 }),
        )
        .await;
        assert_eq!(none.status, 400, "{}", none.text);
        assert!(none.body["quantity"][0].is_string(), "{}", none.text);
        let stranger = send(
            client.post(&path),
            &json!({ "product_id": product, "quantity": 1 }),
        )
        .await;
        check(&stranger, 401, &json!({ "detail": "*" }));
        // One key, one reservation.
        let keyed = || {
            client
                .post(&path)
                .user(3)
                .header("idempotency-key", &format!("k{base}"))
        };
        let body = json!({ "product_id": product, "quantity": 1 });
        let (first, again) = (send(keyed(), &body).await, send(keyed(), &body).await);
        assert_eq!((first.status, again.status), (201, 201), "{}", again.text);
        assert_eq!(
            first.body["reservation"]["id"],
            again.body["reservation"]["id"]
        );
        assert_eq!(again.headers["idempotency-replayed"], "true");
    }
    let both = json!({ "product_id": product, "productId": 1, "quantity": 1 });
    let both = send(client.post("/api/products/stock/reserve/").user(2), &both).await;
    assert_eq!((both.status, both.code()), (422, "UNPROCESSABLE"));
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_on_a_shared_path_counts_once() {
    let mut shop = Shop::open(1, 10).await;
    shop.config.http.compat = stock_common::config::Compat::all();
    shop.config.people.limit_user_requests = 2;
    let service = shop.serve().await;
    let path = "/api/products/stock/available/?product_id=1";
    for status in [200, 200, 429] {
        let answer = service.client.get(path).user(2).send().await;
        assert_eq!(answer.status, status, "{}", answer.text);
    }
    service.stop().await;
}
