//! The statements. To try one in psql, paste it and give the parameters with `\bind`.
//!
//! An insert returns the ids of the rows that it stored. It leaves out rows whose id exists and
//! rows whose parents are missing; [`mod@super::insert`] finds out which of the two it was. Only
//! `insert_new` is different.

/// The statements that every table has.
pub(crate) struct RowStatements {
    /// Inserts many rows, in the order of their ids. The parameters are one array for each column,
    /// in this order. A join may change it, so these inserts sort once more.
    pub(crate) insert: &'static str,
    /// Inserts one row, with the same parameters. It costs less for one row. If a parent is
    /// missing, it is refused with `foreign_key_violation`.
    pub(crate) insert_one: &'static str,
    /// Inserts many rows, with the same parameters, without looking for ids that exist and parents
    /// that do not: if there is one, it is refused with `unique_violation` or
    /// `foreign_key_violation`, and no row is stored.
    pub(crate) insert_new: &'static str,
    /// Selects the rows with the ids `$1`, in any order.
    pub(crate) select: &'static str,
    /// Selects at most `$2` rows in the order of their ids, starting at the id `$1`.
    pub(crate) list: &'static str,
}

pub(crate) const BASE_ITEMS: RowStatements = RowStatements {
    insert: "
INSERT INTO public.base_items (id, description, written_by)
SELECT new.id, new.description, new.written_by
FROM   unnest($1::uuid[], $2::text[], $3::integer[])
       AS new (id, description, written_by)
ON CONFLICT (id) DO NOTHING
RETURNING id",

    insert_one: "
INSERT INTO public.base_items (id, description, written_by)
VALUES (($1::uuid[])[1], ($2::text[])[1], ($3::integer[])[1])
ON CONFLICT (id) DO NOTHING
RETURNING id",

    insert_new: "
INSERT INTO public.base_items (id, description, written_by)
SELECT new.id, new.description, new.written_by
FROM   unnest($1::uuid[], $2::text[], $3::integer[])
       AS new (id, description, written_by)",

    select: "
SELECT id, description
FROM   public.base_items
WHERE  id = ANY ($1::uuid[])",

    list: "
SELECT   id, description
FROM     public.base_items
WHERE    id >= $1
ORDER BY id
LIMIT    $2",
};

pub(crate) const USERS: RowStatements = RowStatements {
    insert: "
INSERT INTO public.users (id, written_by)
SELECT new.id, new.written_by
FROM   unnest($1::uuid[], $2::integer[]) AS new (id, written_by)
ON CONFLICT (id) DO NOTHING
RETURNING id",

    insert_one: "
INSERT INTO public.users (id, written_by)
VALUES (($1::uuid[])[1], ($2::integer[])[1])
ON CONFLICT (id) DO NOTHING
RETURNING id",

    insert_new: "
INSERT INTO public.users (id, written_by)
SELECT new.id, new.written_by
FROM   unnest($1::uuid[], $2::integer[]) AS new (id, written_by)",

    select: "
SELECT id
FROM   public.users
WHERE  id = ANY ($1::uuid[])",

    list: "
SELECT   id
FROM     public.users
WHERE    id >= $1
ORDER BY id
LIMIT    $2",
};

pub(crate) const ITEMS: RowStatements = RowStatements {
    insert: "
INSERT INTO public.items (id, base_item_id, created_at, written_by)
SELECT new.id, new.base_item_id, new.created_at, new.written_by
FROM   unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::integer[])
       AS new (id, base_item_id, created_at, written_by)
JOIN   public.base_items ON base_items.id = new.base_item_id
ORDER BY new.id
ON CONFLICT (id) DO NOTHING
RETURNING id",

    insert_one: "
INSERT INTO public.items (id, base_item_id, created_at, written_by)
VALUES (($1::uuid[])[1], ($2::uuid[])[1], ($3::timestamptz[])[1], ($4::integer[])[1])
ON CONFLICT (id) DO NOTHING
RETURNING id",

    insert_new: "
INSERT INTO public.items (id, base_item_id, created_at, written_by)
SELECT new.id, new.base_item_id, new.created_at, new.written_by
FROM   unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::integer[])
       AS new (id, base_item_id, created_at, written_by)",

    select: "
SELECT id, base_item_id, created_at
FROM   public.items
WHERE  id = ANY ($1::uuid[])",

    list: "
SELECT   id, base_item_id, created_at
FROM     public.items
WHERE    id >= $1
ORDER BY id
LIMIT    $2",
};

pub(crate) const TRANSFERS: RowStatements = RowStatements {
    insert: r#"
INSERT INTO public.transfers (id, "timestamp", owner_id, item_id, written_by)
SELECT new.id, new.at, new.owner_id, new.item_id, new.written_by
FROM   unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::uuid[], $5::integer[])
       AS new (id, at, owner_id, item_id, written_by)
JOIN   public.users ON users.id = new.owner_id
JOIN   public.items ON items.id = new.item_id
ORDER BY new.id
ON CONFLICT (id) DO NOTHING
RETURNING id"#,

    insert_one: r#"
INSERT INTO public.transfers (id, "timestamp", owner_id, item_id, written_by)
VALUES (($1::uuid[])[1], ($2::timestamptz[])[1], ($3::uuid[])[1], ($4::uuid[])[1],
        ($5::integer[])[1])
ON CONFLICT (id) DO NOTHING
RETURNING id"#,

    insert_new: r#"
