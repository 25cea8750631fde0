//! JSON objects whose keys must be unique: the plain map types keep the last of two values in
//! silence.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use super::error::shown;

/// A JSON object in key order; a repeated key is an error that names it, and so is a bad value.
#[derive(Debug)]
pub(super) struct UniqueMap<V>(pub BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Object<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Object<V> {
            type Value = UniqueMap<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
                let mut map = BTreeMap::new();
                while let Some(key) = from.next_key::<String>()? {
                    let value = value_of(&key, &mut from)?;
                    insert_new(&mut map, key, value)?;
                }
                Ok(UniqueMap(map))
            }
        }
        from.deserialize_map(Object(PhantomData))
    }
}

/// The next value, with `key` in the error.
pub(super) fn value_of<'de, V: Deserialize<'de>, A: MapAccess<'de>>(
    key: &str,
    from: &mut A,
) -> Result<V, A::Error> {
    from.next_value()
        .map_err(|e| A::Error::custom(format_args!("{}: {e}", shown(key))))
}

/// Puts a pair into `map`, or says that the key was there.
pub(super) fn insert_new<V, E: Error>(
    map: &mut BTreeMap<String, V>,
    key: String,
    value: V,
) -> Result<(), E> {
    match map.entry(key) {
        std::collections::btree_map::Entry::Vacant(place) => {
            place.insert(value);
            Ok(())
        }
        std::collections::btree_map::Entry::Occupied(place) => Err(E::custom(format_args!(
            "duplicate key {}",
            shown(place.key())
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_pairs_and_refuses_repeats() {
        let UniqueMap(map) = serde_json::from_str::<UniqueMap<u8>>(r#"{"b": 2, "a": 1}"#).unwrap();
        assert_eq!(
            map.into_iter().collect::<Vec<_>>(),
            [("a".to_owned(), 1), ("b".to_owned(), 2)]
        );

        let error = serde_json::from_str::<UniqueMap<u8>>(r#"{"a": 1, "\u0061": 1}"#)
            .unwrap_err()
            .to_string();
        assert!(error.contains("duplicate key \"a\""), "{error}");

        let error = serde_json::from_str::<UniqueMap<u8>>(r#"{"a": 1, "b": -1}"#)
            .unwrap_err()
            .to_string();
        assert!(error.contains("\"b\": invalid value"), "{error}");
    }
}
