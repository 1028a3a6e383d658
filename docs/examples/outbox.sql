-- The outbox of a producer, in the producer's own database.
CREATE TABLE outbox (
    -- The id of the event, created together with the event.
    id uuid PRIMARY KEY,
    -- The path and the body to post; the body has the same id.
    path text NOT NULL,
    body jsonb NOT NULL,
    sent_at timestamptz,
    -- Why ingest-api will never accept it.
    refused text
);
CREATE INDEX outbox_waiting_idx ON outbox (id) WHERE sent_at IS NULL AND refused IS NULL;

-- 1. The change and its event, in one transaction: both happen, or neither does.
BEGIN;
-- INSERT INTO orders …
INSERT INTO outbox (id, path, body) VALUES
    ('019a2b3c-0000-7000-8000-000000000001', '/items',
     '{"id": "019a2b3c-0000-7000-8000-000000000001",
       "base_item_id": "019a2b3c-0000-7000-8000-00000000000b",
       "created_at": "2026-11-23T09:37:00.123Z"}'),
    ('019a2b3c-0000-7000-8000-000000000002', '/items',
     '{"id": "019a2b3c-0000-7000-8000-000000000002",
       "base_item_id": "019a2b3c-0000-7000-8000-00000000000c",
       "created_at": "2026-11-23T09:37:00.456Z"}');
COMMIT;

-- 2. The poller, repeatedly: selects some waiting rows, posts them, and records the results. If it
-- dies in between, nothing is recorded, and the next run posts the same ids again: harmless.
BEGIN;
SELECT id, path, body FROM outbox WHERE sent_at IS NULL AND refused IS NULL
ORDER BY id LIMIT 500 FOR UPDATE SKIP LOCKED;
-- … posts their bodies to their paths: items before transfers.
UPDATE outbox SET sent_at = now() WHERE id IN ('019a2b3c-0000-7000-8000-000000000001');
UPDATE outbox SET refused = 'base_item_id: there is no such row'
WHERE id IN ('019a2b3c-0000-7000-8000-000000000002');
COMMIT;

-- 3. From time to time, delete what was sent long ago. Refused rows stay: a person looks at them.
DELETE FROM outbox WHERE sent_at < now() - interval '7 days';
