//! seccomp(2): installs a filter program on the calling thread. Called by `crate::seccomp`.

#![allow(unsafe_code)]

use std::io;

/// Installs `program` on the calling thread, for good; it is inherited by what the thread forks
/// and executes.
///
/// # Errors
///
/// `EACCES` without `CAP_SYS_ADMIN` and `no_new_privs`; `EINVAL` for a program that the kernel
/// does not accept or that is too long for its length field.
pub(crate) fn set_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: `program` and the instructions it points at live through the call, `len` is their
    // number, and the kernel only reads them (it copies the filter before it returns).
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
