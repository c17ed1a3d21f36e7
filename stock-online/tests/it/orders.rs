//! Orders: the requests of clients and their answers.

mod cancel;
mod idempotency;
mod place;
mod rows;
mod show;
