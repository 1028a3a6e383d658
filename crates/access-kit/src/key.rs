//! The keys that clients present: `nc_<id>_<secret><checksum>`.
//!
//! A key has only letters, digits and `_`, so that a double click selects all of it. The id names
//! the key in lists and logs. The secret has 256 random bits, so nothing can guess it, and its
//! SHA-256 is enough to store: slow password hashes are for what people choose. The checksum, a
//! CRC-32, finds typing errors and stray text without a look at the keyring.
//!
//! Invariant: the text of a key is in no log. [`Key`] shows only its id.

use std::fmt;
use std::str::FromStr;

use rand::distr::{Alphanumeric, SampleString};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What every key begins with.
const PREFIX: &str = "nc_";
const ID_CHARACTERS: usize = 12;
/// 62 characters to choose from: 62⁴³ is more than 2²⁵⁶.
const SECRET_CHARACTERS: usize = 43;
const CHECKSUM_CHARACTERS: usize = 6;
/// The length of a key, which is ASCII.
pub const KEY_CHARACTERS: usize =
    PREFIX.len() + ID_CHARACTERS + 1 + SECRET_CHARACTERS + CHECKSUM_CHARACTERS;

/// A key, with its secret.
#[derive(Clone)]
pub struct Key {
    id: KeyId,
    text: SecretString,
}

/// The part of a key that names it. It is no secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct KeyId([u8; ID_CHARACTERS]);

/// The SHA-256 of a key's whole text. In JSON, it is hexadecimal.
#[derive(Clone, Copy, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyHash(#[serde(with = "hex")] [u8; 32]);

/// The text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key, or mistyped: a key is nc_, 12 characters, _, and 49 characters")]
pub struct InvalidKey;

/// The text is not the id of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a key, which has 12 letters and digits")]
pub struct InvalidKeyId;

impl Key {
    /// A new random key.
    #[must_use]
    pub fn generate() -> Self {
        let mut random = rand::rng();
        let mut text = PREFIX.to_owned();
        Alphanumeric.append_string(&mut random, &mut text, ID_CHARACTERS);
        text.push('_');
        Alphanumeric.append_string(&mut random, &mut text, SECRET_CHARACTERS);
        text.extend(checksum(&text).map(char::from));
        let mut id = [0; ID_CHARACTERS];
        id.copy_from_slice(&text.as_bytes()[PREFIX.len()..PREFIX.len() + ID_CHARACTERS]);
        Self { id: KeyId(id), text: text.into() }
    }

    /// The id.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// What is stored of the key.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash(Sha256::digest(self.text.expose_secret()).into())
    }

    /// The whole text, secret included.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }
}

impl FromStr for Key {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        if text.len() != KEY_CHARACTERS || !text.is_ascii() {
            return Err(InvalidKey);
        }
        let (secret, given) = text.split_at(KEY_CHARACTERS - CHECKSUM_CHARACTERS);
        let parts = secret.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_'));
        let (id, secret_part) = parts.ok_or(InvalidKey)?;
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_plain(secret_part) || checksum(secret) != given.as_bytes() {
            return Err(InvalidKey);
        }
        let id = id.parse().map_err(|InvalidKeyId| InvalidKey)?;
        Ok(Self { id, text: text.into() })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Key").field(&self.id).finish()
    }
}

/// Whether a text has a key somewhere in it, whole or mistyped.
#[must_use]
pub fn contains_key(text: &str) -> bool {
    text.match_indices(PREFIX).any(|(start, _)| {
        let id = text.get(start + PREFIX.len()..start + PREFIX.len() + ID_CHARACTERS);
        let after = text.as_bytes().get(start + PREFIX.len() + ID_CHARACTERS);
        id.is_some_and(|id| id.parse::<KeyId>().is_ok()) && after == Some(&b'_')
    })
}

/// The CRC-32 of a text, as six digits to base 62.
fn checksum(text: &str) -> [u8; CHECKSUM_CHARACTERS] {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rest = crc32fast::hash(text.as_bytes());
    let mut digits = [b'0'; CHECKSUM_CHARACTERS];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

impl FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<Self, InvalidKeyId> {
        let id: [u8; ID_CHARACTERS] = text.as_bytes().try_into().map_err(|_| InvalidKeyId)?;
        if !id.iter().all(u8::is_ascii_alphanumeric) {
            return Err(InvalidKeyId);
        }
        Ok(Self(id))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for KeyId {
    type Error = InvalidKeyId;

    fn try_from(text: String) -> Result<Self, InvalidKeyId> {
        text.parse()
    }
}

impl KeyHash {
    /// The 32 bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for KeyHash {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl PartialEq for KeyHash {
    /// In constant time, so that the time of an answer reveals nothing of the stored hash.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyHash")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made once by [`Key::generate`], so that a change of the format is noticed.
    const EXAMPLE: &str = "nc_LIyCELySIo1P_Gc8H6YHfV7sFxdhCyeALmDXvAkzSFHxnGxXRy4IhJ5I29QTEM";

    #[test]
    fn a_new_key_is_read_back_and_no_two_are_equal() {
        let [one, other] = [Key::generate(), Key::generate()];
        assert_eq!(one.expose().len(), KEY_CHARACTERS);
        assert!(one.expose().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        let read: Key = one.expose().parse().unwrap();
        assert_eq!((read.id(), read.hash()), (one.id(), one.hash()));
        assert_ne!(one.id(), other.id());
        assert!(one.hash() != other.hash());
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        let key = Key::generate();
        let text = key.expose();
        let mut refused =
            vec![String::new(), "nc_".to_owned(), format!("{text} "), format!(" {text}")];
        refused.push(text.replacen("nc_", "NC_", 1));
        refused.push("é".repeat(KEY_CHARACTERS / 2) + "x");
        // Each character is protected by the checksum.
        for place in 0..text.len() {
            let other = if &text[place..=place] == "a" { "b" } else { "a" };
            let mut mistyped = text.to_owned();
            mistyped.replace_range(place..=place, other);
            refused.push(mistyped);
            refused.push(text[..place].to_owned());
        }
        for text in refused {
            assert_eq!(text.parse::<Key>().unwrap_err(), InvalidKey, "{text}");
        }
    }

    #[test]
    fn a_key_shows_only_its_id() {
        let key = Key::generate();
        assert_eq!(format!("{key:?}"), format!("Key({})", key.id()));
    }

    #[test]
    fn keys_are_found_in_other_text_even_if_they_are_cut() {
        let key = Key::generate();
        let text = key.expose();
        for found in [text, &format!("?token={text}&x"), &text[..20], &format!("nc_nc_x{text}")] {
            assert!(contains_key(found), "{found}");
        }
        for plain in ["", "nc_", "sync_state", "nc_short_secret", "nc_é23456789012_"] {
            assert!(!contains_key(plain), "{plain}");
        }
    }

    #[test]
    fn the_format_is_stable() {
        let key: Key = EXAMPLE.parse().unwrap();
        assert_eq!(key.id().to_string(), EXAMPLE[3..15]);
    }
}
