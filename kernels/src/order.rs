//! From row after row to blocks of rows.

use crate::share;
use crate::types::Order;

/// Puts rows of `width` values in [`Order::Blocks`].
///
/// # Panics
/// If `from` is no whole number of rows, or `to` is not as long.
pub fn to_blocks<T: Copy + Send + Sync>(from: &[T], width: usize, to: &mut [T]) {
    assert_eq!(from.len(), to.len(), "to_blocks: to's length");
    if from.is_empty() {
        return;
    }
    assert!(from.len().is_multiple_of(width), "to_blocks: {width} wide");
    let block = Order::TALL * width;
    let in_blocks = from.len() - from.len() % block;
    to[in_blocks..].copy_from_slice(&from[in_blocks..]);
    let to = To(to.as_mut_ptr());
    share(in_blocks / block, in_blocks, &|blocks| {
        for at in blocks.map(|i| i * block) {
            let to = to.at(at);
            let from = &from[at..at + block];
            let rows: [&[T]; Order::TALL] =
                std::array::from_fn(|row| &from[row * width..][..width]);
            for i in 0..width {
                let word = rows.map(|row| row[i]);
                // SAFETY: within the block, which is this thread's.
                unsafe {
                    to.add(i * Order::TALL)
                        .cast::<[T; Order::TALL]>()
                        .write_unaligned(word)
                };
            }
        }
    });
}

/// Where threads write, each its own blocks.
struct To<T>(*mut T);

// SAFETY: they write to different places, values that may go to another thread.
unsafe impl<T: Send> Sync for To<T> {}

impl<T> To<T> {
    fn at(&self, i: usize) -> *mut T {
        self.0.wrapping_add(i)
    }
}
