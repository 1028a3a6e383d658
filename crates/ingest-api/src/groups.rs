//! Grouped writes: rows of single requests that are committed together.
//!
//! Each thread that serves requests has a bounded queue for each table, and a writer, which takes
//! what waits, up to `writes.max_group_rows`, and stores it with one statement. No row waits for
//! others to join it: a lone row is written at once, as a group of one, and a group has the rows
//! that arrived while the writer was busy. So groups grow with the load.
//!
//! A writer is a task on the thread of the queue, which a row starts, and ends when nothing waits.
//! While a group is stuck, further writers write those behind it. The queues of a thread share
//! `writes.max_extra_writers` of them, so each queue always has a connection for its first one.
//!
//! Invariants:
//! - A caller gets the outcome of its own row, after the commit.
//! - A row that cannot be stored does not hurt the other rows of its group: if the database refuses
//!   the group, or it waits for a lock for too long, each row without an outcome is sent alone.
//!   Those that most likely wait for the same lock come last.
//! - A caller that hangs up, or whose time is up, cancels no statement. Its row is left out if no
//!   writer has taken it.
//! - Each row has an id before it is queued, so a row whose outcome was lost can be sent again: it
//!   is stored once. [`mod@crate::store`] says which outcome it then has.
//! - While rows wait, a writer runs. If the only writer of a queue panics, the rows that wait are
//!   not written, and their callers get an error at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postgres_kit::database::{Connections, Unavailable};
use service_kit::metrics::Metrics;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};
use uuid::Uuid;

use crate::metrics;
use crate::model::{BaseItem, Item, NewRow, Transfer, User};
use crate::settings::{Limits, WriteSettings};
use crate::store::{DatabaseError, Expectation, InsertOutcome, Insertion, StoredRow};

/// How often a group is sent if the connection is lost or the server stops the work. Without a
/// delay: an outage is longer than any delay that callers could wait for.
const ATTEMPTS: usize = 3;

/// If no writer has taken a group for this long, because each waits for a lock or for a slow
/// commit, another one begins.
const STUCK_AFTER: Duration = Duration::from_millis(50);

/// To whom a group is answered, and when. Injected as the clock is, so that the checks of chaos can
/// be checked with a service that answers wrongly.
#[derive(Debug, Clone, Copy)]
pub struct Delivery {
    /// The place of the caller who gets the outcome of a row, from the place of the row and the
    /// number of rows of the group.
    pub recipient: fn(usize, usize) -> usize,
    /// Whether callers wait for the commit.
    pub after_commit: bool,
}

impl Default for Delivery {
    fn default() -> Self {
        Self { recipient: |row, _| row, after_commit: true }
    }
}

/// The outcome of the row of one caller.
type Answer<R> = Result<InsertOutcome<R>, DatabaseError>;

/// A row, and the caller who waits for its outcome.
struct Waiting<R> {
    row: NewRow<R>,
    deadline: Instant,
    caller: oneshot::Sender<Answer<R>>,
}

/// What the queues of all tables share.
struct Shared {
    connections: Connections,
    settings: WriteSettings,
    timeout: Duration,
    /// How long a statement waits for a lock at most.
    lock_timeout: Duration,
    /// One permit for each further writer of a queue whose writers are stuck.
    extra_writers: Arc<Semaphore>,
    delivery: Delivery,
    metrics: Metrics,
}

/// The rows of one table that wait, and its writers.
struct State<R> {
    waiting: VecDeque<Waiting<R>>,
    writers: usize,
    /// Whether a task looks whether the writers are stuck: always while there are any.
    is_watched: bool,
    /// The number of writers that were ever started, which numbers them.
    started: u64,
    /// When a writer last began, or took a group, and its number.
    taken: Instant,
    taken_by: u64,
}

impl<R> State<R> {
    /// Whether a writer has taken a group lately, and so will take the next one soon.
    fn is_moving(&self, now: Instant) -> bool {
        self.writers > 0 && now.duration_since(self.taken) < STUCK_AFTER
    }
}

/// The queue of one table.
pub(crate) struct Queue<R> {
    state: Mutex<State<R>>,
    expectation: Expectation,
    shared: Arc<Shared>,
}

