//! Wire types of coupons, in and out.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Number;
use stock_common::clock::rfc3339;
use stock_common::id::{Position, UserId};
use stock_common::money::Money;
use stock_domain::account::{Account, Level};
use stock_domain::buyer::Buyer;
use stock_domain::coupon::{self, Benefit, Coupon, CouponIssued, Personal};
use stock_domain::discount::Percentage;
use stock_domain::stock::CHANGE_MAX;
use stock_mysql::coupon_issues::OwnCoupon;
use stock_mysql::coupons::CouponFields;
use utoipa::ToSchema;

use crate::http::extract::{BodyIn, Person, TimeIn};
use crate::http::problem::Problem;
use crate::http::products::check_text;

/// A coupon as an admin creates it: for a campaign, or with `userId` for one user.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({ "name": "Opening", "discountRate": 10, "count": 1_000 }))]
pub struct CouponIn {
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// Either this or `discountRate`.
    #[schema(value_type = Option<u64>, minimum = 1, maximum = 9_007_199_254_740_991_u64)]
    discount_amount: Option<Money>,
    /// Percent, above 0 and at most 100, with at most two decimals.
    #[schema(value_type = Option<f64>, minimum = 0.01, maximum = 100)]
    discount_rate: Option<Number>,
    /// Number of codes that can be drawn; unlimited if absent. Not allowed for a personal coupon.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_i64)]
    count: Option<i64>,
    /// Start of the time in which it may be drawn and used.
    #[schema(value_type = Option<String>, format = DateTime)]
    valid_from: Option<TimeIn>,
    /// End of the time in which it may be drawn and used.
    #[schema(value_type = Option<String>, format = DateTime)]
    valid_to: Option<TimeIn>,
    /// Unique code of a personal coupon; drawn at random if absent.
    #[schema(pattern = "^[0-9A-Za-z_-]{1,50}$")]
    pub(super) code: Option<String>,
    /// The user who gets a personal coupon.
    #[schema(minimum = 1)]
    user_id: Option<u64>,
}

impl BodyIn for CouponIn {}

/// Body of a draw.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssueIn {
    /// The campaign item (work) to draw for. Each user may draw one code for each item.
    #[schema(minimum = 1)]
    pub(super) work_id: Option<u64>,
    /// The shop's own name of the buyer; for a service key or an admin.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64)]
    buyer: Option<Buyer>,
    /// The user for whom a service key draws.
    pub(super) user_id: Option<u64>,
}

impl BodyIn for IssueIn {
    const MAY_BE_MISSING: bool = true;
    const IS_FOR_A_PERSON: bool = true;

    fn person(&self) -> Person<'_> {
        Person {
            buyer: self.buyer.as_ref(),
            user_id: self.user_id,
        }
    }
}

/// A coupon as clients see it. Only admins see personal coupons and their users.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct CouponOut<'a> {
    id: u64,
    #[serde(flatten)]
    worth: WorthOut<'a>,
    /// Number of codes that there were to draw; null if unlimited.
    count: Option<i64>,
    /// Number of codes left; null if unlimited.
    remaining: Option<i64>,
    code: Option<&'a str>,
    user_id: Option<u64>,
}

/// The discount of a coupon, and the time in which it is valid.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct WorthOut<'a> {
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
pub(in crate::http) struct CouponListOut<'a> {
    pub(super) items: Vec<CouponOut<'a>>,
    pub(super) next_cursor: Option<String>,
}

/// A code that was drawn.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct IssueOut<'a> {
    #[schema(value_type = String, pattern = "^[0-9]{1,20}$")]
    id: Position,
    coupon_id: u64,
    work_id: Option<u64>,
    code: &'a str,
    is_used: bool,
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
}

/// A code that the caller has drawn or was given.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct OwnCouponOut<'a> {
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
pub(in crate::http) struct OwnCouponListOut<'a> {
    pub(super) items: Vec<OwnCouponOut<'a>>,
    pub(super) next_cursor: Option<String>,
}

impl<'a> WorthOut<'a> {
    pub(super) fn new(coupon: &'a Coupon) -> Self {
        let (from_ms, to_ms) = coupon.window_ms;
        let bound = |ms: u64| (ms > 0).then(|| rfc3339(ms));
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
    pub(super) fn new(coupon: &'a Coupon, levels: &HashMap<Account, Level>) -> Self {
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
    pub(super) fn new(id: Position, issued: &'a CouponIssued, is_used: bool) -> Self {
        Self {
            id,
            coupon_id: issued.coupon_id.0,
            work_id: issued.work_id.map(|work| work.0),
            code: &issued.code,
            is_used,
            created_at: rfc3339(id.unix_ms()),
        }
    }
}

impl<'a> OwnCouponOut<'a> {
    pub(super) fn new(OwnCoupon { issue, coupon }: &'a OwnCoupon) -> Self {
        Self {
            issue: IssueOut::new(issue.id, &issue.issued, issue.order_id.is_some()),
            worth: WorthOut::new(coupon),
            order_id: issue.order_id,
        }
    }
}

impl CouponIn {
    pub(super) fn check(mut self) -> Result<CouponFields, Problem> {
        check_text(&mut self.name, 100, "/name", 1)?;
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
