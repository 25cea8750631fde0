//! Element-wise operations, products and reductions.

use super::error::check;
use super::fast::none;
use super::runtime::stream;
use super::{Array, Dtype, Error, Result};

/// Builds the array that `call` describes on the thread's stream.
///
/// `call` gets an out-handle that starts empty and is freed if the call fails.
#[track_caller]
pub(super) fn build(
    op: &'static str,
    inputs: &[&Array],
    call: impl FnOnce(*mut mlx_sys::mlx_array, mlx_sys::mlx_stream) -> i32,
) -> Result<Array> {
    let stream = stream(op)?;
    // SAFETY: makes an empty handle, which owns nothing yet.
    let mut out = unsafe { mlx_sys::mlx_array_new() };
    check(op, inputs, || call(&mut out, stream)).inspect_err(|_| {
        // SAFETY: the handle is ours; freeing an empty one is allowed.
        unsafe { mlx_sys::mlx_array_free(out) };
    })?;
    Array::from_raw(op, out)
}

/// Like [`build`] for the shape of most functions: `mlx_f(&out, args…, stream)`.
macro_rules! op {
    ($name:literal, [$($input:expr),*], $f:ident($($arg:expr),* $(,)?)) => {
        $crate::mlx::ops::build($name, &[$($input),*], |out, stream| {
            // SAFETY: `out` is a fresh handle, the inputs are live, and slices outlive the call.
            unsafe { mlx_sys::$f(out, $($arg,)* stream) }
        })
    };
}
pub(super) use op;

macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident = $op:literal $f:ident;)*) => {
        impl Array {
            $($(#[$doc])*
            #[track_caller]
            pub fn $name(&self) -> Result<Array> {
                op!($op, [self], $f(self.raw()))
            })*
        }
    };
}

unary! {
    /// The size of each element without its sign.
    abs = "abs" mlx_abs;
    /// e to the power of each element.
    exp = "exp" mlx_exp;
    /// The natural logarithm of each element.
    log = "log" mlx_log;
    /// `log(1 + x)` of each element, exact for small ones.
    log1p = "log1p" mlx_log1p;
    /// The error function of each element.
    erf = "erf" mlx_erf;
    /// The logistic function of each element.
    sigmoid = "sigmoid" mlx_sigmoid;
    /// The hyperbolic tangent of each element.
    tanh = "tanh" mlx_tanh;
    /// Each element times itself.
    square = "square" mlx_square;
    /// The square root of each element.
    sqrt = "sqrt" mlx_sqrt;
    /// One over the square root of each element.
    rsqrt = "rsqrt" mlx_rsqrt;
    /// Each element with its sign changed.
    negative = "negative" mlx_negative;
    /// The opposite of each boolean.
    logical_not = "logical_not" mlx_logical_not;
}

macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident = $op:literal $f:ident;)*) => {
        impl Array {
            $($(#[$doc])*
            #[track_caller]
            pub fn $name(&self, other: &Array) -> Result<Array> {
                op!($op, [self, other], $f(self.raw(), other.raw()))
            })*
        }
    };
}

binary! {
    /// The sum, broadcast.
    add = "add" mlx_add;
    /// The difference, broadcast.
    subtract = "subtract" mlx_subtract;
    /// The product of elements, broadcast.
    multiply = "multiply" mlx_multiply;
    /// The quotient, broadcast.
    divide = "divide" mlx_divide;
    /// The larger of two elements, broadcast.
    maximum = "maximum" mlx_maximum;
    /// The smaller of two elements, broadcast.
    minimum = "minimum" mlx_minimum;
    /// The logarithm of the sum of two exponentials, broadcast.
    logaddexp = "logaddexp" mlx_logaddexp;
    /// Whether elements are equal, broadcast.
    equal = "equal" mlx_equal;
    /// Whether elements are less, broadcast.
    less = "less" mlx_less;
    /// Whether elements are greater or equal, broadcast.
    greater_equal = "greater_equal" mlx_greater_equal;
    /// Whether both are true, broadcast.
    logical_and = "logical_and" mlx_logical_and;
    /// The bits that two whole numbers both have, broadcast.
    bitwise_and = "bitwise_and" mlx_bitwise_and;
    /// The bits that one of two whole numbers has, broadcast.
    bitwise_xor = "bitwise_xor" mlx_bitwise_xor;
    /// The bits of a whole number moved down by another, broadcast.
    right_shift = "right_shift" mlx_right_shift;
    /// Whole quotients, rounded down, broadcast.
    floor_divide = "floor_divide" mlx_floor_divide;
    /// The matrix product of the last two dimensions; the others broadcast.
    matmul = "matmul" mlx_matmul;
}

