//! ingest-api over HTTP, against a real Postgres.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod arrays;
mod bulk;
mod chunks_in_flight;
mod encodings;
mod groups;
mod openapi;
mod owned_items;
mod refusals;
mod rows;
mod slow_uploads;
mod support;
mod unread;
