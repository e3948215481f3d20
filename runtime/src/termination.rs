//! A container's last words: the file that it may write a message into before it ends.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// What is read, from the file's end, in bytes (`runtime.MaxContainerTerminationMessageLength`).
pub const MAX_BYTES: u64 = 4096;

/// Makes an incarnation's file: empty, and everybody may write it.
///
/// # Errors
/// Those of the file system.
pub fn make(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // Whatever the umask.
    file.set_permissions(Permissions::from_mode(0o666))
}

/// The end of an incarnation's message: at most [`MAX_BYTES`]. Nothing written is `None`.
///
/// The container could only write the file: it is a regular one of ours in a directory of ours.
///
/// # Errors
/// Those of the file system.
pub fn read(path: &Path) -> io::Result<Option<String>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok((!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_what_was_written_is_read() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("containers/main-0");
        assert_eq!(read(&path).expect("read"), None);
        make(&path).expect("made");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o666);
        assert_eq!(read(&path).expect("read"), None);
        fs::write(&path, "last words").expect("written");
        assert_eq!(read(&path).expect("read").as_deref(), Some("last words"));
        fs::write(&path, format!("{}end", "x".repeat(10_000))).expect("written");
        let text = read(&path).expect("read").expect("text");
        assert_eq!(text.len(), 4096);
        assert!(text.ends_with("xend"));
        make(&path).expect("made again");
        assert_eq!(read(&path).expect("read"), None);
    }
}
