//! Content negotiation: which media type a client gets.

use actix_web::HttpRequest;
use actix_web::http::header::{Accept, Header, HeaderValue, Quality, QualityItem};

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

    /// The offered media type that the client prefers. Without a preference, the first one.
    pub fn negotiate(
        request: &HttpRequest,
        offered: &'static [Self],
    ) -> Result<Self, NotAcceptable> {
        let not_acceptable = || {
            let header = request.headers().get("accept").map(HeaderValue::as_bytes);
            let accept = String::from_utf8_lossy(header.unwrap_or_default()).into_owned();
            NotAcceptable { accept, offered }
        };
        if let (false, Some(first)) = (request.headers().contains_key("accept"), offered.first()) {
            return Ok(*first);
        }
        let accept = Accept::parse(request).map_err(|_| not_acceptable())?;
        // An exact type takes precedence over a range, in any order (RFC 9110, section 12.5.1).
        let quality = |media_type: Self| {
            let (kind, subtype) = media_type.parts();
            let matches = |item: &QualityItem<mime::Mime>| {
                let exact = item.item.type_() == kind && item.item.subtype() == subtype;
                let kind_range = item.item.type_() == kind && item.item.subtype() == mime::STAR;
                let any = item.item.type_() == mime::STAR;
                [exact, kind_range, any]
                    .iter()
                    .position(|matched| *matched)
                    .map(|rank| (rank, item.quality))
            };
            accept
                .iter()
                .filter_map(matches)
                .min_by_key(|(rank, _)| *rank)
                .map(|(_, quality)| quality)
        };
        let acceptable =
            offered.iter().filter_map(|media_type| Some((*media_type, quality(*media_type)?)));
        let acceptable = acceptable.filter(|(_, quality)| *quality > Quality::ZERO);
        let best = acceptable.reduce(|best, next| if next.1 > best.1 { next } else { best });
        best.map(|(media_type, _)| media_type).ok_or_else(not_acceptable)
    }

    const fn parts(self) -> (&'static str, &'static str) {
        match self {
            Self::EventStream => ("text", "event-stream"),
            Self::Json => ("application", "json"),
            Self::Csv => ("text", "csv"),
        }
    }
}

fn list(offered: &[MediaType]) -> String {
    let names = offered.iter().map(|media_type| media_type.parts());
    names.map(|(kind, subtype)| format!("{kind}/{subtype}")).collect::<Vec<_>>().join(", ")
}
