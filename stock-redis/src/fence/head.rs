//! The hash with the epoch: the fields without which the script refuses everything.

/// The fields without which nothing is decided, besides the epoch.
pub const NEEDED: [&str; 5] = ["ms", "low", "number", "settled", "selling"];

/// The reason for giving up a link when one of the fields is missing.
pub const LOST: &str = "redis lost a field of the hash with the epoch";

/// Whether all fields are there and are numbers.
pub fn is_whole(values: &[Option<String>]) -> bool {
    let is_number = |value: &Option<String>| {
        let number = value.as_deref().map(str::parse::<u64>);
        number.is_some_and(|number| number.is_ok())
    };
    values.iter().all(is_number)
}

/// Whether the fields say that selling is stopped.
pub fn is_stopped(values: &[Option<String>]) -> bool {
    let selling = NEEDED
        .iter()
        .zip(values)
        .find(|(field, _)| **field == "selling");
    selling.is_some_and(|(_, value)| value.as_deref() == Some("0"))
}
