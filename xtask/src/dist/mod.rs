//! Cuts a release: an archive for each platform, with its checksums, in `target/archives`.
//!
//! An archive unpacks to one folder that is a prefix: `bin/pensieve`, its libraries under
//! `lib/pensieve` as their wheels have them, and `share/` with manual pages, completions, licences and
//! the bill of materials. The same sources give the same archive: files are sorted, and dated with
//! the commit. Nothing in it may load from, or name, the place it was built in.

mod archive;
mod elf;
mod licences;
mod sbom;
mod stage;
mod try_out;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::macos::{self, target_dir};
use crate::sh::{Result, cargo, output, root, run};
use crate::vendor::{Extra, vendor};

/// What an archive is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Apple Silicon, Metal.
    Macos,
    /// x86-64, MLX's CPU backend.
    Linux,
    /// x86-64, MLX's CUDA backend.
    Cuda,
}

impl Target {
    const ALL: [Target; 3] = [Target::Linux, Target::Cuda, Target::Macos];

    /// As archives and `--target` spell it.
    pub fn name(self) -> &'static str {
        match self {
            Target::Macos => "macos-arm64",
            Target::Linux => "linux-x86_64",
            Target::Cuda => "linux-x86_64-cuda",
        }
    }

    /// As rustc calls it.
    fn triple(self) -> &'static str {
        match self {
            Target::Macos => macos::TARGET,
            Target::Linux | Target::Cuda => "x86_64-unknown-linux-gnu",
        }
    }

    /// The wheel of MLX in `vendor/fetched`.
    fn wheel(self) -> &'static str {
        match self {
            Target::Macos => "mlx-metal",
            Target::Linux => "mlx-cpu",
            Target::Cuda => "mlx-cuda",
        }
    }
}

/// What was asked for.
struct Options {
    targets: Vec<Target>,
    /// Run the Linux archive in a bare Debian root.
    try_out: bool,
    /// Take the binaries that an earlier run built.
    no_build: bool,
    /// Build with what `cargo build --release` made, for a trial: panics then name this machine's
    /// folders of crates.
    quick: bool,
}

fn options(arguments: &[String]) -> Result<Options> {
    let mut options = Options {
        targets: Vec::new(),
        try_out: false,
        no_build: false,
        quick: false,
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--try" => options.try_out = true,
            "--no-build" => options.no_build = true,
            "--quick" => options.quick = true,
            "--target" => {
                let name = arguments.next().map_or("nothing", String::as_str);
                let target = Target::ALL.into_iter().find(|t| t.name() == name);
                options.targets.push(target.ok_or_else(|| {
                    let names = Target::ALL.map(Target::name).join(", ");
                    format!("--target takes one of {names}, not {name}")
                })?);
            }
            other => {
                return Err(format!(
                    "dist takes --target NAME, --try, --no-build and --quick, not {other}"
                ));
            }
        }
    }
    if options.targets.is_empty() {
        options.targets.push(Target::Linux);
    }
    Ok(options)
}

/// The chore. Without `--target` it makes the archive for Linux on the CPU.
///
/// # Errors
/// What cannot be built, what is wrong with an archive, or what failed when it was tried.
pub fn dist(arguments: &[String]) -> Result {
    let options = options(arguments)?;
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err("archives are cut on Linux on x86_64, those for macOS too".into());
    }
    let version = version()?;
    let out = target_dir().join("archives");
    fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    // The manual and the completions are printed by the program, so one that runs here comes first.
    let host = binary(Target::Linux, &options)?;
    for &target in &options.targets {
        let binary = match target {
            Target::Linux => host.clone(),
            Target::Cuda | Target::Macos => binary(target, &options)?,
        };
        let name = format!("pensieve-{version}-{}", target.name());
        let staged = target_dir().join("stage").join(&name);
        stage::fill(target, &version, &binary, &host, &staged)?;
        let check = stage::check(target, &staged, !options.quick)?;
        let file = archive::pack(&staged, &out)?;
        eprint!("dist: {}\n{check}", file.display());
    }
    let script = out.join("install.sh");
    copy(&root().join("packaging/install.sh"), &script)?;
    archive::sums(&out)?;
    if options.try_out {
        try_out::try_out(&out, &version)?;
    }
    Ok(())
}

