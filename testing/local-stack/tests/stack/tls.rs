//! Connections to a Postgres that has TLS, with a certificate that names `localhost`.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use local_stack::postgres::{Cluster, Installation};
use local_stack::stack::{Replicas, ServiceKind, Variable};
use local_stack::test_database::{TestDatabase, installations, service_programs};
use postgres_kit::database::DatabaseSettings;
use postgres_kit::tls::{RootCertificates, SslMode};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, SerialNumber,
};
use tempfile::TempDir;
use tokio_postgres::error::SqlState;

use crate::own_postgres::{OwnPostgres, connect};
use crate::replicas::Services;

/// Only connections with TLS are accepted.
const ONLY_TLS: &str = "hostssl all all all scram-sha-256\n";

/// A CA that signs certificates. Its own certificate is in a file.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn create(name: &str) -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let folder = tempfile::Builder::new().prefix("newcycle-tls-").tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { issuer: Issuer::new(parameters, key), folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Writes a certificate for `localhost` and its key into a folder, for its owner.
    fn issue(&self, folder: &Path) {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
        parameters.serial_number = Some(SerialNumber::from(7));
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let owner = std::fs::metadata(folder).unwrap();
        for (name, text) in [("server.crt", certificate.pem()), ("server.key", key.serialize_pem())]
        {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
    }
}

/// The Postgres of this machine, which is the last one: a second version, which comes from a Python
/// package, is built without TLS.
fn with_tls() -> Installation {
    installations().pop().unwrap()
}

/// A Postgres with or without TLS, and the services' database.
async fn start(authority: Option<&Authority>) -> (OwnPostgres, Cluster) {
    let mut own = OwnPostgres::new(with_tls(), "tls");
    let mut cluster = own.start_migrated().await;
    if let Some(authority) = authority {
        cluster.stop();
        authority.issue(&own.settings.data());
        std::fs::write(own.settings.data().join("pg_hba.conf"), ONLY_TLS).unwrap();
        own.settings.parameters.push("ssl=on".to_owned());
        cluster = own.start();
    }
    (own, cluster)
}

/// How a superuser connects with TLS.
fn verified(own: &OwnPostgres, host: &str, authority: &Authority) -> DatabaseSettings {
    DatabaseSettings {
        host: host.into(),
        sslmode: Some(SslMode::VerifyFull),
        sslrootcert: RootCertificates::read(&authority.file()).unwrap(),
        ..own.database()
    }
}

/// Why a connection fails, which must not be a refusal by the server: nothing is sent to a server
/// that has not proved its name.
async fn refusal(database: &DatabaseSettings) -> String {
    let error = database.connect(&database.connection("test")).await.err().unwrap();
    assert_eq!(error.code(), None, "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn only_the_server_that_proves_its_name_gets_a_password() {
    let (authority, other) = (Authority::create("its CA"), Authority::create("another CA"));
    let (own, _cluster) = start(Some(&authority)).await;
    let client = connect(&verified(&own, "localhost", &authority)).await;
    let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert!(client.query_one(encrypted, &[]).await.unwrap().get::<_, bool>(0));

    let unknown = refusal(&verified(&own, "localhost", &other)).await;
    assert!(unknown.contains("UnknownIssuer") || unknown.contains("BadSignature"), "{unknown}");
    // It leads to the same server, but the certificate does not name it.
    let misnamed = refusal(&verified(&own, "127.0.0.1", &authority)).await;
    assert!(misnamed.contains("not valid for"), "{misnamed}");
    let nothing = DatabaseSettings {
        sslrootcert: RootCertificates::default(),
        ..verified(&own, "localhost", &authority)
    };
    assert!(refusal(&nothing).await.contains("UnknownIssuer"));

    let plain = DatabaseSettings { sslmode: Some(SslMode::Disable), ..own.database() };
    let error = plain.connect(&plain.connection("test")).await.err().unwrap();
    assert_eq!(error.code(), Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION));
}

#[tokio::test]
async fn a_server_without_tls_gets_no_password() {
    let authority = Authority::create("its CA");
    let (own, _cluster) = start(None).await;
    let refused = refusal(&verified(&own, "localhost", &authority)).await;
    assert!(refused.contains("server does not support TLS"), "{refused}");
}

/// The server accepts no other connections, so every connection of the services has TLS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_services_work_with_tls() {
    let authority = Authority::create("its CA");
    let (own, _cluster) = start(Some(&authority)).await;
    let database = verified(&own, "localhost", &authority);
    let again = migrate::migrate(&database, &TestDatabase::roles()).await.unwrap();
    assert_eq!(again.applied, Vec::<String>::new());
    let file = authority.file();
    let file = file.to_str().unwrap();
    let variables: Vec<Variable<'_>> = [ServiceKind::IngestApi, ServiceKind::StatsNotifier]
        .into_iter()
        .flat_map(|service| {
            [(service, "PGSSLMODE", "verify-full"), (service, "PGSSLROOTCERT", file)]
        })
        .collect();
    let mut services = Services::start_on(database, Replicas::ONE, "", &variables).await;
    services.until_ready().await;
    let subscriber = services.subscribe(ServiceKind::SseGateway).await;
    services.post(20).await;
    services.until_exact(&subscriber, "with TLS").await;
    services.until_rolled_up().await;
}

/// It cannot be forgotten: a host that may be another machine needs a decision.
#[test]
fn a_program_does_not_start_without_a_decision() {
    for program in ["migrate", "ingest-api", "stats-notifier"] {
        let run = |variables: &[(&str, &str)]| {
            let output = Command::new(service_programs().join(program))
                .env_clear()
                .env("PGHOST", "db.invalid")
                .envs(variables.iter().copied())
                .output()
                .unwrap();
            assert!(!output.status.success(), "{program}");
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat()
        };
        let undecided = run(&[]);
        for word in ["database.sslmode", "db.invalid", "verify-full", "disable", "PGSSLMODE"] {
            assert!(undecided.contains(word), "{program}: {undecided}");
        }
        let weaker = run(&[("PGSSLMODE", "require")]);
        assert!(weaker.contains("PGSSLMODE sets database.sslmode"), "{program}: {weaker}");
        let missing = run(&[("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", "/no/such/file")]);
        assert!(missing.contains("/no/such/file"), "{program}: {missing}");
    }
}
