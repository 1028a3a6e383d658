//! What the triggers log of each statement.

use crate::support::Fixture;

/// Compares the log with the events: by millisecond, both must have the same counts.
const DIFFERENCES: &str = "
    WITH logged AS (
        SELECT metric::text, date_trunc('milliseconds', time) AS bucket, sum(delta) AS count
        FROM public.count_log
        GROUP BY 1, 2
    ), expected AS (
        SELECT metric, date_trunc('milliseconds', time) AS bucket, count(*) AS count
        FROM public.events
        GROUP BY 1, 2
    )
    SELECT count(*)
    FROM logged
    FULL JOIN expected USING (metric, bucket)
    WHERE logged.count IS DISTINCT FROM expected.count";

async fn differences(fixture: &Fixture) -> i64 {
    fixture.producer.query_one(DIFFERENCES, &[]).await.unwrap().get(0)
}

/// The first rows of a statement are logged one by one, the others by millisecond. The largest
/// statement does not fit in memory, so its rows are read from a file.
#[tokio::test]
async fn each_row_of_a_statement_is_logged_once_however_many_there_are() {
    let fixture = Fixture::create().await;
    fixture.execute("SET work_mem = '64kB'").await;
    for rows in [0_i64, 1, 2, 7, 8, 9, 10, 17, 20_000] {
        // Four events in each millisecond.
        let time = "'2026-01-01Z'::timestamptz + n * interval '250 microseconds'";
        let numbers = format!("1, {rows}");
        for insert in
            [fixture.insert_items(time, &numbers), fixture.insert_transfers(time, &numbers)]
        {
            let before = fixture.log_rows().await;
            fixture.execute(&insert).await;
            assert_eq!(differences(&fixture).await, 0, "after a statement of {rows} rows");
            let logged = fixture.log_rows().await - before;
            let most = rows.min(8 + rows / 4 + 1);
            assert!(logged <= most, "{rows} rows made {logged} log rows");
        }
    }
}

/// The functions for INSERT have no `search_path` of their own, but the rights of their owner.
#[tokio::test]
async fn no_search_path_can_change_what_is_logged() {
    let fixture = Fixture::create().await;
    // A schema before pg_catalog, with something wrong under each name that the functions use.
    let trap = "
        CREATE SCHEMA trap;
        CREATE TABLE trap.added (created_at timestamptz, \"timestamp\" timestamptz);
        CREATE TABLE trap.count_log (time timestamptz, delta bigint, metric text);
        CREATE FUNCTION trap.caught(bigint, bigint) RETURNS boolean LANGUAGE plpgsql
            AS $$ BEGIN RAISE 'the trap was called'; END $$;
        CREATE FUNCTION trap.caught(bigint, integer) RETURNS boolean LANGUAGE plpgsql
            AS $$ BEGIN RAISE 'the trap was called'; END $$;
        CREATE FUNCTION trap.date_bin(interval, timestamptz, timestamptz) RETURNS timestamptz
            LANGUAGE plpgsql AS $$ BEGIN RAISE 'the trap was called'; END $$;
        CREATE FUNCTION trap.count() RETURNS bigint LANGUAGE plpgsql
            AS $$ BEGIN RAISE 'the trap was called'; END $$;
        CREATE FUNCTION trap.pg_try_advisory_lock_shared(integer, integer) RETURNS boolean
            LANGUAGE plpgsql AS $$ BEGIN RAISE 'the trap was called'; END $$;
        CREATE FUNCTION trap.pg_advisory_unlock_shared(integer, integer) RETURNS boolean
            LANGUAGE plpgsql AS $$ BEGIN RAISE 'the trap was called'; END $$;
        CREATE FUNCTION trap.pg_notify(text, text) RETURNS void
            LANGUAGE plpgsql AS $$ BEGIN RAISE 'the trap was called'; END $$;
        CREATE OPERATOR trap.= (FUNCTION = trap.caught, LEFTARG = bigint, RIGHTARG = bigint);
        CREATE OPERATOR trap.= (FUNCTION = trap.caught, LEFTARG = bigint, RIGHTARG = integer);
        CREATE OPERATOR trap.> (FUNCTION = trap.caught, LEFTARG = bigint, RIGHTARG = bigint);
        CREATE OPERATOR trap.> (FUNCTION = trap.caught, LEFTARG = bigint, RIGHTARG = integer);
        CREATE DOMAIN trap.bigint AS text CHECK (false);
        CREATE DOMAIN trap.int8 AS text CHECK (false);
        GRANT USAGE ON SCHEMA trap TO newcycle_owner;
        GRANT ALL ON ALL TABLES IN SCHEMA trap TO newcycle_owner";
    fixture.execute(trap).await;
    let path = "SET search_path = trap, pg_catalog, public";
    fixture.execute(path).await;
    // The trap works, also for the role that the functions run as.
    fixture.execute("SET ROLE newcycle_owner").await;
    let caught = fixture.producer.batch_execute("SELECT count() WHERE 1::bigint = 1").await;
    assert!(caught.unwrap_err().as_db_error().unwrap().message().contains("the trap"));
    fixture.execute("RESET ROLE").await;
    fixture.execute(&fixture.insert_items("now()", "1, 20")).await;
    fixture.execute(&fixture.insert_transfers("now()", "1, 20")).await;
    fixture.execute("RESET search_path").await;
    assert_eq!(differences(&fixture).await, 0);
}
