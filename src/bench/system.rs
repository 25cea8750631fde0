//! What the system tells of this process and of the GPU. Where it tells nothing, there is nothing.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Processor time used so far, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuTime {
    /// By all threads.
    pub process: f64,
    /// By the engine's thread alone, where that is known.
    pub engine: Option<f64>,
}

impl CpuTime {
    /// Now.
    pub fn now() -> CpuTime {
        let process = clock_gettime(ClockId::ProcessCPUTime);
        CpuTime {
            process: process.tv_sec as f64 + process.tv_nsec as f64 / 1e9,
            engine: of_the_engine(),
        }
    }

    /// Since then.
    pub fn since(self, before: CpuTime) -> CpuTime {
        let engine = self.engine.zip(before.engine);
        CpuTime {
            process: self.process - before.process,
            engine: engine.map(|(now, then)| now - then),
        }
    }
}

/// Seconds on a processor of all threads called `engine`: where Linux keeps such accounts.
fn of_the_engine() -> Option<f64> {
    let mut seconds = None;
    for thread in std::fs::read_dir("/proc/self/task").ok()? {
        let folder = thread.ok()?.path();
        // A thread may end between the listing and the reading.
        let read = |file| std::fs::read_to_string(folder.join(file)).ok();
        if read("comm").is_none_or(|name| name.trim_end() != "engine") {
            continue;
        }
        let Some(schedstat) = read("schedstat") else {
            continue;
        };
        let nanoseconds: f64 = schedstat.split_whitespace().next()?.parse().ok()?;
        seconds = Some(seconds.unwrap_or(0.0) + nanoseconds / 1e9);
    }
    seconds
}

/// The most memory that this process has had in RAM, in bytes, where Linux knows it. Elsewhere what
/// it has now.
pub fn resident_bytes() -> Option<u64> {
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        let line = |name| status.lines().find_map(|line| line.strip_prefix(name));
        return kibibytes(line("VmHWM:").or_else(|| line("VmRSS:"))?);
    }
    let id = std::process::id().to_string();
    let output = Command::new("ps").args(["-o", "rss=", "-p", &id]).output();
    kibibytes(&String::from_utf8(output.ok()?.stdout).ok()?)
}

fn kibibytes(text: &str) -> Option<u64> {
    let count: u64 = text.split_whitespace().next()?.parse().ok()?;
    count.checked_mul(1024)
}

/// What a GPU did while it was watched.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GpuUse {
    /// Percent of the time in which it computed, the mean of the samples.
    pub utilization: Option<f64>,
    /// Watts, the mean of the samples.
    pub watts: Option<f64>,
    /// The most bytes in use on it, by all processes.
    pub memory: Option<f64>,
}

/// Samples of utilization in percent, watts, and MiB.
type Samples = Arc<Mutex<Vec<[Option<f64>; 3]>>>;

/// Watches the GPU by the program that comes with its driver, until dropped.
pub struct GpuWatch {
    child: Child,
    samples: Samples,
}

impl GpuWatch {
    /// Starts watching; none where there is no program that tells without further rights.
    pub fn start() -> Option<GpuWatch> {
        let mut command = if cfg!(target_os = "macos") {
            // powermetrics would tell more, to the superuser alone.
            let script = "while sleep 0.2; do ioreg -r -d 1 -c IOAccelerator; done";
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        } else {
            let mut command = Command::new("nvidia-smi");
            command.args([
                "--query-gpu=utilization.gpu,power.draw,memory.used",
                "--format=csv,noheader,nounits",
                "--loop-ms=100",
            ]);
            command
        };
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).spawn().ok()?;
        let samples = Samples::default();
        let (out, seen) = (child.stdout.take()?, samples.clone());
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let (Some(sample), Ok(mut seen)) = (sample(&line), seen.lock()) {
                    seen.push(sample);
                }
            }
        });
        Some(GpuWatch { child, samples })
    }

    /// What was seen since the last call.
    pub fn take(&self) -> Option<GpuUse> {
        // So that even a short piece of work has a sample of its end.
        thread::sleep(Duration::from_millis(100));
        let samples = std::mem::take(&mut *self.samples.lock().ok()?);
        let column = |i: usize| samples.iter().filter_map(move |sample| sample[i]);
        let mean = |i: usize| {
            let n = column(i).count();
            (n > 0).then(|| column(i).sum::<f64>() / n as f64)
        };
        let used = GpuUse {
            utilization: mean(0),
            watts: mean(1),
            memory: column(2).max_by(f64::total_cmp).map(|mib| mib * 1048576.0),
        };
        (!samples.is_empty()).then_some(used)
    }
}

impl Drop for GpuWatch {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One line of either program.
fn sample(line: &str) -> Option<[Option<f64>; 3]> {
    if let Some((_, rest)) = line.split_once("\"Device Utilization %\"=") {
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        return Some([digits.parse().ok(), None, None]);
    }
    let mut numbers = line.split(',').map(|part| part.trim().parse::<f64>().ok());
    let sample = [numbers.next()?, numbers.next()?, numbers.next()?];
    sample.iter().any(Option::is_some).then_some(sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_programs_lines_are_read() {
        assert_eq!(
            sample("87, 412.53, 10240"),
            Some([Some(87.0), Some(412.53), Some(10240.0)])
        );
        assert_eq!(sample("[N/A], 30.1, [N/A]"), Some([None, Some(30.1), None]));
        let ioreg =
            r#"  "PerformanceStatistics" = {"Device Utilization %"=93,"Tiler Utilization %"=1}"#;
        assert_eq!(sample(ioreg), Some([Some(93.0), None, None]));
        assert_eq!(sample("+-o AGXAccelerator <class IOAccelerator>"), None);
    }

    #[test]
    fn work_takes_time_and_memory() {
        let before = CpuTime::now();
        let mut x = 1u64;
        for i in 0..20_000_000u64 {
            x = std::hint::black_box(x.wrapping_mul(i | 1));
        }
        assert!(CpuTime::now().since(before).process > 0.001);
        // Not every system tells.
        assert!(resident_bytes().is_none_or(|bytes| bytes > 1 << 20));
    }
}
