//! Texts of pages, by language: Fluent files in `texts/`, embedded. A test checks that both
//! languages are complete.

use std::borrow::Cow;
use std::collections::HashMap;

use axum::http::{HeaderMap, header};
use chrono::DateTime;
use chrono_tz::Tz;
use fluent_templates::fluent_bundle::FluentValue;
use fluent_templates::{LanguageIdentifier, Loader, langid, static_loader};

static_loader! {
    static TEXTS = {
        locales: "./src/pages/texts",
        fallback_language: "en",
        // No language here is written from right to left, so values need no isolating characters.
        customise: |bundle| bundle.set_use_isolating(false),
    };
}

/// The cookie in which a chosen language is kept.
pub const COOKIE: &str = "lang";

static ENGLISH: LanguageIdentifier = langid!("en");
static KOREAN: LanguageIdentifier = langid!("ko");

/// A language of the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lang {
    /// English, the default.
    #[default]
    En,
    /// Korean.
    Ko,
}

impl Lang {
    /// Both languages, in the order of the switch.
    pub const ALL: [Self; 2] = [Self::En, Self::Ko];

    /// Its name in HTML and in the cookie.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Ko => "ko",
        }
    }

    /// Its name in the language itself.
    #[must_use]
    pub const fn own_name(self) -> &'static str {
        match self {
            Self::En => "English",
            Self::Ko => "한국어",
        }
    }

    /// The language of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lang| lang.as_str() == name)
    }

    /// The language that a request asks for: the cookie, else the best of `Accept-Language` (RFC
    /// 9110 §12.5.4).
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let cookie = cookie_of(headers, COOKIE).and_then(Self::parse);
        let accepted = headers
            .get(header::ACCEPT_LANGUAGE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        cookie.unwrap_or_else(|| accepted_of(accepted))
    }

    fn id(self) -> &'static LanguageIdentifier {
        match self {
            Self::En => &ENGLISH,
            Self::Ko => &KOREAN,
        }
    }

    /// The text of an id.
    #[must_use]
    pub fn text(self, id: &str) -> String {
        TEXTS.lookup(self.id(), id)
    }

    /// The text of an id, if it has one.
    #[must_use]
    pub fn find(self, id: &str) -> Option<String> {
        TEXTS.try_lookup(self.id(), id)
    }

    /// The text of an id with something filled in.
    pub fn filled(
        self,
        id: &str,
        name: &'static str,
        value: impl Into<FluentValue<'static>>,
    ) -> String {
        let values = HashMap::from([(Cow::Borrowed(name), value.into())]);
        TEXTS.lookup_with_args(self.id(), id, &values)
    }

    /// An amount of money, in whole units.
    #[must_use]
    pub fn money(self, amount: i64) -> String {
        self.filled("money", "amount", grouped(amount))
    }

    /// A date and time in a time zone, to the minute.
    #[must_use]
    pub fn time(self, unix_ms: i64, zone: Tz) -> String {
        let format = match self {
            Self::En => "%-d %b %Y, %H:%M",
            Self::Ko => "%Y. %-m. %-d. %H:%M",
        };
        let time = DateTime::from_timestamp_millis(unix_ms).unwrap_or_default();
        time.with_timezone(&zone).format(format).to_string()
    }
}

/// A number with its digits in groups of three.
#[must_use]
pub fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

/// A cookie's value.
#[must_use]
pub fn cookie_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value)
}

/// The language with the greatest weight, the first of equal ones; English when none of ours is
/// named.
fn accepted_of(accepted: &str) -> Lang {
    let mut best = (0.0, Lang::default());
    for range in accepted.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.trim().parse().ok());
        let weight: f64 = weight.unwrap_or(1.0);
        let primary = name.split('-').next().unwrap_or_default();
        if let Some(lang) = Lang::parse(primary)
            && weight > best.0
        {
            best = (weight, lang);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::{Lang, accepted_of, grouped};

    #[test]
    fn the_language_with_the_greatest_weight_is_spoken() {
        for (accepted, expected) in [
            ("", Lang::En),
            ("*", Lang::En),
            ("ko", Lang::Ko),
            ("ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7", Lang::Ko),
            ("en-GB,ko;q=0.9", Lang::En),
            ("fr, ko;q=0.5, en;q=0.4", Lang::Ko),
            ("fr", Lang::En),
            ("ko;q=0, en;q=0.1", Lang::En),
            ("ko;q=x", Lang::Ko),
        ] {
            assert_eq!(accepted_of(accepted), expected, "{accepted}");
        }
    }

    #[test]
    fn numbers_are_read_in_groups() {
        for (number, expected) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (-1_234_567, "-1,234,567"),
        ] {
            assert_eq!(grouped(number), expected);
        }
    }

    #[test]
    fn plurals_are_those_of_the_language() {
        assert_eq!(Lang::En.filled("units-left", "count", 1), "1 left");
        assert_eq!(Lang::Ko.filled("units-left", "count", 2), "2개 남음");
        assert_eq!(Lang::Ko.money(16_200), "16,200원");
    }
}
