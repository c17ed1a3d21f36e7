//! Bad input: each answer is a quick 4xx problem with a code, and nothing changes.
//!
//! There is one table per kind of bad input. Every endpoint that takes such input meets every row.

mod bodies;
mod requests;

use serde_json::{Value, json};

use crate::support::{Answer, Client, Service, Shop};

/// Every endpoint that reads a body, with a body that fits.
fn every_body() -> Vec<(&'static str, &'static str, Value)> {
    let order = json!({ "orderProducts": [{ "productId": 1, "quantity": 1 }],
        "totalAmount": 1_000, "deliveryType": "ONLINE" });
    let product = json!({ "name": "x", "description": "", "price": 1, "status": "ACTIVE" });
    let store = json!({ "name": "x", "latitude": 0, "longitude": 0 });
    let points = json!({ "userId": 1, "amount": 1, "description": "" });
    vec![
        ("POST", "/api/redis/orders", order.clone()),
        ("POST", "/api/orders", order),
        ("PATCH", "/api/redis/orders/1/cancel", json!({})),
        ("PATCH", "/api/orders/1/cancel", json!({})),
        ("POST", "/api/products", product.clone()),
        ("PUT", "/api/products/1", product.clone()),
        ("PATCH", "/api/products/1", product),
        ("PUT", "/api/ops/selling", json!({ "open": true })),
        (
            "POST",
            "/api/products/1/discounts",
            json!({ "percentage": 10 }),
        ),
        (
            "POST",
            "/api/products/1/sales",
            json!({ "startsAt": "2026-01-01T00:00:00Z", "endsAt": "2026-01-02T00:00:00Z" }),
        ),
        (
            "POST",
            "/api/products/stock/inbound",
            json!({ "productId": 1, "quantity": 1, "reason": "" }),
        ),
        ("POST", "/api/products/1/stock", json!({ "change": 1 })),
        (
            "POST",
            "/api/products/stock/reserve",
            json!({ "productId": 1, "quantity": 1 }),
        ),
        ("POST", "/api/reservations/1/confirm", json!({})),
        ("POST", "/api/reservations/1/cancel", json!({})),
        ("POST", "/api/stores", store.clone()),
        ("PUT", "/api/stores/1", store),
        (
            "POST",
            "/api/stores/1/orders",
            json!({ "orderProducts": [{ "productId": 1, "quantity": 1 }], "totalAmount": 1_000 }),
        ),
        (
            "POST",
            "/api/webhooks",
            json!({ "url": "https://93.184.216.34/" }),
        ),
        (
            "PUT",
            "/api/webhooks/1",
            json!({ "url": "https://93.184.216.34/" }),
        ),
        ("PATCH", "/api/webhooks/1", json!({ "state": "PAUSED" })),
        ("PATCH", "/api/stores/1/orders/1/cancel", json!({})),
        (
            "POST",
            "/api/stores/1/orders/batch",
            json!({ "sales": [{}] }),
        ),
        (
            "POST",
            "/api/stores/1/oversold/1/resolve",
            json!({ "note": "x" }),
        ),
        (
            "POST",
            "/api/stores/1/invalid-sales/1/resolve",
            json!({ "note": "x" }),
        ),
        ("POST", "/api/works", json!({ "title": "x" })),
        ("PUT", "/api/works/1", json!({ "title": "x" })),
        (
            "POST",
            "/api/coupons",
            json!({ "name": "x", "discountRate": 10, "count": 1 }),
        ),
        ("POST", "/api/coupons/1/issue", json!({})),
        ("POST", "/api/v1/points/earn", points.clone()),
        ("POST", "/api/v1/points/use", points.clone()),
        ("POST", "/api/v1/points/1/cancel", json!({})),
        ("POST", "/api/v2/points/earn", points.clone()),
        ("POST", "/api/v2/points/use", points),
        ("POST", "/api/v2/points/1/cancel", json!({})),
        (
            "POST",
            "/api/auth/signup",
            json!({ "email": "x@example.com", "password": "open sesame", "confirmPassword": "open sesame" }),
        ),
        (
            "POST",
            "/api/token",
            json!({ "email": "x@example.com", "password": "open sesame" }),
        ),
        ("POST", "/api/token/refresh", json!({ "refresh": "x" })),
        (
            "POST",
            "/api/me/password",
            json!({ "currentPassword": "x", "newPassword": "y", "confirmPassword": "y" }),
        ),
        ("PATCH", "/api/users/2", json!({ "role": "admin" })),
    ]
}

/// The endpoints among these that require a caller.
fn every_callers_body() -> Vec<(&'static str, &'static str, Value)> {
    const ANYBODY: [&str; 3] = ["/api/auth/signup", "/api/token", "/api/token/refresh"];
    let mut bodies = every_body();
    bodies.retain(|(_, path, _)| !ANYBODY.contains(path));
    bodies
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
        for empty in [
            "SELECT COUNT(*) FROM sales",
            "SELECT COUNT(*) FROM discounts",
            "SELECT COUNT(*) FROM reservations",
            "SELECT COUNT(*) FROM offline_sales",
            "SELECT COUNT(*) FROM webhooks",
            "SELECT COUNT(*) FROM works",
            "SELECT COUNT(*) FROM coupons",
            "SELECT COUNT(*) FROM coupon_issues",
            "SELECT COUNT(*) FROM point_transactions",
            "SELECT COUNT(*) - 3 FROM locations",
        ] {
            assert_eq!(self.shop.count(empty).await, 0, "{empty}");
        }
        let people = "SELECT COUNT(*) FROM users WHERE password_hash IS NULL AND tokens_from = 0";
        assert_eq!(self.shop.count(people).await, 3, "a user was touched");
        self.shop.verify().await;
        self.service.stop().await;
    }
}

/// Asserts that the answer is a problem of the known form with one of these codes.
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
