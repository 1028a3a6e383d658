//! Errors that are put into the manifests on purpose: a check that does not find them proves
//! nothing.

use serde_json::{Value, json};

use super::Check;
use super::manifests::Manifests;

/// An error in the manifests of the overlay `highly-available`.
pub(super) struct Planted {
    /// What was done.
    pub(super) error: &'static str,
    /// The check that must find it.
    pub(super) check: Check,
    /// Makes the error. `None` if the manifests do not have what it changes.
    pub(super) plant: fn(&mut Manifests) -> Option<()>,
    /// A part of the message that must report it.
    pub(super) found: &'static str,
}

impl Manifests {
    fn planted(&mut self, kind: &str, name: &str) -> Option<&mut Value> {
        self.0
            .iter_mut()
            .find(|resource| resource["kind"] == kind && resource["metadata"]["name"] == name)
    }

    /// The value at a JSON pointer in a resource.
    fn at(&mut self, kind: &str, name: &str, pointer: &str) -> Option<&mut Value> {
        self.planted(kind, name)?.pointer_mut(pointer)
    }

    /// Sets a field, also one that was not there.
    fn set(&mut self, (kind, name): (&str, &str), pointer: &str, value: Value) -> Option<()> {
        let (parent, field) = pointer.rsplit_once('/')?;
        self.at(kind, name, parent)?.as_object_mut()?.insert(field.to_owned(), value);
        Some(())
    }

    fn remove(&mut self, (kind, name): (&str, &str), pointer: &str) -> Option<()> {
        let (parent, field) = pointer.rsplit_once('/')?;
        self.at(kind, name, parent)?.as_object_mut()?.remove(field).map(drop)
    }

    /// Sets a variable in the `ConfigMap` of a program.
    fn set_variable(&mut self, program: &str, variable: &str, value: &str) -> Option<()> {
        let prefix = format!("{program}-");
        let map = self.0.iter_mut().find(|resource| {
            resource["kind"] == "ConfigMap"
                && resource["metadata"]["name"].as_str().is_some_and(|it| it.starts_with(&prefix))
        })?;
        map["data"][variable] = json!(value);
        Some(())
    }
}

const DASHBOARD: (&str, &str) = ("Deployment", "dashboard");
const INGEST: (&str, &str) = ("Deployment", "ingest-api");
const GATEWAY: (&str, &str) = ("Deployment", "sse-gateway");
const NOTIFIER: (&str, &str) = ("StatefulSet", "stats-notifier");
const POSTGRES: (&str, &str) = ("Cluster", "postgres");
const POD: &str = "/spec/template/spec";

