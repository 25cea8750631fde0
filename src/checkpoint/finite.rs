//! Looking for numbers that are none: NaN and infinity in stored tensors, read as they lie in the
//! file.

use super::index::Tensor;
use super::safetensors::Dtype;

/// What was found in a tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NonFinite {
    /// Elements that are not a number.
    pub nan: u64,
    /// Elements that are infinite.
    pub infinite: u64,
}

/// What 8-bit scales of packed matrices stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteScales {
    /// Powers of two (mxfp4, mxfp8).
    PowerOfTwo,
    /// Floats of four bits of exponent (nvfp4).
    E4m3,
}

impl NonFinite {
    /// Whether nothing was found.
    pub fn is_none(self) -> bool {
        self == NonFinite::default()
    }

    /// Reads every element of a tensor of floats. `scales` says what a tensor of bytes holds; other
    /// tensors have no such numbers.
    pub fn of(tensor: &Tensor, scales: Option<ByteScales>) -> NonFinite {
        let bytes = tensor.bytes;
        let half = |word: &[u8]| match word {
            &[low, high] => u64::from(u16::from_le_bytes([low, high])),
            _ => 0,
        };
        let single = |word: &[u8]| match word {
            &[a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
            _ => 0,
        };
        let double = |word: &[u8]| word.try_into().map_or(0, u64::from_le_bytes);
        match (tensor.dtype, scales) {
            (Dtype::F16, _) => count(bytes.chunks_exact(2).map(half), 0x7C00, 0x03FF),
            (Dtype::BF16, _) => count(bytes.chunks_exact(2).map(half), 0x7F80, 0x007F),
            (Dtype::F32, _) => count(bytes.chunks_exact(4).map(single), 0x7F80_0000, 0x007F_FFFF),
            (Dtype::F64, _) => count(
                bytes.chunks_exact(8).map(double),
                0x7FF << 52,
                (1 << 52) - 1,
            ),
            (Dtype::F8E5M2, _) => count(bytes.iter().map(|b| (*b).into()), 0x7C, 0x03),
            // These have no infinity, and one NaN (of either sign).
            (Dtype::F8E4M3, _) | (Dtype::U8, Some(ByteScales::E4m3)) => {
                nan_only(bytes, |byte| byte & 0x7F == 0x7F)
            }
            (Dtype::F8E8M0, _) | (Dtype::U8, Some(ByteScales::PowerOfTwo)) => {
                nan_only(bytes, |byte| byte == 0xFF)
            }
            _ => NonFinite::default(),
        }
    }
}

/// Numbers whose exponent is all ones: infinite without a mantissa, else none.
fn count(words: impl Iterator<Item = u64>, exponent: u64, mantissa: u64) -> NonFinite {
    let mut found = NonFinite::default();
    for word in words.filter(|word| word & exponent == exponent) {
        match word & mantissa {
            0 => found.infinite += 1,
            _ => found.nan += 1,
        }
    }
    found
}

fn nan_only(bytes: &[u8], is_nan: impl Fn(u8) -> bool) -> NonFinite {
    NonFinite {
        nan: bytes.iter().filter(|byte| is_nan(**byte)).count() as u64,
        infinite: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(dtype: Dtype, bytes: &[u8], scales: Option<ByteScales>) -> (u64, u64) {
        let shape = [bytes.len() / dtype.itemsize()];
        let tensor = Tensor {
            name: "x",
            dtype,
            shape: &shape,
            bytes,
        };
        let found = NonFinite::of(&tensor, scales);
        (found.nan, found.infinite)
    }

    #[test]
    fn each_type_has_its_own_codes() {
        let floats = [
            1.0,
            f32::NAN,
            -f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MAX,
        ];
        let bytes = |n: usize| -> Vec<u8> {
            // The upper half of a float32 is a bfloat16; its largest is still finite.
            let words = floats.iter().map(|x| x.to_le_bytes());
            words.flat_map(|word| word[4 - n..].to_vec()).collect()
        };
        assert_eq!(found(Dtype::F32, &bytes(4), None), (2, 2));
        assert_eq!(found(Dtype::BF16, &bytes(2), None), (2, 2));
        let doubles: Vec<u8> = floats
            .iter()
            .flat_map(|x| f64::from(*x).to_le_bytes())
            .collect();
        assert_eq!(found(Dtype::F64, &doubles, None), (2, 2));
        let halves = [0x7BFFu16, 0x7C00, 0xFC00, 0x7E00, 0xFFFF, 0];
        let halves: Vec<u8> = halves.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(found(Dtype::F16, &halves, None), (2, 2));
        let bytes = [0x7F, 0xFF, 0x7E, 0x7C, 0xFC, 0];
        assert_eq!(found(Dtype::F8E4M3, &bytes, None), (2, 0));
        assert_eq!(found(Dtype::F8E5M2, &bytes, None), (3, 2));
        assert_eq!(found(Dtype::F8E8M0, &bytes, None), (1, 0));
    }

    #[test]
    fn bytes_are_numbers_only_as_scales() {
        let bytes = [0x7F, 0xFF, 0x00];
        assert_eq!(found(Dtype::U8, &bytes, None), (0, 0));
        assert_eq!(found(Dtype::U8, &bytes, Some(ByteScales::E4m3)), (2, 0));
        assert_eq!(
            found(Dtype::U8, &bytes, Some(ByteScales::PowerOfTwo)),
            (1, 0)
        );
        assert_eq!(found(Dtype::U32, &[0xFF; 8], None), (0, 0));
    }
}
