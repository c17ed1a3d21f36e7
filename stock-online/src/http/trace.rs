//! The W3C trace context of a request: the trace goes on in the answer, under a span of its own.

use axum::http::{HeaderMap, HeaderValue};

/// The header, in requests and answers.
pub const TRACEPARENT: &str = "traceparent";

/// The header of an answer, if the request's is valid.
#[must_use]
pub fn continued(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let (Some(given), None) = (values.next(), values.next()) else {
        return None;
    };
    let (trace, flags) = parse(given.to_str().ok()?)?;
    // A span of zeros is none.
    let span = rand::random::<u64>().max(1);
    HeaderValue::try_from(format!("00-{trace}-{span:016x}-{flags}")).ok()
}

/// The trace and the flags of a header.
fn parse(text: &str) -> Option<(&str, &str)> {
    let mut parts = text.split('-');
    let [version, trace, span, flags] = [(); 4].map(|()| parts.next());
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_id = |text: &str, length| is_hex(text, length) && text.bytes().any(|b| b != b'0');
    let version = version.filter(|text| is_hex(text, 2) && *text != "ff")?;
    // A later version may have further parts.
    if version == "00" && parts.next().is_some() {
        return None;
    }
    let trace = trace.filter(|text| is_id(text, 32))?;
    span.filter(|text| is_id(text, 16))?;
    Some((trace, flags.filter(|text| is_hex(text, 2))?))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn only_what_the_specification_allows_is_continued() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        assert_eq!(parse(&format!("00-{trace}-{span}-01")), Some((trace, "01")));
        assert_eq!(
            parse(&format!("01-{trace}-{span}-00-x")),
            Some((trace, "00"))
        );
        let zeros = "0".repeat(32);
        for bad in [
            String::new(),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-01-x"),
            format!("ff-{trace}-{span}-01"),
            format!("00-{zeros}-{span}-01"),
            format!("00-{trace}-0000000000000000-01"),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{trace}-{span}-1"),
        ] {
            assert_eq!(parse(&bad), None, "{bad}");
        }
    }
}