/// All planted errors, apart from one that cannot be rendered: see [`super::unrenderable`].
pub(super) const ALL: [Planted; 29] = [
    Planted {
        error: "an unknown field of a pod",
        check: Check::Definitions,
        plant: |it| it.set(DASHBOARD, "/spec/template/spec/enableServiceLink", json!(false)),
        found: "enableServiceLink",
    },
    Planted {
        error: "a number that is a text",
        check: Check::Definitions,
        plant: |it| it.set(NOTIFIER, "/spec/replicas", json!("two")),
        found: "two",
    },
    Planted {
        error: "an unknown field of the Cluster",
        check: Check::CustomResources,
        plant: |it| it.set(POSTGRES, "/spec/postgresql/synchronous/failoverQuorom", json!(true)),
        found: "Cluster postgres: unknown field spec.postgresql.?.synchronous.?.failoverQuorom",
    },
    Planted {
        error: "an unknown word in the Cluster",
        check: Check::CustomResources,
        plant: |it| it.set(POSTGRES, "/spec/postgresql/synchronous/method", json!("each")),
        found: "unknown variant `each`",
    },
    Planted {
        error: "a backup without a schedule",
        check: Check::CustomResources,
        plant: |it| it.remove(("ScheduledBackup", "postgres"), "/spec/schedule"),
        found: "missing field `schedule`",
    },
    Planted {
        error: "an unknown field of the object store",
        check: Check::CustomResources,
        plant: |it| {
            it.set(("ObjectStore", "postgres-backups"), "/spec/configuration/bucket", json!("b"))
        },
        found: "ObjectStore postgres-backups: unknown field spec.configuration.bucket",
    },
    Planted {
        error: "stats-notifier admits everyone",
        check: Check::Network,
        plant: |it| it.remove(("NetworkPolicy", "stats-notifier"), "/spec/ingress/0/from"),
        found: "opened: stranger → stats-notifier: TCP 8083",
    },
    Planted {
        error: "what no policy names is not refused",
        check: Check::Network,
        plant: |it| {
            it.0.retain(|resource| resource["metadata"]["name"] != "deny-all");
            Some(())
        },
        found: "opened: intruder → ",
    },
    Planted {
        error: "sse-gateway may connect to Postgres",
        check: Check::Network,
        plant: |it| {
            for policy in ["to-postgres", "postgres"] {
                let selector = if policy == "postgres" {
                    "/spec/ingress/0/from/0/podSelector/matchExpressions/0/values"
                } else {
                    "/spec/podSelector/matchExpressions/0/values"
                };
                let values = it.at("NetworkPolicy", policy, selector)?;
                values.as_array_mut()?.push(json!("sse-gateway"));
            }
            Some(())
        },
        found: "opened: sse-gateway → postgres: TCP 5432",
    },
    Planted {
        error: "a gateway that stats-notifier does not admit",
        check: Check::Network,
        plant: |it| {
            let values = "/spec/ingress/0/from/0/podSelector/matchExpressions/0/values";
            *it.at("NetworkPolicy", "stats-notifier", values)? = json!(["dashboard"]);
            Some(())
        },
        found: "closed: sse-gateway → stats-notifier: TCP 8083",
    },
    Planted {
        error: "variables for each service",
        check: Check::Pods,
        plant: |it| it.remove(DASHBOARD, "/spec/template/spec/enableServiceLinks"),
        found: "dashboard: /enableServiceLinks",
    },
    Planted {
        error: "a container that may write to its file system",
        check: Check::Pods,
        plant: |it| {
            let field = format!("{POD}/containers/0/securityContext/readOnlyRootFilesystem");
            it.remove(INGEST, &field)
        },
        found: "ingest-api: /securityContext",
    },
    Planted {
        error: "a container with a capability",
        check: Check::Pods,
        plant: |it| {
            let field = format!("{POD}/initContainers/0/securityContext/capabilities/add");
            it.set(NOTIFIER, &field, json!(["NET_ADMIN"]))
        },
        found: "stats-notifier: /securityContext",
    },
    Planted {
        error: "a readiness probe that asks whether the service lives",
        check: Check::Pods,
        plant: |it| {
            let path = format!("{POD}/containers/0/readinessProbe/httpGet/path");
            it.set(GATEWAY, &path, json!("/livez"))
        },
        found: "sse-gateway: readinessProbe",
    },
    Planted {
        error: "a password in a variable",
        check: Check::Pods,
        plant: |it| it.set_variable("migrate", "PGPASSWORD", "secret"),
        found: "PGPASSWORD",
    },
    Planted {
        error: "a namespace that enforces nothing",
        check: Check::Pods,
        plant: |it| it.remove(("Namespace", "newcycle"), "/metadata/labels"),
        found: "restricted",
    },
    Planted {
        error: "less time to stop than the gateway drains",
        check: Check::Settings,
        plant: |it| it.set(GATEWAY, "/spec/template/spec/terminationGracePeriodSeconds", json!(15)),
        found: "sse-gateway: terminationGracePeriodSeconds",
    },
    Planted {
        error: "a setting that does not exist",
        check: Check::Settings,
        plant: |it| it.set_variable("dashboard", "NEWCYCLE__CORS__ALLOWED_ORIGINS", "*"),
        found: "cors.allowed_origins",
    },
    Planted {
        error: "a command that does not exist",
        check: Check::Settings,
        plant: |it| it.set(INGEST, "/spec/template/spec/initContainers/0/args", json!(["await"])),
        found: "await",
    },
    Planted {
        error: "a file that no secret has",
        check: Check::Settings,
        plant: |it| {
            let file = format!("{POD}/containers/0/env/0/value");
            it.set(INGEST, &file, json!("/run/newcycle/ingest.toml"))
        },
        found: "/run/newcycle/ingest.toml",
    },
    Planted {
        error: "a stats-notifier that the gateways do not know",
        check: Check::Settings,
        plant: |it| it.set(NOTIFIER, "/spec/replicas", json!(3)),
        found: "sse-gateway: upstream.addresses",
    },
    Planted {
        error: "more ingest-apis than the role's connections are for",
        check: Check::Settings,
        plant: |it| {
            it.set(("HorizontalPodAutoscaler", "ingest-api"), "/spec/maxReplicas", json!(5))
        },
        found: "roles.max_ingest_connections",
    },
    Planted {
        error: "more connections than Postgres allows",
        check: Check::Settings,
        plant: |it| it.remove(POSTGRES, "/spec/postgresql/parameters/max_connections"),
        found: "max_connections",
    },
    Planted {
        error: "a Service that leads to another port",
        check: Check::Settings,
        plant: |it| it.set(("Service", "dashboard"), "/spec/ports/0/port", json!(80)),
        found: "dashboard: the Service",
    },
    Planted {
        error: "gateways that are full before there are more",
        check: Check::Settings,
        plant: |it| {
            let target = "/spec/metrics/0/pods/target/averageValue";
            it.set(("HorizontalPodAutoscaler", "sse-gateway"), target, json!("9000"))
        },
        found: "the autoscaler's target",
    },
    Planted {
        error: "a metric that does not exist",
        check: Check::Availability,
        plant: |it| {
            let name = "/spec/metrics/0/pods/metric/name";
            it.set(("HorizontalPodAutoscaler", "sse-gateway"), name, json!("gateway_clients"))
        },
        found: "gateway_clients",
    },
    Planted {
        error: "a budget for no pod",
        check: Check::Availability,
        plant: |it| {
            let label = "/spec/selector/matchLabels/app.kubernetes.io~1name";
            *it.at("PodDisruptionBudget", "dashboard", label)? = json!("page");
            Some(())
        },
        found: "dashboard: one PodDisruptionBudget",
    },
    Planted {
        error: "pods that may all be on one node",
        check: Check::Availability,
        plant: |it| it.remove(GATEWAY, "/spec/template/spec/topologySpreadConstraints"),
        found: "sse-gateway: spread over kubernetes.io/hostname",
    },
    Planted {
        error: "events that only one server has",
        check: Check::Availability,
        plant: |it| it.remove(POSTGRES, "/spec/postgresql/synchronous"),
        found: "/spec/postgresql/synchronous/number",
    },
];
