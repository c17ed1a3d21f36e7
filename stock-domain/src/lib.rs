//! The pure rules of Stock Flow, and its vocabulary on one page. Nothing here knows Redis, SQL,
//! HTTP or async code.
//!
//! **Everything that can run out is an account; everything that happens is one journal entry.**
//!
//! | word | where |
//! |---|---|
//! | account, level | [`account`] |
//! | entry, the table of kinds | [`journal`] |
//! | posting; transition of a state | [`posting`], [`transition`] |
//! | a request to the script, and its conditions | [`request`] |
//! | verdict, refusal | [`verdict`] |
//! | order: place, cancel, fail; its states | [`order`] |
//! | hold: cancel, expire; reservation: reserve, confirm | [`hold`], [`reservation`] |
//! | checkout: open, extend, confirm, take again; its payments | [`checkout`] |
//! | coupon: open, issue; a code's states; points: earn, spend, cancel | [`coupon`], [`points`] |
//! | price of an order, from the catalog; sale, discount | [`pricing`], [`catalog`], [`sale`], [`discount`] |
//! | product: open, switch; stock: receive, adjust, import; selling: switch | [`product`], [`stock`], [`selling`] |
//! | which shard a thing lies on; an entry over several shards | [`shard_map`], [`branch`] |
//! | how far MySQL is with a shard | [`shard_state`] |
//! | store | [`store`] |
//! | webhook: its secret, its message | [`webhook`] |
//! | settings of the servers that a promise rests on | [`server_settings`] |
//! | user, role, email, password; service key, scope; buyer | [`user`], [`service_key`], [`buyer`] |

pub mod account;
pub mod branch;
pub mod buyer;
pub mod catalog;
pub mod checkout;
pub mod coupon;
pub mod discount;
pub mod hold;
pub mod journal;
pub mod order;
pub mod points;
pub mod posting;
pub mod pricing;
pub mod product;
pub mod quantity;
pub mod request;
pub mod reservation;
pub mod sale;
pub mod selling;
pub mod server_settings;
pub mod service_key;
pub mod shard_map;
pub mod shard_state;
pub mod sku;
pub mod stock;
pub mod store;
pub mod transition;
pub mod user;
pub mod verdict;
pub mod webhook;
