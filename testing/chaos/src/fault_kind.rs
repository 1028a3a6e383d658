//! The kinds of fault.

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident: $name:literal,)*) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
        pub enum FaultKind {
            $($(#[$doc])* $kind,)*
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
    /// Kills an ingest-api.
    KillIngest: "kill -9 of an ingest-api",
    /// Kills a stats-notifier, the leader or the standby.
    KillNotifier: "kill -9 of a stats-notifier",
    /// Kills an sse-gateway.
    KillGateway: "kill -9 of an sse-gateway",
    /// Asks an ingest-api to stop.
    TermIngest: "SIGTERM to an ingest-api",
    /// Asks a stats-notifier to stop, the leader or the standby.
    TermNotifier: "SIGTERM to a stats-notifier",
    /// Asks an sse-gateway to stop.
    TermGateway: "SIGTERM to an sse-gateway",
    /// Freezes an ingest-api for a while.
    FreezeIngest: "freeze of an ingest-api",
    /// Freezes the leader until another one leads.
    FreezeNotifier: "freeze of the leader",
    /// Freezes the leader between the last write of a flush and its commit, until another one
    /// leads.
    FreezeInFlush: "freeze of the leader inside a flush",
    /// Freezes an sse-gateway for a while.
    FreezeGateway: "freeze of an sse-gateway",
    /// Terminates any backend of Postgres.
    TerminateBackend: "pg_terminate_backend",
    /// Stops Postgres in immediate mode, and starts it again.
    StopPostgres: "immediate stop of Postgres",
    /// Kills the postmaster, and starts Postgres again.
    KillPostgres: "kill -9 of the postmaster",
    /// Cuts a link for a while.
    LinkCut: "link cut",
    /// Stalls a link for a while.
    LinkStalled: "link stalled",
    /// Slows a link for a while.
    LinkSlow: "link slowed",
    /// Resets the connections of a link.
    LinkReset: "link reset",
    /// Opens more uploads to an ingest-api than it accepts.
    FillUploads: "too many uploads",
    /// Opens more streams of an sse-gateway than it accepts.
    FillClients: "too many clients",
    /// Steps the clock of a service.
    StepClock: "clock stepped",
    /// Fills Postgres's disk.
    FillDisk: "disk full",
}
