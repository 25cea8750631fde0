//! Mapping a file into memory: the room's one unsafe call.
//!
//! The mapping is private to reading and lives as long as its shard. It assumes that nobody changes
//! the file meanwhile: a write by another process may show in the mapped bytes, and a truncation
//! turns a later read into SIGBUS, which ends the process. Model files are written once and
//! replaced by rename (which leaves a mapping whole), so this is accepted; the alternative is a
//! second copy of the weights in memory. Headers are parsed into owned values in one pass, so bytes
//! that change later cannot move a tensor's range.

use std::fs::File;
use std::io;

use memmap2::Mmap;

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
