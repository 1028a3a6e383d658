//! Reads the services' logs: which database snapshot each version shows, and panics.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use domain::Version;
use local_stack::stack::{Log, ServiceKind, Variable};
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;

use crate::checker::Publication;

/// What stats-notifiers need for their logs to have each version that they publish.
pub(crate) const VARIABLES: [Variable<'_>; 2] = [
    (
        ServiceKind::StatsNotifier,
        "NEWCYCLE__LOG__FILTER",
        "info,actix_server=warn,stats_notifier=debug",
    ),
    (ServiceKind::StatsNotifier, "NEWCYCLE__LOG__FORMAT", "json"),
];

/// What the logs have shown until now.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogFindings {
    publications: Arc<Mutex<HashMap<Version, Publication>>>,
    violations: Arc<Mutex<Vec<String>>>,
}

impl LogFindings {
    /// Every version that a leader has logged before it published it.
    pub(crate) fn publications(&self) -> MutexGuard<'_, HashMap<Version, Publication>> {
        self.publications.lock()
    }

    /// The first panic, or the first version that was published twice.
    pub(crate) fn first_violation(&self) -> Option<String> {
        self.violations.lock().first().cloned()
    }

    fn violation(&self, what: String) {
        self.violations.lock().push(what);
    }

    /// Reads the logs of a stack. The lines that are not about a version go to a file, for people
    /// who look for the cause of a violation.
    pub(crate) fn reader(&self, file: &Path) -> anyhow::Result<Log> {
        let file =
            std::fs::File::create(file).with_context(|| format!("making {}", file.display()))?;
        let findings = self.clone();
        Ok(Arc::new(move |instance, line: &str| {
            if line.contains("panicked") {
                findings.violation(format!("{instance} panicked: {line}"));
            }
            if !line.contains("\"publishing\"") {
                let _disk_full = writeln!(&file, "{instance} | {line}");
                return;
            }
            let event: Value = serde_json::from_str(line).unwrap_or_default();
            let text = |name: &str| event[name].as_str().unwrap_or_default();
            if let (Ok(version), Ok(snapshot)) = (text("version").parse(), text("snapshot").parse())
            {
                let publication = Publication { snapshot, at: SystemTime::now(), by: instance };
                let before = findings.publications().insert(version, publication);
                if let Some(before) = before {
                    let first = before.by;
                    findings.violation(format!(
                        "{version} was published twice, by {first} and {instance}"
                    ));
                }
            }
        }))
    }
}
