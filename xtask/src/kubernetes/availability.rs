//! What the overlay `highly-available` promises: a pod, a node or a zone less is no outage.

use serde_json::{Value, json};

use super::manifests::{Manifests, Workload, items, number, text};
use super::settings::is_part_of;

/// All that is wrong. `metrics` is the text of docs/operations.md, which lists the metrics.
pub(super) fn mistakes(manifests: &Manifests, metrics: &str) -> Vec<String> {
    let mut found = Vec::new();
    for workload in manifests.workloads().filter(|workload| workload.service().is_some()) {
        let mistakes = of_service(manifests, workload);
        found.extend(mistakes.iter().map(|mistake| format!("{}: {mistake}", workload.name())));
    }
    found.extend(of_postgres(manifests));
    found.extend(of_autoscalers(manifests, metrics));
    found
}

fn of_service(manifests: &Manifests, workload: Workload<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let autoscaler = manifests.get("HorizontalPodAutoscaler", workload.name());
    let own = number(workload.resource, "/spec/replicas");
    let least = match autoscaler {
        Some(autoscaler) => number(autoscaler, "/spec/minReplicas"),
        None => own,
    };
    if least < Some(2) {
        found.push(format!("at least 2 replicas, not {least:?}"));
    }
    if autoscaler.is_some() && own.is_some() {
        found.push("each `kubectl apply` would undo what the autoscaler has set".to_owned());
    }
    let budgets: Vec<&Value> = manifests
        .of_kind("PodDisruptionBudget")
        .filter(|budget| is_part_of(&budget["spec"]["selector"]["matchLabels"], workload.labels()))
        .collect();
    if !matches!(budgets[..], [budget] if budget["spec"]["maxUnavailable"] == json!(1)) {
        found.push("one PodDisruptionBudget with maxUnavailable 1".to_owned());
    }
    for (topology, unsatisfiable) in [
        ("kubernetes.io/hostname", "DoNotSchedule"),
        ("topology.kubernetes.io/zone", "ScheduleAnyway"),
    ] {
        let is_spread =
            items(workload.pod, "/topologySpreadConstraints").iter().any(|constraint| {
                text(constraint, "/topologyKey") == topology
                    && text(constraint, "/whenUnsatisfiable") == unsatisfiable
                    && is_part_of(&constraint["labelSelector"]["matchLabels"], workload.labels())
            });
        if !is_spread {
            found.push(format!("spread over {topology}, or {unsatisfiable}"));
        }
    }
    // The old pod goes on until the new one is ready. A StatefulSet replaces one at a time, and the
    // other one leads meanwhile.
    let is_gapless = text(workload.resource, "/kind") == "StatefulSet"
        || workload.resource.pointer("/spec/strategy/rollingUpdate/maxUnavailable")
            == Some(&json!(0));
    if !is_gapless {
        found.push("an update must not end a pod before there is another one".to_owned());
    }
    found
}

/// An acknowledged event is on two servers, a third one can take over, and backups are made.
fn of_postgres(manifests: &Manifests) -> Vec<String> {
    let Some(cluster) = manifests.get("Cluster", "postgres") else {
        return vec!["there is no Cluster postgres".to_owned()];
    };
    let expected = [
        ("/spec/instances", json!(3)),
        ("/spec/postgresql/synchronous/method", json!("any")),
        ("/spec/postgresql/synchronous/number", json!(1)),
        ("/spec/postgresql/synchronous/dataDurability", json!("required")),
        ("/spec/affinity/podAntiAffinityType", json!("required")),
        ("/spec/plugins/0/isWALArchiver", json!(true)),
    ];
    let mut found: Vec<String> = expected
        .iter()
        .filter(|(pointer, value)| cluster.pointer(pointer) != Some(value))
        .map(|(pointer, value)| format!("Cluster: {pointer} must be {value}"))
        .collect();
    let store = text(cluster, "/spec/plugins/0/parameters/barmanObjectName");
    if manifests.get("ObjectStore", store).is_none() {
        found.push(format!("Cluster: there is no ObjectStore {store}"));
    }
    let plugin = text(cluster, "/spec/plugins/0/name");
    let is_backed_up = manifests.of_kind("ScheduledBackup").any(|backup| {
        text(backup, "/spec/cluster/name") == "postgres"
            && text(backup, "/spec/method") == "plugin"
            && text(backup, "/spec/pluginConfiguration/name") == plugin
            // Unlike a CronJob's, its schedule has seconds.
            && text(backup, "/spec/schedule").split(' ').count() == 6
    });
    if !is_backed_up {
        found.push("there is no ScheduledBackup for the Cluster and its plugin".to_owned());
    }
    found
}

/// ingest-api by its processor time, sse-gateway by its clients.
fn of_autoscalers(manifests: &Manifests, metrics: &str) -> Vec<String> {
    let mut found = Vec::new();
    for autoscaler in manifests.of_kind("HorizontalPodAutoscaler") {
        let target = &autoscaler["spec"]["scaleTargetRef"];
        if manifests.get(text(target, "/kind"), text(target, "/name")).is_none() {
            found.push(format!("an autoscaler's target does not exist: {target}"));
        }
    }
    let metric = |name: &str, pointer: &str| {
        let autoscaler = manifests.get("HorizontalPodAutoscaler", name)?;
        autoscaler.pointer(pointer)?.as_str()
    };
    if metric("ingest-api", "/spec/metrics/0/resource/name") != Some("cpu") {
        found.push("ingest-api: the autoscaler must measure cpu".to_owned());
    }
    let clients = metric("sse-gateway", "/spec/metrics/0/pods/metric/name").unwrap_or_default();
    if !metrics.contains(&format!("\n| `{clients}` | sse-gateway |")) {
        found.push(format!("sse-gateway has no metric {clients}, which its autoscaler measures"));
    }
    found
}
