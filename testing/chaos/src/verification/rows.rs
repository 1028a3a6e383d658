//! Compares the rows of a table with the outcomes that the producers know.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use uuid::Uuid;

use crate::history::{ExpectedRows, ExpectedState, Table};

/// How the rows of a table differ from the outcomes that the producers know.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RowFindings {
    pub(super) wrong: Vec<String>,
    /// The rows whose acknowledged insertion or deletion a failover has lost, although it may.
    pub(super) lost: Vec<Uuid>,
}

/// Compares the rows that a table has, and the time of each, with the expected ones. `may_be_lost`
/// has the rows whose last write a failover of Postgres has lost, if that is no violation.
pub(super) fn compare(
    table: Table,
    expected: &ExpectedRows,
    stored: &HashMap<Uuid, SystemTime>,
    may_be_lost: &HashSet<(Table, Uuid)>,
) -> RowFindings {
    let mut findings = RowFindings::default();
    let wrong = &mut findings.wrong;
    let name = table.name();
    for ((_, id), row) in expected.iter().filter(|((of, _), _)| *of == table) {
        match (row.state, stored.get(id)) {
            (ExpectedState::Stored, None) | (ExpectedState::Absent, Some(_))
                if may_be_lost.contains(&(table, *id)) =>
            {
                findings.lost.push(*id);
            }
            (ExpectedState::Stored, None) => {
                wrong.push(format!("{id} was acknowledged, but is not in {name}"));
            }
            (ExpectedState::Absent, Some(_)) => {
                wrong.push(format!("{id} was refused or deleted, but is in {name}"));
            }
            (_, Some(time)) if row.time.is_some_and(|sent| sent != *time) => {
                wrong.push(format!(
                    "{id} in {name} has the time {time:?}, but another one was sent"
                ));
            }
            _ => {}
        }
    }
    let unknown = stored.keys().filter(|id| !expected.contains_key(&(table, **id)));
    wrong.extend(unknown.map(|id| format!("{id} is in {name}, but no producer wrote it")));
    findings
}

#[cfg(test)]
mod tests {
    use crate::history::ExpectedRow;

    use super::*;

    /// Compares an item that is stored or not with its expected state.
    fn compared(state: ExpectedState, is_stored: bool, may_be_lost: bool) -> (usize, usize) {
        let id = Uuid::now_v7();
        let expected = [((Table::Items, id), ExpectedRow { state, time: None })].into();
        let stored = is_stored.then_some((id, SystemTime::now())).into_iter().collect();
        let lost = may_be_lost.then_some((Table::Items, id)).into_iter().collect();
        let RowFindings { wrong, lost } = compare(Table::Items, &expected, &stored, &lost);
        (wrong.len(), lost.len())
    }

    #[test]
    fn an_acknowledged_write_that_is_lost_is_wrong_unless_the_failover_may_lose_it() {
        for (state, is_stored) in [(ExpectedState::Stored, false), (ExpectedState::Absent, true)] {
            assert_eq!(compared(state, is_stored, false), (1, 0), "{state:?}");
            assert_eq!(compared(state, is_stored, true), (0, 1), "{state:?}");
            assert_eq!(compared(state, !is_stored, true), (0, 0), "{state:?}");
        }
        for is_stored in [false, true] {
            assert_eq!(compared(ExpectedState::Unknown, is_stored, false), (0, 0));
        }
    }

    #[test]
    fn a_row_that_no_producer_wrote_is_wrong() {
        let stored = [(Uuid::now_v7(), SystemTime::now())].into();
        let findings =
            compare(Table::Items, &ExpectedRows::default(), &stored, &HashSet::default());
        assert_eq!(findings.wrong.len(), 1);
    }
}
