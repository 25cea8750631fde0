//! The plan, on a CPU with matrices that our kernels do not take.

use super::*;
use crate::mlx::{Device, QuantMode, Runtime, quantize};

fn times(of: &[(Way, f64)]) -> Times {
    of.iter()
        .map(|(way, seconds)| (way.name().to_owned(), *seconds))
        .collect()
}

fn shape() -> Shape {
    Shape {
        out: 96,
        inner: 128,
        mode: QuantMode::Mxfp4,
        bits: 4,
        group_size: 32,
        x: Dtype::Float32,
    }
}

/// A matrix of a form that our kernels do not take, so that there is something to choose.
fn matrix(seed: u64) -> Quantized {
    let key = Array::random_key(seed).unwrap();
    let w = Array::random_normal(&[96, 128], Dtype::Float32, 0.0, 1.0, &key).unwrap();
    quantize(&w, QuantMode::Mxfp4, 32, 4).unwrap()
}

fn settings(file: Option<PathBuf>) -> Settings {
    Settings {
        effort: Effort::Missing,
        file,
    }
}

#[test]
fn a_way_gives_place_to_one_that_is_clearly_faster() {
    let choose = |packed, unpack| {
        let times = times(&[(Way::Packed, packed), (Way::Unpack, unpack)]);
        choose(&times, Way::Packed)
    };
    assert_eq!(choose(1.0, 0.5), Way::Unpack);
    assert_eq!(choose(1.0, 0.95), Way::Packed);
    assert_eq!(choose(0.5, 1.0), Way::Packed);
    let other = times(&[(Way::Unpack, 0.1)]);
    assert_eq!(super::choose(&other, Way::Packed), Way::Packed);
    let ours = times(&[(Way::Kernel, 1.0), (Way::Unpack, 0.1)]);
    assert_eq!(super::choose(&ours, Way::Kernel), Way::Kernel);
}

#[test]
fn rows_are_taken_together_up_to_the_next_power_of_two() {
    let buckets = [0, 1, 2, 3, 4, 7, 8, 127, 128, 4095, 4096, 1_000_000].map(bucket);
    assert_eq!(buckets, [1, 1, 2, 2, 4, 4, 8, 64, 128, 2048, 4096, 4096]);
}

#[test]
fn what_comes_up_is_measured_and_kept() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = file_for(&folder.path().join("new"), "A (tm) card/2", "1.2");
    let x = Array::full(&[2, 3, 128], 1.0, Dtype::Float32).unwrap();
    begin(settings(Some(file.clone())), 1 << 30);
    let before = super::times(&x, &matrix(1)).unwrap();
    assert_eq!(lines(), []);
    assert_eq!(measure().unwrap(), 1);
    close();
    let [line] = &lines()[..] else {
        panic!("{:?}", lines());
    };
    assert_eq!((line.shape, line.rows), (shape(), 4));
    assert_eq!(line.times.len(), 2, "{line:?}");
    let after = super::times(&x, &matrix(1)).unwrap();
    assert_eq!(after.shape(), [2, 3, 96]);
    assert!(after.max_difference(&before).unwrap() < 1e-3);
    // Another start finds it, measures nothing, and takes the same way.
    let first = line.clone();
    begin(settings(Some(file)), 1 << 30);
    super::times(&x, &matrix(1)).unwrap();
    assert_eq!(measure().unwrap(), 0);
    assert_eq!(lines()[0].way, first.way);
    begin(Settings::default(), 0);
    assert_eq!(lines(), []);
}

#[test]
fn nothing_is_noted_after_the_end() {
    let _runtime = Runtime::enter(Device::Cpu).unwrap();
    begin(settings(None), 1 << 30);
    close();
    let x = Array::full(&[1, 128], 1.0, Dtype::Float32).unwrap();
    super::times(&x, &matrix(2)).unwrap();
    assert_eq!(measure().unwrap(), 0);
    assert_eq!(lines(), []);
    begin(Settings::default(), 0);
}

#[test]
fn every_way_gives_the_same() {
    // On a GPU with MLX_ENABLE_TF32=0.
    let _runtime = Runtime::enter(Device::best()).unwrap();
    for (mode, group, bits) in [
        (QuantMode::Affine, 64, 4),
        (QuantMode::Affine, 32, 8),
        (QuantMode::Mxfp4, 32, 4),
        (QuantMode::Mxfp8, 32, 8),
        (QuantMode::Nvfp4, 16, 4),
    ] {
        let key = Array::random_key(7).unwrap();
        let w = Array::random_normal(&[96, 128], Dtype::Float32, 0.0, 1.0, &key).unwrap();
        let w = quantize(&w, mode, group, bits).unwrap();
        for shape in [&[1, 128][..], &[3, 128], &[2, 5, 128], &[130, 128]] {
            let x = Array::random_normal(shape, Dtype::Float32, 0.0, 1.0, &key).unwrap();
            let whole = crate::mlx::dequantize(&w, Dtype::Float32).unwrap();
            let right = x.matmul(&whole.swap_last().unwrap()).unwrap();
            let largest = right.abs().unwrap().max_all().unwrap();
            let largest = largest.item::<f32>().unwrap();
            for way in Way::ALL {
                if way.takes(&x, &w).unwrap() {
                    let y = quantized_matmul_by(way, &x, &w).unwrap();
                    assert_eq!(y.shape(), right.shape());
                    let difference = y.max_difference(&right).unwrap() / largest;
                    assert!(
                        difference < 1e-4,
                        "{mode} {bits} {shape:?} {way:?}: {difference:e}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_file_that_is_no_plan_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plan.json");
    let key = (shape(), 8);
    let measured = times(&[(Way::Packed, 2e-6)]);
    let all = [(key, measured.clone())].into();
    for text in [
        "",
        "{",
        "[]",
        "{\"a\": 1}",
        "[1, {\"out\": 3}, null]",
        "\u{0}",
    ] {
        std::fs::write(&file, text).unwrap();
        assert!(store::read(&file).is_empty(), "{text}");
        store::add(&file, &all).unwrap();
        assert_eq!(store::read(&file).len(), 1);
    }
    // What is there stays beside what is new, and a wrong entry beside right ones goes alone.
    let other = (Shape { out: 7, ..shape() }, 1);
    store::add(&file, &[(other, measured.clone())].into()).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen('[', "[{\"out\": -1},", 1)).unwrap();
    let read = store::read(&file);
    assert_eq!(read.len(), 2);
    assert_eq!(read[&key].len(), 1);
    assert!((read[&other]["packed"] - 2e-6).abs() < 1e-12);
}

#[test]
fn weights_are_unpacked_where_a_step_is_faster_so() {
    let found = |unpacked, unpacked_many| Residence {
        packed: 1.0,
        unpacked,
        packed_many: 1.0,
        unpacked_many,
    };
    assert!(found(0.8, 9.0).unpacks());
    assert!(!found(1.2, 0.1).unpacks());
    assert!(found(1.02, 0.5).unpacks());
    assert!(!found(1.02, 1.0).unpacks());
    assert!(!found(f64::NAN, 1.0).unpacks());
}
