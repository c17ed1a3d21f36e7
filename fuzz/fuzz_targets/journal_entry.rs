//! Journal entries: any posted levels and payload decode to an entry or to an error. An entry can
//! be restored from what it keeps.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stock_common::id::Position;
use stock_domain::journal::Entry;
use stock_domain::order::Order;

// The first line holds the posted levels, the rest is the payload.
fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let Some((posted_levels, rest)) = end.map(|end| bytes.split_at(end)) else {
        return;
    };
    let (Ok(posted_levels), payload) = (std::str::from_utf8(posted_levels), &rest[1..]) else {
        return;
    };
    let Ok(entry) = Entry::decode(Position::new(1 << 30), 1, posted_levels, payload.to_vec()) else {
        return;
    };
    assert_eq!(entry.payload, payload);
    let restored = Entry::restore(entry.position, 1, payload.to_vec(), entry.postings.clone());
    assert_eq!(restored.map(|e| e.postings).ok(), Some(entry.postings.clone()));
    if let Ok(order) = entry.body::<Order>() {
        for line in &order.lines {
            assert_eq!(line.unit_price.times(line.quantity.get()), Some(line.sub_total));
        }
    }
});
