//! Signals by the names that images give them (`STOPSIGNAL`, the OCI image-spec's `StopSignal`).

/// The first real-time signal as images mean it: glibc's, whose own use of two makes it 34.
const RTMIN: i32 = 34;
/// The last signal that Linux has.
const RTMAX: i32 = 64;

/// The number of `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3` or `RTMAX-2`, in any case (signal(7)). `None`
/// for what is no signal.
#[must_use]
pub fn number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |base: i32, distance: &str, sign: char| -> Option<i32> {
        if distance.is_empty() {
            return Some(base);
        }
        let distance: i32 = distance.strip_prefix(sign)?.parse().ok()?;
        let number =
            if sign == '+' { base.checked_add(distance) } else { base.checked_sub(distance) };
        number.filter(|number| (RTMIN..=RTMAX).contains(number))
    };
    if let Some(distance) = short.strip_prefix("RTMIN") {
        return real_time(RTMIN, distance, '+');
    }
    if let Some(distance) = short.strip_prefix("RTMAX") {
        return real_time(RTMAX, distance, '-');
    }
    format!("SIG{short}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_known_by_name_and_number() {
        for (name, expected) in [
            ("SIGQUIT", 3),
            ("quit", 3),
            ("3", 3),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmax-1", 63),
            ("37", 37),
        ] {
            assert_eq!(number(name), Some(expected), "{name}");
        }
        for name in
            ["", "SIG", "nonsense", "0", "-9", "65", "RTMIN+99", "RTMIN-1", "RTMAX+1", "RTMIN3"]
        {
            assert_eq!(number(name), None, "{name}");
        }
    }
}
