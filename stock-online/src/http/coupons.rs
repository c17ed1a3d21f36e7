//! Coupons: make one, list them, draw one first come first served, see one's own.
//!
//! | verb | path | answers |
//! |---|---|---|
//! | [`list`] | GET `/api/coupons` | campaigns, newest first; to an admin also personal coupons |
//! | [`create`] | POST `/api/coupons` | an admin's |
//! | [`issue`] | POST `/api/coupons/{id}/issue` | 201 with a code: decided, MySQL follows |
//! | [`mine`] | GET `/api/coupons/mine` | the caller's codes, newest first |
//!
//! Using one is a part of an order ([`super::orders`]).

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Number;
use stock_common::clock::rfc3339;
use stock_common::error::Code;
use stock_common::id::{CouponId, Position, UserId, WorkId};
use stock_common::money::Money;
use stock_domain::account::{Account, Level};
use stock_domain::coupon::{self, Benefit, Coupon, CouponIssued, Personal};
use stock_domain::database::audit_log::Action;
use stock_domain::database::coupon_issues::{self, OwnCoupon};
use stock_domain::database::coupons::{self as table, CouponFields};
use stock_domain::database::products::CreationKey;
use stock_domain::database::{accounts, error_number, users};
use stock_domain::discount::Percentage;
use stock_domain::journal::Idempotency;
use stock_domain::lookup;
use stock_domain::stock::CHANGE_MAX;
use stock_domain::verdict::{Refusal, Replay, Verdict};
use utoipa::ToSchema;

use super::audit;
use super::auth::{Admin, AnyCaller, Caller};
use super::extract::{BodyIn, Filter, Keyed, PathId, TimeIn};
use super::orders::{json, replayed};
use super::origin::Origin;
use super::page::{PageIn, cursor_of, cut, limit_of};
use super::problem::Problem;
use super::products::{check_text, same_request};
use super::verdicts::{refuse, replayed_entry};
use crate::app::{App, CATCH_UP_MAX};

/// How often a code is drawn again that somebody has: once in 10^8 draws when two million are out.
const DRAWS_MAX: usize = 5;

/// A coupon as an admin makes it: a campaign's, or with `userId` one user's.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "name": "Opening", "discountRate": 10, "count": 1_000 }))]
pub struct CouponIn {
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// Either this or `discountRate`.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 9_007_199_254_740_991_u64)]
    discount_amount: Option<Money>,
    /// Above 0 and at most 100, with at most two decimals.
    #[schema(value_type = Option<f64>, minimum = 0.01, maximum = 100)]
    discount_rate: Option<Number>,
    /// How many there are to draw; as many as are wanted unless it is given. Not of a personal coupon.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_i64)]
    count: Option<i64>,
    /// From when it may be drawn and used.
    #[schema(value_type = Option<String>, format = DateTime)]
    valid_from: Option<TimeIn>,
    /// Until when it may be drawn and used.
    #[schema(value_type = Option<String>, format = DateTime)]
    valid_to: Option<TimeIn>,
    /// A personal coupon's code, unlike any other; drawn unless it is given.
    #[schema(pattern = "^[0-9A-Za-z_-]{1,50}$")]
    code: Option<String>,
    /// Whose it is.
    #[schema(minimum = 1)]
    user_id: Option<u64>,
}

impl BodyIn for CouponIn {}

/// What to draw a coupon for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssueIn {
    /// A campaign item: each user may draw one for each.
    #[schema(minimum = 1)]
    work_id: Option<u64>,
}

impl BodyIn for IssueIn {
    const MAY_BE_MISSING: bool = true;
}

/// A coupon as everybody sees it; whose a personal one is only to admins.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CouponOut<'a> {
    id: u64,
    #[serde(flatten)]
    worth: WorthOut<'a>,
    /// How many there were to draw.
    count: Option<i64>,
    /// How many are left; none when they are not counted.
    remaining: Option<i64>,
    code: Option<&'a str>,
    user_id: Option<u64>,
}

