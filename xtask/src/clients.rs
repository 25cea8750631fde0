//! Drives the server with the official clients of the APIs that it speaks, and with what builds on them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::macos::target_dir;
use crate::sh::{Result, cargo, root, run};
use crate::vendor::vendor;

/// Builds the binary, installs the clients by hash beside it, and runs `tests/clients` with both; with `--all` LiteLLM
/// and lm-evaluation-harness come after them, which take longer to install. Other arguments go to `python -m unittest`.
///
/// # Errors
/// Whichever command failed first.
pub fn clients(arguments: &[String]) -> Result {
    vendor(&[])?;
    run(cargo().args(["build", "--package", "pensieve"]))?;
    let (all, arguments): (Vec<_>, Vec<_>) = arguments.iter().partition(|a| *a == "--all");
    let folder = root().join("tests/clients");
    let light = install(&folder, "clients")?;
    unittest(&folder, &light, &arguments)?;
    if all.is_empty() {
        return Ok(());
    }
    // LiteLLM wants an older `openai`, so they have a place of their own.
    let folder = folder.join("heavy");
    let heavy = install(&folder, "clients-heavy")?;
    unittest(&folder, &heavy, &[])
}

/// The folder below target/ with the packages of `folder`'s requirements.txt.
fn install(folder: &Path, name: &str) -> Result<PathBuf> {
    let requirements = folder.join("requirements.txt");
    let wanted = fs::read_to_string(&requirements)
        .map_err(|e| format!("{}: {e}", requirements.display()))?;
    let place = target_dir().join(name);
    let stamp = place.join("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        eprintln!("the clients in {} are as pinned", place.display());
        return Ok(place);
    }
    // It may not be there.
    let _ = fs::remove_dir_all(&place);
    // A folder of packages needs no virtual environment, which a bare Debian cannot make.
    run(Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--require-hashes"])
        .args(["--disable-pip-version-check", "--no-deps", "--target"])
        .arg(&place)
        .arg("--requirement")
        .arg(&requirements))?;
    fs::write(&stamp, wanted).map_err(|e| format!("{}: {e}", stamp.display()))?;
    Ok(place)
}

fn unittest(folder: &Path, packages: &Path, arguments: &[&String]) -> Result {
    let mut command = Command::new("python3");
    command.args(["-B", "-m", "unittest"]);
    match arguments {
        [] => command.args(["discover", "-v"]),
        some => command.args(some),
    };
    run(command
        .current_dir(folder)
        .env("PYTHONPATH", packages)
        .env("PENSIEVE_BINARY", target_dir().join("debug/pensieve")))
}
