//! How much memory there is for a model, and what share of it is taken unless the user says
//! otherwise.
//!
//! On a GPU it is what MLX says of the device; on a CPU the RAM, or less where a control group
//! bounds it (containers, systemd units).

use std::fmt;
use std::path::Path;

use super::memory::Bytes;
use crate::mlx::{self, Device, DeviceMemory, device_memory};

/// How much memory may be used, as a user asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum MemoryLimit {
    /// The device's default share: see `Machine::default_share`.
    #[default]
    Auto,
    /// So many bytes.
    Bytes(usize),
    /// So many hundredths of what the machine has.
    Percent(f64),
}

/// The memory that a device computes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Bytes in all.
    pub total: usize,
    /// Bytes that can be had at most now: less than all where others hold some (CUDA), or where
    /// the system recommends less (Metal).
    pub usable: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unified,
    Card,
    Ram,
    ControlGroup,
    /// Nothing says how much there is; MLX's own limit stands in.
    Unknown,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Unified => "unified memory",
            Kind::Card => "GPU memory",
            Kind::Ram => "RAM",
            Kind::ControlGroup => "the control group's memory limit",
            Kind::Unknown => "MLX's own limit",
        })
    }
}

impl Machine {
    /// What `device` has here.
    ///
    /// # Errors
    /// If MLX fails to describe its device.
    pub fn of(device: Device) -> mlx::Result<Self> {
        if device == Device::Gpu {
            if let Some(machine) = Self::of_gpu(device_memory(device)?) {
                return Ok(machine);
            }
        } else if let Some(machine) = Self::of_ram(ram(), control_group()) {
            return Ok(machine);
        } else if let Some(total) = device_memory(Device::Gpu)?.total {
            // A Mac that is told to use its processor.
            return Ok(Self::new(total, total, Kind::Unified));
        }
        let bytes = mlx::memory_limit()?;
        Ok(Self::new(bytes, bytes, Kind::Unknown))
    }

    fn new(total: usize, usable: usize, kind: Kind) -> Self {
        Self {
            total,
            usable: usable.min(total),
            kind,
        }
    }

    fn of_gpu(memory: DeviceMemory) -> Option<Self> {
        let total = memory.total?;
        Some(match memory.recommended {
            Some(recommended) => Self::new(total, recommended, Kind::Unified),
            None => Self::new(total, memory.free.unwrap_or(total), Kind::Card),
        })
    }

    fn of_ram(ram: Option<usize>, group: Option<usize>) -> Option<Self> {
        let ram = ram?;
        Some(match group.filter(|&group| group < ram) {
            Some(group) => Self::new(group, group, Kind::ControlGroup),
            None => Self::new(ram, ram, Kind::Ram),
        })
    }

    /// The share of [`Machine::usable`] that is taken by default, in hundredths: nearly all of a
    /// card, which serves nothing else, and of what Metal recommends, which is a share already (65
    /// to 75 of unified memory); of RAM less, since the rest of the machine lives in it too.
    pub fn default_share(self) -> usize {
        match self.kind {
            Kind::Card | Kind::Unified => 90,
            Kind::Ram | Kind::ControlGroup | Kind::Unknown => 75,
        }
    }

    /// The bytes that `limit` means here, with words that say where the number comes from.
    pub fn budget(self, limit: MemoryLimit) -> (usize, String) {
        let Self {
            total,
            usable,
            kind,
        } = self;
        match limit {
            MemoryLimit::Auto => {
                let share = self.default_share();
                let bytes = usable / 100 * share;
                let of = match (kind, usable == total) {
                    (_, true) => format!("{} of {kind}", Bytes(total)),
                    (Kind::Unified, false) => format!(
                        "the {} that the system recommends of {} of {kind}",
                        Bytes(usable),
                        Bytes(total)
                    ),
                    (_, false) => {
                        format!("the free {} of {} of {kind}", Bytes(usable), Bytes(total))
                    }
                };
                (bytes, format!("{share}% of {of}"))
            }
            MemoryLimit::Bytes(bytes) => (bytes, "as told".into()),
            MemoryLimit::Percent(share) => {
                let bytes = (total as f64 * share / 100.0) as usize;
                (bytes, format!("{share}% of {} of {kind}", Bytes(total)))
            }
        }
    }
}

