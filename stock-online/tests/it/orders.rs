//! Orders: what a client may ask for and what it gets.

mod cancel;
mod idempotency;
mod place;
mod rows;
mod show;
