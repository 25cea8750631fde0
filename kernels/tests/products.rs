//! Products against sums in `f64`, for every tail, type, width and set of instructions; and the
//! promises: the same bits from all instructions, numbers of threads, and numbers of rows.
//!
//! Under Miri (`cargo +nightly miri test -p pensieve-kernels`) the portable way runs, on fewer cases.

mod common;

use common::{Dice, KINDS, Kind, Numbers, alone, here, same};
use pensieve_kernels::{
    Floats, FloatsMut, Isa, Order, Packed, Precision, dense_matmul, packed_matmul,
    packed_matmul_as, packed_matmuls, packed_rows, set_fast, set_threads, to_blocks,
};
use proptest::prelude::*;

struct Matrix {
    codes: Vec<u32>,
    scales: Numbers,
    biases: Numbers,
    rows: usize,
    cols: usize,
    bits: u8,
    group: usize,
    order: Order,
}

impl Matrix {
    fn new(dice: &mut Dice, kind: Kind, rows: usize, cols: usize, bits: u8, group: usize) -> Self {
        let words = cols / 32 * usize::from(bits);
        Matrix {
            codes: (0..rows * words).map(|_| dice.next() as u32).collect(),
            scales: Numbers::new(kind, dice.floats(rows * cols / group)),
            biases: Numbers::new(kind, dice.floats(rows * cols / group)),
            rows,
            cols,
            bits,
            group,
            order: Order::Rows,
        }
    }

    /// The same in blocks.
    fn in_blocks(&self) -> Self {
        let mut codes = vec![0; self.codes.len()];
        let words = self.cols / 32 * usize::from(self.bits);
        to_blocks(&self.codes, words, &mut codes);
        let groups = self.cols / self.group;
        let turned = |numbers: &Numbers| {
            let mut to = numbers.clone();
            match numbers.kind {
                Kind::F32 => to_blocks(&numbers.floats, groups, &mut to.floats),
                Kind::F16 | Kind::BF16 => to_blocks(&numbers.bits, groups, &mut to.bits),
            }
            to
        };
        Matrix {
            codes,
            scales: turned(&self.scales),
            biases: turned(&self.biases),
            order: Order::Blocks,
            ..*self
        }
    }

    fn packed(&self) -> Packed<'_> {
        Packed {
            codes: &self.codes,
            scales: self.scales.slice(),
            biases: self.biases.slice(),
            rows: self.rows,
            cols: self.cols,
            bits: self.bits,
            group_size: self.group,
            order: self.order,
        }
    }

    /// The number at a place, by the format's definition.
    fn at(&self, row: usize, col: usize) -> f64 {
        let words = self.cols / 32 * usize::from(self.bits);
        let groups = self.cols / self.group;
        let place = |i: usize, width: usize| match self.order {
            Order::Blocks if row < self.rows / 16 * 16 => (row / 16 * width + i) * 16 + row % 16,
            _ => row * width + i,
        };
        let mut code = 0u32;
        for bit in 0..usize::from(self.bits) {
            let at = col * usize::from(self.bits) + bit;
            let word = self.codes[place(at / 32, words)];
            code |= (word >> (at % 32) & 1) << bit;
        }
        let group = place(col / self.group, groups);
        f64::from(code) * self.scales.at(group) + self.biases.at(group)
    }
}

/// The sum, and that of the magnitudes.
fn reference(k: usize, x: impl Fn(usize) -> f64, w: impl Fn(usize) -> f64) -> (f64, f64) {
    (0..k).fold((0.0, 0.0), |(sum, size), i| {
        let product = x(i) * w(i);
        (sum + product, size + product.abs())
    })
}

fn check_packed(dice: &mut Dice, kind: Kind, m: usize, w: &Matrix) {
    let x = Numbers::new(kind, dice.floats(m * w.cols));
    let what = |isa: Isa| {
        format!(
            "{isa}: {m} x {} x {}, {} bits, groups of {}, {kind:?} and {:?}",
            w.rows, w.cols, w.bits, w.group, w.scales.kind
        )
    };
    for precision in [Precision::Exact, Precision::Fast] {
        let mut first: Option<Numbers> = None;
        for isa in here() {
            assert!(isa.force());
            let mut out = Numbers::room(kind, m * w.rows);
            packed_matmul_as(precision, x.slice(), m, &w.packed(), out.slice_mut());
            match &first {
                None => first = Some(out),
                Some(first) => assert!(same(first, &out), "{} {precision:?}", what(isa)),
            }
        }
        let out = first.unwrap();
        for i in 0..m {
            for row in 0..w.rows {
                let (sum, size) = reference(w.cols, |k| x.at(i * w.cols + k), |k| w.at(row, k));
                // Codes are off by half a step, a 254th of their group's largest number.
                let codes = (1u64 << w.bits) as f64;
                let allowed = match precision {
                    Precision::Exact => 1e-6 * (size + codes),
                    Precision::Fast => 0.01 * size.max(codes * (w.cols as f64).sqrt()),
                };
                let found = out.at(i * w.rows + row);
                let error = (found - sum).abs();
                assert!(
                    error <= allowed + out.rounding() * (sum.abs() + allowed),
                    "{} {precision:?}: {found} at {i}, {row} is {sum}, off by {error}",
                    what(Isa::current())
                );
            }
        }
    }
}

