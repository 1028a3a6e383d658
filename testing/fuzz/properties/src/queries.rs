//! The query strings of sse-gateway and ingest-api.

use std::num::{NonZeroU32, NonZeroUsize};

use actix_web::ResponseError;
use actix_web::body::MessageBody;
use actix_web::http::StatusCode;
use actix_web::test::TestRequest;
use domain::{BucketTime, Metric, TimeUnit, Topic};
use ingest_api::error::ApiError;
use ingest_api::page::PageQuery;
use ingest_api::settings::Limits;
use serde_json::Value;
use service_kit::settings::NonZeroDuration;
use sse_gateway::query::{
    HEARTBEAT_SECONDS_MAX, LAST_MAX, PageLimits, StatisticsQuery, WindowQuery, parse_topic_query,
    parse_topics_query,
};
use statistics_stream::Payload;
use statistics_stream::history;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const TOPIC: Topic = Topic::new(Metric::Transfers, TimeUnit::Minute);

/// The most bytes of an error response, whatever the query.
const PROBLEM_BYTES: usize = 8_192;

type Pairs = Vec<(String, String)>;

/// An accepted query means the same after it was written again, in any order and encoding, and
/// requests no more than the limits allow. The error of a refused query names one of its
/// parameters.
///
/// # Panics
/// This does not hold.
pub fn check(bytes: &[u8]) {
    let query = String::from_utf8_lossy(bytes);
    let pairs: Pairs = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let limits = history_limits();
    check_parser(&query, &pairs, |query| parse_topic_query(query, TOPIC, limits), statistics_pairs);
    check_parser(&query, &pairs, parse_topics_query, window_pairs);
    check_parser(
        &query,
        &pairs,
        |query| PageQuery::parse(query, &page_limits()).map_err(ApiError::from),
        page_pairs,
    );
}

fn check_parser<T, E>(
    query: &str,
    pairs: &Pairs,
    parse: impl Fn(&str) -> Result<T, E>,
    write: impl Fn(&T, &Pairs) -> Pairs,
) where
    T: std::fmt::Debug + PartialEq,
    E: ResponseError,
{
    let parsed = match parse(query) {
        Ok(parsed) => parsed,
        Err(error) => return check_refusal(pairs, &error),
    };
    let again = [encode(pairs), encode(&write(&parsed, pairs)), encode(&sorted(pairs))];
    for text in again {
        match parse(&text) {
            Ok(again) => assert_eq!(again, parsed, "{text:?} means the same as {query:?}"),
            Err(error) => panic!("{text:?} means the same as {query:?}, but is refused: {error}"),
        }
    }
}

fn encode(pairs: &Pairs) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// Sorts by name only, because the order of the topics is the order of the response.
fn sorted(pairs: &Pairs) -> Pairs {
    let mut sorted = pairs.clone();
    sorted.sort_by(|one, other| other.0.cmp(&one.0));
    sorted
}

fn check_refusal(pairs: &Pairs, error: &impl ResponseError) {
    let response = error.error_response();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{error}");
    let Ok(body) = response.into_body().try_into_bytes() else { panic!("{error} has no body") };
    assert!(body.len() <= PROBLEM_BYTES, "{} bytes for {error}", body.len());
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(!detail.is_empty(), "{problem} has no detail");
    let names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
    // A query without any topic is refused for the missing topic.
    let named = problem["field"].as_str().is_none_or(|field| {
        // A long name is shortened to its start and its end with an ellipsis in between. A name may
        // also contain an ellipsis itself.
        let cut_to = |name: &str| {
            field.match_indices('…').any(|(at, cut)| {
                name.starts_with(&field[..at]) && name.ends_with(&field[at + cut.len()..])
            })
        };
        field == "topic" || names.iter().any(|name| *name == field || cut_to(name))
    });
    assert!(named, "{problem} names a parameter that is not in {names:?}");
    assert!(
        problem["field"].is_string() || names.iter().any(|name| detail.contains(name)),
        "{problem} names none of {names:?}"
    );
}

