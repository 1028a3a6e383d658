//! Who can reach whom: the network policies permit what the design needs, and nothing else.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::json;

use super::manifests::{Manifests, text};

/// Everything outside of the namespace, by the names of `testing/kubernetes/stand-ins.yaml`.
const OTHERS: [&str; 5] = [OUTSIDE, "operator", "dns", "prometheus", "stranger"];

/// Everything outside of the cluster.
const OUTSIDE: &str = "outside";

/// The public ports, which all of [`OTHERS`] can reach.
const PUBLIC: [(&str, &str); 3] =
    [("ingest-api", "TCP 8080"), ("sse-gateway", "TCP 8081"), ("dashboard", "TCP 8082")];

/// The other connections: from, to, and the port.
const CONNECTIONS: [(&str, &str, &str); 12] = [
    ("migrate", "postgres", "TCP 5432"),
    ("access", "postgres", "TCP 5432"),
    ("ingest-api", "postgres", "TCP 5432"),
    ("stats-notifier", "postgres", "TCP 5432"),
    ("sse-gateway", "stats-notifier", "TCP 8083"),
    ("dashboard", "stats-notifier", "TCP 8083"),
    ("postgres", "postgres", "TCP 5432"),
    ("postgres", "postgres", "TCP 8000"),
    ("operator", "postgres", "TCP 5432"),
    ("operator", "postgres", "TCP 8000"),
    // The API server of Kubernetes, and the object store of the backups.
    ("postgres", OUTSIDE, "TCP 443"),
    ("postgres", OUTSIDE, "TCP 6443"),
];

/// Those that look up names.
const ASK_DNS: [&str; 7] =
    ["migrate", "access", "ingest-api", "stats-notifier", "sse-gateway", "dashboard", "postgres"];

/// The internal ports, which Prometheus reads in the overlay that has autoscalers.
const METRICS: [(&str, &str); 4] = [
    ("ingest-api", "TCP 9080"),
    ("stats-notifier", "TCP 8083"),
    ("sse-gateway", "TCP 9081"),
    ("dashboard", "TCP 9082"),
];

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Connection {
    from: String,
    to: String,
    /// The protocol and the port.
    port: String,
}

impl Connection {
    fn new(from: &str, to: &str, port: &str) -> Self {
        Self { from: from.to_owned(), to: to.to_owned(), port: port.to_owned() }
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} → {}: {}", self.from, self.to, self.port)
    }
}

/// The manifests with pods of everything, so that each policy has something to select: `access` has
/// none until someone needs it, and two pods of a service could reach each other.
pub(super) fn with_pods(manifests: &Manifests) -> Manifests {
    let mut scaled = manifests.clone();
    for resource in &mut scaled.0 {
        if ["Deployment", "StatefulSet"].contains(&text(resource, "/kind")) {
            resource["spec"]["replicas"] = json!(2);
        }
    }
    scaled
}

/// Compares the lines of network-config-analyzer with the table.
pub(super) fn mistakes(lines: &str, has_metrics: bool) -> Vec<String> {
    let found: BTreeSet<Connection> = lines.lines().flat_map(connections).collect();
    let expected = expected(has_metrics);
    let opened = found.difference(&expected).map(|connection| format!("opened: {connection}"));
    let closed = expected.difference(&found).map(|connection| format!("closed: {connection}"));
    opened.chain(closed).collect()
}

fn expected(has_metrics: bool) -> BTreeSet<Connection> {
    let mut expected: BTreeSet<Connection> =
        CONNECTIONS.iter().map(|(from, to, port)| Connection::new(from, to, port)).collect();
    for from in OTHERS {
        expected.extend(PUBLIC.iter().map(|(to, port)| Connection::new(from, to, port)));
    }
    for from in ASK_DNS {
        expected.extend(["TCP 53", "UDP 53"].map(|port| Connection::new(from, "dns", port)));
    }
    if has_metrics {
        expected.extend(METRICS.map(|(to, port)| Connection::new("prometheus", to, port)));
    }
    expected
}

/// The connections of a line such as `a/x[Pod] => a/y[Pod] : {protocols:TCP, UDP,dst_ports:53,80}`,
/// apart from those among [`OTHERS`].
fn connections(line: &str) -> Vec<Connection> {
    let Some((from, rest)) = line.split_once(" => ") else { return Vec::new() };
    let Some((to, permitted)) = rest.split_once(" : ") else { return Vec::new() };
    let (from, to) = (peer(from), peer(to));
    if [from, to].iter().all(|peer| OTHERS.contains(peer)) {
        return Vec::new();
    }
    ports(permitted).iter().map(|port| Connection::new(from, to, port)).collect()
}

/// The name of a peer without its namespace and kind, and without its number if it is one of the
/// pods of Postgres.
fn peer(text: &str) -> &str {
    if text == "0.0.0.0-255.255.255.255" {
        return OUTSIDE;
    }
    let name = text.rsplit('/').next().unwrap_or(text);
    let name = name.split('[').next().unwrap_or(name);
    if name.starts_with("postgres-") { "postgres" } else { name }
}

/// Each protocol with each port. What has another form, such as all connections, stays as it is,
/// and so is in no table.
fn ports(permitted: &str) -> Vec<String> {
    let parts = permitted.strip_prefix("{protocols:").and_then(|rest| rest.strip_suffix('}'));
    let Some((protocols, ports)) = parts.and_then(|parts| parts.split_once(",dst_ports:")) else {
        return vec![permitted.to_owned()];
    };
    let protocols = protocols.split(", ");
    protocols
        .flat_map(|protocol| ports.split(',').map(move |port| format!("{protocol} {port}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_read_as_its_connections() {
        let read =
            |line| -> Vec<String> { connections(line).iter().map(ToString::to_string).collect() };
        let line =
            "newcycle/postgres-1[Pod] => kube-system/dns[Pod] : {protocols:TCP, UDP,dst_ports:53}";
        assert_eq!(read(line), ["postgres → dns: TCP 53", "postgres → dns: UDP 53"]);
        let line =
            "0.0.0.0-255.255.255.255 => newcycle/a[Deployment] : {protocols:TCP,dst_ports:1,2-4}";
        assert_eq!(read(line), ["outside → a: TCP 1", "outside → a: TCP 2-4"]);
        let line = "newcycle/a[Job] => newcycle/a[Job] : All connections";
        assert_eq!(read(line), ["a → a: All connections"]);
        assert!(read("elsewhere/stranger[Pod] => kube-system/dns[Pod] : All").is_empty());
        assert!(read("Total run time: 0.10 seconds").is_empty());
    }
}
