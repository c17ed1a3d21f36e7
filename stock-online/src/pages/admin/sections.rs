//! The parts of the admin's pages, one entry each: a list of the interface, its members, its calls.

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
    /// How its cells are set.
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
    /// The member; `field-` and it is the id of its heading.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Where a cell leads; `{name}` is the object's member.
    pub(super) link: Option<&'static str>,
}

/// A filter of a list: its name in the page, and what it is in the list's query.
type Filter = (&'static str, (&'static str, &'static str));

/// A part.
#[derive(Debug)]
pub(super) struct Section {
    /// Its name in the path; `admin-` and it is the id of its title.
    pub(super) slug: &'static str,
    /// Its list; `{of}` is the object whose list it is.
    pub(super) list: &'static str,
    pub(super) columns: &'static [Column],
    pub(super) filters: &'static [Filter],
    /// What can be done at all.
    pub(super) forms: &'static [Form],
    /// What can be done with a row.
    pub(super) row_forms: &'static [Form],
    /// Other lists of the same object, by their names.
    pub(super) beside: &'static [&'static str],
    /// What its list can be had as.
    pub(super) download: Option<&'static str>,
}

impl Section {
    /// Whether its list belongs to one object, which leads to it.
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

/// Every part, in the order of the navigation; those of one object are reached from it.
pub(super) fn sections() -> impl Iterator<Item = &'static Section> {
    let groups = [
        goods::SECTIONS,
        orders::SECTIONS,
        benefits::SECTIONS,
        operations::SECTIONS,
    ];
    groups.into_iter().flatten()
}
