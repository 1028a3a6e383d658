//! What was asked for, and what became of it as far as the asker knows.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use clap::ValueEnum;
use tokio::sync::watch;
use uuid::Uuid;

/// What must be true of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its insertion was acknowledged: it is there, once.
    Stored,
    /// It was refused, rolled back, or its deletion was acknowledged: it is not there.
    Absent,
    /// Nobody was told: it may be there, once.
    Unknown,
}

/// The tables of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// `items`.
    Items,
    /// `transfers`.
    Transfers,
}

impl Table {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Items, Self::Transfers];

    /// Its name in the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Items => "items",
            Self::Transfers => "transfers",
        }
    }

    /// The column of the time at which its rows count.
    #[must_use]
    pub const fn time(self) -> &'static str {
        match self {
            Self::Items => "created_at",
            Self::Transfers => "\"timestamp\"",
        }
    }
}

/// Ways to write, each of which a long run must have seen succeed: otherwise it says nothing of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Way {
    /// One row by REST.
    Single,
    /// An upload, of which at least one line was taken.
    Upload,
    /// A request with an `Idempotency-Key`.
    Keyed,
    /// The repeat of what was acknowledged.
    Repeat,
    /// A deletion by REST.
    Deletion,
    /// A refusal of what must be refused.
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
    /// A part rolled back of a transaction that was committed.
    PartRolledBack,
    /// A whole transaction rolled back.
    RolledBack,
    /// A transaction in two phases, committed.
    CommitPrepared,
    /// A transaction in two phases, rolled back.
    RollbackPrepared,
}

/// All writers' history, shared.
#[derive(Debug)]
pub struct History {
    rows: Mutex<HashMap<(Table, Uuid), Fate>>,
    /// The times that were asked for, of rows that nobody changes.
    times: Mutex<HashMap<(Table, Uuid), SystemTime>>,
    ways: Mutex<BTreeSet<Way>>,
    wrong: Mutex<Vec<String>>,
    in_flight: AtomicUsize,
    acknowledged: AtomicU64,
    refused: AtomicU64,
    unknown: AtomicU64,
    /// Whether writers are to wait.
    paused: watch::Sender<bool>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            rows: Mutex::default(),
            times: Mutex::default(),
            ways: Mutex::default(),
            wrong: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            acknowledged: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            paused: watch::Sender::new(false),
        }
    }
}

/// Writes by what became of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// Acknowledged.
    pub acknowledged: u64,
    /// Refused or rolled back.
    pub refused: u64,
    /// Neither: no answer, or one that leaves it open.
    pub unknown: u64,
}

/// A write on its way.
pub struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl History {
    /// Notes what became of rows.
    pub fn note(&self, table: Table, ids: impl IntoIterator<Item = Uuid>, fate: Fate) {
        let mut rows = self.rows();
        rows.extend(ids.into_iter().map(|id| ((table, id), fate)));
    }

    /// Notes at which time a row must count, should it be there.
    pub fn note_time(&self, table: Table, id: Uuid, time: SystemTime) {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).insert((table, id), time);
    }

    /// At which time a row must count, where that is known.
    pub fn time(&self, table: Table, id: Uuid) -> Option<SystemTime> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).get(&(table, id)).copied()
    }

    /// Notes that something was written in a way.
    pub fn succeeded(&self, ways: impl IntoIterator<Item = Way>) {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner).extend(ways);
    }

    /// The ways in which nothing was written until now.
    pub fn untried(&self) -> Vec<Way> {
        let tried = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        Way::value_variants().iter().filter(|way| !tried.contains(way)).copied().collect()
    }

    /// Notes an answer that must never be.
    pub fn complain(&self, wrong: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(wrong);
    }

    /// The answers since this was last asked that must never be, in words.
    pub fn complaints(&self) -> Vec<String> {
        std::mem::take(&mut *self.wrong.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts a write by what became of it.
    pub fn count(&self, fate: Fate) {
        let counter = match fate {
            Fate::Stored => &self.acknowledged,
            Fate::Absent => &self.refused,
            Fate::Unknown => &self.unknown,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// All rows, and what must be true of them.
    pub fn rows(&self) -> MutexGuard<'_, HashMap<(Table, Uuid), Fate>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a write; waits while writers are paused.
    pub async fn begin(&self) -> InFlight<'_> {
        let mut paused = self.paused.subscribe();
        loop {
            // The sender lives as long as this.
            drop(paused.wait_for(|paused| !paused).await);
            self.in_flight.fetch_add(1, Ordering::SeqCst);
            let write = InFlight(&self.in_flight);
            // A pause that began in between has not counted this one.
            if !*paused.borrow() {
                return write;
            }
        }
    }

    /// How many writes are on their way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Lets no further write begin, or lets them go on.
    pub fn pause(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    /// All writes until now.
    pub fn totals(&self) -> Totals {
        Totals {
            acknowledged: self.acknowledged.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
        }
    }
}
