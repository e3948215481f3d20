//! The small words of stories: times, numbers, kinds.

use plan::{Hook, Mono, ProbeKind};

/// `12.5s` or `1m`; hours are `h`.
pub(super) fn time(text: &str) -> Result<Mono, String> {
    let wrong = || format!("a time ends with s, m or h: {text}");
    let unit = match text.chars().last() {
        Some('s') => 1.0,
        Some('m') => 60.0,
        Some('h') => 3600.0,
        _ => return Err(wrong()),
    };
    let value: f64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    let ms = (value * unit * 1000.0).round();
    if !(0.0..1e15).contains(&ms) {
        return Err(wrong());
    }
    Ok(Mono(ms as u64 * (Mono::SECOND / 1000)))
}

pub(super) fn show_time(at: Mono) -> String {
    let ms = at.0 / (Mono::SECOND / 1000);
    if ms.is_multiple_of(1000) {
        format!("{}s", ms / 1000)
    } else {
        format!("{:.3}s", ms as f64 / 1e3)
    }
}

/// `grace=30`.
pub(super) fn number(text: &str) -> Result<(&str, u32), String> {
    let (key, value) = text.split_once('=').ok_or(format!("NAME=NUMBER, not {text}"))?;
    Ok((key, value.parse().map_err(|_| format!("{value} is no number"))?))
}

pub(super) fn incarnation(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text} is no number of an incarnation"))
}

pub(super) fn code(text: &str) -> Result<i32, String> {
    text.parse().map_err(|_| format!("{text} is no exit code"))
}

pub(super) fn kind(text: &str) -> Result<ProbeKind, String> {
    match text {
        "startup" => Ok(ProbeKind::Startup),
        "readiness" => Ok(ProbeKind::Readiness),
        "liveness" => Ok(ProbeKind::Liveness),
        other => Err(format!("a kind of probe, not {other}")),
    }
}

pub(super) fn hook(text: &str) -> Result<Hook, String> {
    match text {
        "post-start" => Ok(Hook::PostStart),
        "pre-stop" => Ok(Hook::PreStop),
        other => Err(format!("a hook, not {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_shown() {
        for (text, shown) in [("0s", "0s"), ("12.5s", "12.500s"), ("2m", "120s"), ("1h", "3600s")] {
            assert_eq!(show_time(time(text).expect("a time")), shown);
        }
        for wrong in ["", "5", "s", "-1s", "1e30h", "NaNs"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
