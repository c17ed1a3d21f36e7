//! Pages: whole, in both languages, and only for those who may see them. Tests with a browser are
//! in `tests/browser`.

mod checkouts;
mod operations;
mod texts;

use serde_json::json;
use stock_client::{Answer, Call, Client};
use stock_domain::user::Role;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::support::{Shop, until};

const PUBLIC: [&str; 10] = [
    "/",
    "/?name=product&cursor=3",
    "/products/1",
    "/cart",
    "/cart?items=1x2,2x1",
    "/event",
    "/login",
    "/signup?next=/event",
    "/problems",
    "/problems/INSUFFICIENT_STOCK",
];
const ADMINS: [&str; 26] = [
    "/admin",
    "/admin/products",
    "/admin/products?only=active",
    "/admin/products/1",
    "/admin/stock",
    "/admin/stock?only=low",
    "/admin/movements?of=1",
    "/admin/sales",
    "/admin/orders",
    "/admin/reservations",
    "/admin/checkouts",
    "/admin/checkouts?only=open",
    "/admin/payments?only=refund-due",
    "/admin/stores",
    "/admin/oversold?of=1",
    "/admin/invalid-sales?of=1",
    "/admin/coupons",
    "/admin/works",
    "/admin/users",
    "/admin/points?of=2",
    "/admin/dead-letters",
    "/admin/quarantine",
    "/admin/checks",
    "/admin/webhooks",
    "/admin/audit-log",
    "/dashboard",
];

fn open<'a>(client: &'a Client, path: &str, lang: &str) -> Call<'a> {
    client
        .get(path)
        .header("accept", "text/html,application/xhtml+xml")
        .header("accept-language", lang)
}

/// Checks that a page is whole: HTML under a policy, every text in it, nothing from other sites, no
/// inline style or script.
fn check_whole(path: &str, lang: &str, page: &Answer) {
    let text = &page.text;
    assert_eq!(page.status, 200, "{path}: {text}");
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    let policy = &page.headers["content-security-policy"];
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
    assert!(text.contains(&format!("<html lang=\"{lang}\"")), "{path}");
    assert!(
        !text.contains("Unknown localization"),
        "{path} {lang}: {text}"
    );
    for outside in ["src=\"http", "href=\"http", "src=\"//", "href=\"//"] {
        assert!(!text.contains(outside), "{path} loads from elsewhere");
    }
    assert!(
        !text.contains("/assets/missing")
            && !text.contains(" style=")
            && !text.contains("<script>"),
        "{path}"
    );
    assert!(!text.contains(" onclick="), "{path}");
}

