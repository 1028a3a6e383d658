//! Faults of every kind against the whole stack, and a proof that no event is lost or counted
//! twice.
//!
//! Producers write and subscribers follow while a schedule, drawn from a seed, kills processes,
//! freezes them, cuts connections and fills disks. After every few faults the producers pause, and
//! everything that was requested, stored and shown since the last pause is checked. The checks use
//! no code of the services that could share an error with them.

mod checker;
mod clock;
mod database;
mod disk;
mod fault;
pub mod fault_kind;
pub mod ha;
mod history;
mod observed;
pub mod planted;
mod report;
pub mod run;
mod service_log;
pub mod soak;
mod subscriber;
mod system;
pub mod upgrade;
mod verification;
mod wait;
mod wiring;
mod world;
mod writers;
