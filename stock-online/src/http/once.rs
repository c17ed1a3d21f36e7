//! Once: a change that MySQL decides is made once under an Idempotency-Key.
//!
//! A handler begins, makes its change on the connection that it is given, and ends with its answer.
//! Change and answer are one transaction. Meanwhile a handler takes no other connection from the
//! pool: otherwise many handlers would each hold one connection and wait for another. The same
//! request gets the first answer again, whether or not the client saw it. A crash in between leaves
//! nothing to repeat. Some changes are made elsewhere and may be repeated, such as setting a state;
//! their answer is looked up before the change ([`look`]) and kept after it ([`keep`]). Requests
//! that the script decides carry their key to the script ([`super::verdicts`]).
//!
//! Two kinds of answers are remembered: acceptances (`idempotency_accepted_ms`), and refusals that
//! depend on the state of the shop (`idempotency_refused_ms`). A refusal that follows from the
//! request alone, or that passes by itself, is not remembered. Without a key the change is still
//! one transaction.

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use sqlx::{MySql, MySqlConnection, Transaction};
use stock_domain::journal::Idempotency;
use stock_mysql::idempotent_requests::{self as table, Answer, Claim};

use super::orders::replayed;
use super::problem::Problem;
use super::products::publish;
use crate::app::App;
use crate::http::code::Code;

/// Largest answer of a change, in bytes.
const BODY_MAX: usize = 1 << 20;
/// Stored in place of headers when the body is a problem that is not rendered yet.
const PROBLEM: &str = "problem";

/// A change that has begun.
pub(super) struct Once {
    transaction: Transaction<'static, MySql>,
    key: Option<Idempotency>,
    /// How long an acceptance, and how long a refusal, is remembered, in ms.
    remember_ms: (u64, u64),
}

/// Whether a handler must make the change.
pub(super) enum Begun {
    /// The handler must make it.
    Fresh(Once),
    /// It was made or refused before, with this answer.
    Before(Result<Response, Problem>),
}

impl Once {
    /// Begins a change, or finds the answer that the same request got before.
    pub(super) async fn begin(app: &App, key: Option<Idempotency>) -> Result<Begun, Problem> {
        let remember_ms = (
            app.config.decide.idempotency_accepted_ms,
            app.config.decide.idempotency_refused_ms,
        );
        let mut transaction = app.pool.begin().await?;
        let claim = match &key {
            None => Claim::Fresh,
            Some(known) => table::claim(&mut transaction, known).await?,
        };
        if claim == Claim::Fresh {
            table::mark(&mut transaction).await?;
            return Ok(Begun::Fresh(Self {
                transaction,
                key,
                remember_ms,
            }));
        }
        let before = before(claim);
        transaction.rollback().await?;
        if before.is_ok() {
            // The first answer confirmed a change, so this instance must know the change before it
            // repeats the answer.
            publish(app).await?;
        }
        Ok(Begun::Before(before))
    }

    /// The connection on which the change is made.
    pub(super) fn connection(&mut self) -> &mut MySqlConnection {
        &mut self.transaction
    }

    /// Ends the change: an answer commits it, a problem undoes it. The value beside the answer is
    /// the handler's own.
    ///
    /// # Errors
    /// The problem that the change ended with, or that MySQL did not answer.
    pub(super) async fn end<T>(
        mut self,
        done: Result<(Response, T), Problem>,
    ) -> Result<(Response, T), Problem> {
        match (done, &self.key) {
            (Ok((response, own)), Some(key)) => {
                let (answer, response) = read(response).await?;
                let (done_ms, _) = self.remember_ms;
                table::answer(&mut self.transaction, key, &answer, done_ms).await?;
                self.transaction.commit().await?;
                Ok((response, own))
            }
            (Ok(done), None) => {
                self.transaction.commit().await?;
                Ok(done)
            }
            (Err(problem), Some(key)) if is_remembered(&problem) => {
                table::undo(&mut self.transaction).await?;
                let answer = Answer {
                    status: problem.code.status(),
                    headers: PROBLEM.to_owned(),
                    body: problem.to_remember().into_bytes(),
                };
                let (_, refused_ms) = self.remember_ms;
                table::answer(&mut self.transaction, key, &answer, refused_ms).await?;
                self.transaction.commit().await?;
                Err(problem)
            }
            (Err(problem), _) => {
                self.transaction.rollback().await?;
                Err(problem)
            }
        }
    }
}

/// The answer that the same request got before, if it got one.
///
/// # Errors
/// When MySQL does not answer.
pub(super) async fn look(
    app: &App,
    key: Option<&Idempotency>,
) -> Result<Option<Result<Response, Problem>>, Problem> {
    let Some(known) = key else {
        return Ok(None);
    };
    Ok(match table::look(&app.pool, known).await? {
        Claim::Fresh => None,
        claim @ (Claim::Answered(_) | Claim::Reused | Claim::InProgress) => Some(before(claim)),
    })
}

/// Keeps the answer of a change that was made, and returns it. Equal requests at the same time all
/// get the answer that was kept first.
///
/// # Errors
/// The problem that the change ended with, or that MySQL did not answer.
pub(super) async fn keep(
    app: &App,
    key: Option<Idempotency>,
    done: Result<Response, Problem>,
) -> Result<Response, Problem> {
    if key.is_none() {
        return done;
    }
    match Once::begin(app, key).await? {
        Begun::Before(answer) => answer,
        Begun::Fresh(once) => {
            let (response, ()) = once.end(done.map(|response| (response, ()))).await?;
            Ok(response)
        }
    }
}

/// The answer when the key was claimed before.
fn before(claim: Claim) -> Result<Response, Problem> {
    match claim {
        Claim::Answered(answer) => again(answer),
        Claim::Reused => Err(Problem::of(Code::IdempotencyKeyReused)),
        Claim::InProgress | Claim::Fresh => Err(Problem::of(Code::RequestInProgress)),
    }
}

/// Whether a refusal is remembered: it depends on the state of the shop, and not on a request under
/// way.
fn is_remembered(problem: &Problem) -> bool {
    let is_state = matches!(problem.code.status(), 404 | 409 | 412);
    is_state && problem.code != Code::RequestInProgress
}

/// Reads an answer, so that it can be both remembered and returned.
async fn read(response: Response) -> Result<(Answer, Response), Problem> {
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, BODY_MAX)
        .await
        .map_err(|error| Problem::internal(&error))?;
    let headers: Vec<(&str, &str)> = parts
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
        .collect();
    let headers = serde_json::to_string(&headers).map_err(|error| Problem::internal(&error))?;
    let answer = Answer {
        status: parts.status.as_u16(),
        headers,
        body: body.to_vec(),
    };
    Ok((answer, Response::from_parts(parts, Body::from(body))))
}

/// Rebuilds the first answer.
fn again(answer: Answer) -> Result<Response, Problem> {
    let Answer {
        status,
        headers,
        body,
    } = answer;
    if headers == PROBLEM {
        let text = String::from_utf8_lossy(&body);
        return Err(Problem::from_remembered(&text).replayed());
    }
    let status = StatusCode::from_u16(status).map_err(|error| Problem::internal(&error))?;
    let mut response = (status, Bytes::from(body)).into_response();
    let headers: Vec<(String, String)> =
        serde_json::from_str(&headers).map_err(|error| Problem::internal(&error))?;
    response.headers_mut().clear();
    for (name, value) in headers {
        let pair = HeaderName::try_from(name)
            .ok()
            .zip(HeaderValue::try_from(value).ok());
        if let Some((name, value)) = pair {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(replayed(response))
}
