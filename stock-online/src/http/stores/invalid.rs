//! Sales of a cut-off till that cannot be taken: kept as they were sent, listed, and resolved by a
//! person.
//!
//! The goods have left the shop, so no such sale is dropped: its row is committed before the answer
//! says `INVALID`. The same text has one row, however often it is sent. [`super::offline`] reads
//! and prices sales.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::json as value;
use serde_json::value::RawValue;
use stock_common::clock::rfc3339;
use stock_common::id::LocationId;
use stock_mysql::invalid_sales::{
    self as table, InvalidSale, Kept, OPEN_MAX, Reread, StoredInvalidSale, TEXT_BYTES_MAX, TextHash,
};
use stock_mysql::people::audit_log::Action;
use utoipa::ToSchema;

use super::offline::{OversoldQuery, ResolveIn, ResultOut};
use super::{Till, find};
use crate::app::App;
use crate::http::audit;
use crate::http::code::Code;
use crate::http::extract::{Filter, Keyed, PathIds};
use crate::http::once::{Begun, Once};
use crate::http::orders::json;
use crate::http::origin::Origin;
use crate::http::page::{cursor_of, cut, limit_of};
use crate::http::problem::Problem;
use crate::http::products::check_text;

/// A sale that could not be taken.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct InvalidSaleOut {
    id: u64,
    /// The device that sent it, if the batch named one.
    device_id: Option<String>,
    /// The first 100 characters of its key, as far as it could be read.
    key: Option<String>,
    /// The sale as it was sent.
    text: String,
    /// The code of the problem.
    code: String,
    /// The problem in words.
    detail: String,
    /// The time at which it was first sent.
    #[schema(value_type = String, format = DateTime)]
    received_at: String,
    #[schema(pattern = "^(INVALID|RESOLVED)$")]
    state: String,
    note: Option<String>,
    /// The user who resolved it; null when the sale was taken after it was sent again.
    resolved_by: Option<u64>,
    #[schema(value_type = Option<String>, format = DateTime)]
    resolved_at: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct InvalidSaleListOut {
    items: Vec<InvalidSaleOut>,
    next_cursor: Option<String>,
}

impl From<StoredInvalidSale> for InvalidSaleOut {
    fn from(stored: StoredInvalidSale) -> Self {
        let time = |at: chrono::NaiveDateTime| rfc3339(at.and_utc().timestamp_millis());
        Self {
            id: stored.id,
            device_id: Some(stored.device_id).filter(|device| !device.is_empty()),
            key: stored.sale_key,
            text: stored.text,
            code: stored.code,
            detail: stored.detail,
            received_at: time(stored.received_at),
            state: stored.state,
            note: stored.note,
            resolved_by: stored.resolved_by,
            resolved_at: stored.resolved_at.map(time),
        }
    }
}

/// The texts of a batch, with the rows of the texts that could not be taken before.
pub(super) struct Texts<'a> {
    store: u64,
    device: &'a str,
    texts: Vec<(&'a str, TextHash)>,
    known: HashMap<TextHash, Kept>,
}

impl<'a> Texts<'a> {
    /// Checks the lengths of a batch's texts, and finds their rows.
    pub(super) async fn read(
        app: &App,
        store: LocationId,
        device: &'a str,
        sales: &'a [Box<RawValue>],
    ) -> Result<Self, Problem> {
        let texts: Vec<(&str, TextHash)> = sales
            .iter()
            .map(|raw| (raw.get(), table::hash_of(raw.get())))
            .collect();
        let is_long = |(text, _): &(&str, TextHash)| text.len() > TEXT_BYTES_MAX;
        if let Some(index) = texts.iter().position(is_long) {
            let rule = format!("a sale has at most {TEXT_BYTES_MAX} bytes");
            return Err(Problem::unprocessable(&format!("/sales/{index}"), rule));
        }
        let hashes: Vec<TextHash> = texts.iter().map(|(_, hash)| *hash).collect();
        let store = store.0;
        let known = table::find(&app.pool, store, device, &hashes).await?;
        Ok(Self {
            store,
            device,
            texts,
            known,
        })
    }

    /// Returns the row of a sale of the batch.
    fn known(&self, index: usize) -> Option<&Kept> {
        let (_, hash) = self.texts.get(index)?;
        self.known.get(hash)
    }

    /// Returns the row of a sale that a person has resolved.
    pub(super) fn resolved(&self, index: usize) -> Option<&Kept> {
        self.known(index).filter(|kept| kept.is_final)
    }

    /// Locks the open rows of sales that can be read by now.
    pub(super) async fn reread(
        &self,
        app: &App,
        indexes: impl Iterator<Item = usize>,
    ) -> Result<Reread, Problem> {
        let open = indexes.filter_map(|index| self.known(index).filter(|kept| kept.is_open));
        let mut ids: Vec<u64> = open.map(|kept| kept.id).collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(Reread::begin(&app.pool, &ids).await?)
    }

