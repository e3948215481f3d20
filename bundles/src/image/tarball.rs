//! Reads tar streams: ustar, GNU long names and POSIX (PAX) headers, each with a bound.
//!
//! The `tar` crate decodes the header block and no more: its own iterator holds a long name or a
//! PAX header of any claimed size in memory, and cuts PAX values (a capability is binary) at line
//! feeds. Sparse files ([`super::sparse`]) are read in all of GNU's forms. Who reads decides what a path
//! may be; see [`super::unpack`].

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use super::pax::{Pax, pax};
use super::sparse::{self, Map, Said};

const BLOCK: u64 = 512;
/// A PAX header holds paths and extended attributes: Linux limits each of those to 64 KiB.
const MAX_PAX: u64 = 1 << 20;
/// Linux' PATH_MAX is 4096; what is longer is refused with its own message by the reader.
const MAX_LONG_NAME: u64 = 64 << 10;

/// Why a stream is no tar.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream cannot be read.
    #[error("read tar stream")]
    Read(#[source] io::Error),
    /// It ends within an entry.
    #[error("the tar stream is cut off")]
    Truncated,
    /// A header is not one.
    #[error("not a tar stream, or a damaged one: {0}")]
    Header(&'static str),
    /// An entry is of a kind that is not supported.
    #[error("{path:?}: tar entries of {what} are not supported")]
    Unsupported {
        /// The entry.
        path: String,
        /// What it is.
        what: String,
    },
}

/// What the functions here give.
pub type Result<T> = std::result::Result<T, TarError>;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Another name of a file.
    HardLink,
    /// A FIFO.
    Fifo,
    /// A character or block device.
    Device,
}

/// One entry, as it is written: nothing about its path or its numbers was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name in the archive.
    pub path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Bytes of content; of files only.
    pub(crate) size: u64,
    /// Where the content belongs, if the file has holes.
    pub(crate) sparse: Option<Map>,
    /// Its mode, with the set-id and sticky bits.
    pub mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Seconds since the epoch.
    pub(crate) mtime: i64,
    pub(crate) mtime_ns: u32,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// Whether its content has holes, which [`Reader::copy`] does not fill.
    pub fn is_sparse(&self) -> bool {
        self.sparse.is_some()
    }
}

/// A tar stream. Reading from it reads the content of the entry that [`Reader::next`] gave last.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    content: u64,
    padding: u64,
}

/// What extension headers say about the entry that follows them.
#[derive(Default)]
struct Ahead {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl<R: Read> Reader<R> {
    /// A reader that stands before the first entry.
    pub fn new(input: R) -> Self {
        Reader { input, content: 0, padding: 0 }
    }

    /// The input, from where the reader stands.
    pub(crate) fn into_inner(self) -> R {
        self.input
    }

    /// The next entry; `None` after the last. What is left of the last one is skipped.
    ///
    /// # Errors
    /// The stream cannot be read, or is no tar.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator could not be read from between two entries"
    )]
    pub fn next(&mut self) -> Result<Option<Entry>> {
        let mut ahead = Ahead::default();
        loop {
            self.skip()?;
            let Some(header) = self.block()? else {
                return Ok(None);
            };
            let kind = header.entry_type();
            match kind {
                EntryType::GNULongName => {
                    let name = self.extension(&header, MAX_LONG_NAME)?;
                    once(&mut ahead.long_name, until_nul(&name).to_vec())?;
                }
                EntryType::GNULongLink => {
                    let name = self.extension(&header, MAX_LONG_NAME)?;
                    once(&mut ahead.long_link, until_nul(&name).to_vec())?;
                }
                EntryType::XHeader => {
                    let records = self.extension(&header, MAX_PAX)?;
                    once(&mut ahead.pax, pax(&records)?)?;
                }
                // Comments of `git archive`; docker and containerd ignore them too.
                EntryType::XGlobalHeader => {
                    self.extension(&header, MAX_PAX)?;
                }
                _ => return self.entry(&header, ahead).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header, ahead: Ahead) -> Result<Entry> {
        let mut pax = ahead.pax.unwrap_or_default();
        if let Some(name) = pax.sparse.name.take() {
            // The name in the other places is one for readers that know nothing of holes.
            pax.path = Some(name);
        }
        let header_link = || header.link_name_bytes().unwrap_or_default().into_owned();
        let path = choose(ahead.long_name, pax.path)?.unwrap_or_else(|| header.path_bytes().into());
        let link = choose(ahead.long_link, pax.link)?.unwrap_or_else(header_link);
        let kind = kind(header.entry_type(), &path)?;
        let old = header.as_old();
        // Only files have content, whatever a link's header says (as in Go's archive/tar). PAX
        // wins over the header, or two readers would see two archives (CVE-2025-62518).
        let size = match (kind, pax.size) {
            (Kind::File, Some(size)) => size,
            (Kind::File, None) => number(&old.size, header.entry_size())?,
            _ => 0,
        };
        self.expect(size)?;
        let sparse = self.sparse(header, kind, &pax.sparse)?;
        let size = self.content;
        let mtime = || -> Result<(i64, u32)> {
            let seconds = number(&old.mtime, header.mtime())?;
            Ok((i64::try_from(seconds).unwrap_or(i64::MAX), 0))
        };
        let (mtime, mtime_ns) = pax.mtime.map_or_else(mtime, Ok)?;
        Ok(Entry {
            path,
            link,
            kind,
            size,
            sparse,
            mode: u32::try_from(number(&old.mode, header.mode().map(u64::from))? & 0o7777)
                .unwrap_or_default(),
            uid: pax.uid.map_or_else(|| number(&old.uid, header.uid()), Ok)?,
            gid: pax.gid.map_or_else(|| number(&old.gid, header.gid()), Ok)?,
            mtime,
            mtime_ns,
            xattrs: pax.xattrs,
        })
    }

    /// What a file's holes are; reads what of it stands before the content.
    fn sparse(&mut self, header: &Header, kind: Kind, said: &Said) -> Result<Option<Map>> {
        if header.entry_type() == EntryType::GNUSparse {
            let mut map = sparse::old_map(header.as_bytes())?;
            while map.goes_on {
                // Between the header and the content, and counted to neither.
                let mut block = [0; 512];
                self.input.read_exact(&mut block).map_err(cut)?;
                map.add_block(&block)?;
            }
            return Ok(Some(map.finish(self.content)?));
        }
        if kind != Kind::File || !said.is_sparse() {
            return Ok(None);
        }
        let in_content = said.is_in_content();
        let map = if in_content { sparse::read_map(&mut *self, said)? } else { said.map()? };
        Ok(Some(map.checked(self.content)?))
    }

    fn expect(&mut self, size: u64) -> Result<()> {
        if size > i64::MAX as u64 {
            return Err(TarError::Header("a size is negative"));
        }
        self.content = size;
        self.padding = size.next_multiple_of(BLOCK) - size;
        Ok(())
    }

    /// The content of an extension header.
    fn extension(&mut self, header: &Header, limit: u64) -> Result<Vec<u8>> {
        let size = number(&header.as_old().size, header.entry_size())?;
        if size > limit {
            return Err(TarError::Header("a name or an extended header is too long"));
        }
        self.expect(size)?;
        let mut content = Vec::new();
        self.read_to_end(&mut content).map_err(TarError::Read)?;
        if self.content > 0 {
            return Err(TarError::Truncated);
        }
        Ok(content)
    }

    fn skip(&mut self) -> Result<()> {
        let rest = self.content + self.padding;
        let skipped = io::copy(&mut self.input.by_ref().take(rest), &mut io::sink());
        if skipped.map_err(TarError::Read)? < rest {
            return Err(TarError::Truncated);
        }
        (self.content, self.padding) = (0, 0);
        Ok(())
    }

    /// A header block; `None` at the end, which is a block of zeros or the end of the stream.
    fn block(&mut self) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut have = 0;
        while have < block.len() {
            match self.input.read(&mut block[have..]) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated),
                Ok(count) => have += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let sum = |bytes: &[u8]| bytes.iter().map(|b| u32::from(*b)).sum::<u32>();
        let expected = sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..]);
        if header.cksum().ok() != Some(expected) {
            return Err(TarError::Header("wrong checksum"));
        }
        Ok(Some(header))
    }
}

