//! Each container gets its own secrets and no other, from `deploy/secrets.sh`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use local_stack::stack::built_programs;

use super::{block, read};
use crate::support::{output, root};

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

/// The setting with the file of the internal secret.
const SECRET_FILE: &str = "NEWCYCLE__INTERNAL__SECRET_FILE";

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
