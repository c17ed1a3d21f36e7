//! Service keys: a shop's own back end, and what it may do.

use std::fmt;

/// A right of a service key. The order is that of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Place and cancel orders, take goods back.
    OrdersWrite,
    /// Read orders, holds and payments.
    OrdersRead,
    /// Hold: open, extend and cancel checkouts, reserve.
    CheckoutsWrite,
    /// Report payments, and sell reservations.
    CheckoutsConfirm,
    /// Take stock in, correct and import it.
    StockWrite,
    /// Make and change products, discounts, sales and stores.
    CatalogWrite,
    /// Make and draw coupons.
    CouponsWrite,
    /// Give, use and cancel points.
    PointsWrite,
    /// Read events.
    EventsRead,
    /// Read metrics and the ledger's state.
    MetricsRead,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 10] = [
        Self::OrdersWrite,
        Self::OrdersRead,
        Self::CheckoutsWrite,
        Self::CheckoutsConfirm,
        Self::StockWrite,
        Self::CatalogWrite,
        Self::CouponsWrite,
        Self::PointsWrite,
        Self::EventsRead,
        Self::MetricsRead,
    ];

    /// The name in the table and in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OrdersWrite => "orders:write",
            Self::OrdersRead => "orders:read",
            Self::CheckoutsWrite => "checkouts:write",
            Self::CheckoutsConfirm => "checkouts:confirm",
            Self::StockWrite => "stock:write",
            Self::CatalogWrite => "catalog:write",
            Self::CouponsWrite => "coupons:write",
            Self::PointsWrite => "points:write",
            Self::EventsRead => "events:read",
            Self::MetricsRead => "metrics:read",
        }
    }

    /// The scope of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

/// A set of scopes. Its text form is their names, separated by spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u16);

impl Scopes {
    /// Whether a scope is in the set.
    #[must_use]
    pub const fn has(self, scope: Scope) -> bool {
        self.0 & 1 << scope as u16 != 0
    }

    /// The scopes of the set.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.has(*scope))
    }

    /// Reads the text form. A name that this program does not know allows nothing: a later version
    /// may have written it.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        text.split(' ').filter_map(Scope::parse).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        let bits = scopes.into_iter().map(|scope| 1 << scope as u16);
        Self(bits.fold(0, |all, bit| all | bit))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Scope::as_str).collect();
        f.write_str(&names.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::{Scope, Scopes};

    #[test]
    fn a_set_has_what_its_text_names_and_no_more() {
        let scopes: Scopes = [Scope::EventsRead, Scope::OrdersWrite]
            .into_iter()
            .collect();
        assert_eq!(scopes.to_string(), "orders:write events:read");
        assert_eq!(
            Scopes::parse("events:read later:scope orders:write"),
            scopes
        );
        assert!(!Scopes::parse("orders:write").has(Scope::OrdersRead));
        assert_eq!(Scopes::parse(""), Scopes::default());
    }
}
