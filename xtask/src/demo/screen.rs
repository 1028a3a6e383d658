//! What is shown: lines that stay, and one line below them that says how far things are.

use std::cell::Cell;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often progress is shown as a line that stays, where there is no terminal to show a moving one.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The terminal, or whatever is there instead.
#[derive(Debug)]
pub(crate) struct Screen {
    bar: ProgressBar,
    /// When progress was last shown as a line that stays.
    shown: Cell<Option<Instant>>,
}

impl Screen {
    /// Progress through so many days.
    pub(crate) fn of_days(days: u64) -> anyhow::Result<Self> {
        let bar = ProgressBar::new(days);
        bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} days; {msg} {eta}")?);
        Ok(Self { bar, shown: Cell::default() })
    }

    /// Progress without an end.
    pub(crate) fn endless() -> anyhow::Result<Self> {
        let bar = ProgressBar::new_spinner();
        bar.set_style(ProgressStyle::with_template("{spinner} {elapsed} {msg}")?);
        Ok(Self { bar, shown: Cell::default() })
    }

    /// Says how far things are.
    pub(crate) fn progress(&self, done: u64, text: String) {
        self.bar.set_position(done);
        let due = self.shown.get().is_none_or(|shown| shown.elapsed() >= LINE_EVERY);
        if self.bar.is_hidden() && due {
            self.shown.set(Some(Instant::now()));
            println!("{text}");
        }
        self.bar.set_message(text);
    }

    /// A line that stays.
    pub(crate) fn say(&self, line: &str) {
        self.bar.suspend(|| println!("{line}"));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
