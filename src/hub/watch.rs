//! Who is told how fetching goes. What is shown of it is the command line's business.

use std::time::Duration;

/// Where a file stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its bytes are on their way.
    Fetching,
    /// Another process fetches it.
    Elsewhere,
    /// All bytes are here; its hash is being computed.
    Verifying,
    /// It is whole.
    Done,
}

/// A file that will be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub size: u64,
}

/// Is told from several threads. Files are numbered as in [`Watch::expect`].
pub trait Watch: Sync {
    /// The files that are going to be fetched; once, before anything else.
    fn expect(&self, _files: &[Expected]) {}
    /// Bytes that are here already: fetched just now, or (`resumed`) by an earlier try.
    fn arrived(&self, _file: usize, _bytes: u64, _resumed: bool) {}
    /// The file starts anew: what had arrived is lost.
    fn again(&self, _file: usize) {}
    /// The file has come to a new phase.
    fn phase(&self, _file: usize, _phase: Phase) {}
    /// Something failed and is tried again after a while.
    fn retry(&self, _what: &str, _why: &str, _after: Duration) {}
}

/// Nobody is told.
impl Watch for () {}
