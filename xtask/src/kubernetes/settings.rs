//! Whether each program accepts what its container sets, and whether the manifests fit the settings
//! that result: `print-settings` of the program itself says which.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use local_stack::stack::built_programs;
use serde_json::{Value, json};
use tokio::process::Command;

use super::manifests::{Manifests, Workload, items, number, text};
use super::pods::program;
use super::tools::run;

/// Where the containers have their secrets.
const MOUNTED: &str = "/run/newcycle/";

/// What operators make: a secret, and its keys.
const OF_OPERATORS: [(&str, &[&str]); 1] = [("postgres-ca", &["ca.crt", "ca.key"])];

/// How much longer than it drains a service may take to end.
const MARGIN: Duration = Duration::from_secs(1);

/// The connections of one stats-notifier besides those of its history pool, by docs/operations.md
/// and `roles.max_notifier_connections`.
const NOTIFIER_CONNECTIONS: u64 = 7;

/// What Postgres keeps for superusers (`superuser_reserved_connections`).
const RESERVED_CONNECTIONS: u64 = 3;

/// What Postgres allows by default (`max_connections`).
const DEFAULT_MAX_CONNECTIONS: u64 = 100;

/// The secrets, as `secrets.sh` makes them.
#[derive(Debug)]
pub(super) struct Secrets {
    /// Has a folder for each secret, with a file for each key.
    pub(super) folder: PathBuf,
    pub(super) printed: Manifests,
}

impl Secrets {
    /// The keys of a secret, or none if nothing makes it.
    fn keys(&self, name: &str) -> Option<BTreeSet<String>> {
        if let Some((_, keys)) = OF_OPERATORS.iter().find(|(known, _)| *known == name) {
            return Some(keys.iter().map(|key| (*key).to_owned()).collect());
        }
        let secret = self.printed.get("Secret", name)?;
        Some(secret["data"].as_object()?.keys().cloned().collect())
    }
}

/// The settings in effect of a container's program.
#[derive(Debug, Default)]
struct Settings(toml::Table);

impl Settings {
    fn get(&self, key: &str) -> Option<&toml::Value> {
        let (section, name) = key.rsplit_once('.')?;
        section.split('.').try_fold(&self.0, |table, name| table.get(name)?.as_table())?.get(name)
    }

    fn number(&self, key: &str) -> Option<u64> {
        u64::try_from(self.get(key)?.as_integer()?).ok()
    }

    fn text(&self, key: &str) -> &str {
        self.get(key).and_then(toml::Value::as_str).unwrap_or_default()
    }

    fn duration(&self, key: &str) -> Option<Duration> {
        humantime::parse_duration(self.text(key)).ok()
    }
}

/// All that is wrong.
///
/// # Errors
/// A program cannot be run.
pub(super) async fn mistakes(
    manifests: &Manifests,
    secrets: &Secrets,
) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut settings = BTreeMap::new();
    for workload in manifests.workloads() {
        let files = files(workload, secrets, &mut found);
        for container in workload.containers() {
            let variables = variables(manifests, container, &files, &mut found);
            match print_settings(container, &variables).await? {
                // The one that ends is last, and the others only wait for it.
                Ok(printed) => drop(settings.insert(workload.name(), printed)),
                Err(refused) => found.push(format!("{}: {refused}", workload.name())),
            }
        }
    }
    for workload in manifests.workloads() {
        let Some(own) = settings.get(workload.name()) else { continue };
        let mistakes = of_service(manifests, workload, own);
        found.extend(mistakes.iter().map(|mistake| format!("{}: {mistake}", workload.name())));
    }
    found.extend(upstreams(manifests, &settings));
    found.extend(database(manifests, &settings));
    found.extend(connections(manifests, &settings));
    found.extend(subscribers(manifests, &settings));
    Ok(found)
}

/// The files that a pod has, each with the file that has the same content here.
fn files(
    workload: Workload<'_>,
    secrets: &Secrets,
    found: &mut Vec<String>,
) -> BTreeMap<String, PathBuf> {
    let mut files = BTreeMap::new();
    let volumes = items(workload.pod, "/volumes").iter();
    for secret in volumes.flat_map(|volume| items(volume, "/projected/sources")) {
        let name = text(secret, "/secret/name");
        let Some(keys) = secrets.keys(name) else {
            found.push(format!("{}: nothing makes the secret {name}", workload.name()));
            continue;
        };
        let chosen: Vec<(String, String)> = match items(secret, "/secret/items") {
            [] => keys.iter().map(|key| (key.clone(), key.clone())).collect(),
            items => items
                .iter()
                .map(|item| (text(item, "/key").to_owned(), text(item, "/path").to_owned()))
                .collect(),
        };
        for (key, path) in chosen {
            if !keys.contains(&key) {
                found.push(format!("{}: the secret {name} has no {key}", workload.name()));
            }
            files.insert(format!("{MOUNTED}{path}"), secrets.folder.join(name).join(key));
        }
    }
    files
}

