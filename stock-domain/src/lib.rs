//! The engine of Stock Flow, usable without HTTP: the vocabulary on one page.
//!
//! **Everything that can run out is an account; everything that happens is one journal entry.**
//!
//! | word | where |
//! |---|---|
//! | account, level | [`account`] |
//! | entry, posting, mark, the table of kinds | [`journal`] |
//! | verdict, refusal | [`verdict`] |
//! | order: place, cancel, fail; its states | [`order`] |
//! | an order or entry wherever it is now | [`lookup`] |
//! | reservation: reserve, confirm, cancel, expire; releasing those whose time is over | [`reservation`], [`expiry`] |
//! | coupon: open, issue; a code's states; points: earn, spend, cancel; their daily reports | [`coupon`], [`points`], [`points_report`] |
//! | limits of sales that are long over | [`forget_sales`] |
//! | price of an order, from the catalog; sale, discount | [`pricing`], [`catalog`], [`sale`], [`discount`] |
//! | product: open, switch; stock: receive, adjust, import; selling: switch | [`product`], [`stock`], [`selling`] |
//! | which shard a thing lies on; an entry over several shards | [`shard_map`], [`branch`] |
//! | store | [`store`] |
//! | webhook: its secret, its message | [`webhook`] |
//! | file of stock: judge, apply | [`import`] |
//! | settings of the servers that a promise rests on | [`server_settings`] |
//! | tasks that are started again when they break | [`supervise`] |
//! | user, role, email, password | [`user`] |
//! | the Redis side: script, batcher, gate, journal reader | [`ledger`] |
//! | the MySQL side: record, settle, apply, verify | [`database`] |
//! | which database answers a read | [`reads`] |
//! | months of the journal, moved into files | [`archive`] |
//! | proofs and repairs over both | [`verify`], [`reconcile`], [`recover`] |
//! | what an account holds when its copies differ; accounts from which nothing may be taken | [`evidence`], [`quarantine`] |
//! | another number of shards | [`rehome`] |

pub mod account;
pub mod archive;
pub mod branch;
pub mod catalog;
pub mod coupon;
pub mod database;
pub mod discount;
pub mod evidence;
pub mod expiry;
pub mod forget_sales;
pub mod import;
pub mod journal;
pub mod ledger;
pub mod lookup;
pub mod order;
pub mod points;
pub mod points_report;
pub mod pricing;
pub mod product;
pub mod quarantine;
pub mod reads;
pub mod reconcile;
pub mod recover;
pub mod rehome;
pub mod reservation;
pub mod sale;
pub mod selling;
pub mod server_settings;
pub mod shard_map;
pub mod stock;
pub mod store;
pub mod supervise;
pub mod user;
pub mod verdict;
pub mod verify;
pub mod webhook;
