//! The services together, against a real Postgres.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod checker;
mod exactness;
mod flights;
mod frozen;
mod gateways;
mod outage;
mod replicas;
mod schema;
mod standby;
mod subscriber;
mod support;
mod writers;
