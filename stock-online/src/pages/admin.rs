//! `/admin`: the calls of admins, as lists and forms.
//!
//! The sections stand in one table ([`mod@sections`]): the list of the interface that each shows,
//! the members that it shows, and the calls of its forms. This file turns an entry of the table and
//! the interface's answer into a page.

mod form;
mod sections;

use askama::Template;
use axum::extract::{Path, Query};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;

use self::form::{Form, FormView, member};
use self::sections::{Column, Kind, PRODUCT, SELLING, STOCK, Section, sections};
use super::context::{PageContext, page};
use crate::http::code::Code;
use crate::http::problem::Problem;

/// Rows on a page.
const ROWS: u32 = 30;

/// A cell of a table.
struct Cell {
    text: String,
    kind: Kind,
    /// The target of its link.
    href: Option<String>,
    /// The time in RFC 3339, if the cell shows a time.
    time: Option<String>,
}

/// A row of a table, and its forms.
struct Row {
    cells: Vec<Cell>,
    forms: Vec<FormView>,
}

/// The query of a section.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SectionIn {
    cursor: Option<String>,
    /// Id of the object that the list belongs to, if it belongs to one.
    of: Option<u64>,
    /// A filter, by its name in the table.
    only: Option<String>,
}

/// A section in the navigation.
struct Part {
    slug: &'static str,
    label: String,
    is_here: bool,
}

fn parts(context: &PageContext, here: &str) -> Vec<Part> {
    let listed = sections().filter(|section| !section.is_of_one());
    listed
        .map(|section| Part {
            slug: section.slug,
            label: context.of("admin-", section.slug),
            is_here: section.slug == here,
        })
        .collect()
}

/// A member as a person reads it.
fn shown(context: &PageContext, kind: Kind, value: &Value) -> String {
    match (kind, value) {
        (_, Value::Null) => "–".to_owned(),
        (Kind::Time, Value::String(at)) => context.time_of(at),
        (_, Value::String(text)) => text.clone(),
        (Kind::Money, value) => value
            .as_i64()
            .map_or_else(|| value.to_string(), |amount| context.money(&amount)),
        (_, Value::Bool(yes)) => context.t(if *yes { "yes" } else { "no" }),
        (Kind::Number, value) => value
            .as_i64()
            .map_or_else(|| value.to_string(), |number| context.number(&number)),
        (_, Value::Array(items)) => {
            let items: Vec<String> = items
                .iter()
                .map(|item| shown(context, kind, item))
                .collect();
            items.join(", ")
        }
        // An order's line is shown by its name and quantity.
        (_, Value::Object(_)) => match member(value, "productName").as_str() {
            Some(name) => format!("{name} × {}", member(value, "quantity")),
            None => value.to_string(),
        },
        (_, value) => value.to_string(),
    }
}

fn cell(context: &PageContext, column: &Column, item: &Value) -> Cell {
    let value = member(item, column.name);
    Cell {
        text: shown(context, column.kind, value),
        kind: column.kind,
        time: (column.kind == Kind::Time)
            .then(|| value.as_str().map(ToOwned::to_owned))
            .flatten(),
        href: column
            .link
            .filter(|_| !value.is_null())
            .map(|link| form::filled(link, item)),
    }
}

fn row(context: &PageContext, section: &Section, item: &Value) -> Row {
    let cell = |column| cell(context, column, item);
    Row {
        cells: section.columns.iter().map(cell).collect(),
        forms: views(context, section.row_forms, item),
    }
}

fn headings(context: &PageContext, section: &Section) -> Vec<(String, Kind)> {
    let heading = |column: &Column| (context.of("field-", column.name), column.kind);
    section.columns.iter().map(heading).collect()
}

/// The forms that make sense for an object.
fn views(context: &PageContext, forms: &[Form], item: &Value) -> Vec<FormView> {
    let fitting = forms.iter().filter(|form| form.fits(item));
    fitting
        .map(|form| FormView::new(context, form, item))
        .collect()
}

#[derive(Template)]
#[template(path = "admin/section.html")]
struct SectionPage {
    context: PageContext,
    parts: Vec<Part>,
    title: String,
    section: &'static Section,
    /// Id of the object that the list belongs to; 0 if it belongs to none.
    of: u64,
    headings: Vec<(String, Kind)>,
    has_actions: bool,
    rows: Vec<Row>,
    forms: Vec<FormView>,
    next: Option<String>,
    only: Option<String>,
}

/// GET `/admin/{section}`.
///
/// # Errors
/// 403, 404 for an unknown section, the interface's problems.
pub async fn section(
    context: PageContext,
    Path(slug): Path<String>,
    uri: Uri,
) -> Result<Response, Response> {
    context.admin()?;
    let known = sections().find(|section| section.slug == slug);
    let section = known.ok_or_else(|| Problem::of(Code::NotFound).into_response())?;
    let asked = Query::<SectionIn>::try_from_uri(&uri)
        .map_or_else(|_| SectionIn::default(), |asked| asked.0);
    show(context, section, asked)
        .await
        .map_err(IntoResponse::into_response)
}

