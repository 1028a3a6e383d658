//! The project's commands, as people use them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod alerts;
mod containers;
mod db;
mod demo;
mod dependencies;
mod deploy;
mod doctor;
mod documents;
mod examples;
mod keys;
mod proxy;
mod stacks;
mod support;
mod tour;