/// The queues of all tables, of one thread that serves requests.
pub(crate) struct Queues {
    base_items: Arc<Queue<BaseItem>>,
    users: Arc<Queue<User>>,
    items: Arc<Queue<Item>>,
    transfers: Arc<Queue<Transfer>>,
}

impl Queues {
    /// The queues of a thread, with connections of its own. A row waits at most
    /// `limits.query_timeout` for its outcome.
    pub(crate) fn new(
        connections: Connections,
        settings: WriteSettings,
        limits: &Limits,
        delivery: Delivery,
        metrics: Metrics,
    ) -> Self {
        let shared = Arc::new(Shared {
            connections,
            timeout: limits.query_timeout.get(),
            lock_timeout: limits.lock_timeout(),
            extra_writers: Arc::new(Semaphore::new(settings.max_extra_writers)),
            settings,
            delivery,
            metrics,
        });
        Self {
            base_items: Queue::new(&shared),
            users: Queue::new(&shared),
            items: Queue::new(&shared),
            transfers: Queue::new(&shared),
        }
    }

    /// The number of rows that wait, by table.
    pub(crate) fn lengths(&self) -> [(&'static str, usize); 4] {
        [
            (BaseItem::TABLE, self.base_items.length()),
            (User::TABLE, self.users.length()),
            (Item::TABLE, self.items.length()),
            (Transfer::TABLE, self.transfers.length()),
        ]
    }
}

/// A row that is written in groups.
pub(crate) trait GroupedRow: StoredRow {
    /// The queue of its table.
    fn queue(queues: &Queues) -> &Arc<Queue<Self>>;
}

impl GroupedRow for BaseItem {
    fn queue(queues: &Queues) -> &Arc<Queue<Self>> {
        &queues.base_items
    }
}

impl GroupedRow for User {
    fn queue(queues: &Queues) -> &Arc<Queue<Self>> {
        &queues.users
    }
}

impl GroupedRow for Item {
    fn queue(queues: &Queues) -> &Arc<Queue<Self>> {
        &queues.items
    }
}

impl GroupedRow for Transfer {
    fn queue(queues: &Queues) -> &Arc<Queue<Self>> {
        &queues.transfers
    }
}

impl<R: StoredRow> Queue<R> {
    fn new(shared: &Arc<Shared>) -> Arc<Self> {
        let state = State {
            waiting: VecDeque::new(),
            writers: 0,
            is_watched: false,
            started: 0,
            taken: Instant::now(),
            taken_by: 0,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            expectation: Expectation::default(),
            shared: Arc::clone(shared),
        })
    }

    /// A panic while the lock is held cannot leave the state half changed.
    fn state(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn length(&self) -> usize {
        self.state().waiting.len()
    }

    /// Stores a row, in a group with others that wait. Must be called on a thread that serves
    /// requests.
    ///
    /// # Errors
    /// [`DatabaseError::QueueFull`] at once. The errors of the database; the row may be stored
    /// then, except after [`DatabaseError::Refused`].
    pub(crate) async fn insert(self: &Arc<Self>, row: NewRow<R>) -> Answer<R> {
        let deadline = Instant::now() + self.shared.timeout;
        let (caller, answer) = oneshot::channel();
        self.add(Waiting { row, deadline, caller })?;
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            // The writer has panicked, or the time is up.
            Ok(Err(_)) | Err(_) => Err(Unavailable::NoAnswer(self.shared.timeout).into()),
        }
    }

    /// Queues a row.
    fn add(self: &Arc<Self>, row: Waiting<R>) -> Result<(), DatabaseError> {
        let mut state = self.state();
        if state.waiting.len() >= self.shared.settings.max_queued_rows.get() {
            drop(state);
            metrics::record_full_queue::<R>(&self.shared.metrics);
            return Err(DatabaseError::QueueFull);
        }
        state.waiting.push_back(row);
        self.start_writer_if_stuck(&mut state);
        if !state.is_watched {
            state.is_watched = true;
            actix_web::rt::spawn(Arc::clone(self).watch());
        }
        Ok(())
    }

