//! The ways to store events, and what is compared with what.

use std::fmt;

use super::{MANY, P50, P99, RATE};
use crate::ephemeral_stack;

/// A way to store events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Single rows by pgbench.
    Sql { table: Table, clients: u32 },
    /// Single rows by wrk.
    Rest { connections: u32 },
    /// One streamed request of many lines.
    Upload,
    /// The same rows by COPY of psql into the raw table.
    Copy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Raw,
    Notify,
    Ours,
}

impl Table {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw_items",
            Self::Notify => "notify_items",
            Self::Ours => "items",
        }
    }

    pub(super) fn insert(self) -> String {
        let base_item = ephemeral_stack::BASE_ITEM;
        format!("INSERT INTO {} VALUES (gen_random_uuid(), '{base_item}', now());\n", self.name())
    }
}

impl Phase {
    /// The table that the rows are stored in.
    pub(super) const fn table(self) -> Table {
        match self {
            Self::Sql { table, .. } => table,
            Self::Rest { .. } | Self::Upload => Table::Ours,
            Self::Copy => Table::Raw,
        }
    }

    /// Rows that may have been stored without an answer when the load ends.
    pub(super) const fn unanswered(self) -> u32 {
        match self {
            Self::Sql { clients, .. } => clients,
            Self::Rest { connections } => connections,
            Self::Upload | Self::Copy => 0,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sql { table, clients } => {
                let table = match table {
                    Table::Raw => "raw SQL",
                    Table::Notify => "SQL with a NOTIFY trigger",
                    Table::Ours => "SQL with our triggers",
                };
                write!(formatter, "{table}, clients: {clients}")
            }
            Self::Rest { connections } => write!(formatter, "REST, connections: {connections}"),
            Self::Upload => formatter.write_str("NDJSON upload"),
            Self::Copy => formatter.write_str("COPY into the raw table"),
        }
    }
}

const fn sql(table: Table, clients: u32) -> Phase {
    Phase::Sql { table, clients }
}

const fn rest(connections: u32) -> Phase {
    Phase::Rest { connections }
}

pub(super) const PHASES: [Phase; 12] = [
    sql(Table::Raw, 1),
    sql(Table::Notify, 1),
    sql(Table::Ours, 1),
    rest(1),
    sql(Table::Raw, MANY),
    sql(Table::Notify, MANY),
    sql(Table::Ours, MANY),
    rest(16),
    rest(MANY),
    rest(256),
    Phase::Upload,
    Phase::Copy,
];

/// What is compared with what.
pub(super) const RATIOS: [(Phase, Phase, &str); 9] = [
    (rest(MANY), sql(Table::Raw, MANY), RATE),
    (sql(Table::Ours, MANY), sql(Table::Raw, MANY), RATE),
    (sql(Table::Notify, MANY), sql(Table::Raw, MANY), RATE),
    (sql(Table::Ours, 1), sql(Table::Raw, 1), RATE),
    (sql(Table::Notify, 1), sql(Table::Raw, 1), RATE),
    (Phase::Upload, Phase::Copy, RATE),
    (rest(1), sql(Table::Raw, 1), RATE),
    (rest(MANY), sql(Table::Raw, MANY), P50),
    (rest(MANY), sql(Table::Raw, MANY), P99),
];

/// The phases of a round, in its order. Rounds begin with different phases, and every second one
/// goes backwards, so that no phase always follows the same one.
pub(super) fn of_round(round: u32) -> Vec<Phase> {
    let mut phases = PHASES.to_vec();
    phases.rotate_left(round as usize * 5 % PHASES.len());
    if round % 2 == 1 {
        phases.reverse();
    }
    phases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ratio_compares_phases_that_are_measured() {
        for (of, to, _) in RATIOS {
            assert!(PHASES.contains(&of) && PHASES.contains(&to), "{of} ÷ {to}");
        }
    }

    #[test]
    fn each_round_measures_all_phases_and_every_second_one_backwards() {
        let next = |phases: &[Phase], phase| {
            let place = phases.iter().position(|other| *other == phase).expect("it is measured");
            phases[(place + 1) % phases.len()]
        };
        for round in (0..24).step_by(2) {
            let (forwards, backwards) = (of_round(round), of_round(round + 1));
            for phase in PHASES {
                assert_eq!(next(&backwards, next(&forwards, phase)), phase);
            }
        }
    }
}
