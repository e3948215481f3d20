//! CRI's log format, written: a pure function of bytes, stream and time.
//!
//! `<RFC 3339 time, nine digits> <stdout|stderr> <P|F> <content>\n`: `F` is a line, `P` a part of
//! one that is longer than [`MAX_CONTENT`] or that its container never finished. Readers join `P`
//! to what follows. (`k8s.io/cri-client/pkg/logs`; 16 KiB is containerd's and docker's limit.)
//!
//! Being pure is what the pump stands on: whoever takes over a half-written batch makes the same
//! text again and goes on at the right byte.

use plan::Wall;

/// Bytes of a line's content, at most; a longer line is cut into parts.
pub const MAX_CONTENT: usize = 16_384;

/// Bytes before the content: `2026-11-24T16:40:15.123456789Z stdout F `.
pub const HEADER: usize = 40;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// Standard output; with a terminal, everything.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Both.
    pub const ALL: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

    /// The stream's name in a log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// What becomes of an unfinished line at the end of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It is left alone: more may come.
    Keep,
    /// It becomes a `P`: nothing will come.
    Flush,
}

/// What [`format`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formatted {
    /// Bytes of the input that are in the text now.
    pub used: usize,
    /// Lines written; the last one's time is the first one's plus this less one.
    pub lines: u64,
}

/// Appends `input` to `text` as lines of `stream`, the first at `first` and each further one a
/// nanosecond later, so that times in a log are unique and rise. Stops before an unfinished line
/// (unless told to flush it) and before `text` is longer than `limit`.
pub fn format(
    input: &[u8],
    stream: Stream,
    rest: Rest,
    first: Wall,
    limit: usize,
    text: &mut Vec<u8>,
) -> Formatted {
    let (mut used, mut lines) = (0, 0);
    let mut head = Head::new(first, stream);
    while let Some(piece) = piece(&input[used..], rest) {
        if text.len() + HEADER + piece.len + 1 > limit {
            break;
        }
        head.text[TAG] = if piece.ended { b'F' } else { b'P' };
        text.extend_from_slice(&head.text);
        text.extend_from_slice(&input[used..used + piece.len]);
        text.push(b'\n');
        head.advance(stream);
        used += piece.len + usize::from(piece.ended);
        lines += 1;
    }
    Formatted { used, lines }
}

/// Bytes before the first newline, if there is one.
pub(super) fn newline(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(b'\n', bytes)
}

/// The content of one log line, at the beginning of the input.
struct Piece {
    len: usize,
    ended: bool,
}

fn piece(input: &[u8], rest: Rest) -> Option<Piece> {
    // One more than a line holds, because a full line may still be followed by its newline.
    let look = &input[..input.len().min(MAX_CONTENT + 1)];
    match newline(look) {
        Some(len) => Some(Piece { len, ended: true }),
        None if input.len() > MAX_CONTENT => Some(Piece { len: MAX_CONTENT, ended: false }),
        None if rest == Rest::Flush && !input.is_empty() => {
            Some(Piece { len: input.len(), ended: false })
        }
        None => None,
    }
}

/// What comes before a line's content. Times of a batch's lines are a nanosecond apart, so that from one to
/// the next little is written.
struct Head {
    at: Wall,
    text: [u8; HEADER],
}

/// Where in it the last digit of the time is, and the tag.
const LAST_DIGIT: usize = 28;
const TAG: usize = 38;

impl Head {
    fn new(at: Wall, stream: Stream) -> Head {
        let (date, nanos) = (at.rfc3339(), at.0 % NANOS);
        let seconds = date.trim_end_matches('Z');
        let line = format!("{seconds}.{nanos:09}Z {} F ", stream.name());
        let mut text = [b' '; HEADER];
        // A year of more than four digits has no place in a Wall.
        text.iter_mut().zip(line.bytes()).for_each(|(to, from)| *to = from);
        Head { at, text }
    }

