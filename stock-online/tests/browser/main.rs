//! The pages in a real browser: headless Chromium over a real service on real servers.
//!
//! Run by `make browser`, which installs Chromium, its driver and axe. Screenshots stay in
//! `target/screenshots`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and reads as one story"
)]

mod browser;
#[path = "../it/support.rs"]
#[allow(
    dead_code,
    unused_imports,
    clippy::allow_attributes,
    reason = "what the other tests stand on; these need a part of it"
)]
mod support;

mod accessible;
mod admin;
mod checkout;
mod event;
mod people;
mod shop;
