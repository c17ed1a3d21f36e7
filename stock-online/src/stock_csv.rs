//! Stock as CSV: reads a file row by row with its line numbers, and writes levels.
//!
//! A file has the columns `product_id,location_id,quantity,mode` in this order, with their names in
//! the first line; `sku` may stand in place of `product_id`. An exported file can be read too; its
//! available units are then set. A byte order mark, LF or CRLF, and quoted fields are read. For
//! another separator, encoding or number format, the error names it. Reading takes memory for a few
//! thousand rows, however long the file is.
//! Writing escapes text that a spreadsheet would take for a formula.

use std::collections::HashMap;
use std::io::Read;

use csv::{ByteRecord, ReaderBuilder, Trim};
use stock_common::id::{LocationId, ProductId};
use stock_domain::sku::Sku;
use stock_engine::import::{FileRow, Mode, RowError, Rows};
use stock_mysql::products::Words;
use stock_mysql::stock_levels::StockLevel;
use tokio::sync::mpsc;

/// The columns of a file.
const COLUMNS: [&str; 4] = ["product_id", "location_id", "quantity", "mode"];
/// The columns of a file that names products by their SKUs.
const COLUMNS_BY_SKU: [&str; 4] = ["sku", "location_id", "quantity", "mode"];
/// The columns of an export.
const EXPORTED: [&str; 10] = [
    "product_id",
    "location_id",
    "product_name",
    "available",
    "reserved",
    "physical",
    "min_stock_level",
    "reorder_point",
    "stock_version",
    "sku",
];
/// Rows in a part that is handed on.
const ROWS_AT_ONCE: usize = 1_024;
/// Parts read ahead.
const PARTS_AHEAD: usize = 2;
/// The mark that some programs write at the beginning of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// The byte order marks of UTF-16.
const UTF_16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// The columns of a file, as its first line names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Changes,
    ChangesBySku,
    Exported,
    /// An export of a version that wrote no SKUs.
    ExportedBefore,
}

impl Layout {
    const ALL: [Self; 4] = [
        Self::Changes,
        Self::ChangesBySku,
        Self::Exported,
        Self::ExportedBefore,
    ];

    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Changes => &COLUMNS,
            Self::ChangesBySku => &COLUMNS_BY_SKU,
            Self::Exported => &EXPORTED,
            Self::ExportedBefore => EXPORTED.split_last().map_or(&[], |(_sku, before)| before),
        }
    }
}

/// Reads a file on a thread of its own. The task's result is the error that ended the reading
/// early, if there was one.
///
/// `named` finds the product of a SKU.
pub fn read(
    file: impl Read + Send + 'static,
    named: impl Fn(&Sku) -> Option<ProductId> + Send + 'static,
) -> (Rows, tokio::task::JoinHandle<Result<(), std::io::Error>>) {
    let (send, rows) = mpsc::channel(PARTS_AHEAD);
    let reading = tokio::task::spawn_blocking(move || read_all(file, &send, &named));
    (rows, reading)
}

type Part = Vec<Result<FileRow, RowError>>;

fn read_all(
    file: impl Read,
    send: &mpsc::Sender<Part>,
    named: &dyn Fn(&Sku) -> Option<ProductId>,
) -> Result<(), std::io::Error> {
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(Trim::All)
        .from_reader(file);
    let (mut record, mut part, mut layout) = (ByteRecord::new(), Part::new(), None);
    loop {
        match reader.read_byte_record(&mut record) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => return Err(cause(error)),
        }
        let line = record.position().map_or(0, csv::Position::line);
        let Some(layout) = layout else {
            match header(&record) {
                Ok(found) => layout = Some(found),
                Err(message) => {
                    part.push(Err(RowError { line, message }));
                    break;
                }
            }
            continue;
        };
        part.push(row(&record, line, layout, named));
        // The receiver has stopped listening: it needs no more rows.
        if part.len() >= ROWS_AT_ONCE && send.blocking_send(std::mem::take(&mut part)).is_err() {
            break;
        }
    }
    drop(send.blocking_send(part));
    // Reads the rest: a client that is still sending when the connection closes never sees the
    // answer.
    std::io::copy(&mut reader.into_inner(), &mut std::io::sink()).map(|_passed| ())
}

/// The I/O error inside a CSV error.
fn cause(error: csv::Error) -> std::io::Error {
    let text = error.to_string();
    if let csv::ErrorKind::Io(error) = error.into_kind() {
        return error;
    }
    std::io::Error::other(text)
}

