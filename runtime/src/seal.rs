//! Our own binary, sealed: what shims are executed from.
//!
//! A container's waiting init is still our program, and `/proc/<pid>/exe` leads from inside the
//! container to its file (CVE-2019-5736). So no shim runs from a file that can be written: the
//! binary is copied once into a memfd that nobody can change any more, and every shim of that
//! process is executed from this one copy.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};

/// MFD_EXEC (Linux 6.3): the memfd may be executed whatever `vm.memfd_noexec` says below 2.
const MFD_EXEC: MemfdFlags = MemfdFlags::from_bits_retain(0x10);

/// A sealed copy of the running binary, close-on-exec.
///
/// # Errors
/// Those of reading `/proc/self/exe` and of memfd_create(2); `vm.memfd_noexec=2` forbids it.
pub fn own_binary() -> io::Result<OwnedFd> {
    let mut source = File::open("/proc/self/exe")?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 refuse the flag that they do not know.
    let memfd =
        memfd_create(c"podshim", flags | MFD_EXEC).or_else(|_| memfd_create(c"podshim", flags))?;
    let mut copy = File::from(memfd);
    io::copy(&mut source, &mut copy)?;
    let memfd = OwnedFd::from(copy);
    fcntl_add_seals(&memfd, all_seals())?;
    Ok(memfd)
}

/// Whether this process itself runs from a sealed memfd.
#[must_use]
pub fn is_sealed() -> bool {
    File::open("/proc/self/exe")
        .ok()
        .and_then(|exe| fcntl_get_seals(exe).ok())
        .is_some_and(|seals| seals.contains(all_seals()))
}

fn all_seals() -> SealFlags {
    SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_copy_is_ours_and_cannot_be_changed() {
        let memfd = own_binary().expect("sealed copy");
        let mut copy = File::from(memfd);
        assert!(copy.write_all(b"x").is_err());
        assert!(copy.set_len(0).is_err());
        let original = std::fs::metadata("/proc/self/exe").expect("own binary").len();
        assert_eq!(copy.metadata().expect("memfd").len(), original);
        assert!(!is_sealed(), "the test itself runs from a file");
    }
}
