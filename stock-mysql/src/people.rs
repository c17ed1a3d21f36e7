//! People: users, sessions, refresh tokens, service keys and the audit log. They are no part of the
//! ledger.

pub mod audit_log;
pub mod refresh_tokens;
pub mod service_keys;
pub mod sessions;
pub mod users;
