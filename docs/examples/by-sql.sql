-- Once: create a role that may read, add and delete events, and nothing else.
CREATE ROLE warehouse LOGIN PASSWORD 'change me' IN ROLE newcycle_producer;

-- As that role. The tables' triggers log each statement, and its rows count when the transaction
-- commits.
SET ROLE warehouse;
INSERT INTO public.base_items (id, description)
VALUES ('019a2b3c-0000-7000-8000-00000000000b', 'Touring bicycle, refurbished');
INSERT INTO public.users (id) VALUES ('019a2b3c-0000-7000-8000-00000000000d');
INSERT INTO public.items (id, base_item_id, created_at)
VALUES ('019a2b3c-0000-7000-8000-000000000001', '019a2b3c-0000-7000-8000-00000000000b',
        '2026-11-23 09:37:00.123Z');
INSERT INTO public.transfers (id, "timestamp", owner_id, item_id)
VALUES ('019a2b3c-0000-7000-8000-000000000003', '2026-11-23 09:38:00Z',
        '019a2b3c-0000-7000-8000-00000000000d', '019a2b3c-0000-7000-8000-000000000001');
