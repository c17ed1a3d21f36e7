//! Files of stock: POST `/api/stock/import`, GET `/api/stock/import/{id}`, GET `/api/stock/export`.
//!
//! A file is checked while it arrives. If it is good, the instance that runs the scheduler writes
//! it. The answer waits a moment for that, and says how far the writing is.

use std::io::{Error, Read};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::json as value;
use sha2::{Digest, Sha256};
use stock_common::id::{LocationId, ProductId};
use stock_common::lock::lock;
use stock_engine::import::{self, Judged, Rows};
use stock_engine::lookup;
use stock_mysql::imports::{self as table, Import, ImportKey, ImportState};
use stock_mysql::people::audit_log::Action;
use stock_mysql::stock_levels::{self, StockLevelFilter};
use stock_mysql::{error_number, journal, products};
use tokio::task::JoinHandle;
use tokio_util::io::{StreamReader, SyncIoBridge};
use utoipa::ToSchema;

use super::audit;
use super::auth::{Admin, Caller};
use super::extract::{Filter, PathId, hash, is_of_type, key_of};
use super::orders::{json, replayed};
use super::origin::Origin;
use super::problem::Problem;
use crate::app::{App, CATCH_UP_MAX};
use crate::http::code::Code;
use crate::stock_csv;

/// Longest pause between two pieces of a file while it arrives.
const SILENCE: Duration = Duration::from_secs(20);
/// How long the answer waits for a file to be written, and the interval at which it looks.
const WRITTEN: (Duration, Duration) = (Duration::from_secs(3), Duration::from_millis(20));
/// Rows read at once for an export.
const EXPORT_ROWS: u32 = 1_000;

/// The query of an import.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImportQuery {
    dry_run: Option<bool>,
}

/// The progress of a file.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImportOut {
    /// Null for a dry run.
    import_id: Option<u64>,
    /// `DRY_RUN`, `STAGING`, `APPLYING` or `DONE`.
    #[schema(pattern = "^(DRY_RUN|STAGING|APPLYING|DONE)$")]
    state: &'static str,
    /// Rows of the file.
    rows: u64,
    /// Rows written, including those that change nothing.
    applied: u64,
    /// Rows that could not be written, because stock was sold meanwhile.
    failed: u64,
    failures: Vec<FailureOut>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FailureOut {
    line: u64,
    message: String,
}

async fn out(app: &App, import: Import) -> Result<ImportOut, Problem> {
    let failures = table::failed(&app.pool, import.id, 100).await?;
    Ok(ImportOut {
        import_id: Some(import.id),
        state: import.state.as_str(),
        rows: import.total,
        applied: import.applied,
        failed: import.failed.max(failures.len() as u64),
        failures: failures
            .into_iter()
            .map(|(line, message)| FailureOut { line, message })
            .collect(),
    })
}

/// The bytes of a body, at most `max` of them. Each piece must arrive within [`SILENCE`].
fn arriving(body: Body, max: usize) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
    let parts = Box::pin(body.into_data_stream());
    stream::unfold((parts, 0_usize), move |(mut parts, before)| async move {
        let next = match tokio::time::timeout(SILENCE, parts.next()).await {
            Ok(None) => return None,
            Ok(Some(Ok(bytes))) => Ok(bytes),
            Ok(Some(Err(error))) => Err(Error::other(error)),
            Err(_elapsed) => Err(Error::from(std::io::ErrorKind::TimedOut)),
        };
        let so_far = before + next.as_ref().map_or(0, Bytes::len);
        let next = match next {
            Ok(_) if so_far > max => Err(Error::from(std::io::ErrorKind::FileTooLarge)),
            next => next,
        };
        Some((next, (parts, so_far)))
    })
}

/// The problem of a file that could not be read to its end.
fn unreadable(error: &Error, max: usize) -> Problem {
    let kind = error.kind();
    if kind == std::io::ErrorKind::FileTooLarge {
        let text = format!("a file may have at most {max} bytes");
        Problem::new(Code::PayloadTooLarge, text)
    } else if kind == std::io::ErrorKind::TimedOut {
        Problem::of(Code::RequestTimeout)
    } else {
        Problem::new(Code::BadRequest, "the file cannot be read to its end")
    }
}

/// The problem of a file with wrong rows, listed by line.
pub(crate) fn wrong(judged: &Judged) -> Problem {
    let errors: Vec<_> = judged
        .errors
        .iter()
        .map(|error| value!({ "pointer": format!("/{}", error.line), "line": error.line, "message": error.message }))
        .collect();
    let text = format!(
        "{} of {} rows cannot be taken",
        judged.error_count, judged.rows
    );
    Problem::new(Code::Unprocessable, text)
        .with("errors", errors)
        .with("errorCount", judged.error_count)
}

