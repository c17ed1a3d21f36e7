//! Settings that choose between a promise and availability.

use serde::{Deserialize, Serialize};

/// The failures that an accepted order survives; see `docs/durability.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// `appendfsync always`: an order survives the kill of any process and a crash of the machine.
    Always,
    /// `appendfsync everysec`: an order usually survives the kill of a process. Up to 2 s of orders
    /// may be lost.
    Everysec,
}

impl Durability {
    /// The value of Redis' `appendfsync`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Everysec => "everysec",
        }
    }
}

/// The fate of an accepted order that too few replicas have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplicaPolicy {
    /// The order is answered as unknown. No order is taken while too few replicas are connected.
    Strict,
    /// The order is answered as accepted, and counted in a metric.
    Available,
}

/// A system that this one takes the place of; its clients are served under a path of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seed {
    /// Orders of a Spring Boot shop.
    StockFlow,
    /// Products, stock and reservations of a Django shop.
    Traffic,
    /// Loyalty points.
    Points,
    /// Products, discounts and coupons.
    Milly,
    /// A first-come coupon event.
    Toodat,
}

impl Seed {
    /// Every system.
    pub const ALL: [Self; 5] = [
        Self::StockFlow,
        Self::Traffic,
        Self::Points,
        Self::Milly,
        Self::Toodat,
    ];

    /// The name in settings, and in the base path `/seeds/<name>`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StockFlow => "stock-flow",
            Self::Traffic => "traffic",
            Self::Points => "points",
            Self::Milly => "milly",
            Self::Toodat => "toodat",
        }
    }
}

/// The systems whose clients are served: a list, or their names separated by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Listed")]
pub struct Compat(Vec<Seed>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Listed {
    Names(Vec<String>),
    Text(String),
}

impl TryFrom<Listed> for Compat {
    type Error = String;

    fn try_from(listed: Listed) -> Result<Self, String> {
        let names = match listed {
            Listed::Names(names) => names,
            Listed::Text(text) => text.split(',').map(str::to_owned).collect(),
        };
        let names = names.iter().map(|name| name.trim());
        let seeds = names.filter(|name| !name.is_empty()).map(|name| {
            let known = Seed::ALL.into_iter().find(|seed| seed.as_str() == name);
            known.ok_or_else(|| format!("compat: there is no system `{name}`"))
        });
        let mut seeds: Vec<Seed> = seeds.collect::<Result<_, _>>()?;
        seeds.sort_unstable();
        seeds.dedup();
        Ok(Self(seeds))
    }
}

impl Compat {
    /// Serves the clients of every system.
    #[must_use]
    pub fn all() -> Self {
        Self(Seed::ALL.to_vec())
    }

    /// Whether the clients of a system are served.
    #[must_use]
    pub fn has(&self, seed: Seed) -> bool {
        self.0.contains(&seed)
    }

    /// The systems that are served.
    pub fn seeds(&self) -> impl Iterator<Item = Seed> + '_ {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Compat, Seed};

    #[test]
    fn systems_are_named_in_a_list_or_in_a_text_and_an_unknown_name_is_refused() {
        let some = [Seed::StockFlow, Seed::Toodat];
        for (given, expected) in [
            (json!(["toodat", "stock-flow"]), &some[..]),
            (json!("toodat, stock-flow,toodat"), &some),
            (json!(""), &[]),
            (json!([]), &[]),
        ] {
            let read: Compat = serde_json::from_value(given.clone()).unwrap();
            assert_eq!(read.seeds().collect::<Vec<_>>(), expected, "{given}");
        }
        let all = serde_json::to_value(Compat::all()).unwrap();
        assert_eq!(
            serde_json::from_value::<Compat>(all).unwrap(),
            Compat::all()
        );
        let unknown = serde_json::from_value::<Compat>(json!("traffic,shopify"));
        let said = unknown.unwrap_err().to_string();
        assert!(said.contains("shopify"), "{said}");
    }
}