fn statistics_pairs(query: &StatisticsQuery, pairs: &Pairs) -> Pairs {
    match query {
        StatisticsQuery::Window(query) => {
            let mut written = window_pairs(query, pairs);
            written.retain(|(name, _)| name != "topic");
            let payload = match query.selection.payload() {
                Payload::Changes => "changes",
                Payload::Full => "full",
            };
            written.push(("payload".to_owned(), payload.to_owned()));
            assert_eq!(query.selection.topics(), [TOPIC]);
            written
        }
        StatisticsQuery::History(query) => history_pairs(query, pairs),
    }
}

fn window_pairs(query: &WindowQuery, _: &Pairs) -> Pairs {
    let WindowQuery { selection, heartbeat } = query;
    let topics = selection.topics().iter().map(|topic| ("topic".to_owned(), topic.to_string()));
    let mut written: Pairs = topics.collect();
    assert!((1..=Topic::COUNT).contains(&written.len()), "{} topics", written.len());
    if selection.last() != usize::MAX {
        assert!((1..=LAST_MAX).contains(&selection.last()), "the last {}", selection.last());
        written.push(("last".to_owned(), selection.last().to_string()));
    }
    if let Some(heartbeat) = heartbeat {
        let seconds = heartbeat.as_secs();
        assert!(
            seconds >= 1 && seconds <= HEARTBEAT_SECONDS_MAX as u64,
            "a heartbeat of {seconds} s"
        );
        written.push(("heartbeat".to_owned(), seconds.to_string()));
    }
    written
}

fn history_pairs(query: &history::HistoryQuery, pairs: &Pairs) -> Pairs {
    let history::HistoryQuery { topic, from, to, limit } = query;
    assert_eq!(*topic, TOPIC);
    assert!(from.is_some() || to.is_some(), "a history query without from or to");
    assert!(from.is_none() || to.is_none() || from <= to, "{from:?} is later than {to:?}");
    assert!(*limit >= 1 && *limit <= history_limits().max.get(), "a page of {limit}");
    assert_eq!(as_relayed(query), Some(*query), "the upstream must get the same query");
    let mut written = vec![("limit".to_owned(), limit.to_string())];
    for (name, time) in [("from", from), ("to", to)] {
        if let Some(time) = time {
            check_bound(name, *time, pairs);
            written.push((name.to_owned(), time.to_string()));
        }
    }
    written
}

/// The query that a gateway sends to its upstream, as the upstream parses it.
fn as_relayed(query: &history::HistoryQuery) -> Option<history::HistoryQuery> {
    let request = TestRequest::with_uri(&query.path())
        .param("metric", query.topic.metric.as_str())
        .param("unit", query.topic.unit.as_str());
    history::HistoryQuery::from_request(&request.to_http_request()).ok()
}

/// A bucket begins at a whole millisecond, so rounding a finer time up selects the same buckets.
fn check_bound(name: &str, time: BucketTime, pairs: &Pairs) {
    let given = pairs.iter().find(|(given, _)| given == name);
    let given = given.and_then(|(_, value)| OffsetDateTime::parse(value, &Rfc3339).ok());
    let Some(given) = given else { panic!("{name} is {time}, but the query has no time") };
    let later = OffsetDateTime::from(time) - given;
    assert!(
        (!later.is_negative() || time == BucketTime::MAX)
            && later < time::Duration::milliseconds(1),
        "{name} is {time}, but the query has {given}"
    );
}

fn page_pairs(page: &PageQuery, _: &Pairs) -> Pairs {
    assert!((1..=1_000).contains(&page.limit), "a page of {}", page.limit);
    let mut written = vec![("limit".to_owned(), page.limit.to_string())];
    written.extend(page.after.map(|after| ("after".to_owned(), after.to_string())));
    written
}

fn history_limits() -> PageLimits {
    PageLimits { default: NonZeroUsize::MIN, max: NonZeroUsize::MIN.saturating_add(9_999) }
}

fn page_limits() -> Limits {
    Limits {
        max_request_body_bytes: 1,
        body_idle_timeout: NonZeroDuration::from_millis(1),
        request_body_timeout: NonZeroDuration::from_millis(1),
        query_timeout: NonZeroDuration::from_millis(1),
        default_page_rows: NonZeroU32::MIN,
        max_page_rows: NonZeroU32::MIN.saturating_add(999),
        max_ahead: std::time::Duration::ZERO,
    }
}
