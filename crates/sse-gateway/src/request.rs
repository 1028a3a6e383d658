//! What a client asks for, parsed.

use std::collections::HashSet;

use actix_web::HttpRequest;
use actix_web::http::header::{Accept, Header, HeaderValue, Quality, QualityItem};
use actix_web::web::Query;
use domain::{Topic, Version};
use statistics_stream::{Payload, Selection};

use crate::error::ApiError;

/// The most buckets that can be asked for: the longest window of any unit.
pub const LAST_MAX: usize = 3_600;

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
    /// What the client would rather have: a stream, unless it says otherwise.
    ///
    /// # Errors
    /// [`ApiError::NotAcceptable`] where it accepts none of the forms.
    pub fn of(request: &HttpRequest) -> Result<Self, ApiError> {
        if !request.headers().contains_key("accept") {
            return Ok(Self::Events);
        }
        let refused = || {
            let header = request.headers().get("accept").map(HeaderValue::as_bytes);
            ApiError::NotAcceptable(String::from_utf8_lossy(header.unwrap_or_default()).into_owned())
        };
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
        let forms = [Self::Events, Self::Json, Self::Csv];
        let acceptable = forms.into_iter().filter_map(|form| Some((form, quality(form)?)));
        let acceptable = acceptable.filter(|(_, quality)| *quality > Quality::ZERO);
        // The first of the best: a stream where the client has no preference.
        let best = acceptable.reduce(|best, next| if next.1 > best.1 { next } else { best });
        best.map(|(form, _)| form).ok_or_else(refused)
    }

    const fn media_type(self) -> (&'static str, &'static str) {
        match self {
            Self::Events => ("text", "event-stream"),
            Self::Json => ("application", "json"),
            Self::Csv => ("text", "csv"),
        }
    }
}

/// The selection of a request: of the path's topic, or of those that the query names.
///
/// # Errors
/// [`ApiError`], naming the parameter that is wrong.
pub fn selection(request: &HttpRequest, of_path: Option<Topic>) -> Result<Selection, ApiError> {
    let query = Query::<Vec<(String, String)>>::from_query(request.query_string())
        .map_err(|error| ApiError::Query(error.to_string()))?;
    let (mut topics, mut last, mut payload) = (Vec::new(), None, Payload::Changes);
    let mut given = HashSet::new();
    for (name, value) in query.into_inner() {
        if name != "topic" && !given.insert(name.clone()) {
            return Err(ApiError::Repeated(name));
        }
        match (name.as_str(), of_path) {
            ("topic", None) => topics.push(value.parse()?),
            ("last", _) => {
                let expected = "expected a number of buckets, from 1 to 3600";
                let number = value.parse::<usize>().ok().filter(|number| (1..=LAST_MAX).contains(number));
                last = Some(number.ok_or(ApiError::Parameter { name: "last", value, expected })?);
            }
            ("payload", Some(_)) => {
                payload = match value.as_str() {
                    "changes" => Payload::Changes,
                    "full" => Payload::Full,
                    _ => {
                        let expected = "expected full or changes";
                        return Err(ApiError::Parameter { name: "payload", value, expected });
                    }
                }
            }
            (_, Some(_)) => return Err(ApiError::UnknownParameter { name, known: "last, payload" }),
            (_, None) => return Err(ApiError::UnknownParameter { name, known: "topic, last" }),
        }
    }
    let selection = match of_path {
        Some(topic) => Selection::one(topic),
        None => Selection::many(topics)?,
    };
    let selection = selection.with(payload);
    Ok(match last {
        Some(last) => selection.narrowed(last)?,
        None => selection,
    })
}

/// The version that the client has. An id that is none of this service's is no error: it gets snapshots.
#[must_use]
pub fn last_event_id(request: &HttpRequest) -> Option<Version> {
    request.headers().get("last-event-id")?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_buckets_can_be_asked_for_as_the_longest_window_has() {
        assert_eq!(domain::TimeUnit::ALL.map(domain::TimeUnit::window).into_iter().max(), Some(LAST_MAX));
    }
}
