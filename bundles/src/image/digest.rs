//! Digests: their grammar, and readers that compute them on the way.
//!
//! A digest becomes part of a path or of a URL only as a [`Digest`], whose constructor has checked
//! it: an image's documents are somebody else's words (CVE-2024-3727 was a digest used unchecked).

use std::fmt;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

/// `sha256:` and 64 lower-case hexadecimal digits.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// Why a text is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest is sha256: and 64 hexadecimal digits in lower case, not {text:?}")]
pub struct DigestError {
    /// The text.
    pub text: String,
}

const PREFIX: &str = "sha256:";

impl Digest {
    /// Reads a digest. SHA-512, which the image-spec allows too, is refused: no registry in use
    /// makes it.
    pub fn parse(text: &str) -> Result<Digest, DigestError> {
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        match text.strip_prefix(PREFIX) {
            Some(hex) if hex.len() == 64 && hex.bytes().all(is_hex) => Ok(Digest(text.into())),
            _ => Err(DigestError { text: text.chars().take(200).collect() }),
        }
    }

    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Digest {
        Digest::from_hash(&Sha256::digest(bytes))
    }

    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0[PREFIX.len()..]
    }

    /// 26 letters and digits: 128 bits of the digest in base 32.
    ///
    /// overlayfs takes its lower directories in one page, so their names must be short. To make
    /// two layers of one short name takes 2^64 hashes, and somebody else's layer 2^128.
    #[must_use]
    pub fn short(&self) -> String {
        const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        // 32 hexadecimal digits are 128 bits, and always parse: the constructor checked them.
        let bits = u128::from_str_radix(&self.hex()[..32], 16).unwrap_or_default();
        let letter = |i: u32| {
            let value = if i < 25 { (bits >> (123 - 5 * i)) & 31 } else { (bits << 2) & 31 };
            char::from(ALPHABET[usize::try_from(value).unwrap_or_default()])
        };
        (0..26).map(letter).collect()
    }

    fn from_hash(hash: &[u8]) -> Digest {
        use fmt::Write as _;
        let mut text = String::from(PREFIX);
        for byte in hash {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Digest(text)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Digest::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

/// A digest in the making.
#[derive(Clone, Debug, Default)]
pub struct Hasher {
    sha: Sha256,
    bytes: u64,
}

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha.update(bytes);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
    }

    /// How many bytes there were so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of all of them.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest::from_hash(&self.sha.finalize())
    }
}

/// Computes the digest of what is read through it, and ends with an error after `limit` bytes.
#[derive(Debug)]
pub struct HashingReader<R> {
    input: R,
    hasher: Hasher,
    limit: u64,
}

impl<R: Read> HashingReader<R> {
    /// A reader of `input`, which may have `limit` bytes at most.
    pub fn new(input: R, limit: u64) -> Self {
        HashingReader { input, hasher: Hasher::default(), limit }
    }

    /// The digest of what was read.
    #[must_use]
    pub fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        if self.hasher.bytes() > self.limit {
            let text = format!("more than the {} bytes that are allowed", self.limit);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sha256_in_lower_case_is_a_digest() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(Digest::parse(&good).unwrap().hex(), "0a".repeat(32));
        for text in [
            String::new(),
            "sha256:".into(),
            format!("sha256:{}", "0A".repeat(32)),
            format!("sha256:{}", "0a".repeat(31)),
            format!("sha256:{}", "0a".repeat(33)),
            format!("sha512:{}", "0a".repeat(64)),
            format!("sha256:../{}", "0".repeat(61)),
        ] {
            assert!(Digest::parse(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_short_name_is_128_bits_in_base_32() {
        // RFC 4648 of the first 16 bytes of SHA-256(""): e3b0c44298fc1c149afbf4c8996fb924
        assert_eq!(Digest::of(b"").short(), "4oymiquy7qobjgx36tejs35zeq");
    }

    #[test]
    fn a_limit_is_an_error_and_not_a_shorter_file() {
        let mut all = Vec::new();
        let mut reader = HashingReader::new(&b"12345"[..], 5);
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(reader.finish(), Digest::of(b"12345"));
        assert!(HashingReader::new(&b"123456"[..], 5).read_to_end(&mut all).is_err());
    }
}
