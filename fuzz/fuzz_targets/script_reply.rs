//! The reply of the script: any bytes decode to one verdict per request, or not at all.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stock_common::id::{LocationId, ProductId, UserId};
use stock_domain::account::Account;
use stock_domain::journal::{Draft, Kind};
use stock_domain::posting::Posting;
use stock_domain::request::Request;
use stock_redis::codec::decode;
use stock_redis::encoded_request::EncodedRequest;

fn request() -> EncodedRequest {
    let mut draft = Draft::new(Kind::OrderPlaced, UserId(2), &()).expect("it has a JSON form");
    let account = Account::available(ProductId(1), LocationId::ONLINE);
    draft.postings = vec![Posting::new(account, -1)];
    EncodedRequest::new(Request::new(draft)).expect("it has a payload")
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(reply) = redis::parse_redis_value(bytes) else {
        return;
    };
    let batch = [request(), request()];
    if let Some(decoded) = decode(&reply, batch.iter()) {
        assert_eq!(decoded.verdicts.len(), batch.len());
    }
});
