//! Mapping a file into memory and letting go of its pages: the room's unsafe calls.
//!
//! The mapping is private to reading and lives as long as its shard. It assumes that nobody changes
//! the file meanwhile: a write by another process may show in the mapped bytes, and a truncation
//! turns a later read into SIGBUS, which ends the process. Model files are written once and
//! replaced by rename (which leaves a mapping whole), so this is accepted; the alternative is a
//! second copy of the weights in memory. Headers are parsed into owned values in one pass, so bytes
//! that change later cannot move a tensor's range.

use std::fs::File;
use std::io;

use memmap2::{Mmap, UncheckedAdvice};

/// Maps the whole of `file` for reading.
///
/// # Errors
/// What the system says, for example for a directory or when address space runs out.
pub(super) fn map_file(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mapping is read-only, and its bytes are only ever read as `u8`, for which any
    // value is valid. That no other process truncates or rewrites the file while it is mapped
    // is the documented assumption above.
    unsafe { Mmap::map(file) }
}

/// Takes the pages around `range` of a mapped file out of this process, whose memory they count as. Reading
/// them again brings them back from the file, most often from the system's cache of it.
pub(super) fn let_go(map: &Mmap, range: std::ops::Range<usize>) {
    // SAFETY: the mapping is one of a file and read-only, so nothing is lost with its pages.
    let done =
        unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
    if let Err(error) = done {
        tracing::debug!("the pages of a file that was read stay mapped: {error}");
    }
}