/// Builds the binary for `target` and keeps a copy; returns the copy's place.
fn binary(target: Target, options: &Options) -> Result<PathBuf> {
    let kept = format!("stage/pensieve.{}", target.name());
    let kept = target_dir().join(kept);
    if options.no_build && kept.exists() {
        return Ok(kept);
    }
    let profile = if options.quick { "release" } else { "dist" };
    let flags = match options.quick {
        true => Vec::new(),
        false => vec![
            ("RUSTFLAGS", remapped("--remap-path-prefix")),
            ("CFLAGS", remapped("-ffile-prefix-map")),
            ("CXXFLAGS", remapped("-ffile-prefix-map")),
        ],
    };
    let built = match target {
        Target::Macos => macos::build(profile, |command| {
            command.env("PENSIEVE_RELOCATABLE", "1").envs(flags.clone());
        })?,
        Target::Linux | Target::Cuda => {
            let cuda = target == Target::Cuda;
            vendor(if cuda { &[Extra::Cuda] } else { &[] })?;
            let features: &[&str] = if cuda { &["--features", "cuda"] } else { &[] };
            run(cargo()
                .args(["build", "--profile", profile, "--locked"])
                .args(["--package", "pensieve"])
                .args(features)
                .env("PENSIEVE_RELOCATABLE", "1")
                .envs(flags))?;
            target_dir().join(profile).join("pensieve")
        }
    };
    copy(&built, &kept)?;
    Ok(kept)
}

/// Flags that keep this machine's folders out of what a compiler writes. mlx-c has its files' names in
/// its errors, and crates theirs in panics.
fn remapped(option: &str) -> String {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| Some(home?.join(".cargo")));
    let mut flags = format!("{option}={}=pensieve", root().display());
    if let Some(folder) = cargo_home {
        flags += &format!(" {option}={}=cargo", folder.display());
    }
    flags
}

/// The version in Cargo.toml.
fn version() -> Result<String> {
    let manifest = root().join("Cargo.toml");
    let text = fs::read_to_string(&manifest).map_err(|e| format!("{}: {e}", manifest.display()))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("version = "));
    let version = line.ok_or_else(|| format!("{}: no version in it", manifest.display()))?;
    Ok(version.trim_matches('"').to_owned())
}

/// The time of the commit in seconds since 1970, or what SOURCE_DATE_EPOCH says.
fn date() -> Result<u64> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => {
            output(
                Command::new("git")
                    .current_dir(root())
                    .args(["log", "-1", "--format=%ct"]),
            )?
        }
    };
    let text = text.trim();
    let fail = |e| format!("the commit's date is {text:?}, expected seconds since 1970: {e}");
    text.parse().map_err(fail)
}

fn copy(from: &Path, to: &Path) -> Result {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let copied = fs::copy(from, to);
    copied.map_err(|e| format!("{} to {}: {e}", from.display(), to.display()))?;
    Ok(())
}

fn write(path: &Path, text: &str) -> Result {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn targets_are_named_as_their_archives() {
        let all = options(&given(
            "--target macos-arm64 --target linux-x86_64-cuda --try",
        ));
        let all = all.expect("good arguments");
        assert_eq!(all.targets, [Target::Macos, Target::Cuda]);
        assert!(all.try_out && !all.no_build && !all.quick);
        assert_eq!(options(&[]).expect("none is fine").targets, [Target::Linux]);
        for wrong in ["--target windows", "--target", "-x"] {
            let message = options(&given(wrong)).err().expect("an error");
            assert!(message.contains("not "), "{message}");
        }
    }
}
