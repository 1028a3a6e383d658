//! The settings of the native stack, from the environment and the checkout's `.env` (see
//! `.env.example`). Passwords that are not set there are random, and in the data folder.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use local_stack::postgres::ClusterSettings;
use local_stack::stack::{Ports, Replicas, ServiceKind, StackSettings, built_programs};
use migrate::settings::RoleSettings;
use postgres_kit::database::DatabaseSettings;
use secrecy::{ExposeSecret, SecretString};

use crate::command::in_checkout;
use crate::secrets::SecretFolder;

/// The variables of `.env.example`, in its order.
const VARIABLES: [&str; 22] = [
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGPASSWORD",
    "INGEST_DATABASE_PASSWORD",
    "NOTIFIER_DATABASE_PASSWORD",
    "ACCESS_DATABASE_PASSWORD",
    "INGEST_PORT",
    "GATEWAY_PORT",
    "NOTIFIER_PORT",
    "DASHBOARD_PORT",
    "INGEST_INTERNAL_PORT",
    "GATEWAY_INTERNAL_PORT",
    "DASHBOARD_INTERNAL_PORT",
    "PUBLISH_ADDRESS",
    "PUBLISH_HOSTS",
    "GRAFANA_PORT",
    "GRAFANA_PASSWORD",
    "POSTGRES_IMAGE",
    "PROMETHEUS_IMAGE",
    "GRAFANA_IMAGE",
    "NEWCYCLE_DATA_DIR",
];

/// The file of the secret that internal ports ask for.
const INTERNAL_SECRET: &str = "internal";

#[derive(Debug)]
pub(crate) struct Settings {
    /// The folder of its data, its lock and its log.
    pub(crate) folder: PathBuf,
    /// The superuser's connection. Passwords that are not set are empty, until
    /// [`Settings::make_passwords`].
    pub(crate) postgres_port: u16,
    pub(crate) database: DatabaseSettings,
    pub(crate) roles: RoleSettings,
    pub(crate) ports: Ports,
    /// Further names that the public ports answer to, separated by commas.
    hosts: String,
}

