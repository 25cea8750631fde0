//! Unpredictable-enough numbers for identifiers and seeds. Nothing here guards a secret.

use std::hash::{BuildHasher, RandomState};

/// A number that differs from call to call and from process to process.
///
/// The standard library seeds each `RandomState` apart, from the operating system's randomness.
pub fn number() -> u64 {
    RandomState::new().hash_one(0_u8)
}

/// `prefix` followed by 24 hexadecimal digits, as in `chatcmpl-3f…`.
pub fn identifier(prefix: &str) -> String {
    format!("{prefix}{:016x}{:08x}", number(), number() as u32)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn identifiers_do_not_repeat() {
        let many: HashSet<String> = (0..1000).map(|_| super::identifier("x-")).collect();
        assert_eq!(many.len(), 1000);
        assert!(many.iter().all(|id| id.len() == 26));
    }
}
