//! Every write of the producers, and its outcome as far as the producer knows it.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use clap::ValueEnum;
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use tokio::sync::watch;
use uuid::Uuid;

/// What must be true of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ExpectedState {
    /// Its insertion was acknowledged: the row exists, and was inserted once.
    Stored,
    /// Its insertion was refused or rolled back, or its deletion was acknowledged: the row does not
    /// exist.
    Absent,
    /// There was no conclusive response: the row may exist, and was inserted at most once.
    #[default]
    Unknown,
}

/// The rows that events refer to. No producer deletes them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parents {
    pub(crate) base_item: Uuid,
    pub(crate) user: Uuid,
    pub(crate) item: Uuid,
}

/// A row that a producer wrote.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ExpectedRow {
    pub(crate) state: ExpectedState,
    /// The requested time of a row that no producer changes.
    pub(crate) time: Option<SystemTime>,
}

/// All rows that were written, by table and id.
pub(crate) type ExpectedRows = HashMap<(Table, Uuid), ExpectedRow>;

/// The tables of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Table {
    Items,
    Transfers,
}

impl Table {
    pub(crate) const ALL: [Self; 2] = [Self::Items, Self::Transfers];

    /// The table's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Items => "items",
            Self::Transfers => "transfers",
        }
    }

    /// The column with the time of the event, by which a row is counted.
    pub(crate) const fn time_column(self) -> &'static str {
        match self {
            Self::Items => "created_at",
            Self::Transfers => "\"timestamp\"",
        }
    }
}

/// The kinds of write. A long run must have seen each succeed; otherwise it would prove nothing
/// about that kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum WriteKind {
    /// One row through ingest-api.
    Single,
    /// An upload, of which at least one line was stored.
    Upload,
    /// A request with an `Idempotency-Key`.
    Keyed,
    /// The repeat of an acknowledged request.
    Repeat,
    /// A deletion through ingest-api.
    Deletion,
    /// An invalid row, which was refused.
    Refusal,
    /// Rows by INSERT, committed.
    Insert,
    /// Rows by COPY, committed.
    Copy,
    /// Rows by MERGE, committed.
    Merge,
    /// A row by UPDATE, committed.
    Update,
    /// A row by DELETE, committed.
    Delete,
    /// A savepoint rolled back in a transaction that was committed.
    PartRolledBack,
    /// A transaction that was rolled back.
    RolledBack,
    /// A two-phase transaction, committed.
    CommitPrepared,
    /// A two-phase transaction, rolled back.
    RollbackPrepared,
}

/// The writes of all producers.
#[derive(Debug, Default)]
pub(crate) struct WriteHistory {
    log: Mutex<WriteLog>,
    in_flight: AtomicUsize,
    /// Whether producers must wait before their next write.
    paused: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct WriteLog {
    rows: ExpectedRows,
    kinds: BTreeSet<WriteKind>,
    violations: Vec<String>,
    totals: WriteTotals,
}

/// The number of writes, by outcome.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WriteTotals {
    pub(crate) acknowledged: u64,
    /// Refused or rolled back.
    pub(crate) refused: u64,
    /// No response, or one that leaves the outcome open.
    pub(crate) unknown: u64,
}

/// A write in progress.
pub(crate) struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl WriteHistory {
    /// Notes the outcome of the write of a row.
    pub(crate) fn note(&self, table: Table, id: Uuid, state: ExpectedState) {
        self.rows().entry((table, id)).or_default().state = state;
    }

    /// Notes the time that a row must have if it exists.
    pub(crate) fn note_time(&self, table: Table, id: Uuid, time: SystemTime) {
        self.rows().entry((table, id)).or_default().time = Some(time);
    }

    /// Notes kinds of write that succeeded.
    pub(crate) fn succeeded(&self, kinds: impl IntoIterator<Item = WriteKind>) {
        self.log.lock().kinds.extend(kinds);
    }

    /// The kinds of write that have never succeeded.
    pub(crate) fn untried(&self) -> Vec<WriteKind> {
        let tried = &self.log.lock().kinds;
        WriteKind::value_variants().iter().filter(|kind| !tried.contains(kind)).copied().collect()
    }

    /// Records a response that must never occur.
    pub(crate) fn record_violation(&self, violation: String) {
        self.log.lock().violations.push(violation);
    }

    /// Takes the recorded violations.
    pub(crate) fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().violations)
    }

    /// Counts a write by its outcome.
    pub(crate) fn count(&self, state: ExpectedState) {
        let totals = &mut self.log.lock().totals;
        let counter = match state {
            ExpectedState::Stored => &mut totals.acknowledged,
            ExpectedState::Absent => &mut totals.refused,
            ExpectedState::Unknown => &mut totals.unknown,
        };
        *counter += 1;
    }

    /// All rows that were written, and what must be true of them.
    pub(crate) fn rows(&self) -> MappedMutexGuard<'_, ExpectedRows> {
        MutexGuard::map(self.log.lock(), |log| &mut log.rows)
    }

    /// Begins a write. Waits while the producers are paused.
    pub(crate) async fn begin(&self) -> InFlight<'_> {
        let mut paused = self.paused.subscribe();
        loop {
            // This cannot fail, because the sender lives as long as `self`.
            drop(paused.wait_for(|paused| !paused).await);
            self.in_flight.fetch_add(1, Ordering::SeqCst);
            let write = InFlight(&self.in_flight);
            // A pause that began in between does not wait for this write.
            if !*paused.borrow() {
                return write;
            }
        }
    }

    /// The number of writes in progress.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Pauses the producers before their next write, or lets them continue.
    pub(crate) fn pause(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    /// The number of writes until now.
    pub(crate) fn totals(&self) -> WriteTotals {
        self.log.lock().totals
    }
}
