//! Parses the query string of a client's request.

use std::fmt::Display;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use actix_web::web::Query;
use domain::{BucketTime, Topic};
use statistics_stream::history::HistoryQuery;
use statistics_stream::{Payload, Selection, is_last_event_id};

use crate::error::RequestError;
use crate::settings::HistoryClientSettings;

/// The maximum of `last`: the largest window of any unit.
pub const LAST_MAX: usize = 3_600;
/// The maximum of `heartbeat`, in seconds.
pub const HEARTBEAT_SECONDS_MAX: usize = 15;

/// Bounds of `limit`, the number of buckets of a page of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimits {
    /// Used if the client sends no limit.
    pub default: NonZeroUsize,
    /// The maximum.
    pub max: NonZeroUsize,
}

impl From<&HistoryClientSettings> for PageLimits {
    fn from(settings: &HistoryClientSettings) -> Self {
        Self { default: settings.default_page_buckets, max: settings.max_page_buckets }
    }
}

/// A request for the counts of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatisticsQuery {
    /// The live window.
    Window(WindowQuery),
    /// A period.
    History(HistoryQuery),
}

/// A request for the live windows of some topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowQuery {
    /// The topics, and how much of them.
    pub selection: Selection,
    /// The interval of the `status` events of a stream, if the client asked for one. Other
    /// responses ignore it.
    pub heartbeat: Option<Duration>,
}

/// Parses the query string of a path that names one topic.
///
/// # Errors
/// [`RequestError`], which names the parameter that is wrong.
pub fn parse_topic_query(
    query: &str,
    topic: Topic,
    limits: PageLimits,
) -> Result<StatisticsQuery, RequestError> {
    let mut last = None;
    let mut payload = None;
    let mut heartbeat = None;
    let mut from = None;
    let mut to = None;
    let mut limit = None;
    for (name, value) in parameters(query)? {
        match name.as_str() {
            "last" => once("last", &mut last, value, parse_last)?,
            "heartbeat" => once("heartbeat", &mut heartbeat, value, parse_heartbeat)?,
            "payload" => once("payload", &mut payload, value, parse_payload)?,
            "from" => once("from", &mut from, value, parse_time)?,
            "to" => once("to", &mut to, value, parse_time)?,
            "limit" => {
                once("limit", &mut limit, value, parse_number("buckets", 1..=limits.max.get()))?;
            }
            _ => {
                let known = "last, payload, heartbeat; from, to, limit";
                return Err(RequestError::UnknownParameter { name, known });
            }
        }
    }
    if from.is_some() || to.is_some() {
        if last.is_some() || payload.is_some() || heartbeat.is_some() {
            return Err(RequestError::Mixed);
        }
        if let (Some(from), Some(to)) = (from, to)
            && from > to
        {
            return Err(RequestError::Backwards { from, to });
        }
        let limit = limit.unwrap_or(limits.default.get());
        return Ok(StatisticsQuery::History(HistoryQuery { topic, from, to, limit }));
    }
    if limit.is_some() {
        return Err(RequestError::Mixed);
    }
    let selection = Selection::one(topic).with_payload(payload.unwrap_or(Payload::Changes));
    let selection = narrowed(selection, last);
    Ok(StatisticsQuery::Window(WindowQuery { selection, heartbeat }))
}

/// Parses a query string that names the topics.
///
/// # Errors
/// [`RequestError`], which names the parameter that is wrong.
pub fn parse_topics_query(query: &str) -> Result<WindowQuery, RequestError> {
    let mut topics = Vec::new();
    let mut last = None;
    let mut heartbeat = None;
    for (name, value) in parameters(query)? {
        match name.as_str() {
            "topic" => topics.push(value.parse()?),
            "last" => once("last", &mut last, value, parse_last)?,
            "heartbeat" => once("heartbeat", &mut heartbeat, value, parse_heartbeat)?,
            _ => {
                return Err(RequestError::UnknownParameter {
                    name,
                    known: "topic, last, heartbeat",
                });
            }
        }
    }
    Ok(WindowQuery { selection: narrowed(Selection::many(topics)?, last), heartbeat })
}

/// The parameters but for a last event id, which every path ignores unless it streams.
fn parameters(query: &str) -> Result<impl Iterator<Item = (String, String)>, RequestError> {
    let query = Query::<Vec<(String, String)>>::from_query(query);
    let parameters = query.map_err(|error| RequestError::Query(error.to_string()))?.into_inner();
    Ok(parameters.into_iter().filter(|(name, _)| !is_last_event_id(name)))
}

fn narrowed(selection: Selection, last: Option<NonZeroUsize>) -> Selection {
    match last {
        Some(last) => selection.narrowed(last),
        None => selection,
    }
}

/// Parses the value of a parameter that may occur only once.
fn once<T>(
    name: &'static str,
    parsed: &mut Option<T>,
    value: String,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<(), RequestError> {
    if parsed.is_some() {
        return Err(RequestError::Repeated(name.to_owned()));
    }
    *parsed = Some(parse(&value).map_err(|expected| RequestError::Parameter {
        name,
        value,
        expected,
    })?);
    Ok(())
}

fn parse_number<T: FromStr + PartialOrd + Display>(
    unit: &'static str,
    range: RangeInclusive<T>,
) -> impl FnOnce(&str) -> Result<T, String> {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            format!("expected a number of {unit} from {} to {}", range.start(), range.end())
        })
    }
}

fn parse_last(text: &str) -> Result<NonZeroUsize, String> {
    let max = NonZeroUsize::MIN.saturating_add(LAST_MAX - 1);
    parse_number("buckets", NonZeroUsize::MIN..=max)(text)
}

fn parse_heartbeat(text: &str) -> Result<Duration, String> {
    let seconds = parse_number("seconds", 1..=HEARTBEAT_SECONDS_MAX)(text)?;
    Ok(Duration::from_secs(seconds as u64))
}

fn parse_payload(text: &str) -> Result<Payload, String> {
    match text {
        "changes" => Ok(Payload::Changes),
        "full" => Ok(Payload::Full),
        _ => Err("expected changes or full".to_owned()),
    }
}

fn parse_time(text: &str) -> Result<BucketTime, String> {
    BucketTime::parse_rounded_up(text).map_err(|_| {
        "expected an RFC 3339 time in years 1 to 9999, such as 2026-11-23T09:37:00Z (encode + as %2B)"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_that_ends_within_a_millisecond_includes_the_bucket_of_that_millisecond() {
        let limits = PageLimits { default: NonZeroUsize::MIN, max: NonZeroUsize::MIN };
        let topic = "transfers/millisecond".parse().unwrap();
        let parsed = parse_topic_query("to=2026-11-01T00:00:00.0005Z", topic, limits).unwrap();
        let StatisticsQuery::History(query) = parsed else {
            panic!("{parsed:?} is not a history query")
        };
        assert_eq!(query.to.unwrap().to_string(), "2026-11-01T00:00:00.001Z");
    }

    #[test]
    fn the_maximum_of_last_is_the_largest_window() {
        assert_eq!(
            domain::TimeUnit::ALL.map(domain::TimeUnit::window).into_iter().max(),
            Some(LAST_MAX)
        );
    }
}