/// What a coupon is worth, and when.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct WorthOut<'a> {
    name: &'a str,
    #[schema(value_type = Option<u64>)]
    discount_amount: Option<Money>,
    #[schema(value_type = Option<f64>)]
    discount_rate: Option<Number>,
    #[schema(value_type = Option<String>, format = DateTime)]
    valid_from: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    valid_to: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CouponListOut<'a> {
    items: Vec<CouponOut<'a>>,
    next_cursor: Option<String>,
}

/// A code that was drawn.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct IssueOut<'a> {
    #[schema(value_type = String, pattern = "^[0-9]{1,20}$")]
    id: Position,
    coupon_id: u64,
    work_id: Option<u64>,
    code: &'a str,
    is_used: bool,
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
}

/// A code in the caller's hands.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct OwnCouponOut<'a> {
    #[serde(flatten)]
    issue: IssueOut<'a>,
    #[serde(flatten)]
    worth: WorthOut<'a>,
    /// The order that used it.
    #[schema(value_type = Option<String>, pattern = "^[0-9]{1,20}$")]
    order_id: Option<Position>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct OwnCouponListOut<'a> {
    items: Vec<OwnCouponOut<'a>>,
    next_cursor: Option<String>,
}

fn time(unix_ms: u64) -> String {
    rfc3339(i64::try_from(unix_ms).unwrap_or_default())
}

impl<'a> WorthOut<'a> {
    fn new(coupon: &'a Coupon) -> Self {
        let (from_ms, to_ms) = coupon.window_ms;
        let bound = |ms: u64| (ms > 0).then(|| time(ms));
        let (discount_amount, discount_rate) = match coupon.benefit {
            Benefit::Amount(amount) => (Some(amount), None),
            Benefit::Rate(rate) => (None, rate.to_string().parse().ok()),
        };
        Self {
            name: &coupon.name,
            discount_amount,
            discount_rate,
            valid_from: bound(from_ms),
            valid_to: bound(to_ms),
        }
    }
}

impl<'a> CouponOut<'a> {
    fn new(coupon: &'a Coupon, levels: &HashMap<Account, Level>) -> Self {
        let level = levels.get(&Account::coupon(coupon.id));
        let personal = coupon.personal.as_ref();
        Self {
            id: coupon.id.0,
            worth: WorthOut::new(coupon),
            count: coupon.count,
            remaining: coupon.count.map(|_| level.map_or(0, |level| level.balance)),
            code: personal.map(|of| of.code.as_str()),
            user_id: personal.map(|of| of.user_id.0),
        }
    }
}

impl<'a> IssueOut<'a> {
    fn new(id: Position, issued: &'a CouponIssued, is_used: bool) -> Self {
        Self {
            id,
            coupon_id: issued.coupon_id.0,
            work_id: issued.work_id.map(|work| work.0),
            code: &issued.code,
            is_used,
            created_at: time(id.unix_ms()),
        }
    }
}

impl<'a> OwnCouponOut<'a> {
    fn new(OwnCoupon { issue, coupon }: &'a OwnCoupon) -> Self {
        Self {
            issue: IssueOut::new(issue.id, &issue.issued, issue.order_id.is_some()),
            worth: WorthOut::new(coupon),
            order_id: issue.order_id,
        }
    }
}

