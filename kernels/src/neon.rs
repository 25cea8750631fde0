//! AArch64: Advanced SIMD, which every such processor has.

use std::arch::aarch64::*;

use crate::lanes::{Lanes, Rows, padded};

/// 4 lanes.
#[derive(Clone, Copy)]
pub(crate) struct Neon;

// SAFETY of every block below: the trait's promise, that pointers are good for what is read and
// written.

impl Lanes for Neon {
    const N: usize = 4;
    const TILE: usize = 12;
    const SPLITS: bool = true;
    type F = float32x4_t;
    type I = uint32x4_t;
    type Square = [uint32x4_t; 4];
    type Unit = ();

    #[inline(always)]
    unsafe fn splat(value: f32) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vdupq_n_f32(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: float32x4_t) {
        // SAFETY: see above.
        unsafe { vst1q_f32(to, value) }
    }
    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    unsafe fn zero() -> uint32x4_t {
        // SAFETY: see above.
        unsafe { vdupq_n_u32(0) }
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> uint32x4_t {
        // SAFETY: see above.
        unsafe { vreinterpretq_u32_u8(vld1q_u8(from)) }
    }
    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, value: uint32x4_t) {
        // SAFETY: see above.
        unsafe { vst1q_u8(to, vreinterpretq_u8_u32(value)) }
    }
    #[inline(always)]
    unsafe fn field<const BY: u32>(value: uint32x4_t, mask: u32) -> uint32x4_t {
        // SAFETY: see above. A negative count shifts right, and may be 0.
        unsafe {
            vandq_u32(
                vshlq_u32(value, vdupq_n_s32(-(BY as i32))),
                vdupq_n_u32(mask),
            )
        }
    }
    #[inline(always)]
    unsafe fn to_float(value: uint32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vcvtq_f32_s32(vreinterpretq_s32_u32(value)) }
    }
    #[inline(always)]
    unsafe fn words(x: i32) -> uint32x4_t {
        // SAFETY: see above.
        unsafe { vdupq_n_u32(x as u32) }
    }
    #[inline(always)]
    unsafe fn dot<const WIDE: bool>(sum: uint32x4_t, w: uint32x4_t, x: uint32x4_t) -> uint32x4_t {
        // SAFETY: see above. Products are within 128 * 127, two of them within 16 bits and a sign.
        unsafe {
            let quad = vreinterpretq_s8_u32(x);
            let (mut sum, mut w) = (vreinterpretq_s32_u32(sum), vreinterpretq_s8_u32(w));
            if WIDE {
                // w = (w - 128) + 128.
                w = veorq_s8(w, vdupq_n_s8(-128));
                let total = vpaddlq_s16(vpaddlq_s8(quad));
                sum = vaddq_s32(sum, vshlq_n_s32::<7>(total));
            }
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(quad)));
            let high = vpaddlq_s16(vmull_high_s8(w, quad));
            vreinterpretq_u32_s32(vaddq_s32(sum, vpaddq_s32(low, high)))
        }
    }
    #[inline(always)]
    unsafe fn plus(a: uint32x4_t, b: uint32x4_t) -> uint32x4_t {
        // SAFETY: see above.
        unsafe { vaddq_u32(a, b) }
    }
    #[inline(always)]
    unsafe fn as_f32(value: uint32x4_t) -> float32x4_t {
        // SAFETY: see above.
        unsafe { vreinterpretq_f32_u32(value) }
    }
    #[inline(always)]
    unsafe fn bf16_pair(value: uint32x4_t) -> (float32x4_t, float32x4_t) {
        // SAFETY: see above.
        unsafe {
            (
                vreinterpretq_f32_u32(vshlq_n_u32::<16>(value)),
                vreinterpretq_f32_u32(vandq_u32(value, vdupq_n_u32(0xffff_0000))),
            )
        }
    }
    #[inline(always)]
    unsafe fn f16_pair(value: uint32x4_t) -> (float32x4_t, float32x4_t) {
        // SAFETY: see above.
        unsafe {
            (
                halves(vandq_u32(value, vdupq_n_u32(0xffff))),
                halves(vshrq_n_u32::<16>(value)),
            )
        }
    }
    #[inline(always)]
    unsafe fn square(rows: &Rows, at: usize, bytes: usize) -> [uint32x4_t; 4] {
        // SAFETY: see above; a short piece is read from a copy.
        unsafe {
            let mut r = [vdupq_n_u32(0); 4];
            if bytes >= 16 {
                for (r, row) in r.iter_mut().zip(rows.0) {
                    *r = vreinterpretq_u32_u8(vld1q_u8(row.add(at)));
                }
            } else {
                for (r, row) in r.iter_mut().zip(&padded::<4>(rows, at, bytes)) {
                    *r = vld1q_u32(row.as_ptr());
                }
            }
            let even = [vtrn1q_u32(r[0], r[1]), vtrn1q_u32(r[2], r[3])];
            let odd = [vtrn2q_u32(r[0], r[1]), vtrn2q_u32(r[2], r[3])];
            let [even0, even1] = even.map(|v| vreinterpretq_u64_u32(v));
            let [odd0, odd1] = odd.map(|v| vreinterpretq_u64_u32(v));
            [
                vreinterpretq_u32_u64(vtrn1q_u64(even0, even1)),
                vreinterpretq_u32_u64(vtrn1q_u64(odd0, odd1)),
                vreinterpretq_u32_u64(vtrn2q_u64(even0, even1)),
                vreinterpretq_u32_u64(vtrn2q_u64(odd0, odd1)),
            ]
        }
    }
}

/// The numbers of halves in the lower parts of the lanes, as `types::from_f16` makes them.
#[inline(always)]
unsafe fn halves(bits: uint32x4_t) -> float32x4_t {
    // SAFETY: every AArch64 processor has these.
    unsafe {
        let sign = vshlq_n_u32::<16>(vandq_u32(bits, vdupq_n_u32(0x8000)));
        let magnitude = vandq_u32(bits, vdupq_n_u32(0x7fff));
        let shifted = vshlq_n_u32::<13>(magnitude);
        let scale = vdupq_n_f32(f32::from_bits(0x7780_0000));
        let scaled = vreinterpretq_u32_f32(vmulq_f32(vreinterpretq_f32_u32(shifted), scale));
        let special = vorrq_u32(shifted, vdupq_n_u32(0x7f80_0000));
        let is_special = vcgeq_u32(magnitude, vdupq_n_u32(0x7c00));
        vreinterpretq_f32_u32(vorrq_u32(sign, vbslq_u32(is_special, special, scaled)))
    }
}