INSERT INTO public.transfers (id, "timestamp", owner_id, item_id, written_by)
SELECT new.id, new.at, new.owner_id, new.item_id, new.written_by
FROM   unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::uuid[], $5::integer[])
       AS new (id, at, owner_id, item_id, written_by)"#,

    select: r#"
SELECT id, "timestamp", owner_id, item_id
FROM   public.transfers
WHERE  id = ANY ($1::uuid[])"#,

    list: r#"
SELECT   id, "timestamp", owner_id, item_id
FROM     public.transfers
WHERE    id >= $1
ORDER BY id
LIMIT    $2"#,
};

/// Which of the ids `$1` exist.
pub(crate) const EXISTING_BASE_ITEMS: &str = "
SELECT id
FROM   public.base_items
WHERE  id = ANY ($1::uuid[])";

/// Which of the ids `$1` exist.
pub(crate) const EXISTING_USERS: &str = "
SELECT id
FROM   public.users
WHERE  id = ANY ($1::uuid[])";

/// Which of the ids `$1` exist.
pub(crate) const EXISTING_ITEMS: &str = "
SELECT id
FROM   public.items
WHERE  id = ANY ($1::uuid[])";

/// At most `$3` transfers of the item `$1` in the order of their times, starting after the transfer
/// `$2`, or at the first one if it is null.
pub(crate) const TRANSFERS_OF_ITEM: &str = r#"
SELECT   id, "timestamp", owner_id, item_id
FROM     public.transfers
WHERE    item_id = $1
AND      ("timestamp", id) > (
             CASE WHEN $2::uuid IS NULL THEN '-infinity'
                  ELSE (SELECT "timestamp" FROM public.transfers WHERE id = $2)
             END,
             coalesce($2, '00000000-0000-0000-0000-000000000000'))
ORDER BY "timestamp", id
LIMIT    $3"#;

/// The items that the user `$1` owns, in the order of their ids, starting at the id `$2`. The owner
/// of an item is the `owner_id` of its latest transfer.
///
/// Examines the items that the user ever received, one by one. Each costs two probes of an index.
/// Ends after `$3` items that the user owns, or after `$4` items that were examined. In the second
/// case, the last row is the last item that was examined, whether the user owns it or not, and its
/// column `ended` is true.
pub(crate) const ITEMS_OF_USER: &str = r#"
WITH RECURSIVE received (item_id, owned, found, examined) AS (
    (SELECT   first.item_id, latest.owner_id = $1, (latest.owner_id = $1)::integer, 1
     FROM     (SELECT   item_id
               FROM     public.transfers
               WHERE    owner_id = $1
               AND      item_id >= $2
               ORDER BY item_id
               LIMIT    1) AS first
     CROSS JOIN LATERAL
              (SELECT   owner_id
               FROM     public.transfers
               WHERE    item_id = first.item_id
               ORDER BY "timestamp" DESC, id DESC
               LIMIT    1) AS latest)
    UNION ALL
    SELECT   next.item_id,
             latest.owner_id = $1,
             found + (latest.owner_id = $1)::integer,
             examined + 1
    FROM     received
    CROSS JOIN LATERAL
             (SELECT   item_id
              FROM     public.transfers
              WHERE    owner_id = $1
              AND      item_id > received.item_id
              ORDER BY item_id
              LIMIT    1) AS next
    CROSS JOIN LATERAL
             (SELECT   owner_id
              FROM     public.transfers
              WHERE    item_id = next.item_id
              ORDER BY "timestamp" DESC, id DESC
              LIMIT    1) AS latest
    WHERE    found < $3
    AND      examined < $4
)
SELECT   received.item_id AS id,
         items.base_item_id,
         items.created_at,
         received.owned,
         received.examined >= $4 AS ended
FROM     received
LEFT JOIN public.items ON received.owned AND items.id = received.item_id
WHERE    received.owned OR received.examined >= $4
ORDER BY received.item_id"#;

/// The latest transfer of the item `$1`.
pub(crate) const LATEST_TRANSFER_OF_ITEM: &str = r#"
SELECT   id, "timestamp", owner_id, item_id
FROM     public.transfers
WHERE    item_id = $1
ORDER BY "timestamp" DESC, id DESC
LIMIT    1"#;

/// Writes an empty message to the write-ahead log, so that the commit waits for what
/// `synchronous_commit` and `synchronous_standby_names` require. Nothing reads the message.
pub(crate) const WRITE_TO_LOG: &str = "
SELECT pg_catalog.pg_logical_emit_message(true, 'newcycle', '')";

/// Deletes the item `$1`, and records who did it (`$2`) by which request (`$3`). Returns one row if
/// there was such an item.
pub(crate) const DELETE_ITEM: &str = "
WITH deleted AS (
    DELETE FROM public.items
    WHERE       id = $1
    RETURNING   *
)
INSERT INTO public.deletion (table_name, row_id, content, deleted_by, request_id)
SELECT 'items', id, to_jsonb(deleted), $2, $3
FROM   deleted";

/// As [`DELETE_ITEM`], for the transfer `$1`.
pub(crate) const DELETE_TRANSFER: &str = "
WITH deleted AS (
    DELETE FROM public.transfers
    WHERE       id = $1
    RETURNING   *
)
INSERT INTO public.deletion (table_name, row_id, content, deleted_by, request_id)
SELECT 'transfers', id, to_jsonb(deleted), $2, $3
FROM   deleted";
