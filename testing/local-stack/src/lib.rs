//! Runs a real Postgres and the services as processes on this machine, for `cargo xtask up`, tests
//! and benchmarks.

pub mod internal;
pub mod link;
pub mod path;
pub mod pooler;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod prometheus;
mod replicas;
pub mod stack;
pub mod test_database;
pub mod test_server;
