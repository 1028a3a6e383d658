//! The services of a stack, how many replicas of each there are, and where they listen.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use crate::ports::reserve_port;

/// One of the four services. Their order is the one in which they start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceKind {
    /// Counts events and publishes the counts to gateways.
    StatsNotifier,
    /// Accepts and stores events.
    IngestApi,
    /// Streams the counts to clients.
    SseGateway,
    /// Serves the web page.
    Dashboard,
}

impl ServiceKind {
    /// Every service.
    pub const ALL: [Self; 4] =
        [Self::StatsNotifier, Self::IngestApi, Self::SseGateway, Self::Dashboard];

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

    /// One replica of this service. Numbers start at 1.
    #[must_use]
    pub const fn replica(self, number: usize) -> Instance {
        Instance { service: self, number }
    }
}

impl fmt::Display for ServiceKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// One process of a stack. A [`ServiceKind`] converts to its first replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance {
    /// The program that the process runs.
    pub service: ServiceKind,
    /// The replica's number, starting at 1.
    pub number: usize,
}

impl From<ServiceKind> for Instance {
    fn from(service: ServiceKind) -> Self {
        service.replica(1)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            1 => self.service.fmt(formatter),
            number => formatter.pad(&format!("{} {number}", self.service)),
        }
    }
}

/// The number of replicas of each service.
#[derive(Debug, Clone, Copy)]
pub struct Replicas {
    /// Replicas of stats-notifier; one of them leads.
    pub stats_notifier: usize,
    /// Replicas of ingest-api.
    pub ingest_api: usize,
    /// Replicas of sse-gateway.
    pub sse_gateway: usize,
    /// Replicas of dashboard.
    pub dashboard: usize,
}

impl Replicas {
    /// No service.
    pub const NONE: Self = Self { stats_notifier: 0, ingest_api: 0, sse_gateway: 0, dashboard: 0 };
    /// One replica of each service except dashboard.
    pub const ONE: Self = Self { stats_notifier: 1, ingest_api: 1, sse_gateway: 1, dashboard: 0 };
    /// Two replicas of each service except dashboard.
    pub const TWO: Self = Self { stats_notifier: 2, ingest_api: 2, sse_gateway: 2, dashboard: 0 };

    /// Every replica, in the order in which they start.
    pub fn instances(self) -> impl Iterator<Item = Instance> {
        ServiceKind::ALL.into_iter().flat_map(move |service| {
            (1..=self.count(service)).map(move |number| service.replica(number))
        })
    }

    /// The number of replicas of one service.
    #[must_use]
    pub const fn count(self, service: ServiceKind) -> usize {
        match service {
            ServiceKind::StatsNotifier => self.stats_notifier,
            ServiceKind::IngestApi => self.ingest_api,
            ServiceKind::SseGateway => self.sse_gateway,
            ServiceKind::Dashboard => self.dashboard,
        }
    }
}

/// The ports on 127.0.0.1 of one replica of each service.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Ports {
    /// stats-notifier's internal port; it has no public one.
    pub stats_notifier: u16,
    /// ingest-api's public port.
    pub ingest_api: u16,
    /// ingest-api's port for health and metrics.
    pub ingest_api_internal: u16,
    /// sse-gateway's public port.
    pub sse_gateway: u16,
    /// sse-gateway's port for health and metrics.
    pub sse_gateway_internal: u16,
    /// dashboard's public port.
    pub dashboard: u16,
    /// dashboard's port for health and metrics.
    pub dashboard_internal: u16,
}

impl Ports {
    /// Ports that are [reserved](reserve_port) until this process ends.
    ///
    /// # Errors
    /// The operating system has no free port.
    pub fn reserve() -> io::Result<Self> {
        Ok(Self {
            stats_notifier: reserve_port()?,
            ingest_api: reserve_port()?,
            ingest_api_internal: reserve_port()?,
            sse_gateway: reserve_port()?,
            sse_gateway_internal: reserve_port()?,
            dashboard: reserve_port()?,
            dashboard_internal: reserve_port()?,
        })
    }

    /// The short environment variables of `cargo xtask up` and Compose for these ports. The
    /// services do not read them.
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

    /// The port of a service's health and metrics.
    #[must_use]
    pub const fn internal(self, service: ServiceKind) -> u16 {
        match service {
            ServiceKind::StatsNotifier => self.stats_notifier,
            ServiceKind::IngestApi => self.ingest_api_internal,
            ServiceKind::SseGateway => self.sse_gateway_internal,
            ServiceKind::Dashboard => self.dashboard_internal,
        }
    }

    /// The port that a service's clients use. stats-notifier has only its internal one.
    #[must_use]
    pub const fn public(self, service: ServiceKind) -> u16 {
        match service {
            ServiceKind::StatsNotifier => self.stats_notifier,
            ServiceKind::IngestApi => self.ingest_api,
            ServiceKind::SseGateway => self.sse_gateway,
            ServiceKind::Dashboard => self.dashboard,
        }
    }
}
