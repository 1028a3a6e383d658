//! What the checks look at: the services, what their logs have shown, and the database. It does not
//! matter to the checks how Postgres runs.

use std::collections::HashMap;

use domain::Version;
use futures_util::FutureExt;
use local_stack::stack::Stack;
use parking_lot::MutexGuard;

use crate::checker::Publication;
use crate::database::Database;
use crate::service_log::LogFindings;

/// The parts of a running system that the checks look at.
pub(crate) struct Observed<'a> {
    pub(crate) stack: &'a mut Stack,
    pub(crate) database: &'a mut Database,
    pub(crate) findings: &'a LogFindings,
}

impl Observed<'_> {
    /// Every version that a leader has published, by its log.
    pub(crate) fn publications(&self) -> MutexGuard<'_, HashMap<Version, Publication>> {
        self.findings.publications()
    }

    /// What must not happen under any fault: a service that panicked or ended by itself, or one
    /// version for two snapshots.
    pub(crate) fn violation(&mut self) -> Option<String> {
        if let Some(ended) = self.stack.ended().now_or_never() {
            return Some(format!("a service ended by itself: {ended}"));
        }
        self.findings.first_violation()
    }
}
