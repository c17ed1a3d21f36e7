//! `/dashboard`: the last minutes, live.
//!
//! The server draws the page, curves included. Once a second it draws the moving part again and
//! sends it as an event, so that the script only has to replace that part.

mod figures;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use stock_redis::FenceState;
use tokio::time::Instant;

use self::figures::{Figures, ProductFigures};
use super::context::{PageContext, page};
use crate::http::problem::Problem;
use crate::stream_places::Holder;

/// Life of a stream. The browser then reconnects by itself, and the new request checks that its
/// reader is still an admin.
const ASK_AGAIN: Duration = Duration::from_secs(20);

/// The moving part of the page.
#[derive(Template)]
#[template(path = "dashboard/live.html")]
struct Live<'a> {
    context: &'a PageContext,
    figures: Figures,
    epoch: Option<String>,
    fenced: Option<String>,
    durability: &'static str,
}

impl<'a> Live<'a> {
    fn new(context: &'a PageContext) -> Self {
        let app = &context.app;
        let (epoch, fenced) = match app.ledger.fence_state() {
            FenceState::Open(link) => (Some(link.epoch.to_string()), None),
            FenceState::Mending(reason) | FenceState::Fenced(reason) => {
                (None, Some(reason.to_string()))
            }
        };
        Self {
            figures: Figures::of(&app.live.history.samples()),
            epoch,
            fenced,
            durability: app.config.redis.durability.as_str(),
            context,
        }
    }

    /// A rate with at most one decimal.
    fn rate(&self, rate: &f64) -> String {
        if *rate < 10.0 && *rate > 0.0 {
            return format!("{rate:.1}");
        }
        #[expect(clippy::cast_possible_truncation, reason = "rates are far below 2^53")]
        let whole = rate.round() as i64;
        self.context.number(&whole)
    }

    /// Milliseconds, with one decimal below 10.
    fn ms(&self, ms: &Option<f64>) -> String {
        match ms {
            None => "–".to_owned(),
            Some(ms) if *ms < 10.0 => format!("{ms:.1} ms"),
            Some(ms) => format!("{ms:.0} ms"),
        }
    }

    fn seconds(&self, seconds: &f64) -> String {
        format!("{seconds:.1} s")
    }

    fn product_url(&self, product: &ProductFigures) -> String {
        format!("/admin/products/{}", product.id)
    }
}

#[derive(Template)]
#[template(path = "dashboard/dashboard.html")]
struct DashboardPage<'a> {
    context: &'a PageContext,
    live: Live<'a>,
}

/// GET `/dashboard`.
///
/// # Errors
/// A redirect to the login page; 403 for anybody but an admin.
pub async fn show(context: PageContext) -> Result<Response, Response> {
    context.admin()?;
    let live = Live::new(&context);
    Ok(page(&DashboardPage {
        context: &context,
        live,
    }))
}

/// GET `/dashboard/live`: the moving part of the page, as one event a second.
///
/// # Errors
/// A redirect to the login page; 403; 503 when too many streams are open.
pub async fn live(
    State(app): State<Arc<crate::app::App>>,
    context: PageContext,
) -> Result<Response, Response> {
    context.admin()?;
    let place = app.live.event_streams.take(Holder::Admin);
    let place = place.map_err(|full| Problem::from(full).into_response())?;
    let begun = (context, app.live.history.watch(), place);
    let ends = Instant::now() + ASK_AGAIN;
    let events = stream::unfold(begun, move |(context, mut changed, place)| async move {
        let closing = context.app.closing.clone();
        tokio::select! {
            () = closing.cancelled() => return None,
            () = tokio::time::sleep_until(ends) => return None,
            changed = changed.changed() => changed.ok()?,
        }
        let html = Live::new(&context).render().ok()?;
        let event = Event::default().event("live").data(html);
        Some((Ok::<_, Infallible>(event), (context, changed, place)))
    });
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response())
}
