//! The integration tests: real servers, a fresh prefix and database for each test, all tests at
//! once.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and reads as one story"
)]

mod support;

mod archive;
mod bad_input;
mod benefits;
mod checkouts;
mod events;
mod faults;
mod imports;
mod ledger;
mod once;
mod ops;
mod orders;
mod pages;
mod people;
mod product_reads;
mod products;
mod races;
mod reads;
mod reservations;
mod sales;
mod seeds;
mod shards;
mod stock;
mod stores;
mod texts;
mod webhooks;
