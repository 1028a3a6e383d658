//! Takes events over REST and commits them to Postgres.
//!
//! The data's way: a path of [`routes`] parses a body by [`input`] into the types of [`model`], or [`bulk`] does
//! so for each of the [`lines`]; the [`store`] inserts the rows and says what became of each; [`error`] tells the caller;
//! a [`page`] has some rows of a list. What the paths do is described by [`openapi`].
//! [`startup`] puts it together from [`settings`], with a [`clock`].
//!
//! Invariant: acknowledged means committed, and every request may be repeated.

pub mod bulk;
pub mod clock;
pub mod error;
pub mod input;
pub mod lines;
pub mod metrics;
pub mod model;
pub mod openapi;
pub mod page;
pub mod routes;
pub mod settings;
pub mod startup;
pub mod store;
#[cfg(test)]
mod wire;
