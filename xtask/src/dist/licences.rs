//! The licences of what is in an archive: one file of all crates' texts, and those of the libraries.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::sbom::{Crate, dist_info};
use super::stage::files;
use super::{Target, copy, write};
use crate::sh::{Result, root};
use crate::vendor::fetched;

/// Where Debian keeps what the libraries of gcc are under.
const OF_GCC: [(&str, &str); 2] = [
    ("/usr/share/doc/libstdc++6/copyright", "gcc.txt"),
    ("/usr/share/common-licenses/GPL-3", "GPL-3.txt"),
];

/// Writes them under `doc`.
///
/// # Errors
/// A text that is not where it should be.
pub fn write_all(target: Target, crates: &[Crate], doc: &Path) -> Result {
    let folder = doc.join("licences");
    write(&folder.join("crates.txt"), &texts(crates)?)?;
    copy(&fetched("mlx-c").join("LICENSE"), &folder.join("mlx-c.txt"))?;
    let of_mlx = dist_info(target)?.ok_or("the wheel of MLX has no metadata")?;
    let mut found = false;
    for file in files(&of_mlx.join("licenses"))? {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        copy(&file, &folder.join(format!("mlx-{name}.txt")))?;
        found = true;
    }
    if !found {
        return Err(format!("{}: no licence in it", of_mlx.display()));
    }
    if target == Target::Macos {
        return Ok(());
    }
    let lapack = root().join("packaging/licences/LAPACK.txt");
    copy(&lapack, &folder.join("LAPACK.txt"))?;
    for (from, name) in OF_GCC {
        copy(Path::new(from), &folder.join(name))
            .map_err(|e| format!("{e}\nlibstdc++'s licence is taken from Debian: build there"))?;
    }
    Ok(())
}

/// All crates, and each text once with the crates that have it.
fn texts(crates: &[Crate]) -> Result<String> {
    let mut by_text: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut all = String::from("The crates in this program, with the licences that they name:\n\n");
    for of in crates {
        let licence = of.licence.as_deref().unwrap_or("see below");
        let _ = writeln!(all, "  {} {}: {licence}", of.name, of.version);
        let fail = |e| format!("{}: {e}", of.folder.display());
        for entry in fs::read_dir(&of.folder).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .to_uppercase();
            let known = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "COPYRIGHT"];
            if !path.is_file() || !known.iter().any(|start| name.starts_with(start)) {
                continue;
            }
            // Not every text is UTF-8.
            let bytes = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
            by_text
                .entry(text.trim_end().to_owned())
                .or_default()
                .push(&of.name);
        }
    }
    let mut parts: Vec<(Vec<&str>, String)> = Vec::new();
    for (text, mut names) in by_text {
        names.sort_unstable();
        names.dedup();
        parts.push((names, text));
    }
    parts.sort();
    for (names, text) in parts {
        let _ = write!(
            all,
            "\n{}\nof {}\n\n{text}\n",
            "=".repeat(80),
            names.join(", ")
        );
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_two_crates_stands_once() {
        let place = std::env::temp_dir().join(format!("pensieve-texts-{}", std::process::id()));
        let made = |name: &str, text: &str| {
            write(&place.join(name).join("LICENSE-MIT"), text).expect("a file");
            Crate {
                name: name.into(),
                version: "1.0.0".into(),
                licence: Some("MIT".into()),
                checksum: None,
                folder: place.join(name),
                uses: Vec::new(),
            }
        };
        let crates = [made("a", "as is"), made("b", "other"), made("c", "as is\n")];
        let all = texts(&crates);
        fs::remove_dir_all(&place).expect("the folder goes");
        let all = all.expect("texts");
        assert_eq!(all.matches("as is").count(), 1, "{all}");
        assert!(all.contains("of a, c\n") && all.contains("of b\n"), "{all}");
        assert!(all.contains("  b 1.0.0: MIT\n"), "{all}");
    }
}
