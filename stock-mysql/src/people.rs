//! People: users, sessions, refresh tokens and the audit log. They are no part of the ledger.

pub mod audit_log;
pub mod refresh_tokens;
pub mod sessions;
pub mod users;
