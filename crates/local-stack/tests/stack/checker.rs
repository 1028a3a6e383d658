//! What each shown version must be, recomputed from an audit of every row that was written.
//!
//! The notifier tells which snapshot of the database each version shows. The audit, written by row triggers of
//! its own, tells which transaction changed which count. So what a version must show is the sum of the audit rows
//! whose transactions its snapshot sees: computed here without the change log, the rollups or the state machine.

use std::collections::{BTreeMap, HashMap};

use domain::{BucketTime, Metric, TimeUnit, Topic, TopicFrame, Version};
use stats_notifier::snapshot::Snapshot;
use tokio_postgres::Client;

/// One state that a subscriber had.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) version: Version,
    pub(crate) topics: Vec<TopicFrame>,
}

/// One committed change of a count.
#[derive(Debug, Clone, Copy)]
struct Change {
    transaction: u64,
    metric: Metric,
    time: BucketTime,
    delta: i64,
}

/// Adds the audit to a database, before anything is written to it.
pub(crate) async fn begin_audit(client: &Client) {
    let audit = "
        CREATE TABLE audit (xact_id xid8 NOT NULL DEFAULT pg_current_xact_id(), metric text, time timestamptz, delta bigint);
        CREATE FUNCTION audit_items() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF TG_OP <> 'INSERT' THEN INSERT INTO audit VALUES (DEFAULT, 'item-creation', OLD.created_at, -1); END IF;
            IF TG_OP <> 'DELETE' THEN INSERT INTO audit VALUES (DEFAULT, 'item-creation', NEW.created_at, 1); END IF;
            RETURN NULL; END $$;
        CREATE FUNCTION audit_transfers() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF TG_OP <> 'INSERT' THEN INSERT INTO audit VALUES (DEFAULT, 'transfers', OLD.timestamp, -1); END IF;
            IF TG_OP <> 'DELETE' THEN INSERT INTO audit VALUES (DEFAULT, 'transfers', NEW.timestamp, 1); END IF;
            RETURN NULL; END $$;
        CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON items FOR EACH ROW EXECUTE FUNCTION audit_items();
        CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON transfers FOR EACH ROW EXECUTE FUNCTION audit_transfers();
        GRANT INSERT ON audit TO newcycle_ingest";
    client.batch_execute(audit).await.unwrap();
}

async fn audit(client: &Client) -> Vec<Change> {
    let rows = client.query("SELECT xact_id::text, metric, time, delta FROM audit", &[]).await.unwrap();
    let change = |row: &tokio_postgres::Row| Change {
        transaction: row.get::<_, &str>(0).parse().unwrap(),
        metric: row.get::<_, &str>(1).parse().unwrap(),
        time: row.get::<_, time::OffsetDateTime>(2).try_into().unwrap(),
        delta: row.get(3),
    };
    rows.iter().map(change).collect()
}

/// Everything that is wrong in what was shown, in words; empty where all is right.
pub(crate) async fn violations(
    client: &Client,
    recorded: &[(Version, Snapshot)],
    mut shown: Vec<Shown>,
) -> Vec<String> {
    let snapshots: HashMap<Version, &Snapshot> =
        recorded.iter().map(|(version, snapshot)| (*version, snapshot)).collect();
    let mut wrong = Vec::new();
    let mut unseen = audit(client).await;
    let mut counts: BTreeMap<(usize, BucketTime), i64> = BTreeMap::new();
    // One term at a time, in the order of its ticks: a later snapshot sees all that an earlier one saw, so each
    // change is added once.
    let terms: Vec<_> = recorded.iter().map(|(version, _)| version.nonce).collect();
    let place = |version: &Version| (terms.iter().position(|nonce| *nonce == version.nonce), version.tick);
    shown.sort_by_key(|state| place(&state.version));
    for state in &shown {
        let Some(snapshot) = snapshots.get(&state.version) else {
            wrong.push(format!("{} was shown, but never published", state.version));
            continue;
        };
        unseen.retain(|change| {
            let seen = snapshot.sees(change.transaction);
            if seen {
                for unit in TimeUnit::ALL {
                    let key = (Topic::new(change.metric, unit).index(), unit.truncate(change.time));
                    *counts.entry(key).or_insert(0) += change.delta;
                }
            }
            !seen
        });
        for window in &state.topics {
            compare(state.version, window, &counts, &mut wrong);
        }
        compare_sums(state, &mut wrong);
    }
    wrong
}

fn compare(
    version: Version,
    window: &TopicFrame,
    counts: &BTreeMap<(usize, BucketTime), i64>,
    wrong: &mut Vec<String>,
) {
    let topic = window.topic.index();
    for bucket in &window.buckets {
        let expected = counts.get(&(topic, bucket.time)).copied().unwrap_or(0);
        if bucket.count != expected {
            let (name, time, count) = (window.topic, bucket.time, bucket.count);
            wrong.push(format!("{version}: {name} at {time} shows {count}, but the snapshot has {expected}"));
        }
    }
    let full = window.buckets.len() >= window.window;
    let oldest = if full { window.buckets[0].time } else { BucketTime::MIN };
    let shown: std::collections::HashSet<_> = window.buckets.iter().map(|bucket| bucket.time).collect();
    for ((_, time), count) in counts.range((topic, oldest)..=(topic, BucketTime::MAX)) {
        if *count != 0 && !shown.contains(time) {
            wrong.push(format!("{version}: {} at {time} is missing, the snapshot has {count}", window.topic));
        }
    }
}

/// Finer buckets add up to the coarser one that holds them, wherever it lies inside the finer window.
fn compare_sums(state: &Shown, wrong: &mut Vec<String>) {
    for coarse in &state.topics {
        for fine in &state.topics {
            let (unit, finer) = (coarse.topic.unit, fine.topic.unit);
            let within = finer < unit && !(finer == TimeUnit::Week && unit > TimeUnit::Week);
            if !within || fine.topic.metric != coarse.topic.metric || fine.buckets.is_empty() {
                continue;
            }
            let mut sums: BTreeMap<BucketTime, i64> = BTreeMap::new();
            for bucket in &fine.buckets {
                *sums.entry(unit.truncate(bucket.time)).or_insert(0) += bucket.count;
            }
            let full = fine.buckets.len() >= fine.window;
            let oldest = if full { fine.buckets[0].time } else { BucketTime::MIN };
            for bucket in coarse.buckets.iter().filter(|bucket| bucket.time >= oldest) {
                let sum = sums.get(&bucket.time).copied().unwrap_or(0);
                if sum != bucket.count {
                    let (version, time, count) = (state.version, bucket.time, bucket.count);
                    let (fine, coarse) = (fine.topic, coarse.topic);
                    wrong.push(format!(
                        "{version}: {fine} adds up to {sum} in {coarse} at {time}, which shows {count}"
                    ));
                }
            }
        }
    }
}
