//! Orders: the requests of clients and their answers.

mod cancel;
mod idempotency;
mod parts;
mod place;
mod rows;
mod show;
