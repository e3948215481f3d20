//! The default filter, loaded into a thread of a real process. Needs root.

use bundles::capability::CapSet;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use runtime::seccomp;

#[test]
fn a_filtered_thread_gets_no_namespaces_and_everything_else_works() {
    assert!(nix::unistd::geteuid().is_root(), "the tests of seccomp must be run by root");
    let filter = seccomp::runtime_default(CapSet::EMPTY);
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWUTS).expect("without a filter root may do this");
        seccomp::load(&filter).unwrap();
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(status.contains("Seccomp:\t2"), "{status}");
        assert_eq!(unshare(CloneFlags::CLONE_NEWUTS), Err(Errno::EPERM));
        let vsock = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::empty(), None);
        assert_eq!(vsock.map(|_| ()), Err(Errno::EPERM));
        assert!(nix::unistd::getpid().as_raw() > 0);
        // The C library makes threads by clone3 and takes nothing but ENOSYS as a reason to use
        // clone instead.
        assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
        assert!(std::process::Command::new("/bin/true").status().unwrap().success());
    })
    .join()
    .unwrap();
}
