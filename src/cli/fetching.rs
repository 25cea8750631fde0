//! What is shown while a model is being fetched: bars on a terminal, else plain lines. All on standard
//! error.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::hub::error::bytes;
use crate::hub::watch::Expected;
use crate::hub::{self, HubError, Name, Phase, Pulled, Settings, Watch};

/// Between two plain lines about the whole.
const EVERY: Duration = Duration::from_secs(5);

/// Fetches `name`, and shows how it goes.
pub fn pull(settings: &Settings, name: &Name) -> hub::Result<Pulled> {
    let shown = Shown {
        bars: std::io::stderr().is_terminal().then(MultiProgress::new),
        state: Mutex::default(),
    };
    let pulled = hub::pull(settings, name, &shown);
    shown.end();
    pulled
}

/// The folder of the model's files: as they are here, or else fetched now.
pub fn folder(name: &Name) -> Result<PathBuf, HubError> {
    let settings = Settings::from_env()?;
    let folder = match hub::local(&settings, name) {
        Some(folder) => folder,
        None => {
            if !settings.offline {
                eprintln!("{name} is not here yet: fetching it");
            }
            pull(&settings, name)?.folder
        }
    };
    hub::snapshot::mark_used(&folder);
    Ok(folder)
}

struct Shown {
    bars: Option<MultiProgress>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    files: Vec<File>,
    total: Option<ProgressBar>,
    here: u64,
    size: u64,
    /// Bytes that came over the network.
    came: u64,
    began: Option<Instant>,
    line: Option<Instant>,
    /// What was last said about a failure: parts that are fetched at a time fail alike.
    failure: Option<String>,
}

struct File {
    name: String,
    size: u64,
    here: u64,
    bar: Option<ProgressBar>,
    phase: Option<Phase>,
}

impl State {
    /// Bytes a second so far, and how long the rest takes at that.
    fn rate(&self) -> (u64, Duration) {
        let seconds = self
            .began
            .map_or(0.0, |began| began.elapsed().as_secs_f64());
        let rate = self.came as f64 / seconds.max(0.001);
        let left = self.size.saturating_sub(self.here) as f64;
        let left = (left / rate.max(1.0)).min(1e7);
        (rate as u64, Duration::from_secs(left as u64))
    }
}

impl Shown {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        let state = self.state();
        let bars = state
            .files
            .iter()
            .filter_map(|file| file.bar.as_ref())
            .chain(&state.total);
        bars.for_each(ProgressBar::finish_and_clear);
    }

    /// A line of its own, beside the bars.
    fn say(&self, line: &str) {
        match &self.bars {
            // A terminal that is gone is no reason to stop fetching.
            Some(bars) => drop(bars.println(line)),
            None => eprintln!("{line}"),
        }
    }
}

impl Watch for Shown {
    fn expect(&self, files: &[Expected]) {
        let mut state = self.state();
        state.size = files.iter().map(|file| file.size).sum();
        state.began = Some(Instant::now());
        state.line = state.began;
        let count = match files.len() {
            1 => "1 file".to_owned(),
            n => format!("{n} files"),
        };
        self.say(&format!("fetching {count}, {}", bytes(state.size)));
        state.files = files
            .iter()
            .map(|file| File {
                name: file.name.clone(),
                size: file.size,
                here: 0,
                bar: None,
                phase: None,
            })
            .collect();
        if let Some(bars) = &self.bars {
            let total = ProgressBar::new(state.size).with_prefix("all");
            state.total = Some(bars.add(total.with_style(style(
                "{prefix:40!} {bar:24} {bytes:>11}/{total_bytes:11} {bytes_per_sec:>12} {eta:>5}",
            ))));
        }
    }

    fn arrived(&self, file: usize, count: u64, resumed: bool) {
        let mut guard = self.state();
        let state = &mut *guard;
        state.here += count;
        state.came += if resumed { 0 } else { count };
        if let Some(total) = &state.total {
            total.inc(count);
            if resumed {
                total.reset_eta();
            }
        }
        if let Some(file) = state.files.get_mut(file) {
            file.here += count;
            if let Some(bar) = &file.bar {
                bar.inc(count);
                if resumed {
                    bar.reset_eta();
                }
            }
            if resumed && self.bars.is_none() {
                eprintln!("{}: {} of it are here already", file.name, bytes(count));
            }
        }
        let is_due = state.line.is_some_and(|line| line.elapsed() >= EVERY);
        if self.bars.is_none() && is_due {
            state.line = Some(Instant::now());
            let (rate, left) = state.rate();
            let percent = state
                .here
                .saturating_mul(100)
                .checked_div(state.size)
                .unwrap_or(100);
            eprintln!(
                "{} of {} ({percent}%), {}/s, {} left",
                bytes(state.here),
                bytes(state.size),
                bytes(rate),
                indicatif::HumanDuration(left)
            );
        }
    }

    fn again(&self, file: usize) {
        let mut guard = self.state();
        let state = &mut *guard;
        if let Some(file) = state.files.get_mut(file) {
            state.here = state.here.saturating_sub(file.here);
            file.here = 0;
            if let Some(total) = &state.total {
                total.set_position(state.here);
            }
            if let Some(bar) = &file.bar {
                bar.set_position(0);
            }
        }
    }

    fn phase(&self, file: usize, phase: Phase) {
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(file) = state.files.get_mut(file) else {
            return;
        };
        if file.phase.replace(phase) == Some(phase) {
            return;
        }
        if phase == Phase::Done {
            // Also what another process fetched.
            let rest = file.size.saturating_sub(file.here);
            (file.here, state.here) = (file.size, state.here + rest);
            if let Some(total) = &state.total {
                total.inc(rest);
            }
        }
        let Some(bars) = &self.bars else {
            match phase {
                Phase::Done => eprintln!("{}: done, {}", file.name, bytes(file.size)),
                Phase::Elsewhere => eprintln!("{}: another process is fetching it", file.name),
                Phase::Fetching | Phase::Verifying => {}
            }
            return;
        };
        let bar = file.bar.get_or_insert_with(|| {
            let bar = ProgressBar::new(file.size).with_prefix(file.name.clone());
            match &state.total {
                Some(total) => bars.insert_before(total, bar),
                None => bars.add(bar),
            }
        });
        match phase {
            Phase::Fetching => bar.set_style(style(
                "{prefix:40!} {bar:24} {bytes:>11}/{total_bytes:11} {bytes_per_sec:>12} {eta:>5}",
            )),
            Phase::Elsewhere => bar.set_style(style("{prefix:40!} another process is fetching it")),
            Phase::Verifying => bar.set_style(style("{prefix:40!} is being verified")),
            Phase::Done => bar.finish_and_clear(),
        }
        bar.tick();
    }

    fn retry(&self, what: &str, why: &str, after: Duration) {
        let line = match after.is_zero() {
            true => format!("{what}: {why}; fetching it again"),
            false => format!(
                "{what}: {why}; trying again in {:.1} s",
                after.as_secs_f64()
            ),
        };
        let before = self.state().failure.replace(line.clone());
        if before.as_ref() != Some(&line) {
            self.say(&line);
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
