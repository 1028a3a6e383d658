//! TLS of the connections to Postgres, in the words of libpq.
//!
//! Invariant: a connection that leaves the machine is either encrypted, to a server that has proved
//! its name, or the settings say `disable`. So of libpq's modes there are two. The others encrypt,
//! but accept any server, or any name, or go on without TLS.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use service_kit::settings::SettingsError;
use tokio_postgres::Socket;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::settings::DatabaseSettings;

/// A connection to Postgres, with or without TLS.
pub type Connection =
    tokio_postgres::Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// Whether a connection uses TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS. The server's certificate must be of a trusted CA, and must name the host.
    VerifyFull,
}

/// The CAs that may have issued the server's certificate. By default there is none, so that no
/// server is accepted.
#[derive(Clone)]
pub struct RootCertificates {
    connector: MakeRustlsConnect,
    count: usize,
}

impl RootCertificates {
    /// Reads a file of certificates in the format PEM.
    ///
    /// # Errors
    /// It cannot be read, or has no usable certificate. The message names the file.
    pub fn read(file: &Path) -> Result<Self, String> {
        let path = file.display();
        let certificates: Vec<CertificateDer<'_>> = CertificateDer::pem_file_iter(file)
            .and_then(Iterator::collect)
            .map_err(|error| format!("{path} cannot be read as certificates: {error}"))?;
        let mut roots = RootCertStore::empty();
        // A bundle of many CAs may have old ones that cannot be used.
        let (count, _) = roots.add_parsable_certificates(certificates);
        if count == 0 {
            return Err(format!("{path} has no certificate that can be used"));
        }
        Ok(Self::trusting(roots, count))
    }

    pub(crate) fn connector(&self) -> MakeRustlsConnect {
        self.connector.clone()
    }

    #[expect(clippy::expect_used, reason = "ring has the cipher suites of TLS 1.2 and 1.3")]
    fn trusting(roots: RootCertStore, count: usize) -> Self {
        let configuration = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the cipher suites of TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { connector: MakeRustlsConnect::new(configuration), count }
    }
}

impl Default for RootCertificates {
    fn default() -> Self {
        Self::trusting(RootCertStore::empty(), 0)
    }
}

impl fmt::Debug for RootCertificates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RootCertificates")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

/// Reads the file now, so that a mistake in it ends the program at its start.
impl<'de> Deserialize<'de> for RootCertificates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "" => Ok(Self::default()),
            file => Self::read(Path::new(file)).map_err(D::Error::custom),
        }
    }
}

/// Deserializes a mode; empty is none.
pub(crate) fn ssl_mode<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SslMode>, D::Error> {
    match String::deserialize(from)?.as_str() {
        "" => Ok(None),
        "disable" => Ok(Some(SslMode::Disable)),
        "verify-full" => Ok(Some(SslMode::VerifyFull)),
        weaker @ ("allow" | "prefer" | "require" | "verify-ca") => Err(D::Error::custom(format!(
            "{weaker} does not check which server answers: write verify-full, or disable"
        ))),
        other => Err(D::Error::custom(format!("{other:?} is neither verify-full nor disable"))),
    }
}

/// Where connections to a host go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// A Unix socket, which has no TLS.
    UnixSocket,
    /// This machine.
    Loopback,
    /// A network.
    Network,
}

impl Reach {
    fn of(host: &str) -> Self {
        let is_loopback =
            host.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback());
        if host.starts_with('/') {
            Self::UnixSocket
        } else if is_loopback || host.eq_ignore_ascii_case("localhost") {
            Self::Loopback
        } else {
            Self::Network
        }
    }
}

impl DatabaseSettings {
    /// What tokio-postgres must do to connect to this host. Undecided settings are
    /// [refused](Self::check); a program that forgets to check them finds no server that it trusts.
    pub(crate) fn tokio_ssl_mode(&self, host: &str) -> tokio_postgres::config::SslMode {
        match (self.sslmode, Reach::of(host)) {
            (_, Reach::UnixSocket)
            | (None, Reach::Loopback)
            | (Some(SslMode::Disable), Reach::Loopback | Reach::Network) => {
                tokio_postgres::config::SslMode::Disable
            }
            (Some(SslMode::VerifyFull), Reach::Loopback | Reach::Network)
            | (None, Reach::Network) => tokio_postgres::config::SslMode::Require,
        }
    }

    /// Refuses a host in a network as long as nothing says whether to use TLS.
    pub(crate) fn check_tls(&self) -> Result<(), SettingsError> {
        self.host.iter().try_for_each(|host| self.check_tls_to(host))
    }

