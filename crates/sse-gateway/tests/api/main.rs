//! sse-gateway over HTTP, following a publisher of this process.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod answers;
mod history;
mod openapi;
mod resume;
mod stalled;
mod status;
mod support;
