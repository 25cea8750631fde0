//! x86-64's matrix unit (AMX): sixteen rows of `x` and a panel's group in one instruction.
//!
//! It sums up products of bytes in 32-bit integers, exactly, so what comes out are the bits that all other
//! ways give. Its registers belong to a thread: [`Tiles`] has them for as long as it lives.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::mem::MaybeUninit;

use crate::lanes::{Lanes, Unit};
use crate::tile::Groups;

/// The lanes that the unit's results are summed up in.
type Avx512 = crate::x86::Avx512<true>;

/// Rows of `x` that go through a panel at once.
const ROWS: usize = 16;

/// Whether the processor has the unit and the system lets this process use it.
#[cfg(target_os = "linux")]
pub(crate) fn is_here() -> bool {
    use std::sync::OnceLock;
    static GRANTED: OnceLock<bool> = OnceLock::new();
    *GRANTED.get_or_init(|| {
        // Leaf 7: tiles are bit 24 of EDX, products of bytes bit 25.
        const BOTH: u32 = 0b11 << 24;
        if __cpuid(0).eax < 7 || __cpuid_count(7, 0).edx & BOTH != BOTH {
            return false;
        }
        // arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA); older systems refuse.
        let refused: i64;
        // SAFETY: a system call that touches no memory of this process.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") 158i64 => refused,
                in("rdi") 0x1023,
                in("rsi") 18,
                out("rcx") _,
                out("r11") _,
                options(nostack),
            );
        }
        refused == 0
    })
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn is_here() -> bool {
    false
}

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start: u8,
    _reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

/// This thread's registers: 0 for sums, 1 and 3 for `x`, 2 and 4 for weights.
pub(crate) struct Tiles<const HERE: bool> {
    /// Registers that a group takes of `x`, and of weights: 2 for groups of 128.
    halves: usize,
}

// SAFETY of every block below: the trait's promise, that the processor has the unit, and AVX-512, and
// pointers are good for what is read and written.

impl<const HERE: bool> Unit for Tiles<HERE> {
    const ROWS: usize = if HERE { ROWS } else { 0 };

    unsafe fn new(group: usize) -> Self {
        let columns = group.min(64);
        let mut config = Config {
            palette: 1,
            start: 0,
            _reserved: [0; 14],
            bytes: [0; 16],
            rows: [0; 16],
        };
        for (register, bytes, rows) in [
            (0, 64, ROWS),
            (1, columns, ROWS),
            (2, 64, columns / 4),
            (3, columns, ROWS),
            (4, 64, columns / 4),
        ] {
            config.bytes[register] = bytes as u16;
            config.rows[register] = rows as u8;
        }
        // SAFETY: see above; the configuration is a valid one.
        unsafe {
            asm!(
                "ldtilecfg [{config}]",
                config = in(reg) &raw const config,
                options(nostack, readonly, preserves_flags),
            );
        }
        Tiles {
            halves: group.div_ceil(64),
        }
    }

    #[inline(always)]
    unsafe fn fast(
        &self,
        panel: *const u8,
        groups: Groups,
        x: *const u8,
        steps: *const f32,
        totals: *const f32,
        sums: *mut f32,
    ) {
        const N: usize = Avx512::N;
        let mut dots = [MaybeUninit::<Dots>::uninit(), MaybeUninit::uninit()];
        let columns = 4 * groups.quads;
        let w = |group: usize| panel.wrapping_add(group * columns * N);
        let x = |group: usize| x.wrapping_add(group * columns * ROWS);
        // SAFETY: see above.
        unsafe {
            let mut sum: [_; ROWS] = std::array::from_fn(|r| Avx512::load(sums.add(r * N)));
            self.dots(w(0), x(0), columns, dots[0].as_mut_ptr());
            for group in 0..groups.count {
                // The next group's products run beside this one's sums.
                let [even, odd] = &mut dots;
                let (now, next) = match group % 2 {
                    0 => (even, odd),
                    _ => (odd, even),
                };
                if group + 1 < groups.count {
                    self.dots(w(group + 1), x(group + 1), columns, next.as_mut_ptr());
                }
                let scale = Avx512::load(groups.scales.add(group * N));
                let bias = Avx512::load(groups.biases.add(group * N));
                let (steps, totals) = (steps.add(group * ROWS), totals.add(group * ROWS));
                for (r, sum) in sum.iter_mut().enumerate() {
                    let dot = Avx512::load_bytes(now.as_ptr().cast::<i32>().add(r * N).cast());
                    let step = Avx512::splat(*steps.add(r));
                    let total = Avx512::splat(*totals.add(r));
                    let dot = Avx512::to_float(dot);
                    *sum = Avx512::fma(dot, Avx512::mul(scale, step), *sum);
                    *sum = Avx512::fma(bias, total, *sum);
                }
            }
            for (r, sum) in sum.iter().enumerate() {
                Avx512::store(sums.add(r * N), *sum);
            }
        }
    }
}

impl<const HERE: bool> Tiles<HERE> {
    /// The products of a group, `[ROWS][N]`.
    ///
    /// # Safety
    /// As [`Unit::fast`].
    #[inline(always)]
    unsafe fn dots(&self, panel: *const u8, x: *const u8, stride: usize, to: *mut Dots) {
        // SAFETY: the registers' shapes are a group's; reads and writes are the caller's promise.
        unsafe {
            if self.halves == 1 {
                asm!(
                    "tilezero tmm0",
                    "tileloadd tmm1, [{x} + {stride}]",
                    "tileloadd tmm2, [{w} + {line}]",
                    "tdpbsud tmm0, tmm1, tmm2",
                    "tilestored [{to} + {line}], tmm0",
                    x = in(reg) x, stride = in(reg) stride, w = in(reg) panel,
                    line = in(reg) 64usize, to = in(reg) to,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _,
                    options(nostack, preserves_flags),
                );
            } else {
                asm!(
                    "tilezero tmm0",
                    "tileloadd tmm1, [{x} + {stride}]",
                    "tileloadd tmm2, [{w} + {line}]",
                    "tileloadd tmm3, [{x} + {stride} + 64]",
                    "tileloadd tmm4, [{w} + {line} + 1024]",
                    "tdpbsud tmm0, tmm1, tmm2",
                    "tdpbsud tmm0, tmm3, tmm4",
                    "tilestored [{to} + {line}], tmm0",
                    x = in(reg) x, stride = in(reg) stride, w = in(reg) panel,
                    line = in(reg) 64usize, to = in(reg) to,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _,
                    options(nostack, preserves_flags),
                );
            }
        }
    }
}

impl<const HERE: bool> Drop for Tiles<HERE> {
    fn drop(&mut self) {
        // SAFETY: whoever made it had the unit.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags)) };
    }
}

#[repr(C, align(64))]
struct Dots {
    _dots: [i32; ROWS * Avx512::N],
}