/// Why an entry's content was not copied: the stream's fault, or that of where it goes.
#[derive(Debug)]
pub enum CopyError {
    /// The stream's.
    Read(TarError),
    /// The other's.
    Write(io::Error),
}

impl<R: Read> Reader<R> {
    /// Writes the rest of the entry's content into `out`, all of it or an error.
    ///
    /// # Errors
    /// Whose fault it is.
    pub fn copy(
        &mut self,
        buffer: &mut [u8],
        out: &mut impl Write,
    ) -> std::result::Result<(), CopyError> {
        self.copy_some(buffer, out, self.content)
    }

    /// Writes the next `bytes` of the entry's content.
    pub(crate) fn copy_some(
        &mut self,
        buffer: &mut [u8],
        out: &mut impl Write,
        bytes: u64,
    ) -> std::result::Result<(), CopyError> {
        let end = self.content.saturating_sub(bytes);
        while self.content > end {
            let most = usize::try_from(self.content - end).unwrap_or(usize::MAX).min(buffer.len());
            let count = match self.read(&mut buffer[..most]) {
                Ok(0) => return Err(CopyError::Read(TarError::Truncated)),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(CopyError::Read(TarError::Read(error))),
            };
            out.write_all(&buffer[..count]).map_err(CopyError::Write)?;
        }
        Ok(())
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.by_ref().take(self.content).read(buffer)?;
        self.content -= count as u64;
        Ok(count)
    }
}

fn kind(kind: EntryType, path: &[u8]) -> Result<Kind> {
    Ok(match kind {
        // Before ustar a directory was a file whose name ends in a slash.
        EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::HardLink,
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char | EntryType::Block => Kind::Device,
        EntryType::GNUSparse => Kind::File,
        other => {
            let what = format!("type {:?}", char::from(other.as_byte()));
            return Err(unsupported(path, what));
        }
    })
}

pub(super) fn unsupported(path: &[u8], what: String) -> TarError {
    TarError::Unsupported { path: String::from_utf8_lossy(path).into_owned(), what }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<()> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(TarError::Header("two extended headers of one kind for one entry")),
    }
}

/// Readers differ about which of the two counts, so no honest writer writes both.
fn choose(gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>) -> Result<Option<Vec<u8>>> {
    match (gnu, pax) {
        (Some(_), Some(_)) => Err(TarError::Header("both a GNU and a PAX name for one entry")),
        (gnu, pax) => Ok(gnu.or(pax)),
    }
}

/// A field that is all blank is zero, as in Go's archive/tar.
fn number(field: &[u8], parsed: io::Result<u64>) -> Result<u64> {
    if field.iter().all(|b| matches!(b, 0 | b' ')) {
        return Ok(0);
    }
    parsed.map_err(|_| TarError::Header("a number is none"))
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

fn cut(error: io::Error) -> TarError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => TarError::Truncated,
        _ => TarError::Read(error),
    }
}
