//! What this machine has: memory, room on a disk, its processor and system.

use std::path::Path;
use std::process::Command;

use super::error::{Result, io};

/// Bytes of memory, or what a container may take of them; none if the system does not say.
pub fn memory() -> Option<u64> {
    if cfg!(target_os = "macos") {
        return sysctl("hw.memsize")?.parse().ok();
    }
    let kibibytes = line_of("/proc/meminfo", "MemTotal:")?;
    let kibibytes: u64 = kibibytes.trim_end_matches("kB").trim().parse().ok()?;
    let all = kibibytes.checked_mul(1024)?;
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit = limit.and_then(|text| text.trim().parse().ok());
    Some(limit.map_or(all, |limit: u64| all.min(limit)))
}

/// The processor's name; none if the system does not say.
pub fn chip() -> Option<String> {
    match cfg!(target_os = "macos") {
        true => sysctl("machdep.cpu.brand_string"),
        false => line_of("/proc/cpuinfo", "model name").map(|name| {
            let name = name.trim_start_matches([' ', '\t', ':']);
            name.to_owned()
        }),
    }
}

/// The system's name and version.
pub fn system() -> String {
    let version = match cfg!(target_os = "macos") {
        true => output("sw_vers", &["-productVersion"]).map(|version| format!("macOS {version}")),
        false => {
            line_of("/etc/os-release", "PRETTY_NAME=").map(|name| name.trim_matches('"').to_owned())
        }
    };
    let version = version.unwrap_or_else(|| std::env::consts::OS.to_owned());
    format!("{version}, {}", std::env::consts::ARCH)
}

/// What `sysctl -n NAME` says, on macOS.
pub fn sysctl(name: &str) -> Option<String> {
    output("sysctl", &["-n", name])
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}

/// What follows `start` in the first line of `file` that begins so.
fn line_of(file: &str, start: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(start))?;
    Some(line.trim().to_owned())
}

/// Bytes that may still be written where `folder` is, or will be.
///
/// # Errors
/// What the system says.
pub fn free(folder: &Path) -> Result<u64> {
    let there = folder.ancestors().find(|path| path.exists());
    let there = there.unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(there);
    let stat = stat.map_err(|e| io("ask for the room in", there)(e.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_known() {
        assert!(memory().unwrap() > 1 << 28);
        assert!(!system().is_empty());
        let folder = tempfile::tempdir().unwrap();
        let later = folder.path().join("not/there/yet");
        let (here, there) = (free(folder.path()).unwrap(), free(&later).unwrap());
        assert!(here > 0 && here.abs_diff(there) < here / 2);
    }
}
