//! What a client asks for, parsed.

use std::ops::RangeInclusive;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::{Accept, Header, HeaderValue, Quality, QualityItem};
use actix_web::web::Query;
use domain::{BucketTime, Topic, Version};
use statistics_stream::history;
use statistics_stream::{Payload, Selection};

use crate::error::ApiError;
use crate::settings::HistorySettings;

/// The most buckets that can be asked for: the longest window of any unit.
pub const LAST_MAX: usize = 3_600;
/// The longest heartbeat that a client can ask for, in seconds; it can ask for whole ones.
pub const HEARTBEAT_SECONDS_MAX: usize = 15;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A stream of events.
    Events,
    /// One answer as JSON.
    Json,
    /// One answer as comma-separated values.
    Csv,
}

impl Form {
    /// The forms of a live window; a stream unless the client says otherwise.
    pub const OF_WINDOW: &[Self] = &[Self::Events, Self::Json, Self::Csv];
    /// The forms of history, which does not move.
    pub const OF_HISTORY: &[Self] = &[Self::Json, Self::Csv];

    /// What the client would rather have of these; the first of them where it has no preference.
    ///
    /// # Errors
    /// [`ApiError::NotAcceptable`] where it accepts none of them.
    pub fn of(request: &HttpRequest, forms: &'static [Self]) -> Result<Self, ApiError> {
        let refused = || {
            let header = request.headers().get("accept").map(HeaderValue::as_bytes);
            let accepted = String::from_utf8_lossy(header.unwrap_or_default()).into_owned();
            ApiError::NotAcceptable { accepted, forms }
        };
        if let (false, Some(first)) = (request.headers().contains_key("accept"), forms.first()) {
            return Ok(*first);
        }
        let accept = Accept::parse(request).map_err(|_| refused())?;
        // An exact type outweighs a range of them, whatever the order (RFC 9110, section 12.5.1).
        let quality = |form: Self| {
            let (kind, subtype) = form.media_type();
            let matches = |item: &QualityItem<mime::Mime>| {
                let exact = item.item.type_() == kind && item.item.subtype() == subtype;
                let kind_range = item.item.type_() == kind && item.item.subtype() == mime::STAR;
                let any = item.item.type_() == mime::STAR;
                [exact, kind_range, any].iter().position(|matched| *matched).map(|rank| (rank, item.quality))
            };
            accept.iter().filter_map(matches).min_by_key(|(rank, _)| *rank).map(|(_, quality)| quality)
        };
        let acceptable = forms.iter().filter_map(|form| Some((*form, quality(*form)?)));
        let acceptable = acceptable.filter(|(_, quality)| *quality > Quality::ZERO);
        // The first of the best: a stream where the client has no preference.
        let best = acceptable.reduce(|best, next| if next.1 > best.1 { next } else { best });
        best.map(|(form, _)| form).ok_or_else(refused)
    }

    /// The type and the subtype.
    #[must_use]
    pub const fn media_type(self) -> (&'static str, &'static str) {
        match self {
            Self::Events => ("text", "event-stream"),
            Self::Json => ("application", "json"),
            Self::Csv => ("text", "csv"),
        }
    }
}

/// What is asked of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Its live window.
    Window(Window),
    /// A period.
    History(history::Query),
}

/// A live window of some topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The topics, and how much of them.
    pub selection: Selection,
    /// How often a stream tells the status, where the client asks for its own measure. An answer that is given once
    /// has none.
    pub heartbeat: Option<Duration>,
}

/// What the query of a request asks of the topic of its path.
///
/// # Errors
/// [`ApiError`], naming the parameter that is wrong.
pub fn of_topic(query: &str, topic: Topic, limits: &HistorySettings) -> Result<Asked, ApiError> {
    let (mut last, mut payload, mut beat) = (None, None, None);
    let (mut from, mut to, mut limit) = (None, None, None);
    for (name, value) in parameters(query)? {
        match name.as_str() {
            "last" => once("last", &mut last, value, number("buckets", 1..=LAST_MAX))?,
            "heartbeat" => once("heartbeat", &mut beat, value, heartbeat)?,
            "payload" => once("payload", &mut payload, value, payload_of)?,
            "from" => once("from", &mut from, value, time)?,
            "to" => once("to", &mut to, value, time)?,
            "limit" => {
                once("limit", &mut limit, value, number("buckets", 1..=limits.page_buckets_max.get()))?;
            }
            _ => {
                let known = "last, payload, heartbeat; from, to, limit";
                return Err(ApiError::UnknownParameter { name, known });
            }
        }
    }
    if from.is_some() || to.is_some() {
        if last.is_some() || payload.is_some() || beat.is_some() {
            return Err(ApiError::Mixed);
        }
        if let (Some(from), Some(to)) = (from, to)
            && from > to
        {
            return Err(ApiError::Backwards { from, to });
        }
        let limit = limit.unwrap_or(limits.page_buckets_default.get());
        return Ok(Asked::History(history::Query { topic, from, to, limit }));
    }
    if limit.is_some() {
        return Err(ApiError::Mixed);
    }
    let selection = narrowed(Selection::one(topic).with(payload.unwrap_or(Payload::Changes)), last)?;
    Ok(Asked::Window(Window { selection, heartbeat: beat }))
}