    /// Looks whether the writers are stuck, as long as there are any. So a stuck group holds up
    /// those behind it for [`STUCK_AFTER`], unless all extra writers are stuck as well.
    ///
    /// One task looks for all rows: if each had a timer for this, each would be due before all
    /// others, and wake the runtime by a system call.
    async fn watch(self: Arc<Self>) {
        loop {
            let next_look = {
                let mut state = self.state();
                if state.writers == 0 {
                    state.is_watched = false;
                    return;
                }
                self.start_writer_if_stuck(&mut state);
                let now = Instant::now();
                let since = if state.is_moving(now) { state.taken } else { now };
                since + STUCK_AFTER
            };
            sleep_until(next_look).await;
        }
    }

    /// Starts a writer if rows wait and no other one is about to take them.
    fn start_writer_if_stuck(self: &Arc<Self>, state: &mut State<R>) {
        let now = Instant::now();
        if state.waiting.is_empty() || state.is_moving(now) {
            return;
        }
        let permit = if state.writers == 0 {
            None
        } else {
            let Ok(permit) = Arc::clone(&self.shared.extra_writers).try_acquire_owned() else {
                return;
            };
            Some(permit)
        };
        state.writers += 1;
        state.started += 1;
        let number = state.started;
        // The new writer is about to take them.
        (state.taken, state.taken_by) = (now, number);
        let writer = Writer { queue: Arc::clone(self), number, ended: false, _extra: permit };
        actix_web::rt::spawn(writer.run());
    }

    /// Inserts rows, again if the connection is lost meanwhile.
    async fn send(
        &self,
        insertion: &mut Insertion<'_, R>,
        deadline: Instant,
    ) -> Result<(), DatabaseError> {
        let mut attempt = 1;
        loop {
            let timeout = deadline.saturating_duration_since(Instant::now());
            let work = async |session: &_| insertion.run(session).await;
            match self.shared.connections.run(timeout, work).await {
                Err(DatabaseError::Away(reason))
                    if attempt < ATTEMPTS && matches!(*reason, Unavailable::Interrupted(_)) =>
                {
                    attempt += 1;
                    // The others are most likely lost, too, and may not have noticed it yet.
                    self.shared.connections.close_idle();
                }
                result => return result,
            }
        }
    }

    /// Stores a group, and answers its callers.
    async fn write(&self, group: Vec<Waiting<R>>) {
        let start = Instant::now();
        // The callers wait for their own deadlines only, so none of them waits too long.
        let deadline = group.iter().map(|waiting| waiting.deadline).max().unwrap_or(start);
        let (rows, callers): (Vec<_>, Vec<_>) =
            group.into_iter().map(|waiting| (waiting.row, Some(waiting.caller))).unzip();
        let mut callers = Callers { callers, delivery: self.shared.delivery };
        if !self.shared.delivery.after_commit {
            for (index, new) in rows.iter().enumerate() {
                callers.answer(index, Ok(InsertOutcome::Created(new.row.clone())));
            }
        }
        // A lone row has a statement that finds out about an id that exists at about the same cost.
        let mut insertion = if rows.len() == 1 {
            Insertion::new(&rows)
        } else {
            Insertion::expected_new(&rows, &self.expectation)
        };
        let result = loop {
            match self.send(&mut insertion, deadline).await {
                // A lone row holds up no others, so it waits again as long as its time allows.
                Err(DatabaseError::Locked)
                    if rows.len() == 1 && Instant::now() + self.shared.lock_timeout < deadline => {}
                result => break result,
            }
        };
        let outcomes = insertion.into_outcomes();
        self.record(start, &outcomes);
        let mut open = Vec::new();
        for (index, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Some(outcome) => callers.answer(index, Ok(outcome)),
                None => open.push(index),
            }
        }
        match result {
            // Then no row is open.
            Ok(()) => {}
            Err(DatabaseError::Away(reason)) => {
                for index in open {
                    callers.answer(index, Err(DatabaseError::Away(Arc::clone(&reason))));
                }
            }
            Err(error) if rows.len() == 1 => callers.answer(0, Err(error)),
            // One of the rows is the reason.
            Err(_) => self.write_alone(&rows, open, deadline, &mut callers).await,
        }
    }

    /// Stores the rows `open` one by one, and answers their callers.
    async fn write_alone(
        &self,
        rows: &[NewRow<R>],
        mut open: Vec<usize>,
        deadline: Instant,
        callers: &mut Callers<R>,
    ) {
        open.reverse();
        while let Some(index) = open.pop() {
            let start = Instant::now();
            if start >= deadline {
                let late = Unavailable::NoAnswer(self.shared.timeout);
                callers.answer(index, Err(late.into()));
                continue;
            }
            let mut alone = Insertion::new(std::slice::from_ref(&rows[index]));
            let result = self.send(&mut alone, deadline).await;
            let mut outcomes = alone.into_outcomes();
            self.record(start, &outcomes);
            if matches!(result, Err(DatabaseError::Locked)) {
                // Rows with this id or one of these parents would wait too. The others go first.
                let locked = touched(&rows[index].row);
                let waits =
                    |index: &usize| touched(&rows[*index].row).iter().any(|id| locked.contains(id));
                open.sort_by_key(|index| !waits(index));
            }
            let outcome = outcomes.pop().flatten();
            // An insert without an error has an outcome, so the last error cannot occur.
            let answer = outcome.ok_or_else(|| match result {
                Err(error) => error,
                Ok(()) => DatabaseError::Contended,
            });
            callers.answer(index, answer);
        }
    }

    fn record(&self, start: Instant, outcomes: &[Option<InsertOutcome<R>>]) {
        let known = outcomes.iter().flatten();
        metrics::record_insert(&self.shared.metrics, outcomes.len(), start.elapsed(), known);
    }
}

