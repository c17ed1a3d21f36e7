//! The sections of the admin's pages, one entry each: a list of the interface, its members, its
//! calls.

mod benefits;
mod goods;
mod operations;
mod orders;

pub(super) use self::goods::{PRODUCT, STOCK};
pub(super) use self::operations::SELLING;
use super::form::{Form, Input};

/// How a member is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Money,
    Time,
    /// A code, an id, an address.
    Code,
    /// A status, a kind, yes or no.
    Status,
}

impl Kind {
    /// The CSS class of its cells.
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Number | Self::Money => "number",
            Self::Time => "time",
            Self::Text => "text",
            Self::Code | Self::Status => "",
        }
    }
}

/// A column of a list.
#[derive(Debug)]
pub(super) struct Column {
    /// The member; the id of its heading is `field-<name>`.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// The link of a cell; `{name}` stands for the object's member.
    pub(super) link: Option<&'static str>,
}

/// A filter of a list: its name in the page, and its parameter in the list's query.
type Filter = (&'static str, (&'static str, &'static str));

/// A section.
#[derive(Debug)]
pub(super) struct Section {
    /// Its name in the path; the id of its title is `admin-<slug>`.
    pub(super) slug: &'static str,
    /// The path of its list; `{of}` is the id of the object that the list belongs to.
    pub(super) list: &'static str,
    pub(super) columns: &'static [Column],
    pub(super) filters: &'static [Filter],
    /// Forms of the section.
    pub(super) forms: &'static [Form],
    /// Forms of each row.
    pub(super) row_forms: &'static [Form],
    /// Other lists of the same object, by their slugs.
    pub(super) beside: &'static [&'static str],
    /// The path at which the list can be downloaded.
    pub(super) download: Option<&'static str>,
}

impl Section {
    /// Whether its list belongs to one object, whose row links to it.
    pub(super) fn is_of_one(&self) -> bool {
        self.list.contains("{of}")
    }
}

const NUMBER: Input = Input::Number;
const TEXT: Input = Input::Text;

const fn column(name: &'static str, kind: Kind) -> Column {
    Column {
        name,
        kind,
        link: None,
    }
}

const fn link(name: &'static str, kind: Kind, link: &'static str) -> Column {
    Column {
        name,
        kind,
        link: Some(link),
    }
}

const fn section(slug: &'static str, list: &'static str, columns: &'static [Column]) -> Section {
    Section {
        slug,
        list,
        columns,
        filters: &[],
        forms: &[],
        row_forms: &[],
        beside: &[],
        download: None,
    }
}

/// Every section, in the order of the navigation. A section of one object is reached from the
/// object's row.
pub(super) fn sections() -> impl Iterator<Item = &'static Section> {
    let groups = [
        goods::SECTIONS,
        orders::SECTIONS,
        benefits::SECTIONS,
        operations::SECTIONS,
    ];
    groups.into_iter().flatten()
}