fn check_dense(dice: &mut Dice, kinds: [Kind; 3], [m, n, k]: [usize; 3]) {
    let x = Numbers::new(kinds[0], dice.floats(m * k));
    let w = Numbers::new(kinds[1], dice.floats(n * k));
    let mut first: Option<Numbers> = None;
    for isa in here() {
        assert!(isa.force());
        let mut out = Numbers::room(kinds[2], m * n);
        dense_matmul(x.slice(), m, w.slice(), n, k, out.slice_mut());
        match &first {
            None => first = Some(out),
            Some(first) => assert!(same(first, &out), "{isa}: {m} x {n} x {k}, {kinds:?}"),
        }
    }
    let out = first.unwrap();
    for i in 0..m {
        for row in 0..n {
            let (sum, size) = reference(k, |c| x.at(i * k + c), |c| w.at(row * k + c));
            let error = (out.at(i * n + row) - sum).abs();
            assert!(
                error <= 1e-6 * size + out.rounding() * sum.abs(),
                "{m} x {n} x {k}, {kinds:?}: {i}, {row} off by {error}"
            );
        }
    }
}

#[test]
fn packed_products_of_every_width_and_group() {
    let _alone = alone();
    let dice = &mut Dice(1);
    for bits in 2..=8 {
        for group in [32, 64, 128] {
            for (kind, groups) in [(Kind::F32, 1), (Kind::F16, 3), (Kind::BF16, 9)] {
                if cfg!(miri) && (group != 32 || groups == 9) {
                    continue;
                }
                let w = Matrix::new(dice, kind, 19, groups * group, bits, group);
                check_packed(dice, Kind::F32, 5, &w);
                check_packed(dice, kind, 1, &w);
            }
        }
    }
}

#[test]
fn packed_products_of_every_number_of_rows() {
    let _alone = alone();
    let dice = &mut Dice(2);
    for rows in 1..=if cfg!(miri) { 5 } else { 34 } {
        let w = Matrix::new(dice, Kind::BF16, rows, 96, 4, 32);
        check_packed(dice, Kind::BF16, 1, &w);
    }
    let w = Matrix::new(dice, Kind::F16, 17, 128, 4, 64);
    for m in (0..=if cfg!(miri) { 5 } else { 27 }).chain(if cfg!(miri) { 0..0 } else { 240..243 }) {
        check_packed(dice, Kind::F32, m, &w);
    }
}

#[test]
fn packed_products_wider_than_a_panel() {
    let _alone = alone();
    if cfg!(miri) {
        return println!("skipped: too long for Miri");
    }
    let dice = &mut Dice(3);
    for (bits, group, cols) in [
        (4, 64, 1024),
        (4, 32, 1024 + 32),
        (3, 128, 2048 + 128),
        (8, 64, 3072 - 64),
        (2, 32, 1024 - 32),
    ] {
        let w = Matrix::new(dice, Kind::BF16, 35, cols, bits, group);
        check_packed(dice, Kind::F32, 3, &w);
    }
}

#[test]
fn dense_products_of_every_tail() {
    let _alone = alone();
    let dice = &mut Dice(4);
    for k in (0..if cfg!(miri) { 6 } else { 70 }).chain([129, 256, 257, 300]) {
        if cfg!(miri) && k > 200 {
            continue;
        }
        for w in KINDS {
            check_dense(dice, [Kind::F32, w, Kind::F32], [2, 18, k]);
        }
    }
    for m in 0..if cfg!(miri) { 4 } else { 26 } {
        for x in KINDS {
            check_dense(dice, [x, Kind::BF16, x], [m, 5, 33]);
        }
    }
}

