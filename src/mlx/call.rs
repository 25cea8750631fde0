//! Operations of our own inside MLX's graph: Rust functions that MLX calls when it evaluates on the CPU.
//!
//! Invariants:
//! * A function runs on the stream's own thread, which knows no [`Array`]: it gets the memory of
//!   evaluated inputs to read and of fresh outputs to write, for the time of the call.
//! * What fails in it, a panic included, is the error of the evaluation that needed it.

use std::any::Any;
use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::error::check;
use super::runtime::{Device, current_device, stream};
use super::{Array, Dtype, Error, Result};

/// Constants of a call; what they mean its function knows.
pub(super) type Params = [u64; 8];

/// A function that MLX may call.
pub(super) trait Function {
    /// Its name in MLX's graph.
    const NAME: &'static CStr;
    /// Inputs that it takes with gaps between their rows, by its strides: a bit for each.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    const STRIDED: u32 = 0;

    /// Writes `outputs` from `inputs`.
    ///
    /// # Errors
    /// What is wrong, for people.
    fn run(params: &Params, inputs: &[View], outputs: &mut [ViewMut]) -> Computed;
}

/// What functions return; the text says what is wrong.
pub(super) type Computed = std::result::Result<(), String>;

/// Numbers whose every pattern of bits is one.
///
/// # Safety
/// That must hold, and an element of each of `DTYPES` take as many bytes.
pub(super) unsafe trait Plain: Copy {
    /// The types of arrays that hold them.
    const DTYPES: &'static [Dtype];
}

// SAFETY: every pattern of 32 bits is one.
unsafe impl Plain for f32 {
    const DTYPES: &'static [Dtype] = &[Dtype::Float32];
}
// SAFETY: the bits of 16-bit floats, which have no type in Rust.
unsafe impl Plain for u16 {
    const DTYPES: &'static [Dtype] = &[Dtype::Float16, Dtype::Bfloat16, Dtype::Uint16];
}
// SAFETY: every pattern of 32 bits is one.
unsafe impl Plain for u32 {
    const DTYPES: &'static [Dtype] = &[Dtype::Uint32];
}
// SAFETY: a boolean's byte, and any other, is a number.
unsafe impl Plain for u8 {
    const DTYPES: &'static [Dtype] = &[Dtype::Uint8, Dtype::Bool];
}
// SAFETY: every pattern of 32 bits is one.
unsafe impl Plain for i32 {
    const DTYPES: &'static [Dtype] = &[Dtype::Int32];
}

/// The memory of an input.
#[repr(transparent)]
pub(super) struct View(mlx_sys::mlx_call_view);

/// The memory of an output, row by row without gaps.
#[repr(transparent)]
pub(super) struct ViewMut(mlx_sys::mlx_call_view);

impl View {
    /// Its dimensions.
    pub fn shape(&self) -> &[i32] {
        // SAFETY: the view is of a living call, and its shape has `ndim` numbers.
        unsafe { list(self.0.shape, self.0.ndim) }
    }

    /// How far apart neighbours of each dimension lie, in elements.
    pub fn strides(&self) -> &[i64] {
        // SAFETY: as above.
        unsafe { list(self.0.strides, self.0.ndim) }
    }

    /// Its element type.
    pub fn dtype(&self) -> Option<Dtype> {
        Dtype::from_raw(self.0.dtype)
    }

    /// From its first element to its last: without gaps, its elements in row-major order.
    pub fn slice<T: Plain>(&self) -> Seen<&[T]> {
        let data = pointer::<T>(&self.0)?;
        if self.0.size == 0 {
            return Ok(&[]);
        }
        let mut last = 0;
        for (&n, &stride) in self.shape().iter().zip(self.strides()) {
            match usize::try_from(stride) {
                Ok(stride) => last += (n as usize - 1) * stride,
                Err(_) => return Err("an input runs backwards".into()),
            }
        }
        // SAFETY: the array is evaluated, of this type, and its elements lie within `last + 1` from the
        // first one; nothing writes it while the call lasts.
        Ok(unsafe { std::slice::from_raw_parts(data, last + 1) })
    }
}

impl ViewMut {
    /// Its dimensions.
    pub fn shape(&self) -> &[i32] {
        // SAFETY: the view is of a living call, and its shape has `ndim` numbers.
        unsafe { list(self.0.shape, self.0.ndim) }
    }

