//! What the kernels take: slices of floats in three types, and packed matrices.
//!
//! 16-bit floats travel as their bits. Conversions round to nearest, ties to even.

use std::fmt;

use crate::lanes::{Spread, Walk};

/// Floats to read.
#[derive(Clone, Copy, Debug)]
pub enum Floats<'a> {
    /// IEEE single.
    F32(&'a [f32]),
    /// IEEE half, as bits.
    F16(&'a [u16]),
    /// bfloat16, as bits.
    BF16(&'a [u16]),
}

/// Scales or biases of a packed matrix: floats like any other.
pub type Scales<'a> = Floats<'a>;

/// Floats to write.
#[derive(Debug)]
pub enum FloatsMut<'a> {
    /// IEEE single.
    F32(&'a mut [f32]),
    /// IEEE half, as bits.
    F16(&'a mut [u16]),
    /// bfloat16, as bits.
    BF16(&'a mut [u16]),
}

impl Floats<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Floats::F32(values) => values.len(),
            Floats::F16(bits) | Floats::BF16(bits) => bits.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those from `from` on, as many as fit.
    ///
    /// # Panics
    /// If there are fewer.
    #[inline(always)]
    pub(crate) fn read(&self, from: usize, to: &mut [f32]) {
        match self {
            Floats::F32(x) => to.copy_from_slice(&x[from..from + to.len()]),
            Floats::F16(x) => {
                for (to, bits) in to.iter_mut().zip(&x[from..]) {
                    *to = from_f16(*bits);
                }
            }
            Floats::BF16(x) => {
                for (to, bits) in to.iter_mut().zip(&x[from..]) {
                    *to = from_bf16(*bits);
                }
            }
        }
    }

    /// As [`Floats::read`], where they lie if they are read as they are.
    ///
    /// # Panics
    /// If there are fewer.
    #[inline(always)]
    pub(crate) fn part<'a>(&'a self, from: usize, room: &'a mut [f32]) -> &'a [f32] {
        match self {
            Floats::F32(x) => &x[from..from + room.len()],
            _ => {
                self.read(from, room);
                room
            }
        }
    }

    /// The bytes that `n` of them take.
    pub(crate) fn bytes(&self, n: usize) -> usize {
        match self {
            Floats::F32(_) => 4 * n,
            _ => 2 * n,
        }
    }

    /// Where they lie.
    pub(crate) fn base(&self) -> *const u8 {
        match self {
            Floats::F32(values) => values.as_ptr().cast(),
            Floats::F16(bits) | Floats::BF16(bits) => bits.as_ptr().cast(),
        }
    }

    /// The rows from `block` on, of `cols` each, `rows` in all.
    pub(crate) fn walk(&self, cols: usize, block: Spread, rows: usize) -> Walk {
        Walk::new(self.base(), self.bytes(cols), block, rows)
    }

    /// The number at `i`.
    ///
    /// # Panics
    /// If there is none.
    pub fn get(&self, i: usize) -> f32 {
        match self {
            Floats::F32(values) => values[i],
            Floats::F16(bits) => from_f16(bits[i]),
            Floats::BF16(bits) => from_bf16(bits[i]),
        }
    }
}

impl FloatsMut<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            FloatsMut::F32(values) => values.len(),
            FloatsMut::F16(bits) | FloatsMut::BF16(bits) => bits.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the number at `i`, rounded to the type.
    ///
    /// # Panics
    /// If there is none.
    pub fn set(&mut self, i: usize, value: f32) {
        match self {
            FloatsMut::F32(values) => values[i] = value,
            FloatsMut::F16(bits) => bits[i] = to_f16(value),
            FloatsMut::BF16(bits) => bits[i] = to_bf16(value),
        }
    }
}

/// How a product with packed weights is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// `x` stays in `f32`.
    #[default]
    Exact = 0,
    /// `x` is rounded to 8 bits in groups of the weights' size: products in integers, several times
    /// as many a cycle. Costs about 1e-2 of the result, like llama.cpp's Q8_0 activations.
    Fast = 1,
}

/// A matrix in MLX's affine form: `w = scale * code + bias` in groups along a row.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    /// `[rows, cols * bits / 32]`; a row is a stream of `bits`-wide codes from the lowest bit up.
    pub codes: &'a [u32],
    /// `[rows, cols / group_size]`.
    pub scales: Scales<'a>,
    /// `[rows, cols / group_size]`.
    pub biases: Scales<'a>,
    /// Rows: outputs of a product, `n`.
    pub rows: usize,
    /// Columns: inputs of a product, `k`.
    pub cols: usize,
    /// Bits a code takes, 2 to 8.
    pub bits: u8,
    /// Weights that share a scale and a bias: 32, 64 or 128.
    pub group_size: usize,
    /// How words, scales and biases lie.
    pub order: Order,
}

/// How the words, the scales and the biases of a matrix lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Row after row.
    Rows,
    /// Of [`Order::TALL`] rows the first of each, then the second of each: `[rows / 16, .., 16]`. So the
    /// kernels read them without turning anything. Rows that are no whole block come last, row after row.
    Blocks,
}

