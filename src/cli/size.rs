//! Sizes of memory as people write them.

use crate::engine::MemoryLimit;

/// Reads `12GB`, `8GiB`, `500 MB`, a bare number of bytes, or a share of the machine's memory such as
/// `75%`.
pub fn memory(text: &str) -> Result<MemoryLimit, String> {
    let Some(share) = text.trim().strip_suffix('%') else {
        return bytes(text).map(MemoryLimit::Bytes);
    };
    match share.trim().parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 100.0 => Ok(MemoryLimit::Percent(share)),
        _ => Err("expected a share above 0% and up to 100%".into()),
    }
}

/// Reads a number of bytes: `12GB` is 12 · 10⁹, `12GiB` and `12G` are 12 · 2³⁰.
pub fn bytes(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit: f64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1_048_576.0,
        "g" | "gib" => 1_073_741_824.0,
        "t" | "tib" => 1_099_511_627_776.0,
        other => {
            return Err(format!(
                "{other:?} is no unit; use kB, MB, GB, KiB, MiB or GiB"
            ));
        }
    };
    match number.parse::<f64>().map(|number| number * unit) {
        // Beyond this a float skips numbers, and no machine is that large.
        Ok(bytes) if (1.0..1e15).contains(&bytes) => Ok(bytes as usize),
        _ => Err("expected a size such as 12GB, 8GiB or 500MB".into()),
    }
}

/// The same, or 0 for nothing.
pub fn or_none(text: &str) -> Result<usize, String> {
    match text.trim() {
        "0" => Ok(0),
        text => bytes(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, expected) in [
            ("12GB", 12_000_000_000),
            ("12 gb", 12_000_000_000),
            ("8GiB", 8 << 30),
            ("1.5G", 3 << 29),
            ("500MB", 500_000_000),
            ("123456", 123_456),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for wrong in [
            "",
            "GB",
            "-1",
            "1e9",
            "12 GBs",
            "0",
            "1..2",
            "99999999TB",
            "NaN",
        ] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!((or_none("0"), or_none("2k")), (Ok(0), Ok(2048)));
        assert_eq!(memory("75%"), Ok(MemoryLimit::Percent(75.0)));
        assert_eq!(memory("2MiB"), Ok(MemoryLimit::Bytes(2 << 20)));
        for wrong in ["0%", "101%", "-3%", "%", "x%", "NaN%"] {
            assert!(memory(wrong).is_err(), "{wrong}");
        }
    }
}
