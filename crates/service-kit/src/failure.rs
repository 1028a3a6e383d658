//! How a program reports that it failed.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{ExitCode, Termination};

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
}
