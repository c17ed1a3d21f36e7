//! The interface of the coupon event: accounts with a session, works, coupons drawn.

use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use stock_common::clock::{rfc3339, unix_ms};

use super::call::{Ask, Call};
use super::forms::with_lists;
use crate::http::accounts::{self, CredentialsIn, SignUpIn};
use crate::http::code::Code;
use crate::http::orders::json as answer;
use crate::http::problem::Problem;
use crate::http::{cross_site, works};
use crate::pages::accounts as pages;

pub(super) fn calls() -> Vec<Call> {
    let credentials = || json!({ "email": "user2@example.com", "password": "password" });
    vec![
        Call::shared(Method::POST, "/account/signup", sign_up)
            .open()
            .body(
                json!({ "email": "new@example.com", "password": "open sesame, please",
                "confirm_password": "open sesame, please" }),
            )
            .answers(StatusCode::CREATED)
            .about("Creates an account."),
        Call::shared(Method::POST, "/account/login", log_in)
            .open()
            .body(credentials())
            .about("Begins a session, which a cookie names."),
        Call::shared(Method::POST, "/account/logout", log_out).about("Ends the session."),
        Call::owned(Method::GET, "/work", list_works).about("Lists the works, the oldest first."),
        Call::owned(Method::POST, "/couponuser", draw)
            .body(json!({ "coupon": 1, "work": 1 }))
            .answers(StatusCode::CREATED)
            .about("Draws a coupon's code for a work."),
    ]
}

/// The seed's texts, which its clients show.
const ADDRESS_TAKEN: &str = "user의 email은/는 이미 존재합니다.";
const DRAWN_BEFORE: &str = "이미 쿠폰을 받았습니다";
const NONE_LEFT: &str = "쿠폰이 모두 소진되었습니다";
const WRONG_LOGIN: &str = "이메일 혹은 비밀번호가 올바르지 않습니다";
const PASSWORDS_DIFFER: &str = "비밀번호가 일치하지 않습니다.";
const LOGGED_IN: &str = "로그인 성공";
const LOGGED_OUT: &str = "로그아웃 성공";

pub(super) fn refusal(mut problem: Problem) -> Problem {
    let code = problem.code;
    problem.status = match problem.status {
        // A wrong password is a refusal; nobody logged in is a 403.
        401 if code == Code::InvalidCredentials => 400,
        401 => 403,
        // A path that is not there stays a 404.
        404 if code == Code::NotFound => 404,
        404 | 409 | 422 => 400,
        status => status,
    };
    let text = if code == Code::CouponAlreadyIssued {
        DRAWN_BEFORE.to_owned()
    } else if code == Code::CouponSoldOut {
        NONE_LEFT.to_owned()
    } else if code == Code::InvalidCredentials {
        WRONG_LOGIN.to_owned()
    } else {
        problem.detail.clone()
    };
    let problem = match code == Code::EmailTaken {
        true => problem.with("email", vec![ADDRESS_TAKEN]),
        false => problem,
    };
    with_lists(problem).with("result", text)
}

async fn sign_up(ask: Ask) -> Result<Response, Problem> {
    cross_site::check(ask.method(), ask.headers())?;
    let fields = ask.fields()?;
    let body = SignUpIn {
        email: fields.text("email")?,
        password: fields.text("password")?,
        confirm_password: fields.text("confirm_password")?,
        name: None,
    };
    if body.password != body.confirm_password {
        let problem = Problem::new(Code::Unprocessable, PASSWORDS_DIFFER);
        return Err(problem.with("non_field_errors", vec![PASSWORDS_DIFFER]));
    }
    let (_, email) = accounts::sign_up(&ask.app, &ask.origin()?, body).await?;
    let body = json!({ "email": email.as_str() });
    Ok(answer(StatusCode::CREATED, &body))
}

async fn log_in(ask: Ask) -> Result<Response, Problem> {
    cross_site::check(ask.method(), ask.headers())?;
    let fields = ask.fields()?;
    let email = fields.text("email")?;
    let credentials = CredentialsIn {
        email: email.clone(),
        password: fields.text("password")?,
    };
    let user = accounts::log_in(&ask.app, &ask.origin()?, ask.headers(), credentials).await?;
    pages::begin(&ask.session()?, &user).await?;
    let mut response = answer(StatusCode::OK, &json!({ "result": LOGGED_IN }));
    pages::remember(&ask.app, ask.headers(), &email, &mut response);
    Ok(response)
}

async fn log_out(mut ask: Ask) -> Result<Response, Problem> {
    let caller = ask.caller().await?;
    pages::end(&ask.app, &ask.origin()?, caller, &ask.session()?).await?;
    Ok(answer(StatusCode::OK, &json!({ "result": LOGGED_OUT })))
}

async fn list_works(mut ask: Ask) -> Result<Response, Problem> {
    ask.caller().await?;
    let works = works::first(&ask.app).await?;
    let time = |at| rfc3339(unix_ms(at));
    let works: Vec<Value> = works
        .iter()
        .map(|of| {
            json!({ "id": of.work.id.0, "title": of.work.title,
                "created_at": time(of.created_at), "updated_at": time(of.updated_at) })
        })
        .collect();
    Ok(answer(StatusCode::OK, &works))
}

async fn draw(mut ask: Ask) -> Result<Response, Problem> {
    let user = ask.caller().await?.user;
    let fields = ask.fields()?;
    let (coupon, work) = (fields.whole("coupon")?, fields.whole("work")?);
    let path = format!("/api/coupons/{coupon}/issue");
    let drawn = ask.post(&path, json!({ "workId": work })).await?;
    let of = &drawn;
    let body = json!({ "id": of.member("id"), "coupon": of.member("couponId"), "user": user.0,
        "work": of.member("workId"), "code": of.member("code"), "is_used": of.member("isUsed"),
        "created_at": of.member("createdAt"), "updated_at": of.member("createdAt") });
    Ok(drawn.becomes(StatusCode::CREATED, &body))
}
