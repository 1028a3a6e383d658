//! Errors that are put into the system on purpose: a run that does not find them proves nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use local_stack::stack::{Part, built_programs};
use stats_notifier::store::Statements;
use tokio_postgres::Client;

use crate::fault::Kind;

/// An error of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Planted {
    /// A tick forgets half of the transactions that were in progress at the one before.
    TransactionsForgotten,
    /// A flush folds rows that the one before has folded.
    FoldedTwice,
    /// ingest-api acknowledges before Postgres has written the commit down.
    AcknowledgedEarly,
    /// The server keeps the session of a leader that says nothing.
    LeadKept,
}

/// Names the error to the program in the place of stats-notifier.
pub const VARIABLE: &str = "NEWCYCLE_PLANTED";

impl Planted {
    /// The faults under which it shows soonest.
    #[must_use]
    pub const fn faults(self) -> &'static [Kind] {
        match self {
            Self::TransactionsForgotten | Self::FoldedTwice => {
                &[Kind::TerminateBackend, Kind::LinkReset, Kind::FreezeGateway, Kind::KillNotifier]
            }
            Self::AcknowledgedEarly => &[Kind::KillPostgres, Kind::StopPostgres],
            Self::LeadKept => &[Kind::FreezeNotifier],
        }
    }

    /// Whether a violation is what this error leads to, rather than any other.
    #[must_use]
    pub fn is_found(self, violation: &str) -> bool {
        let words: &[&str] = match self {
            // Or no version comes at all, for a tick that finds no rows publishes none.
            Self::TransactionsForgotten => {
                &["but the snapshot has", "are not what the events say", "does not see"]
            }
            Self::FoldedTwice => &["but the snapshot has", "are not what the events say"],
            // What was shown is lost as well, and its transaction's number is given away again.
            Self::AcknowledgedEarly => &["was acknowledged, but is not in", "but the snapshot has"],
            Self::LeadKept => &["was frozen as the leader, and not replaced"],
        };
        words.iter().any(|words| violation.contains(words))
    }

    /// What a stats-notifier is told so that it has the error.
    #[must_use]
    pub fn variables(self) -> Vec<(&'static str, String)> {
        let mut variables = vec![(VARIABLE, self.name())];
        if self == Self::LeadKept {
            variables.push(("NEWCYCLE__LEADER__SESSION_TIMEOUT", "10m".to_owned()));
        }
        variables
    }

    /// Puts the error in, and returns the folder of the programs to run.
    ///
    /// # Errors
    /// It cannot be put in.
    pub async fn plant(self, folder: &Path, superuser: &Client) -> anyhow::Result<PathBuf> {
        let built = built_programs()?;
        if self == Self::AcknowledgedEarly {
            let early = "ALTER ROLE newcycle_ingest SET synchronous_commit = off";
            superuser.batch_execute(early).await?;
            return Ok(built);
        }
        let programs = folder.join("programs");
        std::fs::create_dir_all(&programs).with_context(|| format!("making {}", programs.display()))?;
        for part in Part::ALL {
            let program = if part == Part::StatsNotifier { "planted-stats-notifier" } else { part.name() };
            std::os::unix::fs::symlink(built.join(program), programs.join(part.name()))
                .with_context(|| format!("linking {program}"))?;
        }
        Ok(programs)
    }

    /// The error as a value of [`VARIABLE`].
    #[must_use]
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// The statements of stats-notifier with the error that [`VARIABLE`] names; as they are where it names another.
    ///
    /// # Errors
    /// The statements are no longer such that the error can be put in.
    pub fn statements(name: &str) -> anyhow::Result<Statements> {
        let mut statements = Statements::default();
        if name == Self::FoldedTwice.name() {
            let once = statements.fold.clone();
            statements.fold = once.replace(">= pg_snapshot_xmax", ">= pg_snapshot_xmin");
            ensure!(statements.fold != once, "a flush does not compare with the end of its snapshot");
        }
        if name == Self::TransactionsForgotten.name() {
            let half = statements.tick.rfind("UNION ALL").context("a tick does not consist of parts")?;
            statements.tick.truncate(half);
        }
        Ok(statements)
    }
}
