//! stats-notifier against a real Postgres.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod calendar;
mod gate;
mod history;
mod long_transactions;
mod plans;
mod rebuild_and_verify;
mod retention;
mod routes;
mod support;
mod terms;
mod triggers;
