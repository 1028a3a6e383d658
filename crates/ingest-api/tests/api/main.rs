//! ingest-api over HTTP, against a real Postgres.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod bulk;
mod openapi;
mod owned_items;
mod refusals;
mod rows;
mod support;
