-- Access: the keys that clients present. docs/security.md explains who may read and write them.
--
-- The number of a key has 32 bits: a key each second would use them up in 68 years, and each row of
-- an event has four bytes less.
-- squawk-ignore-file prefer-bigint-over-int

SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

CREATE TABLE public.access_key (
    number integer GENERATED ALWAYS AS IDENTITY,
    id text NOT NULL,
    name text NOT NULL,
    hash bytea NOT NULL,
    scopes text [] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    expires_at timestamptz,
    ended_at timestamptz,
    last_used_at timestamptz,
    requests_per_second integer,
    streams integer,
    CONSTRAINT access_key_pkey PRIMARY KEY (number),
    CONSTRAINT access_key_id_key UNIQUE (id),
    CONSTRAINT access_key_id_format CHECK (id ~ '^[0-9A-Za-z]{12}$'),
    CONSTRAINT access_key_name_format CHECK (name ~ '^[0-9A-Za-z][0-9A-Za-z._@-]{0,63}$'),
    CONSTRAINT access_key_hash_length CHECK (octet_length(hash) = 32),
    CONSTRAINT access_key_scopes_some CHECK (cardinality(scopes) BETWEEN 1 AND 100),
    CONSTRAINT access_key_rate_some CHECK (requests_per_second > 0),
    CONSTRAINT access_key_streams_some CHECK (streams > 0)
);
COMMENT ON TABLE public.access_key IS
    'The keys that clients present, valid or ended. Only the program access makes and ends them.';
COMMENT ON COLUMN public.access_key.number IS
    'Names the key in rows and records. It is never used again.';
COMMENT ON COLUMN public.access_key.id IS 'The part of the key that names it. It is no secret.';
COMMENT ON COLUMN public.access_key.name IS
    'The name that its maker gave it. A key and those that it replaced have the same name.';
COMMENT ON COLUMN public.access_key.hash IS 'The SHA-256 of the whole key.';
COMMENT ON COLUMN public.access_key.scopes IS 'What the key may do, such as ingest:write.';
COMMENT ON COLUMN public.access_key.created_at IS 'When it was made.';
COMMENT ON COLUMN public.access_key.created_by IS
    'The user of the operating system who made it, as that user says.';
COMMENT ON COLUMN public.access_key.expires_at IS 'When it ends by itself; null if it does not.';
COMMENT ON COLUMN public.access_key.ended_at IS
    'When it was revoked, or when the key that replaced it alone is valid; null if neither.';
COMMENT ON COLUMN public.access_key.last_used_at IS
    'When it was last used, to within a few minutes. Services report it.';
COMMENT ON COLUMN public.access_key.requests_per_second IS
    'How many requests it may send to each service in a second; null if that is not limited.';
COMMENT ON COLUMN public.access_key.streams IS
    'How many streams it may hold at each gateway; null for a quarter of all.';
-- A name has one key that was not revoked or replaced.
CREATE UNIQUE INDEX access_key_name_idx ON public.access_key (name) WHERE ended_at IS NULL;

CREATE TABLE public.access_keyring (
    id boolean NOT NULL DEFAULT true,
    version bigint NOT NULL DEFAULT 0,
    CONSTRAINT access_keyring_pkey PRIMARY KEY (id),
    CONSTRAINT access_keyring_single CHECK (id)
);
COMMENT ON TABLE public.access_keyring IS
    'Counts the changes of access_key, so that services read it only after a change. It has one row.';
COMMENT ON COLUMN public.access_keyring.id IS 'Always true, so that there can be only one row.';
COMMENT ON COLUMN public.access_keyring.version IS 'Raised by each statement that changes keys.';
INSERT INTO public.access_keyring DEFAULT VALUES;

CREATE FUNCTION public.raise_keyring_version() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE public.access_keyring SET version = version + 1;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION public.raise_keyring_version() IS 'Counts a change of access_key.';
REVOKE EXECUTE ON FUNCTION public.raise_keyring_version() FROM PUBLIC;
-- A use is no change.
CREATE TRIGGER access_key_changed
AFTER INSERT OR DELETE OR TRUNCATE OR UPDATE OF name, hash, scopes, expires_at, ended_at
ON public.access_key
FOR EACH STATEMENT EXECUTE FUNCTION public.raise_keyring_version();

-- Who wrote what. No foreign key: a row is checked by ingest-api, and must not cost a look-up more.
ALTER TABLE public.base_items ADD COLUMN written_by integer;
ALTER TABLE public.users ADD COLUMN written_by integer;
ALTER TABLE public.items ADD COLUMN written_by integer;
ALTER TABLE public.transfers ADD COLUMN written_by integer;
COMMENT ON COLUMN public.base_items.written_by IS
    'access_key.number of the key that wrote the row; null if it was written by SQL.';
COMMENT ON COLUMN public.users.written_by IS 'As in base_items.';
COMMENT ON COLUMN public.items.written_by IS 'As in base_items.';
COMMENT ON COLUMN public.transfers.written_by IS 'As in base_items.';

CREATE TABLE public.deletion (
    number bigint GENERATED ALWAYS AS IDENTITY,
    deleted_at timestamptz NOT NULL DEFAULT now(),
    table_name text NOT NULL,
    row_id uuid NOT NULL,
    content jsonb NOT NULL,
    deleted_by integer,
    request_id text NOT NULL,
    CONSTRAINT deletion_pkey PRIMARY KEY (number)
);
COMMENT ON TABLE public.deletion IS
    'The rows that were deleted through ingest-api. Nothing changes or deletes its rows.';
COMMENT ON COLUMN public.deletion.number IS 'Numbers the deletions.';
COMMENT ON COLUMN public.deletion.deleted_at IS 'When the row was deleted.';
COMMENT ON COLUMN public.deletion.table_name IS 'The table that had the row.';
COMMENT ON COLUMN public.deletion.row_id IS 'The id of the row.';
COMMENT ON COLUMN public.deletion.content IS 'The whole row.';
COMMENT ON COLUMN public.deletion.deleted_by IS
    'access_key.number of the key that deleted it; null if access was open.';
COMMENT ON COLUMN public.deletion.request_id IS 'The X-Request-Id of the request, as in the log.';
CREATE INDEX deletion_row_id_idx ON public.deletion (row_id);
GRANT INSERT ON public.deletion TO newcycle_ingest;
GRANT SELECT ON public.base_items, public.users, public.items, public.transfers, public.deletion
TO newcycle_access;

GRANT SELECT ON public.access_key, public.access_keyring TO newcycle_ingest, newcycle_notifier;
GRANT UPDATE (last_used_at) ON public.access_key TO newcycle_ingest, newcycle_notifier;
GRANT SELECT, INSERT ON public.access_key TO newcycle_access;
GRANT UPDATE (ended_at) ON public.access_key TO newcycle_access;
GRANT SELECT ON public.refinery_schema_history TO newcycle_access;
