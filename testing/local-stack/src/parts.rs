//! What a stack consists of.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use crate::postgres::free_port;

/// One service of a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Counts.
    StatsNotifier,
    /// Takes events.
    IngestApi,
    /// Shows counts.
    SseGateway,
    /// Serves the page.
    Dashboard,
}

impl Part {
    /// Every part, in the order in which they start.
    pub const ALL: [Self; 4] = [Self::StatsNotifier, Self::IngestApi, Self::SseGateway, Self::Dashboard];

    /// The name of the program.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StatsNotifier => "stats-notifier",
            Self::IngestApi => "ingest-api",
            Self::SseGateway => "sse-gateway",
            Self::Dashboard => "dashboard",
        }
    }

    /// Its replica of this number, from 1.
    #[must_use]
    pub const fn replica(self, number: usize) -> Instance {
        Instance { part: self, number }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// One process of a stack. A [`Part`] by itself stands for its first replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instance {
    /// Which service.
    pub part: Part,
    /// Which of its replicas, from 1.
    pub number: usize,
}

impl From<Part> for Instance {
    fn from(part: Part) -> Self {
        part.replica(1)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            1 => self.part.fmt(formatter),
            number => formatter.pad(&format!("{} {number}", self.part)),
        }
    }
}

/// How many replicas there are of each service.
#[derive(Debug, Clone, Copy)]
pub struct Replicas {
    /// Of stats-notifier, of which one leads.
    pub stats_notifier: usize,
    /// Of ingest-api.
    pub ingest_api: usize,
    /// Of sse-gateway.
    pub sse_gateway: usize,
    /// Of dashboard.
    pub dashboard: usize,
}

impl Replicas {
    /// One of each, without a page to look at.
    pub const ONE: Self = Self { stats_notifier: 1, ingest_api: 1, sse_gateway: 1, dashboard: 0 };
    /// Two of each, without a page to look at.
    pub const TWO: Self = Self { stats_notifier: 2, ingest_api: 2, sse_gateway: 2, dashboard: 0 };

    /// All of them, in the order in which they start.
    pub fn instances(self) -> impl Iterator<Item = Instance> {
        Part::ALL
            .into_iter()
            .flat_map(move |part| (1..=self.of(part)).map(move |number| part.replica(number)))
    }

    /// Those of a part.
    #[must_use]
    pub const fn of(self, part: Part) -> usize {
        match part {
            Part::StatsNotifier => self.stats_notifier,
            Part::IngestApi => self.ingest_api,
            Part::SseGateway => self.sse_gateway,
            Part::Dashboard => self.dashboard,
        }
    }
}

/// Where one replica of each service listens, on 127.0.0.1.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Ports {
    /// Of stats-notifier, which has no public one.
    pub stats_notifier: u16,
    /// Of ingest-api.
    pub ingest_api: u16,
    /// Of ingest-api's health and metrics.
    pub ingest_api_internal: u16,
    /// Of sse-gateway.
    pub sse_gateway: u16,
    /// Of sse-gateway's health and metrics.
    pub sse_gateway_internal: u16,
    /// Of dashboard.
    pub dashboard: u16,
    /// Of dashboard's health and metrics.
    pub dashboard_internal: u16,
}

impl Ports {
    /// Some on which nobody listens just now.
    ///
    /// # Errors
    /// None are free.
    pub fn free() -> io::Result<Self> {
        Ok(Self {
            stats_notifier: free_port()?,
            ingest_api: free_port()?,
            ingest_api_internal: free_port()?,
            sse_gateway: free_port()?,
            sse_gateway_internal: free_port()?,
            dashboard: free_port()?,
            dashboard_internal: free_port()?,
        })
    }

    /// The variables of `.env` that set them.
    #[must_use]
    pub const fn variables(self) -> [(&'static str, u16); 7] {
        [
            ("NOTIFIER_PORT", self.stats_notifier),
            ("INGEST_PORT", self.ingest_api),
            ("INGEST_INTERNAL_PORT", self.ingest_api_internal),
            ("GATEWAY_PORT", self.sse_gateway),
            ("GATEWAY_INTERNAL_PORT", self.sse_gateway_internal),
            ("DASHBOARD_PORT", self.dashboard),
            ("DASHBOARD_INTERNAL_PORT", self.dashboard_internal),
        ]
    }

    /// That of a part's health and metrics.
    #[must_use]
    pub const fn internal(self, part: Part) -> u16 {
        match part {
            Part::StatsNotifier => self.stats_notifier,
            Part::IngestApi => self.ingest_api_internal,
            Part::SseGateway => self.sse_gateway_internal,
            Part::Dashboard => self.dashboard_internal,
        }
    }

    /// That of a part.
    #[must_use]
    pub const fn of(self, part: Part) -> u16 {
        match part {
            Part::StatsNotifier => self.stats_notifier,
            Part::IngestApi => self.ingest_api,
            Part::SseGateway => self.sse_gateway,
            Part::Dashboard => self.dashboard,
        }
    }
}
