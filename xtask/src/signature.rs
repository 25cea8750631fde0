//! Checks the code signature of a Mach-O file as the kernel of macOS does before it runs a page: the
//! hash of every page against the list in the signature.
//!
//! The layout is that of Apple's `cs_blobs.h` (xnu): a big-endian super blob of blobs, of which the code
//! directory holds the hashes. An ad-hoc signature has these and no certificate, so nothing more can be
//! checked of it.

use crate::sh::Result;

const EMBEDDED_SIGNATURE: u32 = 0xfade_0cc0;
const CODE_DIRECTORY: u32 = 0xfade_0c02;
const SLOT_CODE_DIRECTORY: u32 = 0;
const HASH_SHA256: u8 = 2;

/// Checks the signature, which starts at `at` in `file`. Returns the count of pages.
///
/// # Errors
/// What is malformed, or the first page whose hash differs.
pub fn verify(file: &[u8], at: usize, size: usize) -> Result<usize> {
    let end = at.checked_add(size);
    let signature = end.and_then(|end| file.get(at..end));
    let signature = signature.ok_or("the signature lies beyond the file's end")?;
    let directory = blob(signature)?;
    let version = number(directory, 8)?;
    let (hashes, specials) = (
        number(directory, 16)? as usize,
        number(directory, 24)? as usize,
    );
    let (pages, limit) = (
        number(directory, 28)? as usize,
        number(directory, 32)? as usize,
    );
    let &[hash_size, hash_type, _, page_bits] = bytes::<4>(directory, 36)?;
    if version >= 0x2_0300 && bytes::<8>(directory, 56)? != &[0; 8] {
        return Err("a signature of more than 4 GiB is not known here".into());
    }
    if hash_type != HASH_SHA256 || hash_size != 32 || !(12..=16).contains(&page_bits) {
        return Err(format!(
            "hashes of type {hash_type} and {hash_size} bytes over 2^{page_bits} bytes; expected \
             SHA-256 over pages"
        ));
    }
    if limit != at {
        return Err(format!(
            "covers {limit} bytes, but the signature starts at {at}"
        ));
    }
    let code = &file[..at];
    let page_size = 1_usize << page_bits;
    if pages != code.len().div_ceil(page_size) {
        return Err(format!("has {pages} hashes for {} bytes", code.len()));
    }
    for (index, page) in code.chunks(page_size).enumerate() {
        let listed = bytes::<32>(directory, hashes + index * 32)?;
        if sha256(page) != *listed {
            return Err(format!("page {index} of {pages} is not the one signed"));
        }
    }
    // Beside the pages, the signature's other blobs are hashed, at negative places.
    for slot in 1..=specials {
        let before = slot
            .checked_mul(32)
            .and_then(|bytes| hashes.checked_sub(bytes));
        let listed = bytes::<32>(directory, before.ok_or("special hashes before the start")?)?;
        if let Some(other) = find(signature, slot as u32)?
            && sha256(other) != *listed
        {
            return Err(format!("blob {slot} is not the one signed"));
        }
    }
    Ok(pages)
}

/// The code directory, without what follows it.
fn blob(signature: &[u8]) -> Result<&[u8]> {
    if number(signature, 0)? != EMBEDDED_SIGNATURE {
        return Err("is no embedded signature".into());
    }
    let directory = find(signature, SLOT_CODE_DIRECTORY)?.ok_or("has no code directory")?;
    match number(directory, 0)? {
        CODE_DIRECTORY => Ok(directory),
        other => Err(format!(
            "a blob {other:#x} stands in the code directory's place"
        )),
    }
}

/// The blob in `slot`, by its own length.
fn find(signature: &[u8], slot: u32) -> Result<Option<&[u8]>> {
    let count = number(signature, 8)? as usize;
    for index in 0..count {
        let entry = 12 + index * 8;
        if number(signature, entry)? == slot {
            let start = number(signature, entry + 4)? as usize;
            let length = number(signature, start.saturating_add(4))? as usize;
            let end = start.checked_add(length);
            let found = end.and_then(|end| signature.get(start..end));
            return found
                .map(Some)
                .ok_or_else(|| format!("blob {slot} lies beyond the end"));
        }
    }
    Ok(None)
}

fn number(from: &[u8], at: usize) -> Result<u32> {
    bytes::<4>(from, at).map(|bytes| u32::from_be_bytes(*bytes))
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> Result<&[u8; N]> {
    let end = at.checked_add(N);
    let found = end.and_then(|end| from.get(at..end)?.try_into().ok());
    found.ok_or_else(|| format!("the signature ends before byte {at}"))
}

fn sha256(of: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, of);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Code of two pages and a bit, and a signature as `codesign -s -` writes it, with one more blob.
    fn signed() -> (Vec<u8>, usize) {
        let code: Vec<u8> = (0..9000_u32).map(|i| (i % 251) as u8).collect();
        let other: Vec<u8> = [0xfade_0c01_u32, 12, 0]
            .iter()
            .flat_map(|n| n.to_be_bytes())
            .collect();
        let (header, specials) = (44_u32, 2_u32);
        let hashes = header + specials * 32;
        let length = hashes + 3 * 32;
        let mut directory = Vec::new();
        let fields = [
            CODE_DIRECTORY,
            length,
            0x2_0100,
            2,
            hashes,
            0,
            specials,
            3,
            9000,
        ];
        directory.extend(fields.iter().flat_map(|n| n.to_be_bytes()));
        directory.extend([32, HASH_SHA256, 0, 12, 0, 0, 0, 0]);
        directory.extend(sha256(&other));
        directory.extend([0; 32]);
        for page in code.chunks(4096) {
            directory.extend(sha256(page));
        }
        let start = 12 + 2 * 8;
        let total = start + length + 12;
        let mut signature = Vec::new();
        let fields = [EMBEDDED_SIGNATURE, total, 2, 0, start, 2, start + length];
        signature.extend(fields.iter().flat_map(|n: &u32| n.to_be_bytes()));
        signature.extend(directory);
        signature.extend(other);
        let at = code.len();
        ([code, signature].concat(), at)
    }

    #[test]
    fn one_changed_byte_is_found_wherever_it_is() {
        let (good, at) = signed();
        assert_eq!(verify(&good, at, good.len() - at), Ok(3));
        for changed in [0, 4095, 4096, 8999, at, at + 12 + 16 + 36, good.len() - 1] {
            let mut bad = good.clone();
            bad[changed] ^= 1;
            assert!(verify(&bad, at, bad.len() - at).is_err(), "byte {changed}");
        }
    }

    #[test]
    fn no_length_in_it_is_trusted() {
        let (good, at) = signed();
        for cut in at..good.len() {
            assert!(verify(&good[..cut], at, cut - at).is_err(), "cut at {cut}");
            assert!(verify(&good, at, good.len() + 1).is_err());
        }
        // The three pages' hashes, after the index, the header and the two special hashes.
        let hashes = at + 28 + 44 + 64..at + 28 + 44 + 64 + 96;
        for word in (at..good.len()).step_by(4) {
            let mut bad = good.clone();
            bad.iter_mut()
                .skip(word)
                .take(4)
                .for_each(|byte| *byte = 0xff);
            let found = verify(&bad, at, bad.len() - at);
            assert!(found.is_err() || !hashes.contains(&word), "word at {word}");
        }
    }
}
