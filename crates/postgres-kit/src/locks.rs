//! The advisory locks of this system. Each is named here once; SQL in `migrations/` has to repeat
//! the numbers of the gate.

use tokio_postgres::types::Type;

use crate::session::Parameter;

/// An advisory lock of a database, as `pg_advisory_lock(class, purpose)` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdvisoryLock {
    /// The same number for all locks of this system, so that other users of the database can avoid
    /// it.
    pub class: i32,
    /// What the lock is for.
    pub purpose: i32,
}

impl AdvisoryLock {
    /// The lock as the first two parameters of a statement.
    #[must_use]
    pub const fn parameters(&self) -> [Parameter<'_>; 2] {
        [(&self.class, Type::INT4), (&self.purpose, Type::INT4)]
    }
}

const CLASS: i32 = 1_315_208_537;

/// The stats-notifier that holds it leads.
pub const LEAD: AdvisoryLock = AdvisoryLock { class: CLASS, purpose: 1 };
/// While the leader holds it, the triggers do not notify.
pub const GATE: AdvisoryLock = AdvisoryLock { class: CLASS, purpose: 2 };
/// Only one `migrate` at a time changes a database.
pub const MIGRATE: AdvisoryLock = AdvisoryLock { class: CLASS, purpose: 3 };

/// Finds the process ids of the sessions of this database that hold a lock exclusively.
///
/// `$1` is the class of the lock, `$2` its purpose. `pg_locks` has both as oid.
pub const FIND_HOLDERS: &str = "
    SELECT pid
    FROM pg_locks
    WHERE locktype = 'advisory'
      AND granted
      AND mode = 'ExclusiveLock'
      AND classid = $1::integer::oid
      AND objid = $2::integer::oid
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_triggers_test_the_lock_of_the_gate() {
        let sql = include_str!("../../../migrations/V2__counts.sql");
        let gate = format!("({}, {})", GATE.class, GATE.purpose);
        let calls: Vec<&str> = sql.lines().filter(|line| line.contains("advisory_")).collect();
        assert_eq!(calls.len(), 8, "each of four functions takes and releases it: {calls:?}");
        assert!(calls.iter().all(|call| call.contains(&gate)), "{calls:?}");
    }
}
