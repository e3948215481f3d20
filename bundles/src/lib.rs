//! Kubernetes manifests and images in, OCI bundles out.
//!
//! This crate reads manifests and images and says what is to be run; it starts no process and
//! makes no namespace or mount. Those are the runtime's.

pub mod image;
pub mod layout;
pub mod quantity;
