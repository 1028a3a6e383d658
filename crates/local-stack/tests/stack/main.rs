//! The services together, against a real Postgres.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod checker;
mod exactness;
mod flights;
mod subscriber;
mod writers;
