//! Files with holes in a tar stream: where the bytes that are there belong.
//!
//! GNU tar has written this in four ways: its own entry type with a map in the header and in blocks
//! behind it, and PAX records in the versions 0.0, 0.1 and 1.0, the last with the map before the content
//! (GNU tar manual, "Storing Sparse Files"). A map is taken only if it is in order and says exactly
//! how much content there is, so that two readers cannot see two streams.

use std::io::Read;

use super::pax::decimal;
use super::tarball::{Result, TarError};

/// Parts of one file; each costs memory and two system calls.
const MAX_PARTS: usize = 64 << 10;
/// Bytes of a part's description in a header.
const PART: usize = 24;

/// Where the content of a file with holes belongs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Map {
    /// Offset in the file and length, in order.
    pub(crate) parts: Vec<(u64, u64)>,
    /// The file's length.
    pub(crate) size: u64,
}

const WRONG: TarError = TarError::Header("the map of a sparse file is wrong");

impl Map {
    fn add(&mut self, offset: u64, length: u64) -> Result<()> {
        if self.parts.len() >= MAX_PARTS {
            return Err(TarError::Header("a sparse file has more than 65536 parts"));
        }
        self.parts.push((offset, length));
        Ok(())
    }

    /// The map if it is in order and has `content` bytes.
    pub(super) fn checked(self, content: u64) -> Result<Map> {
        let (mut end, mut sum) = (0_u64, 0_u64);
        for (offset, length) in &self.parts {
            if *offset < end {
                return Err(WRONG);
            }
            end = offset.checked_add(*length).ok_or(WRONG)?;
            sum = sum.checked_add(*length).ok_or(WRONG)?;
        }
        if end > self.size || sum != content || self.size > i64::MAX as u64 {
            return Err(WRONG);
        }
        Ok(self)
    }
}

/// A map of GNU's own entry type, as far as it was read.
pub(super) struct OldMap {
    map: Map,
    /// Whether another block of it follows.
    pub(super) goes_on: bool,
}

/// What a header of GNU's own type says: four parts at most.
pub(super) fn old_map(header: &[u8; 512]) -> Result<OldMap> {
    let size = octal(&header[483..495])?;
    let mut old = OldMap { map: Map { size, ..Map::default() }, goes_on: header[482] != 0 };
    old.add_parts(&header[386..482])?;
    Ok(old)
}

impl OldMap {
    /// The next block.
    pub(super) fn add_block(&mut self, block: &[u8; 512]) -> Result<()> {
        self.goes_on = block[504] != 0;
        self.add_parts(&block[..504])
    }

    fn add_parts(&mut self, parts: &[u8]) -> Result<()> {
        for part in parts.chunks_exact(PART) {
            if part.iter().all(|b| *b == 0) {
                break;
            }
            self.map.add(octal(&part[..12])?, octal(&part[12..])?)?;
        }
        Ok(())
    }

    pub(super) fn finish(self, content: u64) -> Result<Map> {
        self.map.checked(content)
    }
}

/// An octal number, or one of base 256 if its first bit is set.
fn octal(field: &[u8]) -> Result<u64> {
    if field[0] == 0x80 {
        let (high, low) = field[1..].split_at(field.len() - 9);
        let low: [u8; 8] = low.try_into().map_err(|_| WRONG)?;
        return if high.iter().all(|b| *b == 0) { Ok(u64::from_be_bytes(low)) } else { Err(WRONG) };
    }
    let text = field.split(|b| matches!(b, 0 | b' ')).find(|t| !t.is_empty()).unwrap_or(b"0");
    let text = std::str::from_utf8(text).map_err(|_| WRONG)?;
    u64::from_str_radix(text, 8).map_err(|_| WRONG)
}

/// What PAX records say about holes.
#[derive(Default)]
pub(super) struct Said {
    /// The file's name.
    pub(super) name: Option<Vec<u8>>,
    major: Option<u64>,
    minor: Option<u64>,
    size: Option<u64>,
    /// Offsets and lengths in turn.
    numbers: Vec<u64>,
}

impl Said {
    /// Takes the record `GNU.sparse.<key>`.
    pub(super) fn note(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"major" => self.major = decimal(value)?,
            b"minor" => self.minor = decimal(value)?,
            b"size" | b"realsize" => self.size = decimal(value)?,
            b"offset" | b"numbytes" => {
                // In pairs, offset first.
                if self.numbers.len().is_multiple_of(2) != (key == b"offset") {
                    return Err(WRONG);
                }
                self.number(value)?;
            }
            b"map" => {
                for text in value.split(|b| *b == b',').filter(|t| !t.is_empty()) {
                    self.number(text)?;
                }
            }
            // How many there are is counted.
            _ => {}
        }
        Ok(())
    }

    fn number(&mut self, text: &[u8]) -> Result<()> {
        if self.numbers.len() >= 2 * MAX_PARTS {
            return Err(WRONG);
        }
        self.numbers.push(decimal(text)?.ok_or(WRONG)?);
        Ok(())
    }

    pub(super) fn is_sparse(&self) -> bool {
        self.size.is_some() || self.major.is_some() || !self.numbers.is_empty()
    }

    /// Whether the map stands before the content.
    pub(super) fn is_in_content(&self) -> bool {
        self.major == Some(1)
    }

    /// The map of versions 0.0 and 0.1.
    pub(super) fn map(&self) -> Result<Map> {
        let mut map = Map { parts: Vec::new(), size: self.size.ok_or(WRONG)? };
        let (pairs, rest) = self.numbers.as_chunks::<2>();
        if !rest.is_empty() || self.major.is_some_and(|major| major != 0) {
            return Err(WRONG);
        }
        pairs.iter().try_for_each(|[offset, length]| map.add(*offset, *length))?;
        Ok(map)
    }
}

/// The map of version 1.0: numbers in decimal, a line each, filled up to a block.
pub(super) fn read_map(content: &mut impl Read, said: &Said) -> Result<Map> {
    if said.minor != Some(0) {
        return Err(TarError::Header("a sparse file of a version that is not known"));
    }
    let mut map = Map { parts: Vec::new(), size: said.size.ok_or(WRONG)? };
    let mut block = [0; 512];
    let mut at = block.len();
    let mut number = || -> Result<u64> {
        let mut value = None;
        loop {
            if at == block.len() {
                content.read_exact(&mut block).map_err(|_| WRONG)?;
                at = 0;
            }
            let byte = block[at];
            at += 1;
            match byte {
                b'0'..=b'9' => {
                    let digit = u64::from(byte - b'0');
                    let more = value.unwrap_or(0_u64).checked_mul(10);
                    value = Some(more.and_then(|v| v.checked_add(digit)).ok_or(WRONG)?);
                }
                b'\n' => return value.ok_or(WRONG),
                _ => return Err(WRONG),
            }
        }
    };
    for _ in 0..number()? {
        let offset = number()?;
        map.add(offset, number()?)?;
    }
    Ok(map)
}
