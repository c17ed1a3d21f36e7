//! The Lua scripts, embedded from `lua/` and hashed once.

use std::sync::LazyLock;

use sha1::{Digest, Sha1};

/// One script of `lua/`.
#[derive(Debug)]
pub struct Script {
    /// The file's name without `.lua`.
    pub name: &'static str,
    /// The file's text.
    pub text: &'static str,
    /// The SHA-1 by which Redis knows it, in hexadecimal.
    pub sha: String,
}

impl Script {
    fn new(name: &'static str, text: &'static str) -> Self {
        let sha = hex::encode(Sha1::digest(text.as_bytes()));
        Self { name, text, sha }
    }
}

/// All scripts.
#[derive(Debug)]
pub struct Scripts {
    /// Checks a batch of requests and journals what is accepted.
    pub decide: Script,
    /// Notes how far MySQL has followed and trims the journal.
    pub settled: Script,
    /// Sets an account to the level of its last posting.
    pub correct: Script,
    /// Removes states that are final and old.
    pub forget_states: Script,
    /// Counts anew the units that users hold.
    pub count_held: Script,
    /// Claims a key for another shard.
    pub claim: Script,
    /// Removes the claim of a key for another shard.
    pub unclaim: Script,
    /// Begins a book, or fills a lost book anew.
    pub mend: Script,
    /// Writes the lost fields of the epoch's hash.
    pub mend_head: Script,
}

impl Scripts {
    /// Every script, for loading and for tests.
    #[must_use]
    pub const fn all(&self) -> [&Script; 9] {
        [
            &self.decide,
            &self.settled,
            &self.correct,
            &self.forget_states,
            &self.count_held,
            &self.claim,
            &self.unclaim,
            &self.mend,
            &self.mend_head,
        ]
    }
}

/// The scripts of this program.
pub static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts {
    decide: Script::new("decide", include_str!("../../lua/decide.lua")),
    settled: Script::new("settled", include_str!("../../lua/settled.lua")),
    correct: Script::new("correct", include_str!("../../lua/correct.lua")),
    forget_states: Script::new("forget_states", include_str!("../../lua/forget_states.lua")),
    count_held: Script::new("count_held", include_str!("../../lua/count_held.lua")),
    claim: Script::new("claim", include_str!("../../lua/claim.lua")),
    mend: Script::new("mend", include_str!("../../lua/mend.lua")),
    mend_head: Script::new("mend_head", include_str!("../../lua/mend_head.lua")),
    unclaim: Script::new("unclaim", include_str!("../../lua/unclaim.lua")),
});