impl Array {
    /// The same values as another type.
    #[track_caller]
    pub fn astype(&self, dtype: Dtype) -> Result<Array> {
        if self.dtype() == dtype {
            return Ok(self.clone());
        }
        op!("astype", [self], mlx_astype(self.raw(), dtype.raw()))
    }

    /// Each element as the nearest whole number, halves as the nearest even one.
    #[track_caller]
    pub fn round(&self) -> Result<Array> {
        op!("round", [self], mlx_round(self.raw(), 0))
    }

    /// `value` as a scalar of this array's type, so that a product keeps the type.
    #[track_caller]
    pub fn scalar_like(&self, value: f32) -> Result<Array> {
        Array::from_f32(value)?.astype(self.dtype())
    }

    /// Each element times a number of this array's type.
    #[track_caller]
    pub fn scale(&self, factor: f32) -> Result<Array> {
        self.multiply(&self.scalar_like(factor)?)
    }

    /// `bias + self · other`.
    #[track_caller]
    pub fn addmm(&self, other: &Array, bias: &Array) -> Result<Array> {
        op!(
            "addmm",
            [bias, self, other],
            mlx_addmm(bias.raw(), self.raw(), other.raw(), 1.0, 1.0)
        )
    }

    /// Where `self` is true elements of `yes`, elsewhere elements of `no`.
    #[track_caller]
    pub fn select(&self, yes: &Array, no: &Array) -> Result<Array> {
        op!(
            "where",
            [self, yes, no],
            mlx_where(self.raw(), yes.raw(), no.raw())
        )
    }

    /// Softmax over the last axis, summed in float32.
    #[track_caller]
    pub fn softmax(&self) -> Result<Array> {
        op!("softmax", [self], mlx_softmax_axis(self.raw(), -1, true))
    }

    /// The logarithm of the sum of exponentials over the last axis, which stays with size 1.
    #[track_caller]
    pub fn logsumexp(&self) -> Result<Array> {
        op!(
            "logsumexp",
            [self],
            mlx_logsumexp_axis(self.raw(), -1, true)
        )
    }

    /// Log-probabilities over the last axis: `self - logsumexp(self)`.
    #[track_caller]
    pub fn log_softmax(&self) -> Result<Array> {
        self.subtract(&self.logsumexp()?)
    }

    /// The sum over one axis.
    #[track_caller]
    pub fn sum_axis(&self, axis: i32, keepdims: bool) -> Result<Array> {
        op!("sum", [self], mlx_sum_axis(self.raw(), axis, keepdims))
    }

    /// The largest element along one axis.
    #[track_caller]
    pub fn max_axis(&self, axis: i32, keepdims: bool) -> Result<Array> {
        op!("max", [self], mlx_max_axis(self.raw(), axis, keepdims))
    }

    /// The smallest element along one axis.
    #[track_caller]
    pub fn min_axis(&self, axis: i32, keepdims: bool) -> Result<Array> {
        op!("min", [self], mlx_min_axis(self.raw(), axis, keepdims))
    }

    /// The largest element of all.
    #[track_caller]
    pub fn max_all(&self) -> Result<Array> {
        op!("max", [self], mlx_max(self.raw(), false))
    }