    fn check_tls_to(&self, host: &str) -> Result<(), SettingsError> {
        let trusts_some = self.sslrootcert.count > 0;
        let problem = match (self.sslmode, Reach::of(host)) {
            (None, Reach::Network) => format!(
                "database.sslmode is not set, and {host} may be another machine: write verify-full, \
                 with the file of its CA in database.sslrootcert, or disable to send everything \
                 unencrypted, passwords hashed (PGSSLMODE and PGSSLROOTCERT set them, too)"
            ),
            (None, Reach::Loopback) if trusts_some => {
                "database.sslrootcert has no effect without database.sslmode: write verify-full, or \
                 disable"
                    .to_owned()
            }
            (Some(SslMode::VerifyFull), Reach::Loopback | Reach::Network) if !trusts_some => {
                "database.sslmode is verify-full, which needs database.sslrootcert: the file of the \
                 CA that issued the server's certificate, in the format PEM"
                    .to_owned()
            }
            _ => return Ok(()),
        };
        Err(SettingsError::Conflict(problem))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::settings::DATABASE;

    fn settings(host: &str, mode: &str, roots: &str) -> Result<DatabaseSettings, String> {
        let set = |text: &str, key: &str, value: &str| {
            let (before, rest) = text.split_once(&format!("\n{key} = ")).unwrap();
            let (_, after) = rest.split_once('\n').unwrap();
            format!("{before}\n{key} = {value:?}\n{after}")
        };
        let text = set(DATABASE.keys, "host", host);
        let text = set(&set(&text, "sslmode", mode), "sslrootcert", roots);
        toml::from_str(&text).map_err(|error| error.message().to_owned())
    }

    /// Whether TLS is required, or why the settings are refused.
    fn requires_tls(host: &str, mode: &str, roots: &str) -> Result<bool, String> {
        let settings = settings(host, mode, roots)?;
        settings.check().map_err(|error| error.to_string())?;
        let mode = settings.tokio_ssl_mode(host);
        Ok(mode == tokio_postgres::config::SslMode::Require)
    }

    /// A file with a certificate; any will do.
    fn certificate() -> tempfile::NamedTempFile {
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let der = parameters.self_signed(&key).unwrap();
        file.write_all(der.pem().as_bytes()).unwrap();
        file
    }

    #[test]
    fn a_host_in_a_network_needs_a_decision() {
        let certificate = certificate();
        let roots = certificate.path().to_str().unwrap();
        for host in ["db.example", "10.0.0.7", "2001:db8::7", "postgres"] {
            let refused = requires_tls(host, "", "").unwrap_err();
            assert!(refused.contains("verify-full") && refused.contains("disable"), "{refused}");
            assert!(
                settings(host, "", "").unwrap().tokio_ssl_mode(host)
                    != tokio_postgres::config::SslMode::Disable
            );
            assert_eq!(requires_tls(host, "disable", ""), Ok(false));
            assert_eq!(requires_tls(host, "verify-full", roots), Ok(true));
        }
        for host in ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1", "localhost"] {
            assert_eq!(requires_tls(host, "", ""), Ok(false));
            assert_eq!(requires_tls(host, "verify-full", roots), Ok(true));
            let refused = requires_tls(host, "", roots).unwrap_err();
            assert!(refused.contains("no effect"), "{refused}");
        }
        assert_eq!(requires_tls("/run/postgresql", "", ""), Ok(false));
        assert_eq!(requires_tls("/run/postgresql", "verify-full", roots), Ok(false));
    }

    #[test]
    fn each_of_several_hosts_needs_a_decision() {
        let refused = requires_tls("127.0.0.1,db.example", "", "").unwrap_err();
        assert!(refused.contains("db.example may be another machine"), "{refused}");
    }

    #[test]
    fn settings_that_would_not_check_the_server_are_refused() {
        let refused = requires_tls("db.example", "verify-full", "").unwrap_err();
        assert!(refused.contains("needs database.sslrootcert"), "{refused}");
        for weaker in ["allow", "prefer", "require", "verify-ca"] {
            let refused = requires_tls("db.example", weaker, "").unwrap_err();
            assert!(refused.contains("does not check which server answers"), "{refused}");
        }
        let refused = requires_tls("db.example", "on", "").unwrap_err();
        assert!(refused.contains("neither"), "{refused}");
        let refused = requires_tls("db.example", "verify-full", "/no/such/file").unwrap_err();
        assert!(refused.contains("/no/such/file cannot be read"), "{refused}");
        let empty = tempfile::NamedTempFile::new().unwrap();
        let path = empty.path().to_str().unwrap();
        let refused = requires_tls("db.example", "verify-full", path).unwrap_err();
        assert!(refused.contains("has no certificate"), "{refused}");
    }
}
