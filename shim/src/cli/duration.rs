//! Lengths of time as kubectl's flags take them (Go's `time.ParseDuration`): `30s`, `1m30s`, `1.5h`,
//! `500ms`, `0`, `-1s`.

use std::time::Duration;

use anyhow::{Context, bail, ensure};

/// `None` is a negative one.
pub fn parse(text: &str) -> anyhow::Result<Option<Duration>> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    ensure!(!rest.is_empty(), "{text:?} is no duration: write one like 30s or 1m30s");
    if rest == "0" {
        return Ok(Some(Duration::ZERO));
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let number: f64 =
            number.parse().ok().with_context(|| format!("{text:?} is no duration, like 30s"))?;
        let unit_ends = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_ends);
        seconds += number
            * match unit {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                "" => bail!("{text:?} has no unit: write {text}s for seconds (h, m, s, ms)"),
                other => bail!("{text:?}: {other:?} is no unit (h, m, s, ms)"),
            };
        rest = after;
    }
    let length = Duration::try_from_secs_f64(seconds).with_context(|| format!("{text:?}"))?;
    Ok((!negative || length.is_zero()).then_some(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, ms) in [
            ("30s", Some(30_000)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("500ms", Some(500)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("-0", Some(0)),
            ("+2s", Some(2000)),
            ("-1s", None),
        ] {
            let parsed = parse(text).map_err(|e| e.to_string());
            assert_eq!(parsed, Ok(ms.map(Duration::from_millis)), "{text}");
        }
        for text in ["", "-", "30", "1s0", "s", "1x", "1s 2s", "1..5s", "now", "1e99h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