impl CouponIn {
    fn check(self) -> Result<CouponFields, Problem> {
        check_text(&self.name, 100, "/name", 1)?;
        let benefit = match (self.discount_amount, self.discount_rate) {
            (Some(amount), None) if amount > Money::ZERO => Benefit::Amount(amount),
            (None, Some(rate)) => {
                let text = rate.to_string();
                let rate: Percentage = text.parse().map_err(|error| {
                    Problem::unprocessable("/discountRate", format!("{error}, not {text}"))
                })?;
                Benefit::Rate(rate)
            }
            (Some(_), None) => {
                return Err(Problem::unprocessable("/discountAmount", "is 0"));
            }
            _ => {
                let rule = "either discountAmount or discountRate is required";
                return Err(Problem::unprocessable("/discountAmount", rule));
            }
        };
        if self
            .count
            .is_some_and(|count| !(0..=CHANGE_MAX).contains(&count))
        {
            let rule = format!("a whole number from 0 to {CHANGE_MAX}");
            return Err(Problem::unprocessable("/count", rule));
        }
        let bound = |at: Option<TimeIn>| at.map_or(0, TimeIn::unix_ms);
        let window_ms = (bound(self.valid_from), bound(self.valid_to));
        if self.valid_to.is_some() && window_ms.0 >= window_ms.1 {
            return Err(Problem::unprocessable("/validTo", "is not after validFrom"));
        }
        let personal = match (self.user_id, self.code) {
            (None, None) => None,
            (None, Some(_)) => {
                let rule = "is required: a campaign's codes are drawn";
                return Err(Problem::unprocessable("/userId", rule));
            }
            (Some(_), _) if self.count.is_some() => {
                return Err(Problem::unprocessable("/count", "a personal coupon is one"));
            }
            (Some(_), Some(code)) if !coupon::is_code(&code) => {
                let rule = "1 to 50 letters, digits, - and _";
                return Err(Problem::unprocessable("/code", rule));
            }
            (Some(user), code) => Some(Personal {
                user_id: UserId(user),
                code: code.unwrap_or_else(coupon::draw_code),
            }),
        };
        Ok(CouponFields {
            name: self.name,
            benefit,
            count: self.count,
            window_ms,
            personal,
        })
    }
}

/// What is left of coupons: in Redis, and while that does not answer, in MySQL.
async fn remaining(app: &App, coupons: &[Coupon]) -> Result<HashMap<Account, Level>, Problem> {
    let counted = coupons.iter().filter(|coupon| coupon.count.is_some());
    let names: Vec<Account> = counted.map(|coupon| Account::coupon(coupon.id)).collect();
    match app.ledger.levels(&names).await {
        Ok(levels) => Ok(levels),
        Err(_) => Ok(accounts::levels(&app.pool, &names).await?),
    }
}

/// GET `/api/coupons`.
///
/// # Errors
/// 422 for a page that does not fit.
pub async fn list(
    State(app): State<Arc<App>>,
    AnyCaller(caller): AnyCaller,
    Filter(query): Filter<PageIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(query.limit)?;
    let before = cursor_of(query.cursor.as_deref())?.map(CouponId);
    let campaigns_only = !caller.is_some_and(|caller| caller.is_admin());
    let mut found = table::list(&app.pool, campaigns_only, before, limit + 1).await?;
    let next_cursor = cut(&mut found, limit).map(|last| last.id.to_string());
    let levels = remaining(&app, &found).await?;
    let item = |coupon| CouponOut::new(coupon, &levels);
    let items = found.iter().map(item).collect();
    Ok(json(StatusCode::OK, &CouponListOut { items, next_cursor }))
}

