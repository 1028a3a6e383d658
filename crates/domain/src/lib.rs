//! The words of Newcycle and the one state machine that every hop of the live path holds.
//!
//! Invariant: this crate is pure. It has no runtime, web framework, SQL, clock or randomness; what it
//! computes depends on its arguments alone, so that publisher, gateway and test cannot disagree.
//!
//! Reading order: [`Metric`] and [`TimeUnit`] name a [`Topic`]; [`BucketTime`] is the start of one of its
//! buckets; a [`Version`] names one state of all topics; [`Statistics`] holds that state, to which [`Changes`] are added; a [`Frame`]
//! carries it to the next hop.

mod bucket_time;
mod changes;
mod frame;
mod metric;
mod retention;
mod statistics;
mod time_unit;
mod topic;
mod version;
#[cfg(test)]
mod wire;

pub use bucket_time::{BucketTime, OutOfRange};
pub use changes::Changes;
pub use frame::{Bucket, Frame, FrameKind, TopicFrame};
pub use metric::{Metric, UnknownMetric};
pub use retention::Retention;
pub use statistics::{ApplyError, Resume, Statistics};
pub use time_unit::{TimeUnit, UnknownTimeUnit};
pub use topic::{Topic, UnknownTopic};
pub use version::{InvalidVersion, Nonce, Version};
