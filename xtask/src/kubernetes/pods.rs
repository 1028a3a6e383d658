//! What each pod must have, whatever program is in it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::manifests::{Manifests, Workload, items, text};

/// What the `spec` of a pod must have. `null` is a field that must not be there.
fn of_pods() -> [(&'static str, Value); 9] {
    [
        // Kubernetes sets variables such as DASHBOARD_PORT=tcp://… otherwise.
        ("/enableServiceLinks", json!(false)),
        ("/automountServiceAccountToken", json!(false)),
        ("/hostNetwork", Value::Null),
        ("/hostPID", Value::Null),
        ("/hostIPC", Value::Null),
        ("/securityContext/runAsNonRoot", json!(true)),
        ("/securityContext/runAsUser", json!(65_532)),
        ("/securityContext/seccompProfile", json!({"type": "RuntimeDefault"})),
        // The group of the secrets' files.
        ("/securityContext/fsGroup", json!(65_532)),
    ]
}

/// What a container must have. A container could override what its pod has.
fn of_containers() -> [(&'static str, Value); 3] {
    [
        (
            "/securityContext",
            json!({
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            }),
        ),
        ("/lifecycle/postStart", Value::Null),
        (
            "/volumeMounts",
            json!([{"name": "secrets", "mountPath": "/run/newcycle", "readOnly": true}]),
        ),
    ]
}

/// Where a service's probes ask.
const PROBES: [(&str, &str); 3] =
    [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")];

/// The services, which run all the time.
const SERVICES: [&str; 4] = ["ingest-api", "stats-notifier", "sse-gateway", "dashboard"];

/// All that is wrong. `dockerfile` is the text of `deploy/Dockerfile`, which names the images.
pub(super) fn mistakes(manifests: &Manifests, dockerfile: &str) -> Vec<String> {
    let mut found = Vec::new();
    let services: BTreeSet<&str> =
        manifests.workloads().filter(|it| it.service().is_some()).map(Workload::name).collect();
    if services != BTreeSet::from(SERVICES) {
        found.push(format!("the services are {services:?}, and must be {SERVICES:?}"));
    }
    for workload in manifests.workloads() {
        let mut pod = of_pod(workload);
        for container in workload.containers() {
            pod.extend(of_container(container, dockerfile));
        }
        pod.extend(workload.service().map(of_service).unwrap_or_default());
        found.extend(pod.iter().map(|mistake| format!("{}: {mistake}", workload.name())));
    }
    for map in manifests.of_kind("ConfigMap") {
        let names = map["data"].as_object().into_iter().flatten().map(|(name, _)| name);
        found.extend(names.filter(|name| is_secret(name)).map(|name| {
            format!("{}: {name} must be in the file of a secret", text(map, "/metadata/name"))
        }));
    }
    let enforced = "/metadata/labels/pod-security.kubernetes.io~1enforce";
    let namespaces: Vec<&str> =
        manifests.of_kind("Namespace").map(|namespace| text(namespace, enforced)).collect();
    if namespaces != ["restricted"] {
        found.push(format!("one namespace must enforce the level restricted: {namespaces:?}"));
    }
    found
}

fn differences(value: &Value, expected: &[(&str, Value)]) -> Vec<String> {
    let has = |pointer: &str| value.pointer(pointer).cloned().unwrap_or(Value::Null);
    expected
        .iter()
        .filter(|(pointer, expected)| has(pointer) != *expected)
        .map(|(pointer, expected)| format!("{pointer} is {}, must be {expected}", has(pointer)))
        .collect()
}

fn of_pod(workload: Workload<'_>) -> Vec<String> {
    let mut found = differences(workload.pod, &of_pods());
    for volume in items(workload.pod, "/volumes") {
        let sources = items(volume, "/projected/sources");
        let is_secrets = sources
            .iter()
            .all(|source| source.as_object().is_some_and(|source| source.keys().eq(["secret"])));
        // 0440: for the user of the pod, who is in the group.
        if sources.is_empty() || !is_secrets || volume["projected"]["defaultMode"] != json!(0o440) {
            found.push(format!("a volume must have secrets only, with mode 0440: {volume}"));
        }
    }
    found
}

fn of_container(container: &Value, dockerfile: &str) -> Vec<String> {
    let mut found = differences(container, &of_containers());
    for pointer in
        ["/resources/requests/cpu", "/resources/requests/memory", "/resources/limits/memory"]
    {
        if text(container, pointer).is_empty() {
            found.push(format!("{pointer} must be set"));
        }
    }
    for variable in items(container, "/env") {
        let name = text(variable, "/name");
        if is_secret(name) || variable.get("valueFrom").is_some() {
            found.push(format!("{name} must be in the file of a secret"));
        }
    }
    for source in items(container, "/envFrom") {
        if source.get("configMapRef").is_none() {
            found.push(format!("variables come from ConfigMaps only: {source}"));
        }
    }
    let program = program(container);
    if !dockerfile.contains(&format!(" AS {program}\n")) {
        found.push(format!("deploy/Dockerfile builds no image {program}"));
    }
    found
}

fn of_service(container: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (probe, path) in PROBES {
        let expected = json!({"path": path, "port": "internal"});
        let asks = &container[probe]["httpGet"];
        if *asks != expected {
            found.push(format!("{probe} asks {asks}, must ask {expected}"));
        }
    }
    found
}

/// Whether the value of a variable would be a secret.
fn is_secret(variable: &str) -> bool {
    ["PASSWORD", "NEWCYCLE_KEY"].iter().any(|name| variable.contains(name))
}

/// The program in a container's image: the last part of its name.
pub(super) fn program(container: &Value) -> &str {
    let image = text(container, "/image");
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split([':', '@']).next().unwrap_or(name)
}
