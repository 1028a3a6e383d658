-- Since when the buckets of each unit are kept: fine units need not be kept for good, coarser ones are.

CREATE TABLE public.rollup_unit (
    unit text NOT NULL,
    kept_since timestamptz NOT NULL DEFAULT '0001-01-01 00:00:00+00',
    CONSTRAINT rollup_unit_pkey PRIMARY KEY (unit),
    CONSTRAINT rollup_unit_unit CHECK (
        unit IN ('second', 'minute', 'hour', 'day', 'week', 'month', 'quarter', 'year')
    ),
    -- So that every bucket up to a day is kept whole or not at all, in each of the units.
    CONSTRAINT rollup_unit_kept_since_day CHECK (kept_since = date_trunc('day', kept_since, 'UTC')),
    -- The recount of coarser units builds on that of days.
    CONSTRAINT rollup_unit_kept_for_good CHECK (
        unit IN ('second', 'minute', 'hour') OR kept_since = '0001-01-01 00:00:00+00'
    )
);
COMMENT ON TABLE public.rollup_unit IS
    'Every unit of rollup, and since when its buckets are kept. Written by stats-notifier alone, and only upwards '
    'except by a recount of all events.';
COMMENT ON COLUMN public.rollup_unit.unit IS 'The unit, as in rollup.';
COMMENT ON COLUMN public.rollup_unit.kept_since IS
    'A midnight of UTC. No bucket before it is counted or shown; rows of such buckets are being deleted.';
INSERT INTO public.rollup_unit (unit)
VALUES ('second'), ('minute'), ('hour'), ('day'), ('week'), ('month'), ('quarter'), ('year');

GRANT SELECT, UPDATE ON public.rollup_unit TO newcycle_notifier;