/// POST `/api/coupons`.
///
/// # Errors
/// 404 for a user who does not exist, 409 when another coupon has the code, 422.
pub async fn create(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    Keyed {
        body, idempotency, ..
    }: Keyed<CouponIn>,
) -> Result<Response, Problem> {
    let is_drawn = body.code.is_none();
    let mut fields = body.check()?;
    // Without a proved Redis it could not be opened.
    app.ledger.link()?;
    if let Some(of) = &fields.personal
        && users::find(&app.pool, of.user_id).await?.is_none()
    {
        return Err(Problem::new(Code::NotFound, "there is no such user"));
    }
    let key = idempotency.as_ref().and_then(CreationKey::of);
    let mut made = make(&app, admin, &fields, key.as_ref()).await;
    for _ in 1..DRAWS_MAX {
        // A code that nobody chose is drawn again.
        match (&made, &mut fields.personal) {
            (Err(problem), Some(of)) if is_drawn && problem.code == Code::CouponCodeTaken => {
                of.code = coupon::draw_code();
            }
            _ => break,
        }
        made = make(&app, admin, &fields, key.as_ref()).await;
    }
    let (created, is_replayed) = made?;
    if !is_replayed {
        let subject = format!("coupon:{}", created.id);
        let action = Action::CouponCreated;
        audit::note(&app, &origin, action, (Some(admin.user), &subject));
    }
    // The first answer again: as many as there were.
    let first = Level {
        balance: created.count.unwrap_or_default(),
        ..Level::default()
    };
    let levels = HashMap::from([(Account::coupon(created.id), first)]);
    let response = json(StatusCode::CREATED, &CouponOut::new(&created, &levels));
    Ok(if is_replayed {
        replayed(response)
    } else {
        response
    })
}

/// Writes a coupon and makes it known to the ledger; whether a request with the same key has done so before.
async fn make(
    app: &App,
    admin: Caller,
    fields: &CouponFields,
    key: Option<&CreationKey>,
) -> Result<(Arc<Coupon>, bool), Problem> {
    let (id, is_replayed) = match table::insert(&app.pool, fields, key).await {
        Ok(id) => (id, false),
        Err(error) => (created_before(app, key, error).await?, true),
    };
    let created = app.coupons.find(&app.pool, id).await?;
    let created = created.ok_or_else(|| Problem::of(Code::CouponNotFound))?;
    // Repeated for a replay: the first attempt may have ended here.
    match app
        .ledger
        .decide(coupon::open(&created, admin.user)?)
        .await?
    {
        verdict if coupon::is_taken(&created, &verdict) => {
            table::delete_unopened(&app.pool, id).await?;
            Err(Problem::of(Code::CouponCodeTaken))
        }
        // Another attempt at the same was quicker.
        Verdict::Accepted(_)
        | Verdict::Replayed(_)
        | Verdict::Refused(Refusal::StaleState { .. }) => Ok((created, is_replayed)),
        Verdict::Refused(refusal) => Err(refusal.into()),
    }
}

/// The coupon that an earlier request with the same key created, unless it is the code that another has.
async fn created_before(
    app: &App,
    key: Option<&CreationKey>,
    error: sqlx::Error,
) -> Result<CouponId, Problem> {
    if error_number(&error) != Some(1062) {
        return Err(error.into());
    }
    let taken = || Problem::of(Code::CouponCodeTaken);
    let key = key.ok_or_else(taken)?;
    match table::find_by_key(&app.pool, key).await? {
        None => Err(taken()),
        found => same_request(found, key),
    }
}

/// What refuses a draw.
fn undrawn(refusal: Refusal) -> Problem {
    let code = if matches!(refusal, Refusal::StaleState { .. }) {
        Code::CouponAlreadyIssued
    } else if matches!(refusal, Refusal::NotOpen) {
        Code::CouponNotOpen
    } else if matches!(refusal, Refusal::Closed) {
        Code::CouponClosed
    } else if matches!(
        refusal,
        Refusal::Taken { .. } | Refusal::UnknownAccount { .. }
    ) {
        // Every code that was drawn was somebody's: the next request draws others. Or a crash kept the coupon
        // from the ledger, which will know it in a few seconds.
        Code::Overloaded
    } else {
        return refusal.into();
    };
    Problem::of(code)
}

