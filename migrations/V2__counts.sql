-- What was counted, and how it is logged: see ARCHITECTURE.md, "Change log" and "The cursor is a snapshot".

CREATE TABLE public.count_log (
    xact_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
    metric text NOT NULL,
    bucket timestamptz NOT NULL,
    delta bigint NOT NULL,
    CONSTRAINT count_log_metric CHECK (metric IN ('item-creation', 'transfers')),
    CONSTRAINT count_log_delta CHECK (delta <> 0)
);
COMMENT ON TABLE public.count_log IS
    'What each statement did to the counts. Written by triggers, folded into rollup and purged by stats-notifier.';
COMMENT ON COLUMN public.count_log.xact_id IS
    'The transaction that made the change. A snapshot tells of every transaction whether it was visible.';
COMMENT ON COLUMN public.count_log.metric IS 'item-creation or transfers.';
COMMENT ON COLUMN public.count_log.bucket IS 'The millisecond that the events happened in.';
COMMENT ON COLUMN public.count_log.delta IS 'By how many the events of that millisecond grew or, below zero, shrank.';
CREATE INDEX count_log_xact_id_idx ON public.count_log (xact_id);
-- Rows live for about a second, so the dead ones outnumber the living at all times and are worth removing soon.
ALTER TABLE public.count_log SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000
);

CREATE TABLE public.rollup (
    metric text NOT NULL,
    unit text NOT NULL,
    bucket timestamptz NOT NULL,
    count bigint NOT NULL,
    CONSTRAINT rollup_pkey PRIMARY KEY (metric, unit, bucket),
    CONSTRAINT rollup_metric CHECK (metric IN ('item-creation', 'transfers')),
    CONSTRAINT rollup_unit CHECK (unit IN ('second', 'minute', 'hour', 'day', 'week', 'month', 'quarter', 'year'))
)
-- Room on each page for the next version of a row, so that updating a count touches no index.
WITH (fillfactor = 70);
COMMENT ON TABLE public.rollup IS
    'The count of every bucket ever touched, of all that rollup_cursor.snapshot sees. Written by stats-notifier alone.';
COMMENT ON COLUMN public.rollup.metric IS 'item-creation or transfers.';
COMMENT ON COLUMN public.rollup.unit IS 'The length of the bucket: the field that date_trunc truncates to, in UTC.';
COMMENT ON COLUMN public.rollup.bucket IS 'The start of the bucket.';
COMMENT ON COLUMN public.rollup.count IS 'How many events it holds; zero is kept.';

CREATE TABLE public.rollup_cursor (
    id boolean NOT NULL DEFAULT true,
    term bigint NOT NULL DEFAULT 0,
    snapshot pg_snapshot,
    system_identifier bigint,
    database_oid oid,
    CONSTRAINT rollup_cursor_pkey PRIMARY KEY (id),
    CONSTRAINT rollup_cursor_single CHECK (id)
);
COMMENT ON TABLE public.rollup_cursor IS 'The one row that says how far the log has been folded into rollup.';
COMMENT ON COLUMN public.rollup_cursor.id IS 'Always true: there is one row.';
COMMENT ON COLUMN public.rollup_cursor.term IS
    'Raised by each stats-notifier that takes the lead. Whoever leads a lower term may not write.';
COMMENT ON COLUMN public.rollup_cursor.snapshot IS
    'Exactly what this snapshot sees is in rollup. Null before the first count: everything is then recounted.';
COMMENT ON COLUMN public.rollup_cursor.system_identifier IS
    'The cluster that the snapshot belongs to: in another one its transaction ids mean nothing.';
COMMENT ON COLUMN public.rollup_cursor.database_oid IS 'The database that the snapshot belongs to.';
INSERT INTO public.rollup_cursor DEFAULT VALUES;

