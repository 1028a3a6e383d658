//! All SQL of this service, one module for each purpose:
//!
//! - [`statements`]: the three statements on which exactness rests;
//! - [`session`]: the leader's session, its timeouts, and transactions;
//! - [`locks`]: the advisory locks for the lead and the gate;
//! - [`cursor`]: terms, and the stored cursor;
//! - [`log`]: ticks, purges, and the size of the change log;
//! - [`rollups`]: flushes and retention;
//! - [`load`]: the state with which a term begins;
//! - [`rebuild`] and [`verify`], which visit [`event_days`]: counting and comparing all events;
//! - [`history`]: one page of a period;
//! - [`channels`]: LISTEN and NOTIFY.
//!
//! Each statement is one constant that can be pasted into psql, once its parameters are replaced.
//!
//! Anyone may change the columns of a table while the services run, and Postgres then refuses
//! statements that were prepared before. So a session of this service prepares statements only in
//! the transaction that runs them, which holds the table's lock from then on. Outside of
//! transactions, statements are sent unnamed (`query_typed`): Postgres reads and runs them under
//! one lock. The pool for history prepares a statement again if that happens
//! ([`postgres_kit::session`]). Only the tick is prepared for a whole term, because planning it
//! takes longer than running it. It reads `count_log` alone, whose columns only a migration should
//! change; after such a change, the next term prepares it again.
//!
//! Transaction ids and snapshots travel as text, because tokio-postgres knows neither type.

pub(crate) mod channels;
pub(crate) mod connection;
pub(crate) mod cursor;
mod error;
pub(crate) mod event_days;
pub(crate) mod history;
pub(crate) mod load;
pub(crate) mod locks;
pub(crate) mod log;
pub(crate) mod rebuild;
pub(crate) mod rollups;
mod row;
pub(crate) mod session;
pub(crate) mod statements;
pub(crate) mod verify;

pub use error::StoreError;
use event_days::{LAST_EVENT, NEXT_EVENT, NEXT_EVENT_OR_ROLLUP};
pub use event_days::{OnProgress, Progress};
pub use load::LoadedState;
pub use log::TickResult;
pub use rebuild::RebuildReport;
pub use session::{PLANNING, Store};
pub use statements::Statements;
pub use verify::{Mismatch, VerifyReport};

/// The statements that read the events of the metric `$1`, for a test of their plans. Each has
/// examples of its other parameters.
pub const EVENT_STATEMENTS: [(&str, &str); 7] = [
    (load::NEWEST_MILLISECONDS, ", 1000"),
    (history::READ_MILLISECONDS, ", '2024-01-01Z', NULL, 1000"),
    (NEXT_EVENT, ", '2024-01-01Z'"),
    (NEXT_EVENT_OR_ROLLUP, ", '2024-01-01Z'"),
    (LAST_EVENT, ""),
    (rebuild::COUNT_DAY, ", '2024-02-29Z'"),
    (verify::COMPARE_DAY, ", '2024-02-29Z', 100"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The condition stands in the view `unfolded_count_log` and in two statements; they must
    /// agree.
    #[test]
    fn each_reader_of_the_log_uses_the_same_condition() {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let view = words(include_str!("../../../migrations/V2__counts.sql"));
        let started_since = "(xact_id >= pg_snapshot_xmax(SNAPSHOT) \
                             AND xact_id < pg_snapshot_xmax(pg_current_snapshot()))";
        let in_progress_then = "xact_id = ANY (ARRAY( \
                                SELECT ended FROM pg_snapshot_xip(SNAPSHOT) AS ended \
                                WHERE pg_visible_in_snapshot(ended, pg_current_snapshot())))";
        let Statements { tick, fold, .. } = Statements::default();
        for (text, snapshot) in [
            (view, "(SELECT snapshot FROM public.rollup_cursor)"),
            (words(&tick), "$1::text::pg_snapshot"),
            (words(&fold), "$1::text::pg_snapshot"),
        ] {
            for condition in [started_since, in_progress_then] {
                assert!(text.contains(&condition.replace("SNAPSHOT", snapshot)), "{text}");
            }
        }
    }
}
