//! x86-64: AVX-512 with VNNI, AVX2, and AVX2 with VNNI.

use std::arch::x86_64::*;

use crate::lanes::{Lanes, Rows, padded};

/// AVX-512 F, BW, VL, VNNI and BMI2: 16 lanes; `AMX` with the matrix unit.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const AMX: bool>;

/// AVX2, FMA, F16C and BMI2: 8 lanes; `VNNI` with the VEX form of the byte product.
#[derive(Clone, Copy)]
pub(crate) struct Avx2<const VNNI: bool>;

// SAFETY of every block below: the trait's promise, that the processor has the features and pointers
// are good for what is read and written.

/// [`Lanes::square`] of sixteen words. Quarters of four rows come together as they are loaded, which
/// leaves only lanes within quarters to be moved.
///
/// # Safety
/// As of [`Lanes::square`].
#[inline(always)]
unsafe fn whole_square(rows: &Rows, at: usize) -> [__m512i; 16] {
    // SAFETY: see above.
    unsafe {
        let mut square = [_mm512_setzero_si512(); 16];
        for (quarter, square) in square.chunks_exact_mut(4).enumerate() {
            // Words 4 q to 4 q + 3 of rows i, i + 4, i + 8 and i + 12.
            let r: [__m512i; 4] = std::array::from_fn(|i| {
                let part = |i: usize| _mm_loadu_si128(rows.0[i].add(at + 16 * quarter).cast());
                let r = _mm512_castsi128_si512(part(i));
                let r = _mm512_inserti32x4::<1>(r, part(i + 4));
                let r = _mm512_inserti32x4::<2>(r, part(i + 8));
                _mm512_inserti32x4::<3>(r, part(i + 12))
            });
            let a = _mm512_unpacklo_epi32(r[0], r[1]);
            let b = _mm512_unpackhi_epi32(r[0], r[1]);
            let c = _mm512_unpacklo_epi32(r[2], r[3]);
            let d = _mm512_unpackhi_epi32(r[2], r[3]);
            square[0] = _mm512_unpacklo_epi64(a, c);
            square[1] = _mm512_unpackhi_epi64(a, c);
            square[2] = _mm512_unpacklo_epi64(b, d);
            square[3] = _mm512_unpackhi_epi64(b, d);
        }
        square
    }
}

/// [`Lanes::square`] of eight words: two rows share a vector on the way.
///
/// # Safety
/// As of [`Lanes::square`].
#[inline(always)]
unsafe fn half_square(rows: &Rows, at: usize) -> [__m512i; 16] {
    // SAFETY: see above.
    unsafe {
        let mut square = [_mm512_setzero_si512(); 16];
        let mut halves = [[_mm512_setzero_si512(); 4]; 2];
        for (half, rows) in halves.iter_mut().zip(rows.0.chunks_exact(8)) {
            // Rows i and i + 4.
            let r: [__m512i; 4] = std::array::from_fn(|i| {
                let row = |i: usize| _mm256_loadu_si256(rows[i].add(at).cast());
                _mm512_inserti64x4::<1>(_mm512_castsi256_si512(row(i)), row(i + 4))
            });
            let a = _mm512_unpacklo_epi32(r[0], r[1]);
            let b = _mm512_unpackhi_epi32(r[0], r[1]);
            let c = _mm512_unpacklo_epi32(r[2], r[3]);
            let d = _mm512_unpackhi_epi32(r[2], r[3]);
            // Words j and 4 + j of rows 0 to 3, then of rows 4 to 7.
            *half = [
                _mm512_unpacklo_epi64(a, c),
                _mm512_unpackhi_epi64(a, c),
                _mm512_unpacklo_epi64(b, d),
                _mm512_unpackhi_epi64(b, d),
            ];
        }
        for j in 0..4 {
            square[j] = _mm512_shuffle_i32x4::<0x88>(halves[0][j], halves[1][j]);
            square[4 + j] = _mm512_shuffle_i32x4::<0xdd>(halves[0][j], halves[1][j]);
        }
        square
    }
}

