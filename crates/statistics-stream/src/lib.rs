//! Both ends of the statistics stream.
//!
//! stats-notifier publishes on a [`Hub`]. Every sse-gateway [follows](upstream::follow) the stream
//! of the notifier, or of another gateway, into a hub of its own, and serves it from there. The
//! services share this one implementation of the protocol, instead of each having one half.
//!
//! Reading order: a [`Selection`] is what one subscriber asks for. The [`Hub`] holds the state and
//! announces its changes; `heartbeat` repeats its status. `encoder` turns a version into the bytes
//! of a server-sent event, once for all subscribers in step. [`stream_response`] is the life of one
//! subscriber. [`upstream`] is the other end, with [`decoder`] as the counterpart of `encoder`.
//!
//! Invariant: a subscriber is a version and nothing else. No event is ever queued for a subscriber.
//! A subscriber that is ready for more gets one frame, from its own version to the published one,
//! so a slow client costs no more than a fast one.

pub mod decoder;
mod deliveries;
mod encoder;
mod event_id;
mod heartbeat;
pub mod history;
mod hub;
mod lease;
mod liveness;
mod selection;
mod settings;
mod status;
mod subscriber;
pub mod upstream;

pub use deliveries::Deliveries;
pub use event_id::{EventId, is_last_event_id, last_event_id};
pub use hub::Hub;
pub use lease::{Endless, Lease};
pub use selection::{InvalidSelection, Payload, Selection};
pub use settings::{HubSettings, STREAM, UPSTREAM, UpstreamSettings};
pub use status::{AccessEnd, Status, StreamAccess, UpstreamStatus};
pub use subscriber::{StreamError, internal_stream_response, stream_response};
