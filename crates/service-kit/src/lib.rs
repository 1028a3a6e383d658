//! What every service needs and no service is about.
//!
//! - [`settings`][]: embedded defaults, a file, the environment;
//! - [`command`][]: what every service's program can be asked to do;
//! - [`telemetry`][]: logs;
//! - [`metrics`] and [`observe`]: numbers, and what is recorded of every request;
//! - [`health`][]: liveness and readiness;
//! - [`internal`][]: the port that these are served on;
//! - [`server`][]: the HTTP server of that port and of the public one, and what bounds its connections;
//! - [`limits`][]: what the operating system allows;
//! - [`problem`][]: errors as RFC 9457 problem details;
//! - [`shutdown`] and [`supervisor`]: how a process ends, by a signal or because a part of it died.
//!
//! Invariant: nothing in here knows an event, a count or a frame.

pub mod command;
mod connection;
pub mod health;
pub mod internal;
pub mod limits;
pub mod metrics;
pub mod observe;
pub mod problem;
pub mod server;
pub mod settings;
pub mod shutdown;
pub mod supervisor;
pub mod telemetry;
