//! Finds out why a standby cannot take the lead, if what holds it is not a leader.
//!
//! A superuser can take the advisory lock of the lead, and so can an operator who connects as this
//! role. If no superuser has run `migrate`, so can any role that may connect to the database. No
//! replica counts then, and none can do anything about it: a role may not end the sessions of
//! another role. So a standby says what it sees. It stays ready, because it still answers queries
//! for history.
//!
//! A session of this role that holds the lead is a leader's, or it is an operator's. Only an
//! operator's can be idle for long: the server ends the session of a leader that is silent for
//! `leader.session_timeout`. While it loads or recounts, it is not silent.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// How much longer than `leader.session_timeout` a session is idle if it is not a leader's. The
/// server may be late to end it.
const IDLE_MARGIN: Duration = Duration::from_secs(2);

/// After this time it is a problem that the lead cannot be taken, although no check finds what
/// holds it. Before that, the holder may just be changing.
const UNSEEN_TIMEOUT: Duration = Duration::from_secs(5);

/// What holds the lock of the lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeadHolder {
    /// A session.
    Session {
        /// The process id of its backend.
        process: i32,
        /// Its role.
        role: String,
        /// Whether that is the role of this replica too.
        is_own_role: bool,
        /// How long it has waited for a statement; zero while it runs one.
        idle: Duration,
    },
    /// A prepared transaction. It has no session.
    Prepared {
        /// Its name, as a literal of SQL.
        name: String,
        /// The role that prepared it.
        role: String,
    },
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
    /// A session of this role has the lead, and is idle for longer than a leader can be.
    Idle {
        /// The process id of its backend.
        process: i32,
    },
    /// A prepared transaction has the lead.
    Prepared {
        /// Its name, as a literal of SQL.
        name: String,
        /// The role that prepared it.
        role: String,
    },
    /// The lead cannot be taken, but nothing is seen that holds it.
    Unseen,
}

impl fmt::Display for LeadProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherRole { process, role } => write!(
                formatter,
                "no replica counts, because session {process} of the role {role:?} holds the lock of the lead: \
                 end it by SELECT pg_terminate_backend({process})"
            ),
            Self::Idle { process } => write!(
                formatter,
                "no replica counts, because session {process} holds the lock of the lead and does nothing: \
                 end it by SELECT pg_terminate_backend({process})"
            ),
            Self::Prepared { name, role } => write!(
                formatter,
                "no replica counts, because a prepared transaction of the role {role:?} holds the lock of the lead: \
                 end it by ROLLBACK PREPARED {name}"
            ),
            Self::Unseen => formatter.write_str(
                "no replica counts, because the lock of the lead cannot be taken, although pg_locks shows nothing that holds it",
            ),
        }
    }
}

/// Judges what holds the lead, from time to time.
#[derive(Debug)]
pub(crate) struct LeadWatch {
    /// A leader's session is never idle for as long as this.
    max_idle: Duration,
    /// Since when the lead could not be taken, and nothing was seen that holds it.
    unseen: Option<Instant>,
}

impl LeadWatch {
    /// Judges replicas with this `leader.session_timeout`.
    pub(crate) const fn new(session_timeout: Duration) -> Self {
        Self { max_idle: session_timeout.saturating_add(IDLE_MARGIN), unseen: None }
    }

    /// What is wrong with what holds the lock of the lead at `now`. The lead could not be taken
    /// just before.
    pub(crate) fn judge(&mut self, holders: &[LeadHolder], now: Instant) -> Option<LeadProblem> {
        if holders.is_empty() {
            let since = *self.unseen.get_or_insert(now);
            let is_long = now.duration_since(since) >= UNSEEN_TIMEOUT;
            return is_long.then_some(LeadProblem::Unseen);
        }
        self.unseen = None;
        holders.iter().find_map(|holder| match holder.clone() {
            LeadHolder::Prepared { name, role } => Some(LeadProblem::Prepared { name, role }),
            LeadHolder::Session { process, role, is_own_role: false, .. } => {
                Some(LeadProblem::OtherRole { process, role })
            }
            LeadHolder::Session { process, idle, .. } => {
                (idle > self.max_idle).then_some(LeadProblem::Idle { process })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(is_own_role: bool, idle: u64) -> LeadHolder {
        let (role, idle) = ("somebody".to_owned(), Duration::from_secs(idle));
        LeadHolder::Session { process: 7, role, is_own_role, idle }
    }

    fn watch() -> LeadWatch {
        LeadWatch::new(Duration::from_secs(3))
    }

    #[test]
    fn another_role_and_a_prepared_transaction_are_problems_at_once() {
        let role = || "somebody".to_owned();
        let judge = |holder| watch().judge(&[session(true, 0), holder], Instant::now());
        let problem = LeadProblem::OtherRole { process: 7, role: role() };
        assert_eq!(judge(session(false, 0)), Some(problem));
        let name = || "'it''s'".to_owned();
        let problem = LeadProblem::Prepared { name: name(), role: role() };
        assert!(problem.to_string().ends_with("end it by ROLLBACK PREPARED 'it''s'"));
        assert_eq!(judge(LeadHolder::Prepared { name: name(), role: role() }), Some(problem));
    }

    #[test]
    fn a_session_of_this_role_is_a_problem_if_it_is_idle_for_longer_than_a_leader_can_be() {
        let judge = |idle| watch().judge(&[session(true, idle)], Instant::now());
        assert_eq!(judge(0), None, "it may load the counts for long");
        assert_eq!(judge(4), None);
        assert_eq!(judge(6), Some(LeadProblem::Idle { process: 7 }));
    }

    #[test]
    fn a_lead_that_nothing_seems_to_hold_is_a_problem_after_some_seconds() {
        let began = Instant::now();
        let mut watch = watch();
        let mut judge = |second, holders: &[LeadHolder]| {
            watch.judge(holders, began + Duration::from_secs(second))
        };
        assert_eq!(judge(0, &[]), None, "the holder may just be changing");
        assert_eq!(judge(4, &[]), None);
        assert_eq!(judge(5, &[]), Some(LeadProblem::Unseen));
        assert_eq!(judge(6, &[session(true, 0)]), None);
        assert_eq!(judge(7, &[]), None, "a holder was seen in between");
    }
}
