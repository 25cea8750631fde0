//! Safetensors images for tests, right and wrong ones.

use super::safetensors::Dtype;

/// A file of this header, whatever it says, and this data.
pub fn image(header: &str, data: &[u8]) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length, header.as_bytes(), data].concat()
}

/// One tensor's entry as it stands in a header.
pub fn entry(name: &str, dtype: &str, shape: &[usize], begin: usize, end: usize) -> String {
    let name = serde_json::Value::from(name);
    format!(r#"{name}:{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#)
}

/// A valid file of these tensors in this order, its data counting up from 0.
pub fn file(tensors: &[(&str, Dtype, &[usize])]) -> Vec<u8> {
    let (mut entries, mut at) = (Vec::new(), 0);
    for (name, dtype, shape) in tensors {
        let end = at + shape.iter().product::<usize>() * dtype.itemsize();
        entries.push(entry(name, dtype.name(), shape, at, end));
        at = end;
    }
    let data: Vec<u8> = (0..at).map(|i| i as u8).collect();
    image(&format!("{{{}}}", entries.join(",")), &data)
}