/// The machine's RAM as Linux reports it.
fn ram() -> Option<usize> {
    total_of(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

/// The `MemTotal` of a file like /proc/meminfo.
fn total_of(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn control_group() -> Option<usize> {
    let of_process = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    least_limit(&of_process, Path::new("/sys/fs/cgroup"), &|path| {
        std::fs::read_to_string(path).ok()
    })
}

/// The least memory limit among the control groups of a process, which `of_process` lists as
/// /proc/self/cgroup does, and the groups around them. Inside a container the paths may not be
/// there; the root then shows the container's own group.
fn least_limit(
    of_process: &str,
    root: &Path,
    read: &dyn Fn(&Path) -> Option<String>,
) -> Option<usize> {
    let mut least = None;
    for line in of_process.lines() {
        // number:controllers:path
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (base, file) = match controllers {
            "" => (root.to_path_buf(), "memory.max"),
            list if list.split(',').any(|c| c == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut group = Path::new(path.trim_start_matches('/'));
        loop {
            // "max" is no limit.
            let limit = read(&base.join(group).join(file));
            let limit = limit.and_then(|text| text.trim().parse::<usize>().ok());
            least = [least, limit].into_iter().flatten().min();
            match group.parent() {
                Some(parent) => group = parent,
                None => break,
            }
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: usize = 1 << 30;

    #[test]
    fn meminfo_is_read() {
        let text = "MemFree:  1 kB\nMemTotal:       24684084 kB\n";
        assert_eq!(total_of(text), Some(24_684_084 * 1024));
        assert_eq!(total_of("MemTotal: lots\n"), None);
        assert_eq!(total_of(""), None);
    }

    #[test]
    fn the_tightest_control_group_counts() {
        let files = |known: &'static [(&'static str, &'static str)]| {
            move |path: &Path| {
                let found = known.iter().find(|(name, _)| Path::new(name) == path);
                found.map(|(_, text)| text.to_string())
            }
        };
        let root = Path::new("/g");
        let limit = |lines, known| least_limit(lines, root, &files(known));
        // Version 2, where the outer group is the tighter one.
        let two = "0::/user.slice/app.service\n";
        let known = &[
            ("/g/user.slice/app.service/memory.max", "8000\n"),
            ("/g/user.slice/memory.max", "5000\n"),
            ("/g/memory.max", "max\n"),
        ];
        assert_eq!(limit(two, known), Some(5000));
        // Version 1.
        let one = "9:cpu,cpuacct:/a\n4:memory:/docker/x\n";
        let known = &[("/g/memory/docker/x/memory.limit_in_bytes", "4294967296\n")];
        assert_eq!(limit(one, known), Some(4 * GIB));
        // A container that sees its own group as the root.
        assert_eq!(limit(two, &[("/g/memory.max", "77\n")]), Some(77));
        assert_eq!(limit(two, &[("/g/memory.max", "max\n")]), None);
        assert_eq!(limit("nonsense\n", &[]), None);
    }

    #[test]
    fn a_budget_is_a_share_of_what_there_is() {
        let card = DeviceMemory {
            total: Some(100 * GIB),
            free: Some(50 * GIB),
            recommended: None,
        };
        let card = Machine::of_gpu(card).unwrap();
        let (bytes, origin) = card.budget(MemoryLimit::Auto);
        assert_eq!(bytes, 50 * GIB / 100 * 90);
        assert!(
            origin.contains("90%") && origin.contains("free"),
            "{origin}"
        );
        assert_eq!(card.budget(MemoryLimit::Percent(25.0)).0, 25 * GIB);
        assert_eq!(card.budget(MemoryLimit::Bytes(7)).0, 7);
        let mac = DeviceMemory {
            total: Some(16 * GIB),
            free: None,
            recommended: Some(11 * GIB),
        };
        let mac = Machine::of_gpu(mac).unwrap();
        assert_eq!(mac.budget(MemoryLimit::Auto).0, 11 * GIB / 100 * 90);
        let contained = Machine::of_ram(Some(24 * GIB), Some(4 * GIB)).unwrap();
        let (bytes, origin) = contained.budget(MemoryLimit::Auto);
        assert_eq!(bytes, 4 * GIB / 100 * 75);
        assert!(origin.contains("control group"), "{origin}");
        let free = Machine::of_ram(Some(24 * GIB), Some(usize::MAX)).unwrap();
        assert_eq!(free.total, 24 * GIB);
        assert_eq!(Machine::of_ram(None, Some(4)), None);
    }

    #[test]
    fn this_machine_has_memory() {
        let machine = Machine::of(Device::Cpu).unwrap();
        assert!(machine.usable > 64 << 20, "{machine:?}");
    }
}
