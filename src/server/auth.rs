//! API keys.

use std::hint::black_box;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;

use super::error::ApiError;

/// The longest key, in bytes.
const LONGEST: usize = 512;

/// The keys that open this server; none lets everybody in.
#[derive(Clone, Default)]
pub struct Keys(Vec<Padded>);

/// A key, and zeros up to the longest length.
#[derive(Clone)]
struct Padded {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Padded {
    fn new(key: &[u8]) -> Self {
        let mut bytes = [0; LONGEST];
        for (to, from) in bytes.iter_mut().zip(key) {
            *to = *from;
        }
        let length = key.len();
        Self { bytes, length }
    }

    /// Whether two keys are the same, in a time that depends on neither: every byte is looked at.
    fn same(&self, other: &Self) -> bool {
        let lengths = (self.length ^ other.length).to_le_bytes();
        let pairs = self.bytes.iter().zip(&other.bytes);
        all_zero(lengths.into_iter().chain(pairs.map(|(a, b)| a ^ b)))
    }
}

/// Whether all of these are 0; takes each of them whatever came before it.
fn all_zero(differences: impl Iterator<Item = u8>) -> bool {
    let whole = differences.fold(0, |whole, difference| black_box(whole | difference));
    whole == 0
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Keys are secret, their number is not.
        write!(f, "Keys({})", self.0.len())
    }
}

impl Keys {
    /// Takes the keys.
    ///
    /// # Errors
    /// A key that is empty, too long, or cannot stand in a header; the text does not repeat it.
    pub fn new(keys: Vec<String>) -> Result<Self, String> {
        for key in &keys {
            let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
            if key.is_empty() || key.len() > LONGEST || !visible {
                return Err(format!(
                    "an API key has {} bytes, expected 1 to {LONGEST} printable ASCII characters without spaces",
                    key.len()
                ));
            }
        }
        let padded = keys.iter().map(|key| Padded::new(key.as_bytes()));
        Ok(Self(padded.collect()))
    }

    /// Whether everybody is let in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets a request in that has one of the keys, as `Authorization: Bearer KEY` or `x-api-key`.
    ///
    /// # Errors
    /// 401 otherwise.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.is_empty() {
            return Ok(());
        }
        let bearer = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
        let bearer = bearer.and_then(|value| {
            let (scheme, key) = value.split_at_checked(7)?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
        });
        let own = headers.get("x-api-key").map(|value| value.as_bytes());
        let mut known = false;
        for given in bearer.into_iter().chain(own) {
            let given = Padded::new(given);
            for key in &self.0 {
                known |= given.same(key);
            }
        }
        match known {
            true => Ok(()),
            false => Err(ApiError::unauthorized()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn only_the_keys_themselves_open() {
        let keys = Keys::new(vec!["sk-one".into(), "sk-two".into()]).unwrap();
        for (name, value) in [
            ("authorization", "Bearer sk-one"),
            ("authorization", "bearer sk-two"),
            ("x-api-key", "sk-two"),
        ] {
            assert!(keys.check(&headers(name, value)).is_ok(), "{value}");
        }
        let long = "a".repeat(LONGEST + 1);
        for (name, value) in [
            ("authorization", "sk-one"),
            ("authorization", "Basic sk-one"),
            ("authorization", "Bearer"),
            ("authorization", "Bearer "),
            ("x-api-key", ""),
            ("x-api-key", "sk-on"),
            ("x-api-key", "sk-onee"),
            ("x-api-key", "sk-one\u{e9}"),
            ("x-api-key", "SK-ONE"),
            ("x-api-key", &long),
        ] {
            assert!(keys.check(&headers(name, value)).is_err(), "{value}");
        }
        assert!(keys.check(&HeaderMap::new()).is_err());
        assert!(Keys::default().check(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn keys_that_no_header_can_hold_are_refused_and_none_is_shown() {
        for key in ["", "two words", "é", &"a".repeat(LONGEST + 1)] {
            let error = Keys::new(vec![key.into()]).unwrap_err();
            assert!(key.len() < 3 || !error.contains(key));
        }
        let keys = Keys::new(vec!["secret".into()]).unwrap();
        assert_eq!(format!("{keys:?}"), "Keys(1)");
    }

    /// Where two keys differ must not show in the time: each byte is looked at, whatever the others are.
    #[test]
    fn comparing_looks_at_every_byte_wherever_keys_differ() {
        for place in [None, Some(0), Some(LONGEST / 2), Some(LONGEST - 1)] {
            let mut looked = 0;
            let differences = (0..LONGEST).map(|at| {
                looked += 1;
                u8::from(Some(at) == place)
            });
            assert_eq!(all_zero(differences), place.is_none());
            assert_eq!(looked, LONGEST);
        }
        let key = Padded::new(&[b'k'; LONGEST]);
        for place in 0..LONGEST {
            let mut other = key.clone();
            other.bytes[place] = b'x';
            assert!(!key.same(&other) && !other.same(&key), "{place}");
        }
        // Zeros at the end are no padding of a shorter key's.
        assert!(!Padded::new(b"k").same(&Padded::new(b"k\0")));
        assert!(key.same(&key.clone()));
    }
}
