//! Our own binary, out of everybody's reach: what shims are executed from.
//!
//! A container's waiting init is still our program, and `/proc/<pid>/exe` leads from inside the
//! container to its file (CVE-2019-5736). So no shim runs from a file that can be written there.
//!
//! It is executed through an overlay without an upper layer, which no process has mounted anywhere
//! and nobody can write: its pages are the page cache's, shared by all shims and with the file itself.
//! Where that cannot be had (a file system that overlays do not take, a kernel before 5.2) the binary is
//! copied into a memfd and sealed; then each shim's pages of it count as its own.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags, fcntl_add_seals, fcntl_get_seals,
    fstatfs, fstatvfs, memfd_create, openat,
};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

/// MFD_EXEC (Linux 6.3): the memfd may be executed whatever `vm.memfd_noexec` says below 2.
const MFD_EXEC: MemfdFlags = MemfdFlags::from_bits_retain(0x10);
/// statfs(2).
const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;

/// The running binary where nobody can write it, close-on-exec. `elsewhere` is a directory that is not
/// near the binary: an overlay takes two.
///
/// # Errors
/// Those of reading `/proc/self/exe` and of memfd_create(2); `vm.memfd_noexec=2` forbids that.
pub fn own_binary(elsewhere: &Path) -> io::Result<OwnedFd> {
    through_overlay(elsewhere).or_else(|_| sealed_copy())
}

fn through_overlay(elsewhere: &Path) -> io::Result<OwnedFd> {
    let path = fs::read_link("/proc/self/exe")?;
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let options = [dir, elsewhere].map(Path::to_str);
    let [Some(dir), Some(elsewhere)] = options else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    if [dir, elsewhere].iter().any(|path| path.contains([':', ',', '\\'])) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "lowerdir", format!("{dir}:{elsewhere}"))?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mounted = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let binary = File::from(openat(&mounted, name, flags, Mode::empty())?);
    // The name may lead to another file by now.
    let (own, found) = (fs::metadata("/proc/self/exe")?, binary.metadata()?);
    let same = |m: &fs::Metadata| {
        use std::os::unix::fs::MetadataExt;
        (m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec())
    };
    if !found.is_file() || same(&own) != same(&found) {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(binary.into())
}

fn sealed_copy() -> io::Result<OwnedFd> {
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

/// Whether this process itself runs from what [`own_binary`] gives.
#[must_use]
pub fn is_sealed() -> bool {
    let Ok(exe) = File::open("/proc/self/exe") else { return false };
    is_overlay(&exe) || fcntl_get_seals(&exe).is_ok_and(|seals| seals.contains(all_seals()))
}

fn is_overlay(file: &File) -> bool {
    let kind = fstatfs(file).is_ok_and(|fs| fs.f_type == OVERLAYFS_SUPER_MAGIC);
    kind && fstatvfs(file).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn all_seals() -> SealFlags {
    SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    #[test]
    fn the_copy_is_ours_and_cannot_be_changed() {
        let memfd = sealed_copy().expect("sealed copy");
        let mut copy = File::from(memfd);
        assert!(copy.write_all(b"x").is_err());
        assert!(copy.set_len(0).is_err());
        let original = fs::metadata("/proc/self/exe").expect("own binary").len();
        assert_eq!(copy.metadata().expect("memfd").len(), original);
        assert!(!is_sealed(), "the test itself runs from a file");
    }

    #[test]
    fn whichever_way_it_is_the_same_program_and_cannot_be_written() {
        let temp = tempfile::tempdir().expect("a directory");
        let binary = File::from(own_binary(temp.path()).expect("binary"));
        let path = format!("/proc/self/fd/{}", binary.as_raw_fd());
        let original = fs::read("/proc/self/exe").expect("own binary");
        assert!(fs::read(&path).expect("readable") == original);
        let written = File::options().write(true).open(&path).and_then(|mut f| f.write_all(b"x"));
        let refused = written.expect_err("not writable").raw_os_error();
        // Who is not root cannot make an overlay.
        let expected = if is_overlay(&binary) { libc::EROFS } else { libc::EPERM };
        assert_eq!(refused, Some(expected));
    }
}
