//! The hash with the epoch: the fields without which the script refuses everything.

/// The fields without which nothing is decided, beside the epoch.
pub const NEEDED: [&str; 5] = ["ms", "low", "number", "settled", "selling"];

/// Why a link is given up when one of them is missing.
pub const LOST: &str = "redis lost a field of the hash with the epoch";

/// Whether they are all there.
pub fn is_whole(values: &[Option<String>]) -> bool {
    let is_number = |value: &Option<String>| {
        let number = value.as_deref().map(str::parse::<u64>);
        number.is_some_and(|number| number.is_ok())
    };
    values.iter().all(is_number)
}

/// Whether they say that selling is stopped.
pub fn is_stopped(values: &[Option<String>]) -> bool {
    let selling = NEEDED
        .iter()
        .zip(values)
        .find(|(field, _)| **field == "selling");
    selling.is_some_and(|(_, value)| value.as_deref() == Some("0"))
}
