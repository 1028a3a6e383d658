//! Folds the change log into exact aggregates and publishes each version of them.
//!
//! The data's way: a producer's trigger logs a change and notifies; [`listener`] wakes the [`leader`], which
//! reads the log past its [`snapshot`] by the SQL in [`store`] and publishes the next version on the stream that
//! [`routes`] serve. About once a second the same log is folded into the [`rollups`], from which the next leader
//! begins. [`gate`] decides when producers need not notify. [`startup`] puts it together from [`settings`].
//!
//! Invariant: one version is one snapshot of the database, and nothing but a snapshot says what was counted: no
//! clock, no order of commits, no notification.

mod address;
pub mod commands;
pub mod days;
pub mod gate;
pub mod history;
pub mod leader;
pub mod listener;
pub mod metrics;
pub mod rebuild;
pub mod rollups;
pub mod routes;
pub mod schedule;
pub mod settings;
pub mod snapshot;
pub mod startup;
pub mod store;
pub mod verify;
