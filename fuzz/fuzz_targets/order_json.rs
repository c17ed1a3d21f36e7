//! The body of an order: any bytes are an order or a 400 or 422, and an order's numbers are in range.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stock_online::http::extract::parse_json;
use stock_online::http::orders::OrderIn;

fuzz_target!(|bytes: &[u8]| {
    match parse_json::<OrderIn>(bytes) {
        // What is an order is JSON.
        Ok(_) => assert!(std::str::from_utf8(bytes).is_ok()),
        Err(problem) => assert!([400, 422].contains(&problem.code.status())),
    }
});
