//! Files as a hub has them, with the hashes that caches call them by.

use std::sync::Arc;

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// A commit's hash, made of one digit.
pub fn commit(digit: char) -> String {
    digit.to_string().repeat(40)
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    let mut context = Context::new(&SHA256);
    context.update(bytes);
    hexadecimal(context.finish().as_ref())
}

/// Git's hash of a file, in hexadecimal.
pub fn git_hash(bytes: &[u8]) -> String {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    context.update(format!("blob {}\0", bytes.len()).as_bytes());
    context.update(bytes);
    hexadecimal(context.finish().as_ref())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file of a repository.
#[derive(Clone)]
pub struct File {
    pub name: String,
    pub bytes: Arc<Vec<u8>>,
    /// Whether it is in the storage.
    pub large: bool,
    /// What caches call it.
    pub etag: String,
}

impl File {
    /// A file that is in the storage if it holds weights.
    pub fn new(name: &str, bytes: Vec<u8>) -> File {
        let large = name.ends_with(".safetensors") || name.ends_with(".bin");
        let etag = match large {
            true => sha256(&bytes),
            false => git_hash(&bytes),
        };
        File {
            name: name.to_owned(),
            bytes: Arc::new(bytes),
            large,
            etag,
        }
    }
}
