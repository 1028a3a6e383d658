//! Makes, lists, replaces and revokes the keys that clients present.
//!
//! [`arguments`] is the command line, [`store`] the SQL, and [`commands`] does one with the other.
//!
//! Invariants:
//! - Only this program makes keys, and its role can do nothing else.
//! - A key is shown once, on standard output, and nowhere else. The database has its hash.

pub mod arguments;
pub mod commands;
pub mod settings;
pub mod store;
