//! Models on disk: their names, the hub they come from, and the cache that Python's tools share.
//!
//! Invariants: the cache has the layout of `huggingface_hub` (`models--ORG--NAME/blobs`, `snapshots`,
//! `refs`, `.no_exist`, and `.locks` beside them), so that what one program has fetched the other
//! finds. A file becomes visible there only whole, after its hash was found right. What is on its way
//! lies under a name of our own, because the ranges of it arrive in any order, and
//! `huggingface_hub` takes a file `*.incomplete` for a beginning without holes.
//!
//! The crate `hf-hub` gives what the ecosystem defines: where a repository's folders are
//! ([`hf_hub::CacheRepo`]), the address of a file and of a repository's description, the address of the
//! default hub, and the token that a login has stored. It has neither ranges in parallel, nor resuming
//! over a kill, nor checks of what arrived, nor `HF_HUB_OFFLINE`, `HF_HUB_CACHE` and proxies per scheme;
//! so fetching is our own, over ureq with rustls. (Version 0.5 of it and not 1.0, which brings in some
//! two hundred crates for another protocol of storage.)

pub mod alias;
pub mod details;
pub mod digest;
pub mod error;
pub mod estimate;
pub mod fetch;
pub mod installed;
pub mod lock;
pub mod machine;
pub mod name;
pub mod partial;
pub mod remote;
pub mod remove;
pub mod settings;
pub mod snapshot;
pub mod store;
pub mod verify;
pub mod watch;
pub mod web;

mod board;
mod download;

pub use alias::{ALIASES, Alias};
pub use details::Details;
pub use error::{HubError, Result};
pub use fetch::{Pulled, pull};
pub use installed::{Installed, Revision, installed};
pub use name::Name;
pub use remove::{Removal, plan, remove};
pub use settings::Settings;
pub use snapshot::{local, missing};
pub use watch::{Phase, Watch};