/// The ids of all rows that an insert locks: the row and its parents.
fn touched<R: StoredRow>(row: &R) -> Vec<Uuid> {
    let parents = row.references().into_iter().map(|reference| reference.parent.id);
    parents.chain([row.id()]).collect()
}

/// The callers of a group, in the order of its rows.
struct Callers<R> {
    callers: Vec<Option<oneshot::Sender<Answer<R>>>>,
    delivery: Delivery,
}

impl<R> Callers<R> {
    /// Answers the caller of a row.
    fn answer(&mut self, row: usize, answer: Answer<R>) {
        let place = (self.delivery.recipient)(row, self.callers.len());
        if let Some(caller) = self.callers.get_mut(place).and_then(Option::take) {
            // A caller that hung up does not need its answer.
            let _received = caller.send(answer);
        }
    }
}

/// A task that stores rows of one table until none waits.
struct Writer<R: StoredRow> {
    queue: Arc<Queue<R>>,
    /// As in [`State::taken_by`], which has it from the start.
    number: u64,
    /// Whether it is no longer counted in [`State::writers`].
    ended: bool,
    /// If it is not the first writer of its queue.
    _extra: Option<OwnedSemaphorePermit>,
}

impl<R: StoredRow> Writer<R> {
    async fn run(mut self) {
        while let Some(group) = self.take() {
            self.queue.write(group).await;
        }
    }

    /// The rows to write next, without those whose callers are gone. If there are none, or another
    /// writer has taken some lately and so will take them, this writer has ended.
    fn take(&mut self) -> Option<Vec<Waiting<R>>> {
        let max = self.queue.shared.settings.max_group_rows.get();
        let now = Instant::now();
        let mut group = Vec::new();
        let mut state = self.queue.state();
        let is_needed =
            state.writers == 1 || state.taken_by == self.number || !state.is_moving(now);
        while is_needed && group.len() < max {
            let Some(waiting) = state.waiting.pop_front() else { break };
            if waiting.caller.is_closed() {
                continue;
            }
            if waiting.deadline <= now {
                let late = Unavailable::NoAnswer(self.queue.shared.timeout);
                let _received = waiting.caller.send(Err(late.into()));
                continue;
            }
            group.push(waiting);
        }
        if group.is_empty() {
            state.writers -= 1;
            self.ended = true;
            return None;
        }
        (state.taken, state.taken_by) = (now, self.number);
        Some(group)
    }
}

impl<R: StoredRow> Drop for Writer<R> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut state = self.queue.state();
        state.writers -= 1;
        if state.writers == 0 {
            let dropped = std::mem::take(&mut state.waiting);
            drop(state);
            drop(dropped);
        }
    }
}
