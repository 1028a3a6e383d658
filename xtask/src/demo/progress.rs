//! The numbers that the demo prints.

use std::time::{Duration, Instant};

use crate::import::UploadResult;

/// The minimum interval between two lines of progress.
const PRINT_INTERVAL: Duration = Duration::from_secs(10);

/// The outcomes of rows of one kind.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Outcomes {
    pub(crate) accepted: u64,
    pub(crate) repeated: u64,
    pub(crate) rejected: u64,
}

impl Outcomes {
    pub(crate) const fn add(&mut self, result: &UploadResult) {
        self.accepted += result.accepted;
        self.repeated += result.repeated;
        self.rejected += result.rejected;
    }
}

/// The outcomes of all rows.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) base_items: Outcomes,
    pub(crate) users: Outcomes,
    pub(crate) items: Outcomes,
    pub(crate) transfers: Outcomes,
}

impl Tally {
    /// The number of answered events.
    pub(crate) const fn events(&self) -> u64 {
        let Self { items, transfers, .. } = self;
        items.accepted
            + items.repeated
            + items.rejected
            + transfers.accepted
            + transfers.repeated
            + transfers.rejected
    }

    pub(crate) fn print(&self) {
        println!("{:<12} {:>12} {:>12} {:>12}", "", "accepted", "repeated", "rejected");
        let Self { base_items, users, items, transfers } = self;
        let kinds = [
            ("base-items", base_items),
            ("users", users),
            ("items", items),
            ("transfers", transfers),
        ];
        for (kind, Outcomes { accepted, repeated, rejected }) in kinds {
            println!("{kind:<12} {accepted:>12} {repeated:>12} {rejected:>12}");
        }
    }
}

/// Prints a line now and then.
#[derive(Debug, Default)]
pub(crate) struct Progress(Option<Instant>);

impl Progress {
    pub(crate) fn print(&mut self, line: impl FnOnce() -> String) {
        if self.0.is_none_or(|printed| printed.elapsed() >= PRINT_INTERVAL) {
            self.0 = Some(Instant::now());
            println!("{}", line());
        }
    }
}