/// Reads the first line, or says what is wrong with it.
fn header(record: &ByteRecord) -> Result<Layout, String> {
    let names = record.iter().enumerate().map(|(index, name)| match index {
        0 => name.strip_prefix(BYTE_ORDER_MARK).unwrap_or(name),
        _ => name,
    });
    let fits = |layout: &Layout| {
        let columns = layout.columns().iter().map(|name| name.as_bytes());
        names.clone().eq(columns)
    };
    if let Some(layout) = Layout::ALL.into_iter().find(fits) {
        return Ok(layout);
    }
    let first = record.get(0).unwrap_or_default();
    let is_utf_16 = UTF_16_MARKS.iter().any(|mark| first.starts_with(mark)) || first.contains(&0);
    let wanted = COLUMNS.join(",");
    Err(if is_utf_16 {
        "the file is UTF-16: save it as UTF-8".to_owned()
    } else if first.contains(&b';') {
        format!("the fields are separated by semicolons: write {wanted}, with commas")
    } else if first.contains(&b'\t') {
        format!("the fields are separated by tabs: write {wanted}, with commas")
    } else {
        format!("the first line must be {wanted}")
    })
}

/// The message that a text is not a whole number, with a hint if it is a number with separators.
fn no_number(name: &str, text: &str) -> String {
    let said = format!("{name} is no whole number: {}", shown(text));
    let groups = text.split(['.', ',', '\'', ' ', '\u{a0}', '\u{202f}']);
    let is_group = |(index, group): (usize, &str)| {
        let is_long = if index == 0 {
            (1..=3).contains(&group.len())
        } else {
            group.len() == 3
        };
        is_long && group.bytes().all(|byte| byte.is_ascii_digit())
    };
    let is_grouped = groups.clone().count() > 1 && groups.enumerate().all(is_group);
    match is_grouped {
        true => format!("{said}; write it without points, commas and spaces"),
        false => said,
    }
}

fn row(
    record: &ByteRecord,
    line: u64,
    layout: Layout,
    named: &dyn Fn(&Sku) -> Option<ProductId>,
) -> Result<FileRow, RowError> {
    let wrong = |message: String| RowError { line, message };
    let columns = layout.columns();
    if record.len() != columns.len() {
        let text = format!("{} fields instead of {}", record.len(), columns.len());
        return Err(wrong(text));
    }
    let field = |index: usize| {
        let bytes = record.get(index).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or("\u{fffd}")
    };
    let number = |index: usize| {
        let text = field(index);
        // `parse` would accept a plus sign.
        let is_plain = !text.starts_with('+');
        text.parse::<i64>()
            .ok()
            .filter(|_| is_plain)
            .ok_or_else(|| {
                let name = columns.get(index).copied().unwrap_or_default();
                wrong(no_number(name, text))
            })
    };
    let id = |index: usize| {
        number(index).and_then(|number| {
            let name = columns.get(index).copied().unwrap_or_default();
            u64::try_from(number).map_err(|_below| wrong(format!("{name} is below 0")))
        })
    };
    let (quantity, mode) = match (layout, field(3)) {
        // In an export the available units stand after the product's name.
        (Layout::Exported | Layout::ExportedBefore, _) => (3, Mode::Set),
        (Layout::Changes | Layout::ChangesBySku, "delta") => (2, Mode::Delta),
        (Layout::Changes | Layout::ChangesBySku, "set") => (2, Mode::Set),
        (Layout::Changes | Layout::ChangesBySku, other) => {
            return Err(wrong(format!("mode is delta or set, not {}", shown(other))));
        }
    };
    let product_id = match layout {
        Layout::ChangesBySku => {
            let sku = Sku::try_from(field(0).to_owned());
            let sku = sku.map_err(|error| wrong(format!("{}: {error}", shown(field(0)))))?;
            named(&sku).ok_or_else(|| wrong(format!("no product has the sku {sku}")))?
        }
        Layout::Changes | Layout::Exported | Layout::ExportedBefore => ProductId(id(0)?),
    };
    Ok(FileRow {
        line,
        product_id,
        location_id: LocationId(id(1)?),
        quantity: number(quantity)?,
        mode,
    })
}

/// A field as a message may show it: short, on one line.
fn shown(field: &str) -> String {
    let short: String = field.chars().take(30).collect();
    format!("{short:?}")
}