    /// Its element type.
    pub fn dtype(&self) -> Option<Dtype> {
        Dtype::from_raw(self.0.dtype)
    }

    /// Its elements, in row-major order.
    pub fn slice<T: Plain>(&mut self) -> Seen<&mut [T]> {
        let data = pointer::<T>(&self.0)?;
        if self.0.size == 0 {
            return Ok(&mut []);
        }
        // SAFETY: the output was allocated for this call, or is an input's that it takes and nobody else
        // sees (`mlx_call`), with so many elements, which nothing else reads or writes before the call
        // returns. What lies in a fresh one is some number, never read.
        Ok(unsafe { std::slice::from_raw_parts_mut(data, self.0.size) })
    }
}

/// A slice of an array's memory, or why there is none.
pub(super) type Seen<T> = std::result::Result<T, String>;

/// # Safety
/// If `n > 0`, there must be so many at `data` for as long as the result.
unsafe fn list<'a, T>(data: *const T, n: usize) -> &'a [T] {
    match n {
        0 => &[],
        // SAFETY: the caller's.
        n => unsafe { std::slice::from_raw_parts(data, n) },
    }
}

fn pointer<T: Plain>(view: &mlx_sys::mlx_call_view) -> Seen<*mut T> {
    match Dtype::from_raw(view.dtype) {
        Some(dtype) if T::DTYPES.contains(&dtype) => Ok(view.data.cast()),
        found => Err(format!("elements are {found:?}, not {:?}", T::DTYPES)),
    }
}

/// Called by MLX on its thread.
unsafe extern "C" fn enter<F: Function>(
    params: *const mlx_sys::mlx_call_params,
    inputs: *const mlx_sys::mlx_call_view,
    n_inputs: usize,
    outputs: *mut mlx_sys::mlx_call_view,
    n_outputs: usize,
    message: *mut c_char,
    capacity: usize,
) -> c_int {
    let run = || {
        // SAFETY: `mlx_call` hands over its constants and one or more views of each kind, which live
        // for the call and are its own; `View` and `ViewMut` are laid out as they are.
        let (params, inputs, outputs) = unsafe {
            (
                &(*params).words,
                list(inputs.cast::<View>(), n_inputs),
                std::slice::from_raw_parts_mut(outputs.cast::<ViewMut>(), n_outputs),
            )
        };
        F::run(params, inputs, outputs)
    };
    // What a function had begun to write is never read: its evaluation has failed.
    let why = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => return 0,
        Ok(Err(why)) => why,
        Err(panic) => format!("it panicked: {}", said(&*panic)),
    };
    let text = format!("{}: {why}", F::NAME.to_string_lossy());
    if capacity > 0 {
        let n = text.len().min(capacity - 1);
        // SAFETY: `message` has room for `capacity` bytes, of which `n + 1` are written.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr().cast(), message, n);
            *message.add(n) = 0;
        }
    }
    1
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("(no message)")
}

/// Whether this thread computes where Rust functions can.
pub(super) fn on_cpu() -> bool {
    cfg!(target_os = "linux") && current_device() == Some(Device::Cpu)
}

/// What a call writes: the shape and type of one array.
pub(super) type Output<'a> = (&'a [i32], Dtype);

/// New arrays, one for each of `outputs`, that `F` writes from `inputs` once they are evaluated.
///
/// # Errors
/// If this thread does not compute on the CPU of a Linux machine, or a dimension is negative. What
/// fails later is the error of an evaluation.
#[track_caller]
pub(super) fn call<F: Function>(
    op: &'static str,
    inputs: &[&Array],
    outputs: &[Output],
    params: Params,
) -> Result<Vec<Array>> {
    call_on::<F>(op, inputs, None, outputs, &[], params)
}

/// Evaluated arrays that calls read beside their inputs. A graph does not know of them, so they cost nothing
/// when it is built, scheduled and freed, as inputs do. Calls that are under way keep them.
#[derive(Debug)]
pub struct Constants(mlx_sys::mlx_call_constants);

/// No constants.
const NONE: mlx_sys::mlx_call_constants = mlx_sys::mlx_call_constants {
    ctx: std::ptr::null_mut(),
};

impl Constants {
    /// Those of `arrays`, which it evaluates.
    ///
    /// # Errors
    /// What the evaluation says, or if one has gaps between its rows.
    #[track_caller]
    pub(super) fn new(op: &'static str, arrays: &[&Array]) -> Result<Self> {
        let mut made = Constants(NONE);
        check(op, arrays, || make(&mut made.0, arrays))?;
        Ok(made)
    }
}

