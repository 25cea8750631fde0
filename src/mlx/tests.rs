//! The safe layer against the traps of mlx-c that can be provoked on a CPU.

use super::*;

/// Numbers about 0, from -1 to 1, the same each time.
pub(super) fn noise(shape: &[i32], seed: u32) -> Array {
    let n = shape.iter().product::<i32>() as u32;
    let values: Vec<f32> = (0..n)
        .map(|i| {
            let mixed = (i + seed).wrapping_mul(2_654_435_761);
            ((mixed ^ mixed >> 15).wrapping_mul(2_246_822_519) >> 8) as f32 / 8_388_608.0 - 1.0
        })
        .collect();
    Array::from_slice(&values, shape).unwrap()
}

/// Runs `body` with a runtime on this test's thread.
fn on_cpu<T>(body: impl FnOnce() -> Result<T>) -> T {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    body().unwrap()
}

#[test]
fn an_error_names_operation_shapes_place_and_reason() {
    on_cpu(|| {
        let a = Array::zeros(&[2, 3], Dtype::Float32)?;
        let b = Array::zeros(&[4, 5], Dtype::Float32)?;
        let message = a.matmul(&b).unwrap_err().to_string();
        for part in ["matmul", "float32[2, 3]", "float32[4, 5]", "tests.rs"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(!message.contains(".cpp"), "{message}");
        Ok(())
    });
}

#[test]
fn a_failed_call_leaves_the_thread_usable() {
    on_cpu(|| {
        for _ in 0..100 {
            let a = Array::zeros(&[2, 3], Dtype::Float32)?;
            assert!(a.reshape(&[7]).is_err());
            assert_eq!(a.reshape(&[6])?.to_vec::<f32>()?, [0.0; 6]);
        }
        Ok(())
    });
}

#[test]
fn a_message_with_printf_fields_is_data() {
    on_cpu(|| {
        // MLX puts the name of an unknown mode into its message, as it does with paths.
        let path = std::ffi::CString::new("/nowhere/a%s%n%d b.safetensors").unwrap();
        let failed = error::check("load", &[], || {
            // SAFETY: fresh maps that the call would fill, freed below; the path is a C string.
            unsafe {
                let mut arrays = mlx_sys::mlx_map_string_to_array_new();
                let mut metadata = mlx_sys::mlx_map_string_to_string_new();
                let stream = runtime::stream("load").unwrap();
                let code = mlx_sys::mlx_load_safetensors(
                    &mut arrays,
                    &mut metadata,
                    path.as_ptr(),
                    stream,
                );
                mlx_sys::mlx_map_string_to_array_free(arrays);
                mlx_sys::mlx_map_string_to_string_free(metadata);
                code
            }
        });
        let message = failed.unwrap_err().to_string();
        assert!(message.contains("a%s%n%d b"), "{message}");
        Ok(())
    });
}

#[test]
fn operations_need_a_runtime() {
    let message = Array::zeros(&[1], Dtype::Float32).unwrap_err().to_string();
    assert!(message.contains("Runtime::enter"), "{message}");
}

#[test]
fn a_thread_enters_once_at_a_time() {
    let first = Runtime::enter(Device::Cpu).unwrap();
    assert!(Runtime::enter(Device::Cpu).is_err());
    drop(first);
    assert!(Runtime::enter(Device::Cpu).is_ok());
}

#[test]
fn entering_again_makes_no_new_stream() {
    // The default stream belongs to the thread: this one's first entry may add one, later none.
    drop(Runtime::enter(Device::Cpu).unwrap());
    on_cpu(|| Array::zeros(&[1], Dtype::Float32)?.eval());
    let streams = own_streams();
    for _ in 0..50 {
        on_cpu(|| Array::zeros(&[1], Dtype::Float32)?.eval());
    }
    assert_eq!(own_streams(), streams);

    /// Which stream this thread computes on; other tests' threads have their own.
    fn own_streams() -> i32 {
        on_cpu(|| {
            let mut index = -1;
            let stream = runtime::stream("index")?;
            // SAFETY: a live stream and a valid pointer.
            error::check("index", &[], || unsafe {
                mlx_sys::mlx_stream_get_index(&mut index, stream)
            })?;
            Ok(index)
        })
    }
}

#[test]
fn a_missing_gpu_is_an_error_and_not_an_abort() {
    if !Device::Gpu.is_available() {
        let message = Runtime::enter(Device::Gpu).err().unwrap().to_string();
        assert!(message.contains("no GPU"), "{message}");
    }
}

#[test]
fn reading_as_another_type_is_refused() {
    on_cpu(|| {
        let a = Array::from_slice(&[1i32, 2], &[2])?;
        let message = a.to_vec::<f32>().unwrap_err().to_string();
        assert!(
            message.contains("int32") && message.contains("float32"),
            "{message}"
        );
        assert!(a.item::<i32>().is_err(), "two elements are not one");
        let half = Array::from_f32(1.5)?.astype(Dtype::Bfloat16)?;
        assert!(half.item::<f32>().is_err());
        assert_eq!(half.astype(Dtype::Float32)?.item::<f32>()?, 1.5);
        Ok(())
    });
}

#[test]
fn reading_evaluates_and_respects_strides() {
    on_cpu(|| {
        let a = Array::from_slice(&[1f32, 2., 3., 4., 5., 6.], &[2, 3])?;
        let t = a.transpose_axes(&[1, 0])?;
        assert_eq!(t.to_vec::<f32>()?, [1., 4., 2., 5., 3., 6.]);
        let wide = Array::from_f32(2.5)?.broadcast_to(&[3])?;
        assert_eq!(wide.to_vec::<f32>()?, [2.5; 3]);
        assert_eq!(a.slice(&[0, 1], &[2, 2])?.to_vec::<f32>()?, [2., 5.]);
        Ok(())
    });
}

#[test]
fn data_must_fit_the_shape() {
    assert!(Array::from_slice(&[1f32, 2.], &[3]).is_err());
    assert!(Array::from_slice(&[1f32], &[-1]).is_err());
    assert!(Array::from_bytes(&[0; 6], &[2], Dtype::Float32).is_err());
    assert!(Array::from_bytes(&[], &[i32::MAX, i32::MAX, i32::MAX], Dtype::Float64).is_err());
    let empty = Array::from_slice::<f32>(&[], &[0, 4]).unwrap();
    assert_eq!(empty.shape(), [0, 4]);
    assert_eq!(empty.dim(-1).unwrap(), 4);
    assert!(empty.dim(2).is_err());
}

#[test]
fn misaligned_bytes_are_copied_right() {
    on_cpu(|| {
        // Wherever the buffer itself starts, three of these starts are no multiple of four.
        for start in 0..4 {
            let mut bytes = [0u8; 16];
            for (i, value) in [1.25f32, -2., 7.].into_iter().enumerate() {
                let at = start + 4 * i;
                bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
            }
            let a = Array::from_bytes(&bytes[start..start + 12], &[3], Dtype::Float32)?;
            assert_eq!(a.to_vec::<f32>()?, [1.25, -2., 7.]);
        }
        Ok(())
    });
}

#[test]
fn slice_update_leaves_other_holders_alone() {
    on_cpu(|| {
        let a = Array::zeros(&[4], Dtype::Float32)?;
        let kept = a.clone();
        let one = Array::from_slice(&[1f32], &[1])?;
        let updated = a.slice_update(&one, &[2], &[3])?;
        assert_eq!(updated.to_vec::<f32>()?, [0., 0., 1., 0.]);
        assert_eq!(kept.to_vec::<f32>()?, [0.; 4]);
        Ok(())
    });
}

#[test]
fn attention_takes_every_mask() {
    on_cpu(|| {
        let key = Array::random_key(1)?;
        let normal = |l| Array::random_normal(&[1, 2, l, 8], Dtype::Float32, 0., 1., &key);
        let (q, kv) = (normal(3)?, normal(5)?);
        let attend = |mask| scaled_dot_product_attention(&q, &kv, &kv, 0.35, mask, None);
        let causal = attend(Mask::Causal)?;
        // Aligned at the end: query i sees keys 0..=i + 2.
        let rows = Array::arange(2, 5, Dtype::Int32)?.reshape(&[3, 1])?;
        let columns = Array::arange(0, 5, Dtype::Int32)?;
        let allowed = rows.greater_equal(&columns)?;
        assert!(causal.max_difference(&attend(Mask::Array(&allowed))?)? < 1e-6);
        assert!(causal.max_difference(&attend(Mask::None)?)? > 1e-3);
        Ok(())
    });
}

#[test]
fn quantize_returns_as_many_parts_as_the_mode_has() {
    on_cpu(|| {
        let key = Array::random_key(2)?;
        let w = Array::random_normal(&[8, 128], Dtype::Float32, 0., 1., &key)?;
        let affine = quantize(&w, QuantMode::Affine, 64, 8)?;
        assert!(affine.biases.is_some());
        assert!(dequantize(&affine, Dtype::Float32)?.max_difference(&w)? < 0.02);
        for (mode, group, bits) in [
            (QuantMode::Mxfp4, 32, 4),
            (QuantMode::Mxfp8, 32, 8),
            (QuantMode::Nvfp4, 16, 4),
        ] {
            let packed = quantize(&w, mode, group, bits)?;
            assert!(packed.biases.is_none(), "{mode}");
            assert_eq!(packed.scales.dtype(), Dtype::Uint8, "{mode}");
            let error = dequantize(&packed, Dtype::Float32)?.max_difference(&w)?;
            assert!(error < 0.6, "{mode}: {error}");
        }
        let message = quantize(&w, QuantMode::Affine, 64, 7)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("quantize") && message.contains("bits"),
            "{message}"
        );
        Ok(())
    });
}

