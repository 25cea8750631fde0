//! What one rendering may take: steps, memory that it holds, time, depth.
//!
//! Invariants: a rendering runs on one thread from [`begin`] to its end; every string and container that it makes is
//! counted while it lives; whatever takes time in proportion to its operands spends steps first.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use super::{Error, Result};

/// The bounds of one rendering.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Steps: about one for each part of an expression and each item or 64 bytes handled.
    pub steps: u64,
    /// Bytes held at a time by values.
    pub memory: usize,
    /// Bytes of the output, and of any one string.
    pub text: usize,
    /// How long it may take.
    pub time: Duration,
}

/// Calls of macros and recursive loops inside each other.
pub const CALLS: usize = 200;
/// How deep values may nest, and expressions and statements in the source.
pub const NESTING: usize = 200;
/// Steps between two looks at the clock.
const CLOCK: u64 = 4096;

struct Meter {
    limits: Limits,
    end: Option<Instant>,
    left: u64,
    clock: u64,
}

thread_local! {
    static METER: RefCell<Meter> = const { RefCell::new(Meter {
        limits: Limits { steps: u64::MAX, memory: usize::MAX, text: usize::MAX, time: Duration::MAX },
        end: None,
        left: u64::MAX,
        clock: u64::MAX,
    }) };
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// Starts a rendering on this thread.
pub fn begin(limits: Limits) {
    HELD.with(|held| held.set(0));
    METER.with_borrow_mut(|meter| {
        *meter = Meter {
            limits,
            end: Instant::now().checked_add(limits.time),
            left: limits.steps,
            clock: limits.steps.saturating_sub(CLOCK),
        }
    });
}

/// Takes `steps` from what is left.
///
/// # Errors
/// If a limit is reached.
pub fn spend(steps: u64) -> Result<()> {
    METER.with_borrow_mut(|meter| {
        let Some(left) = meter.left.checked_sub(steps) else {
            meter.left = 0;
            let millions = meter.limits.steps / 1_000_000;
            return Err(Error::limit(format!("{millions} million steps")));
        };
        meter.left = left;
        if left <= meter.clock {
            meter.clock = left.saturating_sub(CLOCK);
            if meter.end.is_some_and(|end| Instant::now() > end) {
                let seconds = meter.limits.time.as_secs();
                return Err(Error::limit(format!("{seconds} seconds")));
            }
        }
        if HELD.get() > meter.limits.memory {
            let memory = meter.limits.memory >> 20;
            return Err(Error::limit(format!("{memory} MiB of memory")));
        }
        Ok(())
    })
}

/// Takes the steps for handling `bytes` bytes.
///
/// # Errors
/// If a limit is reached.
pub fn spend_bytes(bytes: usize) -> Result<()> {
    spend(1 + (bytes / 64) as u64)
}

/// Whether a text of so many bytes may be made.
///
/// # Errors
/// If it is too long.
pub fn allow_text(bytes: usize) -> Result<()> {
    METER.with_borrow(|meter| match bytes > meter.limits.text {
        true => Err(Error::limit(format!(
            "{} MiB of text",
            meter.limits.text >> 20
        ))),
        false => Ok(()),
    })
}

/// Whether so many bytes more may be held.
///
/// # Errors
/// If that is too much.
pub fn allow_memory(bytes: usize) -> Result<()> {
    METER.with_borrow(
        |meter| match HELD.get().saturating_add(bytes) > meter.limits.memory {
            true => Err(Error::limit(format!(
                "{} MiB of memory",
                meter.limits.memory >> 20
            ))),
            false => Ok(()),
        },
    )
}

/// Counts bytes while it lives.
#[derive(Debug)]
pub struct Held(usize);

impl Held {
    /// Counts `bytes` from now on; the limit is looked at by the next [`spend`].
    pub fn new(bytes: usize) -> Held {
        HELD.with(|held| held.set(held.get().saturating_add(bytes)));
        Held(bytes)
    }

    /// For what does not belong to a rendering.
    pub const fn nothing() -> Held {
        Held(0)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let bytes = self.0;
        if bytes > 0 {
            HELD.with(|held| held.set(held.get().saturating_sub(bytes)));
        }
    }
}