#[cfg(target_os = "linux")]
fn make(made: &mut mlx_sys::mlx_call_constants, arrays: &[&Array]) -> c_int {
    let raw: Vec<_> = arrays.iter().map(|array| array.raw()).collect();
    // SAFETY: the arrays are live, and as many as said.
    unsafe { mlx_sys::mlx_call_constants_new(made, raw.as_ptr(), raw.len()) }
}

#[cfg(target_os = "linux")]
impl Drop for Constants {
    fn drop(&mut self) {
        // SAFETY: it is ours, or null where nothing was made, and not used again.
        unsafe { mlx_sys::mlx_call_constants_free(self.0) };
    }
}

/// Not reached: [`on_cpu`] says no.
#[cfg(not(target_os = "linux"))]
fn make(_: &mut mlx_sys::mlx_call_constants, _: &[&Array]) -> c_int {
    1
}

/// The same with `constants` after the inputs, and where outputs are changed states of inputs: of each pair
/// the output begins with what the input holds, which `F` sees there alone. It is changed in place if the
/// array has no other handle by the time of the evaluation.
#[track_caller]
pub(super) fn call_on<F: Function>(
    op: &'static str,
    inputs: &[&Array],
    constants: Option<&Constants>,
    outputs: &[Output],
    states: &[(usize, usize)],
    params: Params,
) -> Result<Vec<Array>> {
    let stream = stream(op)?;
    if !on_cpu() {
        let message = "computed by Pensieve itself on the CPU of Linux alone";
        return Err(Error::new(op, inputs, message));
    }
    if outputs
        .iter()
        .any(|(shape, _)| shape.iter().any(|&n| n < 0))
    {
        return Err(Error::new(op, inputs, "a dimension is negative"));
    }
    // SAFETY: makes empty handles, which own nothing yet.
    let mut made: Vec<_> = outputs
        .iter()
        .map(|_| unsafe { mlx_sys::mlx_array_new() })
        .collect();
    check(op, inputs, || {
        let raw = constants.map_or(NONE, |constants| constants.0);
        start::<F>(&mut made, (inputs, raw), outputs, states, params, stream)
    })
    .inspect_err(|_| {
        for &raw in &made {
            // SAFETY: the handle is ours; freeing an empty one is allowed.
            unsafe { mlx_sys::mlx_array_free(raw) };
        }
    })?;
    made.into_iter()
        .map(|raw| Array::from_raw(op, raw))
        .collect()
}

/// The same for a function of one output.
#[track_caller]
pub(super) fn call_one<F: Function>(
    op: &'static str,
    inputs: &[&Array],
    output: Output,
    params: Params,
) -> Result<Array> {
    let made = call::<F>(op, inputs, &[output], params)?;
    let missing = || Error::new(op, inputs, "it returned nothing");
    made.into_iter().next().ok_or_else(missing)
}

#[cfg(target_os = "linux")]
fn start<F: Function>(
    made: &mut [mlx_sys::mlx_array],
    (inputs, constants): (&[&Array], mlx_sys::mlx_call_constants),
    outputs: &[Output],
    states: &[(usize, usize)],
    params: Params,
    stream: mlx_sys::mlx_stream,
) -> c_int {
    let taken = |i| states.iter().find(|(output, _)| *output == i);
    let inputs: Vec<_> = inputs.iter().map(|array| array.raw()).collect();
    let outputs: Vec<_> = outputs
        .iter()
        .enumerate()
        .map(|(i, (shape, dtype))| mlx_sys::mlx_call_output {
            shape: shape.as_ptr(),
            ndim: shape.len(),
            dtype: dtype.raw(),
            takes: taken(i).map_or(-1, |(_, input)| *input as i32),
        })
        .collect();
    // SAFETY: `made` has an empty handle for each output, the inputs are live, shapes are copied, and
    // `enter` keeps to what `mlx_call` promises.
    unsafe {
        mlx_sys::mlx_call(
            made.as_mut_ptr(),
            F::NAME.as_ptr(),
            Some(enter::<F>),
            mlx_sys::mlx_call_params { words: params },
            inputs.as_ptr(),
            inputs.len(),
            F::STRIDED,
            constants,
            outputs.as_ptr(),
            outputs.len(),
            stream,
        )
    }
}

