//! Drives the server with the official clients of the APIs that it speaks.

use std::fs;
use std::process::Command;

use crate::macos::target_dir;
use crate::sh::{Result, cargo, root, run};
use crate::vendor::vendor;

/// Builds the binary, installs the clients by hash beside it, and runs `tests/clients` with both;
/// `arguments` go to `python -m unittest`.
///
/// # Errors
/// Whichever command failed first.
pub fn clients(arguments: &[String]) -> Result {
    vendor(&[])?;
    run(cargo().args(["build", "--package", "pensieve"]))?;
    let folder = root().join("tests/clients");
    let requirements = folder.join("requirements.txt");
    let wanted = fs::read_to_string(&requirements)
        .map_err(|e| format!("{}: {e}", requirements.display()))?;
    let place = target_dir().join("clients");
    let stamp = place.join("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        eprintln!("the clients in {} are as pinned", place.display());
    } else {
        // It may not be there.
        let _ = fs::remove_dir_all(&place);
        // A folder of packages needs no virtual environment, which a bare Debian cannot make.
        run(Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--require-hashes"])
            .args(["--disable-pip-version-check", "--target"])
            .arg(&place)
            .arg("--requirement")
            .arg(&requirements))?;
        fs::write(&stamp, wanted).map_err(|e| format!("{}: {e}", stamp.display()))?;
    }
    let binary = target_dir().join("debug/pensieve");
    let all = ["discover".into(), "-v".into()];
    let tests = if arguments.is_empty() {
        &all[..]
    } else {
        arguments
    };
    run(Command::new("python3")
        .args(["-B", "-m", "unittest"])
        .args(tests)
        .current_dir(&folder)
        .env("PYTHONPATH", &place)
        .env("PENSIEVE_BINARY", &binary))
}
