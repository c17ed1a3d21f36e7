//! Works and coupons: made, drawn first come first served, or made for one user.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use stock_common::clock::rfc3339;

use super::{campaign, code, coupon, draw};
use crate::support::{Answer, Client, Session, Shop};

/// The time `seconds` from now.
fn at(shop: &Shop, seconds: i64) -> String {
    rfc3339(shop.clock.now_ms() + seconds * 1_000)
}

async fn work(client: &Client, title: &str) -> Answer {
    let body = json!({ "title": title });
    client.post("/api/works").admin().json(&body).send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn works_have_titles_of_their_own_and_are_shown_to_everybody() {
    let shop = Shop::open(1, 5).await;
    let service = shop.serve().await;
    let client = &service.client;
    let (one, two) = (work(client, "one").await, work(client, "two").await);
    assert_eq!((one.status, &one.body["title"]), (201, &json!("one")));
    let path = format!("/api/works/{}", one.body["id"]);
    assert_eq!(one.headers["location"], path);
    assert_eq!(work(client, "one").await.code(), "WORK_TITLE_TAKEN");
    for title in ["\u{1f384}", "\u{1f381}"] {
        let made = work(client, title).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let path = format!("/api/works/{}", made.body["id"]);
        let gone = client.call("DELETE", &path).admin();
        assert_eq!(gone.status().await, 204);
    }
    let put = |path: &str, title: &str| {
        let call = client.call("PUT", path).admin();
        call.json(&json!({ "title": title })).send()
    };
    assert_eq!(put(&path, "two").await.code(), "WORK_TITLE_TAKEN");
    assert_eq!(put(&path, "one").await.status, 200);
    assert_eq!(put(&path, "uno").await.body["title"], "uno");
    assert_eq!(put("/api/works/99", "x").await.code(), "WORK_NOT_FOUND");
    for title in ["", " ", "a\nb", &"x".repeat(101)] {
        assert_eq!(work(client, title).await.code(), "UNPROCESSABLE", "{title}");
    }
    let listed = client.get("/api/works").send().await;
    assert_eq!(
        listed.body["items"],
        json!([two.body, { "id": one.body["id"], "title": "uno" }])
    );
    let first = client.get("/api/works?limit=1").send().await;
    let next = format!("/api/works?cursor={}", first.member("nextCursor"));
    let rest = client.get(&next).send().await;
    assert_eq!(rest.body["items"].as_array().unwrap().len(), 1);

    let id = campaign(client, &json!({ "discountRate": 10 })).await;
    let wanted = json!({ "workId": one.body["id"] });
    assert_eq!(draw(client, 2, id, &wanted).await.status, 201);
    let gone = client.call("DELETE", &path).admin();
    assert_eq!(gone.status().await, 204);
    let gone = client.call("DELETE", &path).admin();
    assert_eq!(gone.send().await.code(), "WORK_NOT_FOUND");
    assert_eq!(draw(client, 3, id, &wanted).await.code(), "WORK_NOT_FOUND");
    let mine = client.get("/api/coupons/mine").user(2).send().await;
    assert_eq!(
        mine.body["items"][0]["workId"], one.body["id"],
        "what was drawn stays"
    );
    assert_eq!(work(client, "uno").await.status, 201, "its title is free");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coupon_is_a_campaigns_or_one_users_and_takes_off_an_amount_or_a_rate() {
    let shop = Shop::open(1, 5).await;
    let service = shop.serve().await;
    let client = &service.client;
    let now = at(&shop, 0);
    for fields in [
        json!({}),
        json!({ "discountAmount": 5, "discountRate": 5 }),
        json!({ "discountAmount": 0 }),
        json!({ "discountRate": 0 }),
        json!({ "discountRate": 100.01 }),
        json!({ "discountRate": 5, "count": -1 }),
        json!({ "discountRate": 5, "count": 1_000_000_000_001_i64 }),
        json!({ "discountRate": 5, "validFrom": now, "validTo": now }),
        json!({ "discountRate": 5, "validFrom": "yesterday" }),
        json!({ "discountRate": 5, "code": "ABC" }),
        json!({ "discountRate": 5, "userId": 2, "code": "a b" }),
        json!({ "discountRate": 5, "userId": 2, "count": 1 }),
        json!({ "discountRate": 5, "name": "" }),
    ] {
        let refused = coupon(client, &fields).await;
        assert_eq!(
            (refused.status, refused.code()),
            (422, "UNPROCESSABLE"),
            "{fields}"
        );
    }
    let unknown = json!({ "discountRate": 5, "userId": 99 });
    assert_eq!(coupon(client, &unknown).await.status, 404);

    let window = json!({ "discountRate": 12.5, "count": 3, "validTo": at(&shop, 3_600) });
    let made = coupon(client, &window).await;
    assert_eq!(
        (made.status, &made.body["remaining"]),
        (201, &json!(3)),
        "{}",
        made.text
    );
    assert_eq!(
        (&made.body["discountRate"], &made.body["discountAmount"]),
        (&json!(12.5), &Value::Null)
    );
    let uncounted = campaign(client, &json!({ "discountAmount": 500 })).await;
    assert_eq!(draw(client, 3, uncounted, &json!({})).await.status, 201);
    let personal = json!({ "discountAmount": 500, "userId": 2, "code": "WELCOME-2" });
    let own = coupon(client, &personal).await;
    assert_eq!(
        (&own.body["code"], &own.body["userId"]),
        (&json!("WELCOME-2"), &json!(2))
    );
    let twin = json!({ "discountRate": 1, "userId": 3, "code": "WELCOME-2" });
    assert_eq!(coupon(client, &twin).await.code(), "COUPON_CODE_TAKEN");
    // A drawn code is taken too, though no row of `coupons` has it.
    let drawn = code(client, 2, uncounted).await;
    let twin = json!({ "discountRate": 1, "userId": 3, "code": drawn });
    assert_eq!(coupon(client, &twin).await.code(), "COUPON_CODE_TAKEN");

    let public = client.get("/api/coupons").send().await;
    let ids = |answer: &Answer| {
        let items = answer.body["items"].as_array().unwrap().clone();
        let ids = items.iter().map(|item| item["id"].as_u64().unwrap());
        ids.collect::<Vec<u64>>()
    };
    let first = made.body["id"].as_u64().unwrap();
    assert_eq!(ids(&public), [uncounted, first], "{}", public.text);
    assert_eq!(public.body["items"][0]["remaining"], Value::Null);
    assert!(!public.text.contains("WELCOME"));
    let all = client.get("/api/coupons").admin().send().await;
    assert_eq!(all.body["items"][0], own.body);
    assert_eq!(ids(&all).len(), 3);

    let mine = client.get("/api/coupons/mine").user(2).send().await;
    let codes: Vec<&Value> = mine.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["code"])
        .collect();
    assert_eq!(codes, [&json!(drawn), &json!("WELCOME-2")]);
    let others = client.get("/api/coupons/mine").user(3).send().await;
    assert_eq!(others.body["items"].as_array().unwrap().len(), 1);
    let key = |body: &Value| {
        let call = client.post("/api/coupons").admin();
        call.header("idempotency-key", "k").json(body).send()
    };
    let body = json!({ "name": "again", "discountAmount": 5, "userId": 3 });
    let (once, again) = (key(&body).await, key(&body).await);
    assert_eq!(
        (once.status, once.body.clone()),
        (again.status, again.body.clone())
    );
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let other = json!({ "name": "other", "discountAmount": 5, "userId": 3 });
    assert_eq!(key(&other).await.code(), "IDEMPOTENCY_KEY_REUSED");
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_it_already_is_told_so_before_it_is_sold_out() {
    let shop = Shop::open(1, 5).await;
    let service = shop.serve().await;
    let client = &service.client;
    let item = work(client, "one").await.body["id"].clone();
    let for_work = json!({ "workId": item });
    let id = campaign(client, &json!({ "discountRate": 10, "count": 3 })).await;

    let path = format!("/api/coupons/{id}/issue");
    let bare = client.post(&path).user(2).send().await;
    assert_eq!(bare.status, 201, "a body may be left out: {}", bare.text);
    assert_eq!(
        (
            &bare.body["couponId"],
            &bare.body["workId"],
            &bare.body["isUsed"]
        ),
        (&json!(id), &Value::Null, &json!(false))
    );
    assert!(bare.body["id"].is_string());
    let again = draw(client, 2, id, &json!({})).await;
    assert_eq!((again.status, again.code()), (409, "COUPON_ALREADY_ISSUED"));
    assert_eq!(
        draw(client, 2, id, &for_work).await.status,
        201,
        "one per work"
    );
    assert_eq!(
        draw(client, 2, id, &for_work).await.code(),
        "COUPON_ALREADY_ISSUED"
    );
    let keyed = |user, body: &Value| {
        let call = client.post(&path).user(user).header("idempotency-key", "k");
        call.json(body).send()
    };
    let (last, replayed) = (keyed(3, &json!({})).await, keyed(3, &json!({})).await);
    assert_eq!(
        (last.status, replayed.status),
        (201, 201),
        "{}",
        replayed.text
    );
    assert_eq!(last.body, replayed.body, "the same code");
    for user in [2, 3] {
        assert_eq!(
            draw(client, user, id, &json!({})).await.code(),
            "COUPON_ALREADY_ISSUED"
        );
    }
    let (gone, replayed) = (
        keyed(3, &for_work).await,
        draw(client, 4, id, &json!({})).await,
    );
    assert_eq!(gone.code(), "IDEMPOTENCY_KEY_REUSED");
    assert_eq!((replayed.status, replayed.code()), (409, "COUPON_SOLD_OUT"));

    let soon = json!({ "discountRate": 10, "validFrom": at(&shop, 3_600) });
    let over = json!({ "discountRate": 10, "validTo": at(&shop, -1) });
    let (soon, over) = (campaign(client, &soon).await, campaign(client, &over).await);
    assert_eq!(
        draw(client, 2, soon, &json!({})).await.code(),
        "COUPON_NOT_OPEN"
    );
    assert_eq!(
        draw(client, 2, over, &json!({})).await.code(),
        "COUPON_CLOSED"
    );
    let personal = coupon(client, &json!({ "discountRate": 1, "userId": 2 })).await;
    for unknown in [personal.body["id"].as_u64().unwrap(), 99, 0] {
        let refused = draw(client, 2, unknown, &json!({})).await;
        assert_eq!((refused.status, refused.code()), (404, "COUPON_NOT_FOUND"));
    }
    let stray = client.post("/api/coupons/x/issue").user(2).send().await;
    assert_eq!(stray.code(), "COUPON_NOT_FOUND");
    let unknown = draw(client, 2, id, &json!({ "workId": 99 })).await;
    assert_eq!((unknown.status, unknown.code()), (404, "WORK_NOT_FOUND"));
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_users_draw_a_thousand_coupons_and_each_goes_to_one() {
    // Danger: more codes than coupons, two codes for one user, or one code for two users. Method:
    // 5,000 users at once, each of whom asks again at once after being served.
    let shop = Shop::open(1, 5).await;
    let service = shop.serve().await;
    let client = &service.client;
    let id = campaign(client, &json!({ "discountAmount": 500, "count": 1_000 })).await;
    let buyers: Vec<_> = (0..250)
        .map(|worker| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut session = Session::new(&client.address);
                let mut drawn = Vec::new();
                for user in (1_000 + worker..6_000).step_by(250) {
                    let path = format!("/api/coupons/{id}/issue");
                    let ask = || client.post(&path).user(user).request().unwrap();
                    let answer = session.send(ask()).await.unwrap();
                    match (answer.status, answer.code()) {
                        (201, _) => {
                            drawn.push((user, answer.member("code").to_owned()));
                            let again = session.send(ask()).await.unwrap();
                            assert_eq!(again.code(), "COUPON_ALREADY_ISSUED");
                        }
                        (409, "COUPON_SOLD_OUT") => {}
                        _ => panic!("{}", answer.text),
                    }
                }
                drawn
            })
        })
        .collect();
    let mut drawn = Vec::new();
    for buyer in buyers {
        drawn.extend(buyer.await.unwrap());
    }
    let users: BTreeSet<u64> = drawn.iter().map(|(user, _)| *user).collect();
    let codes: BTreeSet<&str> = drawn.iter().map(|(_, code)| code.as_str()).collect();
    assert_eq!(
        (drawn.len(), users.len(), codes.len()),
        (1_000, 1_000, 1_000)
    );
    let listed = client.get("/api/coupons").send().await;
    assert_eq!(listed.body["items"][0]["remaining"], 0);
    shop.drained().await;
    let stored: Vec<(u64, String)> =
        sqlx::query_as("SELECT user_id, code FROM coupon_issues ORDER BY user_id")
            .fetch_all(&shop.pool)
            .await
            .unwrap();
    drawn.sort_unstable();
    assert_eq!(stored, drawn);
    shop.verify().await;
    service.stop().await;
}
