//! The safetensors header: parsed and checked whole before anything is built from it.
//!
//! A file is an 8-byte little-endian length, a UTF-8 JSON object of that length, and the data.
//! [`parse`] accepts what the format's reference implementation accepts, with four exceptions: a
//! repeated key is an error (the reference keeps one of the two in silence), the header must begin
//! with `{` as the specification says, a dim must fit MLX's `i32`, and elements must be whole bytes
//! of a dtype that [`Dtype`] names. As in the reference, unknown fields of a tensor's entry are
//! passed over and `"__metadata__": null` is none.
//!
//! Invariant: in a [`Header`], ranges lie inside the file, do not overlap, cover the data without
//! gaps, and each is as long as its dtype and shape ask. Memory used is bounded by the header's
//! real length, never by a number in it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::error::{HeaderError, cut};
use super::json::{UniqueMap, insert_new, value_of};

/// The longest header the format allows, in bytes.
pub const MAX_HEADER: u64 = 100_000_000;

/// The key whose value describes the file and not a tensor.
const METADATA: &str = "__metadata__";

/// Bytes of the length that opens a file.
const LENGTH: usize = 8;

macro_rules! dtypes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $size:literal;)*) => {
        /// The type of a tensor's elements, by the format's names.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Dtype { $($(#[$doc])* $variant,)* }

        impl Dtype {
            /// Every dtype, in the format's order of growing size.
            pub const ALL: &'static [Dtype] = &[$(Dtype::$variant,)*];

            /// The format's name, for example `BF16`.
            pub fn name(self) -> &'static str {
                match self { $(Dtype::$variant => $name,)* }
            }

            /// Bytes of one element.
            pub fn itemsize(self) -> usize {
                match self { $(Dtype::$variant => $size,)* }
            }

            /// The dtype of this name; none for other names, also for ones in lower case.
            pub fn from_name(name: &str) -> Option<Dtype> {
                match name { $($name => Some(Dtype::$variant),)* _ => None }
            }
        }
    };
}

dtypes! {
    /// One byte, 0 or 1.
    Bool = "BOOL", 1;
    /// Unsigned, 8 bits.
    U8 = "U8", 1;
    /// Signed, 8 bits.
    I8 = "I8", 1;
    /// Float of 8 bits, 4 of exponent.
    F8E4M3 = "F8_E4M3", 1;
    /// Float of 8 bits, 5 of exponent.
    F8E5M2 = "F8_E5M2", 1;
    /// A power of two in 8 bits.
    F8E8M0 = "F8_E8M0", 1;
    /// Unsigned, 16 bits.
    U16 = "U16", 2;
    /// Signed, 16 bits.
    I16 = "I16", 2;
    /// IEEE float of 16 bits.
    F16 = "F16", 2;
    /// The upper half of an `F32`.
    BF16 = "BF16", 2;
    /// Unsigned, 32 bits.
    U32 = "U32", 4;
    /// Signed, 32 bits.
    I32 = "I32", 4;
    /// IEEE float of 32 bits.
    F32 = "F32", 4;
    /// IEEE float of 64 bits.
    F64 = "F64", 8;
    /// Signed, 64 bits.
    I64 = "I64", 8;
    /// Unsigned, 64 bits.
    U64 = "U64", 8;
}

impl Dtype {
    /// All names, for a message.
    pub(super) fn names() -> String {
        Dtype::ALL
            .iter()
            .map(|d| d.name())
            .collect::<Vec<_>>()
            .join(", ")
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Type of the elements.
    pub dtype: Dtype,
    /// Dims, outermost first; empty for a scalar; each at most `i32::MAX`.
    pub shape: Vec<usize>,
    /// Where the elements lie in the file (not in its data part), row-major and little-endian. Its
    /// start need not be a multiple of the itemsize.
    pub range: Range<usize>,
}

/// A file's checked header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The tensors by name.
    pub tensors: BTreeMap<String, TensorInfo>,
    /// The free-form text pairs of `__metadata__`; `format` is `mlx` in files that MLX wrote.
    pub metadata: BTreeMap<String, String>,
}

/// A tensor's entry as the file has it.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The header's JSON, its keys unique.
struct Raw {
    tensors: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Raw, A::Error> {
                let mut tensors = BTreeMap::new();
                let mut metadata = BTreeMap::new();
                while let Some(key) = from.next_key::<String>()? {
                    if key == METADATA {
                        let pairs: Option<UniqueMap<String>> = value_of(&key, &mut from)?;
                        insert_new(&mut metadata, key, pairs)?;
                    } else {
                        let entry = value_of(&key, &mut from)?;
                        insert_new(&mut tensors, key, entry)?;
                    }
                }
                let metadata = metadata
                    .remove(METADATA)
                    .flatten()
                    .map(|UniqueMap(pairs)| pairs)
                    .unwrap_or_default();
                Ok(Raw { tensors, metadata })
            }
        }
        from.deserialize_map(Object)
    }
}

