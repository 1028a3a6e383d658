-- The events: what ingest-api writes, and any other producer may.
--
-- Times are finite and within years 1 to 9999, the range that RFC 3339 can write: 'infinity' is legal in
-- Postgres and would poison every reader.

CREATE TABLE public.base_items (
    id uuid NOT NULL,
    description text NOT NULL,
    CONSTRAINT base_items_pkey PRIMARY KEY (id),
    CONSTRAINT base_items_description_length CHECK (char_length(description) <= 1000)
);
COMMENT ON TABLE public.base_items IS 'What an item can be an instance of.';
COMMENT ON COLUMN public.base_items.id IS 'UUIDv7 unless the producer brought one.';
COMMENT ON COLUMN public.base_items.description IS 'For people; at most 1,000 characters.';

CREATE TABLE public.users (
    id uuid NOT NULL,
    CONSTRAINT users_pkey PRIMARY KEY (id)
);
COMMENT ON TABLE public.users IS 'Who can own items.';
COMMENT ON COLUMN public.users.id IS 'UUIDv7 unless the producer brought one.';

CREATE TABLE public.items (
    id uuid NOT NULL,
    base_item_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT items_pkey PRIMARY KEY (id),
    CONSTRAINT items_base_item_id_fkey FOREIGN KEY (base_item_id) REFERENCES public.base_items (id),
    CONSTRAINT items_created_at_range CHECK (
        created_at >= '0001-01-01 00:00:00+00' AND created_at < '10000-01-01 00:00:00+00'
    )
);
COMMENT ON TABLE public.items IS 'One row for each item created: the events of the metric item-creation.';
COMMENT ON COLUMN public.items.id IS 'UUIDv7 unless the producer brought one.';
COMMENT ON COLUMN public.items.base_item_id IS 'What the item is an instance of.';
COMMENT ON COLUMN public.items.created_at IS 'When it was created: the time that it counts at.';
-- The newest events, from which a new leader counts the milliseconds.
CREATE INDEX items_created_at_idx ON public.items (created_at);

CREATE TABLE public.transfers (
    id uuid NOT NULL,
    "timestamp" timestamptz NOT NULL,
    owner_id uuid NOT NULL,
    item_id uuid NOT NULL,
    CONSTRAINT transfers_pkey PRIMARY KEY (id),
    CONSTRAINT transfers_owner_id_fkey FOREIGN KEY (owner_id) REFERENCES public.users (id),
    CONSTRAINT transfers_item_id_fkey FOREIGN KEY (item_id) REFERENCES public.items (id),
    CONSTRAINT transfers_timestamp_range CHECK (
        "timestamp" >= '0001-01-01 00:00:00+00' AND "timestamp" < '10000-01-01 00:00:00+00'
    )
);
COMMENT ON TABLE public.transfers IS
    'One row for each time an item passed to a user: the events of the metric transfers. The owner of an '
    'item is the owner_id of its transfer with the latest timestamp; of equal ones, the one with the latest id.';
COMMENT ON COLUMN public.transfers.id IS 'UUIDv7 unless the producer brought one.';
COMMENT ON COLUMN public.transfers."timestamp" IS 'When it happened: the time that it counts at.';
COMMENT ON COLUMN public.transfers.owner_id IS 'The user that the item passed to.';
COMMENT ON COLUMN public.transfers.item_id IS 'The item that was transferred.';
CREATE INDEX transfers_timestamp_idx ON public.transfers ("timestamp");
-- An item's transfers, and its owner: the last of them.
CREATE INDEX transfers_item_id_timestamp_id_idx ON public.transfers (item_id, "timestamp", id);
-- The items that a user was ever given, from which those still owned are picked.
CREATE INDEX transfers_owner_id_item_id_idx ON public.transfers (owner_id, item_id);

GRANT SELECT, INSERT ON public.base_items, public.users TO newcycle_ingest;
GRANT SELECT, INSERT, DELETE ON public.items, public.transfers TO newcycle_ingest;
GRANT SELECT ON public.items, public.transfers TO newcycle_notifier;
-- Both look up which migrations ran, and refuse to start on a schema that they do not know.
GRANT SELECT ON public.refinery_schema_history TO newcycle_ingest, newcycle_notifier;