async fn show(
    context: PageContext,
    section: &'static Section,
    asked: SectionIn,
) -> Result<Response, Problem> {
    let only = section
        .filters
        .iter()
        .find(|(name, _)| asked.only.as_deref() == Some(*name));
    let mut query = vec![("limit", ROWS.to_string())];
    query.extend(asked.cursor.map(|cursor| ("cursor", cursor)));
    if let Some((_, (name, value))) = only {
        query.push((name, (*value).to_owned()));
    }
    let query = serde_urlencoded::to_string(&query).unwrap_or_default();
    let of = asked.of.unwrap_or_default();
    let list = section.list.replace("{of}", &of.to_string());
    let answer: Value = context.get(&format!("{list}?{query}")).await?;
    let mut items = member(&answer, "items")
        .as_array()
        .cloned()
        .unwrap_or_default();
    for item in &mut items {
        // The calls of a row may contain the id of the object that the list belongs to.
        if let Some(item) = item.as_object_mut() {
            item.insert("of".to_owned(), of.into());
        }
    }
    let next = member(&answer, "nextCursor").as_str().map(|cursor| {
        let mut query = vec![("cursor", cursor.to_owned())];
        query.extend(asked.of.map(|of| ("of", of.to_string())));
        query.extend(only.map(|(name, _)| ("only", (*name).to_owned())));
        serde_urlencoded::to_string(&query).unwrap_or_default()
    });
    let rows: Vec<Row> = items
        .iter()
        .map(|item| row(&context, section, item))
        .collect();
    let title = context.of("admin-", section.slug);
    Ok(page(&SectionPage {
        parts: parts(&context, section.slug),
        title: if section.is_of_one() {
            format!("{title} {of}")
        } else {
            title
        },
        headings: headings(&context, section),
        has_actions: rows.iter().any(|row| !row.forms.is_empty()),
        forms: views(&context, section.forms, &serde_json::json!({ "of": of })),
        rows,
        next,
        only: only.map(|(name, _)| (*name).to_owned()),
        section,
        of,
        context,
    }))
}

#[derive(Template)]
#[template(path = "admin/product.html")]
struct ProductPage {
    context: PageContext,
    parts: Vec<Part>,
    id: u64,
    name: String,
    facts: Vec<(String, Cell)>,
    /// Headings of its stock, which has a row for each location.
    headings: Vec<(String, Kind)>,
    rows: Vec<Row>,
    forms: Vec<FormView>,
}

/// GET `/admin/products/{id}`.
///
/// # Errors
/// 403, 404, the interface's problems.
pub async fn product(context: PageContext, Path(id): Path<String>) -> Result<Response, Response> {
    context.admin()?;
    let missing = |_malformed| Problem::of(Code::ProductNotFound).into_response();
    let id: u64 = id.parse().map_err(missing)?;
    let product = context.get_own(format!("/api/redis/products/{id}")).await;
    let mut product: Value = product.map_err(IntoResponse::into_response)?;
    let levels = format!("/api/products/stock/available?limit=100&productId={id}");
    let levels: Value = context
        .get(&levels)
        .await
        .map_err(IntoResponse::into_response)?;
    let levels = member(&levels, "items")
        .as_array()
        .cloned()
        .unwrap_or_default();
    // The sale's members are shown beside the product's.
    let sale = member(&product, "sale").as_object().cloned();
    if let (Some(product), Some(mut sale)) = (product.as_object_mut(), sale) {
        let price = sale.remove("price").unwrap_or_default();
        sale.insert("salePrice".to_owned(), price);
        product.extend(sale);
    }
    let facts = PRODUCT
        .columns
        .iter()
        .filter(|column| !member(&product, column.name).is_null());
    let facts = facts.map(|column| {
        (
            context.of("field-", column.name),
            cell(&context, column, &product),
        )
    });
    Ok(page(&ProductPage {
        parts: parts(&context, "products"),
        id,
        name: member(&product, "name")
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        facts: facts.collect(),
        headings: headings(&context, &STOCK),
        rows: levels
            .iter()
            .map(|item| row(&context, &STOCK, item))
            .collect(),
        forms: views(&context, PRODUCT.row_forms, &product),
        context,
    }))
}

#[derive(Template)]
#[template(path = "admin/overview.html")]
struct OverviewPage {
    context: PageContext,
    parts: Vec<Part>,
    status: Value,
    forms: Vec<FormView>,
}

impl OverviewPage {
    /// A member of the status as text; a dash when it is null.
    fn fact(&self, name: &str) -> String {
        shown(&self.context, Kind::Number, member(&self.status, name))
    }

    fn has(&self, name: &str) -> bool {
        !member(&self.status, name).is_null()
    }

    /// The end of a check, and its number of differences.
    fn check(&self, name: &str) -> Option<(String, i64)> {
        let check = member(&self.status, name).as_object()?;
        let ended = self.context.time_of(check.get("endedAt")?.as_str()?);
        Some((ended, check.get("differences")?.as_i64()?))
    }

    fn jobs(&self) -> Vec<(String, String)> {
        let jobs = member(&self.status, "jobs").as_array();
        let age = |job: &Value| match member(job, "ageSeconds").as_i64() {
            Some(seconds) => self.context.count("seconds-ago", &seconds),
            None => self.context.t("never"),
        };
        let jobs = jobs.into_iter().flatten();
        jobs.map(|job| {
            (
                member(job, "job").as_str().unwrap_or_default().to_owned(),
                age(job),
            )
        })
        .collect()
    }
}

/// GET `/admin`.
///
/// # Errors
/// 403, the interface's problems.
pub async fn overview(context: PageContext) -> Result<Response, Response> {
    context.admin()?;
    let status = context.get("/api/ops/status").await;
    let status: Value = status.map_err(IntoResponse::into_response)?;
    Ok(page(&OverviewPage {
        parts: parts(&context, ""),
        forms: views(&context, SELLING, &status),
        status,
        context,
    }))
}
