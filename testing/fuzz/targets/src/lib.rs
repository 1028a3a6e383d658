//! Limits the memory of every target: an input that needs more breaks the target.

use std::alloc::System;

use cap::Cap;

/// The most bytes of heap that a target may use. The fuzzer's own memory does not count.
const HEAP_BYTES: usize = 64 << 20;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, HEAP_BYTES);
