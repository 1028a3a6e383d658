//! Why the database did not do what the store asked.

use std::time::Duration;

use domain::{ApplyError, InvalidTime, UnknownMetric, UnknownTimeUnit, UnknownTopic};
use postgres_kit::connect::ConnectError;
use postgres_kit::database::{Unavailable, describe, is_away};

use crate::snapshot::InvalidSnapshot;

/// An error of the store. On the leader's session, each of them ends the term.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Postgres refused a statement, or the connection is lost.
    #[error("Postgres: {}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// No session could be opened.
    #[error("no connection to Postgres: {0}")]
    Connect(#[from] ConnectError),
    /// No connection to the database is free, or it does not answer in time.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// A statement took longer than its time limit.
    #[error("no answer from Postgres within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// Another replica has begun a later term than this one.
    #[error("another replica leads: term {0} is over")]
    Deposed(i64),
    /// The leader did not release its lock in time.
    #[error(
        "another replica has kept the lead, or its lock of the counts, for {} s: stop it, then try again",
        .0.as_secs()
    )]
    LeadHeld(Duration),
    /// After a failover, the database address leads to another server than the session.
    #[error("the database address leads to another server than the one of this session")]
    ServerReplaced,
    /// The server has ended the session through which the leader writes, and its connection did not
    /// say so.
    #[error("the server has ended the session through which this leader writes")]
    UpkeepLost,
    /// The rollups do not belong to this database, or the events were never counted.
    #[error(
        "nothing was ever counted in this database: start stats-notifier, which counts all events, first"
    )]
    NeverCounted,
    /// The schema is not the one that this release needs.
    #[error(transparent)]
    Schema(#[from] postgres_kit::schema::SchemaError),
    /// A tick returned no snapshot, so its statement is not the right one.
    #[error("a tick returned no snapshot")]
    NoSnapshot,
    /// A row cannot be read back: it has a value or a type that the schema does not allow.
    #[error("the database holds what its schema does not allow: {0}")]
    Corrupt(Box<dyn std::error::Error + Send + Sync>),
}

impl StoreError {
    /// Whether the same request may succeed a little later, without anyone changing anything.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Postgres(error) => is_away(error),
            Self::Connect(error) => error.is_away(),
            Self::Unavailable(_)
            | Self::Timeout(_)
            | Self::Deposed(_)
            | Self::LeadHeld(_)
            | Self::ServerReplaced
            | Self::UpkeepLost
            | Self::NeverCounted => true,
            Self::Schema(_) | Self::NoSnapshot | Self::Corrupt(_) => false,
        }
    }
}

macro_rules! corrupt {
    ($($error:ty),*) => {$(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self::Corrupt(Box::new(error))
            }
        }
    )*};
}
corrupt!(ApplyError, InvalidSnapshot, InvalidTime, UnknownMetric, UnknownTimeUnit, UnknownTopic);
