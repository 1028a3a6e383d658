//! Every write of the producers, and its outcome as far as the producer knows it.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use clap::ValueEnum;
use tokio::sync::watch;
use uuid::Uuid;

/// What must be true of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpectedState {
    /// Its insertion was acknowledged: the row exists, and was inserted once.
    Stored,
    /// Its insertion was refused or rolled back, or its deletion was acknowledged: the row does not
    /// exist.
    Absent,
    /// There was no conclusive response: the row may exist, and was inserted at most once.
    Unknown,
}

/// The tables of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Table {
    Items,
    Transfers,
}

impl Table {
    pub(crate) const ALL: [Self; 2] = [Self::Items, Self::Transfers];

    /// The table's name.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Items => "items",
            Self::Transfers => "transfers",
        }
    }

    /// The column with the time of the event, by which a row is counted.
    #[must_use]
    pub(crate) const fn time(self) -> &'static str {
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
#[derive(Debug)]
pub(crate) struct WriteHistory {
    rows: Mutex<HashMap<(Table, Uuid), ExpectedState>>,
    /// The requested times of rows that no producer changes.
    times: Mutex<HashMap<(Table, Uuid), SystemTime>>,
    kinds: Mutex<BTreeSet<WriteKind>>,
    wrong: Mutex<Vec<String>>,
    in_flight: AtomicUsize,
    acknowledged: AtomicU64,
    refused: AtomicU64,
    unknown: AtomicU64,
    /// Whether producers must wait before their next write.
    paused: watch::Sender<bool>,
}

impl Default for WriteHistory {
    fn default() -> Self {
        Self {
            rows: Mutex::default(),
            times: Mutex::default(),
            kinds: Mutex::default(),
            wrong: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            acknowledged: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            paused: watch::Sender::new(false),
        }
    }
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
    /// Notes the outcome of the writes of rows.
    pub(crate) fn note(
        &self,
        table: Table,
        ids: impl IntoIterator<Item = Uuid>,
        state: ExpectedState,
    ) {
        let mut rows = self.rows();
        rows.extend(ids.into_iter().map(|id| ((table, id), state)));
    }

    /// Notes the time that a row must have if it exists.
    pub(crate) fn note_time(&self, table: Table, id: Uuid, time: SystemTime) {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).insert((table, id), time);
    }

    /// The time that a row must have, if that is known.
    pub(crate) fn time(&self, table: Table, id: Uuid) -> Option<SystemTime> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).get(&(table, id)).copied()
    }

    /// Notes kinds of write that succeeded.
    pub(crate) fn succeeded(&self, kinds: impl IntoIterator<Item = WriteKind>) {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner).extend(kinds);
    }

    /// The kinds of write that have never succeeded.
    pub(crate) fn untried(&self) -> Vec<WriteKind> {
        let tried = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        WriteKind::value_variants().iter().filter(|kind| !tried.contains(kind)).copied().collect()
    }

    /// Notes a response that must never occur.
    pub(crate) fn complain(&self, wrong: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(wrong);
    }

    /// Takes the responses that must never occur.
    pub(crate) fn complaints(&self) -> Vec<String> {
        std::mem::take(&mut *self.wrong.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts a write by its outcome.
    pub(crate) fn count(&self, state: ExpectedState) {
        let counter = match state {
            ExpectedState::Stored => &self.acknowledged,
            ExpectedState::Absent => &self.refused,
            ExpectedState::Unknown => &self.unknown,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// All rows that were written, and what must be true of them.
    pub(crate) fn rows(&self) -> MutexGuard<'_, HashMap<(Table, Uuid), ExpectedState>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
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
        WriteTotals {
            acknowledged: self.acknowledged.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
        }
    }
}
