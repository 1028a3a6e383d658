//! Errors that are put into the system on purpose: a run that does not find them proves nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use ingest_api::groups::Delivery;
use local_stack::stack::{ServiceKind, built_programs};
use stats_notifier::store::Statements;
use tokio_postgres::Client;

use crate::fault_kind::FaultKind;

/// An error of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Planted {
    /// A tick skips half of the transactions that were in progress at the previous tick.
    TransactionsForgotten,
    /// A flush folds rows that the previous flush has already folded.
    FoldedTwice,
    /// ingest-api acknowledges before Postgres has written the commit to disk.
    AcknowledgedEarly,
    /// ingest-api acknowledges a group of rows before it sends them to Postgres.
    AcknowledgedBeforeCommit,
    /// ingest-api gives the outcome of each row of a group to the caller of the next row.
    WrongCaller,
    /// Postgres keeps the session of a silent leader.
    LeadKept,
}

/// The environment variable that names the error to the modified service.
pub const VARIABLE: &str = "NEWCYCLE_PLANTED";

impl Planted {
    /// The faults that reveal the error soonest.
    #[must_use]
    pub const fn faults(self) -> &'static [FaultKind] {
        match self {
            Self::TransactionsForgotten | Self::FoldedTwice => &[
                FaultKind::TerminateBackend,
                FaultKind::LinkReset,
                FaultKind::FreezeGateway,
                FaultKind::KillNotifier,
            ],
            // A lost connection alone loses no row: ingest-api sends it again. While no server
            // runs, that fails. A probe may reveal an acknowledgement before the commit even
            // without a fault, because its row is looked up at once.
            Self::AcknowledgedEarly | Self::AcknowledgedBeforeCommit => {
                &[FaultKind::KillPostgres, FaultKind::StopPostgres]
            }
            // Rows wait meanwhile, so that groups have several.
            Self::WrongCaller => &[FaultKind::LinkStalled, FaultKind::LinkSlow],
            Self::LeadKept => &[FaultKind::FreezeNotifier],
        }
    }

    /// Whether a violation is a consequence of this error, and not of another one.
    #[must_use]
    pub fn is_found(self, violation: &str) -> bool {
        let words: &[&str] = match self {
            // It may also happen that no version comes at all, because a tick without rows
            // publishes none.
            Self::TransactionsForgotten => {
                &["but the snapshot has", "differ from the events", "does not see"]
            }
            Self::FoldedTwice => &["but the snapshot has", "differ from the events"],
            // Counts that were shown are lost as well, and the transaction's id is used again.
            Self::AcknowledgedEarly => &["was acknowledged, but is not in", "but the snapshot has"],
            Self::AcknowledgedBeforeCommit => &["was acknowledged, but is not in"],
            Self::WrongCaller => &["got the answer to another request"],
            Self::LeadKept => &["was frozen as the leader, and not replaced"],
        };
        words.iter().any(|words| violation.contains(words))
    }

    /// Whether producers write nothing but new, valid rows. Otherwise a service that answers before
    /// it knows the outcome is found by its wrong answers to repeats and to invalid rows, and the
    /// run proves nothing about lost rows.
    pub(crate) fn only_new_rows(self) -> bool {
        self == Self::AcknowledgedBeforeCommit
    }

    /// The service that has the error.
    const fn service(self) -> ServiceKind {
        match self {
            Self::AcknowledgedBeforeCommit | Self::WrongCaller => ServiceKind::IngestApi,
            _ => ServiceKind::StatsNotifier,
        }
    }

    /// The environment variables with which a service has the error.
    pub(crate) fn variables(self) -> Vec<(ServiceKind, &'static str, String)> {
        let service = self.service();
        let mut variables = vec![(service, VARIABLE, self.name())];
        match self {
            Self::LeadKept => {
                variables.push((service, "NEWCYCLE__LEADER__SESSION_TIMEOUT", "10m".to_owned()));
            }
            // The fewer writers, the larger the groups.
            Self::WrongCaller => {
                variables.push((service, "NEWCYCLE__WRITES__MAX_EXTRA_WRITERS", "0".to_owned()));
            }
            _ => {}
        }
        variables
    }

    /// Puts the error into the system, and returns the folder of the programs to run.
    pub(crate) async fn plant(self, folder: &Path, superuser: &Client) -> anyhow::Result<PathBuf> {
        let built = built_programs()?;
        if self == Self::AcknowledgedEarly {
            let early = "ALTER ROLE newcycle_ingest SET synchronous_commit = off";
            superuser.batch_execute(early).await?;
            return Ok(built);
        }
        let programs = folder.join("programs");
        std::fs::create_dir_all(&programs)
            .with_context(|| format!("making {}", programs.display()))?;
        for service in ServiceKind::ALL {
            let program = if service == self.service() {
                format!("planted-{}", service.name())
            } else {
                service.name().to_owned()
            };
            std::os::unix::fs::symlink(built.join(&program), programs.join(service.name()))
                .with_context(|| format!("linking {program}"))?;
        }
        Ok(programs)
    }

    /// The value of [`VARIABLE`] for this error.
    fn name(self) -> String {
        format!("{self:?}")
    }

    /// How ingest-api answers groups, with the error that the value of [`VARIABLE`] names.
    #[must_use]
    pub fn delivery(name: &str) -> Delivery {
        let mut delivery = Delivery::default();
        if name == Self::AcknowledgedBeforeCommit.name() {
            delivery.after_commit = false;
        }
        if name == Self::WrongCaller.name() {
            delivery.recipient = |row, rows| (row + 1) % rows;
        }
        delivery
    }

    /// The statements of stats-notifier, with the error that the value of [`VARIABLE`] names.
    /// Errors that are not in a statement leave them as they are.
    ///
    /// # Errors
    /// The statements have changed such that the error cannot be put in.
    pub fn statements(name: &str) -> anyhow::Result<Statements> {
        let mut statements = Statements::default();
        if name == Self::FoldedTwice.name() {
            let once = statements.fold.clone();
            statements.fold = once.replace(">= pg_snapshot_xmax", ">= pg_snapshot_xmin");
            ensure!(
                statements.fold != once,
                "a flush does not compare with the end of its snapshot"
            );
        }
        if name == Self::TransactionsForgotten.name() {
            let half = statements
                .tick
                .rfind("UNION ALL")
                .context("a tick does not consist of two halves")?;
            statements.tick.truncate(half);
        }
        Ok(statements)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use clap::ValueEnum;

    use super::*;

    #[test]
    fn services_accept_the_variables_of_every_error() {
        for planted in Planted::value_variants() {
            for (service, variable, value) in planted.variables() {
                let program = built_programs().unwrap().join(service.name());
                let printed =
                    Command::new(program).arg("print-settings").env(variable, value).output();
                let printed = printed.unwrap();
                let error = String::from_utf8_lossy(&printed.stderr);
                assert!(printed.status.success(), "{planted:?}: {error}");
            }
        }
    }
}
