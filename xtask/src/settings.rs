//! The settings of the native stack, from the environment and `.env` (see `.env.example`).

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use local_stack::postgres::ClusterSettings;
use local_stack::stack::{Ports, Replicas, StackSettings, built_programs};
use migrate::settings::RoleSettings;
use postgres_kit::database::DatabaseSettings;
use secrecy::{ExposeSecret, SecretString};

#[derive(Debug)]
pub(crate) struct Settings {
    /// The folder of its data, its lock and its log.
    pub(crate) folder: PathBuf,
    /// The superuser's connection.
    pub(crate) database: DatabaseSettings,
    pub(crate) roles: RoleSettings,
    pub(crate) ports: Ports,
}

impl Settings {
    /// Reads the environment, then `.env` for variables that are not set.
    pub(crate) fn load() -> anyhow::Result<Self> {
        match dotenvy::dotenv() {
            Err(error) if !error.not_found() => bail!("the file .env cannot be read: {error}"),
            _ => {}
        }
        let database = DatabaseSettings {
            host: "127.0.0.1".to_owned(),
            port: port("PGPORT", 5432)?,
            name: text("PGDATABASE", "newcycle"),
            user: text("PGUSER", "newcycle"),
            password: SecretString::from(text("PGPASSWORD", "newcycle")),
            connect_timeout: service_kit::settings::NonZeroDuration::from_millis(5_000),
            pooler: false,
        };
        let roles = RoleSettings {
            ingest_password: SecretString::from(text(
                "INGEST_DATABASE_PASSWORD",
                "newcycle-ingest",
            )),
            notifier_password: SecretString::from(text(
                "NOTIFIER_DATABASE_PASSWORD",
                "newcycle-notifier",
            )),
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
        Ok(Self { folder, database, roles, ports })
    }

    /// Refuses ports that are in use, and a port that is set twice.
    pub(crate) fn check_ports(&self) -> anyhow::Result<()> {
        let ports = [("PGPORT", self.database.port)].into_iter().chain(self.ports.variables());
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
        Ok(StackSettings {
            programs: built_programs()?,
            database: self.database.clone(),
            roles: self.roles.clone(),
            replicas: Replicas { dashboard: with_page.into(), ..Replicas::ONE },
            ports: vec![self.ports],
            variables: Vec::new(),
        })
    }

    /// The settings of Postgres.
    pub(crate) fn cluster(&self) -> ClusterSettings {
        ClusterSettings {
            folder: self.postgres_folder().0,
            port: self.database.port,
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

fn text(variable: &str, default: &str) -> String {
    std::env::var(variable)
        .ok()
        .filter(|value| !value.is_empty())
        .unwrap_or_else(|| default.to_owned())
}

fn port(variable: &str, default: u16) -> anyhow::Result<u16> {
    let text = text(variable, &default.to_string());
    match text.parse() {
        Ok(0) | Err(_) => {
            bail!("{variable}={text} is not a port: it must be a number from 1 to 65535")
        }
        Ok(port) => Ok(port),
    }
}
