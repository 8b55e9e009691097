//! A progress bar that appears only if the work takes longer than a second.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work that takes less time shows no bar, which would only flicker.
const SHOW_AFTER: Duration = Duration::from_secs(1);

/// A progress bar on stderr; nothing is shown if stderr is not a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    began: Instant,
}

impl Progress {
    /// A bar for loading `what`.
    pub(crate) fn new(what: &'static str) -> Self {
        let style = ProgressStyle::with_template("loading {msg} {wide_bar} {pos}/{len}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
            .with_style(style)
            .with_message(what);
        Self {
            bar,
            began: Instant::now(),
        }
    }

    /// `done` parts of `total` are done.
    pub(crate) fn set(&self, done: usize, total: usize) {
        if self.began.elapsed() >= SHOW_AFTER && self.bar.is_hidden() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
    }

    /// `done` bytes of a file's `size` have arrived.
    pub(crate) fn file(&self, name: &str, done: u64, size: u64) {
        self.bar.set_message(name.to_owned());
        self.set(
            usize::try_from(done).unwrap_or(usize::MAX),
            usize::try_from(size).unwrap_or(usize::MAX),
        );
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
