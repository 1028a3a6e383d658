//! The containers match this release: their settings, ports and times are those of the code and of
//! `.env.example`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use local_stack::stack::{ServiceKind, built_programs};

use crate::support::{output, root};

/// Variables that Compose does not use, and why.
const NOT_OF_COMPOSE: [(&str, &str); 6] = [
    ("PGPORT", "Postgres is not published"),
    ("NOTIFIER_PORT", "not published"),
    ("INGEST_INTERNAL_PORT", "not published"),
    ("GATEWAY_INTERNAL_PORT", "not published"),
    ("DASHBOARD_INTERNAL_PORT", "not published"),
    ("NEWCYCLE_DATA_DIR", "the data are in a volume"),
];

/// Compose's files, in the order of the command that uses both.
const COMPOSE_FILES: [&str; 2] = ["docker-compose.yml", "docker-compose.observability.yml"];

/// Programs that do one thing and exit, so that nothing can check their health.
const COMMANDS: [&str; 2] = ["migrate", "access"];

/// The secrets that each program has in Compose, by their names in `deploy/secrets.sh`. Postgres
/// has no program of ours.
const SECRETS: [(&str, &[&str]); 6] = [
    ("migrate", &["superuser", "ingest", "notifier", "access"]),
    ("access", &["access"]),
    ("ingest-api", &["ingest", "internal"]),
    ("stats-notifier", &["notifier", "internal"]),
    ("sse-gateway", &["internal"]),
    ("dashboard", &["internal"]),
];

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

/// The setting with the file of the internal secret.
const SECRET_FILE: &str = "NEWCYCLE__INTERNAL__SECRET_FILE";

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The value of a setting in a service's defaults, or in those that services share.
fn default(kind: ServiceKind, section: &str, name: &str) -> Option<u64> {
    let text = read(&format!("crates/{}/config/default.toml", kind.name()));
    let (_, rest) = text.split_once(&format!("[{section}]\n"))?;
    let section_text = rest.split("\n[").next()?;
    let value = |text: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(&format!("{name} = ")))?;
        Some(value.trim_matches(['"', 's']).parse().unwrap())
    };
    value(section_text).or_else(|| {
        let shared = ["service-kit", "statistics-stream"].map(|library| {
            std::fs::read_to_string(root().join(format!("crates/{library}/config/{section}.toml")))
        });
        shared.into_iter().flatten().find_map(|text| value(&text))
    })
}

/// The block of YAML below a name.
fn block<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let line = format!("  {name}:");
    let mut lines = text.lines().skip_while(|found| *found != line);
    assert!(lines.next().is_some(), "Compose's file has no service {name}");
    lines.take_while(|line| line.is_empty() || line.starts_with("    ")).map(str::trim).collect()
}

/// The lines of a stage of the Dockerfile.
fn stage<'a>(dockerfile: &'a str, name: &str) -> Vec<&'a str> {
    let mut lines = dockerfile.lines().skip_while(|line| !line.ends_with(&format!(" AS {name}")));
    assert!(lines.next().is_some(), "deploy/Dockerfile has no stage {name}");
    lines.take_while(|line| !line.starts_with("FROM ")).collect()
}

#[test]
fn each_variable_has_the_same_meaning_in_compose() {
    let (compose, example) = (COMPOSE_FILES.map(read).concat(), read(".env.example"));
    let variables: Vec<(&str, &str)> = example
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .collect();
    for (name, value) in &variables {
        let excepted = NOT_OF_COMPOSE.iter().any(|(excepted, _)| excepted == name);
        let used = compose.contains(&format!("${{{name}:-{value}}}"));
        assert_ne!(
            used, excepted,
            "{name}: as ${{{name}:-{value}}} in a file of Compose, or in NOT_OF_COMPOSE"
        );
    }
    for used in compose.split("${").skip(1) {
        let used = used.split('}').next().unwrap();
        let known = variables.iter().any(|(name, value)| used == format!("{name}:-{value}"));
        assert!(known, "${{{used}}} is not in .env.example with this default");
    }
}

/// The programs refuse to start otherwise.
#[test]
fn each_program_that_connects_to_postgres_decides_about_tls() {
    for text in [read("docker-compose.yml"), read("deploy/README.md")] {
        let lines = |name: &str| text.lines().filter(|line| line.trim().starts_with(name)).count();
        assert!(lines("PGHOST:") > 0);
        assert_eq!(lines("PGHOST:"), lines("PGSSLMODE:"), "{text}");
    }
}

