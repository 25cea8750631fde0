//! Packs a staged folder into a tar.gz that depends on its content alone, and writes SHA256SUMS.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{date, read};
use crate::sh::{Result, run};

/// Packs `staged` into `out`, under its own name.
///
/// # Errors
/// What GNU tar or gzip say.
pub fn pack(staged: &Path, out: &Path) -> Result<PathBuf> {
    let name = staged.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| format!("{}: has no name", staged.display()))?;
    let file = out.join(format!("{name}.tar.gz"));
    let partial = out.join(format!("{name}.tar.gz.partial"));
    let to = File::create(&partial).map_err(|e| format!("{}: {e}", partial.display()))?;
    let mut tar = Command::new("tar")
        .env("LC_ALL", "C")
        .args(["--create", "--sort=name", "--format=gnu", "--numeric-owner"])
        .args(["--owner=0", "--group=0", "--mode=u+rw,go+r,go-w,a+X"])
        .arg(format!("--mtime=@{}", date()?))
        .arg("--directory")
        .arg(staged.parent().unwrap_or(staged))
        .arg(name)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("tar could not be started: {e}"))?;
    let content = tar.stdout.take().ok_or("tar has no output")?;
    // Without -n the time would be in it.
    run(Command::new("gzip")
        .args(["-9", "-n"])
        .stdin(content)
        .stdout(to))?;
    let status = tar.wait().map_err(|e| format!("tar: {e}"))?;
    if !status.success() {
        return Err(format!("tar of {} ended with {status}", staged.display()));
    }
    fs::rename(&partial, &file).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(file)
}

/// Writes the SHA-256 of everything else in `out` to SHA256SUMS, as `sha256sum` does.
///
/// # Errors
/// What cannot be read or written.
pub fn sums(out: &Path) -> Result {
    let mut names = Vec::new();
    for entry in fs::read_dir(out).map_err(|e| format!("{}: {e}", out.display()))? {
        let entry = entry.map_err(|e| format!("{}: {e}", out.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "SHA256SUMS" && !name.ends_with(".partial") && entry.path().is_file() {
            names.push(name);
        }
    }
    names.sort();
    let mut text = String::new();
    for name in names {
        let _ = writeln!(text, "{}  {name}", sha256(&read(&out.join(&name))?));
    }
    super::write(&out.join("SHA256SUMS"), &text)
}

/// SHA-256 in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_does_not_know_when_and_in_which_order_its_files_were_written() {
        let place = std::env::temp_dir().join(format!("pensieve-pack-{}", std::process::id()));
        let made = |folder: &str, files: [&str; 2]| {
            let staged = place.join(folder).join("pensieve-1");
            for file in files {
                super::super::write(&staged.join(file), file).expect("a file");
            }
            let archive = pack(&staged, &place.join(folder)).expect("an archive");
            read(&archive).expect("its bytes")
        };
        let first = made("a", ["bin/x", "share/y"]);
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let second = made("b", ["share/y", "bin/x"]);
        sums(&place.join("b")).expect("sums");
        let checked = Command::new("sha256sum")
            .args(["--check", "--strict", "SHA256SUMS"])
            .current_dir(place.join("b"))
            .output();
        fs::remove_dir_all(&place).expect("the folder goes");
        assert_eq!(first, second);
        assert!(checked.expect("sha256sum runs").status.success());
    }
}
