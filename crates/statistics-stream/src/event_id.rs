//! The `id:` of a frame, which a client sends back to resume.

use std::fmt;
use std::str::FromStr;

use actix_web::{HttpRequest, web};
use domain::{InvalidVersion, Version};

use crate::selection::Selection;

/// The version that a receiver has, and what it has of it.
///
/// Written as `nonce.tick` for gateways, which have all topics, and as `nonce.tick.digest` for
/// clients. A version alone does not say what the client asked for: it could send the id of one
/// selection with the request for another, and would then get only the changes to counts that it
/// does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventId {
    /// The version.
    pub version: Version,
    /// The [digest](Selection::digest) of the selection; `None` for all topics.
    pub(crate) digest: Option<u32>,
}

impl EventId {
    /// The id of a version's frame of these topics.
    pub fn new(version: Version, selection: &Selection) -> Self {
        Self { version, digest: selection.digest() }
    }

    /// The version, if the receiver has what `selection` asks for.
    pub(crate) fn version_of(self, selection: &Selection) -> Option<Version> {
        (self.digest == selection.digest()).then_some(self.version)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.digest {
            None => self.version.fmt(formatter),
            Some(digest) => write!(formatter, "{}.{digest:08x}", self.version),
        }
    }
}

impl FromStr for EventId {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = match text.rsplit_once('.') {
            Some((version, digest)) if version.contains('.') => {
                let digest = u32::from_str_radix(digest, 16).map_err(|_| InvalidVersion)?;
                Self { version: version.parse()?, digest: Some(digest) }
            }
            _ => Self { version: text.parse()?, digest: None },
        };
        // `from_str_radix` accepts more than `Display` writes, such as a sign.
        if id.to_string() == text { Ok(id) } else { Err(InvalidVersion) }
    }
}

/// What the client already has: from its `Last-Event-ID` header, and otherwise from the
/// [query](is_last_event_id). An id that no hub has written is no error: the client gets snapshots.
pub fn last_event_id(request: &HttpRequest) -> Option<EventId> {
    if let Some(header) = request.headers().get("last-event-id") {
        return header.to_str().ok()?.parse().ok();
    }
    let query = web::Query::<Vec<(String, String)>>::from_query(request.query_string()).ok()?;
    let id = query.iter().rfind(|(name, _)| is_last_event_id(name));
    id.and_then(|(_, id)| id.parse().ok())
}

/// Whether a query parameter of this name has the meaning of the header `Last-Event-ID`. Some
/// replacements of `EventSource` cannot send headers, and put the id into the address when they
/// reconnect: as `lastEventId`, `lastEventID` or `Last-Event-ID`.
pub fn is_last_event_id(parameter: &str) -> bool {
    parameter.replace('-', "").eq_ignore_ascii_case("lasteventid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_text_that_display_writes_is_parsed() {
        for text in ["00000000000000ab.7", "00000000000000ab.7.0000beef"] {
            assert_eq!(text.parse::<EventId>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "00000000000000ab",
            "00000000000000ab.7.",
            "00000000000000ab.7.beef",
            "00000000000000ab.7.0000BEEF",
            "00000000000000ab.7.+000beef",
            "00000000000000ab.7.0000beef.0000beef",
        ] {
            assert_eq!(text.parse::<EventId>(), Err(InvalidVersion), "{text:?}");
        }
    }
}
