//! Who may do what.
//!
//! Clients present a [`key`]. The [`keyring`] of a service says which [`principal`] has it, and its
//! [`scope`]s say what that may do. The [`guard`] stands in front of every route: it reads the
//! [`credential`] of a request, asks [`control`], and answers a [`refusal`] or lets the request in
//! with its [`Principal`](principal::Principal), which is all that a service sees. The keyring
//! comes from Postgres, or from another service ([`distribution`]). What one key may hold of
//! what all clients share is bounded by [`shares`].
//!
//! Invariants:
//! - No HTTP request creates or widens a right. Keys are made by the program `access`, with a
//!   database role that no service has.
//! - A credential that is not valid is never taken for none.
//! - A header that is not signed is never an identity.

pub mod control;
pub mod credential;
pub mod distribution;
mod document;
mod flood;
pub mod guard;
pub mod key;
pub mod keyring;
pub mod principal;
pub mod refusal;
pub mod scope;
pub mod settings;
pub mod shares;
