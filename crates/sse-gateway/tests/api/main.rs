//! sse-gateway over HTTP. It follows a publisher that runs in the test process.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod answers;
mod history;
mod openapi;
mod process;
mod resume;
mod stalled;
mod status;
mod support;
mod unread;
mod upstreams;