#[test]
fn no_password_has_a_default() {
    for line in read(".env.example").lines().filter(|line| line.contains("PASSWORD=")) {
        assert!(line.ends_with('='), "{line}");
    }
}

/// Runs `deploy/secrets.sh` on a folder, and returns the passwords.
fn make_secrets(folder: &Path, variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut command = Command::new("sh");
    command.arg(root().join("deploy/secrets.sh")).arg(folder).envs(variables.iter().copied());
    let (succeeded, printed) = output(&mut command);
    assert!(succeeded && printed.is_empty(), "it prints nothing: {printed}");
    let files = std::fs::read_dir(folder.join("all")).unwrap().map(|file| file.unwrap().path());
    let name = |file: &Path| file.file_name().unwrap().to_str().unwrap().to_owned();
    files.map(|file| (name(&file), std::fs::read_to_string(&file).unwrap())).collect()
}

#[test]
fn each_container_gets_its_own_secrets_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    for volume in SECRETS.map(|(name, _)| name).into_iter().chain(["all", "postgres"]) {
        std::fs::create_dir(folder.path().join(volume)).unwrap();
    }
    let passwords = make_secrets(folder.path(), &[]);
    let different: BTreeSet<&String> = passwords.values().collect();
    assert_eq!((passwords.len(), different.len()), (5, 5), "{passwords:?}");
    assert!(passwords.values().all(|password| password.len() == 64), "{passwords:?}");
    assert_eq!(make_secrets(folder.path(), &[]), passwords, "they are made once");
    let set = [("INGEST_DATABASE_PASSWORD", "a\\\"b")];
    let passwords = make_secrets(folder.path(), &set);
    assert_eq!(passwords["ingest"], "a\\\"b", "a set one replaces the one that was made");

    let compose = read("docker-compose.yml");
    for (name, own) in SECRETS {
        let volume = folder.path().join(name);
        let mut text = String::new();
        for file in std::fs::read_dir(&volume).unwrap().map(|file| file.unwrap().path()) {
            text += &std::fs::read_to_string(&file).unwrap();
            let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{file:?}");
        }
        for (of, secret) in &passwords {
            let escaped = secret.replace('\\', "\\\\").replace('"', "\\\"");
            assert_eq!(text.contains(&escaped), own.contains(&of.as_str()), "{name}: {of}");
        }
        let (service, mounted) =
            (block(&compose, name), format!("- secrets-{name}:/run/newcycle:ro"));
        assert!(service.contains(&mounted.as_str()), "{name}: {mounted}");
        let settings = [
            ("NEWCYCLE_CONFIG", format!("{name}.toml"), own != ["internal"]),
            (SECRET_FILE, "internal-secret".to_owned(), own.contains(&"internal")),
        ];
        let settings = settings.into_iter().filter(|(.., is_used)| *is_used);
        let mut command = Command::new(built_programs().unwrap().join(name));
        for (variable, file, _) in settings {
            let line = format!("{variable}: /run/newcycle/{file}");
            assert!(service.contains(&line.as_str()), "{name}: {line}");
            command.env(variable, volume.join(file));
        }
        let (succeeded, text) = output(command.arg("print-settings"));
        assert!(succeeded, "{name}: {text}");
        for secret in passwords.values() {
            assert!(!text.contains(secret), "{name} prints a secret");
        }
        if own.contains(&"internal") {
            assert!(text.contains(volume.join("internal-secret").to_str().unwrap()), "{text}");
        }
        let volume = format!("- secrets-{name}:/secrets/{name}");
        assert!(block(&compose, "secrets").contains(&volume.as_str()), "{volume}");
        assert_eq!(compose.matches(&format!("- secrets-{name}:")).count(), 2, "{name}");
    }
}

