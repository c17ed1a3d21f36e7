//! Access: every endpoint in one table, called by every kind of caller.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use stock_domain::user::Role;

use super::{PASSWORD, log_in, log_in_with};
use crate::support::Shop;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Anyone,
    Somebody,
    /// An admin, or a till of that store; a store's token without a store belongs to no store.
    Till,
    Admin,
}
use Who::{Admin, Anyone, Somebody, Till};

const ACCESS: [(&str, &str, Who); 111] = [
    ("post", "/api/redis/orders", Somebody),
    ("patch", "/api/redis/orders/{order_id}/cancel", Somebody),
    ("post", "/api/orders", Somebody),
    ("post", "/api/orders/batch", Admin),
    ("get", "/api/orders", Somebody),
    ("get", "/api/orders/{order_id}", Somebody),
    ("patch", "/api/orders/{order_id}/cancel", Somebody),
    ("post", "/api/orders/{order_id}/returns", Admin),
    ("get", "/api/redis/products", Anyone),
    ("get", "/api/redis/products/{id}", Anyone),
    ("get", "/api/products", Anyone),
    ("post", "/api/products", Admin),
    ("get", "/api/products/{id}", Anyone),
    ("put", "/api/products/{id}", Admin),
    ("patch", "/api/products/{id}", Admin),
    ("delete", "/api/products/{id}", Admin),
    ("post", "/api/products/{id}/discounts", Admin),
    ("post", "/api/products/{id}/sales", Admin),
    ("patch", "/api/products/{id}/sales/{sale_id}", Admin),
    ("delete", "/api/products/{id}/sales/{sale_id}", Admin),
    ("get", "/api/sales", Admin),
    ("get", "/api/products/stock/available", Somebody),
    ("post", "/api/products/stock/inbound", Admin),
    ("post", "/api/products/{id}/stock", Admin),
    ("get", "/api/products/{id}/stock/movements", Admin),
    ("get", "/api/products/{id}/stock/statistics", Admin),
    ("post", "/api/products/stock/reserve", Somebody),
    ("get", "/api/reservations", Somebody),
    ("get", "/api/reservations/{id}", Somebody),
    ("post", "/api/reservations/{id}/confirm", Admin),
    ("post", "/api/reservations/{id}/cancel", Somebody),
    ("post", "/api/checkouts", Somebody),
    ("get", "/api/checkouts", Somebody),
    ("get", "/api/checkouts/{id}", Somebody),
    ("post", "/api/checkouts/{id}/extend", Somebody),
    ("post", "/api/checkouts/{id}/confirm", Admin),
    ("post", "/api/checkouts/{id}/cancel", Somebody),
    ("get", "/api/payments", Admin),
    ("get", "/api/stores", Anyone),
    ("post", "/api/stores", Admin),
    ("put", "/api/stores/{store_id}", Admin),
    ("get", "/api/stores/{store_id}/products", Anyone),
    (
        "get",
        "/api/stores/{store_id}/products/{product_id}/stock",
        Anyone,
    ),
    (
        "get",
        "/api/stores/{store_id}/products/{product_id}/stock/nearby",
        Anyone,
    ),
    ("post", "/api/stores/{store_id}/orders", Till),
    (
        "patch",
        "/api/stores/{store_id}/orders/{order_id}/cancel",
        Till,
    ),
    ("post", "/api/stores/{store_id}/orders/batch", Till),
    ("get", "/api/stores/{store_id}/oversold", Till),
    (
        "post",
        "/api/stores/{store_id}/oversold/{sale_id}/resolve",
        Till,
    ),
    ("get", "/api/stores/{store_id}/invalid-sales", Till),
    (
        "post",
        "/api/stores/{store_id}/invalid-sales/{id}/resolve",
        Till,
    ),
    ("post", "/api/stock/import", Admin),
    ("get", "/api/stock/import/{id}", Admin),
    ("get", "/api/stock/export", Admin),
    ("get", "/api/works", Anyone),
    ("post", "/api/works", Admin),
    ("put", "/api/works/{id}", Admin),
    ("delete", "/api/works/{id}", Admin),
    ("get", "/api/coupons", Anyone),
    ("post", "/api/coupons", Admin),
    ("get", "/api/coupons/mine", Somebody),
    ("post", "/api/coupons/{id}/issue", Somebody),
    ("post", "/api/v1/points/earn", Admin),
    ("post", "/api/v1/points/use", Somebody),
    ("post", "/api/v1/points/{id}/cancel", Somebody),
    ("get", "/api/v1/points/users/{user_id}/balance", Somebody),
    ("get", "/api/v1/points/users/{user_id}/history", Somebody),
    ("get", "/api/v1/points/users/{user_id}/reports", Somebody),
    ("post", "/api/v2/points/earn", Admin),
    ("post", "/api/v2/points/use", Somebody),
    ("post", "/api/v2/points/{id}/cancel", Somebody),
    ("get", "/api/v2/points/users/{user_id}/balance", Somebody),
    ("get", "/api/v2/points/users/{user_id}/history", Somebody),
    ("get", "/api/v2/points/users/{user_id}/reports", Somebody),
    ("post", "/api/auth/signup", Anyone),
    ("post", "/api/token", Anyone),
    ("post", "/api/token/refresh", Anyone),
    ("get", "/api/me", Somebody),
    ("post", "/api/me/password", Somebody),
    ("post", "/api/auth/logout-everywhere", Somebody),
    ("get", "/api/users", Admin),
    ("patch", "/api/users/{id}", Admin),
    ("delete", "/api/users/{id}", Admin),
    ("post", "/account/signup", Anyone),
    ("post", "/account/login", Anyone),
    ("post", "/account/logout", Somebody),
    ("get", "/api/keys", Admin),
    ("post", "/api/keys", Admin),
    ("delete", "/api/keys/{id}", Admin),
    ("get", "/api/webhooks", Admin),
    ("post", "/api/webhooks", Admin),
    ("get", "/api/webhooks/{id}", Admin),
    ("put", "/api/webhooks/{id}", Admin),
    ("patch", "/api/webhooks/{id}", Admin),
    ("delete", "/api/webhooks/{id}", Admin),
    ("get", "/api/webhooks/{id}/deliveries", Admin),
    (
        "post",
        "/api/webhooks/{id}/deliveries/{delivery_id}/resend",
        Admin,
    ),
    ("get", "/api/events/levels", Somebody),
    ("put", "/api/ops/selling", Admin),
    ("get", "/api/ops/status", Admin),
    ("get", "/api/ops/checks", Admin),
    ("post", "/api/ops/verify", Admin),
    ("get", "/api/ops/dead-letters", Admin),
    ("post", "/api/ops/dead-letters/{position}/retry", Admin),
    ("get", "/api/ops/quarantine", Admin),
    ("post", "/api/ops/quarantine/{account}/release", Admin),
    ("get", "/api/ops/audit-log", Admin),
    ("get", "/api/openapi.json", Anyone),
    ("get", "/livez", Anyone),
    ("get", "/readyz", Anyone),
    ("get", "/metrics", Anyone),
];

