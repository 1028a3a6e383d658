//! Receives events over REST and commits them to Postgres.
//!
//! The files in the order in which a request passes through them:
//!
//! 1. `routes` has the path and its handler; `request` reads the path and the headers.
//! 2. `body` reads the body, within its bounds, and decompresses it with `encoding`, within the
//!    bounds of `growth`. A body of many rows goes through `bulk`, which splits it into `lines` or
//!    the elements of an `array`, within the bounds of all `uploads`.
//! 3. `input` parses a row into the types of `model`, or says by a `rejection` why it cannot be
//!    stored.
//! 4. `service` hands the row to its queue in `groups`, whose writers hand what waits to the
//!    `store`, which has all SQL; `metrics` records it.
//! 5. The handler answers with the row, a `page` of rows, the `report` of an upload, or a
//!    problem: `error` has the status of every failure.
//!
//! `openapi` describes the paths, with the help of `operation`. `startup` builds the service from
//! the `settings`.
//!
//! Invariants: an answer of 2xx is sent after the commit, and every request can be repeated without
//! harm.

pub mod array;
mod body;
mod bulk;
mod encoding;
pub mod error;
pub mod groups;
mod growth;
pub mod input;
pub mod lines;
mod metrics;
pub mod model;
pub mod openapi;
mod operation;
pub mod page;
pub mod rejection;
pub mod report;
mod request;
mod routes;
mod service;
pub mod settings;
pub mod startup;
mod store;
mod uploads;
