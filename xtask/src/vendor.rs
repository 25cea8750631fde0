//! Fills `vendor/fetched` from package registries, by the pins in `vendor/`.
//!
//! The clients verify: cargo by the lock file's checksum, pip by `--require-hashes`. A `pin` file
//! in each folder says what it was made from, so a second run does nothing. What was not fetched
//! has an empty `pin`: mlx-sys watches all of them, and to cargo a missing file is a changed one,
//! which would compile mlx-c again in every build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sh::{Result, output, root, run};

/// What `cargo xtask vendor` can be asked for beside the default of the platform.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Extra {
    /// MLX's CUDA backend, for `--features cuda`.
    Cuda,
    /// MLX for macOS and the cross compiler, for `cargo xtask macos`.
    Macos,
}

/// Fetches what building on this machine needs, and the extras asked for.
pub fn vendor(extras: &[Extra]) -> Result {
    tools()?;
    mlx_c()?;
    if cfg!(target_os = "macos") {
        wheel("mlx-metal", &[])?;
    } else {
        wheel("mlx-cpu", &[])?;
        wheel("libclang", &[])?;
    }
    if extras.contains(&Extra::Cuda) {
        wheel("mlx-cuda", &[])?;
    }
    if extras.contains(&Extra::Macos) {
        wheel("ziglang", &[])?;
        if !cfg!(target_os = "macos") {
            wheel("mlx-metal", &["--platform", "macosx_14_0_arm64"])?;
        }
    }
    Ok(())
}

/// A C++ compiler and pip, from Debian's packages where a bare machine lacks them and we may.
fn tools() -> Result {
    let works = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.is_ok_and(|output| output.status.success())
    };
    let mut packages = Vec::new();
    if !works("c++", &["--version"]) && !works("g++", &["--version"]) {
        packages.push("g++");
    }
    if !works("python3", &["-m", "pip", "--version"]) {
        packages.push("python3-pip");
    }
    if packages.is_empty() {
        return Ok(());
    }
    let root = output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    let needed = packages.join(" ");
    if cfg!(target_os = "macos") {
        return Err("install the Command Line Tools: xcode-select --install".into());
    }
    if !root || !works("apt-get", &["--version"]) {
        return Err(format!(
            "this machine lacks {needed}; on Debian: apt install {needed}"
        ));
    }
    eprintln!("installing {needed}");
    run(Command::new("apt-get").args(["-qq", "update"]))?;
    run(Command::new("apt-get")
        .args(["-qq", "install", "--yes", "--no-install-recommends"])
        .args(&packages))
}

/// Where fetched things land.
pub fn fetched(name: &str) -> PathBuf {
    root().join("vendor/fetched").join(name)
}

/// mlx-c's sources, out of the crates.io package that carries them.
fn mlx_c() -> Result {
    let stub = root().join("vendor/mlx-c");
    let pin = read(&stub.join("Cargo.lock"))?;
    install("mlx-c", &pin, |to| {
        let manifest = stub.join("Cargo.toml");
        let json = output(
            Command::new(env!("CARGO"))
                .args(["metadata", "--format-version", "1", "--locked"])
                .arg("--manifest-path")
                .arg(&manifest),
        )?;
        let metadata: serde_json::Value =
            serde_json::from_str(&json).map_err(|e| format!("cargo metadata: {e}"))?;
        let found = metadata["packages"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|package| package["name"] == "mlx-sys")
            .and_then(|package| package["manifest_path"].as_str())
            .ok_or("cargo metadata names no package mlx-sys")?;
        let sources = Path::new(found).with_file_name("src").join("mlx-c");
        copy_tree(&sources, to)
    })
}

/// One wheel, by its requirements file with hashes, unpacked.
fn wheel(name: &str, platform: &[&str]) -> Result {
    let requirements = root().join("vendor/wheels").join(format!("{name}.txt"));
    let pin = read(&requirements)?;
    install(name, &pin, |to| {
        let download = to.join("download");
        run(Command::new("python3")
            .args(["-m", "pip", "download", "--quiet", "--no-deps"])
            .args(["--only-binary=:all:", "--require-hashes"])
            .arg("--disable-pip-version-check")
            .args(platform)
            .arg("--dest")
            .arg(&download)
            .arg("--requirement")
            .arg(&requirements))
        .map_err(|e| {
            format!("{e}\n{name} could not be fetched; python3 with pip is needed (Debian: apt install python3-pip)")
        })?;
        for file in fs::read_dir(&download).map_err(|e| format!("{}: {e}", download.display()))? {
            let file = file.map_err(|e| e.to_string())?.path();
            run(Command::new("python3")
                .args(["-m", "zipfile", "-e"])
                .arg(&file)
                .arg(to))?;
        }
        match name {
            "libclang" => unpack_data_dirs(to)?,
            // zipfile forgets which files are programs.
            "ziglang" => run(Command::new("chmod").arg("+x").arg(to.join("ziglang/zig")))?,
            _ => {}
        }
        fs::remove_dir_all(&download).map_err(|e| format!("{}: {e}", download.display()))
    })
}

/// A wheel may keep its files under `NAME.data/platlib`, which pip would move up when installing.
fn unpack_data_dirs(to: &Path) -> Result {
    let entries = fs::read_dir(to).map_err(|e| format!("{}: {e}", to.display()))?;
    for entry in entries.flatten() {
        let platlib = entry.path().join("platlib");
        if platlib.exists() {
            copy_tree(&platlib, to)?;
        }
    }
    Ok(())
}

/// Makes `fetched(name)` by `fill` unless it was made from the same pin; never leaves half a folder.
fn install(name: &str, pin: &str, fill: impl FnOnce(&Path) -> Result) -> Result {
    let target = fetched(name);
    if fs::read_to_string(target.join("pin")).is_ok_and(|made_from| made_from == pin) {
        return Ok(());
    }
    eprintln!("fetching {name}");
    let partial = fetched(&format!("{name}.partial"));
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial).map_err(|e| format!("{}: {e}", partial.display()))?;
    fill(&partial)?;
    fs::write(partial.join("pin"), pin).map_err(|e| format!("{}: {e}", partial.display()))?;
    let _ = fs::remove_dir_all(&target);
    fs::rename(&partial, &target).map_err(|e| format!("{}: {e}", target.display()))
}

fn copy_tree(from: &Path, to: &Path) -> Result {
    let fail = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
    fs::create_dir_all(to).map_err(|e| fail(to, e))?;
    for entry in fs::read_dir(from).map_err(|e| fail(from, e))? {
        let path = entry.map_err(|e| fail(from, e))?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_tree(&path, &target)?;
        } else {
            fs::copy(&path, &target).map_err(|e| fail(&path, e))?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}