/// The variables of a container, with the paths of files that are here.
fn variables(
    manifests: &Manifests,
    container: &Value,
    files: &BTreeMap<String, PathBuf>,
    found: &mut Vec<String>,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for source in items(container, "/envFrom") {
        let name = text(source, "/configMapRef/name");
        let Some(map) = manifests.get("ConfigMap", name) else {
            found.push(format!("there is no ConfigMap {name}"));
            continue;
        };
        for (name, value) in map["data"].as_object().into_iter().flatten() {
            variables.insert(name.clone(), value.as_str().unwrap_or_default().to_owned());
        }
    }
    for variable in items(container, "/env") {
        variables.insert(text(variable, "/name").to_owned(), text(variable, "/value").to_owned());
    }
    for (name, value) in &mut variables {
        if let Some(file) = files.get(value) {
            *value = file.display().to_string();
        } else if value.starts_with(MOUNTED) {
            found.push(format!("{name} names {value}, and no secret has this file"));
        }
    }
    variables
}

/// The settings that a container's program reads from these variables alone, or why it refuses them
/// or its arguments.
async fn print_settings(
    container: &Value,
    variables: &BTreeMap<String, String>,
) -> anyhow::Result<Result<Settings, String>> {
    let program = built_programs()?.join(program(container));
    let start = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).env_clear().envs(variables);
        command
    };
    let arguments: Vec<&str> = items(container, "/args").iter().filter_map(Value::as_str).collect();
    let known = run(start(&[&arguments[..], &["--help"]].concat()), "").await?;
    let printed = run(start(&["print-settings"]), "").await?;
    if let Some(refused) = [&known, &printed].into_iter().find(|outcome| !outcome.succeeded) {
        return Ok(Err(refused.printed.trim().to_owned()));
    }
    let table = printed.printed.parse().with_context(|| printed.printed.clone())?;
    Ok(Ok(Settings(table)))
}

/// The ports of a service and the time that it has to stop.
fn of_service(manifests: &Manifests, workload: Workload<'_>, settings: &Settings) -> Vec<String> {
    let Some(container) = workload.service() else { return Vec::new() };
    let mut found = Vec::new();
    let port = |name: &str| settings.number(&format!("{name}.port"));
    let named = ["http", "internal"].map(|name| port(name).map(|port| (name, port)));
    let ports: Vec<Value> = named
        .iter()
        .flatten()
        .map(|(name, port)| json!({"name": name, "containerPort": port}))
        .collect();
    if items(container, "/ports") != ports {
        found.push(format!("the ports are {}, must be {ports:?}", container["ports"]));
    }
    // Clients find the public port, and gateways the internal one of a service without.
    let served = named.iter().flatten().next();
    let served =
        served.map(|(name, port)| json!([{"name": name, "port": port, "targetPort": name}]));
    let service = manifests.get("Service", workload.name()).map(|service| &service["spec"]);
    if service.map(|spec| &spec["ports"]) != served.as_ref() {
        found.push(format!("the Service must have the ports {served:?}"));
    }
    let selector = service.map(|spec| &spec["selector"]);
    if !selector.is_some_and(|selector| is_part_of(selector, workload.labels())) {
        found.push(format!("the Service selects {selector:?}, which are other pods"));
    }
    if settings.text("internal.secret_file").is_empty() {
        found.push("internal.secret_file must be set".to_owned());
    }
    found.extend(time_to_stop(workload, container, settings));
    found
}

/// A service that is killed while it drains loses the requests in progress. First, proxies need
/// time to learn that it ends.
fn time_to_stop(workload: Workload<'_>, container: &Value, settings: &Settings) -> Option<String> {
    let sleep =
        Duration::from_secs(number(container, "/lifecycle/preStop/sleep/seconds").unwrap_or(0));
    let drains = ["http.drain_timeout", "stream.drain_timeout"];
    let Some(drain) = drains.iter().find_map(|key| settings.duration(key)) else {
        return Some("the program has no setting for its drain".to_owned());
    };
    // The gateway ends its streams first, and then lets its servers stop.
    let times = if workload.name() == "sse-gateway" { 2 } else { 1 };
    let needed = sleep + drain * times + MARGIN;
    let given = number(workload.pod, "/terminationGracePeriodSeconds").map(Duration::from_secs);
    (given <= Some(needed)).then(|| {
        format!("terminationGracePeriodSeconds is {given:?}, must be longer than {needed:?}")
    })
}

/// Whether all labels of a selector are among those of a pod.
pub(super) fn is_part_of(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().filter(|selector| !selector.is_empty());
    selector.is_some_and(|selector| {
        selector.iter().all(|(name, value)| labels.get(name) == Some(value))
    })
}

/// A gateway must know every stats-notifier by its own name: any of them can become the leader.
fn upstreams(manifests: &Manifests, settings: &BTreeMap<&str, Settings>) -> Vec<String> {
    let name = "stats-notifier";
    let port = settings.get(name).and_then(|settings| settings.number("internal.port"));
    let replicas = replicas(manifests, name);
    let expected: BTreeSet<String> = (0..replicas)
        .map(|number| format!("http://{name}-{number}.{name}:{}", port.unwrap_or_default()))
        .collect();
    let mut found = Vec::new();
    for follower in ["sse-gateway", "dashboard"] {
        let addresses = settings.get(follower).map(|own| own.text("upstream.addresses"));
        let addresses: BTreeSet<String> =
            addresses.into_iter().flat_map(|list| list.split(',')).map(str::to_owned).collect();
        if addresses != expected {
            found.push(format!(
                "{follower}: upstream.addresses must be {expected:?}, for {replicas} replicas"
            ));
        }
    }
    found
}

