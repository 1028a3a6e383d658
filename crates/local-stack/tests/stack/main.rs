//! The services together, against a real Postgres.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod abuse;
mod checker;
mod exactness;
mod flights;
mod frozen;
mod gateways;
mod head;
mod operations;
mod outage;
mod reference;
mod replicas;
mod schema;
mod standby;
mod subscriber;
mod support;
mod wire;
mod writers;
