//! Coupons: their benefit, how one is drawn, and the states of a code.
//!
//! ```text
//! FREE → USED (an order)        USED → FREE (its cancel)
//! FREE → HELD (a checkout)      HELD → USED (its payment) | FREE (its end)
//! ```
//!
//! A campaign's coupon has an account that counts how many are left. Everybody draws a code of
//! their own, once per coupon, user and work. A personal coupon belongs to one user, under a code
//! that an admin chose. The state of a code names its coupon and its owner, so an order needs
//! nothing else to know them. A coupon never changes once it exists, so the price of an order still
//! holds when the order is decided.

use std::fmt;

use rand::RngExt as _;
use rand::distr::Alphanumeric;
use serde::{Deserialize, Serialize};
use stock_common::id::{CouponId, UserId, WorkId};
use stock_common::money::Money;

use crate::account::Account;
use crate::discount::Percentage;
use crate::journal::{Draft, DraftError, Idempotency, Kind};
use crate::posting::Posting;
use crate::request::Request;
use crate::stock::CHANGE_MAX;
use crate::transition::Transition;
use crate::verdict::{Refusal, Verdict};

/// Characters of a drawn code, each out of 62.
const CODE_LENGTH: usize = 8;

/// The benefit of a coupon: what it takes off the sum of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Benefit {
    /// A fixed amount, at most the whole sum.
    Amount(Money),
    /// A part of the sum, rounded down to a whole unit.
    Rate(Percentage),
}

impl Benefit {
    /// The amount that it takes off a sum.
    #[must_use]
    pub fn of(self, sum: Money) -> Money {
        match self {
            Self::Amount(amount) => amount.min(sum),
            Self::Rate(rate) => rate.of(sum),
        }
    }
}

/// The owner and the code of a personal coupon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Personal {
    /// Its owner.
    pub user_id: UserId,
    /// Its code, 1..=50 letters, digits, `-` and `_`.
    pub code: String,
}

/// A coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coupon {
    /// The coupon.
    pub id: CouponId,
    /// At most 100 characters.
    pub name: String,
    /// Its benefit.
    pub benefit: Benefit,
    /// How many can be drawn; none is no limit.
    pub count: Option<i64>,
    /// The times from which and until which it may be drawn and used, in Unix ms; 0 is no bound.
    pub window_ms: (u64, u64),
    /// Its owner and its code; none for a campaign's coupon.
    pub personal: Option<Personal>,
}

impl Coupon {
    /// Whether it may be used at a time in Unix ms.
    #[must_use]
    pub const fn is_valid(&self, now_ms: u64) -> bool {
        let (from_ms, to_ms) = self.window_ms;
        now_ms >= from_ms && (to_ms == 0 || now_ms < to_ms)
    }

    /// The coupon as an order with this sum uses it, under one of its codes.
    #[must_use]
    pub fn used(&self, code: &str, sum: Money) -> UsedCoupon {
        UsedCoupon {
            code: code.to_owned(),
            coupon_id: self.id,
            discount_amount: self.benefit.of(sum),
        }
    }
}

/// A coupon as an order used it. In the order's body `[code, coupon, discount]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(String, CouponId, Money)", into = "(String, CouponId, Money)")]
pub struct UsedCoupon {
    /// Its code.
    pub code: String,
    /// The coupon.
    pub coupon_id: CouponId,
    /// The amount that it took off.
    pub discount_amount: Money,
}

impl From<(String, CouponId, Money)> for UsedCoupon {
    fn from((code, coupon_id, discount_amount): (String, CouponId, Money)) -> Self {
        Self {
            code,
            coupon_id,
            discount_amount,
        }
    }
}

impl From<UsedCoupon> for (String, CouponId, Money) {
    fn from(used: UsedCoupon) -> Self {
        (used.code, used.coupon_id, used.discount_amount)
    }
}

impl UsedCoupon {
    /// A stand-in for a code that may not be used. No coupon has the id 0, so the script refuses
    /// the order after stock and limits, as it does for a code that is used already.
    pub(crate) fn unusable(code: &str) -> Self {
        // A text that cannot be a code is not sent to the script.
        let code = if is_code(code) { code } else { "" };
        Self {
            code: code.to_owned(),
            coupon_id: CouponId(0),
            discount_amount: Money::ZERO,
        }
    }