/// What the query of a request asks of the topics that it names.
///
/// # Errors
/// [`ApiError`], naming the parameter that is wrong.
pub fn of_topics(query: &str) -> Result<Window, ApiError> {
    let (mut topics, mut last, mut beat) = (Vec::new(), None, None);
    for (name, value) in parameters(query)? {
        match name.as_str() {
            "topic" => topics.push(value.parse()?),
            "last" => once("last", &mut last, value, number("buckets", 1..=LAST_MAX))?,
            "heartbeat" => once("heartbeat", &mut beat, value, heartbeat)?,
            _ => return Err(ApiError::UnknownParameter { name, known: "topic, last, heartbeat" }),
        }
    }
    Ok(Window { selection: narrowed(Selection::many(topics)?, last)?, heartbeat: beat })
}

fn parameters(query: &str) -> Result<Vec<(String, String)>, ApiError> {
    let query = Query::<Vec<(String, String)>>::from_query(query);
    query.map(Query::into_inner).map_err(|error| ApiError::Query(error.to_string()))
}

fn narrowed(selection: Selection, last: Option<usize>) -> Result<Selection, ApiError> {
    Ok(match last {
        Some(last) => selection.narrowed(last)?,
        None => selection,
    })
}

/// Parses the value of a parameter that may be given once.
fn once<T>(
    name: &'static str,
    parsed: &mut Option<T>,
    value: String,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<(), ApiError> {
    if parsed.is_some() {
        return Err(ApiError::Repeated(name.to_owned()));
    }
    *parsed = Some(parse(&value).map_err(|expected| ApiError::Parameter { name, value, expected })?);
    Ok(())
}

fn number(of: &'static str, range: RangeInclusive<usize>) -> impl FnOnce(&str) -> Result<usize, String> {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        let (least, most) = (range.start(), range.end());
        number.ok_or_else(|| format!("expected a number of {of}, from {least} to {most}"))
    }
}

fn heartbeat(text: &str) -> Result<Duration, String> {
    let seconds = number("seconds", 1..=HEARTBEAT_SECONDS_MAX)(text)?;
    Ok(Duration::from_secs(seconds as u64))
}

fn payload_of(text: &str) -> Result<Payload, String> {
    match text {
        "changes" => Ok(Payload::Changes),
        "full" => Ok(Payload::Full),
        _ => Err("expected full or changes".to_owned()),
    }
}

fn time(text: &str) -> Result<BucketTime, String> {
    BucketTime::not_before(text).map_err(|_| {
        "expected a time of RFC 3339 in years 1 to 9999, such as 2026-11-23T09:37:00Z, with + written as %2B".to_owned()
    })
}

/// The version that the client has. An id that is none of this service's is no error: it gets snapshots.
#[must_use]
pub fn last_event_id(request: &HttpRequest) -> Option<Version> {
    request.headers().get("last-event-id")?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[test]
    fn a_period_that_ends_within_a_millisecond_has_the_bucket_that_begins_it() {
        let limits = HistorySettings {
            page_buckets_default: NonZeroUsize::MIN,
            page_buckets_max: NonZeroUsize::MIN,
            concurrent_requests: NonZeroUsize::MIN,
            timeout: service_kit::settings::NonZeroDuration::from_millis(1),
            max_page_bytes: 1,
        };
        let topic = "transfers/millisecond".parse().unwrap();
        let asked = of_topic("to=2026-11-01T00:00:00.0005Z", topic, &limits).unwrap();
        let Asked::History(query) = asked else { panic!("{asked:?} is no period") };
        assert_eq!(query.to.unwrap().to_string(), "2026-11-01T00:00:00.001Z");
    }

    #[test]
    fn as_many_buckets_can_be_asked_for_as_the_longest_window_has() {
        assert_eq!(domain::TimeUnit::ALL.map(domain::TimeUnit::window).into_iter().max(), Some(LAST_MAX));
    }
}
