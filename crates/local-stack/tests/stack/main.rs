//! The services together, against a real Postgres.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod checker;
mod exactness;
mod flights;
mod outage;
mod schema;
mod subscriber;
mod support;
mod writers;
