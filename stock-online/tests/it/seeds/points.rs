//! P1 to P12.

use serde_json::{Value, json};

use super::{check, send, served};

const BOTH: [&str; 2] = ["", "/seeds/points"];

fn moved(amount: u64) -> Value {
    json!({ "user_id": 2, "amount": amount, "description": "string" })
}

#[tokio::test(flavor = "multi_thread")]
async fn points_are_earned_used_and_cancelled_once() {
    let (shop, service) = served(1, 1).await;
    let client = &service.client;
    for base in BOTH {
        let v1 = format!("{base}/api/v1/points");
        let earned = send(client.post(&format!("{v1}/earn")).admin(), &moved(10_000)).await;
        check(
            &earned,
            200,
            &json!({ "data": { "id": "*", "user_id": 2, "amount": 10_000, "type": "EARN",
            "description": "string", "balance_snapshot": "*" } }),
        );
        let used = send(client.post(&format!("{v1}/use")).user(2), &moved(300)).await;
        check(
            &used,
            200,
            &json!({ "data": { "amount": 300, "type": "USED", "created_at": "*" } }),
        );
        let second = send(
            client.post(&format!("{base}/api/v2/points/earn")).admin(),
            &moved(5),
        )
        .await;
        check(
            &second,
            200,
            &json!({ "data": { "amount": 5, "type": "EARN" } }),
        );
        for (made, is_admin) in [(&used, false), (&earned, true)] {
            let id = made.body["data"]["id"].as_str().unwrap();
            let amount = made.body["data"]["amount"].as_u64().unwrap();
            let path = format!("{v1}/{id}/cancel");
            let call = || match is_admin {
                true => client.post(&path).admin(),
                false => client.post(&path).user(2),
            };
            let mut others = moved(amount);
            others["user_id"] = json!(3);
            for (body, name) in [(&others, "user_id"), (&moved(amount + 1), "amount")] {
                let refused = send(call(), body).await;
                check(&refused, 400, &json!({ "status_code": 400 }));
                assert!(refused.body[name][0].is_string(), "{}", refused.text);
            }
            let cancelled = send(call(), &moved(amount)).await;
            check(
                &cancelled,
                200,
                &json!({ "data": { "type": "CANCELED", "amount": amount, "created_at": "*" } }),
            );
            let again = send(call(), &moved(amount)).await;
            check(
                &again,
                409,
                &json!({ "code": "POINT_ALREADY_CANCELED", "status_code": 409 }),
            );
        }
    }
    shop.verify().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_name_the_field_and_the_status() {
    let (_shop, service) = served(1, 1).await;
    let client = &service.client;
    for base in BOTH {
        let v1 = format!("{base}/api/v1/points");
        let part = json!({ "user_id": 2, "description": "string" });
        let part = send(client.post(&format!("{v1}/earn")).admin(), &part).await;
        check(&part, 400, &json!({ "status_code": 400 }));
        assert!(part.body["amount"][0].is_string(), "{}", part.text);
        let short = send(client.post(&format!("{v1}/use")).user(2), &moved(300)).await;
        check(
            &short,
            409,
            &json!({ "code": "INSUFFICIENT_POINTS", "status_code": 409 }),
        );
        let stranger = send(client.post(&format!("{v1}/earn")), &moved(1)).await;
        check(&stranger, 401, &json!({ "detail": "*" }));
        let user = send(client.post(&format!("{v1}/earn")).user(2), &moved(1)).await;
        check(&user, 403, &json!({ "detail": "*" }));
        let others = json!({ "user_id": 3, "amount": 1, "description": "" });
        let others = send(client.post(&format!("{v1}/use")).user(2), &others).await;
        check(&others, 403, &json!({ "status_code": 403 }));
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_is_read_by_offset() {
    let (_shop, service) = served(1, 1).await;
    let client = &service.client;
    for amount in 1..=12 {
        assert_eq!(
            send(client.post("/api/v1/points/earn").admin(), &moved(amount))
                .await
                .status,
            200
        );
    }
    let address = &client.address;
    for base in BOTH {
        let path = format!("{base}/api/v1/points/user/2/history");
        let first = client.get(&path).user(2).send().await;
        let next = format!("http://{address}{path}?limit=10&offset=10");
        check(
            &first,
            200,
            &json!({ "count": 12, "previous": null, "next": next }),
        );
        let rows = first.body["data"].as_array().unwrap();
        assert_eq!(rows.len(), 10);
        super::check_members(
            &rows[0],
            &json!({ "amount": 12, "balance_snapshot": 78, "version": 13,
            "point_balance": 2, "type": "EARN", "created_at": "*", "updated_at": "*" }),
            &first.text,
        );
        let one = client
            .get(&format!("{path}?limit=1&offset=1"))
            .admin()
            .send()
            .await;
        check(
            &one,
            200,
            &json!({ "count": 12,
            "next": format!("http://{address}{path}?limit=1&offset=2"),
            "previous": format!("http://{address}{path}?limit=1&offset=0") }),
        );
        assert_eq!(one.body["data"][0]["amount"], 11);
        let last = client
            .get(&format!("{path}?offset=10"))
            .user(2)
            .send()
            .await;
        check(&last, 200, &json!({ "next": null }));
        assert_eq!(last.body["data"].as_array().map(Vec::len), Some(2));
        let beyond = client
            .get(&format!("{path}?offset=99"))
            .user(2)
            .send()
            .await;
        check(&beyond, 200, &json!({ "data": [], "next": null }));
        let others = client.get(&path).user(3).send().await;
        check(&others, 404, &json!({ "status_code": 404 }));
        let none = client
            .get(&format!("{base}/api/v1/points/user/3/history"))
            .user(3)
            .send()
            .await;
        check(&none, 200, &json!({ "count": 0, "data": [] }));
        let wrong = client.get(&format!("{path}?limit=0")).user(2).send().await;
        check(&wrong, 400, &json!({ "status_code": 400 }));
    }
    service.stop().await;
}
