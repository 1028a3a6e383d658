//! Decodes the bytes of a statistics stream into events: the counterpart of `encoder`.
//!
//! Invariant: the result does not depend on where the bytes were split in transit. The buffer holds
//! at most one event of the maximum size, plus the chunk that arrived last.

use bytes::BytesMut;
use domain::{Frame, FrameKind, InvalidVersion, TopicFrame};
use russe::{Event, Message};
use tokio_util::codec::Decoder;

use crate::status::Status;

/// An event of a statistics stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// A snapshot or a patch.
    Frame(Frame),
    /// Whether the upstream is live.
    Status(Status),
    /// An event of a kind that this release does not know, and ignores.
    Unknown,
}

/// Why bytes are not a statistics stream. Nothing after them can be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The connection failed, or ended within an event.
    #[error("the stream broke: {0}")]
    Broken(#[from] std::io::Error),
    /// The bytes are not server-sent events.
    #[error("the stream does not consist of server-sent events: {0}")]
    Encoding(#[from] russe::Error),
    /// The event exceeds the maximum size, in bytes.
    #[error("an event is larger than {0} bytes")]
    TooLarge(usize),
    /// The data does not match the kind of event.
    #[error("the data of an event is not valid: {0}")]
    Data(#[from] serde_json::Error),
    /// The event has no version, or not a valid one.
    #[error("an event has no version: {0}")]
    NoVersion(#[from] InvalidVersion),
}

/// Decodes events up to a maximum size. Comments and `retry:` fields are ignored.
#[derive(Debug, Clone)]
pub struct EventDecoder {
    events: russe::Decoder,
    max_bytes: usize,
}

impl EventDecoder {
    /// Accepts events of at most `max_bytes`, including the blank line at the end.
    pub fn new(max_bytes: usize) -> Self {
        Self { events: russe::Decoder::default(), max_bytes }
    }

    /// The next event. Only the first `max_bytes` of the buffer are looked at, so an event that is
    /// too large is refused even if all of it arrived at once.
    fn next_event(&mut self, source: &mut BytesMut) -> Result<Option<Event>, DecodeError> {
        loop {
            let rest = source.split_off(source.len().min(self.max_bytes));
            let before = source.len();
            let event = self.events.decode(source)?;
            // russe also consumes bytes that are no event, such as a blank line.
            let consumed = source.len() < before;
            source.unsplit(rest);
            match event {
                None if consumed => {}
                None if before >= self.max_bytes => {
                    return Err(DecodeError::TooLarge(self.max_bytes));
                }
                event => return Ok(event),
            }
        }
    }
}

impl Decoder for EventDecoder {
    type Item = StreamEvent;
    type Error = DecodeError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<StreamEvent>, DecodeError> {
        loop {
            match self.next_event(source)? {
                None => return Ok(None),
                Some(Event::Message(message)) => return parse_event(&message).map(Some),
                Some(_) => {}
            }
        }
    }
}

fn parse_event(message: &Message) -> Result<StreamEvent, DecodeError> {
    let kind = match message.event.as_deref() {
        Some("snapshot") => FrameKind::Snapshot,
        Some("patch") => FrameKind::Patch,
        Some("status") => return Ok(StreamEvent::Status(serde_json::from_str(&message.data)?)),
        _ => return Ok(StreamEvent::Unknown),
    };
    let topics: Vec<TopicFrame> = serde_json::from_str(&message.data)?;
    let version = message.id.as_deref().unwrap_or_default().parse()?;
    Ok(StreamEvent::Frame(Frame { kind, version, topics }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_is_too_large_is_refused_even_in_one_piece() {
        let text = "event: later\ndata: 123\n\n";
        let decode =
            |max_bytes, text: &str| EventDecoder::new(max_bytes).decode(&mut BytesMut::from(text));
        assert_eq!(decode(text.len(), text).unwrap(), Some(StreamEvent::Unknown));
        // Blank lines, comments and later events do not count.
        let more = format!("\n\n\n\n: {text}{text}");
        assert_eq!(decode(text.len() + 4, &more).unwrap(), Some(StreamEvent::Unknown));
        let error = decode(text.len() - 1, text).unwrap_err();
        assert_eq!(error.to_string(), format!("an event is larger than {} bytes", text.len() - 1));
    }
}
