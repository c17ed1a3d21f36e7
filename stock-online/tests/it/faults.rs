//! Faults: kills, lost memory, lost messages; afterwards nothing accepted is missing.

mod fenced;
mod kills;
mod links;
mod poison;
