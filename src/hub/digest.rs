//! Whether a file is what the hub says: the SHA-256 of what lies in large-file storage, and git's own
//! hash of everything else. Both are what the hub gives as the file's ETag.

use std::fmt;
use std::io::{self, Read};

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// The hash that a file should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Digest {
    /// SHA-256 of the content, in hexadecimal.
    Sha256(String),
    /// SHA-1 of git's header and the content, in hexadecimal.
    Git(String),
}

impl Digest {
    /// What an ETag says; none if it is of another kind.
    pub fn from_etag(etag: &str) -> Option<Digest> {
        let hexadecimal = etag.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match etag.len() {
            64 if hexadecimal => Some(Digest::Sha256(etag.to_owned())),
            40 if hexadecimal => Some(Digest::Git(etag.to_owned())),
            _ => None,
        }
    }

    /// The kind, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Digest::Sha256(_) => "SHA-256",
            Digest::Git(_) => "git hash",
        }
    }

    /// The hash of `size` bytes, of the same kind as this one.
    ///
    /// # Errors
    /// What reading says; `UnexpectedEof` where there are not `size` bytes.
    pub fn of(&self, content: &mut impl Read, size: u64) -> io::Result<Digest> {
        let mut context = match self {
            Digest::Sha256(_) => Context::new(&SHA256),
            Digest::Git(_) => {
                let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                context.update(format!("blob {size}\0").as_bytes());
                context
            }
        };
        let mut buffer = vec![0; 256 * 1024];
        let mut left = size;
        while left > 0 {
            let most = buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let n = match content.read(&mut buffer[..most]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            context.update(&buffer[..n]);
            left -= n as u64;
        }
        let hash: String = context
            .finish()
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(match self {
            Digest::Sha256(_) => Digest::Sha256(hash),
            Digest::Git(_) => Digest::Git(hash),
        })
    }
}

/// In hexadecimal.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Digest::Sha256(hash) | Digest::Git(hash) => f.write_str(hash),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_sha256sum_and_git() {
        // printf 'hello\n' | sha256sum; printf 'hello\n' | git hash-object --stdin
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        for hash in [sha256, git] {
            let digest = Digest::from_etag(hash).unwrap();
            assert_eq!(digest.of(&mut &b"hello\n"[..], 6).unwrap(), digest);
            assert_ne!(digest.of(&mut &b"hellO\n"[..], 6).unwrap(), digest);
            assert_ne!(digest.of(&mut &b"hello\n"[..], 5).unwrap(), digest);
            assert!(digest.of(&mut &b"hello\n"[..], 7).is_err());
            assert_eq!(digest.to_string(), hash);
        }
    }

    #[test]
    fn other_etags_say_nothing() {
        for etag in ["", "abc", "d41d8cd98f00b204e9800998ecf8427e"] {
            assert_eq!(Digest::from_etag(etag), None);
        }
        assert_eq!(Digest::from_etag(&"g".repeat(64)), None);
        assert_eq!(Digest::from_etag(&"A".repeat(40)), None);
    }
}
