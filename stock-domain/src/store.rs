//! Stores: locations with a till and stock of their own, and the distances between them.

use stock_common::id::LocationId;

/// A store.
#[derive(Debug, Clone, PartialEq)]
pub struct Store {
    /// Its number, which is that of its location.
    pub id: LocationId,
    /// The data that an admin gave it.
    pub fields: StoreFields,
}

/// The data that an admin gives a store.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreFields {
    /// At most 100 characters.
    pub name: String,
    /// Degrees north, −90..=90.
    pub latitude: f64,
    /// Degrees east, −180..=180.
    pub longitude: f64,
    /// Whether the units that its till sells are also taken from the online stock.
    pub shares_online_stock: bool,
}

/// The earth's mean radius in km (IUGG).
const EARTH_KM: f64 = 6_371.0;

impl StoreFields {
    /// The distance to another store along a great circle, in km, by the haversine formula.
    #[must_use]
    pub fn distance_km(&self, other: &Self) -> f64 {
        let (north, other_north) = (self.latitude.to_radians(), other.latitude.to_radians());
        let north_half = ((other_north - north) / 2.0).sin();
        let east_half = ((other.longitude - self.longitude).to_radians() / 2.0).sin();
        let part = north_half.powi(2) + north.cos() * other_north.cos() * east_half.powi(2);
        2.0 * EARTH_KM * part.sqrt().min(1.0).asin()
    }
}

#[cfg(test)]
mod tests {
    use super::StoreFields;

    #[test]
    fn distances_are_those_of_the_map() {
        let at = |latitude, longitude| StoreFields {
            name: String::new(),
            latitude,
            longitude,
            shares_online_stock: false,
        };
        let (seoul, busan) = (at(37.566_5, 126.978_0), at(35.179_6, 129.075_6));
        assert!((seoul.distance_km(&busan) - 325.0).abs() < 2.0);
        assert!(seoul.distance_km(&seoul) < 1e-9);
        assert!((at(0.0, 179.5).distance_km(&at(0.0, -179.5)) - 111.2).abs() < 0.1);
        assert!((at(0.0, 0.0).distance_km(&at(0.0, 180.0)) - 20_015.1).abs() < 0.1);
    }
}