impl Settings {
    /// Reads the environment, then the checkout's `.env` for variables that are not set.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let variables = Variables::read(&in_checkout(""))?;
        variables.warn();
        let text = |variable, default| variables.text(variable, default);
        let port = |variable, default| variables.port(variable, default);
        let postgres_port = port("PGPORT", 5432)?;
        let database = DatabaseSettings::local(
            postgres_port,
            &text("PGDATABASE", "newcycle"),
            &text("PGUSER", "newcycle"),
            &text("PGPASSWORD", ""),
        );
        let roles = RoleSettings {
            ingest_password: SecretString::from(text("INGEST_DATABASE_PASSWORD", "")),
            notifier_password: SecretString::from(text("NOTIFIER_DATABASE_PASSWORD", "")),
            access_password: SecretString::from(text("ACCESS_DATABASE_PASSWORD", "")),
            max_ingest_connections: 0,
            max_notifier_connections: 0,
            max_access_connections: 0,
        };
        let ports = Ports {
            stats_notifier: port("NOTIFIER_PORT", 8083)?,
            ingest_api: port("INGEST_PORT", 8080)?,
            ingest_api_internal: port("INGEST_INTERNAL_PORT", 9080)?,
            sse_gateway: port("GATEWAY_PORT", 8081)?,
            sse_gateway_internal: port("GATEWAY_INTERNAL_PORT", 9081)?,
            dashboard: port("DASHBOARD_PORT", 8082)?,
            dashboard_internal: port("DASHBOARD_INTERNAL_PORT", 9082)?,
        };
        let folder = std::path::absolute(text("NEWCYCLE_DATA_DIR", ".newcycle"))?;
        Ok(Self { folder, postgres_port, database, roles, ports, hosts: text("PUBLISH_HOSTS", "") })
    }

    /// Fills in the passwords that are not set. Each is made once, and kept in the data folder.
    ///
    /// # Errors
    /// The database was made with a password that is not known.
    pub(crate) fn make_passwords(&mut self) -> anyhow::Result<()> {
        const SUPERUSER: &str = "superuser";
        let secrets = SecretFolder::of(&self.folder);
        let (postgres, _) = self.postgres_folder();
        let is_set = !self.database.password.expose_secret().is_empty();
        ensure!(
            is_set || secrets.read(SUPERUSER)?.is_some() || !postgres.join("data").exists(),
            "the password of the database in {} is not known: set PGPASSWORD, in .env or for this \
             command (before passwords were random, it was newcycle)",
            postgres.display()
        );
        for (password, name) in [
            (&mut self.database.password, SUPERUSER),
            (&mut self.roles.ingest_password, "ingest"),
            (&mut self.roles.notifier_password, "notifier"),
            (&mut self.roles.access_password, "access"),
        ] {
            if password.expose_secret().is_empty() {
                *password = secrets.password(name)?;
            }
        }
        Ok(())
    }

    /// The URL of a service's public port.
    pub(crate) fn url(&self, service: ServiceKind) -> String {
        format!("http://127.0.0.1:{}", self.ports.public(service))
    }

    /// Refuses ports that are in use, and a port that is set twice.
    pub(crate) fn check_ports(&self) -> anyhow::Result<()> {
        let ports = [("PGPORT", self.postgres_port)].into_iter().chain(self.ports.variables());
        let mut taken = Vec::new();
        for (variable, port) in ports {
            // Kept open until all are checked, so that the second use of a port fails.
            taken.push(TcpListener::bind(("127.0.0.1", port)).with_context(|| {
                format!("port {port} is taken: set {variable} to another one, in .env or for this command")
            })?);
        }
        Ok(())
    }

    /// The settings of the services, with or without the dashboard.
    pub(crate) fn stack(&self, with_page: bool) -> anyhow::Result<StackSettings> {
        let mut settings = StackSettings {
            programs: built_programs()?,
            database: self.database.clone(),
            roles: self.roles.clone(),
            internal_secret: SecretFolder::of(&self.folder).file(INTERNAL_SECRET)?,
            replicas: Replicas { dashboard: with_page.into(), ..Replicas::ONE },
            ports: vec![self.ports],
            variables: Vec::new(),
        };
        if !self.hosts.is_empty() {
            for service in [ServiceKind::IngestApi, ServiceKind::SseGateway, ServiceKind::Dashboard]
            {
                settings.set(&[(service, "NEWCYCLE__HTTP__ALLOWED_HOSTS", &self.hosts)]);
            }
        }
        Ok(settings)
    }

    /// The settings of Postgres.
    pub(crate) fn cluster(&self) -> ClusterSettings {
        ClusterSettings {
            folder: self.postgres_folder().0,
            port: self.postgres_port,
            user: self.database.user.clone(),
            password: self.database.password.expose_secret().to_owned(),
            durable: true,
            parameters: Vec::new(),
        }
    }

    /// The folder of Postgres' data, and the reason if it is not below [`Settings::folder`]: as
    /// root, Postgres runs as another user, who may not be able to enter that.
    pub(crate) fn postgres_folder(&self) -> (PathBuf, Option<String>) {
        let closed = |folder: &Path| {
            std::fs::metadata(folder)
                .is_ok_and(|metadata| metadata.permissions().mode() & 0o001 == 0)
        };
        let root = rustix::process::geteuid().is_root();
        match self.folder.ancestors().find(|folder| root && closed(folder)) {
            None => (self.folder.join("postgres"), None),
            Some(folder) => {
                let name = self.folder.to_string_lossy().replace('/', "-");
                let elsewhere = PathBuf::from(format!("/var/lib/newcycle{name}"));
                let why = format!(
                    "Postgres runs as the user postgres, who cannot enter {}: its data are in {}",
                    folder.display(),
                    elsewhere.display()
                );
                (elsewhere, Some(why))
            }
        }
    }
}

