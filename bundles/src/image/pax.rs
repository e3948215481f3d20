//! PAX extended headers (POSIX pax): what they say about the entry that follows.

use super::sparse::Said;
use super::tarball::{Result, TarError};

#[derive(Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Said,
}

/// Records `<length> <key>=<value>\n`, where the length is that of the whole record.
pub(super) fn pax(mut rest: &[u8]) -> Result<Pax> {
    let mut pax = Pax::default();
    while !rest.is_empty() {
        let (record, after) = split_record(rest).ok_or(TarError::Header("a PAX record is none"))?;
        rest = after;
        let equals = record.iter().position(|b| *b == b'=');
        let (key, value) = record.split_at(equals.ok_or(TarError::Header("a PAX key is none"))?);
        let value = &value[1..];
        // An empty value takes an earlier one away.
        let bytes = (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => pax.path = bytes,
            b"linkpath" => pax.link = bytes,
            b"size" => pax.size = decimal(value)?,
            b"uid" => pax.uid = decimal(value)?,
            b"gid" => pax.gid = decimal(value)?,
            b"mtime" => pax.mtime = time(value)?,
            _ if key.starts_with(b"GNU.sparse.") => pax.sparse.note(&key[11..], value)?,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    pax.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
    }
    Ok(pax)
}

fn split_record(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = rest.iter().position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
    let record = rest.get(space + 1..length)?.strip_suffix(b"\n")?;
    Some((record, &rest[length..]))
}

pub(super) fn decimal(value: &[u8]) -> Result<Option<u64>> {
    if value.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(value).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
    let number = text.and_then(|t| t.parse().ok());
    number.map(Some).ok_or(TarError::Header("a PAX number is none"))
}

fn time(value: &[u8]) -> Result<Option<(i64, u32)>> {
    const WRONG: TarError = TarError::Header("a PAX time is none");
    if value.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(value).map_err(|_| WRONG)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = whole.strip_prefix('-').unwrap_or(whole);
    let is_number = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if digits.is_empty() || !is_number(digits) || !is_number(fraction) {
        return Err(WRONG);
    }
    // Beyond i64 it is clamped by whoever uses it; until then the sign is what matters.
    let negative = whole.starts_with('-');
    let seconds = whole.parse().unwrap_or(if negative { i64::MIN } else { i64::MAX });
    let padded: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = padded.parse().map_err(|_| WRONG)?;
    Ok(Some(match (negative, nanoseconds) {
        (true, 1..) => (seconds.saturating_sub(1), 1_000_000_000 - nanoseconds),
        _ => (seconds, nanoseconds),
    }))
}
