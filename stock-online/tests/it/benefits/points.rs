//! Points alone: earned, used, taken back. Both versions of the API follow one set of rules.

use serde_json::{Value, json};

use super::{balance, earn};
use crate::support::{Answer, Client, Shop};

const VERSIONS: [&str; 2] = ["/api/v1/points", "/api/v2/points"];

async fn spend(client: &Client, version: &str, user: u64, amount: i64) -> Answer {
    let body = json!({ "userId": user, "amount": amount, "description": "a treat" });
    let call = client.post(&format!("{version}/use")).user(user);
    call.json(&body).send().await
}

fn cancel_path(version: &str, point: &Answer) -> String {
    format!("{version}/{}/cancel", point.member("id"))
}

#[tokio::test(flavor = "multi_thread")]
async fn points_are_earned_used_and_taken_back_once_with_the_balance_after() {
    let shop = Shop::open(1, 5).await;
    let service = shop.serve().await;
    let client = &service.client;
    for (version, user) in VERSIONS.into_iter().zip([2, 3]) {
        assert_eq!(balance(client, user).await, 0);
        let none = spend(client, version, user, 1).await;
        assert_eq!((none.status, none.code()), (409, "INSUFFICIENT_POINTS"));
        let earn_path = format!("{version}/earn");
        let body = json!({ "userId": user, "amount": 1_000, "description": "welcome" });
        let as_user = client.post(&earn_path).user(user).json(&body);
        assert_eq!(as_user.send().await.code(), "FORBIDDEN");
        let earned = client.post(&earn_path).admin().json(&body).send().await;
        assert_eq!(earned.status, 201, "{}", earned.text);
        let mut expected = json!({ "id": earned.body["id"], "userId": user, "amount": 1_000, "type": "EARN",
            "description": "welcome", "balanceSnapshot": 1_000, "orderId": null, "cancelsId": null,
            "createdAt": earned.body["createdAt"] });
        assert_eq!(earned.body, expected);
        let nobody = json!({ "userId": 99, "amount": 1, "description": "" });
        let unknown = client.post(&earn_path).admin().json(&nobody).send().await;
        assert_eq!((unknown.status, unknown.code()), (404, "NOT_FOUND"));
        let other = client.post(&format!("{version}/use")).admin().json(&body);
        assert_eq!(other.send().await.code(), "USER_MISMATCH");

        let used = spend(client, version, user, 800).await;
        assert_eq!(
            (
                used.status,
                &used.body["type"],
                &used.body["balanceSnapshot"]
            ),
            (201, &json!("USED"), &json!(200)),
            "{}",
            used.text
        );
        // Spent points cannot be taken back, and users cannot take back their own gift.
        let gift = cancel_path(version, &earned);
        for _ in 0..2 {
            let own = client.post(&gift).user(user);
            let refused = own.header("idempotency-key", "gift").send().await;
            assert_eq!((refused.status, refused.code()), (403, "FORBIDDEN"));
            let is_replayed = refused.headers.contains_key("idempotency-replayed");
            assert!(!is_replayed, "what the request decides by itself");
        }
        let refused = client.post(&gift).admin().send().await;
        assert_eq!(
            (refused.status, refused.code()),
            (409, "INSUFFICIENT_POINTS")
        );
        let treat = cancel_path(version, &used);
        let foreign = client.post(&treat).user(5).json(&json!({})).send().await;
        assert_eq!((foreign.status, foreign.code()), (404, "POINT_NOT_FOUND"));
        let back = client.post(&treat).user(user).json(&json!({})).send().await;
        assert_eq!(back.status, 200, "{}", back.text);
        assert_eq!(
            (
                &back.body["type"],
                &back.body["amount"],
                &back.body["balanceSnapshot"]
            ),
            (&json!("CANCELED"), &json!(800), &json!(1_000))
        );
        assert_eq!(back.body["cancelsId"], used.body["id"]);
        for version in VERSIONS {
            let again = client.post(&cancel_path(version, &used)).user(user);
            assert_eq!(again.send().await.code(), "POINT_ALREADY_CANCELED");
            let of_cancel = client.post(&cancel_path(version, &back)).admin();
            assert_eq!(of_cancel.send().await.code(), "POINT_NOT_CANCELABLE");
        }
        let taken = client.post(&gift).admin().send().await;
        assert_eq!(
            (taken.status, &taken.body["balanceSnapshot"]),
            (200, &json!(0)),
            "{}",
            taken.text
        );
        let again = client.post(&gift).admin().send().await;
        assert_eq!(
            (again.status, again.code()),
            (409, "POINT_ALREADY_CANCELED")
        );

        let history = format!("{version}/users/{user}/history");
        let all = client.get(&history).user(user).send().await;
        let rows = all.body["items"].as_array().unwrap();
        let types: Vec<&Value> = rows.iter().map(|row| &row["type"]).collect();
        assert_eq!(types, ["CANCELED", "CANCELED", "USED", "EARN"]);
        expected["orderId"] = Value::Null;
        assert_eq!(rows.last(), Some(&expected));
        let page = client
            .get(&format!("{history}?limit=3"))
            .user(user)
            .send()
            .await;
        let next = format!("{history}?limit=3&cursor={}", page.member("nextCursor"));
        let rest = client.get(&next).admin().send().await;
        assert_eq!(rest.body["items"], json!([expected]));
        assert_eq!(rest.body["nextCursor"], Value::Null);
        for noun in ["balance", "history", "reports"] {
            let path = format!("{version}/users/{user}/{noun}");
            assert_eq!(client.get(&path).user(5).status().await, 404);
            assert_eq!(client.get(&path).admin().status().await, 200);
        }
    }
    for noun in ["balance", "history", "reports"] {
        let path = format!("/api/v1/points/users/99/{noun}");
        assert_eq!(client.get(&path).admin().status().await, 404);
    }
    for path in ["/api/v1/points/0/cancel", "/api/v2/points/x/cancel"] {
        assert_eq!(
            client.post(path).user(2).send().await.code(),
            "POINT_NOT_FOUND"
        );
    }
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_movement_is_taken_back_once_by_fifty_at_once() {
    let shop = Shop::open(1, 5).await;
    let service = shop.serve().await;
    let client = &service.client;
    earn(client, 2, 1_000).await;
    let used = spend(client, VERSIONS[1], 2, 300).await;
    let cancels: Vec<_> = (0..50)
        .map(|number| {
            let client = client.clone();
            let path = cancel_path(VERSIONS[number % 2], &used);
            tokio::spawn(async move { client.post(&path).user(2).send().await })
        })
        .collect();
    let mut taken = 0;
    for cancel in cancels {
        let answer = cancel.await.unwrap();
        match (answer.status, answer.code()) {
            (200, _) => taken += 1,
            (409, "POINT_ALREADY_CANCELED") => {}
            _ => panic!("{}", answer.text),
        }
    }
    assert_eq!((taken, balance(client, 2).await), (1, 1_000));
    shop.drained().await;
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_moves_points_once_on_either_path() {
    let shop = Shop::open(1, 5).await;
    let service = shop.serve().await;
    let client = &service.client;
    for version in VERSIONS {
        let before = balance(client, 2).await;
        let earn = |amount: i64| {
            let body = json!({ "userId": 2, "amount": amount, "description": "" });
            let call = client.post(&format!("{version}/earn")).admin();
            let call = call.header("idempotency-key", version.rsplit('/').nth(1).unwrap());
            call.json(&body).send()
        };
        let (first, second) = tokio::join!(earn(70), earn(70));
        assert_eq!((first.status, second.status), (201, 201), "{}", second.text);
        assert_eq!(first.body, second.body);
        assert_eq!(earn(71).await.code(), "IDEMPOTENCY_KEY_REUSED");
        assert_eq!(balance(client, 2).await, before + 70);
    }
    service.stop().await;
}