    /// The index (uint32) of the largest element along the last axis; the first of equals.
    #[track_caller]
    pub fn argmax(&self) -> Result<Array> {
        op!("argmax", [self], mlx_argmax_axis(self.raw(), -1, false))
    }

    /// Indices (uint32) that sort the last axis ascending.
    #[track_caller]
    pub fn argsort(&self) -> Result<Array> {
        op!("argsort", [self], mlx_argsort_axis(self.raw(), -1))
    }

    /// Indices (uint32) that put the `kth` smallest along an axis in its place, the smaller ones
    /// before it.
    #[track_caller]
    pub fn argpartition(&self, kth: i32, axis: i32) -> Result<Array> {
        op!(
            "argpartition",
            [self],
            mlx_argpartition_axis(self.raw(), kth, axis)
        )
    }

    /// The `k` largest elements along an axis, in no order.
    #[track_caller]
    pub fn topk(&self, k: i32, axis: i32) -> Result<Array> {
        op!("topk", [self], mlx_topk_axis(self.raw(), k, axis))
    }

    /// The last axis sorted ascending.
    #[track_caller]
    pub fn sort(&self) -> Result<Array> {
        op!("sort", [self], mlx_sort_axis(self.raw(), -1))
    }

    /// Running sums along an axis; `reverse` runs from the end, and unless `inclusive` an element is
    /// not part of its own sum.
    #[track_caller]
    pub fn cumsum(&self, axis: i32, reverse: bool, inclusive: bool) -> Result<Array> {
        let same = mlx_sys::mlx_optional_dtype {
            value: self.dtype().raw(),
            has_value: false,
        };
        op!(
            "cumsum",
            [self],
            mlx_cumsum_axis(self.raw(), axis, reverse, inclusive, same)
        )
    }

    /// The lower triangle of the last two dimensions, up to the `k`-th diagonal; zero above.
    #[track_caller]
    pub fn tril(&self, k: i32) -> Result<Array> {
        op!("tril", [self], mlx_tril(self.raw(), k))
    }

    /// The convolution of `self [B, L, C_in]` with `weight [C_out, K, C_in / groups]`, stride 1 and
    /// without padding: `[B, L - K + 1, C_out]`.
    #[track_caller]
    pub fn conv1d(&self, weight: &Array, groups: i32) -> Result<Array> {
        op!(
            "conv1d",
            [self, weight],
            mlx_conv1d(self.raw(), weight.raw(), 1, 0, 1, groups)
        )
    }

    /// For each index the product of `self`'s matrix and the matrix that `indices` names among
    /// `matrices [E, K, N]`. `self [.., M, K]` broadcasts against `indices [..]`; `sorted` says that
    /// the indices ascend, which reads each matrix once.
    #[track_caller]
    pub fn gather_mm(&self, matrices: &Array, indices: &Array, sorted: bool) -> Result<Array> {
        op!(
            "gather_mm",
            [self, matrices, indices],
            mlx_gather_mm(self.raw(), matrices.raw(), none(), indices.raw(), sorted)
        )
    }

    /// Whether two arrays have the same shape and nowhere differ by more than `tolerance`; reads
    /// both. For tests and checks.
    #[track_caller]
    pub fn max_difference(&self, other: &Array) -> Result<f32> {
        if self.shape() != other.shape() {
            return Err(Error::new(
                "max_difference",
                &[self, other],
                "shapes differ",
            ));
        }
        let (a, b) = (self.astype(Dtype::Float32)?, other.astype(Dtype::Float32)?);
        let (a, b) = (a.to_vec::<f32>()?, b.to_vec::<f32>()?);
        // `f32::max` would drop a NaN, the very thing a comparison must show.
        Ok(a.iter().zip(&b).fold(0.0, |worst, (x, y)| {
            let difference = if x == y { 0.0 } else { (x - y).abs() };
            if difference.is_nan() || difference > worst {
                difference
            } else {
                worst
            }
        }))
    }
}
