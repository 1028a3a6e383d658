//! Rendered manifests, and how the checks find their way in them.

use serde_json::Value;

/// The documents that `kubectl kustomize` prints.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Manifests(pub(super) Vec<Value>);

impl Manifests {
    /// The resource with this kind and name.
    pub(super) fn get(&self, kind: &str, name: &str) -> Option<&Value> {
        self.0.iter().find(|resource| {
            text(resource, "/kind") == kind && text(resource, "/metadata/name") == name
        })
    }

    pub(super) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter(move |resource| text(resource, "/kind") == kind)
    }

    /// Those that operators define: the groups of CloudNativePG.
    pub(super) fn custom(&self) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(|resource| is_custom(resource))
    }

    /// Those that Kubernetes defines.
    pub(super) fn built_in(&self) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(|resource| !is_custom(resource))
    }

    pub(super) fn workloads(&self) -> impl Iterator<Item = Workload<'_>> {
        self.0.iter().filter_map(|resource| {
            let pod = resource.pointer("/spec/template/spec")?;
            Some(Workload { resource, pod })
        })
    }
}

fn is_custom(resource: &Value) -> bool {
    let version = text(resource, "/apiVersion");
    version.split_once('/').is_some_and(|(group, _)| group.ends_with("cnpg.io"))
}

/// What makes pods: a `Deployment`, a `StatefulSet` or a `Job`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Workload<'a> {
    pub(super) resource: &'a Value,
    /// The `spec` of its pods.
    pub(super) pod: &'a Value,
}

impl<'a> Workload<'a> {
    pub(super) fn name(self) -> &'a str {
        text(self.resource, "/metadata/name")
    }

    pub(super) fn containers(self) -> impl Iterator<Item = &'a Value> {
        items(self.pod, "/initContainers").iter().chain(items(self.pod, "/containers"))
    }

    /// The container of a service, or nothing for a program that only runs on request.
    pub(super) fn service(self) -> Option<&'a Value> {
        items(self.pod, "/containers").first().filter(|container| container.get("ports").is_some())
    }

    /// The labels of its pods.
    pub(super) fn labels(self) -> &'a Value {
        &self.resource["spec"]["template"]["metadata"]["labels"]
    }
}

/// The text at a JSON pointer, or nothing.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a JSON pointer, if there is one.
pub(super) fn number(value: &Value, pointer: &str) -> Option<u64> {
    value.pointer(pointer).and_then(Value::as_u64)
}

/// The elements of the array at a JSON pointer, or none.
pub(super) fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
