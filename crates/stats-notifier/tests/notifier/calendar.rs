//! `domain` and Postgres agree on where each bucket begins.

use domain::{BucketTime, TimeUnit};
use local_stack::test_database::TestDatabase;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use time::OffsetDateTime;

#[tokio::test]
async fn buckets_begin_where_date_trunc_says() {
    let database = TestDatabase::create().await;
    let client = database.connect().await;
    let mut times: Vec<BucketTime> = [
        "0001-01-01T00:00:00Z",
        "0001-01-07T23:59:59.999Z",
        "0001-12-31T23:59:59.999Z",
        "0004-02-29T12:00:00Z",
        "1582-10-10T00:00:00Z",
        "1899-12-31T23:59:59.999Z",
        "1900-02-28T23:59:59.999Z",
        "1969-12-31T23:59:59.999Z",
        "1970-01-01T00:00:00Z",
        "2000-02-29T00:00:00Z",
        "2016-12-31T23:59:59.999Z",
        "2020-12-31T12:00:00Z",
        "2021-01-03T23:59:59.999Z",
        "2021-01-04T00:00:00Z",
        "2024-02-29T23:59:59.999Z",
        "2024-12-30T00:00:00Z",
        "9999-12-27T00:00:00Z",
        "9999-12-31T23:59:59.999Z",
    ]
    .iter()
    .map(|text| text.parse().unwrap())
    .collect();
    let mut runner = TestRunner::default();
    let any = BucketTime::MIN.unix_milliseconds()..=BucketTime::MAX.unix_milliseconds();
    let recent = -100_000_000_000_i64..2_000_000_000_000;
    for _ in 0..5_000 {
        for time in [
            any.new_tree(&mut runner).unwrap().current(),
            recent.new_tree(&mut runner).unwrap().current(),
        ] {
            times.push(BucketTime::from_unix_milliseconds(time).unwrap());
        }
    }
    let instant = |time: &BucketTime| {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(time.unix_milliseconds()) * 1_000_000)
            .unwrap()
    };
    let instants: Vec<OffsetDateTime> = times.iter().map(instant).collect();
    for unit in TimeUnit::ALL {
        let truncated = match unit {
            TimeUnit::Millisecond => {
                "date_bin('1 millisecond', time, '0001-01-01 00:00:00+00')".to_owned()
            }
            unit => format!("date_trunc('{unit}', time, 'UTC')"),
        };
        let sql = format!(
            "SELECT {truncated} FROM unnest($1::timestamptz[]) WITH ORDINALITY AS t (time, n) ORDER BY n"
        );
        let rows = client.query(&sql, &[&instants]).await.unwrap();
        assert_eq!(rows.len(), times.len());
        for (row, time) in rows.iter().zip(&times) {
            let expected: BucketTime = row.get::<_, OffsetDateTime>(0).try_into().unwrap();
            assert_eq!(unit.truncate(*time), expected, "{time} by {unit}");
        }
    }
}
