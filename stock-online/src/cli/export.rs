//! `export`: writes every level as CSV.

use std::io::Write;
use std::path::Path;

use clap::Args;
use stock_common::config::Config;
use stock_common::id::ProductId;
use stock_mysql::products;
use stock_mysql::stock_levels::{self, StockLevelFilter};

use super::{Failure, at, connect};
use crate::stock_csv;

/// Rows read at once.
const PAGE: u32 = 1_000;

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The file to write; stdout unless it is given
    #[arg(long)]
    output: Option<std::path::PathBuf>,
}

pub(super) async fn run(config: &Config, args: &ExportArgs) -> Result<bool, Failure> {
    let (pool, _ledger) = connect(config).await?;
    let mut out: Box<dyn Write + Send> = match &args.output {
        Some(path) => {
            let file = std::fs::File::create(path).map_err(at(path))?;
            Box::new(std::io::BufWriter::new(file))
        }
        None => Box::new(std::io::stdout()),
    };
    let named = args.output.as_deref().unwrap_or(Path::new("stdout"));
    let mut after = None;
    loop {
        let filter = StockLevelFilter {
            after,
            limit: PAGE,
            ..StockLevelFilter::default()
        };
        let page = stock_levels::list(&pool, &filter).await?;
        let ids: Vec<ProductId> = page.iter().map(|level| level.product_id).collect();
        let words = products::words(&pool, &ids).await?;
        let text = stock_csv::write(&page, &words, after.is_none());
        out.write_all(text.as_bytes()).map_err(at(named))?;
        after = page.last().map(|last| (last.product_id, last.location_id));
        if page.len() < PAGE as usize {
            break;
        }
    }
    out.flush().map_err(at(named))?;
    Ok(true)
}
