//! Images from the outside: hostile layers, archives, and a real registry on loopback.
//!
//! Needs root (owners, whiteouts, trusted attributes) and the program `docker-registry` of the
//! Debian package of that name. All that is made lies in temporary directories.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod archive;
mod hostile;
mod make;
mod registry;