/// A text with every name of a path's parameter as `{}`.
fn documented(text: &str) -> String {
    let mut parts = text.split('{');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let behind = part.split_once('}').map_or(part, |(_, behind)| behind);
        text + "{}" + behind
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_lets_in_whom_it_should_and_nobody_else() {
    // Danger: a new route does not check its caller. Method: the served document names every route;
    // each is called without a token, and by a user, a till and an admin.
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let document = client.get("/api/openapi.json").send().await.body;
    let mut served: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| (method.clone(), path.clone()))
        })
        .collect();
    let listed: BTreeSet<(String, String)> = ACCESS
        .iter()
        .map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned()))
        .collect();
    // A signature says who sends it, and no token ([`crate::checkouts`]).
    served.remove(&("post".to_owned(), "/api/payments/events".to_owned()));
    assert_eq!(served, listed, "every endpoint stands in the table");
    let page = include_str!("../../../../docs/endpoints.md");
    for (method, path, _) in ACCESS {
        let row = documented(&format!("`{} {path}`", method.to_uppercase()));
        assert!(
            documented(page).contains(&row),
            "docs/endpoints.md lacks {row}"
        );
    }
    let mut user = 1_000;
    for (method, path, who) in ACCESS {
        let real = ["{order_id}", "{user_id}", "{store_id}", "{product_id}", "{sale_id}", "{delivery_id}", "{position}"]
            .iter()
            .fold(path.to_owned(), |real, name| real.replace(name, "1"))
            .replace("{id}", "999")
            // A stream does not end by itself, so this query keeps it from beginning.
            .replace("/api/events/levels", "/api/events/levels?productId=x");
        let call = || client.call(&method.to_uppercase(), &real);
        let nobody = call().send().await;
        assert_eq!(
            nobody.status == 401 && nobody.code() == "UNAUTHORIZED",
            who != Anyone,
            "{method} {path}: {}",
            nobody.text
        );
        for role in [Role::User, Role::Store, Role::Admin] {
            user += 1;
            let answer = call().role(user, role).send().await;
            // These endpoints also look the user up, and users of these ids are in no table.
            let is_of_table = ["/api/me", "/api/auth/logout-everywhere"].contains(&path);
            let asks_table = is_of_table && answer.status == 401;
            assert!(
                answer.status != 401 || asks_table,
                "{method} {path} as {role:?}: {}",
                answer.text
            );
            let refused = answer.status == 403;
            assert_eq!(
                refused,
                matches!(who, Admin | Till) && role != Role::Admin,
                "{method} {path} as {role:?}"
            );
        }
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_anothers_is_not_there() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let order = client
        .order("/api/redis/orders", 2, &[(1, 1)])
        .send()
        .await
        .order_id();
    let path = format!("/api/orders/{order}");
    let cancels = [
        format!("/api/redis/orders/{order}/cancel"),
        format!("{path}/cancel"),
    ];
    for role in [Role::User, Role::Store] {
        let show = client.get(&path).role(3, role).send().await;
        assert_eq!((show.status, show.code()), (404, "ORDER_NOT_FOUND"));
        for cancel in &cancels {
            assert_eq!(client.patch(cancel).role(3, role).status().await, 404);
        }
        let list = "/api/orders?userId=2";
        assert_eq!(client.get(list).role(3, role).status().await, 403);
    }
    assert_eq!(client.get(&path).user(2).status().await, 200);
    assert_eq!(client.get(&path).admin().status().await, 200);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_admin_is_made_from_the_environment_once() {
    let shop = Shop::open(1, 10).await;
    let create = |email: &str, password: &str| {
        let out = Command::new(env!("CARGO_BIN_EXE_stock-online"))
            .args(["create-admin", "--from-env"])
            .envs(shop.variables())
            .env("STOCK_ADMIN_EMAIL", email)
            .env("STOCK_ADMIN_PASSWORD", password)
            .output()
            .unwrap();
        let text = [out.stdout, out.stderr].concat();
        (out.status.code(), String::from_utf8(text).unwrap())
    };
    let admins = "SELECT COUNT(*) FROM users WHERE role = 'admin'";
    for (email, password, code, said) in [
        ("", "", 0, "STOCK_ADMIN_EMAIL is not set"),
        ("", PASSWORD, 1, "STOCK_ADMIN_EMAIL is missing"),
        ("boss@example.com", "", 1, "STOCK_ADMIN_PASSWORD is missing"),
        ("boss@example.com", "password", 1, "STOCK_ADMIN_PASSWORD: "),
        ("boss", PASSWORD, 1, "STOCK_ADMIN_EMAIL: "),
    ] {
        let (got, text) = create(email, password);
        assert_eq!((got, text.contains(said)), (Some(code), true), "{text}");
        assert_eq!(shop.count(admins).await, 1, "{email} {password}");
    }
    let (code, text) = create("boss@example.com", PASSWORD);
    assert_eq!((code, text.contains("is admin")), (Some(0), true), "{text}");
    // An account that exists stays as it is, also when the password is another one.
    for (email, role) in [("boss@example.com", "admin"), ("user2@example.com", "user")] {
        let (code, text) = create(email, "another password, please");
        let is_said = text.contains(&format!("with the role {role}"));
        assert_eq!((code, is_said), (Some(0), true), "{text}");
    }
    assert_eq!(shop.count(admins).await, 2);
    let service = shop.serve().await;
    log_in(&service.client, "boss@example.com").await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_admin_is_made_on_the_command_line() {
    let shop = Shop::open(1, 10).await;
    let create = |email: &str, password: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_stock-online"))
            .args(["create-admin", "--email", email])
            .envs(shop.variables())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that is refused before it reads the password closes the pipe.
        drop(writeln!(child.stdin.take().unwrap(), "{password}"));
        let out = child.wait_with_output().unwrap();
        let text = [out.stdout, out.stderr].concat();
        (out.status.code(), String::from_utf8(text).unwrap())
    };
    assert_eq!(create("boss@example.com", "password").0, Some(1));
    assert_eq!(create("boss", PASSWORD).0, Some(2));
    let (code, said) = create("Boss@example.com", PASSWORD);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(create("boss@example.com", PASSWORD).0, Some(1));
    let service = shop.serve().await;
    let (access, _) = log_in(&service.client, "boss@example.com").await;
    let users = service
        .client
        .get("/api/users?limit=2")
        .bearer(&access)
        .send()
        .await;
    assert_eq!(users.status, 200);
    assert_eq!(users.body["items"].as_array().unwrap().len(), 2);
    let next = format!("/api/users?cursor={}", users.member("nextCursor"));
    let rest = service.client.get(&next).bearer(&access).send().await;
    assert_eq!(
        rest.body["items"].as_array().unwrap().len(),
        2,
        "{}",
        rest.text
    );
    // Seeded users have no password that anybody knows.
    assert_eq!(
        log_in_with(&service.client, "user1@example.com", "password")
            .await
            .status,
        401
    );
    service.stop().await;
}
