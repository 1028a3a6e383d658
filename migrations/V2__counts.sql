-- The counts: the change log that triggers write, and the rollups that stats-notifier makes of it.
-- docs/design.md explains the change log, the snapshot cursor and the gate.

SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- The names of the metrics: four bytes in each row of the log, and any other name is refused.
CREATE TYPE public.metric_name AS ENUM ('item-creation', 'transfers');
COMMENT ON TYPE public.metric_name IS 'The metrics whose changes are logged.';

-- Each event costs a row here, so rows are narrow, and nothing is checked or rounded that can wait
-- until they are read.
CREATE TABLE public.count_log (
    xact_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
    "time" timestamptz NOT NULL,
    delta bigint NOT NULL,
    metric public.metric_name NOT NULL
)
-- Rows live for about a second, so most rows of the table are dead at any time. The thresholds are
-- row counts, so that vacuum runs often, however large the table once was.
WITH (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000
);
COMMENT ON TABLE public.count_log IS
    'The change log: how each statement changed the counts. '
    'Triggers write it; stats-notifier folds it into rollup and purges it.';
COMMENT ON COLUMN public.count_log.xact_id IS
    'The transaction that made the change. A snapshot determines whether it is counted.';
COMMENT ON COLUMN public.count_log."time" IS
    'The time of the event; or the start of a millisecond, if the row stands for its events.';
COMMENT ON COLUMN public.count_log.delta IS
    'The number of events added at that time; negative if events were removed.';
COMMENT ON COLUMN public.count_log.metric IS 'The metric of the events.';
CREATE INDEX count_log_xact_id_idx ON public.count_log (xact_id);

CREATE TABLE public.rollup (
    metric text NOT NULL,
    unit text NOT NULL,
    bucket timestamptz NOT NULL,
    count bigint NOT NULL,
    CONSTRAINT rollup_pkey PRIMARY KEY (metric, unit, bucket),
    CONSTRAINT rollup_metric CHECK (metric IN ('item-creation', 'transfers')),
    CONSTRAINT rollup_unit CHECK (
        unit IN ('second', 'minute', 'hour', 'day', 'week', 'month', 'quarter', 'year')
    )
)
-- Free space on each page takes the next version of a row, so that an update touches no index.
WITH (fillfactor = 70);
COMMENT ON TABLE public.rollup IS
    'The count of every bucket that ever had an event, as seen by rollup_cursor.snapshot. '
    'Only stats-notifier writes it.';
COMMENT ON COLUMN public.rollup.metric IS 'item-creation or transfers.';
COMMENT ON COLUMN public.rollup.unit IS
    'The length of the bucket, as a field name of date_trunc. Buckets begin in UTC.';
COMMENT ON COLUMN public.rollup.bucket IS 'The start of the bucket.';
COMMENT ON COLUMN public.rollup.count IS
    'The number of events in the bucket. A count that falls to zero stays.';

CREATE TABLE public.rollup_cursor (
    id boolean NOT NULL DEFAULT true,
    term bigint NOT NULL DEFAULT 0,
    snapshot pg_snapshot,
    system_identifier bigint,
    database_oid oid,
    CONSTRAINT rollup_cursor_pkey PRIMARY KEY (id),
    CONSTRAINT rollup_cursor_single CHECK (id)
);
COMMENT ON TABLE public.rollup_cursor IS
    'How far the change log has been folded into rollup. The table has one row.';
COMMENT ON COLUMN public.rollup_cursor.id IS 'Always true, so that there can be only one row.';
COMMENT ON COLUMN public.rollup_cursor.term IS
    'The term of the current leader. Each takeover raises it. '
    'A leader of a lower term may not write.';
COMMENT ON COLUMN public.rollup_cursor.snapshot IS
    'rollup contains exactly the changes that this snapshot sees. '
    'Null before the first count; the next leader then counts all events.';
COMMENT ON COLUMN public.rollup_cursor.system_identifier IS
    'The cluster of the snapshot: transaction ids mean nothing in another one.';
COMMENT ON COLUMN public.rollup_cursor.database_oid IS 'The database of the snapshot.';
INSERT INTO public.rollup_cursor DEFAULT VALUES;

