//! The ledger below HTTP: each verdict, the script against a model, what MySQL does with entries.

mod model;
mod mysql;
mod planted;
mod reconcile;
pub(crate) mod verdicts;
