//! The interfaces of the five systems that this one takes the place of: each call as their clients
//! send it, at its documented path and under the base path, with the answer that they read.

mod milly;
mod points;
mod same;
mod stock_flow;
mod toodat;
mod traffic;

use serde_json::{Value, json};
use stock_client::{Answer, Call};
use stock_common::config::Compat;

use crate::support::{Service, Shop};

/// A shop whose service serves the clients of every seed.
async fn served(products: u64, stock: i64) -> (Shop, Service) {
    let mut shop = Shop::open(products, stock).await;
    shop.config.http.compat = Compat::all();
    let service = shop.serve().await;
    (shop, service)
}

async fn send(call: Call<'_>, body: &Value) -> Answer {
    call.json(body).send().await
}

/// Checks the status of an answer, and these members of its body. A member of which only the
/// presence is checked has the text `*`.
fn check(answer: &Answer, status: u16, members: &Value) {
    assert_eq!(answer.status, status, "{}", answer.text);
    check_members(&answer.body, members, &answer.text);
}

fn check_members(found: &Value, wanted: &Value, text: &str) {
    match wanted {
        Value::Object(wanted) => {
            for (name, wanted) in wanted {
                let found = found
                    .get(name)
                    .unwrap_or_else(|| panic!("{name} is absent: {text}"));
                check_members(found, wanted, text);
            }
        }
        Value::String(any) if any == "*" => {}
        wanted => assert_eq!(found, wanted, "{text}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_no_seeds_path_answers() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    for path in [
        "/seeds/stock-flow/api/products",
        "/seeds/traffic/api/products/",
        "/seeds/points/openapi.json",
        "/commerce/products/",
        "/work/",
        "/data-init",
        "/api/schema/",
        "/docs/",
        "/login-page/",
        "/silk/",
    ] {
        let answer = client.get(path).admin().send().await;
        assert_eq!((answer.status, answer.code()), (404, "NOT_FOUND"), "{path}");
    }
    let page = client.get("/api/products/?page=1").send().await;
    assert_eq!((page.status, page.code()), (422, "UNPROCESSABLE"));
    let body = json!({ "username": "user2", "password": "password" });
    let token = client.post("/api/token/").json(&body).send().await;
    assert_eq!((token.status, token.code()), (422, "UNPROCESSABLE"));
    let login = json!({ "email": "user2@example.com", "password": "password" });
    let login = client.post("/account/login").json(&login).send().await;
    assert_eq!(
        (login.status, login.code()),
        (415, "UNSUPPORTED_MEDIA_TYPE")
    );
    let detail = login.member("detail");
    assert!(
        detail.contains("application/x-www-form-urlencoded"),
        "{detail}"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_seed_has_a_document_of_its_calls_and_pages_at_their_paths() {
    let (_shop, service) = served(1, 10).await;
    let client = &service.client;
    for (seed, path) in [
        ("stock-flow", "/api/redis/orders"),
        ("traffic", "/api/products/stock/reserve"),
        ("points", "/api/v1/points/earn"),
        ("milly", "/commerce/coupons"),
        ("toodat", "/couponuser"),
    ] {
        let document = client
            .get(&format!("/seeds/{seed}/openapi.json"))
            .send()
            .await;
        assert_eq!(document.status, 200, "{}", document.text);
        assert_eq!(document.body["servers"][0]["url"], format!("/seeds/{seed}"));
        assert!(document.body["paths"][path]["post"].is_object(), "{seed}");
    }
    let contract = client.get("/api/openapi.json").send().await;
    assert!(
        !contract.text.contains("/seeds/"),
        "seeds have documents of their own"
    );
    let schema = client.get("/api/schema/?format=json").send().await;
    assert_eq!((schema.status, &schema.text), (200, &contract.text));
    for path in [
        "/api/schema/swagger-ui/",
        "/api/schema/redoc/",
        "/docs/",
        "/event/",
        "/login-page/",
        "/signup-page/",
        "/account/login-page/",
        "/account/signup-page/",
    ] {
        let page = client.get(path).header("accept", "text/html").send().await;
        assert_eq!(page.status, 200, "{path}");
        assert!(
            page.headers["content-type"].starts_with("text/html"),
            "{path}"
        );
    }
    for seed in ["stock-flow", "points", "milly", "toodat"] {
        let path = format!("/seeds/{seed}/coupon/");
        let unknown = client.get(&path).send().await;
        assert_eq!(
            (unknown.status, unknown.code()),
            (404, "NOT_FOUND"),
            "{path}"
        );
    }
    let unknown = client.get("/seeds/traffic/api/carts/").send().await;
    check(
        &unknown,
        404,
        &json!({ "detail": "*", "code": "NOT_FOUND" }),
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_sees_the_last_requests_with_their_times() {
    stock_common::telemetry::init("off", true);
    let mut shop = Shop::open(1, 10).await;
    shop.config.http.compat = Compat::all();
    let off = shop.serve().await;
    let page = off.client.get("/silk/").admin().send().await;
    assert!(page.text.contains("STOCK_REQUEST_PROFILE"), "{}", page.text);
    off.stop().await;
    shop.config.http.request_profile = true;
    let service = shop.serve().await;
    let client = &service.client;
    let placed = client.order("/api/orders", 2, &[(1, 1)]).send().await;
    assert_eq!(placed.status, 201, "{}", placed.text);
    let secret = client.get("/api/products?name=secret").send().await;
    assert_eq!(secret.status, 200);
    assert_eq!(client.get("/silk/").user(2).send().await.status, 403);
    let page = client.get("/silk/").admin().send().await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert!(
        !page.text.contains("name=secret"),
        "a query may hold a secret"
    );
    let row = page
        .text
        .split("<tr>")
        .find(|row| row.contains("POST /api/orders<"));
    let cells: Vec<&str> = row.unwrap().split("<td").skip(1).collect();
    let number = |cell: &str| -> f64 {
        let text = cell.split(['>', '<']).nth(1).unwrap();
        text.parse().unwrap()
    };
    let (took, mysql, statements, redis) = (
        number(cells[3]),
        number(cells[4]),
        number(cells[5]),
        number(cells[6]),
    );
    assert!(took >= mysql && took >= redis, "{cells:?}");
    assert!(mysql > 0.0 && statements > 0.0 && redis > 0.0, "{cells:?}");
    service.stop().await;
}
