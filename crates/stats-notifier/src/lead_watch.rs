//! Finds out why a standby cannot take the lead, if the session that has it is not that of a
//! leader.
//!
//! Any role that may connect to the database can take the advisory lock of the lead. No replica
//! counts then, and none can do anything about it: a role may not end the sessions of another role.
//! So a standby says what it sees. It stays ready, because it still answers queries for history.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// A session of this role that has the lead begins a term within this time, unless the counts take
/// longer to load, or all events are counted.
const TERM_TIMEOUT: Duration = Duration::from_secs(5);

/// A session that holds the lock of the lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeadHolder {
    /// The process id of its backend.
    pub process: i32,
    /// Its role.
    pub role: String,
    /// Whether that is the role of this replica too.
    pub is_own_role: bool,
    /// Whether a session of this role writes counts, as each leader has one.
    pub counts: bool,
}

/// The lead is held, but no replica counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeadProblem {
    /// The session of another role has the lead.
    OtherRole {
        /// The process id of its backend.
        process: i32,
        /// Its role.
        role: String,
    },
    /// A session has had the lead for some seconds, but there is no term that counts.
    NoTerm {
        /// The process id of its backend.
        process: i32,
    },
}

impl fmt::Display for LeadProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherRole { process, role } => write!(
                formatter,
                "no replica counts, because session {process} of the role {role:?} holds the lock of the lead: \
                 end it by SELECT pg_terminate_backend({process})"
            ),
            Self::NoTerm { process } => write!(
                formatter,
                "session {process} has the lead, but does not count yet: unless it loads the counts or counts all events again, \
                 end it by SELECT pg_terminate_backend({process})"
            ),
        }
    }
}

/// Judges who holds the lead, from time to time.
#[derive(Debug, Default)]
pub(crate) struct LeadWatch {
    /// The session that had the lead without a term, and since when.
    without_term: Option<(i32, Instant)>,
}

impl LeadWatch {
    /// What is wrong with the sessions that hold the lock of the lead at `now`.
    pub(crate) fn judge(&mut self, holders: &[LeadHolder], now: Instant) -> Option<LeadProblem> {
        if let Some(other) = holders.iter().find(|holder| !holder.is_own_role) {
            let LeadHolder { process, role, .. } = other.clone();
            return Some(LeadProblem::OtherRole { process, role });
        }
        let Some(&LeadHolder { process, .. }) = holders.iter().find(|holder| !holder.counts) else {
            self.without_term = None;
            return None;
        };
        let since = match self.without_term {
            Some((before, since)) if before == process => since,
            _ => now,
        };
        self.without_term = Some((process, since));
        (now.duration_since(since) >= TERM_TIMEOUT).then_some(LeadProblem::NoTerm { process })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(process: i32, is_own_role: bool, counts: bool) -> LeadHolder {
        LeadHolder { process, role: "somebody".to_owned(), is_own_role, counts }
    }

    #[test]
    fn another_role_is_a_problem_at_once_and_a_missing_term_after_some_seconds() {
        let began = Instant::now();
        let mut watch = LeadWatch::default();
        let mut judge = |second, holders: &[LeadHolder]| {
            watch.judge(holders, began + Duration::from_secs(second))
        };
        let other_role = LeadProblem::OtherRole { process: 7, role: "somebody".to_owned() };
        assert_eq!(judge(0, &[holder(7, false, true)]), Some(other_role));
        assert_eq!(
            judge(1, &[holder(8, true, false)]),
            None,
            "it may have taken the lead just now"
        );
        assert_eq!(judge(5, &[holder(8, true, false)]), None);
        assert_eq!(judge(6, &[holder(8, true, false)]), Some(LeadProblem::NoTerm { process: 8 }));
        assert_eq!(judge(7, &[holder(9, true, false)]), None, "another session has its own time");
        assert_eq!(judge(8, &[holder(9, true, true)]), None);
        assert_eq!(judge(13, &[holder(9, true, false)]), None, "it has counted in between");
        assert_eq!(judge(14, &[]), None);
    }
}
