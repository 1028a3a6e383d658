//! A link between each service and everything that it or its clients connect to, and the settings
//! that make the services use the links.

use std::sync::Arc;

use local_stack::link::Link;
use local_stack::stack::{Instance, Ports, ServiceKind};

use crate::clock::Clocks;

/// The number of clients that a gateway accepts. It is small, so that a fault can reach it.
pub(crate) const MAX_CLIENTS: usize = 64;

/// The links of two replicas of each service.
#[derive(Default)]
pub(crate) struct Wiring {
    pub(crate) links: Vec<Arc<Link>>,
    /// The base URLs of ingest-api 1 and 2, through their links.
    pub(crate) ingest: Vec<String>,
    /// The base URLs of sse-gateway 1 and 2, through their links.
    pub(crate) gateways: Vec<String>,
    /// The port of the producers' link to Postgres.
    pub(crate) sql: u16,
}

/// Environment variables of the services.
type Variables = Vec<(Instance, &'static str, String)>;

impl Wiring {
    /// Creates the links. Also returns the variables that make the services use the links and their
    /// clocks.
    pub(crate) async fn create(
        ports: &[Ports],
        postgres: u16,
        clocks: Option<&Clocks>,
    ) -> anyhow::Result<(Self, Variables)> {
        let mut wiring = Self::default();
        let mut variables = Variables::new();
        for (number, own) in (1..).zip(ports) {
            let [api, notifier, gateway] =
                [ServiceKind::IngestApi, ServiceKind::StatsNotifier, ServiceKind::SseGateway]
                    .map(|service| service.replica(number));
            for service in [api, notifier] {
                let link = wiring.add(format!("{service} to Postgres"), postgres).await?;
                variables.push((service, "PGPORT", link.port().to_string()));
            }
            let mut upstreams = Vec::new();
            for (other, of) in (1..).zip(ports) {
                let upstream = ServiceKind::StatsNotifier.replica(other);
                let link =
                    wiring.add(format!("{gateway} to {upstream}"), of.stats_notifier).await?;
                upstreams.push(link.url());
            }
            let link = wiring.add(format!("producers to {api}"), own.ingest_api).await?;
            wiring.ingest.push(link.url());
            let link = wiring.add(format!("subscribers to {gateway}"), own.sse_gateway).await?;
            wiring.gateways.push(link.url());
            variables.extend([
                (gateway, "NEWCYCLE__UPSTREAM__ADDRESSES", upstreams.join(",")),
                (gateway, "NEWCYCLE__STREAM__MAX_SUBSCRIBERS", MAX_CLIENTS.to_string()),
                // A gateway spreads the end of its streams over this time, which few clients do not
                // need.
                (gateway, "NEWCYCLE__HTTP__DRAIN_TIMEOUT", "1s".to_owned()),
            ]);
            if let Some(clocks) = clocks {
                for service in [api, notifier, gateway] {
                    let clock = clocks.variables(service)?.into_iter();
                    variables.extend(clock.map(|(variable, value)| (service, variable, value)));
                }
            }
        }
        wiring.sql = wiring.add("producers to Postgres".to_owned(), postgres).await?.port();
        Ok((wiring, variables))
    }

    async fn add(&mut self, name: String, port: u16) -> anyhow::Result<Arc<Link>> {
        let link = Arc::new(Link::to(name, port).await?);
        self.links.push(Arc::clone(&link));
        Ok(link)
    }
}
