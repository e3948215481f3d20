//! What the name of a layer's entry asks for: a place, a whiteout, or nothing that is done.
//!
//! What is ambiguous or wants out is refused here, before any system call sees it.

/// `NAME_MAX`.
const MAX_NAME: usize = 255;
/// `PATH_MAX`, without the byte that ends a C string.
const MAX_PATH: usize = 4095;
/// What an entry's name asks for.
pub(super) enum Target<'a> {
    /// The layer's own root directory.
    Root,
    /// `name` in the directory `parents`.
    Place { parents: Vec<&'a [u8]>, name: &'a [u8] },
    /// The lower layers' `name` in `parents` is gone.
    Whiteout { parents: Vec<&'a [u8]>, name: &'a [u8] },
    /// All that the lower layers have in `parents` is gone.
    Opaque { parents: Vec<&'a [u8]> },
    /// Bookkeeping of aufs, which docker leaves out too.
    Aufs,
}

/// What a name means, or why it is refused.
pub(super) fn target(path: &[u8]) -> Result<Target<'_>, &'static str> {
    if path.contains(&0) {
        return Err("it has a NUL byte");
    }
    if path.len() > MAX_PATH {
        return Err("it is longer than 4095 bytes");
    }
    let mut parents: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("it has a `..`"),
            _ if part.len() > MAX_NAME => return Err("a part of it is longer than 255 bytes"),
            _ => parents.push(part),
        }
    }
    let Some(name) = parents.pop() else {
        return Ok(Target::Root);
    };
    if parents.iter().chain([&name]).any(|p| p.starts_with(b".wh..wh.") && *p != b".wh..wh..opq") {
        return Ok(Target::Aufs);
    }
    if parents.iter().any(|p| p.starts_with(b".wh.")) {
        return Err("it lies within a whiteout");
    }
    match name.strip_prefix(b".wh.") {
        None => Ok(Target::Place { parents, name }),
        Some(b".wh..opq") => Ok(Target::Opaque { parents }),
        Some(b"" | b"." | b"..") => Err("it is a whiteout of nothing"),
        Some(name) => Ok(Target::Whiteout { parents, name }),
    }
}
