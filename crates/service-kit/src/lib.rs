//! What every service needs, independent of what it serves.
//!
//! A program starts with [`command`], which reads the [`settings`] and starts the logs
//! ([`telemetry`]). Its `startup.rs` puts the service together with [`service`]: a public and an
//! internal port ([`server`]), [`health`], [`metrics`] and tasks under one [`supervisor`].
//! [`shutdown`] and [`limits`] are about the process, [`observe`] about each request, [`problem`]
//! about answers that report errors, and [`failure`] about a program that fails. A public port also
//! has [`host`], which knows its names, a [`guard`], which decides who gets in, and [`unsent`],
//! which bounds the memory of answers, and [`visitors`], which bounds the
//! connections of an address. [`client`] is for requests between our own services, at an
//! [`address`], which ask each other for a secret ([`internal`]).
//!
//! Invariant: this crate has no types of events, counts or frames, and it links no Postgres client.

pub mod address;
pub mod client;
pub mod command;
mod connection;
pub mod encoding;
pub mod failure;
pub mod guard;
pub mod health;
pub mod host;
pub mod internal;
pub mod limits;
pub mod metrics;
pub mod observe;
pub mod problem;
mod security_headers;
pub mod server;
pub mod service;
pub mod settings;
pub mod shutdown;
pub mod supervisor;
pub mod tally;
pub mod telemetry;
pub mod unsent;
pub mod visitors;
