//! Panels: a block of `N` rows of weights, some columns of it, turned so that one vector holds what
//! the rows have in the same columns.
//!
//! A panel of codes is `[quad][N][4]` bytes, a quad being four columns; which four, [`column`] says.
//! A panel of floats is `[column][N]`. Both fit a first-level cache.

use crate::lanes::{Lanes, MOST, Rows};
use crate::types::{Floats, Packed};

/// The most columns of codes in a panel: a whole number of groups and of words.
pub(crate) const CODES: usize = 1024;

/// The most columns of floats in a panel.
pub(crate) const FLOATS: usize = 256;

/// Groups in a panel at most.
pub(crate) const GROUPS: usize = CODES / 32;

/// Codes in a byte, where bytes hold whole codes; 1 where they are unpacked first.
pub(crate) fn per_byte(bits: u8) -> usize {
    match bits {
        2 => 4,
        4 => 2,
        _ => 1,
    }
}

/// The column that byte `i` of quad `quad` stands for, with `c` codes in a byte: words of codes are
/// taken apart by shifts, so neighbours in a quad are `c` columns apart.
#[inline(always)]
pub(crate) fn column(c: usize, quad: usize, i: usize) -> usize {
    4 * c * (quad / c) + quad % c + c * i
}

/// Turns the codes of columns `start` to `start + cols` of a block into `panel`.
///
/// What lies `ahead` bytes further on in each row is asked for.
///
/// # Safety
/// The processor has what `S` needs; `rows` are rows of `w`'s codes and `panel` has room for
/// `cols * N` bytes, `cols` being at most [`CODES`]; `start` and `cols` are whole groups.
#[inline(always)]
pub(crate) unsafe fn codes<S: Lanes>(
    w: &Packed,
    rows: &Rows,
    start: usize,
    cols: usize,
    ahead: usize,
    panel: *mut u8,
) {
    // SAFETY: passed on; all reads stay within `cols` columns of each row.
    unsafe {
        match w.bits {
            2 => fields::<S, 2>(rows, start, cols, ahead, panel),
            4 => fields::<S, 4>(rows, start, cols, ahead, panel),
            8 => fields::<S, 8>(rows, start, cols, ahead, panel),
            bits => spread::<S>(usize::from(bits), rows, start, cols, panel),
        }
    }
}

#[inline(always)]
unsafe fn fields<S: Lanes, const BITS: usize>(
    rows: &Rows,
    start: usize,
    cols: usize,
    ahead: usize,
    mut panel: *mut u8,
) {
    let (from, bytes) = (start * BITS / 8, cols * BITS / 8);
    // SAFETY: the caller's promise; a word gives as many quads as a byte has codes.
    unsafe {
        for at in (0..bytes).step_by(4 * S::N) {
            let left = bytes - at;
            let square = S::square(rows, from + at, left);
            fetch::<S>(rows, from + at + ahead);
            let words = square.as_ref();
            if left >= 4 * S::N {
                for word in words {
                    panel = take_apart::<S, BITS>(*word, panel);
                }
            } else {
                for word in &words[..left / 4] {
                    panel = take_apart::<S, BITS>(*word, panel);
                }
            }
        }
    }
}

/// The quads of a word of each row; where the next ones go.
///
/// # Safety
/// The processor has what `S` needs, and `panel` the room.
#[inline(always)]
pub(crate) unsafe fn take_apart<S: Lanes, const BITS: usize>(
    word: S::I,
    panel: *mut u8,
) -> *mut u8 {
    let step = 4 * S::N;
    // SAFETY: the caller's promise.
    unsafe {
        match BITS {
            2 => {
                S::store_bytes(panel, S::field::<0>(word, 0x0303_0303));
                S::store_bytes(panel.add(step), S::field::<2>(word, 0x0303_0303));
                S::store_bytes(panel.add(2 * step), S::field::<4>(word, 0x0303_0303));
                S::store_bytes(panel.add(3 * step), S::field::<6>(word, 0x0303_0303));
            }
            4 => {
                S::store_bytes(panel, S::field::<0>(word, 0x0f0f_0f0f));
                S::store_bytes(panel.add(step), S::field::<4>(word, 0x0f0f_0f0f));
            }
            _ => S::store_bytes(panel, word),
        }
        panel.add(step * (8 / BITS))
    }
}

/// Asks for what each row has at byte `at`, or what lies there after its end.
#[inline(always)]
pub(crate) unsafe fn fetch<S: Lanes>(rows: &Rows, at: usize) {
    for row in rows.0.iter().take(S::N) {
        // SAFETY: a prefetch may name any address.
        unsafe { S::prefetch(row.wrapping_add(at)) };
    }
}

/// Codes that cross bytes: a byte for each first.
#[inline(always)]
unsafe fn spread<S: Lanes>(bits: usize, rows: &Rows, start: usize, cols: usize, panel: *mut u8) {
    const WIDTH: usize = 64;
    let mut bytes = [[0u64; WIDTH / 8]; MOST];
    // SAFETY: the caller's promise; 8 codes are `bits` bytes, of which no more are read.
    unsafe {
        let mut panel = panel;
        for at in (0..cols).step_by(WIDTH) {
            let width = WIDTH.min(cols - at);
            for (row, to) in rows.0.iter().zip(&mut bytes).take(S::N) {
                let mut from = row.add((start + at) * bits / 8);
                for eight in &mut to[..width / 8] {
                    let mut stream = [0u8; 8];
                    from.copy_to_nonoverlapping(stream.as_mut_ptr(), bits);
                    *eight = S::spread(u64::from_le_bytes(stream), bits);
                    from = from.add(bits);
                }
            }
            let copy = Rows(std::array::from_fn(|r| bytes[r].as_ptr().cast()));
            for piece in (0..width).step_by(4 * S::N) {
                let square = S::square(&copy, piece, width - piece);
                for word in square.as_ref().iter().take((width - piece) / 4) {
                    S::store_bytes(panel, *word);
                    panel = panel.add(4 * S::N);
                }
            }
        }
    }
}

/// Turns columns `start` to `start + cols` of a block of floats into `panel`. `rows` are rows of a
/// matrix of the type of `like`.
///
/// # Safety
/// The processor has what `S` needs; `panel` has room for `cols * N` floats, and one vector more
/// where `cols` is odd; the rows have the columns.
#[inline(always)]
pub(crate) unsafe fn floats<S: Lanes>(
    like: &Floats,
    rows: &Rows,
    start: usize,
    cols: usize,
    ahead: usize,
    mut panel: *mut f32,
) {
    let width = if matches!(like, Floats::F32(_)) { 4 } else { 2 };
    let (from, bytes) = (start * width, cols * width);
    // SAFETY: the caller's promise.
    unsafe {
        for at in (0..bytes).step_by(4 * S::N) {
            let left = bytes - at;
            let square = S::square(rows, from + at, left);
            fetch::<S>(rows, from + at + ahead);
            let words = left.div_ceil(4).min(S::N);
            for word in &square.as_ref()[..words] {
                let (low, high) = match like {
                    Floats::F32(_) => {
                        S::store(panel, S::as_f32(*word));
                        panel = panel.add(S::N);
                        continue;
                    }
                    Floats::F16(_) => S::f16_pair(*word),
                    Floats::BF16(_) => S::bf16_pair(*word),
                };
                S::store(panel, low);
                S::store(panel.add(S::N), high);
                panel = panel.add(2 * S::N);
            }
        }
    }
}