impl Order {
    /// Rows of a block.
    pub const TALL: usize = 16;

    /// The one in which the kernels take weights of `bits` bits fastest: blocks where bytes hold whole codes.
    pub fn best(bits: u8) -> Self {
        match bits {
            2 | 4 | 8 => Order::Blocks,
            _ => Order::Rows,
        }
    }

    /// Of `rows` rows, how many are in blocks.
    pub(crate) fn in_blocks(self, rows: usize) -> usize {
        match self {
            Order::Rows => 0,
            Order::Blocks => rows - rows % Self::TALL,
        }
    }
}

/// Why a matrix cannot be computed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch(String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mismatch {}

impl Packed<'_> {
    /// Whether the parts agree with each other.
    ///
    /// # Errors
    /// If bits or group size are none that exist, or a part's length is not what they ask for.
    pub fn check(&self) -> Result<(), Mismatch> {
        let refuse = |what: String| Err(Mismatch(what));
        if !(2..=8).contains(&self.bits) {
            return refuse(format!("{} bits a weight; known are 2 to 8", self.bits));
        }
        if !matches!(self.group_size, 32 | 64 | 128) {
            return refuse(format!(
                "groups of {}; known are 32, 64 and 128",
                self.group_size
            ));
        }
        if !self.cols.is_multiple_of(self.group_size) {
            return refuse(format!(
                "{} columns are no whole number of groups of {}",
                self.cols, self.group_size
            ));
        }
        if self.order == Order::Blocks && Order::best(self.bits) != Order::Blocks {
            return refuse(format!(
                "blocks of {} bits a weight; known are 2, 4 and 8",
                self.bits
            ));
        }
        let (groups, words) = (self.groups(), self.words());
        for (part, found, a_row) in [
            ("codes", self.codes.len(), words),
            ("scales", self.scales.len(), groups),
            ("biases", self.biases.len(), groups),
        ] {
            if self.rows.checked_mul(a_row) != Some(found) {
                return refuse(format!(
                    "{found} {part} for {} rows of {a_row} each",
                    self.rows
                ));
            }
        }
        Ok(())
    }

    /// Groups in a row.
    pub(crate) fn groups(&self) -> usize {
        self.cols / self.group_size
    }

    /// Words in a row.
    pub(crate) fn words(&self) -> usize {
        self.cols / 32 * usize::from(self.bits)
    }

    /// Where the `i`th of `width` things of row `row` is.
    pub(crate) fn place(&self, row: usize, i: usize, width: usize) -> usize {
        match row < self.order.in_blocks(self.rows) {
            true => (row / Order::TALL * width + i) * Order::TALL + row % Order::TALL,
            false => row * width + i,
        }
    }

    /// The code of column `col` of row `row`.
    pub(crate) fn code(&self, row: usize, col: usize) -> u32 {
        let (bits, at) = (usize::from(self.bits), col * usize::from(self.bits));
        let (word, shift) = (at / 32, at % 32);
        let word_at = |i| self.codes[self.place(row, i, self.words())];
        let mut code = word_at(word) >> shift;
        if shift + bits > 32 {
            code |= word_at(word + 1) << (32 - shift);
        }
        code & ((1 << bits) - 1)
    }
}

/// The number that bits of a bfloat16 stand for.
#[inline(always)]
pub(crate) fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// A number rounded to bfloat16.
#[inline(always)]
pub(crate) fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    // Cannot overflow: the largest bits that are no NaN are infinity's.
    let rounded = bits + 0x7fff + (bits >> 16 & 1);
    (rounded >> 16) as u16
}

/// The number that bits of a half stand for.
#[inline(always)]
pub(crate) fn from_f16(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff);
    if magnitude >= 0x7c00 {
        return f32::from_bits(sign | 0x7f80_0000 | (magnitude & 0x3ff) << 13);
    }
    // Scaling by 2^112 moves the exponent's bias and makes subnormals normal; it is exact.
    let scaled = f32::from_bits(magnitude << 13) * f32::from_bits(0x7780_0000);
    f32::from_bits(sign | scaled.to_bits())
}

/// A number rounded to half.
#[inline(always)]
pub(crate) fn to_f16(value: f32) -> u16 {
    let sign = (value.to_bits() >> 16) as u16 & 0x8000;
    let magnitude = value.abs();
    if magnitude.is_nan() {
        return sign | 0x7e00;
    }
    // 65520 is half a step above the largest half.
    if magnitude >= 65520.0 {
        return sign | 0x7c00;
    }
    // Below 2^-14 halves are multiples of 2^-24, which the addition rounds to.
    if magnitude < f32::from_bits(0x3880_0000) {
        return sign | ((magnitude + 0.5).to_bits() - 0.5f32.to_bits()) as u16;
    }
    let bits = magnitude.to_bits();
    let rounded = bits + 0xfff + (bits >> 13 & 1);
    sign | ((rounded >> 13) - (112 << 10)) as u16
}
