//! The addresses of upstreams: services that this one requests something from.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;
use serde::Deserializer;
use serde::de::Error;

use crate::settings::{comma_separated, without_credentials};

/// The URL of an upstream, to which paths are appended. It may contain a user name and a password,
/// which are sent to the upstream, and which neither `Display` nor `Debug` shows.
#[derive(Clone, PartialEq, Eq)]
pub struct UpstreamAddress(String);

/// The text is not the address of an upstream. The text may contain a password, so it is not
/// quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a URL such as http://127.0.0.1:8083: it has a host, and neither a query nor a fragment"
)]
pub struct InvalidAddress;

impl FromStr for UpstreamAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|_| InvalidAddress)?;
        // The client has no TLS: across networks, a proxy adds it.
        let valid = url.scheme() == "http" && url.query().is_none() && url.fragment().is_none();
        valid.then(|| Self(text.trim_end_matches('/').to_owned())).ok_or(InvalidAddress)
    }
}

impl UpstreamAddress {
    /// The URL of a path of this upstream.
    #[must_use]
    pub fn with_path(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// Whether it has a user name or a password.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        without_credentials(&self.0) != self.0
    }
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&without_credentials(&self.0))
    }
}

impl fmt::Debug for UpstreamAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Deserializes a comma-separated setting. It names an invalid address by its position, because it
/// may contain a password.
///
/// # Errors
/// It is not text, or an address is invalid.
pub fn addresses<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<UpstreamAddress>, D::Error> {
    let parse = |(index, address): (usize, &String)| {
        let error = |error| D::Error::custom(format!("address {} is {error}", index + 1));
        address.parse().map_err(error)
    };
    comma_separated(from)?.iter().enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_credentials() {
        for (text, shown) in [
            ("http://notifier:8083/", "http://notifier:8083"),
            ("http://proxy/notifier/", "http://proxy/notifier"),
            ("http://user:secret@notifier:8083", "http://<redacted>@notifier:8083"),
        ] {
            let address: UpstreamAddress = text.parse().unwrap();
            assert_eq!((address.to_string(), format!("{address:?}")), (shown.into(), shown.into()));
            let path = address.with_path("/a?b=c");
            assert_eq!(path, format!("{}/a?b=c", text.trim_end_matches('/')));
        }
    }

    #[test]
    fn other_urls_are_refused() {
        for text in [
            "",
            "notifier",
            "notifier:8083",
            "user:secret@notifier:8083",
            "http://",
            "http://user:sec/ret@notifier",
            "https://notifier",
            "http://notifier?a=b",
            "http://notifier#a",
        ] {
            assert_eq!(text.parse::<UpstreamAddress>(), Err(InvalidAddress), "{text}");
        }
    }
}
