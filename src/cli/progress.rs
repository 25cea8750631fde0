//! How far loading has come: a bar on a terminal, elsewhere lines, when it takes long.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::engine::Loading;

const WEIGHTS: &str = "loading {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const WARM_UP: &str = "warming up {bar:30} {pos}/{len}";
/// How long nothing is said where there is no terminal; what takes less goes unmentioned.
const QUIET: Duration = Duration::from_secs(5);

/// What shows the progress. Clones show the same.
#[derive(Clone)]
pub struct Progress {
    bar: ProgressBar,
    /// Whether the bar is at the warm-up, and when something was said last.
    state: Arc<Mutex<(bool, Instant)>>,
}

impl Progress {
    /// Before the beginning.
    pub fn new() -> Self {
        let bar = ProgressBar::new(0);
        set_style(&bar, WEIGHTS);
        Self {
            bar,
            state: Arc::new(Mutex::new((false, Instant::now()))),
        }
    }

    /// Shows how far it has come.
    pub fn show(&self, phase: Loading) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (warming, said) = &mut *state;
        let (done, total) = match phase {
            Loading::Weights(done, total) => (done, total),
            Loading::WarmUp(done, total) => {
                if !*warming {
                    set_style(&self.bar, WARM_UP);
                    *warming = true;
                }
                (done, total)
            }
        };
        self.bar.set_length(total);
        self.bar.set_position(done);
        if self.bar.is_hidden() && said.elapsed() >= QUIET {
            *said = Instant::now();
            eprintln!("{}", line(phase));
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn set_style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

fn line(phase: Loading) -> String {
    match phase {
        Loading::Weights(done, total) => {
            let mb = |bytes| bytes / 1_000_000;
            format!("loading {}/{} MB", mb(done), mb(total))
        }
        Loading::WarmUp(done, total) => format!("warming up {done}/{total}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_the_phase_and_how_far_it_is() {
        let loading = line(Loading::Weights(1_500_000, 30_000_000));
        assert_eq!(loading, "loading 1/30 MB");
        assert_eq!(line(Loading::WarmUp(3, 7)), "warming up 3/7");
    }
}
