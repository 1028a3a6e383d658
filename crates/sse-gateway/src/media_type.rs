//! Content negotiation: which media type a client gets.

use actix_web::HttpRequest;
use actix_web::http::header::{ACCEPT, HeaderValue};
use mime::Mime;

/// A media type that this service can send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// A stream of server-sent events.
    EventStream,
    /// One response as JSON.
    Json,
    /// One response as comma-separated values.
    Csv,
}

/// The client accepts none of the media types that the path offers.
#[derive(Debug, thiserror::Error)]
#[error("this path offers {}, but Accept is {accept:?}", list(offered))]
pub struct NotAcceptable {
    accept: String,
    offered: &'static [MediaType],
}

impl MediaType {
    /// Offered for a live window. A stream is the default.
    pub const OF_WINDOW: &[Self] = &[Self::EventStream, Self::Json, Self::Csv];
    /// Offered for history, which cannot be streamed.
    pub const OF_HISTORY: &[Self] = &[Self::Json, Self::Csv];

    /// The offered media type that the client prefers: the one with the highest quality, then the
    /// one that the client names most precisely, then the first one. A client that lists
    /// `application/json` and `*/*` wants JSON, although it takes anything.
    ///
    /// # Errors
    /// The client accepts none of them.
    pub fn negotiate(
        request: &HttpRequest,
        offered: &'static [Self],
    ) -> Result<Self, NotAcceptable> {
        let headers = request.headers().get_all(ACCEPT).map(HeaderValue::as_bytes);
        let accept =
            String::from_utf8_lossy(&headers.collect::<Vec<_>>().join(&b", "[..])).into_owned();
        let mut ranges: Vec<Range> = accept.split(',').filter_map(Range::parse).collect();
        if ranges.is_empty() {
            ranges.push(Range::ANY);
        }
        let preference = |media_type: Self| {
            // The most precise range that matches decides (RFC 9110, section 12.5.1).
            let matching = ranges.iter().filter(|range| range.matches(&media_type.mime()));
            matching.max_by_key(|range| (range.precision(), range.thousandths))
        };
        let mut best: Option<(Self, (u16, Precision))> = None;
        for &media_type in offered {
            let Some(range) = preference(media_type).filter(|range| range.thousandths > 0) else {
                continue;
            };
            let rank = (range.thousandths, range.precision());
            if best.is_none_or(|(_, best)| rank > best) {
                best = Some((media_type, rank));
            }
        }
        best.map(|(media_type, _)| media_type).ok_or(NotAcceptable { accept, offered })
    }

    fn mime(self) -> Mime {
        match self {
            Self::EventStream => mime::TEXT_EVENT_STREAM,
            Self::Json => mime::APPLICATION_JSON,
            Self::Csv => mime::TEXT_CSV,
        }
    }
}

/// How precisely a range names a media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Precision {
    Any,
    Type,
    Subtype,
}

/// One element of `Accept`. Parameters other than the quality are ignored, because no media type is
/// offered in several variants.
#[derive(Debug)]
struct Range {
    /// The type and the subtype; `None` for `*`.
    names: (Option<String>, Option<String>),
    /// The quality, from 0 to 1,000.
    thousandths: u16,
}

impl Range {
    const ANY: Self = Self { names: (None, None), thousandths: 1_000 };

    /// `None` for an element that cannot be read: it must not spoil the others. Accepts what
    /// clients send although no standard allows it, such as the `*; q=.2` of Java.
    fn parse(element: &str) -> Option<Self> {
        let mut parts = element.split(';').map(str::trim);
        let (kind, subtype) = match parts.next()? {
            "*" => ("*", "*"),
            range => range.split_once('/')?,
        };
        let name = |name: &str| (name != "*").then(|| name.to_ascii_lowercase());
        let quality = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            let quality =
                value.trim().parse::<f64>().ok().filter(|quality| (0.0..=1.0).contains(quality));
            name.trim().eq_ignore_ascii_case("q").then_some(quality)?
        });
        let quality = quality.unwrap_or(1.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1,000")]
        let thousandths = (quality * 1_000.0).round() as u16;
        // Only 0 means that a form is not acceptable.
        let thousandths = thousandths.max(u16::from(quality > 0.0));
        Some(Self { names: (name(kind), name(subtype)), thousandths })
    }

    fn matches(&self, mime: &Mime) -> bool {
        let matches = |name: &Option<String>, offered: mime::Name<'_>| {
            name.as_ref().is_none_or(|name| offered == name.as_str())
        };
        matches(&self.names.0, mime.type_()) && matches(&self.names.1, mime.subtype())
    }

    const fn precision(&self) -> Precision {
        match self.names {
            (None, _) => Precision::Any,
            (Some(_), None) => Precision::Type,
            (Some(_), Some(_)) => Precision::Subtype,
        }
    }
}

fn list(offered: &[MediaType]) -> String {
    offered.iter().map(|media_type| media_type.mime().to_string()).collect::<Vec<_>>().join(", ")
}
