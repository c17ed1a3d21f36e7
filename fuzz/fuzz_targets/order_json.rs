//! The body of an order: any bytes are an order, or are refused with 400 or 422.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stock_online::http::extract::parse_json;
use stock_online::http::orders::OrderIn;

fuzz_target!(|bytes: &[u8]| {
    match parse_json::<OrderIn>(bytes) {
        // Only UTF-8 can be an order.
        Ok(_) => assert!(std::str::from_utf8(bytes).is_ok()),
        Err(problem) => assert!([400, 422].contains(&problem.code.status())),
    }
});
