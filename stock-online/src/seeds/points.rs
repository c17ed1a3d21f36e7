//! The interface of the points service: earn, use, cancel, history.

use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde_json::{Map, Value, json};
use stock_common::clock::rfc3339;
use stock_domain::points::PointTransaction;

use super::call::{Answer, Ask, Call};
use super::forms::{Fields, with_lists};
use crate::http::orders::json as answer;
use crate::http::points;
use crate::http::problem::Problem;

/// Size of a page of the history, and the largest number of rows before it.
const LIMIT: u32 = 10;
const LIMIT_MAX: u32 = 100;
const OFFSET_MAX: u32 = 10_000;

pub(super) fn calls() -> Vec<Call> {
    let moved = || json!({ "user_id": 2, "amount": 300, "description": "string" });
    vec![
        Call::shared(Method::POST, "/api/v1/points/earn", earn)
            .body(moved())
            .about("Gives points to a user."),
        Call::shared(Method::POST, "/api/v1/points/use", spend)
            .body(moved())
            .about("Uses the caller's points."),
        Call::shared(Method::POST, "/api/v1/points/{id}/cancel", cancel)
            .body(moved())
            .about("Cancels a movement of points."),
        Call::owned(
            Method::GET,
            "/api/v1/points/user/{user_id}/history",
            history,
        )
        .query(&["limit", "offset"])
        .about("Lists a user's movements, the newest first."),
        Call::shared(Method::POST, "/api/v2/points/earn", earn_redis)
            .body(moved())
            .about("Gives points to a user."),
    ]
}

pub(super) fn refusal(mut problem: Problem) -> Problem {
    if problem.status == 422 {
        problem.status = 400;
    }
    let status = problem.status;
    with_lists(problem).with("status_code", status)
}

/// The members that every change has.
struct Moved {
    user_id: i64,
    amount: i64,
    description: String,
}

impl Moved {
    fn of(fields: &Fields) -> Result<Self, Problem> {
        Ok(Self {
            user_id: fields.whole("user_id")?,
            amount: fields.whole("amount")?,
            description: fields.text("description")?,
        })
    }

    fn of_contract(&self) -> Value {
        json!({ "userId": self.user_id, "amount": self.amount, "description": self.description })
    }
}

fn moved(of: &Answer, has_time: bool) -> Response {
    let members = [
        ("id", "id"),
        ("user_id", "userId"),
        ("amount", "amount"),
        ("type", "type"),
        ("description", "description"),
        ("balance_snapshot", "balanceSnapshot"),
        ("created_at", "createdAt"),
    ];
    let shown = members
        .into_iter()
        .filter(|(name, _)| has_time || *name != "created_at");
    let data: Map<String, Value> = shown
        .map(|(name, contract)| (name.to_owned(), of.member(contract)))
        .collect();
    of.becomes(StatusCode::OK, &json!({ "data": data }))
}

async fn earn(ask: Ask) -> Result<Response, Problem> {
    earn_at(ask, "/api/v1/points/earn").await
}

async fn earn_redis(ask: Ask) -> Result<Response, Problem> {
    earn_at(ask, "/api/v2/points/earn").await
}

async fn earn_at(mut ask: Ask, path: &str) -> Result<Response, Problem> {
    ask.admin().await?;
    let body = Moved::of(&ask.fields()?)?.of_contract();
    Ok(moved(&ask.post(path, body).await?, false))
}

async fn spend(mut ask: Ask) -> Result<Response, Problem> {
    ask.caller().await?;
    let body = Moved::of(&ask.fields()?)?.of_contract();
    Ok(moved(&ask.post("/api/v1/points/use", body).await?, true))
}

async fn cancel(mut ask: Ask) -> Result<Response, Problem> {
    let caller = ask.caller().await?;
    let wanted = Moved::of(&ask.fields()?)?;
    let (owner, amount) = points::cancelable(&ask.app, caller, ask.number()).await?;
    if u64::try_from(wanted.user_id) != Ok(owner.0) {
        return Err(Problem::unprocessable(
            "/user_id",
            "the points are another user's",
        ));
    }
    if wanted.amount != amount {
        let rule = format!("the movement has the amount {amount}");
        return Err(Problem::unprocessable("/amount", rule));
    }
    let path = format!("/api/v1/points/{}/cancel", ask.id());
    Ok(moved(&ask.post(&path, json!({})).await?, true))
}

fn row(of: &PointTransaction) -> Value {
    let at = rfc3339(of.id.unix_ms());
    json!({ "id": of.id, "user_id": of.user_id.0, "amount": of.delta.abs(),
        "type": of.point_type, "description": of.description,
        "balance_snapshot": of.balance_snapshot, "version": of.seq,
        "point_balance": of.user_id.0, "created_at": at, "updated_at": at })
}

async fn history(mut ask: Ask) -> Result<Response, Problem> {
    let caller = ask.caller().await?;
    let query = ask.query()?;
    let limit = query.within("limit", LIMIT, 1..=LIMIT_MAX)?;
    let offset = query.within("offset", 0, 0..=OFFSET_MAX)?;
    let user = ask.number();
    let (found, count) = points::part_of(&ask.app, caller, user, limit, u64::from(offset)).await?;
    let url = ask.url();
    let link = |offset: u32| {
        let changed = [("limit", limit.to_string()), ("offset", offset.to_string())];
        query.url(&url, &changed)
    };
    let has_more = u64::from(offset) + u64::from(limit) < count;
    let next = (has_more && offset + limit <= OFFSET_MAX).then(|| link(offset + limit));
    let previous = (offset > 0).then(|| link(offset.saturating_sub(limit)));
    let data: Vec<Value> = found.iter().map(row).collect();
    let body = json!({ "count": count, "next": next, "previous": previous, "data": data });
    Ok(answer(StatusCode::OK, &body))
}
