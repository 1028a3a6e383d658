//! The secret that internal ports ask for, and that services send to the internal ports of others.
//!
//! A file has it, so that an operator can replace it while everything runs: meanwhile, a service
//! with the old secret and one with the new secret must understand each other. So the file may have
//! two secrets, one on each line. Both are accepted, and the first is sent.
//!
//! Invariants:
//! - Without the secret, an internal port says only whether the service lives and is ready. A
//!   service that has no secret accepts none.
//! - The secret means nothing on public ports, and a key means nothing on internal ports.
//! - A file that cannot be used any more changes nothing: the last secrets stay in effect.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::dev::ServiceRequest;
use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use actix_web::{HttpMessage, HttpRequest};
use parking_lot::RwLock;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

use crate::guard::Guard;
use crate::observe::matched_route;
use crate::problem::Problem;
use crate::settings::SettingsError;

/// The setting that names the file.
const SETTING: &str = "internal.secret_file";

/// As many as 16 random bytes have in hexadecimal.
const MIN_CHARACTERS: usize = 32;

const MAX_CHARACTERS: usize = 256;

/// How many secrets are accepted, while one replaces another.
const MAX_SECRETS: usize = 2;

/// How often the file is read.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// The routes that need no secret.
const OPEN_ROUTES: [&str; 2] = ["/livez", "/readyz"];

/// The secrets of a service. Clones share them.
#[derive(Debug, Clone)]
pub struct InternalSecrets {
    file: Arc<Path>,
    /// The first one is sent; all are accepted.
    secrets: Arc<RwLock<Vec<SecretString>>>,
}

/// Why a file has no secrets.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error(
        "it must have one or two lines, each with a secret of {MIN_CHARACTERS} to \
         {MAX_CHARACTERS} letters, digits and other visible characters of ASCII"
    )]
    Malformed,
}

impl InternalSecrets {
    /// The secrets of a file. Without one (the path is empty), there are none.
    ///
    /// # Errors
    /// [`SettingsError::Conflict`]: the file cannot be read, or has something else.
    pub fn open(file: &Path) -> Result<Self, SettingsError> {
        let secrets = if file.as_os_str().is_empty() {
            Vec::new()
        } else {
            read(file).map_err(|problem| {
                SettingsError::Conflict(format!("{SETTING} is {}, but {problem}", file.display()))
            })?
        };
        Ok(Self { file: file.into(), secrets: Arc::new(RwLock::new(secrets)) })
    }