/// Variables: those of the environment, then those of the file `.env`.
struct Variables {
    file: BTreeMap<String, String>,
    /// The names in the file that nothing reads.
    ignored: Vec<String>,
}

/// Whether Compose, or docker-compose.yml, reads a variable that the stack does not.
fn is_of_compose(variable: &str) -> bool {
    variable == "NEWCYCLE_REVISION"
        || ["COMPOSE_", "DOCKER_", "BUILDKIT_"].iter().any(|prefix| variable.starts_with(prefix))
}

impl Variables {
    /// Reads `.env` in this folder, and in no other: above the checkout, it belongs to something
    /// else. Nothing of it enters the environment of this process, and so of what this runs: it is
    /// for the stack, not for cargo or npm.
    fn read(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join(".env");
        let mut file = BTreeMap::new();
        if path.exists() {
            let unreadable = || format!("{} cannot be read", path.display());
            for variable in dotenvy::from_path_iter(&path).with_context(unreadable)? {
                let (name, value) = variable.with_context(unreadable)?;
                file.insert(name, value);
            }
        }
        let (file, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            file.into_iter().partition(|(name, _)| VARIABLES.contains(&name.as_str()));
        let ignored: Vec<_> = others.into_keys().filter(|name| !is_of_compose(name)).collect();
        Ok(Self { file, ignored })
    }

    /// Prints a warning for each ignored variable.
    fn warn(&self) {
        for name in &self.ignored {
            // Standard output may be JSON.
            let _closed = writeln!(
                std::io::stderr(),
                ".env sets {name}, which has no effect: .env.example lists all variables"
            );
        }
    }

    fn text(&self, variable: &str, default: &str) -> String {
        let set = std::env::var(variable).ok().or_else(|| self.file.get(variable).cloned());
        set.filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
    }

    fn port(&self, variable: &str, default: u16) -> anyhow::Result<u16> {
        let text = self.text(variable, &default.to_string());
        match text.parse() {
            Ok(0) | Err(_) => {
                bail!("{variable}={text} is not a port: it must be a number from 1 to 65535")
            }
            Ok(port) => Ok(port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_are_those_of_the_example() {
        let example = std::fs::read_to_string(in_checkout(".env.example")).unwrap();
        let lines = example.lines().filter(|line| !line.starts_with('#'));
        let names = lines.filter_map(|line| line.split_once('=')).map(|(name, _)| name);
        assert_eq!(names.collect::<Vec<_>>(), VARIABLES);
    }

    #[test]
    fn only_the_file_of_the_folder_and_only_known_variables_are_read() {
        let outside = tempfile::tempdir().unwrap();
        let checkout = outside.path().join("checkout");
        std::fs::create_dir(&checkout).unwrap();
        std::fs::write(outside.path().join(".env"), "INGEST_PORT=1\n").unwrap();
        assert!(Variables::read(&checkout).unwrap().file.is_empty());
        let own = "# a comment\nGATEWAY_PORT=\"2\"\nRUSTFLAGS=-v\nNEWCYCLE__HTTP__PORT=3\n\
                   COMPOSE_PROJECT_NAME=a\nDOCKER_HOST=b\nNEWCYCLE_REVISION=c\n";
        std::fs::write(checkout.join(".env"), own).unwrap();
        let Variables { file, ignored } = Variables::read(&checkout).unwrap();
        assert_eq!(ignored, ["NEWCYCLE__HTTP__PORT", "RUSTFLAGS"]);
        assert_eq!(file, BTreeMap::from([("GATEWAY_PORT".to_owned(), "2".to_owned())]));
    }

    #[test]
    fn a_malformed_file_is_named() {
        let checkout = tempfile::tempdir().unwrap();
        std::fs::write(checkout.path().join(".env"), "INGEST_PORT='8080\n").unwrap();
        let Err(error) = Variables::read(checkout.path()) else { panic!("it must be refused") };
        assert!(error.to_string().contains(".env cannot be read"), "{error:#}");
    }
}
