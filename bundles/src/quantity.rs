//! Kubernetes resource quantities (`100m`, `64Mi`, `1.5Gi`, `1e3`), exact.
//!
//! The grammar is that of `k8s.io/apimachinery/pkg/api/resource`: a decimal number with an optional
//! sign, and one suffix: none, binary (`Ki` … `Ei`), decimal (`n u m k M G T P E`) or an exponent.
//! Values are kept as billionths, which is the finest unit the grammar knows; what is finer is
//! rounded up in magnitude, as Kubernetes does.

use std::str::FromStr;

/// An exact quantity, in billionths of its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i128);

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("quantities are written like 100m, 0.5, 64Mi, 1.5Gi or 1e3, not {text:?}")]
pub struct QuantityError {
    /// The text.
    pub text: String,
}

const NANO: i128 = 1_000_000_000;

impl Quantity {
    /// Nothing.
    pub const ZERO: Quantity = Quantity(0);

    /// The value rounded up to whole units (bytes, for memory).
    #[must_use]
    pub fn ceil(self) -> i64 {
        saturate(self.ceil_div(NANO))
    }

    /// The value rounded up to thousandths (millicores, for cpu).
    #[must_use]
    pub fn milli(self) -> i64 {
        saturate(self.ceil_div(NANO / 1000))
    }

    /// Whether it is below zero.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// `ceil(self / divisor)`, the value of a `resourceFieldRef`; `None` for a divisor of zero.
    #[must_use]
    pub fn ceil_div_by(self, divisor: Quantity) -> Option<i64> {
        (divisor.0 != 0).then(|| saturate(self.ceil_div(divisor.0)))
    }

    /// The sum; saturates.
    #[must_use]
    pub fn plus(self, other: Quantity) -> Quantity {
        Quantity(self.0.saturating_add(other.0))
    }

    fn ceil_div(self, by: i128) -> i128 {
        let (quotient, rest) = (self.0 / by, self.0 % by);
        quotient + i128::from(rest != 0 && (rest > 0) == (by > 0))
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// The suffix as a multiplier of billionths: a power of two and a power of ten.
fn scale(suffix: &str) -> Option<(u32, i32)> {
    Some(match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            // Beyond these every value is nothing or more than any host has.
            (0, exponent.parse::<i32>().ok()?.clamp(-40, 40))
        }
    })
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| QuantityError { text: text.into() })
    }
}

fn parse(text: &str) -> Option<Quantity> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || fraction.contains('.') {
        return None;
    }
    let (two, ten) = scale(suffix)?;
    let mut digits = String::from(whole);
    digits.push_str(fraction);
    let trimmed = digits.trim_start_matches('0');
    // value = digits * 10^-(fraction) * 2^two * 10^ten, in billionths: * 10^9
    let power = ten + 9 - i32::try_from(fraction.len()).ok()?;
    let magnitude = if trimmed.is_empty() {
        0
    } else {
        let digits: i128 = if trimmed.len() > 38 { i128::MAX } else { trimmed.parse().ok()? };
        let shifted = digits.saturating_mul(1_i128 << two);
        match u32::try_from(power) {
            Ok(up) => 10_i128.checked_pow(up).map_or(i128::MAX, |p| shifted.saturating_mul(p)),
            Err(_) => 10_i128
                .checked_pow(power.unsigned_abs())
                .map_or(1, |p| shifted / p + i128::from(shifted % p != 0)),
        }
    };
    Some(Quantity(if negative { -magnitude } else { magnitude }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn q(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn every_suffix_has_its_size() {
        for (text, units) in [
            ("1", 1),
            ("1k", 1000),
            ("1Ki", 1024),
            ("64Mi", 67_108_864),
            ("1.5Gi", 1_610_612_736),
            ("1e3", 1000),
            ("1E3", 1000),
            ("1E", 1_000_000_000_000_000_000),
            ("1Ei", 1_152_921_504_606_846_976),
            ("100m", 1),
            ("0.5", 1),
            (".5", 1),
            ("5.", 5),
            ("+2", 2),
            ("-1", -1),
            ("0", 0),
            ("1n", 1),
        ] {
            assert_eq!(q(text).ceil(), units, "{text}");
        }
        assert_eq!(q("250m").milli(), 250);
        assert_eq!(q("0.1").milli(), 100);
        assert_eq!(q("1u").milli(), 1);
    }

    #[test]
    fn a_divisor_rounds_up() {
        assert_eq!(q("250m").ceil_div_by(q("1")), Some(1));
        assert_eq!(q("250m").ceil_div_by(q("1m")), Some(250));
        assert_eq!(q("1Gi").ceil_div_by(q("1Mi")), Some(1024));
        assert_eq!(q("1").ceil_div_by(Quantity::ZERO), None);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "-", ".", "1.2.3", "1 Gi", "1gi", "1KiB", "1ki", "Mi", "e3", "1e", "0x10"]
        {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_absurd_saturates() {
        assert_eq!(q("1e40").ceil(), i64::MAX);
        assert_eq!(q("-1e40").ceil(), i64::MIN);
        assert_eq!(q("1e-40").ceil(), 1);
        assert_eq!(q(&"9".repeat(60)).ceil(), i64::MAX);
    }
}
