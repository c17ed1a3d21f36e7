//! JSON numbers that are whole, but not written as whole numbers.
//!
//! JSON has one kind of number, and many programs write a whole one as `10000.0` or `1e4`. The
//! parser reads these as fractions, which fit no whole member.

/// Longest number that is rewritten; 2^53 has 16 digits.
const DIGITS_MAX: usize = 16;
/// Longest text of digits that is looked at.
const LENGTH_MAX: usize = 400;

/// The text with its whole numbers in digits alone; `None` when there is nothing to rewrite. A text
/// that is not JSON stays without a meaning.
pub(super) fn plain(json: &[u8]) -> Option<Vec<u8>> {
    // Almost no body has such a number, and the order path must not pay for the search.
    let begins = |pair: &[u8]| matches!(pair, [b'0'..=b'9', b'.' | b'e' | b'E']);
    if !json.windows(2).any(begins) {
        return None;
    }
    let mut plain = Vec::with_capacity(json.len());
    let mut is_rewritten = false;
    let mut rest = json;
    while let Some(&byte) = rest.first() {
        let length = match byte {
            b'"' => string_length(rest),
            b'-' | b'0'..=b'9' => number_length(rest),
            _ => 1,
        };
        let (token, others) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        match whole(token) {
            Some(digits) => {
                is_rewritten = true;
                plain.extend_from_slice(digits.as_bytes());
            }
            None => plain.extend_from_slice(token),
        }
        rest = others;
    }
    is_rewritten.then_some(plain)
}

/// Length of the string that begins here, with its quotes.
fn string_length(text: &[u8]) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.iter().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn number_length(text: &[u8]) -> usize {
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let end = text.iter().position(|byte| !is_part(byte));
    end.unwrap_or(text.len())
}

/// The digits of a number that has a fraction or an exponent and is whole.
fn whole(token: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(token).ok()?;
    if !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return None;
    }
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (digits, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if mantissa == text && fraction.is_empty() {
        return None;
    }
    // Without a digit on either side of the point it is no JSON, and must stay so.
    let is_json = |digits: &str| digits.ends_with(|last: char| last.is_ascii_digit());
    if !is_json(digits) || (mantissa.contains('.') && !is_json(fraction)) {
        return None;
    }
    let exponent: i32 = exponent.parse().ok()?;
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", digits),
    };
    let has_zero_ahead = digits.len() > 1 && digits.starts_with('0');
    let places = i32::try_from(digits.len()).ok()?.checked_add(exponent)?;
    let all = format!("{digits}{fraction}");
    let has_others = all.bytes().any(|byte| !byte.is_ascii_digit());
    if has_zero_ahead || has_others {
        return None;
    }
    let significant = all.trim_end_matches('0');
    let length = usize::try_from(places.max(0)).ok()?;
    if significant.trim_start_matches('0').is_empty() {
        return Some("0".to_owned());
    }
    // Zeros ahead of the number are cut below, so it may have more digits here. Above this it is
    // far too long, and writing it out would cost time and memory.
    if significant.len() > length || length > LENGTH_MAX {
        return None;
    }
    let written = format!("{significant:0<length$}");
    let written = written.trim_start_matches('0');
    (written.len() <= DIGITS_MAX).then(|| format!("{sign}{written}"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::plain;

    #[test]
    fn whole_numbers_are_written_in_digits_and_nothing_else_changes() {
        for (given, expected) in [
            ("{\"a\":10000.0}", "{\"a\":10000}"),
            ("[1e4,1E+4,10e-1,0.5e1,-2.0]", "[10000,10000,1,5,-2]"),
            ("[0.0,-0.0,0e9]", "[0,0,0]"),
            ("[1.20e2,9007199254740992.0]", "[120,9007199254740992]"),
            ("[\"1.0\",1.0]", "[\"1.0\",1]"),
            ("[\"\\\"1.0\",1.0]", "[\"\\\"1.0\",1]"),
            ("[1.5,2.0]", "[1.5,2]"),
        ] {
            let got = plain(given.as_bytes()).map(|text| String::from_utf8(text).unwrap());
            assert_eq!(got.as_deref(), Some(expected), "{given}");
        }
        for given in [
            "",
            "[1,2]",
            "[1.5]",
            "[1.25e1]",
            "[\"1.0\"]",
            "[1.]",
            "[.0]",
            "[01.0]",
            "[1e]",
            "[1.0.0]",
            "[--1.0]",
            "[1e99999999999]",
            "[1e30]",
            "[1e401]",
            "[1e100000]",
            "[1e2147483646]",
            "[0.1e2147483647]",
            "\"1.0",
            "[1-1]",
        ] {
            assert_eq!(plain(given.as_bytes()), None, "{given}");
        }
    }

    #[test]
    fn a_rewritten_number_has_its_value() {
        for mantissa in ["1", "10", "123456", "0", "7.0", "0.25", "12.50"] {
            for exponent in -4..=9 {
                let given = format!("{mantissa}e{exponent}");
                let value: f64 = given.parse().unwrap();
                let Some(text) = plain(given.as_bytes()) else {
                    assert!(value.fract() != 0.0, "{given}");
                    continue;
                };
                let read: Value = serde_json::from_slice(&text).unwrap();
                assert_eq!(read.as_f64(), Some(value), "{given}");
                assert!(read.is_u64(), "{given}");
            }
        }
    }
}