/// A reader that hashes the bytes that pass through it.
struct Hashing<R> {
    inner: R,
    digest: Arc<Mutex<Sha256>>,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let read = self.inner.read(buffer)?;
        let mut digest = lock(&self.digest);
        digest.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// The key that a file is sent under. Its fingerprint is set when the whole file has arrived.
fn key(app: &App, admin: Caller, headers: &HeaderMap) -> Result<Option<ImportKey>, Problem> {
    let Some(key) = key_of(headers)? else {
        return Ok(None);
    };
    app.people.limits.admit_key(admin.user.0)?;
    let key_hash = journal::hash_bytes(&hash(&["import", &admin.user.to_string(), key]));
    Ok(key_hash.map(|key_hash| ImportKey {
        key_hash,
        fingerprint: vec![0; 16],
    }))
}

/// POST `/api/stock/import`.
///
/// # Errors
/// 413, 415, 422 with the lines that are wrong.
pub async fn import(
    State(app): State<Arc<App>>,
    (Admin(admin), origin): (Admin, Origin),
    query: Result<Filter<ImportQuery>, Problem>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    if !is_of_type(&parts.headers, "text/csv") {
        let text = "Content-Type must be text/csv, in UTF-8";
        return Err(Problem::new(Code::UnsupportedMediaType, text));
    }
    let Filter(query) = query?;
    let is_dry_run = query.dry_run == Some(true);
    let turn = app.selling.imports.try_acquire();
    let turn = turn.map_err(|_taken| {
        Problem::new(
            Code::Overloaded,
            "another file is being judged; send this one again",
        )
    })?;
    let key = key(&app, admin, &parts.headers)?.filter(|_| !is_dry_run);
    let begun = match table::begin(&app.pool, admin.user, key.as_ref()).await {
        Ok(id) => Some(id),
        Err(error) if error_number(&error) == Some(1062) => None,
        Err(error) => return Err(error.into()),
    };
    let file = read(&app, body);
    let Some(id) = begun else {
        return brought_before(&app, key, file).await;
    };
    let judged = judge(&app, id, file, is_dry_run, key.is_some()).await?;
    drop(turn);
    if !judged.errors.is_empty() {
        return Err(wrong(&judged));
    }
    if is_dry_run {
        let body = ImportOut {
            import_id: None,
            state: "DRY_RUN",
            rows: judged.rows,
            applied: 0,
            failed: 0,
            failures: Vec::new(),
        };
        return Ok(json(StatusCode::OK, &body));
    }
    app.selling.imports_wake_up.notify_one();
    let subject = format!("import:{id} {} rows", judged.rows);
    let action = Action::StockImported;
    audit::note(&app, &origin, action, Some(admin.user), &subject);
    Ok(json(
        StatusCode::CREATED,
        &out(&app, written(&app, id).await?).await?,
    ))
}

/// A file that is being read.
struct Reading {
    rows: Rows,
    reading: JoinHandle<Result<(), Error>>,
    digest: Arc<Mutex<Sha256>>,
    bytes_max: usize,
}

fn read(app: &App, body: Body) -> Reading {
    let bytes_max = app.config.http.import_bytes_max;
    let digest = Arc::new(Mutex::new(Sha256::new()));
    let arriving = StreamReader::new(Box::pin(arriving(body, bytes_max)));
    let file = Hashing {
        inner: SyncIoBridge::new(arriving),
        digest: Arc::clone(&digest),
    };
    let catalog = app.selling.catalog.clone();
    let (rows, reading) = stock_csv::read(file, move |sku| catalog.of_sku(sku));
    Reading {
        rows,
        reading,
        digest,
        bytes_max,
    }
}

impl Reading {
    /// Waits for the end of the file, and returns the fingerprint of the whole.
    async fn end(
        reading: JoinHandle<Result<(), Error>>,
        digest: &Mutex<Sha256>,
        bytes_max: usize,
    ) -> Result<Vec<u8>, Problem> {
        reading
            .await?
            .map_err(|error| unreadable(&error, bytes_max))?;
        let digest = lock(digest);
        Ok(digest.clone().finalize().iter().take(16).copied().collect())
    }
}

/// Checks a file while it arrives. It is released for writing only after the whole of it was read
/// and found good.
async fn judge(
    app: &App,
    id: u64,
    file: Reading,
    is_dry_run: bool,
    is_keyed: bool,
) -> Result<Judged, Problem> {
    // A counted row is compared with MySQL's level, which must include every earlier answer.
    lookup::catch_up(&app.pool, &app.ledger, CATCH_UP_MAX).await;
    let judged = import::judge(&app.jobs_pool, id, file.rows).await;
    let end = Reading::end(file.reading, &file.digest, file.bytes_max).await;
    let good = judged
        .as_ref()
        .ok()
        .filter(|judged| judged.errors.is_empty() && end.is_ok() && !is_dry_run);
    if let (Some(_), Ok(fingerprint), true) = (good, &end, is_keyed) {
        table::set_fingerprint(&app.pool, id, fingerprint).await?;
    }
    import::settle_judgement(&app.pool, id, good).await?;
    end?;
    Ok(judged?)
}

/// Answers a file whose key was used before.
async fn brought_before(
    app: &App,
    key: Option<ImportKey>,
    file: Reading,
) -> Result<Response, Problem> {
    let key = key.ok_or_else(|| Problem::of(Code::Internal))?;
    // The file is read to its end, because only the whole tells whether it is the same file.
    drop(file.rows);
    let fingerprint = Reading::end(file.reading, &file.digest, file.bytes_max).await?;
    let Some((import, stored)) = table::find_by_key(&app.pool, &key).await? else {
        return Err(Problem::of(Code::RequestInProgress));
    };
    if import.state == ImportState::Staging {
        return Err(Problem::of(Code::RequestInProgress));
    }
    if stored != fingerprint {
        return Err(Problem::of(Code::IdempotencyKeyReused));
    }
    Ok(replayed(json(
        StatusCode::CREATED,
        &out(app, import).await?,
    )))
}

/// The import when it is written, or as it is after the longest wait.
async fn written(app: &App, id: u64) -> Result<Import, Problem> {
    let (longest, every) = WRITTEN;
    let wait = async {
        loop {
            match table::find(&app.pool, id).await {
                Ok(Some(import)) if import.state != ImportState::Done => {
                    tokio::time::sleep(every).await;
                }
                other => return other,
            }
        }
    };
    let found = match tokio::time::timeout(longest, wait).await {
        Ok(found) => found?,
        Err(_elapsed) => table::find(&app.pool, id).await?,
    };
    found.ok_or_else(|| Problem::of(Code::NotFound))
}

/// GET `/api/stock/import/{id}`.
///
/// # Errors
/// 404.
pub async fn show(
    State(app): State<Arc<App>>,
    Admin(_): Admin,
    id: Result<PathId, Problem>,
) -> Result<Response, Problem> {
    let PathId(id) = id?;
    let import = table::find(&app.pool, id).await?;
    let import = import.ok_or_else(|| Problem::of(Code::NotFound))?;
    Ok(json(StatusCode::OK, &out(&app, import).await?))
}

/// GET `/api/stock/export`: every level in MySQL, sent while it is read.
///
/// # Errors
/// 403 for anybody but an admin.
pub async fn export(State(app): State<Arc<App>>, Admin(_): Admin) -> Result<Response, Problem> {
    // The first page is read before the answer begins, so that a fault can be answered. A later
    // fault breaks the stream off.
    let first = export_page(&app, None).await?;
    let pages = stream::unfold(Some((first, app)), |state| async move {
        let ((text, after), app) = state?;
        let next = match after {
            None => None,
            Some(after) => match export_page(&app, Some(after)).await {
                Ok(page) => Some((page, app)),
                Err(problem) => {
                    tracing::warn!(code = problem.code.as_str(), "an export broke off");
                    return Some((Err(Error::other("the database does not answer")), None));
                }
            },
        };
        Some((Ok::<_, Error>(Bytes::from(text)), next))
    });
    let headers = [
        (
            CONTENT_TYPE,
            HeaderValue::from_static("text/csv; charset=utf-8"),
        ),
        (
            CONTENT_DISPOSITION,
            HeaderValue::from_static("attachment; filename=\"stock.csv\""),
        ),
    ];
    Ok((headers, Body::from_stream(pages)).into_response())
}

type ExportPage = (String, Option<(ProductId, LocationId)>);

/// A page of the export, and where the next one begins.
async fn export_page(
    app: &App,
    after: Option<(ProductId, LocationId)>,
) -> Result<ExportPage, Problem> {
    let filter = StockLevelFilter {
        after,
        limit: EXPORT_ROWS,
        ..StockLevelFilter::default()
    };
    let page = stock_levels::list(&app.pool, &filter).await?;
    let last = page.last().map(|last| (last.product_id, last.location_id));
    let has_more = page.len() == EXPORT_ROWS as usize;
    let ids: Vec<ProductId> = page.iter().map(|level| level.product_id).collect();
    let words = products::words(&app.pool, &ids).await?;
    let text = stock_csv::write(&page, &words, after.is_none());
    Ok((text, last.filter(|_| has_more)))
}
