//! Tests of all services together, as processes, on a real Postgres.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod abuse;
mod access;
mod commands;
mod ended_keys;
mod failover;
mod flights;
mod frozen;
mod gateways;
mod head;
mod hosts;
mod install;
mod internal_ports;
mod keys;
mod limits;
mod long_backfill;
mod long_upload;
mod monitoring;
mod operations;
mod outage;
mod own_postgres;
mod pooler;
mod reference;
mod replicas;
mod restore;
mod schema;
mod secrets;
mod standby;
mod subscriber;
mod support;
mod tls;
mod uploads;
mod wire;
