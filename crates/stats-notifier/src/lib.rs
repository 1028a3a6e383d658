//! Turns the change log into exact counts, and publishes each version of them.
//!
//! How a change travels:
//!
//! 1. A trigger (`migrations/V2__counts.sql`) logs the change. The `IF` at its end decides whether
//!    the transaction notifies: only while the [`gate`] is open. [`gate`] decides when it is.
//! 2. [`listener`] wakes the [`leader`].
//! 3. A tick of the [`term`] reads the log past the [`snapshot`] that memory has counted, and
//!    publishes the next version on the stream that [`routes`] serves.
//! 4. About once a second, [`upkeep`] folds the same log into the rollups, with which the next term
//!    begins, and purges log rows that memory and rollups have counted.
//!
//! All SQL is in [`store`]. [`history`] answers queries for a period, on every replica. [`rebuild`]
//! counts all events again; [`verify`] compares them with the counts, on request ([`commands`]) and
//! daily ([`daily_verify`]). [`failover`] ends a session whose server was replaced. [`lead_watch`]
//! says why a standby cannot lead although nobody counts. [`startup`] puts the service together
//! from [`settings`].
//!
//! Invariant: one version is one snapshot of the database. Only snapshots determine what was
//! counted: no clock, no commit order and no notification does. `tests/notifier/terms.rs` compares
//! versions with the events after each kind of statement; `testing/chaos/src/checker.rs` recomputes
//! every version from an audit, under faults.

pub mod commands;
mod daily_verify;
mod failover;
mod gate;
pub mod history;
pub mod lead_watch;
pub mod leader;
mod listener;
pub mod metrics;
pub mod rebuild;
pub mod routes;
pub mod settings;
pub mod snapshot;
pub mod startup;
pub mod store;
pub mod term;
pub mod upkeep;
pub mod verify;
