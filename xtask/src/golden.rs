//! Renews `tests/golden/cases` and `tests/golden/converted` with mlx-lm, in virtual environments of its own
//! under target/.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::macos::target_dir;
use crate::sh::{Result, output, root, run};

/// Installs by hash, generates, lets the oracle check, and says what changed. `arguments` choose
/// cases, as in `-- --family llama`; the flag `--transformers` takes the names of tensors in
/// Hugging Face's layout from transformers and lets the second oracle check them.
///
/// # Errors
/// Whichever command failed first.
pub fn golden(arguments: &[String]) -> Result {
    let folder = root().join("tests/golden");
    // The dashes may stand before or after our own flag.
    let (flags, chosen): (Vec<_>, Vec<_>) = arguments
        .iter()
        .filter(|word| *word != "--")
        .partition(|word| *word == "--transformers");
    let python = environment("golden-venv", &folder.join("requirements.txt"))?;
    let script = |python: &Path, name: &str| {
        let mut command = Command::new(python);
        command.arg(name).args(&chosen).current_dir(&folder);
        command
    };
    let mut generate = script(&python, "generate.py");
    if flags.is_empty() {
        run(&mut generate)?;
        run(&mut script(&python, "oracle.py"))?;
    } else {
        let requirements = folder.join("requirements-transformers.txt");
        let torch = environment("golden-transformers-venv", &requirements)?;
        run(generate.arg("--transformers").arg(&torch))?;
        run(&mut script(&python, "oracle.py"))?;
        run(&mut script(&torch, "second_oracle.py"))?;
    }
    report("tests/golden/cases")
}

/// Has mlx-lm convert small checkpoints again. `arguments` choose cases, such as `llama`; `--transformers`
/// takes the names of tensors from transformers, which a new case needs.
///
/// # Errors
/// Whichever command failed first.
pub fn converted(arguments: &[String]) -> Result {
    let folder = root().join("tests/golden");
    let (flags, chosen): (Vec<_>, Vec<_>) = arguments
        .iter()
        .filter(|word| *word != "--")
        .partition(|word| *word == "--transformers");
    let python = environment("golden-venv", &folder.join("requirements.txt"))?;
    let mut convert = Command::new(python);
    convert.arg("convert.py").args(&chosen).current_dir(&folder);
    if !flags.is_empty() {
        let requirements = folder.join("requirements-transformers.txt");
        let torch = environment("golden-transformers-venv", &requirements)?;
        convert.arg("--transformers").arg(torch);
    }
    run(&mut convert)?;
    report("tests/golden/converted")
}

/// Says what git sees changed in a folder.
fn report(folder: &str) -> Result {
    let changed = output(
        Command::new("git")
            .args(["status", "--short", "--", folder])
            .current_dir(root()),
    )?;
    if changed.is_empty() {
        println!("{folder} is unchanged");
    } else {
        println!("{folder} changed; look at it before you commit:\n{changed}");
    }
    Ok(())
}

/// A fresh virtual environment with what `requirements` pins; returns its Python.
///
/// # Errors
/// What could not be installed.
pub fn environment(name: &str, requirements: &Path) -> Result<PathBuf> {
    let place = target_dir().join(name);
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&place))
    .map_err(|e| format!("{e}\npython3 with venv is needed (Debian: apt install python3-venv)"))?;
    let python = place.join("bin/python");
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--require-hashes"])
        .args(["--disable-pip-version-check", "--requirement"])
        .arg(requirements))?;
    Ok(python)
}
