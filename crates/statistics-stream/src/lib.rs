//! Both ends of the stream of statistics.
//!
//! stats-notifier publishes on a [`Hub`]; every sse-gateway [follows](upstream::follow) such a stream, of the
//! notifier or of another gateway, into a hub of its own, and serves it on. So the two services share this one
//! implementation of the protocol instead of each having half of it.
//!
//! Reading order: [`Selection`] is what one subscriber asked for; [`Hub`] holds the state and announces its
//! changes; `frames` encodes an event once for all that are in step; [`stream_response`] is the life of one
//! subscriber; [`upstream`] is the other end, and [`decoder`] what it understands.
//!
//! Invariant: a subscriber is a version and nothing else. No event is ever queued for anybody: whoever is ready
//! for more gets one frame from its own version to the published one, so a slow client costs what a quick one does.

pub mod decoder;
mod frames;
pub mod history;
mod hub;
mod selection;
mod settings;
mod status;
mod subscriber;
pub mod upstream;
#[cfg(test)]
mod wire;

pub use hub::Hub;
pub use selection::{InvalidSelection, Payload, Selection};
pub use settings::{Deliveries, HubSettings};
pub use status::{Status, Upstream};
pub use subscriber::{StreamError, internal_stream_response, stream_response};
