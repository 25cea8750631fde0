//! Renews `tests/golden/cases` with mlx-lm, in a virtual environment of its own under target/.

use std::process::Command;

use crate::macos::target_dir;
use crate::sh::{Result, output, root, run};

/// Installs by hash, generates, lets the oracle check, and says what changed.
///
/// # Errors
/// Whichever command failed first.
pub fn golden() -> Result {
    let folder = root().join("tests/golden");
    let environment = target_dir().join("golden-venv");
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&environment))
    .map_err(|e| format!("{e}\npython3 with venv is needed (Debian: apt install python3-venv)"))?;
    let python = environment.join("bin/python");
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--require-hashes"])
        .args(["--disable-pip-version-check", "--requirement"])
        .arg(folder.join("requirements.txt")))?;
    for script in ["generate.py", "oracle.py"] {
        run(Command::new(&python).arg(script).current_dir(&folder))?;
    }
    let changed = output(
        Command::new("git")
            .args(["status", "--short", "--", "tests/golden/cases"])
            .current_dir(root()),
    )?;
    if changed.is_empty() {
        println!("tests/golden/cases is unchanged");
    } else {
        println!("tests/golden/cases changed; look at it before you commit:\n{changed}");
    }
    Ok(())
}
