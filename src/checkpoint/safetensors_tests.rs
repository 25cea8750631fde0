//! Headers: valid ones are read back, damaged and hostile ones are refused.

use proptest::prelude::*;

use super::*;
use crate::checkpoint::fixture::{entry, file, image};

/// What [`parse`] promises of any header it accepts, counted anew from the bytes.
fn assert_sound(header: &Header, file: &[u8]) {
    let mut covered = vec![0u8; file.len()];
    for (name, info) in &header.tensors {
        assert!(info.range.end <= file.len(), "{name:?}");
        let elements: usize = info.shape.iter().product();
        assert_eq!(
            info.range.len(),
            elements * info.dtype.itemsize(),
            "{name:?}"
        );
        covered[info.range.clone()].iter_mut().for_each(|n| *n += 1);
    }
    let data_at = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    assert!(
        covered[..data_at].iter().all(|&n| n == 0),
        "a tensor lies in the header"
    );
    assert!(
        covered[data_at..].iter().all(|&n| n == 1),
        "a byte of data is not in one tensor"
    );
}

fn error(header: &str, data: usize) -> HeaderError {
    parse(&image(header, &vec![0; data])).unwrap_err()
}

fn json_problem(header: &str) -> String {
    match error(header, 4) {
        HeaderError::Json { problem } => problem,
        other => panic!("{header}: {other:?}"),
    }
}

#[test]
fn reads_tensors_and_metadata() {
    let header = r#"{"__metadata__":{"format":"mlx"},
        "b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},
        "a":{"dtype":"U32","shape":[],"data_offsets":[0,4]},
        "none":{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]}}   "#;
    let file = image(header, &[0; 16]);
    let at = 8 + header.len();
    let parsed = parse(&file).unwrap();
    assert_sound(&parsed, &file);
    assert_eq!(parsed.metadata["format"], "mlx");
    let info = |dtype, shape: &[usize], range| TensorInfo {
        dtype,
        shape: shape.to_vec(),
        range,
    };
    assert_eq!(parsed.tensors["a"], info(Dtype::U32, &[], at..at + 4));
    assert_eq!(
        parsed.tensors["b"],
        info(Dtype::BF16, &[2, 3], at + 4..at + 16)
    );
    assert_eq!(
        parsed.tensors["none"],
        info(Dtype::F32, &[0, 7], at + 4..at + 4)
    );
    assert_eq!(parsed.tensors.len(), 3);
}

