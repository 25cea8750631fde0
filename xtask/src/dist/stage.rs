//! Fills the folder that becomes an archive, and checks that what is in it needs nothing else.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use super::{Target, copy, elf, licences, read, sbom, write};
use crate::macho;
use crate::macos;
use crate::sh::{Result, output, root, run};
use crate::vendor::fetched;

const LIB: &str = "lib/pensieve";
/// What comes with glibc, and so with every system that can run the binary.
pub const GLIBC: [&str; 7] = [
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libdl.so.2",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libutil.so.1",
];
/// What comes with gcc, and which the archive brings.
const GCC: [&str; 2] = ["libgcc_s.so.1", "libstdc++.so.6"];
/// What NVIDIA's driver brings, and what its wheels for CUDA 13 do (packaging/nvidia.txt).
const NVIDIA: [&str; 6] = [
    "libcuda.so.1",
    "libcublasLt.so.13",
    "libcudnn.so.9",
    "libcufft.so.12",
    "libnccl.so.2",
    "libnvrtc.so.13",
];
/// The glibc that docs/install.md promises to run on: that of Debian 12, whose libstdc++ comes along.
const OLDEST_GLIBC: [u32; 2] = [2, 36];

/// Fills `staged` anew. `host` is a binary that runs here, to print what it knows of itself.
///
/// # Errors
/// What is missing or cannot be written.
pub fn fill(target: Target, version: &str, binary: &Path, host: &Path, staged: &Path) -> Result {
    if staged.exists() {
        fs::remove_dir_all(staged).map_err(|e| format!("{}: {e}", staged.display()))?;
    }
    let program = staged.join("bin/pensieve");
    copy(binary, &program)?;
    run(Command::new("chmod").arg("0755").arg(&program))?;
    libraries(target, &staged.join(LIB))?;
    manual(host, &staged.join("share"))?;
    let doc = staged.join("share/doc/pensieve");
    for name in ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        copy(&root().join(name), &doc.join(name))?;
    }
    let examples: &[&str] = match target {
        Target::Macos => &["pensieve.toml", "ai.pensieve.server.plist"],
        Target::Linux | Target::Cuda => &["pensieve.toml", "pensieve.service"],
    };
    for name in examples {
        copy(
            &root().join("packaging").join(name),
            &doc.join("examples").join(name),
        )?;
    }
    if target == Target::Cuda {
        let pins = root().join("packaging/nvidia.txt");
        copy(&pins, &staged.join(LIB).join("nvidia.txt"))?;
    }
    let crates = sbom::crates(target)?;
    licences::write_all(target, &crates, &doc)?;
    let bill = sbom::bill(target, version, &crates, staged)?;
    write(&doc.join("sbom.cdx.json"), &bill)
}

/// MLX and what it loads. On Linux its wheel's folders stay as they are, since libmlx.so looks for its
/// own libraries, NVIDIA's and the headers of its kernels from where it lies.
fn libraries(target: Target, lib: &Path) -> Result {
    let wheel = fetched(target.wheel());
    let from = wheel.join("mlx/lib");
    match target {
        Target::Macos => {
            for name in ["libmlx.dylib", "libjaccl.dylib", "mlx.metallib"] {
                copy(&from.join(name), &lib.join(name))?;
            }
            return Ok(());
        }
        Target::Linux => tree(&wheel.join("mlx_cpu.libs"), &lib.join("mlx_cpu.libs"))?,
        Target::Cuda => {
            let libs = "mlx_cuda_13.libs";
            tree(&wheel.join(libs), &lib.join(libs))?;
            for headers in ["cccl", "cute", "cutlass"] {
                let headers = Path::new("mlx/include").join(headers);
                tree(&wheel.join(&headers), &lib.join(&headers))?;
            }
        }
    }
    copy(&from.join("libmlx.so"), &lib.join("mlx/lib/libmlx.so"))?;
    for name in GCC {
        copy(&of_gcc(name)?, &lib.join(name))?;
    }
    Ok(())
}

/// Where gcc has its own library.
pub fn of_gcc(name: &str) -> Result<PathBuf> {
    let found = output(Command::new("gcc").arg(format!("-print-file-name={name}")))?;
    let found = Path::new(found.trim());
    let path = found.canonicalize();
    path.map_err(|e| format!("gcc says that {name} is {}: {e}", found.display()))
}

fn tree(from: &Path, to: &Path) -> Result {
    for file in files(from)? {
        let name = file.strip_prefix(from).map_err(|e| e.to_string())?;
        copy(&file, &to.join(name))?;
    }
    Ok(())
}

/// Every file under `folder`, sorted.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let fail = |e| format!("{}: {e}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        match path.is_dir() {
            true => found.extend(files(&path)?),
            false => found.push(path),
        }
    }
    found.sort();
    Ok(found)
}

/// Manual pages and completions, from the program's own mouth.
fn manual(host: &Path, share: &Path) -> Result {
    let pensieve = || {
        let mut command = Command::new(host);
        // It is not where its libraries are.
        command.env("LD_LIBRARY_PATH", fetched("mlx-cpu").join("mlx/lib"));
        command
    };
    let pages = share.join("man/man1");
    run(pensieve().args(["man", "--out"]).arg(&pages))?;
    for (shell, place) in [
        ("bash", "bash-completion/completions/pensieve"),
        ("zsh", "zsh/site-functions/_pensieve"),
        ("fish", "fish/vendor_completions.d/pensieve.fish"),
    ] {
        let script = output(pensieve().args(["completions", shell]))?;
        write(&share.join(place), &script)?;
    }
    Ok(())
}

