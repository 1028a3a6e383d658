//! What must be true after a fault, and what must be true at a pause.
//!
//! After a fault: a new write to each ingest-api is acknowledged, and each gateway shows it as
//! live. At a pause, when no producer writes: every subscriber shows every committed event, every
//! version that was shown since the last pause is one database snapshot ([`Checker`]), every
//! acknowledged row is stored exactly once, and the rollups equal the events.

mod rows;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use uuid::Uuid;

use crate::checker::{Change, Changes, Checker, ReplacedHistory};
use crate::database::Database;
use crate::fault::Violation;
use crate::history::{ExpectedState, Table};
use crate::observed::Observed;
use crate::subscriber::Subscriber;
use crate::wait::until;
use crate::world::TestWorld;

/// The most violations of the stored rows that one check reports.
const VIOLATIONS_MAX: usize = 20;

/// The most differing counts that one check reports.
const DIFFERENCES_MAX: usize = 10;

/// The producers and the subscribers of a system, and what is known about them.
pub(crate) struct Verification {
    pub(crate) world: TestWorld,
    /// The first two are steady: one of each gateway.
    pub(crate) subscribers: Vec<Subscriber>,
    pub(crate) checker: Checker,
    pub(crate) recovery_timeout: Duration,
}

/// A failover of Postgres between two pauses, after which the database does not have all that the
/// server before it had.
#[derive(Debug)]
pub(crate) struct Failover {
    pub(crate) replaced: ReplacedHistory,
    /// The rows whose last write was lost, if it is no violation to lose an acknowledged one.
    pub(crate) may_be_lost: HashSet<(Table, Uuid)>,
}

/// Fails with a [`Violation`] if a service did something that no fault explains.
pub(crate) fn check_services(observed: &mut Observed<'_>) -> anyhow::Result<()> {
    observed.violation().map_or(Ok(()), |wrong| Err(Violation(wrong).into()))
}

impl Verification {
    /// The number of `stale` statuses that the steady subscribers have received.
    pub(crate) fn stale_statuses(&self) -> [u64; 2] {
        [0, 1].map(|steady: usize| self.subscribers[steady].received().stale)
    }

