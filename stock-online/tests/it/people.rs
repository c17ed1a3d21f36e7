//! People: accounts, tokens, sessions, limits and access.

mod access;
mod accounts;
mod issuer;
mod limits;
mod secrets;
mod service_keys;
mod sessions;

use serde_json::{Value, json};
use stock_client::{Answer, Client};

const PASSWORD: &str = "open sesame, please";

fn sign_up_json(email: &str) -> Value {
    json!({ "email": email, "password": PASSWORD, "confirmPassword": PASSWORD })
}

/// Signs somebody up and returns their id.
async fn sign_up(client: &Client, email: &str) -> u64 {
    let made = client.post("/api/auth/signup").json(&sign_up_json(email));
    let made = made.send().await;
    assert_eq!(made.status, 201, "{}", made.text);
    made.body["id"].as_u64().unwrap()
}

async fn log_in_with(client: &Client, email: &str, password: &str) -> Answer {
    let body = json!({ "email": email, "password": password });
    client.post("/api/token").json(&body).send().await
}

/// Logs somebody in and returns their access and refresh tokens.
async fn log_in(client: &Client, email: &str) -> (String, String) {
    tokens_of(&log_in_with(client, email, PASSWORD).await)
}

fn tokens_of(answer: &Answer) -> (String, String) {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let token = |name| answer.member(name).to_owned();
    (token("access"), token("refresh"))
}

async fn refresh(client: &Client, token: &str) -> Answer {
    let body = json!({ "refresh": token });
    client.post("/api/token/refresh").json(&body).send().await
}

/// The status of `GET /api/me` under a token.
async fn me(client: &Client, token: &str) -> u16 {
    client.get("/api/me").bearer(token).send().await.status
}
