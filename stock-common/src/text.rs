//! Texts that people type: equal characters get equal bytes, and a text of invisible characters
//! counts as blank.

use unicode_normalization::{UnicodeNormalization, is_nfc};

/// Invisible characters that are no white space: joiners, direction marks, fillers, variation
/// selectors, tags, and the empty Braille pattern. Source: Unicode 16,
/// `Default_Ignorable_Code_Point`, and U+2800.
const UNSEEN: [(char, char); 16] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{202a}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fff8}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// Brings a text into Unicode's normal form C.
pub fn normalize(text: &mut String) {
    if !is_nfc(text) {
        *text = text.nfc().collect();
    }
}

/// Whether a text has no visible character.
#[must_use]
pub fn is_blank(text: &str) -> bool {
    let is_unseen = |c: char| {
        UNSEEN
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&c))
    };
    text.chars().all(|c| c.is_whitespace() || is_unseen(c))
}

#[cfg(test)]
mod tests {
    use super::{is_blank, normalize};

    #[test]
    fn the_same_characters_are_the_same_bytes() {
        for (typed, stored) in [
            ("\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}", "한글"),
            ("e\u{301}", "é"),
            ("lamp 🍣", "lamp 🍣"),
        ] {
            let mut text = typed.to_owned();
            normalize(&mut text);
            assert_eq!(text, stored);
        }
    }

    #[test]
    fn a_text_that_nobody_can_see_is_blank() {
        for blank in [
            "",
            " \u{3000}",
            "\u{3164}",
            "\u{200b}",
            "\u{202e}\u{2066}",
            "\u{2800}\u{feff}",
        ] {
            assert!(is_blank(blank), "{blank:?}");
        }
        for seen in ["a", "\u{200b}한\u{200b}", "🍣\u{fe0f}", "."] {
            assert!(!is_blank(seen), "{seen:?}");
        }
    }
}