    /// The value of the header `Authorization` that is sent to the internal ports of others; `None`
    /// without a secret.
    #[must_use]
    pub fn authorization(&self) -> Option<reqwest::header::HeaderValue> {
        let secrets = self.secrets.read();
        let text = format!("Bearer {}", secrets.first()?.expose_secret());
        let mut value = reqwest::header::HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Whether a request presents one of the secrets.
    fn are_presented(&self, request: &HttpRequest) -> bool {
        let mut headers = request.headers().get_all(AUTHORIZATION);
        let (Some(header), None) = (headers.next(), headers.next()) else { return false };
        let Some((scheme, presented)) = header.to_str().ok().and_then(|text| text.split_once(' '))
        else {
            return false;
        };
        let presented = presented.trim_start().as_bytes();
        scheme.eq_ignore_ascii_case("bearer")
            && self.secrets.read().iter().any(|secret| {
                // The length of a secret is no secret.
                secret.expose_secret().as_bytes().ct_eq(presented).into()
            })
    }

    /// Follows the changes of the file until `shutdown`.
    pub(crate) async fn keep_up(self, shutdown: CancellationToken) -> io::Result<()> {
        if self.file.as_os_str().is_empty() {
            tracing::warn!(
                "{SETTING} is not set, so /metrics and what other services need are closed"
            );
            shutdown.cancelled().await;
            return Ok(());
        }
        let mut is_usable = true;
        loop {
            tokio::select! {
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
            let was_usable = std::mem::replace(&mut is_usable, true);
            // A few hundred bytes, which a local disk or memory has.
            match read(&self.file) {
                Ok(secrets) => self.replace(secrets),
                Err(problem) => {
                    is_usable = false;
                    if was_usable {
                        tracing::warn!(
                            "{SETTING} is {}, but {problem}; the last secrets stay in effect",
                            self.file.display()
                        );
                    }
                }
            }
        }
    }

    fn replace(&self, secrets: Vec<SecretString>) {
        let same =
            |(new, old): (&SecretString, &SecretString)| new.expose_secret() == old.expose_secret();
        let mut current = self.secrets.write();
        if secrets.len() != current.len() || !secrets.iter().zip(&*current).all(same) {
            tracing::info!(accepted = secrets.len(), "{SETTING} has changed");
            *current = secrets;
        }
    }
}

fn read(file: &Path) -> Result<Vec<SecretString>, Unusable> {
    let text = std::fs::read_to_string(file)?;
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let is_secret = |line: &&str| {
        (MIN_CHARACTERS..=MAX_CHARACTERS).contains(&line.len())
            && line.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if !(1..=MAX_SECRETS).contains(&lines.len()) || !lines.iter().all(is_secret) {
        return Err(Unusable::Malformed);
    }
    Ok(lines.into_iter().map(SecretString::from).collect())
}

/// A request presented the secret.
#[derive(Debug, Clone, Copy)]
struct Trusted;

/// Whether a request to the internal port presented its secret.
pub(crate) fn is_trusted(request: &HttpRequest) -> bool {
    request.extensions().contains::<Trusted>()
}

/// The guard of an internal port.
pub(crate) struct InternalGuard(pub(crate) InternalSecrets);

impl Guard for InternalGuard {
    fn refuse(&self, request: &ServiceRequest) -> Option<HttpResponse> {
        if self.0.are_presented(request.request()) {
            request.extensions_mut().insert(Trusted);
            return None;
        }
        let route = matched_route(request.request());
        if route.is_some_and(|route| OPEN_ROUTES.contains(&route.as_str())) {
            return None;
        }
        let detail = format!(
            "This port is for the other services and for operators' tools. Send the secret of \
             {SETTING} in the header `Authorization: Bearer …`."
        );
        let (status, kind) = (StatusCode::UNAUTHORIZED, "/problems/no-credential");
        let mut answer =
            Problem::new(status, kind, "The internal secret is needed", detail).response();
        let challenge = HeaderValue::from_static("Bearer realm=\"newcycle-internal\"");
        answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        Some(answer)
    }

    fn finish(&self, _: &HttpRequest, _: &mut HeaderMap) {}
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    const OLD: &str = "old-0123456789abcdef0123456789abcdef";
    const NEW: &str = "new-0123456789abcdef0123456789abcdef";

    fn accepts(secrets: &InternalSecrets, authorization: &[&str]) -> bool {
        let request = authorization.iter().fold(TestRequest::default(), |request, value| {
            request.append_header((AUTHORIZATION, *value))
        });
        secrets.are_presented(&request.to_http_request())
    }

    fn bearer(secret: &str) -> String {
        format!("Bearer {secret}")
    }

    #[test]
    fn a_secret_is_replaced_while_both_are_accepted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |text: &str| std::fs::write(file.path(), text).unwrap();
        write(OLD);
        let secrets = InternalSecrets::open(file.path()).unwrap();
        let sent = || secrets.authorization().unwrap().to_str().unwrap().to_owned();
        let [old, new] = [OLD, NEW].map(bearer);
        for (text, accepts_old, accepts_new, sends) in [
            (format!("{OLD}\n"), true, false, &old),
            (format!("{OLD}\n{NEW}\n"), true, true, &old),
            (format!("{NEW}\n{OLD}"), true, true, &new),
            (format!("\n  {NEW}\r\n\n"), false, true, &new),
        ] {
            write(&text);
            secrets.replace(read(file.path()).unwrap());
            assert_eq!(accepts(&secrets, &[&old]), accepts_old, "{text:?}");
            assert_eq!(accepts(&secrets, &[&new]), accepts_new, "{text:?}");
            assert_eq!(sent(), *sends, "{text:?}");
        }
    }

    #[test]
    fn only_the_whole_secret_in_one_header_is_accepted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), OLD).unwrap();
        let secrets = InternalSecrets::open(file.path()).unwrap();
        let good = bearer(OLD);
        assert!(
            accepts(&secrets, &[&good]) && accepts(&secrets, &[&good.replace("Bearer", "bearer")])
        );
        for bad in [
            OLD,
            "Bearer",
            "Bearer ",
            "",
            &good[..good.len() - 1],
            &format!("{good}0"),
            &bearer(NEW),
        ] {
            assert!(!accepts(&secrets, &[bad]), "{bad:?}");
        }
        assert!(!accepts(&secrets, &[]) && !accepts(&secrets, &[&good, &good]));
        let none = InternalSecrets::open(Path::new("")).unwrap();
        assert!(!accepts(&none, &["Bearer "]) && !accepts(&none, &[&good]));
        assert_eq!(none.authorization(), None);
    }

    #[test]
    fn a_file_without_secrets_is_refused_and_not_quoted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let three = format!("{OLD}\n{NEW}\n{OLD}");
        for text in ["", "\n", "too-short", &three, &format!("{OLD} {NEW}"), &"é".repeat(40)] {
            std::fs::write(file.path(), text).unwrap();
            let error = InternalSecrets::open(file.path()).unwrap_err().to_string();
            assert!(error.contains("one or two lines") && !error.contains(OLD), "{error}");
        }
        let error = InternalSecrets::open(Path::new("/none")).unwrap_err().to_string();
        assert!(error.contains("internal.secret_file is /none, but it cannot be read"), "{error}");
    }
}
