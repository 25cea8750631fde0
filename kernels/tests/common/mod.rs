//! What the kernels' tests share: numbers that look random in every type, and whose turn it is.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pensieve_kernels::{Floats, FloatsMut, Isa};

/// The instructions in use belong to the process: one test at a time changes them.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sets of instructions of this machine; the others are named.
pub fn here() -> Vec<Isa> {
    let (here, missing): (Vec<Isa>, Vec<Isa>) = Isa::ALL.iter().partition(|isa| isa.is_here());
    for isa in missing {
        println!("skipped: this processor has no {isa}");
    }
    here
}

/// Numbers that look random, the same in every run.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// In `[-1, 1)`, with few enough bits to be exact in every type.
    pub fn float(&mut self) -> f32 {
        (self.next() % 256) as f32 / 128.0 - 1.0
    }

    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    F32,
    F16,
    BF16,
}

pub const KINDS: [Kind; 3] = [Kind::F32, Kind::F16, Kind::BF16];

/// Floats in one of the types.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    pub kind: Kind,
    pub floats: Vec<f32>,
    pub bits: Vec<u16>,
}

pub fn f16(value: f32) -> u16 {
    // Exact for what the dice give: a sign, and 8 bits below 1.
    if value == 0.0 {
        return 0;
    }
    let bits = value.to_bits();
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    (bits >> 16 & 0x8000) as u16 | (exponent << 10) as u16 | (bits >> 13 & 0x3ff) as u16
}

pub fn number(kind: Kind, bits: u16) -> f64 {
    match kind {
        Kind::F32 => unreachable!(),
        Kind::BF16 => f64::from(f32::from_bits(u32::from(bits) << 16)),
        Kind::F16 => {
            let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
            let size = match exponent {
                0 => fraction * 2f64.powi(-24),
                31 if fraction > 0.0 => f64::NAN,
                31 => f64::INFINITY,
                _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
            };
            if bits & 0x8000 == 0 { size } else { -size }
        }
    }
}

impl Numbers {
    pub fn new(kind: Kind, floats: Vec<f32>) -> Numbers {
        let bits = match kind {
            Kind::F32 => Vec::new(),
            Kind::F16 => floats.iter().map(|v| f16(*v)).collect(),
            Kind::BF16 => floats.iter().map(|v| (v.to_bits() >> 16) as u16).collect(),
        };
        Numbers { kind, floats, bits }
    }

    pub fn room(kind: Kind, n: usize) -> Numbers {
        Numbers {
            kind,
            floats: vec![9.0; n],
            bits: vec![7; n],
        }
    }

    pub fn slice(&self) -> Floats<'_> {
        match self.kind {
            Kind::F32 => Floats::F32(&self.floats),
            Kind::F16 => Floats::F16(&self.bits),
            Kind::BF16 => Floats::BF16(&self.bits),
        }
    }

    pub fn slice_mut(&mut self) -> FloatsMut<'_> {
        match self.kind {
            Kind::F32 => FloatsMut::F32(&mut self.floats),
            Kind::F16 => FloatsMut::F16(&mut self.bits),
            Kind::BF16 => FloatsMut::BF16(&mut self.bits),
        }
    }

    pub fn at(&self, i: usize) -> f64 {
        match self.kind {
            Kind::F32 => f64::from(self.floats[i]),
            kind => number(kind, self.bits[i]),
        }
    }

    /// One part in so many that a number of this type may be off by.
    pub fn rounding(&self) -> f64 {
        match self.kind {
            Kind::F32 => 0.0,
            Kind::F16 => 2f64.powi(-11),
            Kind::BF16 => 2f64.powi(-8),
        }
    }
}

pub fn same(a: &Numbers, b: &Numbers) -> bool {
    let bits = |some: &Numbers| {
        some.floats
            .iter()
            .map(|v| v.to_bits())
            .collect::<Vec<u32>>()
    };
    bits(a) == bits(b) && a.bits == b.bits
}
