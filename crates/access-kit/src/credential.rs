//! What a request presents: at most one credential, in a header or a cookie, and never in its
//! address.

use actix_web::HttpRequest;
use actix_web::http::Method;
use actix_web::http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use service_kit::settings::sections::CorsSettings;

use crate::key::contains_key;
use crate::refusal::Refusal;

/// The name of the cookie over https. Its prefix binds it to one host, and to https
/// (<https://httpwg.org/http-extensions/draft-ietf-httpbis-rfc6265bis.html#name-the-__host-prefix>).
pub const SECURE_COOKIE: &str = "__Host-newcycle";

/// The parameter in which RFC 6750, section 2.3, permits a credential. We do not.
const QUERY_PARAMETER: &str = "access_token";

/// How the page that sends a request is related to its address (W3C, Fetch Metadata).
pub const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The name of the cookie over http. Cookies ignore ports, so it has the port of the page, and two
/// stacks on one host keep their sessions apart.
#[must_use]
pub fn plain_cookie(page_port: u16) -> String {
    format!("newcycle-{page_port}")
}

/// The pages that may use a cookie, and the names of their cookies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pages {
    origins: Vec<String>,
    cookies: Vec<String>,
}

impl Pages {
    /// The pages of these origins, such as `https://counts.example` or `http://127.0.0.1:8082`.
    /// Others, such as `*`, are pages without a session.
    fn of_origins<'a>(origins: impl IntoIterator<Item = &'a str>) -> Self {
        let mut pages = Self::default();
        for origin in origins {
            let cookie = if origin.starts_with("https://") {
                SECURE_COOKIE.to_owned()
            } else if let Some(host) = origin.strip_prefix("http://") {
                let port = host.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
                plain_cookie(port.unwrap_or(80))
            } else {
                continue;
            };
            pages.origins.push(origin.to_owned());
            if !pages.cookies.contains(&cookie) {
                pages.cookies.push(cookie);
            }
        }
        pages
    }

    /// The pages that CORS allows.
    #[must_use]
    pub fn of_cors(settings: &CorsSettings) -> Self {
        Self::of_origins(settings.allowed_origins.iter().map(String::as_str))
    }

    /// Whether a page of this origin may use its cookie.
    fn has(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|known| known.as_bytes() == origin)
    }
}

/// What a request presents.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Presented<'a> {
    /// Nothing.
    Nothing,
    /// The text of a credential. It may be anything.
    Text(&'a str),
    /// Something that cannot be a key, such as another scheme.
    Unreadable,
}

/// The credential of a request. A header wins over a cookie.
///
/// # Errors
/// [`Refusal::InAddress`], [`Refusal::Ambiguous`] and [`Refusal::Foreign`].
pub(crate) fn presented<'a>(
    request: &'a HttpRequest,
    pages: &Pages,
) -> Result<Presented<'a>, Refusal> {
    check_address(request)?;
    let mut headers = request.headers().get_all(AUTHORIZATION);
    if let Some(header) = headers.next() {
        if headers.next().is_some() {
            return Err(Refusal::Ambiguous);
        }
        let bearer = header.to_str().ok().and_then(bearer);
        return Ok(bearer.map_or(Presented::Unreadable, Presented::Text));
    }
    let is_known = |name: &str| pages.cookies.iter().any(|known| known == name);
    let Some(cookie) = cookie(request.headers(), is_known)? else {
        return Ok(Presented::Nothing);
    };
    if !is_from_page(request, pages) {
        return Err(Refusal::Foreign);
    }
    Ok(Presented::Text(cookie))
}

/// Checks that the address of a request has no credential.
///
/// # Errors
/// [`Refusal::InAddress`].
pub fn check_address(request: &HttpRequest) -> Result<(), Refusal> {
    // The path as it was sent, and as the router reads it.
    let mut paths = [request.path(), request.match_info().as_str()].into_iter();
    if query_has_credential(request.query_string()) || paths.any(contains_key) {
        return Err(Refusal::InAddress);
    }
    Ok(())
}

/// The value of the cookie of this name, for the server of a page, which manages its session.
///
/// # Errors
/// [`Refusal::Ambiguous`].
pub fn session<'a>(request: &'a HttpRequest, name: &str) -> Result<Option<&'a str>, Refusal> {
    cookie(request.headers(), |other| other == name)
}

/// The credential of `Bearer <credential>`. The name of a scheme has no case (RFC 9110, 11.1).
pub(crate) fn bearer(header: &str) -> Option<&str> {
    let (scheme, credential) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credential.trim_matches(' '))
}

/// Whether a query has a key, or the parameter for one. What is encoded twice is not looked for:
/// the services would not understand it either.
fn query_has_credential(query: &str) -> bool {
    if query.is_empty() {
        return false;
    }
    form_urlencoded::parse(query.as_bytes()).any(|(name, value)| {
        name.eq_ignore_ascii_case(QUERY_PARAMETER) || contains_key(&name) || contains_key(&value)
    })
}

/// The value of the only cookie that has such a name.
fn cookie(headers: &HeaderMap, is_known: impl Fn(&str) -> bool) -> Result<Option<&str>, Refusal> {
    let pairs = headers
        .get_all(COOKIE)
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(name, _)| is_known(name));
    let Some((_, value)) = values.next() else { return Ok(None) };
    if values.any(|(_, other)| other != value) {
        return Err(Refusal::Ambiguous);
    }
    Ok(Some(value))
}

