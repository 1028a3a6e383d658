//! The bytes of a stream of statistics, decoded into what they tell.
//!
//! Invariant: what they tell does not depend on where they were cut on their way, and no more of them waits than one
//! event may have, beside the part that came last.

use bytes::BytesMut;
use domain::{Frame, FrameKind, InvalidVersion, TopicFrame};
use russe::{Event, Message};
use tokio_util::codec::Decoder;

use crate::status::{Status, Upstream};

/// What an event tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A state, or a change of it.
    Frame(Frame),
    /// Whether the upstream is live.
    Status(Upstream),
    /// Something that a later release sends.
    Unknown,
}

/// Why bytes are no stream of statistics. What follows them cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The stream broke, or ended within an event.
    #[error("the stream broke: {0}")]
    Broken(#[from] std::io::Error),
    /// They are no server-sent events.
    #[error("the stream is not one of server-sent events: {0}")]
    Encoding(#[from] russe::Error),
    /// An event is too large.
    #[error("an event is larger than {0} bytes")]
    TooLarge(usize),
    /// An event has data that are not of its kind.
    #[error("an event cannot be understood: {0}")]
    Data(#[from] serde_json::Error),
    /// An event has no version.
    #[error("an event has no version: {0}")]
    NoVersion(#[from] InvalidVersion),
}

/// Decodes events no larger than a bound. Comments, and how long to wait before reconnecting, tell nothing.
#[derive(Debug, Clone)]
pub struct EventDecoder {
    events: russe::Decoder,
    bytes: usize,
}

impl EventDecoder {
    /// For events of at most so many bytes, the blank line that ends them included.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self { events: russe::Decoder::default(), bytes }
    }

    /// The next event. No more is looked at than one may have, so that one which is too large is refused also where all
    /// of it came at once.
    fn event(&mut self, source: &mut BytesMut) -> Result<Option<Event>, DecodeError> {
        loop {
            let rest = source.split_off(source.len().min(self.bytes));
            let before = source.len();
            let event = self.events.decode(source)?;
            // What says nothing, such as a lone blank line, is taken out without being an event.
            let shortened = source.len() < before;
            source.unsplit(rest);
            match event {
                None if shortened => {}
                None if before >= self.bytes => return Err(DecodeError::TooLarge(self.bytes)),
                event => return Ok(event),
            }
        }
    }
}

impl Decoder for EventDecoder {
    type Item = Told;
    type Error = DecodeError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Told>, DecodeError> {
        loop {
            match self.event(source)? {
                None => return Ok(None),
                Some(Event::Message(message)) => return told(&message).map(Some),
                Some(_) => {}
            }
        }
    }
}

fn told(message: &Message) -> Result<Told, DecodeError> {
    let kind = match message.event.as_deref() {
        Some("snapshot") => FrameKind::Snapshot,
        Some("patch") => FrameKind::Patch,
        Some("status") => return Ok(Told::Status(serde_json::from_str::<Status>(&message.data)?.upstream)),
        _ => return Ok(Told::Unknown),
    };
    let topics: Vec<TopicFrame> = serde_json::from_str(&message.data)?;
    let version = message.id.as_deref().unwrap_or_default().parse()?;
    Ok(Told::Frame(Frame { kind, version, topics }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_is_too_large_is_refused_in_one_piece_too() {
        let text = "event: later\ndata: 123\n\n";
        let decode = |bytes, text: &str| EventDecoder::new(bytes).decode(&mut BytesMut::from(text));
        assert_eq!(decode(text.len(), text).unwrap(), Some(Told::Unknown));
        // However much follows or says nothing, only the event counts.
        let more = format!("\n\n\n\n: {text}{text}");
        assert_eq!(decode(text.len() + 4, &more).unwrap(), Some(Told::Unknown));
        let error = decode(text.len() - 1, text).unwrap_err();
        assert_eq!(error.to_string(), format!("an event is larger than {} bytes", text.len() - 1));
    }
}
