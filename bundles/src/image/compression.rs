//! Tells a layer's or an archive's compression by its first bytes, and undoes it.
//!
//! The bytes are asked and not the media type: registries and archives carry gzip under both names.

use std::io::{self, BufReader, Read};

use flate2::read::MultiGzDecoder;

/// The most memory that a zstd stream may ask for: 2^25 bytes, which is what the strongest level of
/// image builders uses. A stream may name up to 2 GiB.
const ZSTD_WINDOW_LOG: u32 = 25;

/// `input` as it was before it was compressed: gzip (one or several members), zstd (one or several
/// frames) or plain. `what` says in an error what it is, in the plural.
pub(crate) fn decompress<R: Read>(mut input: R, what: &str) -> io::Result<Plain<R>> {
    let start = first_bytes(&mut input)?;
    if let Some(name) = unsupported(&start) {
        let text = format!("{name} {what} are not supported, only gzip, zstd and plain tar");
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    let (is_gzip, is_zstd) = (start.starts_with(&[0x1f, 0x8b]), is_zstd(&start));
    let whole = BufReader::with_capacity(64 << 10, io::Cursor::new(start).chain(input));
    if is_zstd {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG)?;
        return Ok(Plain::Zstd(Box::new(decoder)));
    }
    Ok(if is_gzip { Plain::Gzip(Box::new(MultiGzDecoder::new(whole))) } else { Plain::As(whole) })
}

type Whole<R> = BufReader<io::Chain<io::Cursor<Vec<u8>>, R>>;

/// The reader that [`decompress`] gives.
pub(crate) enum Plain<R: Read> {
    /// It was compressed.
    Gzip(Box<MultiGzDecoder<Whole<R>>>),
    /// It was compressed.
    Zstd(Box<zstd::stream::read::Decoder<'static, Whole<R>>>),
    /// It was not.
    As(Whole<R>),
}

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Plain::Gzip(decoder) => decoder.read(buffer),
            Plain::Zstd(decoder) => decoder.read(buffer),
            Plain::As(whole) => whole.read(buffer),
        }
    }
}

fn first_bytes(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(6);
    input.by_ref().take(6).read_to_end(&mut start)?;
    Ok(start)
}

fn is_zstd(start: &[u8]) -> bool {
    // A stream may begin with a skippable frame: 0x184D2A50 to 0x184D2A5F, little endian.
    let skippable = matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
    skippable || start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
}

fn unsupported(start: &[u8]) -> Option<&'static str> {
    if start.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        Some("xz")
    } else if start.starts_with(b"BZh") {
        Some("bzip2")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompress(bytes, "layers")?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn gzip_plain_and_joined_gzip_are_told_apart() {
        assert_eq!(read(b"plain").unwrap(), b"plain");
        assert_eq!(read(b"").unwrap(), b"");
        assert_eq!(read(&gzip(b"one")).unwrap(), b"one");
        assert_eq!(read(&[gzip(b"one"), gzip(b"two")].concat()).unwrap(), b"onetwo");
    }

    #[test]
    fn a_cut_gzip_is_an_error() {
        let whole = gzip(&[7; 1000]);
        assert!(read(&whole[..whole.len() - 4]).is_err());
    }

    #[test]
    fn zstd_is_read_with_several_frames_and_skippable_ones() {
        let frame = |bytes: &[u8]| zstd::stream::encode_all(bytes, 3).unwrap();
        assert_eq!(read(&frame(b"one")).unwrap(), b"one");
        assert_eq!(read(&[frame(b"one"), frame(b"two")].concat()).unwrap(), b"onetwo");
        let skipped = [0x53, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 7, 7];
        assert_eq!(read(&[&skipped[..], &frame(b"one")].concat()).unwrap(), b"one");
        let whole = frame(&[7; 1000]);
        assert!(read(&whole[..whole.len() - 4]).is_err());
    }

    #[test]
    fn a_zstd_stream_that_wants_more_memory_than_images_do_is_refused() {
        let with_window = |log: u32| {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            encoder.write_all(b"x").unwrap();
            encoder.finish().unwrap()
        };
        assert_eq!(read(&with_window(ZSTD_WINDOW_LOG)).unwrap(), b"x");
        assert!(read(&with_window(ZSTD_WINDOW_LOG + 2)).is_err());
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let error = read(b"BZh9").unwrap_err().to_string();
        assert!(error.starts_with("bzip2 layers are not supported"), "{error}");
    }
}
