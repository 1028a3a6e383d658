//! The changes between two pauses, of the history that the database has and of one that a failover
//! of Postgres has replaced.

use std::collections::HashSet;

use domain::Nonce;

use super::Change;

/// The committed changes since the last pause.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Those that the database has.
    pub(crate) kept: Vec<Change>,
    /// What another server had before a failover.
    pub(crate) replaced: Option<ReplacedHistory>,
}

/// The changes of a server that a failover has replaced. The terms that read from it have shown
/// changes that the new server does not have, and that may have the transaction ids of others.
#[derive(Debug)]
pub(crate) struct ReplacedHistory {
    /// The terms that read from that server.
    pub(crate) terms: HashSet<Nonce>,
    /// All its changes since the last pause, also those that were not lost.
    pub(crate) changes: Vec<Change>,
}

impl Changes {
    /// The changes that a term could show.
    pub(super) fn of(&self, term: Nonce) -> &[Change] {
        match &self.replaced {
            Some(replaced) if replaced.terms.contains(&term) => &replaced.changes,
            _ => &self.kept,
        }
    }
}
