//! A real Postgres and the services, started on this machine: for `up`, tests and benches.

mod installation;
mod parts;
pub mod postgres;
pub mod services;
pub mod stack;
pub mod test_database;
pub mod test_server;
