//! The containers match this release: their settings, ports and times are those of the code and of
//! `.env.example`.

mod networks;
mod secrets;

use std::collections::BTreeSet;
use std::time::Duration;

use local_stack::stack::ServiceKind;

use crate::support::root;

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
