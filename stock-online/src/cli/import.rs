//! `import`: writes stock from a file.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::MySqlPool;
use stock_common::config::Config;
use stock_common::id::UserId;
use stock_engine::import::{self, Judged};
use stock_engine::lookup;
use stock_mysql::error_number;
use stock_mysql::imports::{self, Import, ImportKey};
use stock_mysql::products;
use stock_redis::Ledger;

use super::{Common, Failure, at, connect, output};
use crate::app::CATCH_UP_MAX;
use crate::stock_csv;

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// CSV with the columns `product_id,location_id,quantity,mode`; mode is delta or set, and `sku`
    /// may stand in place of `product_id`
    file: PathBuf,
    /// Only check it
    #[arg(long)]
    dry_run: bool,
    /// Key under which a file is taken only once, instead of the file's hash
    #[arg(long)]
    key: Option<String>,
}

pub(super) async fn run(
    config: &Config,
    common: &Common,
    args: &ImportArgs,
) -> Result<bool, Failure> {
    let key = key(args).map_err(at(&args.file))?;
    let (pool, ledger) = connect(config).await?;
    let id = match imports::begin(&pool, UserId::ENGINE, Some(&key).filter(|_| !args.dry_run)).await
    {
        Ok(id) => id,
        Err(error) if error_number(&error) == Some(1062) => {
            return brought_before(&pool, &ledger, common, &key).await;
        }
        Err(error) => return Err(error.into()),
    };
    let known = products::of_skus(&pool).await?;
    let file = std::fs::File::open(&args.file).map_err(at(&args.file))?;
    let (rows, reading) = stock_csv::read(file, move |sku| known.get(sku).copied());
    lookup::catch_up(&pool, &ledger, CATCH_UP_MAX).await;
    let judged = import::judge(&pool, id, rows).await;
    let read = reading.await?;
    let good = judged
        .as_ref()
        .ok()
        .filter(|judged| judged.errors.is_empty() && read.is_ok() && !args.dry_run);
    import::settle_judgement(&pool, id, good).await?;
    read?;
    let judged = judged?;
    if !judged.errors.is_empty() {
        return wrong(common, &judged);
    }
    if args.dry_run {
        return dry_run(common, &judged);
    }
    let done = write(&pool, &ledger, id).await?;
    report(&pool, common, &done).await
}

/// The hash of the file, or of the key that was given instead.
fn key(args: &ImportArgs) -> Result<ImportKey, std::io::Error> {
    let mut file = std::fs::File::open(&args.file)?;
    let (mut digest, mut part) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        let read = file.read(&mut part)?;
        if read == 0 {
            break;
        }
        digest.update(part.get(..read).unwrap_or_default());
    }
    let of_file: Vec<u8> = digest.finalize().iter().take(16).copied().collect();
    let key_hash = match &args.key {
        None => of_file.clone(),
        Some(key) => Sha256::digest(format!("import {key}"))
            .iter()
            .take(16)
            .copied()
            .collect(),
    };
    Ok(ImportKey {
        key_hash,
        fingerprint: of_file,
    })
}

async fn brought_before(
    pool: &MySqlPool,
    ledger: &Ledger,
    common: &Common,
    key: &ImportKey,
) -> Result<bool, Failure> {
    let Some((import, fingerprint)) = imports::find_by_key(pool, key).await? else {
        return Err("an earlier attempt was given up; run this again".into());
    };
    if fingerprint != key.fingerprint {
        return Err("this key belongs to another file".into());
    }
    output::complain(&format!(
        "this file was brought before, as import {}; another --key takes it once more",
        import.id
    ));
    let done = write(pool, ledger, import.id).await?;
    report(pool, common, &done).await
}

/// Writes the rest of a file, or waits until another instance has written it.
async fn write(pool: &MySqlPool, ledger: &Ledger, id: u64) -> Result<Import, Failure> {
    let bar = output::progress("writing");
    let mut progress = |done, all| output::advance(&bar, done, all);
    let done = loop {
        if let Some(done) = import::apply(pool, ledger, id, &mut progress).await? {
            break done;
        }
        // Another instance is writing it.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    bar.finish_and_clear();
    Ok(done)
}

fn dry_run(common: &Common, judged: &Judged) -> Result<bool, Failure> {
    let (rows, changes) = (judged.rows, judged.changes);
    if common.json {
        output::document(&json!({ "ok": true, "dryRun": true, "rows": rows, "changes": changes }))?;
    } else {
        output::say(&format!(
            "{rows} rows are good, {changes} change something; nothing was written"
        ));
    }
    Ok(true)
}

fn wrong(common: &Common, judged: &Judged) -> Result<bool, Failure> {
    if common.json {
        let errors: Vec<_> = judged
            .errors
            .iter()
            .map(|error| json!({ "line": error.line, "message": error.message }))
            .collect();
        output::document(&json!({ "ok": false, "rows": judged.rows,
            "errorCount": judged.error_count, "errors": errors }))?;
        return Ok(false);
    }
    for error in &judged.errors {
        output::say(&format!("line {}: {}", error.line, error.message));
    }
    output::say(&format!(
        "{} of {} rows cannot be taken; nothing was written",
        judged.error_count, judged.rows
    ));
    Ok(false)
}

async fn report(pool: &MySqlPool, common: &Common, done: &Import) -> Result<bool, Failure> {
    let failures = imports::failed(pool, done.id, 100).await?;
    if common.json {
        let failures: Vec<_> = failures
            .iter()
            .map(|(line, message)| json!({ "line": line, "message": message }))
            .collect();
        output::document(
            &json!({ "ok": done.failed == 0, "importId": done.id, "rows": done.total,
            "applied": done.applied, "failed": done.failed, "failures": failures }),
        )?;
    } else {
        for (line, message) in failures {
            output::say(&format!("line {line}: {message}"));
        }
        output::say(&format!(
            "import {}: {} of {} rows written, {} not",
            done.id, done.applied, done.total, done.failed
        ));
    }
    Ok(done.failed == 0)
}