impl<const AMX: bool> Lanes for Avx512<AMX> {
    const N: usize = 16;
    const TILE: usize = 12;
    const SPLITS: bool = false;
    type F = __m512;
    type I = __m512i;
    type Square = [__m512i; 16];
    type Unit = crate::amx::Tiles<AMX>;

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: __m512) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn zero() -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, value: __m512i) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_si512(to.cast(), value) }
    }
    #[inline(always)]
    unsafe fn field<const BY: u32>(value: __m512i, mask: u32) -> __m512i {
        // SAFETY: see above; whatever has AMX has GFNI, which `Isa::is_here` makes sure of.
        unsafe {
            if AMX && BY == 4 && mask == 0x0f0f_0f0f {
                // Bit `i` of a byte becomes what row `7 - i` of this matrix says: bit `i + 4`.
                let upper = _mm512_set1_epi64(0x1020_4080_0000_0000);
                return _mm512_gf2p8affine_epi64_epi8::<0>(value, upper);
            }
            _mm512_and_si512(
                _mm512_srli_epi32::<BY>(value),
                _mm512_set1_epi32(mask as i32),
            )
        }
    }
    #[inline(always)]
    unsafe fn to_float(value: __m512i) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi32_ps(value) }
    }
    #[inline(always)]
    unsafe fn words(x: i32) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn dot<const WIDE: bool>(sum: __m512i, w: __m512i, x: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_dpbusd_epi32(sum, w, x) }
    }
    #[inline(always)]
    unsafe fn plus(a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn as_f32(value: __m512i) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_castsi512_ps(value) }
    }
    #[inline(always)]
    unsafe fn bf16_pair(value: __m512i) -> (__m512, __m512) {
        // SAFETY: see above.
        unsafe {
            let high = _mm512_and_si512(value, _mm512_set1_epi32(0xffff_0000u32 as i32));
            (
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(value)),
                _mm512_castsi512_ps(high),
            )
        }
    }
    #[inline(always)]
    unsafe fn f16_pair(value: __m512i) -> (__m512, __m512) {
        // SAFETY: see above.
        unsafe {
            let high = _mm512_srli_epi32::<16>(value);
            (
                _mm512_cvtph_ps(_mm512_cvtepi32_epi16(value)),
                _mm512_cvtph_ps(_mm512_cvtepi32_epi16(high)),
            )
        }
    }
    #[inline(always)]
    unsafe fn square(rows: &Rows, at: usize, bytes: usize) -> [__m512i; 16] {
        // SAFETY: see above; masked-out words are not touched.
        unsafe {
            if bytes == 32 {
                return half_square(rows, at);
            }
            if bytes < 64 {
                let mask = (1u32 << (bytes / 2)) - 1;
                let copy = rows
                    .0
                    .map(|row| _mm512_maskz_loadu_epi16(mask, row.add(at).cast()));
                let rows = Rows(copy.each_ref().map(|row| std::ptr::from_ref(row).cast()));
                return whole_square(&rows, 0);
            }
            whole_square(rows, at)
        }
    }
    #[inline(always)]
    unsafe fn spread(stream: u64, bits: usize) -> u64 {
        // SAFETY: see above.
        unsafe { _pdep_u64(stream, 0x0101_0101_0101_0101 * ((1 << bits) - 1)) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> __m512 {
        // SAFETY: see above.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: a prefetch may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
}

impl<const VNNI: bool> Lanes for Avx2<VNNI> {
    const N: usize = 8;
    const TILE: usize = 4;
    const SPLITS: bool = !VNNI;
    type F = __m256;
    type I = __m256i;
    type Square = [__m256i; 8];
    type Unit = ();

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: __m256) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn zero() -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, value: __m256i) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_si256(to.cast(), value) }
    }
    #[inline(always)]
    unsafe fn field<const BY: u32>(value: __m256i, mask: u32) -> __m256i {
        // SAFETY: see above.
        unsafe {
            // The count in a register: the immediate form wants another type of constant.
            let by = _mm_cvtsi32_si128(BY as i32);
            _mm256_and_si256(_mm256_srl_epi32(value, by), _mm256_set1_epi32(mask as i32))
        }
    }
    #[inline(always)]
    unsafe fn to_float(value: __m256i) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_cvtepi32_ps(value) }
    }
    #[inline(always)]
    unsafe fn words(x: i32) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn plus(a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn dot<const WIDE: bool>(sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe {
            if VNNI {
                return _mm256_dpbusd_avx_epi32(sum, w, x);
            }
            let ones = _mm256_set1_epi16(1);
            if !WIDE {
                let pairs = _mm256_maddubs_epi16(w, x);
                return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
            }
            // Two products of bytes above 127 do not fit 16 bits: even and odd bytes apart.
            let low = _mm256_set1_epi16(0xff);
            let even = _mm256_madd_epi16(
                _mm256_and_si256(w, low),
                _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x)),
            );
            let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(w), _mm256_srai_epi16::<8>(x));
            _mm256_add_epi32(sum, _mm256_add_epi32(even, odd))
        }
    }
    #[inline(always)]
    unsafe fn as_f32(value: __m256i) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_castsi256_ps(value) }
    }
    #[inline(always)]
    unsafe fn bf16_pair(value: __m256i) -> (__m256, __m256) {
        // SAFETY: see above.
        unsafe {
            let high = _mm256_and_si256(value, _mm256_set1_epi32(0xffff_0000u32 as i32));
            (
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(value)),
                _mm256_castsi256_ps(high),
            )
        }
    }
    #[inline(always)]
    unsafe fn f16_pair(value: __m256i) -> (__m256, __m256) {
        // SAFETY: see above.
        unsafe {
            // Lower halves first, upper ones after them, within each half of the vector.
            let order = _mm256_setr_epi8(
                0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9, 12, 13, 2,
                3, 6, 7, 10, 11, 14, 15,
            );
            let split = _mm256_permute4x64_epi64::<0xd8>(_mm256_shuffle_epi8(value, order));
            (
                _mm256_cvtph_ps(_mm256_castsi256_si128(split)),
                _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(split)),
            )
        }
    }
    #[inline(always)]
    unsafe fn square(rows: &Rows, at: usize, bytes: usize) -> [__m256i; 8] {
        // SAFETY: see above; a short piece is read from a copy.
        unsafe {
            let mut r = [_mm256_setzero_si256(); 8];
            if bytes >= 32 {
                for (r, row) in r.iter_mut().zip(rows.0) {
                    *r = _mm256_loadu_si256(row.add(at).cast());
                }
            } else {
                let copy = padded::<8>(rows, at, bytes);
                for (r, row) in r.iter_mut().zip(&copy) {
                    *r = _mm256_loadu_si256(row.as_ptr().cast());
                }
            }
            let mut a = r;
            for i in 0..4 {
                a[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
                a[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
            }
            for i in 0..2 {
                r[4 * i] = _mm256_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
                r[4 * i + 1] = _mm256_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
                r[4 * i + 2] = _mm256_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
                r[4 * i + 3] = _mm256_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
            }
            for j in 0..4 {
                a[j] = _mm256_permute2x128_si256::<0x20>(r[j], r[4 + j]);
                a[4 + j] = _mm256_permute2x128_si256::<0x31>(r[j], r[4 + j]);
            }
            a
        }
    }
    #[inline(always)]
    unsafe fn spread(stream: u64, bits: usize) -> u64 {
        // SAFETY: see above.
        unsafe { _pdep_u64(stream, 0x0101_0101_0101_0101 * ((1 << bits) - 1)) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> __m256 {
        // SAFETY: see above.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> __m256 {
        // SAFETY: see above.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: a prefetch may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
}
