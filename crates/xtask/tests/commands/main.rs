//! The project's commands, as people use them.

mod stacks;
mod support;
mod tour;
