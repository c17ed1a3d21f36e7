//! D1 to D13; the pages D14 to D18 are tested in [`super`], and in a browser.

use serde_json::json;

use super::{check, send, served};

const BOTH: [&str; 2] = ["", "/seeds/toodat"];
const PASSWORD: &str = "open sesame, please";

#[tokio::test(flavor = "multi_thread")]
async fn somebody_signs_up_logs_in_draws_and_logs_out() {
    let (_shop, service) = served(1, 10).await;
    let client = &service.client;
    for title in ["one", "two", "three"] {
        assert_eq!(
            send(
                client.post("/api/works").admin(),
                &json!({ "title": title })
            )
            .await
            .status,
            201
        );
    }
    let coupon = json!({ "name": "Opening", "discountRate": 10, "count": 4 });
    assert_eq!(
        send(client.post("/api/coupons").admin(), &coupon)
            .await
            .status,
        201
    );
    for (base, email) in BOTH.iter().zip(["one@example.com", "two@example.com"]) {
        let path = |path: &str| format!("{base}{path}");
        let body = json!({ "email": email, "password": PASSWORD, "confirm_password": PASSWORD });
        let made = send(client.post(&path("/account/signup/")), &body).await;
        assert_eq!(
            (made.status, &made.body),
            (201, &json!({ "email": email })),
            "{}",
            made.text
        );
        let taken = send(client.post(&path("/account/signup/")), &body).await;
        check(
            &taken,
            400,
            &json!({ "email": ["user의 email은/는 이미 존재합니다."] }),
        );
        let differ =
            json!({ "email": "x@example.com", "password": PASSWORD, "confirm_password": "1234" });
        let differ = send(client.post(&path("/account/signup/")), &differ).await;
        check(
            &differ,
            400,
            &json!({ "non_field_errors": ["비밀번호가 일치하지 않습니다."] }),
        );
        let weak =
            json!({ "email": "x@example.com", "password": "1234", "confirm_password": "1234" });
        let weak = send(client.post(&path("/account/signup/")), &weak).await;
        assert_eq!(weak.status, 400, "{}", weak.text);
        assert!(weak.body["password"][0].is_string(), "{}", weak.text);

        let wrong = "이메일 혹은 비밀번호가 올바르지 않습니다";
        for (email, password) in [(email, "wrong"), ("nobody@example.com", PASSWORD)] {
            let body = json!({ "email": email, "password": password });
            let refused = send(client.post(&path("/account/login/")), &body).await;
            check(&refused, 400, &json!({ "result": wrong }));
        }
        let body = json!({ "email": email, "password": PASSWORD });
        let foreign = client
            .post(&path("/account/login/"))
            .header("sec-fetch-site", "cross-site");
        assert_eq!(send(foreign, &body).await.status, 403);
        let login = send(client.post(&path("/account/login/")), &body).await;
        check(&login, 200, &json!({ "result": "로그인 성공" }));
        let cookie = login
            .cookies
            .iter()
            .find(|cookie| cookie.starts_with("session="));
        let cookie = cookie.unwrap().clone();
        let own = |method: &str, of: &str| client.call(method, &path(of)).header("cookie", &cookie);

        let works = own("GET", "/work/").send().await;
        assert_eq!(works.status, 200, "{}", works.text);
        let titles: Vec<&str> = works
            .body
            .as_array()
            .unwrap()
            .iter()
            .map(|of| of["title"].as_str().unwrap())
            .collect();
        assert_eq!(titles, ["one", "two", "three"]);
        super::check_members(
            &works.body[0],
            &json!({ "id": 1, "created_at": "*", "updated_at": "*" }),
            &works.text,
        );

        let drawn = send(
            own("POST", "/couponuser/"),
            &json!({ "coupon": 1, "work": 1 }),
        )
        .await;
        check(
            &drawn,
            201,
            &json!({ "id": "*", "coupon": 1, "user": "*", "work": 1, "code": "*",
            "is_used": false, "created_at": "*", "updated_at": "*" }),
        );
        assert_eq!(drawn.member("code").len(), 8);
        let again = send(
            own("POST", "/couponuser/"),
            &json!({ "coupon": 1, "work": 1 }),
        )
        .await;
        check(&again, 400, &json!({ "result": "이미 쿠폰을 받았습니다" }));
        let second = send(
            own("POST", "/couponuser/"),
            &json!({ "coupon": 1, "work": 2 }),
        )
        .await;
        assert_eq!(second.status, 201, "{}", second.text);
        for (coupon, work) in [(9, 1), (1, 9)] {
            let body = json!({ "coupon": coupon, "work": work });
            check(
                &send(own("POST", "/couponuser/"), &body).await,
                400,
                &json!({ "result": "*" }),
            );
        }
        if *base == BOTH[1] {
            // Four of four codes are drawn. Who has one hears that first.
            let none = send(
                own("POST", "/couponuser/"),
                &json!({ "coupon": 1, "work": 3 }),
            )
            .await;
            check(
                &none,
                400,
                &json!({ "result": "쿠폰이 모두 소진되었습니다" }),
            );
            let before = send(
                own("POST", "/couponuser/"),
                &json!({ "coupon": 1, "work": 1 }),
            )
            .await;
            check(&before, 400, &json!({ "result": "이미 쿠폰을 받았습니다" }));
        }

        let logout = own("POST", "/account/logout/").send().await;
        check(&logout, 200, &json!({ "result": "로그아웃 성공" }));
        assert_eq!(own("GET", "/work/").send().await.status, 403);
        let stranger = client.post(&path("/account/logout/")).send().await;
        check(&stranger, 403, &json!({ "detail": "*" }));
        for (method, of) in [("GET", "/work/"), ("POST", "/couponuser/")] {
            let call = client
                .call(method, &path(of))
                .json(&json!({ "coupon": 1, "work": 1 }));
            check(&call.send().await, 403, &json!({ "detail": "*" }));
        }
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_is_still_the_pages() {
    let (_shop, service) = served(1, 10).await;
    let client = &service.client;
    let fields = "email=one%40example.com&password=open+sesame%2C+please&confirm_password=open+sesame%2C+please";
    let made = client.post("/account/signup").form(fields).send().await;
    assert_eq!(
        (made.status, made.headers["location"].as_str()),
        (303, "/login?new=true")
    );
    let login = client
        .post("/account/login")
        .form("email=one%40example.com&password=open+sesame%2C+please");
    let login = login.send().await;
    assert_eq!(
        (login.status, login.headers["location"].as_str()),
        (303, "/")
    );
    // A type has no case.
    let upper = client
        .post("/account/login")
        .raw(b"email=one%40example.com&password=open+sesame%2C+please")
        .header(
            "content-type",
            "Application/X-WWW-Form-Urlencoded; charset=UTF-8",
        );
    assert_eq!(upper.send().await.status, 303);
    service.stop().await;
}