/// A text as a cell: one that a spreadsheet would take for a formula begins with an apostrophe.
#[must_use]
pub fn cell(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

/// Levels as CSV with the words of their products; the names of the columns come first if asked.
#[must_use]
pub fn write(
    levels: &[StockLevel],
    words: &HashMap<ProductId, Words>,
    with_header: bool,
) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing to memory does not fail.
    if with_header {
        drop(writer.write_record(EXPORTED));
    }
    let none = Words::default();
    for level in levels {
        let words = words.get(&level.product_id).unwrap_or(&none);
        drop(writer.write_record([
            level.product_id.to_string(),
            level.location_id.to_string(),
            cell(&words.name),
            level.available.to_string(),
            level.reserved.to_string(),
            (level.available + level.reserved).to_string(),
            level.min_stock_level.to_string(),
            level.reorder_point.to_string(),
            level.seq.to_string(),
            cell(&words.sku),
        ]));
    }
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use stock_common::id::ProductId;
    use stock_domain::sku::Sku;

    use super::{cell, read};

    async fn lines(file: &'static [u8]) -> (usize, Vec<(u64, String)>) {
        let named = |sku: &Sku| (sku.as_str() == "LAMP-01").then_some(ProductId(1));
        let (mut rows, reading) = read(file, named);
        let (mut good, mut wrong) = (0, Vec::new());
        while let Some(part) = rows.recv().await {
            for row in part {
                match row {
                    Ok(_) => good += 1,
                    Err(error) => wrong.push((error.line, error.message)),
                }
            }
        }
        reading.await.unwrap().unwrap();
        (good, wrong)
    }

    #[tokio::test]
    async fn a_file_is_read_with_its_line_numbers_however_it_ends_its_lines() {
        const HEAD: &str = "product_id,location_id,quantity,mode";
        let good = b"product_id,location_id,quantity,mode\n1,0,5,delta\n\"2\", 0 ,-5,set\n";
        assert_eq!(lines(good).await, (2, vec![]));
        let windows = b"\xef\xbb\xbfproduct_id,location_id,quantity,mode\r\n1,0,5,delta\r\n";
        assert_eq!(lines(windows).await, (1, vec![]));
        assert_eq!(lines(b"").await, (0, vec![]));
        let (_, wrong) = lines(b"location_id,product_id,quantity,mode\n1,0,5,delta\n").await;
        assert_eq!(wrong, [(1, format!("the first line must be {HEAD}"))]);
        for (file, said) in [
            (
                &b"product_id;location_id;quantity;mode\n"[..],
                "separated by semicolons",
            ),
            (
                b"product_id\tlocation_id\tquantity\tmode\n",
                "separated by tabs",
            ),
            (b"\xff\xfep\0r\0o\0\n\0", "UTF-16"),
        ] {
            let (_, wrong) = lines(file).await;
            assert!(wrong[0].1.contains(said), "{wrong:?}");
        }
        let (good, wrong) = lines(
            b"product_id,location_id,quantity,mode\n1,0,\"1,000\",set\n1,0,1.000,set\n1,0,7,set\n",
        )
        .await;
        assert_eq!((good, wrong.len()), (1, 2));
        assert!(
            wrong
                .iter()
                .all(|(_, said)| said.contains("without points")),
            "{wrong:?}"
        );
        let exported = b"product_id,location_id,product_name,available,reserved,physical,\
              min_stock_level,reorder_point,stock_version\n1,0,lamp,7,1,8,0,0,3\n";
        assert_eq!(lines(exported).await, (1, vec![]));
        let with_skus = b"product_id,location_id,product_name,available,reserved,physical,\
              min_stock_level,reorder_point,stock_version,sku\n1,0,lamp,7,1,8,0,0,3,LAMP-01\n";
        assert_eq!(lines(with_skus).await, (1, vec![]));
        let (good, wrong) = lines(
            b"sku,location_id,quantity,mode\nLAMP-01,0,5,delta\nlamp-01,0,5,set\na b,0,5,set\n",
        )
        .await;
        let said: Vec<&str> = wrong.iter().map(|(_, said)| said.as_str()).collect();
        let rule = "\"a b\": a sku is 1 to 64 visible ASCII characters without a comma";
        assert_eq!(
            (good, said),
            (1, vec!["no product has the sku lamp-01", rule])
        );
        let (good, wrong) = lines(
            b"product_id,location_id,quantity,mode\n\
              x,0,1,delta\n\
              1,0,1\n\
              1,0,1.5,delta\n\
              1,0,1e3,delta\n\
              -1,0,1,delta\n\
              1,0,+1,delta\n\
              1,0,99999999999999999999,delta\n\
              1,0,1,add\n\
              \"1\n2\",0,1,delta\n\
              \xff,0,1,delta\n\
              1,0,1,set\n",
        )
        .await;
        let at: Vec<u64> = wrong.iter().map(|(line, _)| *line).collect();
        assert_eq!(
            (good, at),
            (1, vec![2, 3, 4, 5, 6, 7, 8, 9, 10, 12]),
            "{wrong:?}"
        );
    }

    #[test]
    fn what_a_spreadsheet_would_run_is_text() {
        for text in ["=cmd()", "+1", "-1", "@x", "\tx"] {
            assert_eq!(cell(text), format!("'{text}"));
        }
        assert_eq!(cell("a=b"), "a=b");
    }
}
