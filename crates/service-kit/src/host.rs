//! The host that a client requested, and the names that a public port answers to.
//!
//! A website can let its own name lead to an address of its visitor's machine or network (DNS
//! rebinding). The visitor's browser then takes the service at that address for a part of the
//! website, and lets the website's pages read and write. Such a request names the website as its
//! host.
//!
//! Invariant: the handlers of a public port see only requests for IP addresses, for localhost, for
//! the names below it, and for names that a setting allows.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HOST, HeaderName};
use actix_web::http::{StatusCode, Version};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpRequest, web};
use ipnet::IpNet;

use crate::problem::{FIELD_CHARACTERS, Problem, excerpt};
use crate::settings::sections::HttpSettings;

/// The setting that allows further hosts.
const SETTING: &str = "http.allowed_hosts";

/// The address of the client, as its proxy says. It counts under the same conditions.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Only this one of the forwarding headers is read. Proxies pass on those that they do not set, so
/// if `Forwarded` counted too, a client could send the one that its proxy does not know.
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The scheme of the client's own request, as its proxy says. It counts under the same conditions.
const FORWARDED_SCHEME: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The name of a host: ASCII, in lower case, without a port and without a dot at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(String);

/// The text is not a host name.
#[derive(Debug, thiserror::Error)]
#[error("the name of a host, without scheme, port and path")]
pub struct InvalidHostName;

impl FromStr for HostName {
    type Err = InvalidHostName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(InvalidHostName);
        }
        Ok(Self(name.to_ascii_lowercase()))
    }
}

impl HostName {
    /// Whether it leads to the client's own machine (RFC 6761, section 6.3).
    fn is_local(&self) -> bool {
        self.0 == "localhost" || self.0.ends_with(".localhost")
    }
}

/// A network of proxies: an IP address, or a prefix such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

/// The text is not a network.
#[derive(Debug, thiserror::Error)]
#[error("an IP address or a network such as 10.0.0.0/8")]
pub struct InvalidNetwork;

impl Network {
    /// Whether an address is in it.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse().or_else(|_| address()).map(Self).map_err(|_| InvalidNetwork)
    }
}

/// The host that a client requested, without its port. Its text can be a part of a URL and of a
/// policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestedHost {
    /// An IP address.
    Address(IpAddr),
    /// A name.
    Name(HostName),
}

impl RequestedHost {
    /// The host of a request to a public port, which is an allowed one. `None` if the client named
    /// none, as HTTP/1.0 permits, and on internal ports.
    pub fn of(request: &HttpRequest) -> Option<Self> {
        request.extensions().get::<RequestedOrigin>().map(|origin| origin.host.clone())
    }

    /// Whether it leads to the client's own machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Address(address) => address.to_canonical().is_loopback(),
            Self::Name(name) => name.is_local(),
        }
    }

    fn parse(host: &str) -> Option<Self> {
        if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            return address.parse::<Ipv6Addr>().ok().map(|address| Self::Address(address.into()));
        }
        match host.parse::<Ipv4Addr>() {
            Ok(address) => Some(Self::Address(address.into())),
            Err(_) => host.parse().ok().map(Self::Name),
        }
    }
}

/// A host with its port, which is missing if it is the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Authority {
    host: RequestedHost,
    port: Option<u16>,
}

impl Authority {
    /// Parses `host` or `host:port`.
    fn parse(text: &str) -> Option<Self> {
        // The colons of an IPv6 address are within brackets.
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (text, ""),
        };
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let port = if port.is_empty() { None } else { Some(port.parse().ok()?) };
        Some(Self { host: RequestedHost::parse(host)?, port })
    }
}

/// The origin of a page that the client gets from this port, such as `https://counts.example`
/// (RFC 6454, section 6.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedOrigin {
    /// Whether the client uses https. This service has no TLS, so only a trusted proxy can say so.
    pub is_https: bool,
    /// The host.
    pub host: RequestedHost,
    /// The port.
    pub port: u16,
}

impl RequestedOrigin {
    /// The origin of a request to a public port. `None` as for [`RequestedHost::of`].
    pub fn of(request: &HttpRequest) -> Option<Self> {
        request.extensions().get().cloned()
    }

    fn new(is_https: bool, Authority { host, port }: Authority) -> Self {
        Self { is_https, host, port: port.unwrap_or_else(|| Self::default_port(is_https)) }
    }

    const fn default_port(is_https: bool) -> u16 {
        if is_https { 443 } else { 80 }
    }
}

impl fmt::Display for RequestedOrigin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { is_https, host, port } = self;
        write!(formatter, "{}://{host}", if *is_https { "https" } else { "http" })?;
        if *port == Self::default_port(*is_https) { Ok(()) } else { write!(formatter, ":{port}") }
    }
}

impl fmt::Display for RequestedHost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(formatter, "[{address}]"),
            Self::Address(IpAddr::V4(address)) => address.fmt(formatter),
            Self::Name(HostName(name)) => formatter.write_str(name),
        }
    }
}

/// The hosts that a public port answers to, and the proxies that may name another one.
#[derive(Debug, Clone)]
pub(crate) struct HostRules {
    allowed: Vec<HostName>,
    proxies: Vec<Network>,
}