/// The largest number of a workload's pods, apart from those that an update adds.
pub(super) fn replicas(manifests: &Manifests, name: &str) -> u64 {
    let autoscaler = manifests.get("HorizontalPodAutoscaler", name);
    if let Some(most) = autoscaler.and_then(|autoscaler| number(autoscaler, "/spec/maxReplicas")) {
        return most;
    }
    let workload = manifests.workloads().find(|workload| workload.name() == name);
    workload.map_or(0, |workload| number(workload.resource, "/spec/replicas").unwrap_or(1))
}

/// The database that the operator makes is the one that `migrate` and the services use.
fn database(manifests: &Manifests, settings: &BTreeMap<&str, Settings>) -> Vec<String> {
    let Some(cluster) = manifests.of_kind("Cluster").next() else {
        return vec!["there is no Cluster".to_owned()];
    };
    let host = format!("{}-rw", text(cluster, "/metadata/name"));
    let name = text(cluster, "/spec/bootstrap/initdb/database");
    let owner = text(cluster, "/spec/bootstrap/initdb/owner");
    let mut expected = vec![("migrate", "database.user", owner)];
    for program in ["migrate", "access", "ingest-api", "stats-notifier"] {
        expected.push((program, "database.host", &host));
        expected.push((program, "database.name", name));
        expected.push((program, "database.sslmode", "verify-full"));
    }
    expected
        .into_iter()
        .filter(|(program, key, value)| {
            settings.get(program).map(|own| own.text(key)) != Some(value)
        })
        .map(|(program, key, value)| format!("{program}: {key} must be {value}"))
        .collect()
}

/// The limits of the roles permit what the pools of all pods may use, and Postgres permits the
/// limits.
fn connections(manifests: &Manifests, settings: &BTreeMap<&str, Settings>) -> Vec<String> {
    let setting = |program: &str, key: &str| settings.get(program)?.number(key);
    let check = || {
        let limit = |role: &str| setting("migrate", &format!("roles.max_{role}_connections"));
        let ingest = setting("ingest-api", "pool.max_connections")?
            + setting("ingest-api", "read_pool.max_connections")?
            + 1;
        let notifier =
            NOTIFIER_CONNECTIONS + setting("stats-notifier", "history.pool.max_connections")?;
        // An update of a Deployment adds a pod before it ends one.
        let used = [
            ("ingest", (replicas(manifests, "ingest-api") + 1) * ingest),
            ("notifier", replicas(manifests, "stats-notifier") * notifier),
        ];
        let mut found = Vec::new();
        for (role, used) in used {
            let limit = limit(role)?;
            if used > limit {
                found.push(format!("roles.max_{role}_connections is {limit}, must be {used}"));
            }
        }
        let needed =
            limit("ingest")? + limit("notifier")? + limit("access")? + RESERVED_CONNECTIONS;
        let cluster = manifests.of_kind("Cluster").next()?;
        let given = text(cluster, "/spec/postgresql/parameters/max_connections");
        let given = given.parse().unwrap_or(DEFAULT_MAX_CONNECTIONS);
        if needed > given {
            found.push(format!("max_connections is {given}, must be at least {needed}"));
        }
        Some(found)
    };
    check().unwrap_or_else(|| vec!["the numbers of connections are not all known".to_owned()])
}

/// The autoscaler of the gateway adds one before the others are full, even if one of two ends.
fn subscribers(manifests: &Manifests, settings: &BTreeMap<&str, Settings>) -> Option<String> {
    let autoscaler = manifests.get("HorizontalPodAutoscaler", "sse-gateway")?;
    let target = autoscaler.pointer("/spec/metrics/0/pods/target/averageValue");
    let target = target.and_then(Value::as_str).and_then(|target| target.parse::<u64>().ok());
    let most = settings.get("sse-gateway").and_then(|own| own.number("stream.max_subscribers"))?;
    let is_low_enough = target.is_some_and(|target| target > 0 && target <= most / 2);
    (!is_low_enough).then(|| {
        format!(
            "sse-gateway: the autoscaler's target is {target:?}, must be at most half of {most}"
        )
    })
}

/// Makes the folder for [`Secrets`] and checks what `secrets.sh` prints.
pub(super) async fn make_secrets(
    tools: &super::tools::Tools,
    folder: &Path,
) -> anyhow::Result<Secrets> {
    super::tools::private_folder(folder)?;
    let printed = tools.secrets(folder).await?;
    let again = tools.secrets(folder).await?;
    ensure!(printed == again, "deploy/kubernetes/secrets.sh must print the same secrets again");
    Ok(Secrets { folder: folder.to_owned(), printed })
}