#[test]
fn a_key_fixes_the_numbers() {
    on_cpu(|| {
        let draw = |seed| {
            let key = Array::random_key(seed)?;
            Array::random_normal(&[4], Dtype::Float32, 0.0, 1.0, &key)?.to_vec::<f32>()
        };
        assert_eq!(draw(7)?, draw(7)?);
        assert_ne!(draw(7)?, draw(8)?);
        Ok(())
    });
}

#[test]
fn compiled_functions_compute() {
    fn double_plus(inputs: &[&Array]) -> Result<[Array; 2]> {
        let double = inputs[0].add(inputs[0])?;
        Ok([double.add(inputs[1])?, double])
    }
    fn failing(_: &[&Array]) -> Result<[Array; 1]> {
        Err(Error::new("failing", &[], "on purpose"))
    }
    fn panicking(_: &[&Array]) -> Result<[Array; 1]> {
        panic!("on purpose")
    }
    on_cpu(|| {
        compile_everywhere(true);
        for n in [1, 3, 8] {
            let a = Array::arange(0, n, Dtype::Float32)?;
            let times = |factor: i32| (0..n).map(|i| (factor * i) as f32).collect::<Vec<_>>();
            let results = fused(double_plus, &[&a, &a])?;
            let [plus, double] = results.map(|result| result.to_vec::<f32>());
            assert_eq!((plus?, double?), (times(3), times(2)));
        }
        let a = Array::from_f32(1.0)?;
        assert!(fused(failing, &[&a]).is_err());
        assert!(fused(panicking, &[&a]).is_err());
        compile_everywhere(false);
        Ok(())
    });
}

#[test]
fn memory_returns_to_where_it_was() {
    on_cpu(|| {
        let big = Array::zeros(&[1 << 22], Dtype::Float32)?.add(&Array::from_f32(1.0)?)?;
        big.eval()?;
        assert!(memory()?.active >= 1 << 24);
        assert!(memory()?.peak >= 1 << 24);
        drop(big);
        clear_cache()
    });
}

#[test]
fn the_library_is_the_pinned_one() {
    assert_eq!(version().unwrap(), "0.32.2");
}

/// See `mlx-sys/call/call.cpp`.
#[cfg(target_os = "linux")]
#[test]
fn a_process_may_meet_any_number_of_graphs() {
    let checks = std::env::var("MLX_ENABLE_CACHE_THRASHING_CHECK");
    assert_eq!(checks.as_deref(), Ok("0"));
}
