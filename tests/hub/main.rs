//! Models on disk, end to end: the binary against a hub on this machine.

#[path = "../common/mod.rs"]
mod common;

mod driver;
mod failing;
mod fake;
mod file;
mod interop;
mod keeping;
mod killing;
mod pulling;
