//! The statements on which exactness rests.

/// Reads the change log past a snapshot.
///
/// `$1` is the snapshot, as text. The first row has the snapshot of now; every other row is a log
/// row that is visible now and was not visible in `$1`. One statement reads by one MVCC snapshot,
/// so the log rows are exactly the difference between both.
///
/// The second part finds transactions that began after `$1`. The third finds those that were in
/// progress in `$1` and have ended since. Both are ranges of the index, so rows that were counted
/// cost nothing. Neither do the rows of a transaction that is still in progress, however many it
/// has written: they cannot be visible yet, so the conditions leave them out.
const TICK: &str = "
    SELECT pg_current_snapshot()::text, NULL::text, NULL::timestamptz, NULL::bigint
    UNION ALL
    SELECT NULL, metric::text, time, delta
    FROM public.count_log
    WHERE (xact_id >= pg_snapshot_xmax($1::text::pg_snapshot)
           AND xact_id < pg_snapshot_xmax(pg_current_snapshot()))
    UNION ALL
    SELECT NULL, metric::text, time, delta
    FROM public.count_log
    WHERE xact_id = ANY (ARRAY(
              SELECT ended
              FROM pg_snapshot_xip($1::text::pg_snapshot) AS ended
              WHERE pg_visible_in_snapshot(ended, pg_current_snapshot())))";

/// Folds the change log past a snapshot into the rollups, for each unit that keeps the bucket.
///
/// `$1` is the stored snapshot, as text. The conditions are those of [`TICK`].
///
/// A log row is read once and adds to eight units. Each unit up to the day is made of the one below
/// it, because there are fewer buckets than log rows, and the longer ones of the days. Buckets up
/// to the day have a constant length, so `date_bin` finds their start, at a fraction of the cost of
/// `date_trunc`. In the order of the primary key, one insert after the other goes to the same page
/// of the index.
const FOLD: &str = "
    WITH seconds AS MATERIALIZED (
        SELECT metric,
               date_bin('1 second', time, '0001-01-01 00:00:00+00') AS bucket,
               sum(delta) AS delta
        FROM public.count_log
        WHERE (xact_id >= pg_snapshot_xmax($1::text::pg_snapshot)
               AND xact_id < pg_snapshot_xmax(pg_current_snapshot()))
           OR xact_id = ANY (ARRAY(
                  SELECT ended
                  FROM pg_snapshot_xip($1::text::pg_snapshot) AS ended
                  WHERE pg_visible_in_snapshot(ended, pg_current_snapshot())))
        GROUP BY 1, 2
    ), minutes AS MATERIALIZED (
        SELECT metric,
               date_bin('1 minute', bucket, '0001-01-01 00:00:00+00') AS bucket,
               sum(delta) AS delta
        FROM seconds
        GROUP BY 1, 2
    ), hours AS MATERIALIZED (
        SELECT metric,
               date_bin('1 hour', bucket, '0001-01-01 00:00:00+00') AS bucket,
               sum(delta) AS delta
        FROM minutes
        GROUP BY 1, 2
    ), days AS MATERIALIZED (
        SELECT metric,
               date_bin('1 day', bucket, '0001-01-01 00:00:00+00') AS bucket,
               sum(delta) AS delta
        FROM hours
        GROUP BY 1, 2
    ), changed AS (
        SELECT metric, 'second' AS unit, bucket, delta FROM seconds
        UNION ALL
        SELECT metric, 'minute', bucket, delta FROM minutes
        UNION ALL
        SELECT metric, 'hour', bucket, delta FROM hours
        UNION ALL
        SELECT metric, longer, date_trunc(longer, bucket, 'UTC'), sum(delta)
        FROM days, unnest(ARRAY['day', 'week', 'month', 'quarter', 'year']) AS longer
        GROUP BY 1, 2, 3
    )
    INSERT INTO public.rollup AS held (metric, unit, bucket, count)
    SELECT metric::text, unit, bucket, delta
    FROM changed
    JOIN public.rollup_unit USING (unit)
    WHERE bucket >= kept_since
    ORDER BY metric::text, unit, bucket
    ON CONFLICT (metric, unit, bucket) DO UPDATE SET count = held.count + excluded.count";

/// Locks the cursor row and returns the stored snapshot, or no row if the term is over.
///
/// `$1` is the term.
const LOCK_CURSOR: &str = "
    SELECT snapshot::text
    FROM public.rollup_cursor
    WHERE term = $1
    FOR UPDATE";

/// These statements are values, so that a test can plant an error in one of them and check that the
/// error is found.
#[derive(Debug, Clone)]
pub struct Statements {
    /// Reads the log rows that are visible now and were not in the snapshot `$1`.
    pub tick: String,
    /// Folds the log rows past the stored snapshot `$1` into the rollups.
    pub fold: String,
    /// Locks the cursor row, if `$1` is still the current term.
    pub lock_cursor: String,
}

impl Default for Statements {
    fn default() -> Self {
        let [tick, fold, lock_cursor] = [TICK, FOLD, LOCK_CURSOR].map(str::to_owned);
        Self { tick, fold, lock_cursor }
    }
}