    /// Whether it is no stand-in for a code that may not be used.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.coupon_id != CouponId(0)
    }

    /// The transition of the code when an order of this user uses it.
    pub(crate) fn uses(&self, user_id: UserId) -> Transition {
        let free = CodeState::free(self.coupon_id, user_id);
        code_moves(&self.code, free, free.used())
    }

    /// The transition of the code when a checkout of this user sets it aside.
    pub(crate) fn sets_aside(&self, user_id: UserId) -> Transition {
        let free = CodeState::free(self.coupon_id, user_id);
        code_moves(&self.code, free, free.held())
    }

    /// The transition of the code when the order is taken back.
    pub(crate) fn gives_back(&self, user_id: UserId) -> Transition {
        let free = CodeState::free(self.coupon_id, user_id);
        code_moves(&self.code, free.used(), free)
    }
}

/// How far the use of a coupon's code has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeUse {
    /// Nobody uses it.
    Free,
    /// A checkout has set it aside.
    Held,
    /// An order used it.
    Used,
}

impl CodeUse {
    const ALL: [Self; 3] = [Self::Free, Self::Held, Self::Used];

    /// The word in the state.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "FREE",
            Self::Held => "HELD",
            Self::Used => "USED",
        }
    }

    /// The use of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|of| of.as_str() == word)
    }
}

/// The state of a coupon's code, such as `FREE 7 3`: its coupon is 7 and its owner is user 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeState {
    /// How far its use has come.
    pub code_use: CodeUse,
    /// Its coupon.
    pub coupon_id: CouponId,
    /// Its owner.
    pub user_id: UserId,
}

impl CodeState {
    /// The state of a code that nobody uses.
    #[must_use]
    pub const fn free(coupon_id: CouponId, user_id: UserId) -> Self {
        Self {
            code_use: CodeUse::Free,
            coupon_id,
            user_id,
        }
    }

    /// Whether it is that user's code of that coupon.
    #[must_use]
    pub fn is_of(self, coupon_id: CouponId, user_id: UserId) -> bool {
        (self.coupon_id, self.user_id) == (coupon_id, user_id)
    }

    pub(crate) const fn freed(self) -> Self {
        Self::free(self.coupon_id, self.user_id)
    }

    pub(crate) const fn held(self) -> Self {
        Self {
            code_use: CodeUse::Held,
            ..self
        }
    }

    pub(crate) const fn used(self) -> Self {
        Self {
            code_use: CodeUse::Used,
            ..self
        }
    }

    /// Parses the state of a code.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let code_use = CodeUse::parse(parts.next()?)?;
        let coupon_id = CouponId(parts.next()?.parse().ok()?);
        let user_id = UserId(parts.next()?.parse().ok()?);
        parts.next().is_none().then_some(Self {
            code_use,
            coupon_id,
            user_id,
        })
    }
}

/// The transition of a code from one state to another.
pub(crate) fn code_moves(code: &str, from: CodeState, to: CodeState) -> Transition {
    Transition::new(code_state_id(code), &from.to_string(), to.to_string())
}

impl fmt::Display for CodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.code_use.as_str();
        write!(f, "{word} {} {}", self.coupon_id, self.user_id)
    }
}

/// The prefix of the id of a code's state.
pub const CODE_STATE: &str = "code:";

/// The id of a code's state.
#[must_use]
pub fn code_state_id(code: &str) -> String {
    format!("{CODE_STATE}{code}")
}

/// The id of the state that says that a user has drawn a coupon, for a work or for none.
#[must_use]
pub fn issue_state_id(coupon: CouponId, user: UserId, work: Option<WorkId>) -> String {
    format!("issued:{coupon}:{user}:{}", work.map_or(0, |work| work.0))
}

/// The id of the state that says that the ledger knows a campaign's coupon.
#[must_use]
pub fn opened_state_id(coupon: CouponId) -> String {
    format!("coupon:{coupon}")
}

/// The state under [`issue_state_id`].
pub const ISSUED: &str = "ISSUED";
/// The state under [`opened_state_id`].
pub const OPEN: &str = "OPEN";

/// Whether a text can be a code: 1..=50 letters, digits, `-` and `_`.
#[must_use]
pub fn is_code(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=50).contains(&text.len()) && text.bytes().all(fits)
}

/// Draws a code: 8 of 62 characters from a cryptographic source, all equally likely.
#[must_use]
pub fn draw_code() -> String {
    let characters = rand::rng().sample_iter(Alphanumeric).take(CODE_LENGTH);
    characters.map(char::from).collect()
}

/// The body of the entry that made a coupon known to the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CouponOpened {
    /// The coupon.
    pub coupon_id: CouponId,
    /// Its owner and its code; none for a campaign's coupon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personal: Option<Personal>,
}

impl CouponOpened {
    /// The issue that comes with a personal coupon: its owner has the coupon at once.
    #[must_use]
    pub fn issued(self) -> Option<CouponIssued> {
        let Personal { user_id, code } = self.personal?;
        Some(CouponIssued {
            coupon_id: self.coupon_id,
            user_id,
            work_id: None,
            code,
        })
    }
}

