//! The JSON schemas of the types on the wire, for the OpenAPI document.
//!
//! `domain` and `statistics-stream` do not depend on OpenAPI, so each of their types has a
//! counterpart here. The tests compare the members of each with the JSON of the real type.

#![expect(dead_code, reason = "only the derived schemas are used")]

use domain::Topic;
use openapi_kit::{components, text};
use utoipa::ToSchema;
use utoipa::openapi::ObjectBuilder;
use utoipa::openapi::schema::Components;

/// A bucket and its absolute count.
#[derive(ToSchema)]
pub(crate) struct Bucket {
    /// The start of the bucket, in UTC.
    #[schema(format = DateTime)]
    time: String,
    /// The number of events in the bucket.
    count: i64,
}

/// The newest buckets of one topic, oldest first.
#[derive(ToSchema)]
pub(crate) struct TopicWindow {
    #[schema(schema_with = topic_name)]
    topic: String,
    /// The maximum number of buckets to keep. Beyond it, the oldest are dropped.
    #[schema(minimum = 1)]
    window: usize,
    buckets: Vec<Bucket>,
}

/// `stale` means that the counts may be old, because the gateway has lost its upstream.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum Upstream {
    Live,
    Stale,
}

/// Whether the counts are live.
#[derive(ToSchema)]
pub(crate) struct Status {
    upstream: Upstream,
    /// When `upstream` became live, or when it was last known to be live.
    #[schema(format = DateTime)]
    since: String,
    /// The time of the server.
    #[schema(format = DateTime)]
    now: String,
    /// How old the counts of this stream are, in milliseconds: they have every event that was
    /// committed before. Absent before the first counts.
    #[schema(minimum = 0, nullable = false)]
    age_ms: Option<u64>,
    access: Option<StreamAccess>,
}

/// How long the client may follow the stream; absent if that has no end.
#[derive(ToSchema)]
pub(crate) struct StreamAccess {
    /// The number of seconds left. After 0, the stream ends.
    #[schema(minimum = 0)]
    expires_in: u64,
    /// Why the stream ends now; absent before.
    ended: Option<AccessEnd>,
}

/// The key was revoked, it has expired, or the gateway has been cut off from the list of keys for
/// too long.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum AccessEnd {
    Revoked,
    Expired,
    Unknown,
}

/// The buckets of one topic in a period, oldest first, from one snapshot of the database.
#[derive(ToSchema)]
pub(crate) struct HistoryPage {
    #[schema(schema_with = topic_name)]
    topic: String,
    /// The start of the page.
    #[schema(format = DateTime)]
    from: String,
    /// The end of the period; null if it is open.
    #[schema(format = DateTime, required)]
    to: Option<String>,
    buckets: Vec<Bucket>,
    /// The `from` of the next page; null on the last one.
    #[schema(format = DateTime, required)]
    next: Option<String>,
}

/// One of all topics.
pub(crate) fn topic_name() -> ObjectBuilder {
    text().enum_values(Some(Topic::all().map(|topic| topic.to_string())))
}

pub(crate) fn schemas() -> Components {
    components()
        .schema_from::<Bucket>()
        .schema_from::<TopicWindow>()
        .schema_from::<Upstream>()
        .schema_from::<Status>()
        .schema_from::<StreamAccess>()
        .schema_from::<AccessEnd>()
        .schema_from::<openapi_kit::access::Access>()
        .schema_from::<HistoryPage>()
        .build()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use domain::{BucketTime, TopicFrame};
    use serde_json::{Value, json};
    use statistics_stream::history;
    use utoipa::PartialSchema;

    use super::*;

    /// There are no other members, and all are required except `optional`.
    fn assert_members<S: PartialSchema>(real: impl serde::Serialize, optional: &[&str]) {
        let schema = json!(S::schema());
        let real = json!(real);
        let members: BTreeSet<_> = real.as_object().unwrap().keys().collect();
        let described: BTreeSet<_> = schema["properties"].as_object().unwrap().keys().collect();
        assert_eq!(described, members);
        let required = schema["required"].as_array().unwrap().iter();
        let required: BTreeSet<_> = required.filter_map(Value::as_str).collect();
        let members = members.iter().map(|member| member.as_str());
        assert_eq!(required, members.filter(|member| !optional.contains(member)).collect());
    }

    #[test]
    fn the_schemas_match_the_types_on_the_wire() {
        let topic: Topic = "transfers/day".parse().unwrap();
        let bucket = domain::Bucket { time: BucketTime::MIN, count: 1 };
        assert_members::<Bucket>(bucket, &[]);
        assert_members::<TopicWindow>(TopicFrame { topic, window: 1, buckets: vec![bucket] }, &[]);
        let upstream = statistics_stream::UpstreamStatus::Stale;
        let (since, now) = (String::new(), String::new());
        let ended = Some(statistics_stream::AccessEnd::Revoked);
        let access = statistics_stream::StreamAccess { expires_in: 0, ended };
        assert_members::<StreamAccess>(access, &["ended"]);
        let (age_ms, access) = (Some(0), Some(access));
        let status = statistics_stream::Status { upstream, since, now, age_ms, access };
        assert_members::<Status>(status, &["access", "age_ms"]);
        let page = history::HistoryPage {
            topic,
            from: BucketTime::MIN,
            to: None,
            buckets: vec![],
            next: None,
        };
        assert_members::<HistoryPage>(page, &[]);
        let upstreams =
            [statistics_stream::UpstreamStatus::Live, statistics_stream::UpstreamStatus::Stale];
        assert_eq!(json!(Upstream::schema())["enum"], json!(upstreams));
    }
}
