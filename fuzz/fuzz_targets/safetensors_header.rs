//! Any bytes are refused, or give a header whose tensors tile the file's data exactly.
//!
//! Run with `cargo fuzz run -s none safetensors_header -- -dict=fuzz/safetensors_header.dict`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pensieve::checkpoint::safetensors::parse;

fuzz_target!(|input: &[u8]| {
    check(input);
    // The same bytes again as a header whose length is right, so that mutations reach past the
    // length: the first byte says how much data follows.
    if let Some((&data, header)) = input.split_first() {
        let length = (header.len() as u64).to_le_bytes();
        check(&[&length[..], header, &vec![0; data.into()]].concat());
    }
});

fn check(file: &[u8]) {
    let Ok(header) = parse(file) else { return };
    let mut covered = 0;
    for (name, info) in &header.tensors {
        assert!(
            info.range.end <= file.len(),
            "{name:?} lies outside the file"
        );
        let elements: usize = info.shape.iter().product();
        assert_eq!(
            info.range.len(),
            elements * info.dtype.itemsize(),
            "{name:?}"
        );
        covered += info.range.len();
    }
    let mut length = [0; 8];
    length.copy_from_slice(&file[..8]);
    let data = file.len() - 8 - u64::from_le_bytes(length) as usize;
    assert_eq!(covered, data, "the tensors do not cover the data once");
    let mut places: Vec<_> = header.tensors.values().map(|info| &info.range).collect();
    places.sort_by_key(|range| (range.start, range.end));
    assert!(
        places.windows(2).all(|pair| pair[0].end == pair[1].start),
        "tensors overlap"
    );
}
