//! The pod network on this host's kernel, in network namespaces of the tests' own: nothing of the
//! machine's own network is touched. Needs root, and the programs `nft` and `ip`.

// Helpers of tests are tests, which clippy does not see.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(clippy::print_stdout, reason = "a helper process tells its test; timings are shown")]

mod network {
    pub mod host;

    mod crashes;
    mod firewalls;
    mod traffic;
}
