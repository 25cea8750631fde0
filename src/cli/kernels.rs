//! What `pensieve doctor` says of the kernels of MLX for Metal: whether the file is there, and whether it
//! has those for the matrix units of newer chips.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::doctor::Finding;
use crate::hub::machine;

/// MLX's compiled kernels, which it looks for beside its library.
pub(super) fn finding() -> Finding {
    let binary = std::env::current_exe().and_then(|path| path.canonicalize());
    let folder = binary.ok().and_then(|path| Some(path.parent()?.to_owned()));
    let found = folder.as_deref().and_then(kernels_near);
    let Some(path) = found else {
        return Finding::note(
            "metallib",
            format!("{KERNELS} is not where an archive has it"),
            "fine for a binary that stays where it was built; otherwise install Pensieve again",
        );
    };
    let place = path.display();
    match has_newer_kernels(&path) {
        Ok(newer) => said(place.to_string(), newer, machine::chip().as_deref()),
        Err(e) => Finding::wrong(
            "metallib",
            format!("{place}: {e}"),
            "make the file readable, or install Pensieve again",
        ),
    }
}

const KERNELS: &str = "mlx.metallib";

/// The file of kernels that goes with a binary in `folder`: in an archive's place for it, or beside it.
fn kernels_near(folder: &Path) -> Option<PathBuf> {
    let places = ["../lib/pensieve", "", "../lib"];
    let mut places = places
        .map(|place| folder.join(place).join(KERNELS))
        .into_iter();
    places.find(|path| path.is_file())
}

/// Whether there are kernels in it for the matrix units that M5 was the first to have.
fn has_newer_kernels(path: &Path) -> std::io::Result<bool> {
    const NAME: &[u8] = b"_nax";
    let mut file = std::fs::File::open(path)?;
    let mut window = vec![0; 1 << 20];
    let mut kept = 0;
    loop {
        let read = file.read(&mut window[kept..])?;
        let filled = &window[..kept + read];
        if filled.windows(NAME.len()).any(|part| part == NAME) {
            return Ok(true);
        }
        if read == 0 {
            return Ok(false);
        }
        // The name may lie across two reads.
        let end = filled.len();
        kept = end.min(NAME.len() - 1);
        window.copy_within(end - kept..end, 0);
    }
}

/// What it means for this chip that there are such kernels or none.
fn said(place: String, newer: bool, chip: Option<&str>) -> Finding {
    let number = chip.and_then(|chip| chip.strip_prefix("Apple M"));
    let number = number.and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
    match (newer, number) {
        (true, _) => Finding::fine(
            "metallib",
            format!("{place}, with the matrix kernels of M5 and later"),
        ),
        (false, Some(5..)) => Finding::note(
            "metallib",
            format!("{place}, without the matrix kernels that this chip has the units for"),
            "prompts are computed slower so: build on macOS 26 (`cargo build --release`), whose MLX \
             has them",
        ),
        (false, _) => Finding::fine(
            "metallib",
            format!("{place}, without the matrix kernels of M5 and later"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::doctor::Level;
    use super::*;

    #[test]
    fn the_kernels_are_found_where_an_archive_has_them() {
        let prefix = tempfile::tempdir().unwrap();
        let bin = prefix.path().join("bin");
        let lib = prefix.path().join("lib/pensieve");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::create_dir_all(&lib).unwrap();
        assert_eq!(kernels_near(&bin), None);
        std::fs::write(bin.join(KERNELS), "").unwrap();
        assert_eq!(kernels_near(&bin), Some(bin.join(KERNELS)));
        std::fs::write(lib.join(KERNELS), "").unwrap();
        let found = kernels_near(&bin).unwrap().canonicalize().unwrap();
        assert_eq!(found, lib.join(KERNELS).canonicalize().unwrap());
    }

    #[test]
    fn newer_kernels_are_known_by_name_across_reads() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (at, newer) in [
            (0, true),
            ((1 << 20) - 2, true),
            (3_000_000, true),
            (0, false),
        ] {
            let mut content = vec![b'n'; 3_100_000];
            if newer {
                content[at..at + 4].copy_from_slice(b"_nax");
            }
            std::fs::write(file.path(), content).unwrap();
            assert_eq!(has_newer_kernels(file.path()).unwrap(), newer, "at {at}");
        }
        std::fs::write(file.path(), "").unwrap();
        assert!(!has_newer_kernels(file.path()).unwrap());
        assert!(has_newer_kernels(Path::new("/not/there")).is_err());
    }

    #[test]
    fn a_chip_that_could_use_newer_kernels_is_told_so() {
        let level = |newer, chip| said("x".into(), newer, chip).level;
        assert_eq!(level(true, Some("Apple M5 Max")), Level::Fine);
        assert_eq!(level(false, Some("Apple M5 Max")), Level::Note);
        assert_eq!(level(false, Some("Apple M12")), Level::Note);
        assert_eq!(level(false, Some("Apple M4")), Level::Fine);
        assert_eq!(level(false, None), Level::Fine);
    }
}