/// Not reached: [`on_cpu`] says no.
#[cfg(not(target_os = "linux"))]
fn start<F: Function>(
    _: &mut [mlx_sys::mlx_array],
    _: (&[&Array], mlx_sys::mlx_call_constants),
    _: &[Output],
    _: &[(usize, usize)],
    _: Params,
    _: mlx_sys::mlx_stream,
) -> c_int {
    let _ = enter::<F>;
    1
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::mlx::Runtime;

    /// `y = x * params[0]`, and the sum of the strides that it saw.
    struct Scale<const STRIDED: u32>;

    impl<const S: u32> Function for Scale<S> {
        const NAME: &'static CStr = c"scale";
        const STRIDED: u32 = S;

        fn run(params: &Params, inputs: &[View], outputs: &mut [ViewMut]) -> Computed {
            let [x] = inputs else {
                return Err("one input is expected".into());
            };
            let [y, seen] = outputs else {
                return Err("two outputs are expected".into());
            };
            let factor = params[0] as f32;
            assert!(factor >= 0.0 && params[0] != 13, "unlucky");
            if params[0] == 14 {
                return Err("no 14, please".into());
            }
            for (y, x) in y.slice::<f32>()?.iter_mut().zip(x.slice::<f32>()?) {
                *y = x * factor;
            }
            seen.slice::<i32>()?[0] = x.strides().iter().sum::<i64>() as i32;
            Ok(())
        }
    }

    fn scaled<F: Function>(x: &Array, factor: u64) -> Result<Vec<Array>> {
        let params = [factor, 0, 0, 0, 0, 0, 0, 0];
        let shape = x.shape();
        call::<F>(
            "scale",
            &[x],
            &[(&shape, x.dtype()), (&[1], Dtype::Int32)],
            params,
        )
    }

    #[test]
    fn inputs_come_without_gaps_unless_they_may_have_them() {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        let x: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let x = Array::from_slice(&x, &[2, 3, 4]).unwrap();
        let turned = x.transpose_axes(&[2, 0, 1]).unwrap();
        let dense = turned.contiguous().unwrap().to_vec::<f32>().unwrap();
        let made = scaled::<Scale<0>>(&turned, 2).unwrap();
        let twice: Vec<f32> = dense.iter().map(|x| 2.0 * x).collect();
        assert_eq!(made[0].to_vec::<f32>().unwrap(), twice);
        assert_eq!(made[1].to_vec::<i32>().unwrap(), [6 + 3 + 1]);
        let made = scaled::<Scale<1>>(&turned, 2).unwrap();
        assert_eq!(made[1].to_vec::<i32>().unwrap(), [1 + 12 + 4]);
        // A row that is repeated, and a part of an array.
        let row = x.slice_axis(1, 1, 2).unwrap();
        let made = scaled::<Scale<0>>(&row, 1).unwrap();
        assert_eq!(
            made[0].to_vec::<f32>().unwrap(),
            [4.0, 5.0, 6.0, 7.0, 16.0, 17.0, 18.0, 19.0]
        );
        let repeated = row.broadcast_to(&[2, 2, 4]).unwrap();
        let made = scaled::<Scale<0>>(&repeated, 1).unwrap();
        assert_eq!(made[0].to_vec::<f32>().unwrap()[4..8], [4.0, 5.0, 6.0, 7.0]);
    }

    #[test]
    fn what_fails_in_a_function_is_the_evaluations_error() {
        let _runtime = Runtime::enter(Device::Cpu).unwrap();
        let x = Array::from_slice(&[1.0f32, 2.0], &[2]).unwrap();
        for (factor, said) in [(13, "it panicked: unlucky"), (14, "no 14, please")] {
            let made = scaled::<Scale<0>>(&x, factor).unwrap();
            let more = made[0].add(&x).unwrap();
            let message = more.eval().unwrap_err().to_string();
            assert!(message.contains(said), "{message}");
            // The thread goes on.
            let made = scaled::<Scale<0>>(&x, 3).unwrap();
            assert_eq!(made[0].to_vec::<f32>().unwrap(), [3.0, 6.0]);
        }
        // Not as the type that it has.
        let x = x.astype(Dtype::Int32).unwrap();
        let message = scaled::<Scale<0>>(&x, 1).unwrap()[0].eval().unwrap_err();
        assert!(message.to_string().contains("Int32"), "{message}");
    }
}
