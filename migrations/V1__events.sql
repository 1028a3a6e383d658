-- The events: tables that ingest-api writes, and that any other producer may write.
--
-- Times are finite and within the years 1 to 9999, because RFC 3339 can write no others. Postgres
-- would also store 'infinity', which no service could read back.

SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

CREATE TABLE public.base_items (
    id uuid NOT NULL,
    description text NOT NULL,
    CONSTRAINT base_items_pkey PRIMARY KEY (id),
    CONSTRAINT base_items_description_length CHECK (char_length(description) <= 1000)
);
COMMENT ON TABLE public.base_items IS
    'The kinds of items: each item is an instance of one base item.';
COMMENT ON COLUMN public.base_items.id IS 'A UUIDv7, unless the producer chose the id.';
COMMENT ON COLUMN public.base_items.description IS 'Text for people, at most 1,000 characters.';

CREATE TABLE public.users (
    id uuid NOT NULL,
    CONSTRAINT users_pkey PRIMARY KEY (id)
);
COMMENT ON TABLE public.users IS 'The users who can own items.';
COMMENT ON COLUMN public.users.id IS 'A UUIDv7, unless the producer chose the id.';

CREATE TABLE public.items (
    id uuid NOT NULL,
    base_item_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT items_pkey PRIMARY KEY (id),
    CONSTRAINT items_base_item_id_fkey
    FOREIGN KEY (base_item_id) REFERENCES public.base_items (id),
    CONSTRAINT items_created_at_range CHECK (
        created_at >= '0001-01-01 00:00:00+00' AND created_at < '10000-01-01 00:00:00+00'
    )
);
COMMENT ON TABLE public.items IS
    'One row for each created item: the events of the metric item-creation.';
COMMENT ON COLUMN public.items.id IS 'A UUIDv7, unless the producer chose the id.';
COMMENT ON COLUMN public.items.base_item_id IS 'The base item that the item is an instance of.';
COMMENT ON COLUMN public.items.created_at IS
    'When the item was created. The event counts at this time.';
-- A new leader reads the newest events by this index, to count their milliseconds.
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
    'One row for each transfer of an item to a user: the events of the metric transfers. '
    'The owner of an item is the owner_id of its transfer with the latest timestamp. '
    'If several have that timestamp, the transfer with the highest id decides.';
COMMENT ON COLUMN public.transfers.id IS 'A UUIDv7, unless the producer chose the id.';
COMMENT ON COLUMN public.transfers."timestamp" IS
    'When the transfer occurred. The event counts at this time.';
COMMENT ON COLUMN public.transfers.owner_id IS 'The user who received the item.';
COMMENT ON COLUMN public.transfers.item_id IS 'The item that was transferred.';
-- A new leader reads the newest events by this index, to count their milliseconds.
CREATE INDEX transfers_timestamp_idx ON public.transfers ("timestamp");
-- Finds the transfers of an item, and its owner in the last one.
CREATE INDEX transfers_item_id_timestamp_id_idx ON public.transfers (item_id, "timestamp", id);
-- Finds every item that a user ever received. The query then keeps the items still owned.
CREATE INDEX transfers_owner_id_item_id_idx ON public.transfers (owner_id, item_id);

CREATE VIEW public.events (metric, "time") AS
SELECT 'item-creation', created_at FROM public.items
UNION ALL
SELECT 'transfers', "timestamp" FROM public.transfers;
COMMENT ON VIEW public.events IS 'One row for each event of each metric.';
COMMENT ON COLUMN public.events.metric IS 'item-creation or transfers.';
COMMENT ON COLUMN public.events."time" IS 'The time at which the event counts.';

GRANT SELECT, INSERT ON public.base_items, public.users TO newcycle_ingest, newcycle_producer;
GRANT SELECT, INSERT, DELETE ON public.items, public.transfers
TO newcycle_ingest, newcycle_producer;
GRANT SELECT ON public.items, public.transfers, public.events TO newcycle_notifier;
GRANT SELECT ON public.base_items, public.users, public.items, public.transfers, public.events
TO newcycle_reader;
-- Each service checks at its start that it knows the schema version.
GRANT SELECT ON public.refinery_schema_history TO newcycle_ingest, newcycle_notifier;