    /// Waits until a write to each ingest-api is acknowledged, and each gateway shows it as live.
    pub(crate) async fn recover(&self, observed: &mut Observed<'_>) -> anyhow::Result<()> {
        check_services(observed)?;
        for ingest in 0..self.world.ingest.len() {
            let item = self.world.probe(ingest, self.recovery_timeout).await;
            let item =
                item.map_err(|error| Violation(format!("ingest-api {}: {error:#}", ingest + 1)))?;
            let transaction = observed.database.transaction_of(item).await?;
            let (transaction, made) = transaction.with_context(|| {
                Violation(format!("{item} was acknowledged, but is not in items"))
            })?;
            for subscriber in &self.subscribers[..2] {
                let shown = || {
                    let version = subscriber.version()?;
                    let publications = observed.publications();
                    let sees = publications.get(&version)?.sees(transaction, made);
                    Some(sees && subscriber.received().live)
                };
                if !until(self.recovery_timeout, async || Ok(shown() == Some(true))).await? {
                    let name = subscriber.name();
                    let seconds = self.recovery_timeout.as_secs();
                    let version = subscriber.version();
                    let live = subscriber.received().live;
                    let has = version.map_or("nothing".to_owned(), |version| version.to_string());
                    bail!(Violation(format!(
                        "{name} was not shown an acknowledged write, live, within {seconds} s; it has {has}, \
                         live: {live}"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Pauses the producers, waits until every subscriber shows every event, and checks everything
    /// since the last pause, in which there may have been a failover. Returns how many acknowledged
    /// writes the failover has lost that it may lose.
    pub(crate) async fn check_at_a_pause(
        &mut self,
        observed: &mut Observed<'_>,
        failover: Option<Failover>,
    ) -> anyhow::Result<usize> {
        let history = Arc::clone(&self.world.history);
        history.pause(true);
        let paused = until(self.recovery_timeout, async || Ok(history.in_flight() == 0));
        ensure!(paused.await?, "the producers did not pause in time");
        self.until_no_transaction_writes(observed.database).await?;
        let changes = observed.database.changes().await?;
        let all_shown = || {
            let publications = observed.publications();
            let version = self.subscribers[0].version()?;
            let shown = publications.get(&version)?;
            let same_version =
                self.subscribers.iter().all(|other| other.version() == Some(version));
            let complete = changes.iter().all(|change| shown.sees(change.transaction, change.made));
            Some(same_version && complete)
        };
        if !until(self.recovery_timeout, async || Ok(all_shown() == Some(true))).await? {
            bail!(Violation(self.missing_changes(observed, &changes)));
        }
        let mut wrong = history.take_violations();
        let mut frames = Vec::new();
        for subscriber in &self.subscribers {
            let received = subscriber.take();
            frames.push(received.frames);
            wrong.extend(received.errors);
        }
        let (replaced, may_be_lost) =
            failover.map(|failover| (failover.replaced, failover.may_be_lost)).unzip();
        let changes = Changes { kept: changes, replaced };
        wrong.extend(self.checker.check(&observed.publications(), &changes, &frames));
        let (wrong_rows, lost) =
            self.wrong_rows(observed.database, &may_be_lost.unwrap_or_default()).await?;
        wrong.extend(wrong_rows);
        wrong.extend(self.wrong_counts(observed.database).await?);
        if !wrong.is_empty() {
            bail!(Violation(wrong.join("\n")));
        }
        history.pause(false);
        Ok(lost)
    }

    /// What each subscriber is missing, in words.
    fn missing_changes(&self, observed: &Observed<'_>, changes: &[Change]) -> String {
        let publications = observed.publications();
        let shown = self.subscribers.iter().map(|subscriber| {
            let name = subscriber.name();
            let Some(version) = subscriber.version() else {
                return format!("{name} has no version");
            };
            let shown = publications.get(&version);
            let unseen = changes.iter().filter(|change| {
                shown.is_none_or(|shown| !shown.sees(change.transaction, change.made))
            });
            match unseen.count() {
                0 => format!("{name} has {version}, which is complete"),
                unseen => format!(
                    "{name} has {version}, whose snapshot does not see {unseen} committed changes"
                ),
            }
        });
        let shown = shown.collect::<Vec<_>>().join("; ");
        format!("at a pause not every subscriber was shown every event: {shown}")
    }

    /// Requests that were sent before the pause, and whose producer no longer waits, may still
    /// write.
    async fn until_no_transaction_writes(&self, database: &mut Database) -> anyhow::Result<()> {
        let unwritten =
            until(self.recovery_timeout, async || Ok(!database.is_written().await?)).await?;
        ensure!(unwritten, Violation("a transaction did not end in time at a pause".to_owned()));
        Ok(())
    }

    /// Compares the stored rows with the outcomes that the producers know. Returns the violations,
    /// and how many acknowledged writes were lost that may be.
    async fn wrong_rows(
        &self,
        database: &mut Database,
        may_be_lost: &HashSet<(Table, Uuid)>,
    ) -> anyhow::Result<(Vec<String>, usize)> {
        let mut wrong = Vec::new();
        let mut lost = 0;
        for table in Table::ALL {
            let stored: HashMap<_, _> = database.rows(table).await?.into_iter().collect();
            if let Some(id) = database.unbalanced(table).await? {
                wrong.push(format!("{id} was not written to {} exactly once", table.name()));
            }
            let mut rows = self.world.history.rows();
            let findings = rows::compare(table, &rows, &stored, may_be_lost);
            wrong.extend(findings.wrong);
            lost += findings.lost.len();
            // From now on, they must stay as they are.
            for id in findings.lost {
                let is_stored = stored.contains_key(&id);
                let state = if is_stored { ExpectedState::Stored } else { ExpectedState::Absent };
                rows.entry((table, id)).or_default().state = state;
            }
        }
        wrong.truncate(VIOLATIONS_MAX);
        Ok((wrong, lost))
    }

    /// Compares the events with the audit, from which all windows have just been checked, and with
    /// the rollups.
    async fn wrong_counts(&self, database: &mut Database) -> anyhow::Result<Vec<String>> {
        let counted = database.recount().await?;
        let audited: HashSet<_> = self.checker.counts().collect();
        let mut wrong = Vec::new();
        for (topic, time, count) in counted.symmetric_difference(&audited).take(DIFFERENCES_MAX) {
            let whose =
                if counted.contains(&(topic.clone(), *time, *count)) { "events" } else { "audit" };
            wrong.push(format!("{topic} at {time} is {count} according to the {whose} only"));
        }
        // A flush updates the rollups about once a second.
        let mut rollups = 0;
        let equal = until(self.recovery_timeout, async || {
            rollups = database.wrong_rollups().await?;
            Ok(rollups == 0)
        });
        if !equal.await? {
            wrong.push(format!("{rollups} rollups differ from the events"));
        }
        Ok(wrong)
    }
}
