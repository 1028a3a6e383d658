//! Everything that was measured, as JSON and for people.

use std::fmt::Write as _;

use serde::Serialize;

use super::MANY;
use crate::bench::backfill::{self, Backfill, Statement};
use crate::bench::figures::{self, Figure};
use crate::bench::fsync::FsyncMethod;
use crate::bench::load;
use crate::bench::usage::CpuShares;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(in crate::bench) struct IngestReport {
    pub(super) postgres: String,
    pub(super) cores: usize,
    pub(super) rounds: u32,
    pub(super) seconds: u32,
    /// What `pg_test_fsync` says of the disk; empty in the short form.
    pub(super) fsync: Vec<FsyncMethod>,
    pub(super) figures: Vec<Figure>,
    pub(super) ratios: Vec<Figure>,
    /// Mean parts of a core, in percent.
    pub(super) cpu: Vec<PhaseCpu>,
    /// What one event costs the database. The backfill is measured once.
    pub(super) event_cost: Vec<Figure>,
    pub(super) backfill: Backfill,
}

#[derive(Debug, Serialize)]
pub(super) struct PhaseCpu {
    pub(super) phase: String,
    pub(super) percent: CpuShares,
}

impl IngestReport {
    pub(super) fn print(&self) {
        println!("== Postgres {}, {} cores", self.postgres, self.cores);
        for FsyncMethod { method, operations_per_second } in &self.fsync {
            println!("pg_test_fsync, one block: {method:<20} {operations_per_second:>10.0}/s");
        }
        let title = format!(
            "rounds: {}, {} s for each phase, {} s more for the logins of {MANY} SQL clients",
            self.rounds,
            self.seconds,
            load::login_seconds(MANY)
        );
        figures::print(&title, &self.figures);
        figures::print("ratios of the same round", &self.ratios);
        println!("== CPU, percent of one core");
        for PhaseCpu { phase, percent } in &self.cpu {
            let mut line = String::new();
            for (name, share) in percent.parts() {
                // Writing to a string cannot fail.
                let _ = write!(line, "  {name} {share:.0}");
            }
            println!("{phase:<40}{line}");
        }
        figures::print("what an event costs the database", &self.event_cost);
        backfill::print_header();
        self.backfill.print(Statement::Insert);
    }
}
