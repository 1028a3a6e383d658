//! The services together, against a real Postgres.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod checker;
mod exactness;
mod flights;
mod operations;
mod outage;
mod reference;
mod schema;
mod subscriber;
mod support;
mod writers;