-- The conditions find a copy of the database: after a restore, the snapshot belongs to another
-- cluster, to another database, or to transaction ids that this cluster has not reached.
CREATE VIEW public.valid_rollup_cursor (snapshot) AS
SELECT snapshot
FROM public.rollup_cursor
WHERE snapshot IS NOT NULL
  AND system_identifier = (SELECT system_identifier FROM pg_control_system())
  AND database_oid = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND pg_snapshot_xmax(snapshot) <= pg_snapshot_xmax(pg_current_snapshot());
COMMENT ON VIEW public.valid_rollup_cursor IS
    'The row of rollup_cursor, if its snapshot belongs to this database. '
    'If it does not, the rollups must not be used until all events have been counted again.';
COMMENT ON COLUMN public.valid_rollup_cursor.snapshot IS 'As in rollup_cursor.';

-- Rows of transactions that the cursor's snapshot does not see: they began later, or they were in
-- progress then and have ended since. Both conditions are ranges of the index, so rows that were
-- folded cost nothing, and neither do the rows of a long transaction that is still in progress.
CREATE VIEW public.unfolded_count_log (metric, "time", delta) AS
SELECT metric::text, "time", delta
FROM public.count_log
WHERE (xact_id >= pg_snapshot_xmax((SELECT snapshot FROM public.rollup_cursor))
       AND xact_id < pg_snapshot_xmax(pg_current_snapshot()))
   OR xact_id = ANY (ARRAY(
          SELECT ended
          FROM pg_snapshot_xip((SELECT snapshot FROM public.rollup_cursor)) AS ended
          WHERE pg_visible_in_snapshot(ended, pg_current_snapshot())));
COMMENT ON VIEW public.unfolded_count_log IS
    'The rows of count_log that are visible now and not yet in rollup.';
COMMENT ON COLUMN public.unfolded_count_log.metric IS 'The name of the metric, as in rollup.';
COMMENT ON COLUMN public.unfolded_count_log."time" IS 'As in count_log.';
COMMENT ON COLUMN public.unfolded_count_log.delta IS 'As in count_log.';

-- Retention: fine units may be kept for some days only, days and longer units are kept for ever.
CREATE TABLE public.rollup_unit (
    unit text NOT NULL,
    kept_since timestamptz NOT NULL DEFAULT '0001-01-01 00:00:00+00',
    CONSTRAINT rollup_unit_pkey PRIMARY KEY (unit),
    CONSTRAINT rollup_unit_unit CHECK (
        unit IN ('second', 'minute', 'hour', 'day', 'week', 'month', 'quarter', 'year')
    ),
    -- Midnights only, so that a unit up to the day keeps a bucket whole or not at all.
    CONSTRAINT rollup_unit_kept_since_day CHECK (
        kept_since = date_trunc('day', kept_since, 'UTC')
    ),
    -- verify compares longer units with their days, so days are kept for ever.
    CONSTRAINT rollup_unit_kept_for_good CHECK (
        unit IN ('second', 'minute', 'hour') OR kept_since = '0001-01-01 00:00:00+00'
    )
);
COMMENT ON TABLE public.rollup_unit IS
    'Each unit of rollup and its retention. Only stats-notifier writes it.';
COMMENT ON COLUMN public.rollup_unit.unit IS 'The unit, as in rollup.';
COMMENT ON COLUMN public.rollup_unit.kept_since IS
    'A midnight in UTC. Earlier buckets are neither counted nor shown, and stats-notifier deletes '
    'them. The time only increases, except when all events are counted again.';
INSERT INTO public.rollup_unit (unit)
VALUES ('second'), ('minute'), ('hour'), ('day'), ('week'), ('month'), ('quarter'), ('year');

