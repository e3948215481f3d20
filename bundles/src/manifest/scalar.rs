//! What an unquoted word of a manifest is: YAML 1.1's answers, as kubectl gives them.
//!
//! Kubernetes reads YAML with `sigs.k8s.io/yaml`, whose scalars are those of YAML 1.1 without
//! base-60 numbers: `yes` is true, `0644` is 420, `1_000` is 1000. Manifests rely on it, so these
//! are its rules and not YAML 1.2's. Called by [`super::yaml`] only.

use super::span::Data;

/// The largest float that is still exact as an integer (2^53).
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A plain (unquoted, untagged) scalar; `None` for the infinities and for not-a-number, which JSON
/// does not have.
pub fn plain(text: &str) -> Option<Data> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Data::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "true" | "True" | "TRUE" => {
            Data::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "false" | "False" | "FALSE" => {
            Data::Bool(false)
        }
        _ if is_special_float(text) => return None,
        _ => number(text).unwrap_or_else(|| Data::String(text.into())),
    })
}

fn is_special_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN")
}

/// A number in any of its notations.
pub fn number(text: &str) -> Option<Data> {
    match text.as_bytes().first()? {
        // Here an underscore is not skipped: `._5` is a word.
        b'.' => float(text),
        b'+' | b'-' | b'0'..=b'9' => {
            let digits = text.replace('_', "");
            integer(&digits).or_else(|| float(&digits))
        }
        _ => None,
    }
}

fn integer(text: &str) -> Option<Data> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let value = i128::from(u64::from_str_radix(digits, radix).ok()?);
    let value = if negative { -value } else { value };
    (value >= i128::from(i64::MIN)).then_some(Data::Int(value))
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn float(text: &str) -> Option<Data> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || whole.len() + fraction.len() == 0 {
        return None;
    }
    if let Some(exponent) = exponent {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if exponent.is_empty() || !digits(exponent) {
            return None;
        }
    }
    let value: f64 = text.parse().ok()?;
    value.is_finite().then(|| from_float(value))
}

fn from_float(value: f64) -> Data {
    if value.fract() == 0.0 && value.abs() <= EXACT {
        // Exact: it has no fraction and is at most 2^53.
        #[allow(clippy::cast_possible_truncation)]
        Data::Int(value as i128)
    } else {
        Data::Float(value)
    }
}
