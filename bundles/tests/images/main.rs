//! Images from the outside: hostile layers, archives, and a real registry on loopback.
//!
//! Needs root (owners, whiteouts, trusted attributes) and programs of Debian's packages
//! `docker-registry`, `apache2-utils` and `openssl`. All that is made lies in temporary directories.

#![allow(clippy::print_stderr, reason = "what was measured is shown")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod archive;
mod corpus;
mod fake;
mod hostile;
mod login;
mod make;
mod memory;
mod mirrors;
mod parents;
mod pulling;
mod registry;
mod rootfs;
mod server;
