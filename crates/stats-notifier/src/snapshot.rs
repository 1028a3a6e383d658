//! A snapshot of the database determines which transactions are visible.

use std::fmt;
use std::str::FromStr;

/// A `pg_snapshot`, written `xmin:xmax:xip,xip,…`
/// (<https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT>).
///
/// Transaction ids have 64 bits here, so they never wrap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    xmin: u64,
    xmax: u64,
    in_progress: Vec<u64>,
}

impl Snapshot {
    /// All transactions below this one had ended when the snapshot was taken.
    pub const fn xmin(&self) -> u64 {
        self.xmin
    }

    /// This transaction and all above it had not started.
    pub const fn xmax(&self) -> u64 {
        self.xmax
    }

    /// Whether the snapshot sees the rows of a transaction, if the transaction committed.
    pub fn sees(&self, transaction: u64) -> bool {
        transaction < self.xmax && !self.in_progress.contains(&transaction)
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:", self.xmin, self.xmax)?;
        for (index, transaction) in self.in_progress.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(formatter, "{comma}{transaction}")?;
        }
        Ok(())
    }
}

/// The text is not a `pg_snapshot`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a pg_snapshot")]
pub struct InvalidSnapshot(String);

impl FromStr for Snapshot {
    type Err = InvalidSnapshot;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut parts = text.split(':');
            let xmin = parts.next()?;
            let xmax = parts.next()?;
            let list = parts.next()?;
            let in_progress = list.split(',').filter(|id| !id.is_empty()).map(|id| id.parse().ok());
            Some(Self {
                xmin: xmin.parse().ok()?,
                xmax: xmax.parse().ok()?,
                in_progress: in_progress.collect::<Option<_>>()?,
            })
        };
        parse().ok_or_else(|| InvalidSnapshot(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sees_the_transactions_that_had_ended() {
        let snapshot: Snapshot = "10:20:10,14,15".parse().unwrap();
        assert_eq!(snapshot.to_string(), "10:20:10,14,15");
        let seen: Vec<u64> = (8..22).filter(|id| snapshot.sees(*id)).collect();
        assert_eq!(seen, [8, 9, 11, 12, 13, 16, 17, 18, 19]);
        assert!("5:5:".parse::<Snapshot>().unwrap().sees(4));
        assert!("10:20".parse::<Snapshot>().is_err());
    }
}