impl From<&HttpSettings> for HostRules {
    fn from(settings: &HttpSettings) -> Self {
        Self { allowed: settings.allowed_hosts.clone(), proxies: settings.trusted_proxies.clone() }
    }
}

/// The service does not answer to this host.
#[derive(Debug, PartialEq, Eq)]
struct Misdirected(String);

impl HostRules {
    /// The origin of a request; `None` if it is of HTTP/1.0 and names no host. (The server refuses
    /// later versions without a host.)
    ///
    /// The request's own host is checked even if a proxy forwards another one. A rebound page can
    /// send any `X-Forwarded-Host`, and its browser may run on the same machine as the proxy.
    fn requested(&self, request: &HttpRequest) -> Result<Option<RequestedOrigin>, Misdirected> {
        // The host of the target overrides the header (RFC 9112, section 3.2.2). HTTP/2's
        // `:authority` is there, too.
        let host = match request.uri().authority() {
            Some(authority) => Some(authority.as_str()),
            None => match request.headers().get(HOST) {
                Some(host) => Some(host.to_str().unwrap_or_default()),
                None if request.version() <= Version::HTTP_10 => None,
                None => Some(""),
            },
        };
        let host = host.map(|host| self.check(host)).transpose()?;
        let forwarded = self.forwarded(request, &FORWARDED_HOST);
        let forwarded = forwarded.map(|host| self.check(host)).transpose()?;
        let scheme = self.forwarded(request, &FORWARDED_SCHEME);
        let is_https = scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
        Ok(forwarded.or(host).map(|authority| RequestedOrigin::new(is_https, authority)))
    }

    fn check(&self, host: &str) -> Result<Authority, Misdirected> {
        let parsed = Authority::parse(host).filter(|authority| match &authority.host {
            RequestedHost::Address(_) => true,
            RequestedHost::Name(name) => name.is_local() || self.allowed.contains(name),
        });
        parsed.ok_or_else(|| Misdirected(host.to_owned()))
    }

    /// What a trusted proxy forwards: the last value, because proxies add theirs at the end.
    fn forwarded<'a>(&self, request: &'a HttpRequest, name: &HeaderName) -> Option<&'a str> {
        let peer = request.peer_addr()?.ip();
        if !self.proxies.iter().any(|network| network.contains(peer)) {
            return None;
        }
        let header = request.headers().get_all(name).last()?;
        let values = header.to_str().unwrap_or_default();
        values.rsplit(',').next().map(str::trim)
    }
}

/// The address of the client: that of the connection, unless a trusted proxy says another one.
pub fn client_address(request: &HttpRequest) -> Option<IpAddr> {
    let rules = request.app_data::<web::Data<HostRules>>();
    let forwarded = rules.and_then(|rules| rules.forwarded(request, &FORWARDED_FOR)?.parse().ok());
    forwarded.or_else(|| Some(request.peer_addr()?.ip()))
}

