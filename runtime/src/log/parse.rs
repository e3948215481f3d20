//! CRI's log format, read: one line at a time, as a pure function.
//!
//! Accepts what any CRI runtime writes: any number of fractional digits, any zone, further tags
//! after a colon. What it does not accept it does not guess at.

use plan::Wall;

use super::format::Stream;

/// One line of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// When it was written.
    pub time: Wall,
    /// By which stream.
    pub stream: Stream,
    /// Whether the container's line ends here (`F`) or goes on (`P`).
    pub full: bool,
    /// Without the newline.
    pub content: &'a [u8],
}

/// Reads a line (without its newline); `None` if it is not in CRI's format.
#[must_use]
pub fn entry(line: &[u8]) -> Option<Entry<'_>> {
    let (time, rest) = word(line)?;
    let (stream, rest) = word(rest)?;
    let (tags, content) = word(rest)?;
    let stream = Stream::ALL.into_iter().find(|s| s.name().as_bytes() == stream)?;
    let full = match tags.split(|&b| b == b':').next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Entry { time: rfc3339(time)?, stream, full, content })
}

fn word(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().take(64).position(|&b| b == b' ')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// `2006-01-02T15:04:05.999999999Z07:00`, not before 1970.
fn rfc3339(text: &[u8]) -> Option<Wall> {
    let (date, rest) = text.split_at_checked(19)?;
    for (at, separator) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
        (date[at] == separator).then_some(())?;
    }
    let field = |range: std::ops::Range<usize>| number(&date[range]);
    let days = days_since_1970(field(0..4)?, field(5..7)?, field(8..10)?)?;
    let (h, m, s) = (field(11..13)?, field(14..16)?, field(17..19)?);
    let (nanos, zone) = fraction(rest)?;
    let seconds = (days * 86_400 + h * 3600 + m * 60 + s).checked_add_signed(-offset(zone)?)?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos).map(Wall)
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |n, d| d.is_ascii_digit().then(|| n * 10 + u64::from(d - b'0')))
}

/// Nanoseconds, and what follows the digits.
fn fraction(text: &[u8]) -> Option<(u64, &[u8])> {
    let Some(digits) = text.strip_prefix(b".") else { return Some((0, text)) };
    let len = digits.iter().take_while(|d| d.is_ascii_digit()).count();
    let (digits, zone) = digits.split_at(len);
    let missing = u32::try_from(9_usize.checked_sub(len)?).ok()?;
    Some((number(digits)? * 10_u64.pow(missing), zone))
}

/// Seconds east of Greenwich.
fn offset(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" => Some(0),
        [sign @ (b'+' | b'-'), h @ .., b':', m1, m2] => {
            let seconds = i64::try_from(number(h)? * 3600 + number(&[*m1, *m2])? * 60).ok()?;
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

/// Days of a proleptic Gregorian date, counted in years that begin on 1 March.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = year.checked_sub(u64::from(month <= 2))?;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    (year * 365 + year / 4 - year / 100 + year / 400 + day_of_year).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::format::{Rest, format};

    fn time(text: &str) -> Option<u64> {
        rfc3339(text.as_bytes()).map(|at| at.0)
    }

    #[test]
    fn times_of_other_runtimes_are_read() {
        const SECOND: u64 = 1_000_000_000;
        assert_eq!(time("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(time("2000-02-29T00:00:00.5Z"), Some(951_782_400 * SECOND + SECOND / 2));
        assert_eq!(time("2024-03-01T01:59:59+02:00"), Some(1_709_251_199 * SECOND));
        assert_eq!(time("2024-02-29T23:59:59.000000001Z"), Some(1_709_251_199 * SECOND + 1));
        assert_eq!(time("2024-02-29T18:29:59-05:30"), Some(1_709_251_199 * SECOND));
        for bad in ["2024-02-29", "2024-02-29T23:59:59", "2024-13-01T00:00:00Z", "yesterday", ""] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }

    #[test]
    fn further_tags_are_passed_over() {
        let line = entry(b"2024-02-29T23:59:59Z stderr P:x:y some text").unwrap();
        assert_eq!((line.full, line.content), (false, b"some text".as_slice()));
        assert_eq!(entry(b"2024-02-29T23:59:59Z stderr X some text"), None);
        assert_eq!(entry(b"just words and more words"), None);
    }

    /// Bytes in which newlines and long lines are frequent.
    fn output() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..50),
            Just(b"\n".to_vec()),
            (16_380_usize..16_390).prop_map(|n| vec![b'x'; n]),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn what_was_formatted_reads_back_as_it_was(
            input in output(),
            at in any::<u32>().prop_map(|s| Wall(u64::from(s) * 999_999_937)),
        ) {
            let mut text = Vec::new();
            let done = format(&input, Stream::Stderr, Rest::Flush, at, usize::MAX, &mut text);
            prop_assert_eq!(done.used, input.len());
            let (mut joined, mut expected) = (Vec::new(), at);
            for line in text.split_inclusive(|&b| b == b'\n') {
                let entry = entry(&line[..line.len() - 1]).expect("a line of ours");
                prop_assert_eq!((entry.time, entry.stream), (expected, Stream::Stderr));
                joined.extend_from_slice(entry.content);
                if entry.full { joined.push(b'\n') }
                expected.0 += 1;
            }
            prop_assert_eq!(joined, input);
        }
    }
}