    fn advance(&mut self, stream: Stream) {
        self.at = Wall(self.at.0.saturating_add(1));
        if self.at.0.is_multiple_of(NANOS) {
            *self = Head::new(self.at, stream);
            return;
        }
        for digit in self.text[..=LAST_DIGIT].iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                return;
            }
            *digit = b'0';
        }
    }
}

const NANOS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Wall = Wall(1_795_538_415_000_000_999);

    fn formatted(input: &[u8], rest: Rest) -> (String, Formatted) {
        let mut text = Vec::new();
        let done = format(input, Stream::Stdout, rest, AT, usize::MAX, &mut text);
        (String::from_utf8(text).unwrap(), done)
    }

    #[test]
    fn a_line_has_its_time_stream_tag_and_content() {
        let (text, done) = formatted(b"hello\n\nwor", Rest::Keep);
        assert_eq!(
            text,
            "2026-11-24T16:40:15.000000999Z stdout F hello\n\
             2026-11-24T16:40:15.000001000Z stdout F \n"
        );
        assert_eq!(done, Formatted { used: 7, lines: 2 });
    }

    #[test]
    fn an_unfinished_line_is_kept_back_or_flushed_as_a_part() {
        assert_eq!(formatted(b"wor", Rest::Keep).1.used, 0);
        let (text, done) = formatted(b"wor", Rest::Flush);
        assert_eq!(text, "2026-11-24T16:40:15.000000999Z stdout P wor\n");
        assert_eq!(done.used, 3);
        assert_eq!(formatted(b"", Rest::Flush).1.lines, 0);
    }

    #[test]
    fn times_are_counted_over_digits_and_seconds() {
        for first in [AT.0, 1_795_538_415_999_999_998, 1_795_538_459_999_999_999, 0] {
            let mut text = Vec::new();
            format(&[b'\n'; 1200], Stream::Stderr, Rest::Keep, Wall(first), usize::MAX, &mut text);
            for (n, line) in std::str::from_utf8(&text).unwrap().lines().enumerate() {
                let at = Wall(first + n as u64);
                let seconds = at.rfc3339();
                let wanted =
                    format!("{}.{:09}Z stderr F ", seconds.trim_end_matches('Z'), at.0 % NANOS);
                assert_eq!(line, wanted);
            }
        }
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_one_full_line() {
        let mut line = vec![b'x'; MAX_CONTENT];
        assert_eq!(formatted(&line, Rest::Keep).1.used, 0, "its newline may be under way");
        line.push(b'\n');
        let (text, done) = formatted(&line, Rest::Keep);
        assert_eq!(done, Formatted { used: MAX_CONTENT + 1, lines: 1 });
        assert_eq!(&text[HEADER - 2..HEADER], "F ");
    }

    #[test]
    fn one_byte_more_is_a_part_and_a_line() {
        let mut line = vec![b'x'; MAX_CONTENT + 1];
        let (_, done) = formatted(&line, Rest::Keep);
        assert_eq!(done, Formatted { used: MAX_CONTENT, lines: 1 });
        line.push(b'\n');
        let (text, done) = formatted(&line, Rest::Keep);
        assert_eq!(done, Formatted { used: MAX_CONTENT + 2, lines: 2 });
        assert!(text.ends_with(" F x\n"));
    }

    #[test]
    fn a_batch_formatted_again_is_the_same_text() {
        // The recorded range ends where the first pass stopped, so flushing it can cut nothing else.
        let input = [vec![b'x'; 3 * MAX_CONTENT + 5], b"\nabc\nde".to_vec()].concat();
        for limit in [20_000, 40_000, 100_000] {
            let (mut once, mut again) = (Vec::new(), Vec::new());
            let used = format(&input, Stream::Stderr, Rest::Keep, AT, limit, &mut once).used;
            format(&input[..used], Stream::Stderr, Rest::Flush, AT, limit, &mut again);
            assert!(once.len() <= limit && once == again);
        }
    }
}
