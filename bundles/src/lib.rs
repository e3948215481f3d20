//! Kubernetes manifests and images in, OCI bundles out.
//!
//! This crate reads manifests and images and says what is to be run; it starts no process and
//! makes no namespace or mount. Those are the runtime's.

pub mod capability;
pub mod change;
pub mod downward;
pub mod env;
pub mod expand;
pub mod host;
pub mod image;
pub mod image_config;
pub mod layout;
pub mod manifest;
pub mod mounts;
pub mod notify;
pub mod objects;
pub mod oci;
pub mod payload;
pub mod process;
pub mod quantity;
mod references;
pub mod resources;
mod schema;
pub mod security;
pub mod standalone;
mod supported;
pub mod sysctl;
pub mod tree;
pub mod user;
mod validate;
pub mod volume;
pub mod yaml;