/// Checks a filled folder and returns lines to print. `nameless`: the program must not name the folder
/// that it was built in.
///
/// # Errors
/// The first file that would load from elsewhere, or is not signed right, or names this machine.
pub fn check(target: Target, staged: &Path, nameless: bool) -> Result<String> {
    let mut report = String::new();
    let (mut size, mut newest) = (0, None);
    let all = files(staged)?;
    let built_at = root().display().to_string();
    for file in &all {
        let bytes = read(file)?;
        size += bytes.len();
        let fail = |what: String| format!("{}: {what}", file.display());
        if nameless && file.ends_with("bin/pensieve") && contains(&bytes, built_at.as_bytes()) {
            return Err(fail(format!("names the folder {built_at} it was built in")));
        }
        if let Some(loads) = elf::loads(&bytes).map_err(fail)? {
            linux(target, staged, file, &loads).map_err(fail)?;
            let versions = loads.versions.values().flatten();
            newest = newest.max(elf::glibc(versions));
        } else if let Some(loads) = macho::loads(&bytes).map_err(fail)? {
            apple(staged, file, &loads).map_err(fail)?;
            let pages = macho::signed(file)?;
            let name = file.strip_prefix(staged).unwrap_or(file).display();
            let _ = writeln!(report, "  {name}: {pages} pages, each as signed");
        }
    }
    if target == Target::Macos {
        report += &macho::verify(&staged.join("bin/pensieve"), &macos::libmlx())?;
    } else {
        let newest = newest.ok_or("nothing in it needs glibc")?;
        if newest.as_slice() > OLDEST_GLIBC.as_slice() {
            return Err(format!(
                "needs glibc {newest:?}, newer than {OLDEST_GLIBC:?}: build on an older system"
            ));
        }
        let _ = writeln!(report, "  needs glibc {newest:?}");
    }
    let _ = writeln!(report, "  {} files, {size} bytes unpacked", all.len());
    Ok(report)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// All that `file` needs is in the archive where it looks, or is the system's, or NVIDIA's.
fn linux(target: Target, staged: &Path, file: &Path, loads: &elf::Loads) -> Result {
    let program = staged.join("bin/pensieve");
    let of_program = elf::loads(&read(&program)?)?.ok_or("bin/pensieve is no ELF file")?;
    if !of_program.inherited {
        return Err("the program's search path does not count for its libraries".into());
    }
    let search = places(staged, file, &loads.search, "$ORIGIN")?;
    let inherited = places(staged, &program, &of_program.search, "$ORIGIN")?;
    for name in &loads.needed {
        let elsewhere = GLIBC.contains(&name.as_str())
            || target == Target::Cuda && NVIDIA.contains(&name.as_str());
        let mut there = search.iter().chain(&inherited);
        if !elsewhere && !there.any(|place| place.join(name).exists()) {
            return Err(format!("needs {name}, which is nowhere that it looks"));
        }
    }
    Ok(())
}

/// As `linux`, for macOS, where all but the archive's own libraries have absolute names.
fn apple(staged: &Path, file: &Path, loads: &macho::Loads) -> Result {
    let search = places(staged, file, &loads.search, "@loader_path")?;
    for library in &loads.libraries {
        let found = match library.strip_prefix("@rpath/") {
            Some(name) => search.iter().any(|place| place.join(name).exists()),
            None => library.starts_with("/usr/lib/") || library.starts_with("/System/"),
        };
        if !found {
            return Err(format!("needs {library}, which is nowhere that it looks"));
        }
    }
    Ok(())
}

/// The folders that a search path leads to: all of them must start at the file itself and stay in the
/// archive.
fn places(
    staged: &Path,
    file: &Path,
    search: &[String],
    origin: &str,
) -> Result<BTreeSet<PathBuf>> {
    let here = file.parent().unwrap_or(staged);
    let mut found = BTreeSet::new();
    for path in search {
        let rest = path.strip_prefix(origin);
        let rest = rest.ok_or_else(|| format!("looks in {path}, expected {origin}/…"))?;
        let place = plain(&here.join(rest.trim_start_matches('/')));
        if !place.starts_with(staged) {
            return Err(format!("looks in {path}, which is outside of the archive"));
        }
        found.insert(place);
    }
    Ok(found)
}

/// A path without its `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_path_starts_at_the_file_and_stays_in_the_archive() {
        let (staged, file) = (Path::new("/s"), Path::new("/s/bin/pensieve"));
        let found = |path: &str| places(staged, file, &[path.to_owned()], "$ORIGIN");
        let lib = BTreeSet::from([PathBuf::from("/s/lib/pensieve")]);
        assert_eq!(found("$ORIGIN/../lib/pensieve"), Ok(lib));
        for outside in ["/work/lib", "$ORIGIN/../../lib", "lib"] {
            assert!(found(outside).is_err(), "{outside}");
        }
    }

    #[test]
    fn a_library_that_is_nowhere_is_found_out() {
        let gone = macho::Loads {
            libraries: vec![
                "/usr/lib/libSystem.B.dylib".into(),
                "@rpath/libx.dylib".into(),
            ],
            search: vec!["@loader_path/../lib".into()],
            signature: None,
        };
        let message = apple(Path::new("/s"), Path::new("/s/bin/p"), &gone);
        assert!(message.is_err_and(|message| message.contains("libx")));
    }
}