/// Draws codes until one is nobody's.
async fn draw(
    app: &App,
    window_ms: (u64, u64),
    wanted: &mut CouponIssued,
    idempotency: Option<&Idempotency>,
) -> Result<Verdict, Problem> {
    let mut drawn = 0;
    loop {
        wanted.code = coupon::draw_code();
        let request = coupon::issue(wanted, window_ms, idempotency.cloned())?;
        let verdict = app.ledger.decide(request).await?;
        drawn += 1;
        let is_taken = matches!(&verdict, Verdict::Refused(Refusal::Taken { .. }));
        if !is_taken || drawn == DRAWS_MAX {
            return Ok(verdict);
        }
    }
}

/// The campaign's coupon that is drawn.
async fn find_campaign(
    app: &App,
    id: Result<PathId, Problem>,
    work: Option<WorkId>,
) -> Result<Arc<Coupon>, Problem> {
    let missing = || Problem::of(Code::CouponNotFound);
    let PathId(id) = id.map_err(|_not_a_number| missing())?;
    let coupon = app.coupons.find(&app.pool, CouponId(id)).await?;
    let campaign = coupon.filter(|coupon| coupon.personal.is_none());
    let campaign = campaign.ok_or_else(missing)?;
    if !app.catalog.is_read() {
        return Err(Problem::of(Code::DatabaseUnavailable));
    }
    if work.is_some_and(|work| !app.catalog.has_work(work)) {
        return Err(Problem::of(Code::WorkNotFound));
    }
    Ok(campaign)
}

fn count(verdict: &Verdict) {
    metrics::counter!("stock_coupon_issues_total", "verdict" => verdict.name()).increment(1);
}

/// POST `/api/coupons/{id}/issue`.
///
/// # Errors
/// 404, 409 when the caller has it already, when none is left, before and after its time.
pub async fn issue(
    State(app): State<Arc<App>>,
    id: Result<PathId, Problem>,
    Keyed {
        caller,
        body,
        idempotency,
    }: Keyed<IssueIn>,
) -> Result<Response, Problem> {
    let work_id = body.work_id.map(WorkId);
    let mut wanted = CouponIssued {
        coupon_id: CouponId(0),
        user_id: caller.user,
        work_id,
        code: String::new(),
    };
    let verdict = match find_campaign(&app, id, work_id).await {
        Ok(campaign) => {
            wanted.coupon_id = campaign.id;
            draw(&app, campaign.window_ms, &mut wanted, idempotency.as_ref()).await?
        }
        Err(problem) => refuse(&app, idempotency, problem).await?,
    };
    count(&verdict);
    match verdict {
        Verdict::Accepted(accepted) => {
            let body = IssueOut::new(accepted.position, &wanted, false);
            Ok(json(StatusCode::CREATED, &body))
        }
        Verdict::Replayed(Replay::Accepted(position)) => {
            let entry = replayed_entry(&app, position).await?;
            let issued = entry.body().map_err(|error| Problem::internal(&error))?;
            let body = IssueOut::new(position, &issued, false);
            Ok(replayed(json(StatusCode::CREATED, &body)))
        }
        Verdict::Replayed(Replay::Refused(refusal)) => Err(undrawn(refusal).replayed()),
        Verdict::Refused(refusal) => Err(undrawn(refusal)),
    }
}

/// GET `/api/coupons/mine`.
///
/// # Errors
/// 422 for a page that does not fit.
pub async fn mine(
    State(app): State<Arc<App>>,
    caller: Caller,
    Filter(query): Filter<PageIn>,
) -> Result<Response, Problem> {
    let limit = limit_of(query.limit)?;
    let before = cursor_of(query.cursor.as_deref())?.map(Position::new);
    lookup::catch_up(&app.pool, &app.ledger, CATCH_UP_MAX).await;
    let mut found = coupon_issues::of_user(&app.pool, caller.user, before, limit + 1).await?;
    let next_cursor = cut(&mut found, limit).map(|last| last.issue.id.to_string());
    let items = found.iter().map(OwnCouponOut::new).collect();
    Ok(json(
        StatusCode::OK,
        &OwnCouponListOut { items, next_cursor },
    ))
}
