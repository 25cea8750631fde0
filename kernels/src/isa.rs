//! Which instructions are used: found out once, or said.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::attention::{self, Job};
use crate::lanes::{Lanes, Portable, Unit};
use crate::product::{self, Product};
use crate::simple::{self, Gate, Norm};

/// A set of instructions that there are kernels for. All give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// None in particular.
    Portable = 1,
    /// x86-64: AVX2, FMA, F16C, BMI2.
    Avx2 = 2,
    /// The same with AVX-VNNI.
    Avx2Vnni = 3,
    /// x86-64: AVX-512 F, BW, VL and VNNI, BMI2.
    Avx512 = 4,
    /// The same with AMX for bytes.
    Amx = 6,
    /// AArch64: Advanced SIMD.
    Neon = 5,
}

impl Isa {
    /// All there are, the fastest last.
    pub const ALL: [Isa; 6] = [
        Isa::Portable,
        Isa::Neon,
        Isa::Avx2,
        Isa::Avx2Vnni,
        Isa::Avx512,
        Isa::Amx,
    ];

    /// Whether this processor has it.
    pub fn is_here(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
                    && is_x86_feature_detected!("bmi2")
            }
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            Isa::Avx2Vnni => Isa::Avx2.is_here() && is_x86_feature_detected!("avxvnni"),
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            Isa::Avx512 => {
                Isa::Avx2.is_here()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            Isa::Amx => {
                Isa::Avx512.is_here() && is_x86_feature_detected!("gfni") && crate::amx::is_here()
            }
            #[cfg(all(target_arch = "aarch64", not(miri)))]
            Isa::Neon => true,
            _ => false,
        }
    }

    /// The one in use: what [`Isa::force`] said, or the fastest that is here.
    pub fn current() -> Isa {
        let known = |number: u8| Isa::ALL.into_iter().find(|isa| *isa as u8 == number);
        known(CURRENT.load(Ordering::Relaxed)).unwrap_or_else(|| {
            let here = |isa: &Isa| isa.is_here();
            let best = Isa::ALL.into_iter().rfind(here).unwrap_or(Isa::Portable);
            CURRENT.store(best as u8, Ordering::Relaxed);
            best
        })
    }

    /// Makes it the one in use, if it is here; whether it is.
    pub fn force(self) -> bool {
        let here = self.is_here();
        if here {
            CURRENT.store(self as u8, Ordering::Relaxed);
        }
        here
    }

    /// The kernels made of it.
    pub(crate) fn kernels(self) -> &'static Kernels {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &avx2::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2Vnni => &avx2_vnni::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => &avx512::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => &amx::KERNELS,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => &neon::KERNELS,
            _ => &portable::KERNELS,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "AVX2",
            Isa::Avx2Vnni => "AVX2 with VNNI",
            Isa::Avx512 => "AVX-512 with VNNI",
            Isa::Amx => "AVX-512 with VNNI and AMX",
            Isa::Neon => "NEON",
        })
    }
}

static CURRENT: AtomicU8 = AtomicU8::new(0);

/// Functions compiled for one set of instructions.
///
/// # Safety
/// Of all of them: [`Isa::is_here`], and what [`product`] asks for.
pub(crate) struct Kernels {
    /// Lanes of a vector: rows of weights in a block.
    pub(crate) lanes: usize,
    /// Rows of `x` in a tile.
    pub(crate) tile: usize,
    /// Rows of `x` that the lanes' unit takes; 0 if they have none.
    pub(crate) unit: usize,
    /// [`product::ready`].
    pub(crate) ready: unsafe fn(&Product, Range<usize>),
    /// [`product::blocks`].
    pub(crate) blocks: unsafe fn(&Product, Range<usize>),
    /// [`attention::units`].
    pub(crate) attend: unsafe fn(&Job, Range<usize>),
    /// [`simple::norm`].
    pub(crate) norm: unsafe fn(&Norm, Range<usize>),
    /// [`simple::gate`].
    pub(crate) gate: unsafe fn(&Gate, Range<usize>),
}

macro_rules! kernels {
    ($module:ident, $lanes:ty $(, $features:literal)?) => {
        mod $module {
            use super::*;

            pub(super) static KERNELS: Kernels = Kernels {
                lanes: <$lanes>::N,
                tile: <$lanes>::TILE,
                unit: <$lanes as Lanes>::Unit::ROWS,
                ready,
                blocks,
                attend,
                norm,
                gate,
            };

            $(#[target_feature(enable = $features)])?
            unsafe fn ready(product: &Product, slices: Range<usize>) {
                // SAFETY: passed on; this function is compiled for what the lanes need.
                unsafe { product::ready(product, slices) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn blocks(product: &Product, blocks: Range<usize>) {
                // SAFETY: passed on; this function is compiled for what the lanes need.
                unsafe { product::blocks::<$lanes>(product, blocks) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn attend(job: &Job, units: Range<usize>) {
                // SAFETY: passed on; this function is compiled for what the lanes need.
                unsafe { attention::units::<$lanes>(job, units) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn norm(job: &Norm, rows: Range<usize>) {
                // SAFETY: passed on.
                unsafe { simple::norm(job, rows) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn gate(job: &Gate, pieces: Range<usize>) {
                // SAFETY: passed on.
                unsafe { simple::gate(job, pieces) }
            }
        }
    };
}

kernels!(portable, Portable);
#[cfg(target_arch = "x86_64")]
kernels!(avx2, crate::x86::Avx2<false>, "avx2,fma,f16c,bmi2");
#[cfg(target_arch = "x86_64")]
kernels!(
    avx2_vnni,
    crate::x86::Avx2<true>,
    "avx2,fma,f16c,bmi2,avxvnni"
);
#[cfg(target_arch = "x86_64")]
kernels!(
    avx512,
    crate::x86::Avx512<false>,
    "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512vl,avx512vnni"
);
#[cfg(target_arch = "x86_64")]
kernels!(
    amx,
    crate::x86::Avx512<true>,
    "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512vl,avx512vnni,gfni"
);
#[cfg(target_arch = "aarch64")]
kernels!(neon, crate::neon::Neon, "neon");
