//! `/silk`: the last requests with the time that each spent in MySQL and in Redis, for admins.

use std::time::Duration;

use askama::Template;
use axum::response::Response;
use stock_common::clock::rfc3339;

use super::context::{PageContext, page};
use crate::profile::Profiled;

#[derive(Template)]
#[template(path = "silk.html")]
struct SilkPage {
    context: PageContext,
    /// `None` while the setting is off.
    requests: Option<Vec<Profiled>>,
}

impl SilkPage {
    /// The time of day, in UTC.
    fn time(&self, at_ms: &u64) -> String {
        let at = rfc3339(*at_ms);
        let time = at.split('T').nth(1).unwrap_or_default();
        time.trim_end_matches('Z').to_owned()
    }

    fn ms(&self, time: &Duration) -> String {
        format!("{:.2}", time.as_secs_f64() * 1_000.0)
    }
}

/// GET `/silk`.
///
/// # Errors
/// A redirect to the login page, or 403.
pub async fn show(context: PageContext) -> Result<Response, Response> {
    context.admin()?;
    let profile = context.app.live.profile.as_ref();
    let requests = profile.map(crate::profile::Profile::latest);
    Ok(page(&SilkPage { context, requests }))
}
