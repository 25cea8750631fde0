//! Sizes in bytes as they are typed.

/// Reads a number of bytes: `1500000`, `512M`, `4G`, `4GiB`. Units are powers of 1024.
///
/// # Errors
/// If it is not a whole number with such a unit, or too large.
pub fn parse(text: &str) -> Result<usize, String> {
    let wrong = || {
        format!(
            "{text:?} is no size; expected a whole number of bytes, or one with K, M, G or T, such as 4G"
        )
    };
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: usize = number.parse().map_err(|_| wrong())?;
    let unit = unit.trim().to_ascii_lowercase();
    let shift = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" if unit.len() < 2 => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("1500000", 1_500_000),
            ("12b", 12),
            ("3k", 3 << 10),
            ("512M", 512 << 20),
            ("4GiB", 4 << 30),
            ("2 TB", 2 << 40),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "G",
            "1.5G",
            "-1",
            "4X",
            "4GG",
            "1ib",
            "99999999999999999999",
            "99999999999T",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
