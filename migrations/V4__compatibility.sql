-- Which programs may run on this schema. Each migration from this one on adds its row here, so
-- that an older program that starts during an upgrade, or after a return to its release, knows
-- whether it may. crates/postgres-kit/src/schema.rs reads it.
--
-- The numbers of migrations have the type of refinery_schema_history.version.
-- squawk-ignore-file prefer-bigint-over-int

SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

CREATE TABLE public.schema_compatibility (
    schema_version integer NOT NULL,
    oldest_program integer NOT NULL,
    CONSTRAINT schema_compatibility_pkey PRIMARY KEY (schema_version),
    CONSTRAINT schema_compatibility_not_newer CHECK (oldest_program <= schema_version)
);
COMMENT ON TABLE public.schema_compatibility IS
    'What each migration asks of programs. A program may run if it meets all of it.';
COMMENT ON COLUMN public.schema_compatibility.schema_version IS 'The number of the migration.';
COMMENT ON COLUMN public.schema_compatibility.oldest_program IS
    'The newest migration of the oldest release whose programs may still run.';
GRANT SELECT ON public.schema_compatibility
TO newcycle_ingest, newcycle_notifier, newcycle_access;

INSERT INTO public.schema_compatibility (schema_version, oldest_program) VALUES (4, 3);
