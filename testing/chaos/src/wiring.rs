//! A link between each service and everything that it or its clients connect to, and the settings
//! that make the services use the links.

use local_stack::link::Link;
use local_stack::stack::{Instance, Ports, ServiceKind};

use crate::clock::Clocks;

/// The number of clients that a gateway accepts. It is small, so that a fault can reach it.
pub(crate) const MAX_CLIENTS: usize = 64;

/// The links of two replicas of each service.
pub(crate) struct Wiring {
    pub(crate) links: Vec<Link>,
    /// The base URLs of the ingest-apis, through their links.
    pub(crate) ingest: Vec<String>,
    /// The base URLs of the gateways, through their links.
    pub(crate) gateways: Vec<String>,
    /// The port of the producers' link to Postgres.
    pub(crate) sql: u16,
    /// The environment variables of the services.
    pub(crate) variables: Vec<(Instance, &'static str, String)>,
}

impl Wiring {
    /// Creates the links.
    ///
    /// # Errors
    /// A link has no port to listen on, or a clock cannot be set.
    pub(crate) async fn create(
        ports: &[Ports],
        postgres: u16,
        clocks: Option<&Clocks>,
    ) -> anyhow::Result<Self> {
        let mut links = Vec::new();
        let mut variables = Vec::new();
        let mut ingest = Vec::new();
        let mut gateways = Vec::new();
        for (number, own) in (1..).zip(ports) {
            let [api, notifier, gateway] =
                [ServiceKind::IngestApi, ServiceKind::StatsNotifier, ServiceKind::SseGateway]
                    .map(|service| service.replica(number));
            for service in [api, notifier] {
                let link = Link::to(format!("{service} to Postgres"), postgres).await?;
                variables.push((service, "PGPORT", link.port().to_string()));
                links.push(link);
            }
            let mut upstreams = Vec::new();
            for (other, of) in (1..).zip(ports) {
                let upstream = ServiceKind::StatsNotifier.replica(other);
                let link = Link::to(format!("{gateway} to {upstream}"), of.stats_notifier).await?;
                upstreams.push(link.url());
                links.push(link);
            }
            variables.push((gateway, "NEWCYCLE__UPSTREAM__ADDRESSES", upstreams.join(",")));
            let link = Link::to(format!("producers to {api}"), own.ingest_api).await?;
            ingest.push(link.url());
            links.push(link);
            let link = Link::to(format!("subscribers to {gateway}"), own.sse_gateway).await?;
            gateways.push(link.url());
            links.push(link);
            let debug = "info,actix_server=warn,stats_notifier=debug".to_owned();
            variables.extend([
                (notifier, "NEWCYCLE__LOG__FILTER", debug),
                (notifier, "NEWCYCLE__LOG__FORMAT", "json".to_owned()),
                (gateway, "NEWCYCLE__STREAM__MAX_CLIENTS", MAX_CLIENTS.to_string()),
                // A gateway spreads the end of its streams over this time, which few clients do not
                // need.
                (gateway, "NEWCYCLE__HTTP__DRAIN", "1s".to_owned()),
            ]);
            if let Some(clocks) = clocks {
                for service in [api, notifier, gateway] {
                    let clock = clocks.variables(service)?.into_iter();
                    variables.extend(clock.map(|(variable, value)| (service, variable, value)));
                }
            }
        }
        let link = Link::to("producers to Postgres".to_owned(), postgres).await?;
        let sql = link.port();
        links.push(link);
        Ok(Self { links, ingest, gateways, sql, variables })
    }
}