/// Middleware for [`actix_web::middleware::from_fn`]: answers requests for other hosts with 421.
/// The application's data contains [`HostRules`] on a public port, and none on an internal one.
///
/// # Errors
/// The errors of the wrapped service.
pub(crate) async fn check(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let rules = request.app_data::<web::Data<HostRules>>();
    match rules.map_or(Ok(None), |rules| rules.requested(request.request())) {
        Err(misdirected) => return Ok(request.into_response(misdirected.problem().response())),
        Ok(Some(origin)) => {
            request.extensions_mut().insert(origin);
        }
        Ok(None) => {}
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

impl Misdirected {
    fn problem(&self) -> Problem {
        let host = excerpt(&self.0, FIELD_CHARACTERS);
        let detail = format!(
            "This service does not answer to the host {host:?}. If that is one of its names, add it to \
             its setting {SETTING}."
        );
        let kind = "/problems/misdirected-request";
        Problem::new(StatusCode::MISDIRECTED_REQUEST, kind, "Misdirected request", detail)
            .member("setting", SETTING)
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn rules(allowed: &[&str], proxies: &[&str]) -> HostRules {
        HostRules {
            allowed: allowed.iter().map(|name| name.parse().unwrap()).collect(),
            proxies: proxies.iter().map(|network| network.parse().unwrap()).collect(),
        }
    }

    /// The host of a request, as text.
    fn requested(rules: &HostRules, request: TestRequest) -> Result<Option<String>, Misdirected> {
        let origin = rules.requested(&request.to_http_request())?;
        Ok(origin.map(|origin| origin.host.to_string()))
    }

    #[test]
    fn addresses_localhost_and_allowed_names_are_accepted() {
        let rules = rules(&["Counts.Example", "other.example."], &[]);
        for (host, expected) in [
            ("127.0.0.1", "127.0.0.1"),
            ("10.1.2.3:8081", "10.1.2.3"),
            ("[::1]:8081", "[::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("localhost", "localhost"),
            ("LOCALHOST:1", "localhost"),
            ("localhost.:8081", "localhost"),
            ("page.localhost:8081", "page.localhost"),
            ("counts.example", "counts.example"),
            ("COUNTS.example.:443", "counts.example"),
            ("other.example", "other.example"),
        ] {
            let found = requested(&rules, TestRequest::get().insert_header(("host", host)));
            assert_eq!(found, Ok(Some(expected.to_owned())), "{host}");
        }
    }

    #[test]
    fn any_other_host_is_misdirected() {
        let rules = rules(&["counts.example"], &[]);
        for host in [
            "",
            "evil.example",
            "counts.example.evil.example",
            "evil-counts.example",
            "sub.counts.example",
            "evillocalhost",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "evil@localhost",
            "localhost:8081:1",
            "localhost:evil",
            "localhost:65536",
            "[::1].evil.example",
            "[::1",
            "::1",
            "2130706433",
            "127.1",
            "localhost;script-src *",
            "localhost/path",
            "localhost, evil.example",
        ] {
            let found = requested(&rules, TestRequest::get().insert_header(("host", host)));
            assert_eq!(found, Err(Misdirected(host.to_owned())));
        }
    }

    #[test]
    fn the_target_overrides_the_header_and_only_http_1_0_needs_neither() {
        let rules = rules(&[], &[]);
        let request = |target: &str| TestRequest::with_uri(target);
        let evil = request("http://evil.example/").insert_header(("host", "localhost"));
        assert_eq!(requested(&rules, evil), Err(Misdirected("evil.example".to_owned())));
        let local = request("http://localhost:8081/").insert_header(("host", "evil.example"));
        assert_eq!(requested(&rules, local), Ok(Some("localhost".to_owned())));
        assert_eq!(requested(&rules, request("/").version(Version::HTTP_10)), Ok(None));
        let no_host = requested(&rules, request("/").version(Version::HTTP_11));
        assert_eq!(no_host, Err(Misdirected(String::new())));
    }

    #[test]
    fn a_forwarded_host_counts_only_from_a_trusted_proxy() {
        let rules = rules(&["counts.example", "inside"], &["10.0.0.0/8", "2001:db8::1"]);
        let request = |peer: &str, host: &'static str, forwarded: &'static str| {
            TestRequest::get()
                .peer_addr(std::net::SocketAddr::new(peer.parse().unwrap(), 1))
                .insert_header(("host", host))
                .insert_header(("forwarded", "host=localhost"))
                .insert_header(("x-forwarded-host", forwarded))
        };
        let accepted = |host: &str| Ok(Some(host.to_owned()));
        let evil = || Err(Misdirected("evil.example".to_owned()));
        for proxy in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1"] {
            for (host, forwarded, expected) in [
                ("inside", "evil.example, counts.example", accepted("counts.example")),
                ("inside", "counts.example, evil.example", evil()),
                ("evil.example", "counts.example", evil()),
            ] {
                let found = requested(&rules, request(proxy, host, forwarded));
                assert_eq!(found, expected, "{proxy}, {host}, {forwarded}");
            }
        }
        for stranger in ["11.1.2.3", "127.0.0.1", "2001:db8::2"] {
            for forwarded in ["counts.example", "evil.example"] {
                let found = requested(&rules, request(stranger, "inside", forwarded));
                assert_eq!(found, accepted("inside"), "{stranger}");
            }
        }
    }

    #[test]
    fn the_scheme_of_an_origin_counts_only_from_a_trusted_proxy() {
        let rules = rules(&["counts.example"], &["10.0.0.0/8"]);
        let origin = |peer: &str, host: &'static str, schemes: &[&'static str]| {
            let request = TestRequest::get()
                .peer_addr(std::net::SocketAddr::new(peer.parse().unwrap(), 1))
                .insert_header(("host", host));
            let request = schemes.iter().fold(request, |request, scheme| {
                request.append_header(("x-forwarded-proto", *scheme))
            });
            rules.requested(&request.to_http_request()).unwrap().unwrap()
        };
        for (peer, host, schemes, expected) in [
            ("10.1.2.3", "counts.example", &["https"][..], "https://counts.example"),
            ("10.1.2.3", "counts.example", &["http, HTTPS"], "https://counts.example"),
            ("10.1.2.3", "counts.example", &["http", "https"], "https://counts.example"),
            ("10.1.2.3", "Counts.example.:443", &["https"], "https://counts.example"),
            ("10.1.2.3", "counts.example:80", &["https"], "https://counts.example:80"),
            ("10.1.2.3", "counts.example", &["https, http"], "http://counts.example"),
            ("10.1.2.3", "counts.example:80", &[], "http://counts.example"),
            ("11.1.2.3", "counts.example", &["https"], "http://counts.example"),
            ("11.1.2.3", "[::1]:8082", &["https"], "http://[::1]:8082"),
        ] {
            assert_eq!(origin(peer, host, schemes).to_string(), expected, "{peer}, {host}");
        }
    }

    #[test]
    fn loopback_is_this_machine_only() {
        let is_loopback = |host| RequestedHost::parse(host).unwrap().is_loopback();
        for host in
            ["127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]", "localhost", "a.localhost"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["10.0.0.1", "0.0.0.0", "[::]", "counts.example", "localhost.example"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