-- One function for each table; which statement fired it decides which transition tables there are.
--
-- SECURITY DEFINER, because a producer may write events and nothing else; the search path is fixed, because the
-- function runs with its owner's rights.
CREATE FUNCTION public.log_item_creation() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO public.count_log (metric, bucket, delta)
        SELECT 'item-creation', date_bin('1 millisecond', created_at, '0001-01-01 00:00:00+00'), count(*)
        FROM added GROUP BY 2;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO public.count_log (metric, bucket, delta)
        SELECT 'item-creation', date_bin('1 millisecond', created_at, '0001-01-01 00:00:00+00'), -count(*)
        FROM removed GROUP BY 2;
    ELSE
        INSERT INTO public.count_log (metric, bucket, delta)
        SELECT 'item-creation', date_bin('1 millisecond', created_at, '0001-01-01 00:00:00+00'), sum(delta)
        FROM (SELECT created_at, 1 AS delta FROM added UNION ALL SELECT created_at, -1 FROM removed) AS changed
        GROUP BY 2 HAVING sum(delta) <> 0;
    END IF;
    IF FOUND THEN
        -- Notify only where stats-notifier is not polling anyway: while it polls it holds this lock exclusively.
        -- One expression, for between two a cancelled query would leave the lock held; CASE, for AND promises no
        -- order.
        IF (CASE WHEN pg_try_advisory_lock_shared(1315208537, 2)
                 THEN pg_advisory_unlock_shared(1315208537, 2) ELSE false END) THEN
            PERFORM pg_notify('item_creation', '');
        END IF;
    END IF;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION public.log_item_creation() IS 'Logs what a statement on items did to the counts, and notifies.';

CREATE FUNCTION public.log_transfers() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO public.count_log (metric, bucket, delta)
        SELECT 'transfers', date_bin('1 millisecond', "timestamp", '0001-01-01 00:00:00+00'), count(*)
        FROM added GROUP BY 2;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO public.count_log (metric, bucket, delta)
        SELECT 'transfers', date_bin('1 millisecond', "timestamp", '0001-01-01 00:00:00+00'), -count(*)
        FROM removed GROUP BY 2;
    ELSE
        INSERT INTO public.count_log (metric, bucket, delta)
        SELECT 'transfers', date_bin('1 millisecond', "timestamp", '0001-01-01 00:00:00+00'), sum(delta)
        FROM (SELECT "timestamp", 1 AS delta FROM added UNION ALL SELECT "timestamp", -1 FROM removed) AS changed
        GROUP BY 2 HAVING sum(delta) <> 0;
    END IF;
    IF FOUND THEN
        -- As in log_item_creation().
        IF (CASE WHEN pg_try_advisory_lock_shared(1315208537, 2)
                 THEN pg_advisory_unlock_shared(1315208537, 2) ELSE false END) THEN
            PERFORM pg_notify('item_transfer', '');
        END IF;
    END IF;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION public.log_transfers() IS 'Logs what a statement on transfers did to the counts, and notifies.';

CREATE FUNCTION public.refuse_truncate() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'TRUNCATE of % is refused: it is not MVCC-safe, so no snapshot could say what was counted',
        TG_TABLE_NAME USING ERRCODE = 'feature_not_supported', HINT = 'Use DELETE.';
END;
$$;
COMMENT ON FUNCTION public.refuse_truncate() IS 'Refuses TRUNCATE of a counted table.';

REVOKE EXECUTE ON FUNCTION public.log_item_creation(), public.log_transfers() FROM PUBLIC;

-- A trigger with transition tables is for one event alone.
CREATE TRIGGER items_log_insert AFTER INSERT ON public.items
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION public.log_item_creation();
CREATE TRIGGER items_log_update AFTER UPDATE ON public.items
REFERENCING OLD TABLE AS removed NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION public.log_item_creation();
CREATE TRIGGER items_log_delete AFTER DELETE ON public.items
REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION public.log_item_creation();
CREATE TRIGGER items_refuse_truncate BEFORE TRUNCATE ON public.items
FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_truncate();

CREATE TRIGGER transfers_log_insert AFTER INSERT ON public.transfers
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION public.log_transfers();
CREATE TRIGGER transfers_log_update AFTER UPDATE ON public.transfers
REFERENCING OLD TABLE AS removed NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION public.log_transfers();
CREATE TRIGGER transfers_log_delete AFTER DELETE ON public.transfers
REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION public.log_transfers();
CREATE TRIGGER transfers_refuse_truncate BEFORE TRUNCATE ON public.transfers
FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_truncate();

GRANT SELECT, DELETE ON public.count_log TO newcycle_notifier;
GRANT SELECT, INSERT, UPDATE, DELETE ON public.rollup TO newcycle_notifier;
GRANT SELECT, UPDATE ON public.rollup_cursor TO newcycle_notifier;
