//! Faults: kills, lost memory, lost messages; afterwards nothing accepted is missing.

mod away;
mod backup;
mod checkouts;
mod fenced;
mod idle;
mod kills;
mod links;
mod lost_keys;
mod packets;
mod poison;
mod quarantine;
mod settings;
mod silent;
mod tasks;
mod tls;
