//! The kinds of fault.

macro_rules! kinds {
    ($($kind:ident: $name:literal,)*) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
        #[expect(clippy::doc_markdown, reason = "the names are printed, without markup")]
        pub enum FaultKind {
            $(#[doc = $name] $kind,)*
        }

        impl FaultKind {
            /// Every kind, in the order of the report.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The name in the output and in the report.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    KillIngest: "kill -9 of an ingest-api",
    // The leader or the standby.
    KillNotifier: "kill -9 of a stats-notifier",
    KillGateway: "kill -9 of an sse-gateway",
    TermIngest: "SIGTERM to an ingest-api",
    // The leader or the standby.
    TermNotifier: "SIGTERM to a stats-notifier",
    TermGateway: "SIGTERM to an sse-gateway",
    FreezeIngest: "freeze of an ingest-api",
    // Until another one leads.
    FreezeNotifier: "freeze of the leader",
    // Between the last write of a flush and its commit, until another one leads.
    FreezeInFlush: "freeze of the leader inside a flush",
    FreezeGateway: "freeze of an sse-gateway",
    TerminateBackend: "pg_terminate_backend",
    StopPostgres: "immediate stop of Postgres",
    KillPostgres: "kill -9 of the postmaster",
    LinkCut: "link cut",
    LinkStalled: "link stalled",
    LinkSlow: "link slowed",
    LinkReset: "link reset",
    // More than an ingest-api accepts.
    FillUploads: "too many uploads",
    // More streams than an sse-gateway accepts.
    FillClients: "too many clients",
    // Answers that are built whole, and that nobody reads.
    SlowPages: "clients that do not read their pages",
    // One statement of many events of past times, whose fold takes longer than those of others.
    Backfill: "backfill",
    StepClock: "clock stepped",
    FillDisk: "disk full",
}
