//! Reads the Linux binaries of a staged archive: what they load, from where, and which glibc they need.

use std::collections::{BTreeMap, BTreeSet};

use object::Endianness;
use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, FileHeader64};
use object::read::StringTable;
use object::read::elf::{Dyn, FileHeader};

use crate::sh::Result;

/// What a binary or library says about what it loads.
#[derive(Debug, Default)]
pub struct Loads {
    /// The libraries that it asks for by name.
    pub needed: BTreeSet<String>,
    /// Where it looks for them, and whether its libraries look there too (DT_RPATH).
    pub search: Vec<String>,
    /// Whether `search` counts for what its libraries need (DT_RPATH instead of DT_RUNPATH).
    pub inherited: bool,
    /// Library -> the versions asked of it, such as GLIBC_2.34.
    pub versions: BTreeMap<String, BTreeSet<String>>,
}

/// Reads them; none if `bytes` is no ELF file.
///
/// # Errors
/// What the file lacks or has wrong.
pub fn loads(bytes: &[u8]) -> Result<Option<Loads>> {
    if !bytes.starts_with(b"\x7fELF") {
        return Ok(None);
    }
    let header = FileHeader64::<Endianness>::parse(bytes).map_err(text)?;
    let endian = header.endian().map_err(text)?;
    let sections = header.sections(endian, bytes).map_err(text)?;
    let mut loads = Loads::default();
    if let Some((entries, strings)) = sections.dynamic(endian, bytes).map_err(text)? {
        let strings = sections.strings(endian, bytes, strings).map_err(text)?;
        for entry in entries {
            let (tag, value) = (entry.tag(endian), entry.val(endian));
            if [DT_NEEDED, DT_RPATH, DT_RUNPATH].contains(&tag) {
                let value = string(&strings, value as u32)?;
                match tag {
                    DT_NEEDED => drop(loads.needed.insert(value)),
                    _ => {
                        loads.inherited |= tag == DT_RPATH;
                        loads.search.extend(value.split(':').map(str::to_owned));
                    }
                }
            }
        }
    }
    if let Some((mut libraries, link)) = sections.gnu_verneed(endian, bytes).map_err(text)? {
        let strings = sections.strings(endian, bytes, link).map_err(text)?;
        while let Some((library, mut versions)) = libraries.next().map_err(text)? {
            let name = string(&strings, library.vn_file.get(endian))?;
            let names = loads.versions.entry(name).or_default();
            while let Some(version) = versions.next().map_err(text)? {
                names.insert(string(&strings, version.vna_name.get(endian))?);
            }
        }
    }
    Ok(Some(loads))
}

/// The newest GLIBC_ version among `versions`, as its numbers.
pub fn glibc<'a>(versions: impl IntoIterator<Item = &'a String>) -> Option<Vec<u32>> {
    let numbers = versions.into_iter().filter_map(|version| {
        let numbers = version.strip_prefix("GLIBC_")?.split('.');
        numbers.map(|number| number.parse().ok()).collect()
    });
    numbers.max()
}

fn string(strings: &StringTable, at: u32) -> Result<String> {
    let bytes = strings.get(at).map_err(|()| format!("no string at {at}"))?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

fn text(error: object::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_program_is_read() {
        let program = std::env::current_exe().expect("a path");
        let bytes = std::fs::read(program).expect("its bytes");
        let loads = loads(&bytes).expect("no error").expect("an ELF file");
        assert!(loads.needed.contains("libc.so.6"), "{loads:?}");
        let glibc = glibc(&loads.versions["libc.so.6"]).expect("a version");
        assert!(glibc >= vec![2, 2, 5], "{glibc:?}");
    }

    #[test]
    fn versions_are_compared_by_number() {
        let versions = ["GLIBC_2.9", "GLIBC_2.34", "GLIBC_2.2.5", "GLIBC_PRIVATE"];
        let versions = versions.map(str::to_owned);
        assert_eq!(glibc(&versions), Some(vec![2, 34]));
        assert_eq!(glibc(&[]), None);
    }
}