/// Each service must know the new secret before another one sends it. A `sleep` that only records
/// what a service has stands in for the time that services have to read their files.
#[test]
fn the_internal_secret_is_replaced_in_steps_that_all_services_can_follow() {
    let folder = tempfile::tempdir().unwrap();
    for volume in SECRETS.map(|(name, _)| name).into_iter().chain(["all", "postgres", "bin"]) {
        std::fs::create_dir(folder.path().join(volume)).unwrap();
    }
    let secret =
        || std::fs::read_to_string(folder.path().join("dashboard/internal-secret")).unwrap();
    make_secrets(folder.path(), &[]);
    let old = secret();
    let sleep = folder.path().join("bin/sleep");
    std::fs::write(&sleep, "#!/bin/sh\ncat dashboard/internal-secret; echo .\n").unwrap();
    std::fs::set_permissions(&sleep, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path =
        format!("{}:{}", folder.path().join("bin").display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.arg(root().join("deploy/secrets.sh")).arg(folder.path()).arg("rotate");
    let (succeeded, steps) = output(command.env("PATH", path));
    let new = secret().trim().to_owned();
    assert!(succeeded && new != old && new.len() == 64, "{steps}");
    assert_eq!(steps, format!("{old}\n{new}\n.\n{new}\n{old}\n.\n{new}\n.\n"));
}

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

/// Prometheus sends the whole file, so it has one secret also while that is replaced.
#[test]
fn prometheus_and_grafana_get_their_secrets_if_they_run() {
    let folder = tempfile::tempdir().unwrap();
    let others = ["all", "postgres", "prometheus", "grafana"];
    for volume in SECRETS.map(|(name, _)| name).into_iter().chain(others) {
        std::fs::create_dir(folder.path().join(volume)).unwrap();
    }
    let passwords = make_secrets(folder.path(), &[]);
    let made = |file: &str| std::fs::read_to_string(folder.path().join(file)).unwrap();
    assert_eq!(made("grafana/admin-password"), passwords["grafana"]);
    assert_eq!(made("prometheus/internal-secret").trim(), passwords["internal"]);
    std::fs::write(folder.path().join("all/internal"), "first\nsecond\n").unwrap();
    make_secrets(folder.path(), &[]);
    assert_eq!(made("prometheus/internal-secret"), "first\n");
    assert_eq!(made("dashboard/internal-secret"), "first\nsecond\n");

    let compose = read("docker-compose.observability.yml");
    for (name, mounted) in [
        ("prometheus", "- secrets-prometheus:/etc/prometheus/secrets:ro"),
        ("grafana", "- secrets-grafana:/run/newcycle:ro"),
    ] {
        assert!(block(&compose, name).contains(&mounted), "{mounted}");
        let made = format!("- secrets-{name}:/secrets/{name}");
        assert!(block(&compose, "secrets").contains(&made.as_str()), "{made}");
    }
    assert!(read("deploy/prometheus/prometheus.yml").contains(": secrets/internal-secret\n"));
    let password = "GF_SECURITY_ADMIN_PASSWORD__FILE: /run/newcycle/admin-password";
    assert!(block(&compose, "grafana").contains(&password));
}

#[test]
fn prometheus_scrapes_the_internal_port_of_each_service() {
    let (native, containers) =
        (read("deploy/prometheus/targets.yml"), read("deploy/prometheus/targets.compose.yml"));
    for kind in ServiceKind::ALL {
        let port = default(kind, "internal", "port").unwrap();
        for (text, host) in [(&native, "127.0.0.1"), (&containers, kind.name())] {
            let target = format!(
                "\n- labels: {{service: {kind}}}\n  targets: [\"{host}:{port}\"]\n",
                kind = kind.name()
            );
            assert!(text.contains(&target), "{target} must be in {text}");
        }
    }
}

#[test]
fn the_command_that_makes_keys_runs_on_request_only_and_its_output_is_not_kept() {
    let compose = read("docker-compose.yml");
    let access = block(&compose, "access");
    for line in ["profiles: [access]", "driver: none"] {
        assert!(access.contains(&line), "{line}: {access:#?}");
    }
}

#[test]
fn the_images_have_the_releases_that_the_manifest_names() {
    let (manifest, dockerfile) = (read("Cargo.toml"), read("deploy/Dockerfile"));
    let value = |name: &str| {
        let value = manifest.lines().find_map(|line| line.strip_prefix(&format!("{name} = \"")));
        value.unwrap().trim_end_matches('"')
    };
    let rust = format!("\nARG RUST_IMAGE=rust:{}-slim-bookworm\n", value("rust-version"));
    let version = format!(" org.opencontainers.image.version=\"{}\" ", value("version"));
    for line in [rust, version] {
        assert!(dockerfile.contains(&line), "deploy/Dockerfile must have {line}");
    }
}

/// A digest is given with the name of an image, or as an argument of its own. None is written here.
#[test]
fn each_image_of_others_is_named_by_an_argument() {
    let dockerfile = read("deploy/Dockerfile");
    let stages: BTreeSet<&str> =
        dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    for stage in stages {
        let base = stage.split(' ').next().unwrap();
        let is_own = dockerfile.contains(&format!(" AS {base}\n"));
        assert!(base.starts_with("${") || base == "scratch" || is_own, "FROM {stage}");
    }
    for text in COMPOSE_FILES.map(read) {
        for image in text.lines().filter(|line| line.trim().starts_with("image:")) {
            assert!(image.contains("_IMAGE:-"), "{image}");
        }
    }
}

#[test]
fn each_program_has_an_image_and_a_service() {
    let (dockerfile, compose) = (read("deploy/Dockerfile"), read("docker-compose.yml"));
    for name in ServiceKind::ALL.map(ServiceKind::name).into_iter().chain(COMMANDS) {
        let stage = stage(&dockerfile, name);
        assert!(
            stage.contains(&format!("ENTRYPOINT [\"/usr/local/bin/{name}\"]").as_str()),
            "{stage:#?}"
        );
        let copied = format!("COPY --from=programs /programs/{name} /usr/local/bin/{name}");
        assert!(stage.contains(&copied.as_str()), "{stage:#?}");
        let check = format!("CMD [\"/usr/local/bin/{name}\", \"healthcheck\"]");
        let checked = stage.iter().any(|line| line.trim_start() == check);
        assert_eq!(checked, !COMMANDS.contains(&name), "{stage:#?}");
        assert_eq!(
            dockerfile.matches(&format!("--package {name}")).count(),
            2,
            "{name} must be built"
        );
        assert!(block(&compose, name).contains(&format!("target: {name}").as_str()), "{name}");
    }
}

#[test]
fn the_containers_have_the_ports_of_the_defaults() {
    let (dockerfile, compose) = (read("deploy/Dockerfile"), read("docker-compose.yml"));
    for kind in ServiceKind::ALL {
        let (public, internal) =
            (default(kind, "http", "port"), default(kind, "internal", "port").unwrap());
        let ports: Vec<String> =
            public.into_iter().chain([internal]).map(|port| port.to_string()).collect();
        let exposed = format!("EXPOSE {}", ports.join(" "));
        assert!(stage(&dockerfile, kind.name()).contains(&exposed.as_str()), "{kind}: {exposed}");
        let service = block(&compose, kind.name());
        let published: Vec<&&str> =
            service.iter().filter(|line| line.starts_with("- ${PUBLISH_ADDRESS")).collect();
        assert_eq!(published.len(), usize::from(public.is_some()), "{kind}: {published:?}");
        for (line, port) in published.into_iter().zip(public) {
            assert!(line.ends_with(&format!("}}:{port}")), "{kind} listens on {port}: {line}");
        }
    }
    let notifier = default(ServiceKind::StatsNotifier, "internal", "port").unwrap();
    let upstreams = format!("NEWCYCLE__UPSTREAM__ADDRESSES: http://stats-notifier:{notifier}");
    assert!(block(&compose, "sse-gateway").contains(&upstreams.as_str()));
}

#[test]
fn each_public_port_answers_to_the_name_of_its_container() {
    let compose = read("docker-compose.yml");
    for kind in ServiceKind::ALL {
        let hosts = format!("NEWCYCLE__HTTP__ALLOWED_HOSTS: {},${{PUBLISH_HOSTS:-}}", kind.name());
        let set = block(&compose, kind.name()).contains(&hosts.as_str());
        assert_eq!(set, default(kind, "http", "port").is_some(), "{kind}: {hosts}");
    }
}

/// A service that is killed while it drains loses the requests in progress.
#[test]
fn a_container_may_take_longer_to_stop_than_its_program_does() {
    let compose = read("docker-compose.yml");
    for kind in ServiceKind::ALL {
        let drain = default(kind, "http", "drain_timeout")
            .or_else(|| default(kind, "stream", "drain_timeout"));
        // The gateway ends its streams first, and then lets its servers stop.
        let times = if kind == ServiceKind::SseGateway { 2 } else { 1 };
        let needed = Duration::from_secs(drain.unwrap() * times + 1);
        let service = block(&compose, kind.name());
        let grace = service
            .iter()
            .find_map(|line| line.strip_prefix("stop_grace_period: ")?.strip_suffix('s'));
        let grace = Duration::from_secs(grace.unwrap().parse().unwrap());
        assert!(grace > needed, "{kind} needs {needed:?} and has {grace:?}");
    }
}

#[test]
fn a_container_may_have_as_many_files_open_as_the_gateway_has_clients() {
    let compose = read("docker-compose.yml");
    let files = compose.lines().find_map(|line| line.trim().strip_prefix("nofile: ")).unwrap();
    let files: u64 = files.parse().unwrap();
    assert!(
        files > default(ServiceKind::SseGateway, "stream", "max_subscribers").unwrap(),
        "{files}"
    );
}
