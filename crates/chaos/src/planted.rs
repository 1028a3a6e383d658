//! Errors that are put into the system on purpose: a run that does not find them proves nothing.

use std::path::{Path, PathBuf};

use anyhow::Context;
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

    /// What a stats-notifier is told so that it has the error.
    #[must_use]
    pub fn variables(self) -> Vec<(&'static str, String)> {
        let mut variables = vec![(VARIABLE, self.name())];
        if self == Self::LeadKept {
            variables.push(("NEWCYCLE__LEADER__SESSION_TIMEOUT_MILLISECONDS", "600000".to_owned()));
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
    #[must_use]
    pub fn statements(name: &str) -> Statements {
        let mut statements = Statements::default();
        if name == Self::FoldedTwice.name() {
            statements.fold = statements.fold.replace(">= pg_snapshot_xmax", ">= pg_snapshot_xmin");
        }
        if name == Self::TransactionsForgotten.name()
            && let Some(half) = statements.tick.rfind("UNION ALL")
        {
            statements.tick.truncate(half);
        }
        statements
    }
}