/// Gives the shop things of every kind, so that no page is empty.
async fn furnish(client: &Client) -> String {
    let make = async |path: &str, body| {
        let made = client.post(path).admin().json(&body).send().await;
        assert_eq!(made.status, 201, "{path}: {}", made.text);
        made
    };
    make("/api/works", json!({ "title": "<b>First</b> & last" })).await;
    make(
        "/api/coupons",
        json!({ "name": "Ten off", "discountRate": 10, "count": 5 }),
    )
    .await;
    make(
        "/api/coupons",
        json!({ "name": "Later", "discountAmount": 500, "validFrom": "2099-01-01T00:00:00Z" }),
    )
    .await;
    make("/api/products/2/discounts", json!({ "percentage": 12.5 })).await;
    make(
        "/api/products/3/sales",
        json!({ "startsAt": "2099-01-01T00:00:00Z", "endsAt": "2099-01-02T00:00:00Z", "limitPerUser": 2 }),
    )
    .await;
    make(
        "/api/v2/points/earn",
        json!({ "userId": 2, "amount": 700, "description": "Welcome" }),
    )
    .await;
    let issue = client
        .post("/api/coupons/1/issue")
        .user(2)
        .json(&json!({ "workId": 1 }));
    assert_eq!(issue.send().await.status, 201);
    let hold = json!({ "productId": 1, "quantity": 2 });
    let held = client
        .post("/api/products/stock/reserve")
        .user(2)
        .json(&hold)
        .send()
        .await;
    assert_eq!(held.status, 201, "{}", held.text);
    let body = stock_client::order_json(&[(1, 1)]);
    let checkout = client
        .post("/api/checkouts")
        .user(2)
        .json(&body)
        .send()
        .await;
    let path = format!("/api/checkouts/{}/confirm", checkout.member("checkoutId"));
    let lie = json!({ "paymentId": "p", "amount": 1 });
    assert_eq!(
        client.post(&path).admin().json(&lie).send().await.status,
        409
    );
    let sales = json!({ "deviceId": "till 2", "sales": [{ "key": "<b>17" }] });
    let batch = client.post("/api/stores/1/orders/batch").admin();
    assert_eq!(batch.json(&sales).send().await.status, 200);
    let order = client.order("/api/redis/orders", 2, &[(1, 1)]).send().await;
    order.order_id()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_whole_in_both_languages() {
    let shop = Shop::open(4, 50).await;
    let service = shop.serve().await;
    let client = &service.client;
    let order = furnish(client).await;
    shop.drained().await;
    for (asked, lang) in [("en", "en"), ("ko-KR,ko;q=0.9,en;q=0.8", "ko")] {
        for path in PUBLIC {
            check_whole(path, lang, &open(client, path, asked).send().await);
            let read = open(client, path, asked).user(2).send().await;
            if path == "/login" {
                // A user who has logged in is sent on.
                assert_eq!((read.status, read.headers["location"].as_str()), (303, "/"));
            } else {
                check_whole(path, lang, &read);
            }
        }
        for path in ADMINS {
            check_whole(path, lang, &open(client, path, asked).admin().send().await);
        }
        let path = format!("/orders/{order}");
        let page = open(client, &path, asked).user(2).send().await;
        check_whole(&path, lang, &page);
        assert!(page.text.contains("product 1") && page.text.contains(&order));
    }
    let shop_page = open(client, "/", "en").user(2).send().await.text;
    for part in [
        "data-state=\"buy\"",
        "data-state=\"soon\"",
        "−12 %",
        "₩875",
        "At most 2 per buyer",
        "700 points",
        "Ten off",
        &order,
    ] {
        assert!(shop_page.contains(part), "{part} in {shop_page}");
    }
    // A till's sale that could not be read is shown as it was sent, with the form that resolves it.
    let path = "/admin/oversold?of=1";
    let oversold = open(client, path, "ko").admin().send().await.text;
    assert!(oversold.contains("/admin/invalid-sales?of=1"), "{oversold}");
    let path = "/admin/invalid-sales?of=1";
    let kept = open(client, path, "ko").admin().send().await.text;
    for part in [
        "till 2",
        "&#60;b&#62;17",
        "UNPROCESSABLE",
        "/api/stores/1/invalid-sales/1/resolve",
        "처리 완료",
    ] {
        assert!(kept.contains(part), "{part} in {kept}");
    }
    let event = open(client, "/event", "ko").user(2).send().await.text;
    // Texts of admins are shown as text, whatever they look like.
    assert!(
        event.contains("&#60;b&#62;First&#60;/b&#62; &#38; last"),
        "{event}"
    );
    assert!(event.contains("data-event-state=\"coming\"") && event.contains("진행 중"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_admin_made_is_on_the_next_page() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let store = json!({ "name": "North gate", "latitude": 37.5, "longitude": 127.0 });
    for (path, body, page, shown) in [
        (
            "/api/coupons",
            json!({ "name": "Opening day", "discountRate": 10, "count": 2 }),
            "/event",
            "Opening day",
        ),
        (
            "/api/works",
            json!({ "title": "First edition" }),
            "/event",
            "First edition",
        ),
        ("/api/stores", store, "/products/1", "North gate"),
    ] {
        let before = open(client, page, "en").user(2).send().await.text;
        assert!(!before.contains(shown), "{before}");
        let made = client.post(path).admin().json(&body).send().await;
        assert_eq!(made.status, 201, "{}", made.text);
        let after = open(client, page, "en").user(2).send().await.text;
        assert!(after.contains(shown), "{after}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_let_in_whom_they_should() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    for path in [
        "/admin",
        "/admin/users",
        "/admin/products/1",
        "/dashboard",
        "/dashboard/live",
        "/orders/7",
    ] {
        let nobody = open(client, path, "en").send().await;
        let next = path.replace('/', "%2F");
        assert_eq!(nobody.status, 303, "{path}");
        assert_eq!(nobody.headers["location"], format!("/login?next={next}"));
        if path != "/orders/7" {
            let buyer = open(client, path, "en").user(2).send().await;
            assert_eq!(buyer.status, 403, "{path}");
            assert!(
                buyer.text.contains("Your account may not do this."),
                "{}",
                buyer.text
            );
        }
    }
    // Another user's order answers 404.
    let order = client
        .order("/api/redis/orders", 2, &[(1, 1)])
        .send()
        .await
        .order_id();
    let path = format!("/orders/{order}");
    assert_eq!(open(client, &path, "en").user(3).send().await.status, 404);
    assert_eq!(open(client, &path, "en").user(2).send().await.status, 200);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_says_what_was_wrong_beside_its_field() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let post = async |path: &str, form: &str| {
        let call = client.post(path).header("accept", "text/html").form(form);
        call.send().await
    };
    let form = "email=new%40example.com&password=open+sesame%2C+please&confirm_password=open+sesame%2C+please";
    let made = post("/account/signup", &format!("{form}&next=%2Fevent")).await;
    assert_eq!(
        (made.status, made.headers["location"].as_str()),
        (303, "/login?new=true&next=%2Fevent")
    );
    for (path, form, status, said) in [
        (
            "/account/signup",
            form,
            409,
            "There is an account with this address already.",
        ),
        (
            "/account/signup",
            "email=x&password=open+sesame&confirm_password=open+sesame",
            422,
            "This is not an email address.",
        ),
        (
            "/account/signup",
            "email=a%40b.example&password=short&confirm_password=short",
            422,
            "8 to 128 characters",
        ),
        (
            "/account/signup",
            "email=a%40b.example&password=open+sesame&confirm_password=other",
            422,
            "The two passwords differ.",
        ),
        (
            "/account/login",
            "email=new%40example.com&password=x",
            401,
            "Email or password is wrong.",
        ),
    ] {
        let shown = post(path, form).await;
        assert_eq!(shown.status, status, "{}", shown.text);
        assert!(
            shown.text.contains("role=\"alert\"") && shown.text.contains("aria-invalid=\"true\""),
            "{}",
            shown.text
        );
        assert!(shown.text.contains(said), "{said} in {}", shown.text);
        // Typed values stay, except the passwords.
        let email = form.split(['=', '&']).nth(1).unwrap().replace("%40", "@");
        assert!(
            shown.text.contains(&format!("value=\"{email}\"")),
            "{}",
            shown.text
        );
        assert!(!shown.text.contains("sesame"));
    }
    // A client that does not ask for a page gets the answer of the API.
    let machine = client
        .post("/account/login")
        .form("email=new%40example.com&password=x");
    assert_eq!(machine.send().await.code(), "INVALID_CREDENTIALS");
    for (next, expected) in [
        ("%2Fevent", "/event"),
        ("%2F%2Fevil.example", "/"),
        ("https%3A%2F%2Fevil.example", "/"),
    ] {
        let form = format!("email=new%40example.com&password=open+sesame%2C+please&next={next}");
        let login = post("/account/login", &form).await;
        assert_eq!(
            (login.status, login.headers["location"].as_str()),
            (303, expected)
        );
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chosen_language_is_kept() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let chosen = open(client, "/?name=a&lang=ko", "en").send().await;
    assert_eq!(
        (chosen.status, chosen.headers["location"].as_str()),
        (303, "/?name=a")
    );
    let cookie = &chosen.headers["set-cookie"];
    assert!(cookie.starts_with("lang=ko; Path=/; Max-Age="), "{cookie}");
    let page = open(client, "/", "en")
        .header("cookie", "session=x; lang=ko")
        .send()
        .await;
    assert!(page.text.contains("<html lang=\"ko\""));
    // The language switch keeps the query of the page.
    let page = open(client, "/?name=a&cursor=3", "en").send().await;
    assert!(
        page.text
            .contains("href=\"/?name=a&#38;cursor=3&#38;lang=ko\""),
        "{}",
        page.text
    );
    let page = open(client, "/login?next=%2Fevent", "en").send().await;
    assert!(
        page.text
            .contains("href=\"/login?next=%2Fevent&#38;lang=ko\""),
        "{}",
        page.text
    );
    assert!(
        page.text.contains("href=\"/login?next=%2Fevent\""),
        "{}",
        page.text
    );
    let wrong = client.post("/account/login").header("accept", "text/html");
    let wrong = wrong
        .form("email=a%40b.example&password=x&next=%2Fevent")
        .send()
        .await;
    assert!(
        wrong
            .text
            .contains("href=\"/login?next=%2Fevent&#38;lang=ko\""),
        "{}",
        wrong.text
    );
    let unknown = open(client, "/?lang=fr", "ko").send().await;
    assert!(unknown.status == 200 && unknown.text.contains("<html lang=\"ko\""));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn assets_are_kept_for_ever_under_names_of_their_own() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let page = open(client, "/", "en").send().await.text;
    let links: Vec<&str> = page
        .split('"')
        .filter(|part| part.starts_with("/assets/"))
        .collect();
    assert!(links.len() >= 6, "{links:?}");
    for link in links {
        let asset = client.get(link).send().await;
        assert_eq!(asset.status, 200, "{link}");
        assert_eq!(
            asset.headers["cache-control"],
            "public, max-age=31536000, immutable"
        );
        assert_eq!(asset.headers["x-content-type-options"], "nosniff");
        let kind = link.rsplit('.').next().unwrap();
        assert!(asset.headers["content-type"].contains(if kind == "js" {
            "javascript"
        } else {
            kind
        }));
    }
    assert_eq!(client.get("/assets/pages.css").status().await, 404);
    let small = client
        .call("HEAD", "/api/docs/swagger-ui-bundle.js")
        .header("accept-encoding", "gzip");
    assert_eq!(small.send().await.headers["content-encoding"], "gzip");
    for path in ["/api/docs", "/api/redoc", "/api/docs/swagger-ui.css"] {
        assert_eq!(client.get(path).status().await, 200, "{path}");
    }
    assert_eq!(client.get("/api/docs/no.js").status().await, 404);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_is_told_of_a_failure_by_a_page_and_a_client_by_a_problem() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let page = open(client, "/nothing", "ko").send().await;
    assert_eq!(
        (page.status, page.headers["content-type"].as_str()),
        (404, "text/html; charset=utf-8")
    );
    assert!(
        page.text.contains("페이지를 찾을 수 없습니다")
            && page.text.contains("/problems/NOT_FOUND")
    );
    assert!(page.headers["content-security-policy"].contains("default-src 'none'"));
    let problem = client.get("/nothing").send().await;
    assert_eq!(problem.code(), "NOT_FOUND");
    // A method that a page does not have is a problem too.
    let refused = client.post("/event").send().await;
    assert_eq!(
        (refused.status, refused.code()),
        (405, "METHOD_NOT_ALLOWED")
    );
    assert_eq!(
        open(client, "/account/login", "en").send().await.status,
        405
    );
    // The API answers JSON to everybody.
    let problem = open(client, "/api/orders/1", "ko").send().await;
    assert_eq!(problem.code(), "UNAUTHORIZED");
    // The type of a problem leads to a page.
    let leads = client
        .get(problem.body["type"].as_str().unwrap())
        .send()
        .await;
    assert!(leads.status == 200 && leads.text.contains("UNAUTHORIZED"));
    assert_eq!(client.get("/problems/NO_SUCH").status().await, 404);
    // A broken or empty query counts as none.
    assert_eq!(
        open(client, "/?cursor=x&name=", "en").send().await.status,
        200
    );
    assert_eq!(
        open(client, "/admin/nothing", "en")
            .admin()
            .send()
            .await
            .status,
        404
    );
    assert_eq!(
        open(client, "/admin/products?cursor=x", "en")
            .admin()
            .send()
            .await
            .status,
        422
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_follows_what_is_sold() {
    let shop = Shop::open(2, 50).await;
    let service = shop.serve().await;
    let client = &service.client;
    for _ in 0..3 {
        let order = client.order("/api/redis/orders", 2, &[(1, 1)]);
        assert_eq!(order.send().await.status, 201);
    }
    until("the dashboard shows the stock that is left", || async {
        let page = open(client, "/dashboard", "en").admin().send().await;
        page.text.contains("<p class=\"figure\">47</p>")
            && page.text.contains("<code>ACCEPTED</code>")
    })
    .await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_looks_at_pages_takes_no_stream_of_those_who_built_on_the_interface() {
    let mut shop = Shop::open(1, 10).await;
    shop.config.http.page_streams_max = 1;
    shop.config.http.event_streams_max = 1;
    let service = shop.serve().await;
    let client = &service.client;
    let watch = async |path: &str, header: String| {
        let mut stream = TcpStream::connect(&client.address).await.unwrap();
        let head = format!("GET {path}?productId=1 HTTP/1.1\r\nhost: x\r\n{header}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        let status = lines.next_line().await.unwrap().unwrap();
        (status, lines)
    };
    let (first, _page) = watch("/live/levels", String::new()).await;
    assert!(first.contains("200"), "{first}");
    let (second, _) = watch("/live/levels", String::new()).await;
    assert!(second.contains("503"), "{second}");
    // A stream for a page must name its products.
    for (path, status) in [("/live/levels", 422), ("/live/levels?productId=x", 422)] {
        assert_eq!(client.get(path).status().await, status, "{path}");
    }
    let bearer = format!("authorization: {}\r\n", client.bearer(2, Role::User));
    let (built, _stream) = watch("/api/events/levels", bearer).await;
    assert!(built.contains("200"), "{built}");
    service.stop().await;
}
