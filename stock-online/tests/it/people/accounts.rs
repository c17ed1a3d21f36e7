//! Sign-up, login, refresh, and the ways to end tokens.

use serde_json::json;
use stock_common::clock::Clock;
use stock_domain::user::Role;
use stock_online::tokens::Tokens;

use super::{PASSWORD, log_in, log_in_with, me, refresh, sign_up, sign_up_json, tokens_of};
use crate::support::{Shop, until};

#[tokio::test(flavor = "multi_thread")]
async fn somebody_signs_up_logs_in_and_is_who_they_are() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    let mut body = sign_up_json("  New.One@Example.com ");
    body["name"] = json!("New One");
    let made = client.post("/api/auth/signup").json(&body).send().await;
    assert_eq!(made.status, 201, "{}", made.text);
    let id = made.body["id"].as_u64().unwrap();
    assert_eq!(
        made.body,
        json!({ "id": id, "email": "new.one@example.com" })
    );
    let (access, _) = log_in(client, "NEW.ONE@example.com").await;
    let me = client.get("/api/me").bearer(&access).send().await;
    assert_eq!(
        me.body,
        json!({ "id": id, "email": "new.one@example.com", "name": "New One", "role": "user" })
    );
    // A new user can buy with the token from the login.
    let order = client
        .post("/api/redis/orders")
        .json(&crate::support::order_json(&[(1, 1)]));
    assert_eq!(order.bearer(&access).send().await.status, 201);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_an_account_is_refused_with_its_place() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    for (field, value, pointer) in [
        ("email", "nobody", "/email"),
        ("password", "short", "/confirmPassword"),
        ("confirmPassword", "another sesame", "/confirmPassword"),
        ("name", "bell \u{7}", "/name"),
    ] {
        let mut body = sign_up_json("one@example.com");
        body[field] = json!(value);
        let refused = client.post("/api/auth/signup").json(&body).send().await;
        assert_eq!(refused.status, 422, "{field}: {}", refused.text);
        assert_eq!(refused.body["errors"][0]["pointer"], pointer, "{field}");
    }
    for weak in ["short", "PASSWORD1", "12345678"] {
        let body = json!({ "email": "one@example.com", "password": weak, "confirmPassword": weak });
        let refused = client.post("/api/auth/signup").json(&body).send().await;
        assert_eq!(refused.body["errors"][0]["pointer"], "/password", "{weak}");
    }
    assert_eq!(
        shop.count("SELECT COUNT(*) FROM users WHERE password_hash IS NOT NULL")
            .await,
        0
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_want_one_address_one_gets_it() {
    // Danger: a check before the insert lets two through. Method: eight at once, in different
    // spellings.
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let wanting = (0..8).map(|number| {
        let client = service.client.clone();
        let email = if number % 2 == 0 {
            "same@example.com"
        } else {
            "Same@EXAMPLE.com"
        };
        tokio::spawn(async move {
            let body = sign_up_json(email);
            client.post("/api/auth/signup").json(&body).send().await
        })
    });
    let wanting: Vec<_> = wanting.collect();
    let mut made = 0;
    for one in wanting {
        let answer = one.await.unwrap();
        made += u32::from(answer.status == 201);
        assert!(
            answer.status == 201 || answer.code() == "EMAIL_TAKEN",
            "{}",
            answer.text
        );
    }
    assert_eq!(made, 1);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_an_unknown_address_look_alike() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    sign_up(client, "one@example.com").await;
    let without_id = |mut answer: stock_client::Answer| {
        answer.body["requestId"] = json!(null);
        (answer.status, answer.body)
    };
    let wrong = without_id(log_in_with(client, "one@example.com", "close sesame").await);
    let long = "x".repeat(1_000);
    for (email, password) in [
        ("two@example.com", PASSWORD),
        ("no address", PASSWORD),
        ("one@example.com", long.as_str()),
        ("user1@example.com", ""),
    ] {
        let unknown = without_id(log_in_with(client, email, password).await);
        assert_eq!(unknown, wrong, "{email}");
    }
    assert_eq!(wrong.0, 401);
    assert_eq!(wrong.1["code"], "INVALID_CREDENTIALS");
    let failed = "SELECT COUNT(*) FROM audit_log WHERE action = 'login_failed'";
    until("each is noted", || async { shop.count(failed).await == 5 }).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_holds_once_and_a_stolen_one_ends_its_family() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    sign_up(client, "one@example.com").await;
    let (_, first) = log_in(client, "one@example.com").await;
    let (_, other_login) = log_in(client, "one@example.com").await;
    let (access, second) = tokens_of(&refresh(client, &first).await);
    assert_eq!(me(client, &access).await, 200);
    assert_eq!(
        refresh(client, &first).await.code(),
        "REFRESH_TOKEN_INVALID"
    );
    assert_eq!(
        refresh(client, &second).await.status,
        401,
        "its family has ended"
    );
    let (_, other_login) = tokens_of(&refresh(client, &other_login).await);
    for unknown in ["", "unknown", &access] {
        assert_eq!(refresh(client, unknown).await.status, 401);
    }
    // A refresh token is no access token.
    assert_eq!(me(client, &other_login).await, 401);
    // One token used twice at once: one request gets a successor, and the other one then ends it.
    let twins = [(); 2].map(|()| {
        let (client, token) = (client.clone(), other_login.clone());
        tokio::spawn(async move { refresh(&client, &token).await.status })
    });
    let mut good = 0;
    for twin in twins {
        good += u32::from(twin.await.unwrap() == 200);
    }
    assert_eq!(good, 1);
    assert_eq!(shop.count("SELECT COUNT(*) FROM refresh_tokens").await, 0);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_refresh_token_does_not_hold() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    sign_up(&service.client, "one@example.com").await;
    let (_, token) = log_in(&service.client, "one@example.com").await;
    sqlx::query("UPDATE refresh_tokens SET expires_at = NOW(3) - INTERVAL 1 SECOND")
        .execute(&shop.pool)
        .await
        .unwrap();
    assert_eq!(refresh(&service.client, &token).await.status, 401);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_tokens_ends_them_on_every_instance() {
    // Danger: a demoted admin goes on for a quarter of an hour. Method: two instances have both
    // seen the token; one of them is sent the request that ends it.
    let shop = Shop::open(1, 10).await;
    let (here, there) = (shop.serve().await, shop.serve().await);
    for (number, ending) in ["logout", "password", "role", "delete"]
        .into_iter()
        .enumerate()
    {
        let email = format!("one{number}@example.com");
        let id = sign_up(&here.client, &email).await;
        let (access, token) = log_in(&here.client, &email).await;
        assert_eq!(
            (
                me(&here.client, &access).await,
                me(&there.client, &access).await
            ),
            (200, 200)
        );
        let user = format!("/api/users/{id}");
        let call = match ending {
            "logout" => here
                .client
                .post("/api/auth/logout-everywhere")
                .bearer(&access),
            "password" => here
                .client
                .post("/api/me/password")
                .bearer(&access)
                .json(&json!({
                "currentPassword": PASSWORD, "newPassword": "another sesame",
                "confirmPassword": "another sesame" })),
            "role" => here
                .client
                .patch(&user)
                .admin()
                .json(&json!({ "role": "store", "storeId": 3 })),
            _ => here.client.call("DELETE", &user).admin(),
        };
        let answer = call.send().await;
        assert!(answer.status < 300, "{ending}: {}", answer.text);
        assert_eq!(
            me(&here.client, &access).await,
            401,
            "{ending}, here and now"
        );
        until("it has ended there too", || async {
            me(&there.client, &access).await == 401
        })
        .await;
        assert_eq!(refresh(&here.client, &token).await.status, 401, "{ending}");
        let again = log_in_with(&here.client, &email, PASSWORD).await;
        match ending {
            "logout" => {
                let (access, _) = tokens_of(&again);
                assert_eq!(me(&here.client, &access).await, 200, "in the same second");
            }
            "password" => {
                assert_eq!(again.status, 401);
                let (access, _) = tokens_of(&answer);
                assert_eq!(me(&here.client, &access).await, 200);
                assert_eq!(me(&there.client, &access).await, 200);
            }
            "role" => {
                let (access, _) = tokens_of(&again);
                let me = here.client.get("/api/me").bearer(&access).send().await;
                assert_eq!(
                    (&me.body["role"], &me.body["storeId"]),
                    (&json!("store"), &json!(3))
                );
            }
            _ => assert_eq!(again.status, 401),
        }
    }
    here.stop().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_needs_the_old_one() {
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    sign_up(&service.client, "one@example.com").await;
    let (access, _) = log_in(&service.client, "one@example.com").await;
    let change = |current: &str, new: &str, again: &str| {
        let body =
            json!({ "currentPassword": current, "newPassword": new, "confirmPassword": again });
        service
            .client
            .post("/api/me/password")
            .bearer(&access)
            .json(&body)
    };
    for (current, new, again, code) in [
        (
            "wrong one",
            "another sesame",
            "another sesame",
            "INVALID_CREDENTIALS",
        ),
        (PASSWORD, "another sesame", "yet another", "UNPROCESSABLE"),
        (PASSWORD, "password", "password", "UNPROCESSABLE"),
    ] {
        assert_eq!(change(current, new, again).send().await.code(), code);
    }
    assert_eq!(me(&service.client, &access).await, 200);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_previous_key_holds_until_the_key_is_gone() {
    let mut shop = Shop::open(1, 10).await;
    let old = "the key of last year, long enough for HS256";
    let id = sign_up_with_any_key(&shop).await;
    let caller = stock_online::tokens::Caller {
        user: stock_common::id::UserId(id),
        role: Role::User,
        store_id: None,
    };
    let token = Tokens::new(old, "", None, Clock::system())
        .unwrap()
        .issue(caller, None, 60)
        .unwrap();
    let service = shop.serve().await;
    assert_eq!(me(&service.client, &token).await, 401);
    service.stop().await;
    shop.config.people.jwt_previous_secret = old.to_owned();
    let service = shop.serve().await;
    assert_eq!(me(&service.client, &token).await, 200);
    let (fresh, _) = log_in(&service.client, "one@example.com").await;
    assert_eq!(me(&service.client, &fresh).await, 200);
    service.stop().await;
}

async fn sign_up_with_any_key(shop: &Shop) -> u64 {
    let service = shop.serve().await;
    let id = sign_up(&service.client, "one@example.com").await;
    service.stop().await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn two_endings_in_one_second_are_two() {
    // Danger: a token made after the first ending is taken to be newer than the second ending.
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    sign_up(client, "one@example.com").await;
    let (mut access, _) = log_in(client, "one@example.com").await;
    for number in 0..3 {
        let current = if number == 0 {
            PASSWORD
        } else {
            "another sesame"
        };
        let body = json!({ "currentPassword": current, "newPassword": "another sesame",
            "confirmPassword": "another sesame" });
        let change = client.post("/api/me/password").bearer(&access).json(&body);
        let (next, _) = tokens_of(&change.send().await);
        assert_eq!(
            (me(client, &access).await, me(client, &next).await),
            (401, 200)
        );
        access = next;
    }
    let out = client.post("/api/auth/logout-everywhere").bearer(&access);
    assert_eq!(out.status().await, 204);
    assert_eq!(me(client, &access).await, 401);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_with_other_letters_is_another_one() {
    // Danger: MySQL takes é for e, but the counter of failed logins does not, so each spelling gets
    // ten guesses.
    let shop = Shop::open(1, 10).await;
    let service = shop.serve().await;
    let client = &service.client;
    sign_up(client, "renee@example.com").await;
    let other = log_in_with(client, "ren\u{e9}e@example.com", PASSWORD).await;
    assert_eq!(other.status, 401);
    sign_up(client, "ren\u{e9}e@example.com").await;
    service.stop().await;
}
