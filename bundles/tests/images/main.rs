//! Images from the outside: hostile layers, archives, and a real registry on loopback.
//!
//! Needs root (owners, whiteouts, trusted attributes) and the program `docker-registry` of the
//! Debian package of that name. All that is made lies in temporary directories.

mod archive;
mod make;
