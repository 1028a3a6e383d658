//! Content negotiation: which media type a client gets.

use actix_web::HttpRequest;
use actix_web::http::header::{Accept, Header, HeaderValue, Quality};
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
        let quality = |media_type: Self| {
            let mime = media_type.mime();
            let kind = format!("{}/*", mime.type_());
            // An exact type takes precedence over a range, in any order (RFC 9110, section 12.5.1).
            [mime.essence_str(), &kind, "*/*"].iter().find_map(|range| {
                let item = accept.iter().find(|item| item.item.essence_str() == *range)?;
                Some(item.quality)
            })
        };
        let acceptable =
            offered.iter().filter_map(|media_type| Some((*media_type, quality(*media_type)?)));
        let acceptable = acceptable.filter(|(_, quality)| *quality > Quality::ZERO);
        let best = acceptable.reduce(|best, next| if next.1 > best.1 { next } else { best });
        best.map(|(media_type, _)| media_type).ok_or_else(not_acceptable)
    }

    fn mime(self) -> Mime {
        match self {
            Self::EventStream => mime::TEXT_EVENT_STREAM,
            Self::Json => mime::APPLICATION_JSON,
            Self::Csv => mime::TEXT_CSV,
        }
    }
}

fn list(offered: &[MediaType]) -> String {
    offered.iter().map(|media_type| media_type.mime().to_string()).collect::<Vec<_>>().join(", ")
}