#[test]
fn a_file_without_tensors_is_valid_and_without_data() {
    assert_eq!(parse(&image("{}", &[])).unwrap().tensors.len(), 0);
    assert_eq!(error("{}", 3), HeaderError::Gap { from: 0, to: 3 });
    assert_eq!(
        parse(&image(r#"{"__metadata__":null}"#, &[]))
            .unwrap()
            .metadata
            .len(),
        0
    );
}

#[test]
fn unknown_fields_of_an_entry_are_passed_over() {
    let header = r#"{"a":{"dtype":"U8","x":[[{}]],"shape":[1],"data_offsets":[0,1],"y":null}}"#;
    assert_eq!(parse(&image(header, &[0])).unwrap().tensors["a"].shape, [1]);
}

#[test]
fn every_dtype_is_known_by_its_name() {
    for &dtype in Dtype::ALL {
        assert_eq!(Dtype::from_name(dtype.name()), Some(dtype));
        let file = file(&[("x", dtype, &[3])]);
        let header = parse(&file).unwrap();
        assert_eq!(header.tensors["x"].dtype, dtype);
        assert_sound(&header, &file);
    }
    assert_eq!(Dtype::ALL.len(), 16);
    assert_eq!(Dtype::from_name("f32"), None);
}

#[test]
fn other_dtypes_are_refused_by_name() {
    let unknown = error(&format!("{{{}}}", entry("w", "Q4_K", &[1], 0, 1)), 1);
    assert_eq!(
        unknown,
        HeaderError::UnknownDtype {
            tensor: "w".into(),
            dtype: "Q4_K".into()
        }
    );
    let message = unknown.to_string();
    assert!(
        message.contains("\"Q4_K\"") && message.contains("BOOL, U8") && message.contains("U64"),
        "{message}"
    );
    let packed = error(&format!("{{{}}}", entry("w", "F4", &[2], 0, 1)), 1);
    assert_eq!(
        packed,
        HeaderError::SubByteDtype {
            tensor: "w".into(),
            dtype: "F4".into()
        }
    );
}

#[test]
fn the_length_is_checked_before_the_header() {
    assert_eq!(parse(&[]), Err(HeaderError::TooShort { found: 0 }));
    assert_eq!(parse(&[0; 7]), Err(HeaderError::TooShort { found: 7 }));
    for claimed in [MAX_HEADER + 1, 1 << 63, u64::MAX] {
        let file = [&claimed.to_le_bytes()[..], b"{}"].concat();
        assert_eq!(
            parse(&file),
            Err(HeaderError::HeaderTooLarge {
                claimed,
                limit: MAX_HEADER
            })
        );
    }
    for claimed in [3, MAX_HEADER] {
        let file = [&claimed.to_le_bytes()[..], b"{}"].concat();
        assert_eq!(
            parse(&file),
            Err(HeaderError::HeaderPastEnd { claimed, left: 2 })
        );
    }
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n";
    assert_eq!(parse(pointer), Err(HeaderError::LfsPointer));
}

#[test]
fn the_header_must_be_a_json_object_in_utf8() {
    let mut file = image("{\"abc\":1}", &[]);
    file[11] = 0xff;
    assert_eq!(parse(&file), Err(HeaderError::NotUtf8 { at: 3 }));
    for header in [
        "",
        "[]",
        " {}",
        "{",
        "{}x",
        "{}\0",
        "null",
        r#"{"a":[]}"#,
        r#"{"a":1}"#,
        r#"{"a":null}"#,
    ] {
        json_problem(header);
    }
    let deep = format!(r#"{{"a":{{"dtype":{}"#, "[".repeat(200_000));
    json_problem(&deep);
    let deep = format!(
        r#"{{"a":{{"x":{}{}}}}}"#,
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    json_problem(&deep);
}

#[test]
fn repeated_keys_are_refused_at_every_level() {
    let entry = r#"{"dtype":"U8","shape":[4],"data_offsets":[0,4]}"#;
    for (header, key) in [
        (
            format!(r#"{{"a":{entry},"a":{entry}}}"#),
            "duplicate key \"a\"",
        ),
        (
            format!(r#"{{"a":{entry},"\u0061":{entry}}}"#),
            "duplicate key \"a\"",
        ),
        (
            r#"{"__metadata__":{},"__metadata__":{}}"#.to_owned(),
            "duplicate key \"__metadata__\"",
        ),
        (
            r#"{"__metadata__":{"k":"1","k":"2"}}"#.to_owned(),
            "\"__metadata__\": duplicate key \"k\"",
        ),
        (
            r#"{"a":{"dtype":"U8","dtype":"I8","shape":[4],"data_offsets":[0,4]}}"#.to_owned(),
            "duplicate field `dtype`",
        ),
    ] {
        let problem = json_problem(&header);
        assert!(problem.contains(key), "{header}: {problem}");
    }
}

#[test]
fn shapes_and_offsets_must_be_whole_numbers() {
    for (shape, offsets) in [
        ("[-1]", "[0,4]"),
        ("[1e400]", "[0,4]"),
        ("[1e2]", "[0,4]"),
        ("[4.0]", "[0,4]"),
        ("[\"4\"]", "[0,4]"),
        ("[null]", "[0,4]"),
        ("[18446744073709551616]", "[0,4]"),
        ("4", "[0,4]"),
        ("[[4]]", "[0,4]"),
        ("[4]", "[0]"),
        ("[4]", "[0,4,4]"),
        ("[4]", "[-0.0,4]"),
        ("[4]", "[0,1e400]"),
        ("[4]", "[0,-4]"),
        ("[4]", "{}"),
    ] {
        let problem = json_problem(&format!(
            r#"{{"w.q":{{"dtype":"U8","shape":{shape},"data_offsets":{offsets}}}}}"#
        ));
        assert!(
            problem.contains("\"w.q\": ") || problem.contains("out of range"),
            "{shape} {offsets}: {problem}"
        );
    }
    for field in ["dtype", "shape", "data_offsets"] {
        let whole = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
        let problem = json_problem(&whole.replace(field, "other"));
        assert!(
            problem.contains(&format!("\"a\": missing field `{field}`")),
            "{problem}"
        );
    }
    assert!(
        json_problem(r#"{"__metadata__":{"format":1}}"#)
            .contains("\"__metadata__\": \"format\": invalid type")
    );
}

#[test]
fn sizes_are_checked_without_overflow() {
    let of = |shape: &str| {
        error(
            &format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[0,4]}}}}"#),
            4,
        )
    };
    let tensor = || "w".to_owned();
    assert_eq!(
        of("[2147483648]"),
        HeaderError::DimTooLarge {
            tensor: tensor(),
            dim: 1 << 31
        }
    );
    assert_eq!(
        of("[18446744073709551615]"),
        HeaderError::DimTooLarge {
            tensor: tensor(),
            dim: u64::MAX
        }
    );
    let huge = vec![i32::MAX as usize; 3];
    assert_eq!(
        of(&format!("{huge:?}")),
        HeaderError::TooLarge {
            tensor: tensor(),
            shape: huge
        }
    );
    let huge = [&[0], &[i32::MAX as usize; 3][..]].concat();
    assert_eq!(
        of(&format!("{huge:?}")),
        HeaderError::TooLarge {
            tensor: tensor(),
            shape: huge
        }
    );
    assert_eq!(
        of("[2]"),
        HeaderError::SizeMismatch {
            tensor: tensor(),
            dtype: Dtype::F32,
            shape: vec![2],
            expected: 8,
            found: 4
        }
    );
    assert!(
        of("[0]")
            .to_string()
            .contains("\"w\" has 4 bytes, expected 0 for F32 of shape [0]")
    );
}

#[test]
fn tensors_must_tile_the_data() {
    let of = |entries: &[String], data| error(&format!("{{{}}}", entries.join(",")), data);
    let u8s = |name, begin: usize, end| entry(name, "U8", &[end - begin], begin, end);
    assert_eq!(
        of(&[u8s("a", 0, 4)], 3),
        HeaderError::PastEnd {
            tensor: "a".into(),
            end: 4,
            data: 3
        }
    );
    assert_eq!(
        of(&[entry("a", "U8", &[1], 3, 2)], 3),
        HeaderError::Reversed {
            tensor: "a".into(),
            begin: 3,
            end: 2
        }
    );
    let max = usize::MAX;
    assert_eq!(
        of(&[entry("a", "U8", &[1], max - 1, max)], 3),
        HeaderError::PastEnd {
            tensor: "a".into(),
            end: u64::MAX,
            data: 3
        }
    );
    let overlap = |at| HeaderError::Overlap {
        first: "b".into(),
        second: "a".into(),
        at,
    };
    assert_eq!(of(&[u8s("a", 3, 6), u8s("b", 0, 4)], 6), overlap(3));
    assert_eq!(of(&[u8s("a", 2, 2), u8s("b", 0, 4)], 4), overlap(2));
    assert_eq!(
        of(&[u8s("a", 0, 4), u8s("b", 0, 4)], 4),
        HeaderError::Overlap {
            first: "a".into(),
            second: "b".into(),
            at: 0
        }
    );
    assert_eq!(
        of(&[u8s("a", 1, 4)], 4),
        HeaderError::Gap { from: 0, to: 1 }
    );
    assert_eq!(
        of(&[u8s("a", 0, 1), u8s("b", 3, 4)], 4),
        HeaderError::Gap { from: 1, to: 3 }
    );
    assert_eq!(
        of(&[u8s("a", 0, 4)], 9),
        HeaderError::Gap { from: 4, to: 9 }
    );
}

#[test]
fn messages_cut_and_escape_what_the_file_says() {
    let name = format!("\n\u{1b}[31m{}", "é".repeat(100_000));
    let message = error(&format!("{{{}}}", entry(&name, "F7", &[1], 0, 1)), 1).to_string();
    assert!(message.len() < 600, "{}", message.len());
    assert!(!message.contains(['\n', '\u{1b}']), "{message}");
    let message = error(&format!(r#"{{"a":"{}"}}"#, "x".repeat(100_000)), 0).to_string();
    assert!(message.len() < 700, "{}", message.len());
}

/// Tensors with unique names, some of no bytes.
fn tensors() -> impl Strategy<Value = Vec<(String, Dtype, Vec<usize>)>> {
    let dims = prop::collection::vec(0..5usize, 0..4);
    let one = (prop::sample::select(Dtype::ALL), dims);
    prop::collection::btree_map(".{0,12}", one, 0..8)
        .prop_map(|map| {
            map.into_iter()
                .map(|(name, (dtype, shape))| (name, dtype, shape))
                .collect::<Vec<_>>()
        })
        .prop_shuffle()
}

fn file_of(tensors: &[(String, Dtype, Vec<usize>)]) -> Vec<u8> {
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, dtype, shape)| (name.as_str(), *dtype, shape.as_slice()))
        .collect();
    file(&tensors)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn valid_files_round_trip(tensors in tensors()) {
        let file = file_of(&tensors);
        let header = parse(&file).unwrap();
        assert_sound(&header, &file);
        prop_assert_eq!(header.tensors.len(), tensors.len());
        for (name, dtype, shape) in &tensors {
            let info = &header.tensors[name];
            prop_assert_eq!((info.dtype, &info.shape), (*dtype, shape));
        }
    }

    #[test]
    fn changed_bytes_never_give_an_unsound_header(
        tensors in tensors(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut file = file_of(&tensors);
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Ok(header) = parse(&file) {
            assert_sound(&header, &file);
        }
    }

    #[test]
    fn digits_changed_for_digits_never_give_an_unsound_header(
        tensors in tensors(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), b'0'..=b'9'), 1..4),
    ) {
        let mut file = file_of(&tensors);
        let digits: Vec<_> = (8..file.len()).filter(|&at| file[at].is_ascii_digit()).collect();
        for (at, digit) in changes {
            if !digits.is_empty() {
                file[digits[at.index(digits.len())]] = digit;
            }
        }
        if let Ok(header) = parse(&file) {
            assert_sound(&header, &file);
        }
    }

    #[test]
    fn a_shorter_or_longer_file_is_refused(tensors in tensors(), cut in any::<prop::sample::Index>(), more in 1..9usize) {
        let whole = file_of(&tensors);
        prop_assert!(parse(&whole[..cut.index(whole.len())]).is_err());
        let longer = [&whole[..], &vec![0; more]].concat();
        prop_assert!(parse(&longer).is_err());
    }

    #[test]
    fn any_numbers_are_refused_or_sound(
        shape in prop::collection::vec(prop_oneof![any::<u64>(), 0..4u64], 0..4),
        begin in prop_oneof![any::<u64>(), 0..9u64],
        end in prop_oneof![any::<u64>(), 0..9u64],
        data in 0..9usize,
    ) {
        let header = format!(r#"{{"a":{{"dtype":"U16","shape":{shape:?},"data_offsets":[{begin},{end}]}}}}"#);
        let file = image(&header, &vec![0; data]);
        if let Ok(header) = parse(&file) {
            assert_sound(&header, &file);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_sound(bytes in prop::collection::vec(any::<u8>(), 0..64), header in ".{0,64}") {
        for file in [bytes.clone(), image(&header, &bytes)] {
            if let Ok(header) = parse(&file) {
                assert_sound(&header, &file);
            }
        }
    }
}
