//! The types that all of Newcycle shares, and the one state machine that every hop of the live path
//! runs.
//!
//! Invariant: this crate is pure. It has no runtime, web framework, SQL, clock or randomness. Its
//! results depend on its arguments alone, so the publisher, the gateways and the tests cannot
//! disagree.
//!
//! Reading order: a [`Metric`] and a [`TimeUnit`] make a [`Topic`]. [`BucketTime`] is the start of
//! one of its buckets. A [`Version`] names one state of all topics. [`Statistics`] holds that
//! state: [`Changes`] advance it, and a [`Frame`] carries it to the next hop.

mod bucket_time;
mod changes;
mod frame;
mod metric;
mod retention;
mod statistics;
mod time_unit;
mod topic;
mod version;
mod window;

pub use bucket_time::{BucketTime, InvalidTime};
pub use changes::Changes;
pub use frame::{Bucket, Frame, FrameKind, TopicFrame};
pub use metric::{Metric, UnknownMetric};
pub use retention::Retention;
pub use statistics::{ApplyError, FrameBase, Resume, Statistics};
pub use time_unit::{TimeUnit, UnknownTimeUnit};
pub use topic::{Topic, UnknownTopic};
pub use version::{InvalidVersion, Nonce, Version};
