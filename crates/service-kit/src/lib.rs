//! What every service needs and no service is about.
//!
//! - [`settings`][]: embedded defaults, a file, the environment;
//! - [`telemetry`][]: logs;
//! - [`health`][]: liveness and readiness;
//! - [`problem`][]: errors as RFC 9457 problem details;
//! - [`shutdown`] and [`supervisor`]: how a process ends, by a signal or because a part of it died;
//! - [`database`][]: connections, and the pool of them;
//! - [`schema`][]: which schema this release works on.
//!
//! Invariant: nothing in here knows an event, a count or a frame.

pub mod database;
pub mod health;
pub mod problem;
pub mod schema;
pub mod settings;
pub mod shutdown;
pub mod supervisor;
pub mod telemetry;
