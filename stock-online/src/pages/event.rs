//! `/event`: coupons drawn first come, first served, one for each campaign item.

use std::collections::HashMap;

use askama::Template;
use axum::response::Response;
use serde::Deserialize;

use super::context::{PageContext, page};
use super::shop::List;
use crate::http::problem::Problem;

/// Maximum number of coupons, and of campaign items, on the page.
const SHOWN: u32 = 50;
/// How many pages, of a hundred of the reader's codes each, are searched for codes of the campaigns
/// shown.
const OWN_PAGES: usize = 20;

/// A campaign as the interface gives it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Campaign {
    id: u64,
    name: String,
    discount_amount: Option<i64>,
    discount_rate: Option<f64>,
    count: Option<i64>,
    remaining: Option<i64>,
    valid_from: Option<String>,
    valid_to: Option<String>,
    #[serde(skip)]
    state: EventState,
}

/// A campaign item as the interface gives it.
#[derive(Debug, Deserialize)]
struct Work {
    id: u64,
    title: String,
}

/// A code of the reader as the interface gives it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnCode {
    coupon_id: u64,
    work_id: Option<u64>,
    code: String,
}

/// The state of a campaign, in the order of the page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum EventState {
    /// Codes can be drawn.
    Running,
    /// Its time has not begun.
    #[default]
    Coming,
    /// Its time is over, or no code is left.
    Ended,
}

impl EventState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Coming => "coming",
            Self::Running => "running",
            Self::Ended => "ended",
        }
    }

    fn of(campaign: &Campaign, now_ms: i64) -> Self {
        let ms = |at: &Option<String>| {
            let at = chrono::DateTime::parse_from_rfc3339(at.as_deref()?).ok()?;
            Some(at.timestamp_millis())
        };
        if ms(&campaign.valid_from).is_some_and(|from| now_ms < from) {
            Self::Coming
        } else if ms(&campaign.valid_to).is_some_and(|to| now_ms >= to)
            || campaign.remaining == Some(0)
        {
            Self::Ended
        } else {
            Self::Running
        }
    }
}

#[derive(Template)]
#[template(path = "event/event.html")]
struct EventPage {
    context: PageContext,
    campaigns: Vec<Campaign>,
    works: Vec<Work>,
    codes: HashMap<(u64, Option<u64>), String>,
}

impl EventPage {
    /// The reader's code of a campaign, for an item or for none.
    fn code(&self, coupon: &u64, work: Option<&u64>) -> Option<&String> {
        self.codes.get(&(*coupon, work.copied()))
    }
}

/// The reader's codes, newest first.
async fn own_codes(context: &PageContext) -> Result<Vec<OwnCode>, Problem> {
    let mut codes = Vec::new();
    let mut cursor = String::new();
    if context.caller.is_none() {
        return Ok(codes);
    }
    for _ in 0..OWN_PAGES {
        let path = format!("/api/coupons/mine?limit=100{cursor}");
        let found: List<OwnCode> = context.get_own(path).await?;
        codes.extend(found.items);
        match found.next_cursor {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    Ok(codes)
}

/// GET `/event`.
///
/// # Errors
/// 503 when MySQL does not answer.
pub async fn show(context: PageContext) -> Result<Response, Problem> {
    // Read as an anonymous client, so that the list has no personal coupons.
    let campaigns: List<Campaign> = context
        .get_public(&format!("/api/coupons?limit={SHOWN}"))
        .await?;
    let works: List<Work> = context
        .get_public(&format!("/api/works?limit={SHOWN}"))
        .await?;
    let codes = context.own(own_codes(&context)).await?.unwrap_or_default();
    let now_ms = i64::try_from(context.app.ledger.redis_now_ms()).unwrap_or(i64::MAX);
    let mut campaigns = campaigns.items;
    for campaign in &mut campaigns {
        campaign.state = EventState::of(campaign, now_ms);
    }
    campaigns.sort_by_key(|campaign| campaign.state);
    let codes = codes.into_iter();
    Ok(page(&EventPage {
        campaigns,
        works: works.items,
        codes: codes
            .map(|own| ((own.coupon_id, own.work_id), own.code))
            .collect(),
        context,
    }))
}
