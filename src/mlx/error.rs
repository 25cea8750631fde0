//! Failures of mlx-c: the one door through which its functions are called.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::panic::Location;
use std::sync::Once;

use super::{Array, Dtype};

/// A failed operation: what failed, on what, where in the source, and MLX's message.
#[derive(Clone, Debug)]
pub struct Error(Box<Failure>);

#[derive(Clone, Debug)]
struct Failure {
    op: &'static str,
    inputs: Vec<(Vec<i32>, Dtype)>,
    place: &'static Location<'static>,
    message: String,
}

/// What operations on arrays return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure found on this side of the door.
    #[track_caller]
    pub fn new(op: &'static str, inputs: &[&Array], message: impl Into<String>) -> Self {
        Self(Box::new(Failure {
            op,
            inputs: inputs.iter().map(|a| (a.shape(), a.dtype())).collect(),
            place: Location::caller(),
            message: message.into(),
        }))
    }

    /// The operation that failed, by MLX's name.
    pub fn op(&self) -> &'static str {
        self.0.op
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure {
            op,
            inputs,
            place,
            message,
        } = &*self.0;
        write!(f, "{op} failed")?;
        for (i, (shape, dtype)) in inputs.iter().enumerate() {
            let word = if i == 0 { " on " } else { ", " };
            write!(f, "{word}{dtype}{shape:?}")?;
        }
        write!(f, " at {}:{}: {message}", place.file(), place.line())
    }
}

impl std::error::Error for Error {}

thread_local! {
    /// What MLX said last on this thread. The handler is global, but it is called on the thread
    /// whose call failed.
    static MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Called by mlx-c instead of its default handler, which would exit the process.
extern "C" fn keep_message(message: *const c_char, _data: *mut c_void) {
    // SAFETY: mlx-c passes a NUL-terminated buffer that lives for the call.
    let text = unsafe { CStr::from_ptr(message) };
    let text = text.to_string_lossy().into_owned();
    // During thread teardown there is nobody left to tell.
    let _ = MESSAGE.try_with(|slot| *slot.borrow_mut() = Some(text));
}

/// Installs the error handler, once for the process.
pub(super) fn install_handler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler is a plain function without data, so nothing can dangle.
        unsafe { mlx_sys::mlx_set_error_handler(Some(keep_message), std::ptr::null_mut(), None) };
    });
}

/// Calls into mlx-c and turns its return code into a result.
#[track_caller]
pub(super) fn check(
    op: &'static str,
    inputs: &[&Array],
    call: impl FnOnce() -> c_int,
) -> Result<()> {
    install_handler();
    match call() {
        0 => Ok(()),
        code => {
            let message = MESSAGE.with(|slot| slot.borrow_mut().take());
            let message = message.unwrap_or_else(|| format!("mlx-c returned {code}"));
            Err(Error::new(op, inputs, tidy(&message)))
        }
    }
}

/// Drops the place in mlx-c's own sources that it appends (" at …/ops.cpp:123").
fn tidy(message: &str) -> &str {
    match message.rfind(" at ") {
        Some(i) if message[i..].contains(".cpp:") || message[i..].contains(".h:") => &message[..i],
        _ => message,
    }
}
