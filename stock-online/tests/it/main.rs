//! The integration tests: real servers, a fresh prefix and database each, all at once.

mod support;

mod faults;
mod ledger;
mod ops;
mod orders;
mod products;
mod races;
