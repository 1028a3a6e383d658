//! What all targets have: a bound on their memory, beyond which an input counts as one that breaks the target.

use std::alloc::System;

use cap::Cap;

/// How much of the heap a target may have at a time, in bytes. What the fuzzer itself keeps is not a part of that.
const HEAP_BYTES: usize = 64 << 20;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, HEAP_BYTES);