-- The triggers. Each table has one function for INSERT, and one for UPDATE and DELETE. They are
-- SECURITY DEFINER, because a producer may write events but not the log.
--
-- Most statements insert one row, and a producer that writes by SQL waits for this function. So it
-- does as little as possible (docs/performance.md has what was tried):
-- - It has no `SET search_path`, which Postgres would set and reset at each call. Instead, it names
--   the schema of everything, operators too, so no search_path can put something else in its place.
--   `added` needs none: the name of a transition table always comes first.
-- - The first eight rows are logged as they are, because grouping costs more than it saves for so
--   few. Only the others are summed by millisecond. Both scans read the transition table from its
--   beginning, and its rows have an order that does not change, so no row is left out or read
--   twice.
--
-- Whether a transaction notifies is decided here, at the IF below, and depends on the gate: while
-- stats-notifier polls the log anyway, it holds this advisory lock exclusively, and a notification
-- would only make commits slower (crates/stats-notifier/src/gate.rs). The check is one expression,
-- because a query cancelled between two statements would leave the lock held. It is a CASE, because
-- AND does not guarantee the order of evaluation.
CREATE FUNCTION public.log_new_items() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
DECLARE
    logged bigint;
BEGIN
    INSERT INTO public.count_log ("time", delta, metric)
    SELECT created_at, 1, 'item-creation'
    FROM added
    LIMIT 8;
    GET DIAGNOSTICS logged = ROW_COUNT;
    IF logged OPERATOR(pg_catalog.=) 8 THEN
        INSERT INTO public.count_log ("time", delta, metric)
        SELECT pg_catalog.date_bin('1 millisecond', created_at, '0001-01-01 00:00:00+00'),
               pg_catalog.count(*),
               'item-creation'
        FROM (SELECT created_at FROM added OFFSET 8) AS others
        GROUP BY 1;
    END IF;
    IF logged OPERATOR(pg_catalog.>) 0 THEN
        IF (CASE WHEN pg_catalog.pg_try_advisory_lock_shared(1315208537, 2)
                 THEN pg_catalog.pg_advisory_unlock_shared(1315208537, 2)
                 ELSE false END) THEN
            PERFORM pg_catalog.pg_notify('item_creation', '');
        END IF;
    END IF;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION public.log_new_items() IS
    'Logs the rows that a statement added to items, and notifies if the gate is open.';

CREATE FUNCTION public.log_new_transfers() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
AS $$
DECLARE
    logged bigint;
BEGIN
    INSERT INTO public.count_log ("time", delta, metric)
    SELECT "timestamp", 1, 'transfers'
    FROM added
    LIMIT 8;
    GET DIAGNOSTICS logged = ROW_COUNT;
    IF logged OPERATOR(pg_catalog.=) 8 THEN
        INSERT INTO public.count_log ("time", delta, metric)
        SELECT pg_catalog.date_bin('1 millisecond', "timestamp", '0001-01-01 00:00:00+00'),
               pg_catalog.count(*),
               'transfers'
        FROM (SELECT "timestamp" FROM added OFFSET 8) AS others
        GROUP BY 1;
    END IF;
    IF logged OPERATOR(pg_catalog.>) 0 THEN
        IF (CASE WHEN pg_catalog.pg_try_advisory_lock_shared(1315208537, 2)
                 THEN pg_catalog.pg_advisory_unlock_shared(1315208537, 2)
                 ELSE false END) THEN
            PERFORM pg_catalog.pg_notify('item_transfer', '');
        END IF;
    END IF;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION public.log_new_transfers() IS
    'Logs the rows that a statement added to transfers, and notifies if the gate is open.';

-- TG_OP determines which transition tables exist. The search_path is fixed, because the functions
-- run with the rights of their owner.
CREATE FUNCTION public.log_changed_items() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO public.count_log ("time", delta, metric)
        SELECT date_bin('1 millisecond', created_at, '0001-01-01 00:00:00+00'),
               -count(*),
               'item-creation'
        FROM removed
        GROUP BY 1;
    ELSE
        INSERT INTO public.count_log ("time", delta, metric)
        SELECT date_bin('1 millisecond', created_at, '0001-01-01 00:00:00+00'),
               sum(delta),
               'item-creation'
        FROM (SELECT created_at, 1 AS delta FROM added
              UNION ALL
              SELECT created_at, -1 FROM removed) AS changed
        GROUP BY 1
        HAVING sum(delta) <> 0;
    END IF;
    IF FOUND THEN
        IF (CASE WHEN pg_try_advisory_lock_shared(1315208537, 2)
                 THEN pg_advisory_unlock_shared(1315208537, 2)
                 ELSE false END) THEN
            PERFORM pg_notify('item_creation', '');
        END IF;
    END IF;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION public.log_changed_items() IS
    'Logs how an UPDATE or DELETE of items changed the counts, and notifies if the gate is open.';

