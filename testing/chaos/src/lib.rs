//! Faults of every kind against the whole stack, and a proof that nothing is lost and nothing counts twice.
//!
//! Producers write and subscribers follow while a schedule, drawn from a seed, kills, freezes, cuts and fills. Every few
//! faults the producers pause; then everything that was asked for, written and shown in between is checked.

pub mod checker;
pub mod clock;
pub mod database;
pub mod disk;
pub mod fault;
pub mod history;
pub mod link;
pub mod planted;
pub mod report;
pub mod run;
pub mod soak;
pub mod subscriber;
pub mod system;
pub mod wait;
pub mod writers;
