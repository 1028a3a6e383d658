//! Versions: the name of one state of all topics.

use std::fmt;
use std::str::FromStr;

/// Identifies one term of one publisher. Each takeover draws a random one, so versions of a lost
/// history are never mistaken for versions of the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce(u64);

impl Nonce {
    /// A nonce of 64 bits that the caller drew at random.
    pub const fn new(bits: u64) -> Self {
        Self(bits)
    }
}

/// One state of all topics: tick number `tick` of the term `nonce`. A frame's `id:` is
/// `nonce.tick`.
///
/// Versions of one nonce are ordered by their tick. Versions of different nonces have no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    /// The term that the state belongs to.
    pub nonce: Nonce,
    /// The number within the term, from 0.
    pub tick: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}.{}", self.nonce.0, self.tick)
    }
}

/// The text is not a [`Version`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an event id of this service")]
pub struct InvalidVersion;

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (nonce, tick) = text.split_once('.').ok_or(InvalidVersion)?;
        // `from_str_radix` accepts a sign, and `parse` leading zeros, but only what `Display`
        // writes is an id. Hence the comparison at the end.
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
    fn only_the_text_that_display_writes_is_parsed() {
        let version = Version { nonce: Nonce::new(0xab), tick: 7 };
        assert_eq!(version.to_string(), "00000000000000ab.7");
        assert_eq!(version.to_string().parse(), Ok(version));
        for text in
            ["", "ab.7", "00000000000000ab", "00000000000000ab.+7", "00000000000000AB.7", "x.y"]
        {
            assert_eq!(text.parse::<Version>(), Err(InvalidVersion), "{text:?}");
        }
    }
}