/// The body of the entry that drew a coupon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CouponIssued {
    /// The coupon.
    pub coupon_id: CouponId,
    /// The user who drew it.
    pub user_id: UserId,
    /// The campaign item for which it was drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work_id: Option<WorkId>,
    /// Its code.
    pub code: String,
}

/// Makes a coupon known to the ledger, once: opens a campaign's account, or issues a personal code.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn open(coupon: &Coupon, actor: UserId) -> Result<Request, DraftError> {
    let body = CouponOpened {
        coupon_id: coupon.id,
        personal: coupon.personal.clone(),
    };
    let mut draft = Draft::new(Kind::CouponOpened, actor, &body)?;
    draft.reference = Some(coupon.id.to_string());
    let transition = match &coupon.personal {
        Some(of) => Transition::new(
            code_state_id(&of.code),
            "",
            CodeState::free(coupon.id, of.user_id).to_string(),
        ),
        None => {
            // No limit: more than anybody will draw.
            let count = coupon.count.unwrap_or(CHANGE_MAX);
            let account = Account::coupon(coupon.id);
            draft.postings.push(Posting::new(account, count).opening(0));
            Transition::new(opened_state_id(coupon.id), "", OPEN.to_owned())
        }
    };
    draft.transitions.push(transition);
    Ok(Request::new(draft))
}

/// Whether a coupon can never be opened because its code belongs to another coupon.
#[must_use]
pub fn is_taken(coupon: &Coupon, verdict: &Verdict) -> bool {
    let Verdict::Refused(Refusal::StaleState { state, .. }) = verdict else {
        return false;
    };
    CodeState::parse(state).is_some_and(|found| found.coupon_id != coupon.id)
}

/// Draws a coupon if its window is open: once per coupon, user and work, while some are left.
///
/// The script first checks whether the user has the coupon already, then whether any is left, and
/// the code last, because another code may be drawn.
///
/// # Errors
/// [`DraftError`] when the entry has no JSON form.
pub fn issue(
    issued: &CouponIssued,
    window_ms: (u64, u64),
    idempotency: Option<Idempotency>,
) -> Result<Request, DraftError> {
    let &CouponIssued {
        coupon_id,
        user_id,
        work_id,
        ref code,
    } = issued;
    let mut draft = Draft::new(Kind::CouponIssued, user_id, issued)?;
    draft.reference = Some(coupon_id.to_string());
    draft.postings = vec![Posting::new(Account::coupon(coupon_id), -1)];
    let new = |id: String, next: String| Transition::new(id, "", next);
    draft.transitions = vec![
        new(
            issue_state_id(coupon_id, user_id, work_id),
            ISSUED.to_owned(),
        ),
        new(
            code_state_id(code),
            CodeState::free(coupon_id, user_id).to_string(),
        ),
    ];
    let mut request = Request::new(draft);
    request.idempotency = idempotency;
    request.window_ms = (window_ms != (0, 0)).then_some(window_ms);
    request.late_check = Some(1);
    request.retried_with_new_code = true;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use stock_common::id::{CouponId, UserId};
    use stock_common::money::Money;

    use super::{Benefit, CodeState, draw_code, is_code};
    use crate::discount::Percentage;

    #[test]
    fn a_coupon_takes_at_most_all_and_rounds_its_part_down() {
        let money = |units| Money::new(units).unwrap();
        let rate = |text: &str| Benefit::Rate(text.parse::<Percentage>().unwrap());
        for (benefit, sum, off) in [
            (Benefit::Amount(money(500)), 2_000, 500),
            (Benefit::Amount(money(500)), 300, 300),
            (rate("10"), 18_000, 1_800),
            (rate("33.33"), 100, 33),
            (rate("100"), 999, 999),
        ] {
            assert_eq!(benefit.of(money(sum)), money(off), "{benefit:?} of {sum}");
        }
    }

    #[test]
    fn the_state_of_a_code_survives_the_way_through_redis() {
        let free = CodeState::free(CouponId(7), UserId(3));
        for state in [free, free.held(), free.used()] {
            assert_eq!(CodeState::parse(&state.to_string()), Some(state));
        }
        for text in ["", "FREE", "FREE 7", "FREE 7 3 1", "GONE 7 3", "FREE x 3"] {
            assert_eq!(CodeState::parse(text), None, "{text}");
        }
    }

    #[test]
    fn codes_are_eight_characters_of_all_sixty_two() {
        let codes: Vec<String> = (0..4_000).map(|_| draw_code()).collect();
        let used: std::collections::BTreeSet<char> = codes.iter().flat_map(|c| c.chars()).collect();
        assert_eq!(used.len(), 62);
        assert!(codes.iter().all(|code| code.len() == 8 && is_code(code)));
    }
}