    /// Returns the row of a sale that a person has resolved since the texts were read.
    pub(super) fn resolved_meanwhile(&self, reread: &Reread, index: usize) -> Option<&Kept> {
        let kept = self.known(index).filter(|kept| kept.is_open)?;
        (!reread.has(kept.id)).then_some(kept)
    }

    /// The rows of sales that were taken after all, each with its outcome. A sale without a result
    /// so far was taken by an earlier batch.
    pub(super) fn taken(&self, results: &[Option<ResultOut>]) -> Vec<(u64, String)> {
        let note = |(index, result): (usize, &Option<ResultOut>)| {
            let kept = self.known(index).filter(|kept| kept.is_open)?;
            let outcome = match result {
                Some(result) if result.invalid().is_some() => return None,
                Some(result) => result.outcome(),
                None => "REPLAYED".to_owned(),
            };
            Some((kept.id, format!("sent again: {outcome}")))
        };
        results.iter().enumerate().filter_map(note).collect()
    }

    /// Keeps the sales whose result is `INVALID` and that are not kept yet. Only afterwards may the
    /// answer say `INVALID`.
    ///
    /// # Errors
    /// 429 when too many sales of the store wait for a person; also when MySQL does not answer.
    pub(super) async fn keep(
        &self,
        app: &App,
        results: &[Option<ResultOut>],
    ) -> Result<(), Problem> {
        let pairs = self.texts.iter().zip(results);
        let fresh = pairs.filter(|((_, hash), _)| !self.known.contains_key(hash));
        let mut sales: Vec<InvalidSale<'_>> = Vec::new();
        for (&(text, text_hash), result) in fresh {
            let result = result.as_ref();
            let problem = result.and_then(|result| Some((result, result.invalid()?)));
            if let Some((result, (code, detail))) = problem {
                sales.push(InvalidSale {
                    key: result.key(),
                    text,
                    text_hash,
                    code,
                    detail,
                });
            }
        }
        if sales.is_empty() || table::keep(&app.pool, self.store, self.device, &sales).await? {
            return Ok(());
        }
        let detail = format!(
            "at most {OPEN_MAX} invalid sales of a store wait for a person; what was decided of this batch stands: \
             resolve some and send it again"
        );
        Err(Problem::new(Code::TooManyRequests, detail))
    }
}

/// GET `/api/stores/{storeId}/invalid-sales`.
///
/// # Errors
/// 404, 422.
pub async fn list(
    State(app): State<Arc<App>>,
    till: Till,
    Filter(query): Filter<OversoldQuery>,
) -> Result<Response, Problem> {
    let limit = limit_of(query.limit)?;
    let before = cursor_of(query.cursor.as_deref())?;
    let store = find(&app, till.store).await?.id;
    let is_resolved = query.resolved == Some(true);
    let mut found = table::list(&app.pool, store.0, is_resolved, before, limit + 1).await?;
    let next_cursor = cut(&mut found, limit).map(|last| last.id.to_string());
    let items = found.into_iter().map(InvalidSaleOut::from).collect();
    Ok(json(
        StatusCode::OK,
        &InvalidSaleListOut { items, next_cursor },
    ))
}

/// POST `/api/stores/{storeId}/invalid-sales/{id}/resolve`: notes that a person has dealt with the
/// sale.
///
/// # Errors
/// 404 when there is none to resolve, 422.
pub async fn resolve(
    State(app): State<Arc<App>>,
    till: Till,
    origin: Origin,
    ids: Result<PathIds, Problem>,
    Keyed {
        mut body,
        idempotency,
        ..
    }: Keyed<ResolveIn>,
) -> Result<Response, Problem> {
    check_text(&mut body.note, 255, "/note", 1)?;
    let missing = || Problem::new(Code::NotFound, "there is no such sale to resolve");
    let PathIds(_, sale) = ids.map_err(|_not_numbers| missing())?;
    let mut once = match Once::begin(&app, idempotency).await? {
        Begun::Fresh(once) => once,
        Begun::Before(answer) => return answer,
    };
    let (store, by) = (till.store.0, till.caller.user);
    let resolving = table::resolve(once.connection(), store, sale, by, &body.note);
    let resolved = match resolving.await {
        Ok(true) => {
            let body = value!({ "id": sale, "state": "RESOLVED", "note": body.note });
            Ok((json(StatusCode::OK, &body), ()))
        }
        Ok(false) => Err(missing()),
        Err(error) => Err(error.into()),
    };
    let (response, ()) = once.end(resolved).await?;
    let subject = format!("store:{} invalid sale:{sale}", till.store);
    let action = Action::InvalidSaleResolved;
    audit::note(&app, &origin, action, Some(till.caller.user), &subject);
    Ok(response)
}