/// Parses and checks the header of `file`, the image of a whole safetensors file.
///
/// # Errors
/// [`HeaderError`] says what is wrong, with which tensor, and what was expected. Any bytes may be
/// given: none makes this panic or return a range outside `file`.
pub fn parse(file: &[u8]) -> Result<Header, HeaderError> {
    if file.starts_with(b"version https://git-lfs") {
        return Err(HeaderError::LfsPointer);
    }
    let Some((length, rest)) = file.split_first_chunk::<LENGTH>() else {
        return Err(HeaderError::TooShort { found: file.len() });
    };
    let claimed = u64::from_le_bytes(*length);
    if claimed > MAX_HEADER {
        return Err(HeaderError::HeaderTooLarge {
            claimed,
            limit: MAX_HEADER,
        });
    }
    let past_end = HeaderError::HeaderPastEnd {
        claimed,
        left: rest.len(),
    };
    let Some((json, data)) = usize::try_from(claimed)
        .ok()
        .and_then(|n| rest.split_at_checked(n))
    else {
        return Err(past_end);
    };
    let json = std::str::from_utf8(json).map_err(|e| HeaderError::NotUtf8 {
        at: e.valid_up_to(),
    })?;
    if !json.starts_with('{') {
        return Err(HeaderError::Json {
            problem: "expected it to begin with {".to_owned(),
        });
    }
    let raw: Raw = serde_json::from_str(json).map_err(|e| HeaderError::Json { problem: cut(e) })?;

    let data_at = LENGTH + json.len();
    let mut tensors = BTreeMap::new();
    for (name, entry) in raw.tensors {
        let info = check(&name, entry, data_at, data.len())?;
        tensors.insert(name, info);
    }
    check_layout(&tensors, data_at, file.len())?;
    Ok(Header {
        tensors,
        metadata: raw.metadata,
    })
}

/// One entry on its own: dtype, shape, and a range inside the data that is as long as they ask.
fn check(name: &str, entry: Entry, data_at: usize, data: usize) -> Result<TensorInfo, HeaderError> {
    let tensor = || name.to_owned();
    let Some(dtype) = Dtype::from_name(&entry.dtype) else {
        return Err(match entry.dtype.as_str() {
            "F4" | "F6_E2M3" | "F6_E3M2" | "U4" | "I4" => HeaderError::SubByteDtype {
                tensor: tensor(),
                dtype: entry.dtype,
            },
            _ => HeaderError::UnknownDtype {
                tensor: tensor(),
                dtype: entry.dtype,
            },
        });
    };

    let shape = entry
        .shape
        .into_iter()
        .map(|dim| match i32::try_from(dim) {
            Ok(_) => Ok(dim as usize),
            Err(_) => Err(HeaderError::DimTooLarge {
                tensor: tensor(),
                dim,
            }),
        })
        .collect::<Result<Vec<_>, _>>()?;
    // Zeros are left out of the product, so that a shape's strides cannot overflow either.
    let bytes = shape
        .iter()
        .filter(|&&dim| dim != 0)
        .try_fold(dtype.itemsize(), |n, &dim| n.checked_mul(dim));
    let expected = match bytes {
        Some(n) if isize::try_from(n).is_ok() => {
            if shape.contains(&0) {
                0
            } else {
                n
            }
        }
        _ => {
            return Err(HeaderError::TooLarge {
                tensor: tensor(),
                shape,
            });
        }
    };

    let (begin, end) = entry.data_offsets;
    if begin > end {
        return Err(HeaderError::Reversed {
            tensor: tensor(),
            begin,
            end,
        });
    }
    let (begin, end) = match (usize::try_from(begin), usize::try_from(end)) {
        (Ok(begin), Ok(end)) if end <= data => (begin, end),
        _ => {
            return Err(HeaderError::PastEnd {
                tensor: tensor(),
                end,
                data,
            });
        }
    };
    let found = end - begin;
    if found != expected {
        return Err(HeaderError::SizeMismatch {
            tensor: tensor(),
            dtype,
            shape,
            expected,
            found,
        });
    }
    Ok(TensorInfo {
        dtype,
        shape,
        range: data_at + begin..data_at + end,
    })
}

/// All entries together: in order of place, each begins where the one before ends, and the last
/// ends with the file.
fn check_layout(
    tensors: &BTreeMap<String, TensorInfo>,
    data_at: usize,
    file: usize,
) -> Result<(), HeaderError> {
    let mut placed: Vec<_> = tensors
        .iter()
        .map(|(name, info)| (info.range.start, info.range.end, name))
        .collect();
    placed.sort_unstable();
    let (mut reached, mut before) = (data_at, "");
    for (start, end, name) in placed {
        if start < reached {
            return Err(HeaderError::Overlap {
                first: before.to_owned(),
                second: name.clone(),
                at: start - data_at,
            });
        }
        if start > reached {
            return Err(HeaderError::Gap {
                from: reached - data_at,
                to: start - data_at,
            });
        }
        (reached, before) = (end, name);
    }
    if reached < file {
        return Err(HeaderError::Gap {
            from: reached - data_at,
            to: file - data_at,
        });
    }
    Ok(())
}

#[cfg(test)]
#[path = "safetensors_tests.rs"]
mod tests;
