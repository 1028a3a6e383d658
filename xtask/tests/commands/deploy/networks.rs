//! Which containers can reach each other, and which ports others can reach.

use std::collections::{BTreeMap, BTreeSet};

use local_stack::stack::ServiceKind;

use super::{COMMANDS, block, read};

/// Which containers are on the same network, each pair once. No other pair can connect.
const CONNECTED: [(&str, &str); 13] = [
    ("access", "ingest-api"),
    ("access", "migrate"),
    ("access", "postgres"),
    ("access", "stats-notifier"),
    ("dashboard", "sse-gateway"),
    ("dashboard", "stats-notifier"),
    ("ingest-api", "migrate"),
    ("ingest-api", "postgres"),
    ("ingest-api", "stats-notifier"),
    ("migrate", "postgres"),
    ("migrate", "stats-notifier"),
    ("postgres", "stats-notifier"),
    ("sse-gateway", "stats-notifier"),
];

/// Further pairs with `docker-compose.observability.yml`.
const OBSERVED: [(&str, &str); 5] = [
    ("dashboard", "prometheus"),
    ("grafana", "prometheus"),
    ("ingest-api", "prometheus"),
    ("prometheus", "sse-gateway"),
    ("prometheus", "stats-notifier"),
];

/// The networks of a container, from a list on one line.
fn networks(compose: &str, name: &str) -> BTreeSet<String> {
    let service = block(compose, name);
    let lines = service.iter().filter_map(|line| {
        line.strip_prefix("networks: [")?.strip_suffix(']').map(|list| list.split(", "))
    });
    lines.flatten().map(str::to_owned).collect()
}

/// The pairs of containers that are on the same network, each once.
fn connected<'a>(networks: &BTreeMap<&'a str, BTreeSet<String>>) -> BTreeSet<(&'a str, &'a str)> {
    let mut pairs = BTreeSet::new();
    for (index, (name, own)) in networks.iter().enumerate() {
        assert!(!own.is_empty(), "{name} is on the default network, which all could share");
        let others = networks.iter().skip(index + 1);
        pairs.extend(
            others.filter(|(_, other)| !own.is_disjoint(other)).map(|(other, _)| (*name, *other)),
        );
    }
    pairs
}

#[test]
fn only_containers_that_need_each_other_are_on_the_same_network() {
    let compose = read("docker-compose.yml");
    let mut names = ServiceKind::ALL.map(ServiceKind::name).to_vec();
    names.extend(COMMANDS.iter().chain(&["postgres"]));
    let mut networks_of: BTreeMap<&str, BTreeSet<String>> =
        names.iter().map(|name| (*name, networks(&compose, name))).collect();
    assert_eq!(connected(&networks_of), BTreeSet::from(CONNECTED));

    let observability = read("docker-compose.observability.yml");
    let ingest_api = networks(&observability, "ingest-api");
    assert!(ingest_api.is_superset(&networks_of["ingest-api"]), "{ingest_api:?}");
    networks_of.insert("ingest-api", ingest_api);
    for name in ["prometheus", "grafana"] {
        networks_of.insert(name, networks(&observability, name));
    }
    let expected = CONNECTED.into_iter().chain(OBSERVED).collect();
    assert_eq!(connected(&networks_of), expected);
    assert!(block(&compose, "secrets").contains(&"network_mode: none"));
    // Those without a published port cannot reach anything outside.
    for (text, network) in [
        (&compose, "database"),
        (&compose, "counts"),
        (&observability, "ingest-metrics"),
        (&observability, "queries"),
    ] {
        assert!(text.contains(&format!("\n  {network}:\n    internal: true\n")), "{network}");
    }
}

/// It is an example of the documentation.
#[test]
fn a_second_stats_notifier_has_the_settings_and_networks_of_the_first() {
    let (compose, readme) = (read("docker-compose.yml"), read("deploy/README.md"));
    let (first, second) = ("stats-notifier", "stats-notifier-2");
    assert_eq!(networks(&readme, second), networks(&compose, first));
    let set = |line: &&&str| line.starts_with("PG") || line.starts_with("NEWCYCLE");
    let missing = block(&compose, first);
    let missing: Vec<_> = missing.iter().filter(set).collect();
    assert!(missing.len() > 3, "{missing:?}");
    for line in missing {
        assert!(block(&readme, second).contains(line), "{line}");
    }
    let upstream = |line: &&str| line.starts_with("NEWCYCLE__UPSTREAM__ADDRESSES: ");
    for kind in ServiceKind::ALL {
        let follows = block(&compose, kind.name()).iter().any(upstream);
        assert_eq!(follows, readme.contains(&format!("\n  {kind}:\n    environment: ")), "{kind}");
    }
    assert!(readme.contains(": http://stats-notifier:8083,http://stats-notifier-2:8083\n"));
}

/// Prometheus has no login, and the password of Grafana is sent without TLS.
#[test]
fn the_ports_of_prometheus_and_grafana_are_not_open_to_other_machines() {
    let compose = read("docker-compose.observability.yml");
    assert!(!block(&compose, "prometheus").contains(&"ports:"));
    let ports = block(&compose, "grafana").into_iter().filter(|line| line.ends_with(":3000"));
    assert_eq!(ports.collect::<Vec<_>>(), ["- 127.0.0.1:${GRAFANA_PORT:-3000}:3000"]);
    for name in ["prometheus", "grafana"] {
        assert!(block(&compose, name).contains(&"<<: *tool"), "{name}");
    }
    for line in ["read_only: true", "cap_drop: [ALL]", "no-new-privileges:true"] {
        let tool = compose.split("services:").next().unwrap();
        assert!(tool.contains(line), "{line}");
    }
    // Its disk is bounded.
    for bound in ["--storage.tsdb.retention.time=", "--storage.tsdb.retention.size="] {
        assert!(compose.contains(bound), "{bound}");
    }
}
