//! Dictionaries, in the order of their making.

use std::collections::HashMap;

use super::Result;
use super::meter::{self, Held};
use super::text::Str;
use super::value::{Value, deeper};

/// A key of a dictionary, equal to others as Python has it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// `None`
    None,
    /// Numbers without a fraction, and truth values
    Int(i128),
    /// Other numbers, by their bits
    Float(u64),
    /// Text
    Str(Str),
    /// Several
    Tuple(Vec<Key>),
}

/// A dictionary, in the order of its making.
pub struct Dict {
    pairs: Vec<(Value, Value)>,
    index: HashMap<Key, usize>,
    depth: usize,
    held: Held,
}

impl Dict {
    /// An empty one.
    pub fn new() -> Dict {
        Dict {
            pairs: Vec::new(),
            index: HashMap::new(),
            depth: 1,
            held: Held::new(96),
        }
    }

    /// Puts a pair in, in the place of one with the same key.
    ///
    /// # Errors
    /// If the key cannot be one, or the value nests too deep.
    pub fn insert(&mut self, key: Value, value: Value) -> Result<()> {
        let hash = key.key()?;
        self.depth = deeper(self.depth, [&key, &value].into_iter())?;
        match self.index.get(&hash) {
            Some(&at) => {
                if let Some(pair) = self.pairs.get_mut(at) {
                    pair.1 = value;
                }
            }
            None => {
                self.index.insert(hash, self.pairs.len());
                self.pairs.push((key, value));
                if self.pairs.len().is_power_of_two() {
                    self.held = Held::new(96 + self.pairs.len() * 256);
                }
            }
        }
        Ok(())
    }

    /// The value of a key; `None` if there is none.
    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.index
            .get(key)
            .and_then(|&at| self.pairs.get(at))
            .map(|pair| &pair.1)
    }

    /// The value of a text.
    pub fn get_str(&self, key: &Str) -> Option<&Value> {
        self.get(&Key::Str(key.clone()))
    }

    /// How deep it nests.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// All pairs.
    pub fn pairs(&self) -> &[(Value, Value)] {
        &self.pairs
    }

    /// Whether all of its keys are in `other`.
    pub fn within(&self, other: &Dict) -> bool {
        self.index.keys().all(|key| other.get(key).is_some())
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// A copy of it.
    ///
    /// # Errors
    /// If a limit is reached.
    pub fn copy(&self) -> Result<Dict> {
        let mut out = Dict::new();
        for (key, value) in &self.pairs {
            meter::spend(2)?;
            out.insert(key.clone(), value.clone())?;
        }
        Ok(out)
    }
}
