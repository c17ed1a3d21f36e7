//! How seeds write ids, money and pages, and how they name what is wrong.

use serde_json::{Map, Value, json};
use stock_common::text;

use crate::http::problem::Problem;

/// The members of a JSON body. Unknown ones are ignored, as the seeds ignore them.
pub(super) struct Fields(pub(super) Map<String, Value>);

fn missing(name: &str) -> Problem {
    Problem::unprocessable(&format!("/{name}"), "this field is required")
}

fn wrong(name: &str, rule: &str) -> Problem {
    Problem::unprocessable(&format!("/{name}"), rule)
}

impl Fields {
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_null())
    }

    /// A member that must be there.
    pub(super) fn value(&self, name: &str) -> Result<Value, Problem> {
        let value = self.0.get(name).filter(|value| !value.is_null());
        value.cloned().ok_or_else(|| missing(name))
    }

    pub(super) fn text(&self, name: &str) -> Result<String, Problem> {
        match self.value(name)? {
            Value::String(text) => Ok(text),
            Value::Number(number) => Ok(number.to_string()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                Err(wrong(name, "a text is expected"))
            }
        }
    }

    /// A whole number: `1250`, `1250.0` or `"1250.00"`.
    pub(super) fn whole(&self, name: &str) -> Result<i64, Problem> {
        let value = self.value(name)?;
        let number = match &value {
            Value::String(text) => whole(text),
            Value::Number(number) => whole(&number.to_string()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        number.ok_or_else(|| wrong(name, "a whole number is expected"))
    }
}

/// Reads a whole number, also one with zeros behind its point or with an exponent.
pub(super) fn whole(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Some((digits, fraction)) = text.split_once('.')
        && !fraction.is_empty()
        && fraction.bytes().all(|digit| digit == b'0')
    {
        return digits.parse().ok();
    }
    let has_exponent = text.contains(['e', 'E']);
    text.parse().ok().or_else(|| {
        let number: f64 = text.parse().ok().filter(|_| has_exponent)?;
        #[expect(clippy::cast_possible_truncation, reason = "the bounds are checked")]
        (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
    })
}

/// Money as a decimal text with two places.
pub(super) fn decimal(units: i64) -> String {
    format!("{units}.00")
}

/// The name and the value of each part of a query.
pub(super) struct Pairs(Vec<(String, String)>);

impl Pairs {
    pub(super) fn of(query: &str) -> Result<Self, Problem> {
        let pairs = serde_urlencoded::from_str(query);
        pairs
            .map(Self)
            .map_err(|error| wrong("", &error.to_string()))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// A value that is given and not empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(known, _)| known == name);
        let (_, value) = values.next()?;
        (!value.is_empty()).then_some(value.as_str())
    }

    /// A part of a name, written as names are stored.
    pub(super) fn name(&self, name: &str) -> Option<String> {
        let mut part = self.text(name).map(str::to_owned);
        part.iter_mut().for_each(text::normalize);
        part
    }

    pub(super) fn whole(&self, name: &str) -> Result<Option<i64>, Problem> {
        let text = self.text(name);
        let number =
            text.map(|text| whole(text).ok_or_else(|| wrong(name, "a whole number is expected")));
        number.transpose()
    }

    /// A number in a range, or its default.
    pub(super) fn within(
        &self,
        name: &str,
        default: u32,
        range: std::ops::RangeInclusive<u32>,
    ) -> Result<u32, Problem> {
        let Some(given) = self.whole(name)? else {
            return Ok(default);
        };
        let number = u32::try_from(given)
            .ok()
            .filter(|given| range.contains(given));
        let rule = || format!("a whole number from {} to {}", range.start(), range.end());
        number.ok_or_else(|| wrong(name, &rule()))
    }

    /// The URL with this query, in which some values are others.
    pub(super) fn url(&self, base: &str, changed: &[(&str, String)]) -> Value {
        let is_changed = |name: &str| changed.iter().any(|(other, _)| *other == name);
        let kept = self.0.iter().filter(|(name, _)| !is_changed(name));
        let kept = kept.map(|(name, value)| (name.as_str(), value.as_str()));
        let all = kept.chain(changed.iter().map(|(name, value)| (*name, value.as_str())));
        let all: Vec<(&str, &str)> = all.collect();
        match serde_urlencoded::to_string(all) {
            Ok(query) => json!(format!("{base}?{query}")),
            Err(_) => Value::Null,
        }
    }
}

/// The kind of thing that a UUID names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Product = 1,
    Stock = 2,
    Reservation = 3,
}

const NUMBER_BITS: u32 = 62;
const PLACE_BITS: u32 = 48;

/// A UUID of version 8 that holds its kind, a number and a place, so that no table is needed to
/// read it again.
pub(super) fn uuid(kind: Kind, number: u64, place: u64) -> String {
    let place = u128::from(place & ((1 << PLACE_BITS) - 1));
    let high = u128::from(number >> NUMBER_BITS);
    let low = u128::from(number & ((1 << NUMBER_BITS) - 1));
    let bits = place << 80 | 8 << 76 | (kind as u128) << 66 | high << 64 | 2 << 62 | low;
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}

/// The number that an id names: a UUID of this kind, or the plain number.
pub(super) fn number_of(kind: Kind, id: &str) -> Option<u64> {
    if id.bytes().all(|byte| byte.is_ascii_digit()) {
        return id.parse().ok();
    }
    let hex: String = id.split('-').collect();
    let bits = u128::from_str_radix(&hex, 16).ok()?;
    let place = u64::try_from(bits >> 80).ok()?;
    let low = u64::try_from(bits & ((1 << NUMBER_BITS) - 1)).ok()?;
    let high = u64::try_from(bits >> 64 & 3).ok()?;
    let number = high << NUMBER_BITS | low;
    (uuid(kind, number, place) == id.to_ascii_lowercase()).then_some(number)
}

/// The fields that a 422 names, with the rule of each.
fn named(problem: &Problem) -> Vec<(String, String)> {
    let errors = problem.members.get("errors").and_then(Value::as_array);
    let named = errors.into_iter().flatten().filter_map(|error| {
        let pointer = error.get("pointer")?.as_str()?;
        let name = pointer.trim_start_matches('/').split('/').next()?;
        Some((snake(name), error.get("message")?.as_str()?.to_owned()))
    });
    named.filter(|(name, _)| !name.is_empty()).collect()
}

/// `confirmPassword` as `confirm_password`.
fn snake(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// A problem as Django REST framework words it: each wrong field with a list of texts.
pub(super) fn with_lists(mut problem: Problem) -> Problem {
    for (name, rule) in named(&problem) {
        problem = problem.with(&name, vec![rule]);
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::{Kind, Pairs, number_of, snake, uuid, whole};

    #[test]
    fn a_uuid_holds_its_number_and_reads_as_one_of_version_8() {
        for number in [0, 1, 12, 253_281_498_721_943_552, u64::MAX] {
            for place in [0, 3, (1 << 48) - 1] {
                let id = uuid(Kind::Reservation, number, place);
                assert_eq!(id.len(), 36);
                assert_eq!(id.as_bytes()[14], b'8', "{id}: the version");
                assert!(b"89ab".contains(&id.as_bytes()[19]), "{id}: the variant");
                assert_eq!(number_of(Kind::Reservation, &id), Some(number));
                assert_eq!(
                    number_of(Kind::Reservation, &id.to_uppercase()),
                    Some(number)
                );
                assert_eq!(number_of(Kind::Product, &id), None, "another kind");
            }
        }
        assert_eq!(number_of(Kind::Product, "12"), Some(12));
        for other in [
            "",
            "x",
            "-1",
            "0b5f9f57-25e5-4d5f-9d3f-0d6d1f9a3c11",
            "18446744073709551616",
        ] {
            assert_eq!(number_of(Kind::Product, other), None, "{other}");
        }
    }

    #[test]
    fn whole_numbers_are_read_in_every_form_that_seeds_send() {
        for (text, expected) in [
            ("1250", Some(1_250)),
            ("1250.00", Some(1_250)),
            ("10000.0", Some(10_000)),
            ("1e4", Some(10_000)),
            ("-500", Some(-500)),
            ("12.50", None),
            ("1.", None),
            ("x", None),
            ("", None),
            ("1e300", None),
        ] {
            assert_eq!(whole(text), expected, "{text}");
        }
    }

    #[test]
    fn a_link_keeps_the_other_parts_of_the_query() {
        let pairs = Pairs::of("page=2&name=a%26b&status=").unwrap_or(Pairs(Vec::new()));
        let url = pairs.url("http://shop/api", &[("page", "3".to_owned())]);
        assert_eq!(url, "http://shop/api?name=a%26b&status=&page=3");
        assert_eq!(pairs.text("status"), None);
        assert_eq!(snake("confirmPassword"), "confirm_password");
    }
}