#[test]
fn a_row_does_not_depend_on_others_or_on_threads() {
    let _alone = alone();
    let dice = &mut Dice(5);
    let (m, n, k) = if cfg!(miri) {
        (3, 9, 64)
    } else {
        (25, 700, 512)
    };
    let w = Matrix::new(dice, Kind::BF16, n, k, 4, 64);
    let dense = Numbers::new(Kind::BF16, dice.floats(n * k));
    let x = dice.floats(m * k);
    for isa in here() {
        assert!(isa.force());
        for way in [Some(Precision::Exact), Some(Precision::Fast), None] {
            let run = |x: &[f32], m: usize| {
                let mut out = vec![0f32; m * n];
                let (x, to) = (Floats::F32(x), FloatsMut::F32(&mut out));
                match way {
                    Some(precision) => packed_matmul_as(precision, x, m, &w.packed(), to),
                    None => dense_matmul(x, m, dense.slice(), n, k, to),
                }
                out
            };
            set_threads(3);
            let together = run(&x, m);
            set_threads(1);
            assert!(run(&x, m) == together, "{isa} {way:?}: threads");
            for i in 0..m {
                let single = run(&x[i * k..][..k], 1);
                assert!(single == together[i * n..][..n], "{isa} {way:?}: row {i}");
            }
        }
    }
    set_threads(0);
}

#[test]
fn blocks_come_to_the_same_bits() {
    let _alone = alone();
    let dice = &mut Dice(12);
    let (rows, cols): (&[usize], &[usize]) = match cfg!(miri) {
        true => (&[37], &[128]),
        false => (&[5, 16, 43, 534], &[128, 1152]),
    };
    let sizes = rows.iter().flat_map(|n| cols.iter().map(|k| (*n, *k)));
    for ((n, k), bits) in sizes.flat_map(|size| [2, 4, 8].map(|bits| (size, bits))) {
        let kind = KINDS[n / 16 % 3];
        let group = [32, 64, 128][k / 128 % 3];
        let w = Matrix::new(dice, kind, n, k, bits, group);
        let turned = w.in_blocks();
        assert_eq!(turned.packed().check(), Ok(()));
        for m in [1, 3, 17] {
            let x = Numbers::new(Kind::F32, dice.floats(m * k));
            for isa in here() {
                assert!(isa.force());
                for (threads, precision) in [
                    (1, Precision::Fast),
                    (3, Precision::Fast),
                    (3, Precision::Exact),
                ] {
                    set_threads(threads);
                    let product = |w: &Matrix| {
                        let mut out = Numbers::room(Kind::F32, m * n);
                        packed_matmul_as(precision, x.slice(), m, &w.packed(), out.slice_mut());
                        out
                    };
                    assert!(
                        same(&product(&w), &product(&turned)),
                        "{isa}: {m} x {n} x {k}, {bits} bits, {group}, {kind:?}, {precision:?}"
                    );
                }
            }
        }
        let ids: Vec<u32> = (0..n as u32).rev().step_by(3).collect();
        let rows = |w: &Matrix| {
            let mut out = Numbers::room(Kind::F32, ids.len() * k);
            packed_rows(&ids, &w.packed(), out.slice_mut());
            out
        };
        assert!(same(&rows(&w), &rows(&turned)), "{bits} bits: rows");
    }
    set_threads(0);
}

#[test]
fn numbers_that_are_not_finite_stay_so() {
    let _alone = alone();
    let dice = &mut Dice(6);
    let w = Matrix::new(dice, Kind::F16, 18, 128, 4, 64);
    for isa in here() {
        assert!(isa.force());
        for bad in [f32::NAN, f32::INFINITY] {
            for precision in [Precision::Exact, Precision::Fast] {
                let mut x = dice.floats(2 * 128);
                x[128 + 77] = bad;
                let mut out = [0f32; 36];
                let to = FloatsMut::F32(&mut out);
                packed_matmul_as(precision, Floats::F32(&x), 2, &w.packed(), to);
                assert!(out[..18].iter().all(|v| v.is_finite()), "{isa}");
                assert!(
                    !out[18..].iter().any(|v| v.is_finite()),
                    "{isa} {precision:?}"
                );
            }
        }
    }
}

#[test]
fn the_width_says_which_are_fast() {
    let _alone = alone();
    let dice = &mut Dice(9);
    let x = dice.floats(3 * 64);
    for (bits, fast, wanted) in [
        (4, 0, Precision::Exact),
        (4, 4, Precision::Fast),
        (8, 4, Precision::Exact),
        (8, 8, Precision::Fast),
    ] {
        let w = Matrix::new(dice, Kind::F32, 21, 64, bits, 32);
        let [mut found, mut same, mut other] = [[0f32; 63]; 3];
        let unwanted = match wanted {
            Precision::Exact => Precision::Fast,
            Precision::Fast => Precision::Exact,
        };
        set_fast(fast);
        let x = Floats::F32(&x);
        packed_matmul(x, 3, &w.packed(), FloatsMut::F32(&mut found));
        packed_matmul_as(wanted, x, 3, &w.packed(), FloatsMut::F32(&mut same));
        packed_matmul_as(unwanted, x, 3, &w.packed(), FloatsMut::F32(&mut other));
        assert!(
            found == same && found != other,
            "{bits} bits, fast up to {fast}"
        );
    }
    set_fast(0);
}

