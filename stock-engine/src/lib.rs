//! The engine of Stock Flow: everything that needs both Redis and MySQL, usable without HTTP.
//!
//! | file | owns |
//! |---|---|
//! | [`fence`] | verifies that this is the Redis that MySQL knows, before anything is decided on it |
//! | `heal` | restores from MySQL what was found lost in Redis |
//! | [`ledger`] | starts a ledger, and informs it of the shard map and the selling switch |
//! | [`apply`] | applies a batch of the journal to MySQL in one transaction, with dead letters and quarantine |
//! | [`row_lock`] | the synchronous path: decide and record under row locks |
//! | [`cross_shard`] | ends the branches that are held for an entry over several shards |
//! | [`lookup`] | finds an order or an entry, wherever it is now |
//! | [`expiry`] | releases the reservations whose time is over |
//! | [`import`] | checks a file of stock, and applies it |
//! | [`points_report`], [`forget_sales`] | the daily reports of points; limits of sales that ended long ago |
//! | [`reads`] | chooses the database that answers a read |
//! | [`archive`] | moves months of the journal into files |
//! | [`verify`], [`reconcile`], [`recover`] | compare and repair the two stores |
//! | [`evidence`], [`quarantine`] | the level of an account whose copies differ; accounts from which nothing may be taken |
//! | [`rehome`] | changes the number of shards |

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
