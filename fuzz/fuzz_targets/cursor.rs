//! Cursors and ids: any text is a number or is refused, and a number survives a round trip.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stock_common::id::Position;
use stock_online::http::page::cursor_of;

fuzz_target!(|text: &str| {
    if let Ok(Some(number)) = cursor_of(Some(text)) {
        assert_eq!(text.parse(), Ok(number));
    }
    if let Ok(position) = text.parse::<Position>() {
        assert_eq!(position.to_string().parse::<Position>().ok(), Some(position));
    }
    if let Some(position) = Position::from_stream_id(text) {
        assert_eq!(Position::from_stream_id(&position.stream_id()), Some(position));
    }
});