#[test]
fn rows_are_unpacked() {
    let dice = &mut Dice(7);
    for bits in 2..=8 {
        for kind in KINDS {
            let w = Matrix::new(dice, kind, 7, 96, bits, 32);
            let ids = [6, 0, 3, 3];
            let mut out = Numbers::room(Kind::F32, 4 * 96);
            packed_rows(&ids, &w.packed(), out.slice_mut());
            for (i, id) in ids.iter().enumerate() {
                for col in 0..96 {
                    let (found, sum) = (out.at(i * 96 + col), w.at(*id as usize, col));
                    assert!(
                        (found - sum).abs() <= 1e-6 * (sum.abs() + 1.0),
                        "{bits} {kind:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let dice = &mut Dice(8);
    let w = Matrix::new(dice, Kind::F32, 3, 64, 4, 32);
    let good = w.packed();
    assert_eq!(good.check(), Ok(()));
    for (bad, named) in [
        (Packed { bits: 9, ..good }, "9 bits"),
        (
            Packed {
                group_size: 48,
                ..good
            },
            "groups of 48",
        ),
        (
            Packed {
                group_size: 128,
                ..good
            },
            "64 columns",
        ),
        (Packed { rows: 4, ..good }, "24 codes for 4 rows"),
        (
            Packed {
                order: Order::Blocks,
                bits: 3,
                ..good
            },
            "blocks of 3 bits",
        ),
        (
            Packed {
                rows: usize::MAX,
                ..good
            },
            "codes",
        ),
        (
            Packed {
                scales: Floats::F32(&[]),
                ..good
            },
            "0 scales",
        ),
        (
            Packed {
                biases: Floats::F32(&[]),
                ..good
            },
            "0 biases",
        ),
    ] {
        let message = bad.check().unwrap_err().to_string();
        assert!(message.contains(named), "{message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 3 } else { 64 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_packed_product(
        seed: u64, m in 0..20usize, n in 1..40usize, groups in 1..12usize,
        size in 0..3usize, bits in 2..=8u8, x in 0..3usize, s in 0..3usize,
    ) {
        let _alone = alone();
        let dice = &mut Dice(seed);
        let size = [32, 64, 128][size];
        let w = Matrix::new(dice, KINDS[s], n, groups * size, bits, size);
        check_packed(dice, KINDS[x], m, &w);
        if matches!(bits, 2 | 4 | 8) {
            check_packed(dice, KINDS[x], m, &w.in_blocks());
        }
    }

    #[test]
    fn any_dense_product(
        seed: u64, m in 0..20usize, n in 1..40usize, k in 0..400usize,
        kinds in [0..3usize, 0..3usize, 0..3usize],
    ) {
        let _alone = alone();
        check_dense(&mut Dice(seed), kinds.map(|kind| KINDS[kind]), [m, n, k]);
    }
}

#[test]
fn several_products_in_one_go_are_each_alone() {
    let _alone = alone();
    let dice = &mut Dice(11);
    for (bits, other) in [(4, 4), (3, 8)] {
        for m in [1, 3, 17] {
            let x = Numbers::new(Kind::F32, dice.floats(m * 128));
            let w = [(300, bits), (5, other), (40, bits)]
                .map(|(n, bits)| Matrix::new(dice, Kind::BF16, n, 128, bits, 64));
            let mut alone = w.each_ref().map(|w| Numbers::room(Kind::F32, m * w.rows));
            let mut joint = alone.clone();
            set_fast(6);
            for (w, out) in w.iter().zip(&mut alone) {
                packed_matmul(x.slice(), m, &w.packed(), out.slice_mut());
            }
            let packed = w.each_ref().map(Matrix::packed);
            let [a, b, c] = joint.each_mut().map(Numbers::slice_mut);
            let products = [(&packed[0], a), (&packed[1], b), (&packed[2], c)];
            packed_matmuls(x.slice(), m, products);
            set_fast(0);
            assert!(
                alone.iter().zip(&joint).all(|(a, b)| same(a, b)),
                "{m} rows"
            );
        }
    }
}
