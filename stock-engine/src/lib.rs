//! The engine of Stock Flow, usable without HTTP: what needs Redis and MySQL both.
//!
//! | file | owns |
//! |---|---|
//! | [`fence`] | the proof that this is the Redis that MySQL knows, before anything is decided on it |
//! | `heal` | what was found lost in Redis, brought back from MySQL |
//! | [`ledger`] | starts a ledger; keeps it told of the shard map and the emergency stop |
//! | [`apply`] | a batch of the journal into MySQL, in one transaction, with dead letters and quarantine |
//! | [`row_lock`] | the synchronous path: decide and record under row locks |
//! | [`cross_shard`] | the end of what is held for an entry over several shards |
//! | [`lookup`] | an order or entry wherever it is now |
//! | [`expiry`] | releasing the reservations whose time is over |
//! | [`import`] | a file of stock: judge, apply |
//! | [`points_report`], [`forget_sales`] | the daily reports of points; limits of sales that are long over |
//! | [`reads`] | which database answers a read |
//! | [`archive`] | months of the journal, moved into files |
//! | [`verify`], [`reconcile`], [`recover`] | proofs and repairs over both |
//! | [`evidence`], [`quarantine`] | what an account holds when its copies differ; accounts from which nothing may be taken |
//! | [`rehome`] | another number of shards |

pub mod apply;
pub mod archive;
pub mod cross_shard;
pub mod evidence;
pub mod expiry;
pub mod fence;
pub mod forget_sales;
mod heal;
pub mod import;
pub mod ledger;
pub mod lookup;
pub mod points_report;
pub mod quarantine;
pub mod reads;
pub mod reconcile;
pub mod recover;
pub mod rehome;
pub mod row_lock;
pub mod verify;
