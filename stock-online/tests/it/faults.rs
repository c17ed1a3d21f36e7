//! Faults: kills, lost memory, lost messages; afterwards nothing accepted is missing.

mod backup;
mod fenced;
mod kills;
mod links;
mod lost_keys;
mod poison;
mod tls;
