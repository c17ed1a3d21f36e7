//! Bad content of bodies: bytes, numbers, lines, texts.

use serde_json::{Value, json};

use super::{Untouched, assert_problem, every_body};
use crate::support::Shop;

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
        (
            "two byte order marks",
            b"\xef\xbb\xbf\xef\xbb\xbf{}".to_vec(),
            NOT_JSON,
        ),
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
    for (method, path, good) in every_body() {
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
        // A batch of a till may be larger than other bodies.
        let bytes = if path.ends_with("/batch") {
            5_000_000
        } else {
            1_000_000
        };
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(bytes));
        let call = untouched
            .client()
            .call(method, path)
            .admin()
            .raw(large.as_bytes());
        let answer = call.header("content-type", "application/json").send().await;
        assert_problem(
            &answer,
            &["PAYLOAD_TOO_LARGE"],
            &format!("{method} {path} with {bytes} bytes"),
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
        "1e-3",
        "\"5\"",
        "true",
        "[]",
        "{}",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "1e30",
        "1e400",
        many_digits.as_str(),
    ];
    let order = r#"{"orderProducts":[{"productId":1,"quantity":1,"unitPrice":1000}],"totalAmount":1000,"deliveryType":"PICKUP","storeId":1,"usePoints":0,"userId":2}"#;
    let product = r#"{"name":"x","description":"","price":1,"status":"ACTIVE","stock":0,"minStockLevel":0,"reorderPoint":0}"#;
    // Zero is valid for points, prices and stock; 2^53 is valid for some members, but for no
    // amount.
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
    let rest = [
        (
            "/api/coupons",
            r#"{"name":"x","discountAmount":#}"#,
            &["UNPROCESSABLE"][..],
        ),
        (
            "/api/coupons",
            r#"{"name":"x","discountRate":#}"#,
            &["UNPROCESSABLE"],
        ),
        (
            "/api/coupons",
            r#"{"name":"x","discountRate":10,"count":#}"#,
            &["UNPROCESSABLE"],
        ),
        (
            "/api/coupons",
            r#"{"name":"x","discountRate":10,"userId":#}"#,
            &["UNPROCESSABLE", "NOT_FOUND"],
        ),
        (
            "/api/coupons/1/issue",
            r#"{"workId":#}"#,
            &["UNPROCESSABLE", "COUPON_NOT_FOUND"],
        ),
        (
            "/api/v1/points/earn",
            r#"{"userId":2,"amount":#,"description":""}"#,
            &["UNPROCESSABLE"],
        ),
        (
            "/api/v2/points/use",
            r#"{"userId":1,"amount":#,"description":""}"#,
            &["UNPROCESSABLE"],
        ),
        (
            "/api/v2/points/earn",
            r#"{"userId":#,"amount":1,"description":""}"#,
            &["UNPROCESSABLE", "NOT_FOUND"],
        ),
    ];
    for number in numbers {
        for (path, body, codes) in rest {
            // A rate may have decimals, so 1.5 percent is valid.
            if number == "1.5" && body.contains("\"discountRate\":#") {
                continue;
            }
            let what = format!("{path} {body} with {number:.40}");
            let answer = send("POST", path, body.replace('#', number)).await;
            assert_problem(&answer, codes, &what);
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
        "\u{e9} and \u{ad00}",
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
    shop.verify().await;
    service.stop().await;
}
