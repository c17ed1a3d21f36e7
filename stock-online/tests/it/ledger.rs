//! The ledger below HTTP: each verdict, the script against a model, and how MySQL takes entries.

mod model;
mod mysql;
mod planted;
mod reconcile;
pub(crate) mod verdicts;
