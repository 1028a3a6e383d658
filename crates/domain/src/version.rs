//! The name of one state of all topics.

use std::fmt;
use std::str::FromStr;

/// Tells one term of one publisher from every other. Drawn at random at each takeover, so that versions of a
/// lost history are never taken for those of the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce(u64);

impl Nonce {
    /// A nonce of 64 bits that the caller drew at random.
    #[must_use]
    pub const fn new(bits: u64) -> Self {
        Self(bits)
    }
}

/// One state of all topics: the `tick`-th of the term `nonce`, written `nonce.tick` as the `id:` of a frame.
///
/// Versions of one nonce are ordered by their tick; versions of two nonces are not comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    /// The term that the state belongs to.
    pub nonce: Nonce,
    /// The place within the term, from 0.
    pub tick: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}.{}", self.nonce.0, self.tick)
    }
}

/// The text is no [`Version`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an event id of this service")]
pub struct InvalidVersion;

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (nonce, tick) = text.split_once('.').ok_or(InvalidVersion)?;
        // `from_str_radix` takes a sign, and `parse` a leading zero: only what `Display` writes is an id.
        let version = Self {
            nonce: Nonce(u64::from_str_radix(nonce, 16).map_err(|_| InvalidVersion)?),
            tick: tick.parse().map_err(|_| InvalidVersion)?,
        };
        if version.to_string() == text { Ok(version) } else { Err(InvalidVersion) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_only_what_it_writes() {
        let version = Version { nonce: Nonce::new(0xab), tick: 7 };
        assert_eq!(version.to_string(), "00000000000000ab.7");
        assert_eq!(version.to_string().parse(), Ok(version));
        for text in ["", "ab.7", "00000000000000ab", "00000000000000ab.+7", "00000000000000AB.7", "x.y"] {
            assert_eq!(text.parse::<Version>(), Err(InvalidVersion), "{text:?}");
        }
    }
}