CREATE FUNCTION public.log_changed_transfers() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO public.count_log ("time", delta, metric)
        SELECT date_bin('1 millisecond', "timestamp", '0001-01-01 00:00:00+00'),
               -count(*),
               'transfers'
        FROM removed
        GROUP BY 1;
    ELSE
        INSERT INTO public.count_log ("time", delta, metric)
        SELECT date_bin('1 millisecond', "timestamp", '0001-01-01 00:00:00+00'),
               sum(delta),
               'transfers'
        FROM (SELECT "timestamp", 1 AS delta FROM added
              UNION ALL
              SELECT "timestamp", -1 FROM removed) AS changed
        GROUP BY 1
        HAVING sum(delta) <> 0;
    END IF;
    IF FOUND THEN
        IF (CASE WHEN pg_try_advisory_lock_shared(1315208537, 2)
                 THEN pg_advisory_unlock_shared(1315208537, 2)
                 ELSE false END) THEN
            PERFORM pg_notify('item_transfer', '');
        END IF;
    END IF;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION public.log_changed_transfers() IS
    'Logs how an UPDATE or DELETE of transfers changed the counts, and notifies if the gate is open.';

CREATE FUNCTION public.refuse_truncate() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'TRUNCATE of % is refused: it is not MVCC-safe, so counts cannot be exact',
        TG_TABLE_NAME USING ERRCODE = 'feature_not_supported', HINT = 'Use DELETE.';
END;
$$;
COMMENT ON FUNCTION public.refuse_truncate() IS 'Refuses TRUNCATE of a table of events.';

REVOKE EXECUTE ON FUNCTION public.log_new_items(), public.log_new_transfers() FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION public.log_changed_items(), public.log_changed_transfers() FROM PUBLIC;

-- Three triggers for each table: a trigger with transition tables can have only one event.
CREATE TRIGGER items_log_insert AFTER INSERT ON public.items
REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION public.log_new_items();
CREATE TRIGGER items_log_update AFTER UPDATE ON public.items
REFERENCING OLD TABLE AS removed NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION public.log_changed_items();
CREATE TRIGGER items_log_delete AFTER DELETE ON public.items
REFERENCING OLD TABLE AS removed
FOR EACH STATEMENT EXECUTE FUNCTION public.log_changed_items();
CREATE TRIGGER items_refuse_truncate BEFORE TRUNCATE ON public.items
FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_truncate();

CREATE TRIGGER transfers_log_insert AFTER INSERT ON public.transfers
REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION public.log_new_transfers();
CREATE TRIGGER transfers_log_update AFTER UPDATE ON public.transfers
REFERENCING OLD TABLE AS removed NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION public.log_changed_transfers();
CREATE TRIGGER transfers_log_delete AFTER DELETE ON public.transfers
REFERENCING OLD TABLE AS removed
FOR EACH STATEMENT EXECUTE FUNCTION public.log_changed_transfers();
CREATE TRIGGER transfers_refuse_truncate BEFORE TRUNCATE ON public.transfers
FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_truncate();

GRANT SELECT, DELETE ON public.count_log TO newcycle_notifier;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.rollup TO newcycle_notifier;
GRANT SELECT, UPDATE ON public.rollup_cursor, public.rollup_unit TO newcycle_notifier;
GRANT SELECT ON public.valid_rollup_cursor, public.unfolded_count_log TO newcycle_notifier;
-- The rollups and the rows of the log that are not in them yet are the exact counts.
GRANT SELECT ON public.rollup, public.rollup_unit TO newcycle_reader;
GRANT SELECT ON public.valid_rollup_cursor, public.unfolded_count_log TO newcycle_reader;