/// Whether a page that may use the cookie sends the request, as far as the browser says. Browsers
/// send `Origin` with every request that writes, and with every request from another origin whose
/// answer a page could read. `SameSite=Strict` does not help between the ports of one host.
fn is_from_page(request: &HttpRequest, pages: &Pages) -> bool {
    let headers = request.headers();
    let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
    if site == Some(b"cross-site") {
        return false;
    }
    let mut origins = headers.get_all(ORIGIN).peekable();
    if origins.peek().is_none() {
        return matches!(*request.method(), Method::GET | Method::HEAD);
    }
    origins.all(|origin| pages.has(origin.as_bytes()))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn pages() -> Pages {
        Pages::of_origins(["http://127.0.0.1:8082", "https://counts.example", "*"])
    }

    #[test]
    fn a_page_has_a_cookie_by_its_scheme_and_port() {
        assert_eq!(pages().cookies, ["newcycle-8082", SECURE_COOKIE]);
        assert_eq!(Pages::of_origins(["http://counts.example"]).cookies, ["newcycle-80"]);
        assert_eq!(Pages::of_origins(["*", "null", ""]), Pages::default());
    }

    #[test]
    fn a_header_wins_over_a_cookie_and_is_never_taken_for_nothing() {
        let request = |header: &'static str| {
            TestRequest::get()
                .insert_header(("authorization", header))
                .insert_header(("cookie", "newcycle-8082=c"))
                .to_http_request()
        };
        for header in ["Bearer k", "bearer k", "BEARER  k "] {
            assert_eq!(presented(&request(header), &pages()), Ok(Presented::Text("k")), "{header}");
        }
        assert_eq!(presented(&request("Bearer "), &pages()), Ok(Presented::Text("")));
        for header in ["", "Bearer", "Basic azpr", "k", "Bearerk"] {
            assert_eq!(
                presented(&request(header), &pages()),
                Ok(Presented::Unreadable),
                "{header}"
            );
        }
        let two = TestRequest::get()
            .append_header(("authorization", "Bearer k"))
            .append_header(("authorization", "Bearer k"));
        assert_eq!(presented(&two.to_http_request(), &pages()), Err(Refusal::Ambiguous));
    }

    #[test]
    fn only_the_cookies_of_known_pages_count() {
        for (cookies, expected) in [
            ("", Presented::Nothing),
            ("newcycle-8083=c", Presented::Nothing),
            ("xnewcycle-8082=c", Presented::Nothing),
            ("newcycle-8082", Presented::Nothing),
            ("a=b; newcycle-8082=c", Presented::Text("c")),
            ("newcycle-8082=c;__Host-newcycle=c", Presented::Text("c")),
            ("newcycle-8082=", Presented::Text("")),
        ] {
            let request = TestRequest::get().insert_header(("cookie", cookies)).to_http_request();
            assert_eq!(presented(&request, &pages()), Ok(expected), "{cookies}");
        }
        let two = TestRequest::get()
            .append_header(("cookie", "newcycle-8082=c"))
            .append_header(("cookie", "newcycle-8082=d"));
        assert_eq!(presented(&two.to_http_request(), &pages()), Err(Refusal::Ambiguous));
    }

    #[test]
    fn a_cookie_is_only_for_our_pages() {
        let request = |method: Method, headers: &[(&'static str, &'static str)]| {
            let cookie = ("cookie", "newcycle-8082=c");
            let request = TestRequest::default().method(method).insert_header(cookie);
            let request =
                headers.iter().fold(request, |request, header| request.append_header(*header));
            presented(&request.to_http_request(), &pages()).map(|_| ())
        };
        let [ours, foreign] = ["http://127.0.0.1:8082", "http://127.0.0.1:9999"];
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(request(method.clone(), &[]), Ok(()));
            assert_eq!(request(method, &[("sec-fetch-site", "same-origin")]), Ok(()));
        }
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            assert_eq!(request(method.clone(), &[("origin", ours)]), Ok(()));
            for headers in [
                &[("origin", foreign)][..],
                &[("origin", "null")],
                &[("origin", "http://127.0.0.1:8082.evil.example")],
                &[("origin", "HTTP://127.0.0.1:8082")],
                &[("origin", ours), ("origin", foreign)],
                &[("origin", ours), ("sec-fetch-site", "cross-site")],
                &[("sec-fetch-site", "cross-site")],
            ] {
                assert_eq!(request(method.clone(), headers), Err(Refusal::Foreign), "{headers:?}");
            }
        }
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            assert_eq!(request(method, &[]), Err(Refusal::Foreign));
        }
    }

    #[test]
    fn a_key_in_the_address_is_found() {
        let key = crate::key::Key::generate();
        let encoded: String = key.expose().bytes().map(|byte| format!("%{byte:02x}")).collect();
        for query in [
            "access_token=x",
            "a=b&ACCESS_TOKEN",
            &format!("key={}", key.expose()),
            &format!("{}=1", key.expose()),
            &format!("x={encoded}"),
        ] {
            assert!(query_has_credential(query), "{query}");
        }
        for query in ["", "topic=transfers/day", "last=5&payload=x", "token=abc"] {
            assert!(!query_has_credential(query), "{query}");
        }
        for path in [format!("/{}", key.expose()), format!("/items/{}/owner", key.expose())] {
            let request = TestRequest::with_uri(&path).to_http_request();
            assert_eq!(check_address(&request), Err(Refusal::InAddress), "{path}");
        }
        assert_eq!(check_address(&TestRequest::with_uri("/items/nc_1").to_http_request()), Ok(()));
    }
}
