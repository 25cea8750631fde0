//! Compiled forms by their specification, up to a number of bytes: agents send the same schema with each turn.

use std::collections::HashMap;

use crate::sample::Form;

/// Kept forms; the one unused for longest goes first.
pub(super) struct Cache {
    entries: HashMap<String, Entry>,
    bytes: usize,
    most_bytes: usize,
    /// Counts uses.
    now: u64,
}

struct Entry {
    form: Form,
    bytes: usize,
    used: u64,
}

impl Cache {
    /// An empty one that holds up to `most_bytes`.
    pub fn new(most_bytes: usize) -> Self {
        Self {
            entries: HashMap::new(),
            bytes: 0,
            most_bytes,
            now: 0,
        }
    }

    /// The form made from `specification`, if it is kept.
    pub fn get(&mut self, specification: &str) -> Option<Form> {
        self.now += 1;
        let entry = self.entries.get_mut(specification)?;
        entry.used = self.now;
        Some(entry.form.clone())
    }

    /// Keeps a form of about `bytes`, unless it is larger than all that may be kept.
    pub fn put(&mut self, specification: String, form: Form, bytes: usize) {
        let bytes = bytes.saturating_add(specification.len());
        if bytes > self.most_bytes {
            return;
        }
        self.now += 1;
        let used = self.now;
        let entry = Entry { form, bytes, used };
        self.bytes += bytes;
        if let Some(old) = self.entries.insert(specification, entry) {
            self.bytes -= old.bytes;
        }
        while self.bytes > self.most_bytes {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else {
                break;
            };
            if let Some(old) = self.entries.remove(&key) {
                self.bytes -= old.bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form() -> Form {
        Form::new(|| Err("not asked".into()))
    }

    #[test]
    fn the_one_unused_for_longest_goes() {
        let mut cache = Cache::new(1000);
        for name in ["a", "b", "c"] {
            cache.put(name.into(), form(), 299);
        }
        assert_eq!(cache.bytes, 900);
        assert!(cache.get("a").is_some());
        cache.put("d".into(), form(), 299);
        assert!(cache.get("b").is_none());
        for name in ["a", "c", "d"] {
            assert!(cache.get(name).is_some(), "{name}");
        }
        cache.put("a".into(), form(), 99);
        assert_eq!(cache.bytes, 700);
        cache.put("huge".into(), form(), 1000);
        assert!(cache.get("huge").is_none());
        assert_eq!(cache.bytes, 700);
    }
}
