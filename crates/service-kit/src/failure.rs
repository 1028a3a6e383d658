//! How a program reports that it failed.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{ExitCode, Termination};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The exit code of a program. If it failed, prints what failed and the causes to standard error.
///
/// A `main` that returned the error itself would print its `Debug` form, with a stack backtrace if
/// `RUST_BACKTRACE` is set. Operators need the causes; a stack trace of `main` does not help.
pub fn exit_code<T: Termination, E: Into<Box<dyn Error + Send + Sync>>>(
    result: Result<T, E>,
) -> ExitCode {
    match result {
        Ok(value) => value.report(),
        Err(error) => {
            print(&*error.into());
            ExitCode::FAILURE
        }
    }
}

/// Prints what failed and the causes to standard error.
pub fn print(error: &(dyn Error + 'static)) {
    // If standard error is closed, there is nowhere left to report that.
    let _closed = std::io::stderr().write_all(text(error).as_bytes());
}

/// What failed, then each cause on a line of its own. Many errors quote their source already, so a
/// cause that was quoted before is left out.
fn text(error: &(dyn Error + 'static)) -> String {
    let mut text = format!("error: {error}\n");
    let mut source = error.source();
    while let Some(cause) = source {
        let message = cause.to_string();
        if !text.contains(&message) {
            // Writing to a string cannot fail.
            let _infallible = writeln!(text, "  caused by: {message}");
        }
        source = cause.source();
    }
    text
}

/// What failed and the causes, in one line, for logs. A cause that was quoted before is left out.
#[must_use]
pub fn one_line(error: &(dyn Error + 'static)) -> String {
    let mut text = joined_lines(error);
    let mut source = error.source();
    while let Some(cause) = source {
        let message = joined_lines(cause);
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        source = cause.source();
    }
    text
}

fn joined_lines(error: &dyn Error) -> String {
    error.to_string().lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

/// How often a failure is logged that goes on.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Limits how often failures in a row are logged: the first one, and then one a minute.
#[derive(Debug, Default)]
pub struct FailureLog {
    last: Option<Instant>,
}

/// A [`FailureLog`] of failures that many requests report, because all of them have the same cause.
/// None of them knows when it ends, so the next one is logged after a minute, too.
#[derive(Debug, Default)]
pub struct SharedFailureLog(Mutex<FailureLog>);

impl SharedFailureLog {
    /// For a static.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(FailureLog { last: None }))
    }

    /// Whether to log the failure of this moment.
    pub fn should_log(&self) -> bool {
        self.0.lock().should_log()
    }
}

impl FailureLog {
    /// Whether to log the failure of this moment.
    pub fn should_log(&mut self) -> bool {
        self.should_log_at(Instant::now())
    }

    /// Notes a success: the next failure is logged at once.
    pub const fn end(&mut self) {
        self.last = None;
    }

    fn should_log_at(&mut self, now: Instant) -> bool {
        let due = self.last.is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL);
        if due {
            self.last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{message}")]
    struct Layer {
        message: &'static str,
        source: Option<Box<Layer>>,
    }

    fn chain(messages: &[&'static str]) -> Layer {
        let (message, below) = messages.split_first().unwrap();
        let source = (!below.is_empty()).then(|| Box::new(chain(below)));
        Layer { message, source }
    }

    #[test]
    fn each_cause_is_printed_once() {
        let error =
            chain(&["the upload failed", "no answer from b: timed out", "timed out", "errno 110"]);
        assert_eq!(
            text(&error),
            "error: the upload failed\n  caused by: no answer from b: timed out\n  caused by: errno 110\n"
        );
    }

    #[test]
    fn a_log_line_has_each_cause_once() {
        let error = chain(&["no answer\nfrom b", "timed out", "errno 110"]);
        assert_eq!(one_line(&error), "no answer from b: timed out: errno 110");
        let quoted = chain(&["no answer: timed out", "timed out"]);
        assert_eq!(one_line(&quoted), "no answer: timed out");
    }

    #[test]
    fn failures_are_logged_at_once_and_then_once_a_minute() {
        let mut failures = FailureLog::default();
        let began = Instant::now();
        let mut logged =
            |second: &u64| failures.should_log_at(began + Duration::from_secs(*second));
        let seconds: Vec<u64> = (0..=125).step_by(5).filter(|second| logged(second)).collect();
        assert_eq!(seconds, [0, 60, 120]);
        failures.end();
        assert!(failures.should_log_at(began + Duration::from_secs(126)));
    }
}
