//! The project's commands, as people use them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod containers;
mod deploy;
mod stacks;
mod support;
mod tour;
