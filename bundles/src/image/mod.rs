//! Images: their names, the store on disk, and the two ways into it.
//!
//! [`reference`] reads names as Docker does; [`store`] is the content-addressed directory that all
//! processes of a root share; [`archive`] loads what `docker save` and OCI tools wrote;
//! [`registry`] pulls. Both ways end in [`unpack`], which trusts nothing that a layer says.
//! Nothing here mounts anything: a container's root filesystem is an overlay that the runtime
//! mounts over the directories in [`Image::layers`].

pub mod archive;
mod compression;
pub mod digest;
pub mod document;
mod entry_name;
mod hold;
pub mod layer;
mod members;
mod overlay;
mod parents;
mod partial;
mod pax;
pub mod policy;
pub mod reference;
pub mod registry;
pub mod remove;
pub mod rootfs;
mod sparse;
pub mod store;
pub mod tarball;
mod temp;
pub mod unpack;

pub use crate::image_config::ImageConfig;
use std::path::PathBuf;

pub use hold::Hold;
pub use policy::{PullPolicy, default_policy};
pub use reference::{Reference, ReferenceError};
pub use store::Store;

/// An image that is wholly in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The canonical name under which it was found, as in `docker.io/library/alpine:latest`.
    pub reference: String,
    /// The digest of the image's manifest; of its config where there is no manifest
    /// (`docker save` archives have none).
    pub manifest_digest: String,
    /// The image's id: the digest of its config.
    pub id: String,
    /// The unpacked layers, lowest first: directories in overlayfs' own format, all directly in
    /// one folder, with names of 26 characters, so that many fit into a page of mount options.
    pub layers: Vec<PathBuf>,
    /// How the image says that its process is to be run.
    pub config: ImageConfig,
    /// Bytes of config and layers as they were transferred (compressed, if they were).
    pub size_bytes: u64,
}

/// How far a pull or a load is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is known what the image is made of.
    Resolved {
        /// How many layers are to be fetched or unpacked; the others are here already.
        layers: usize,
        /// Their size in bytes.
        bytes: u64,
    },
    /// Some of a layer has arrived.
    Layer {
        /// The digest by which it was asked for.
        digest: String,
        /// Bytes so far.
        done: u64,
        /// All its bytes.
        total: u64,
    },
    /// Another process is fetching or unpacking this layer; its work is waited for and shared.
    Waiting {
        /// The layer's diffID.
        digest: String,
    },
    /// The network failed and the rest is asked for again.
    Retry {
        /// The digest of what was being fetched.
        digest: String,
        /// What failed.
        reason: String,
    },
    /// A layer has device nodes, which are not in the store: a container's `/dev` is made for it.
    LeftOut {
        /// The layer's digest.
        digest: String,
        /// How many.
        devices: u64,
    },
    /// A layer is unpacked and in the store.
    Unpacked {
        /// The layer's diffID.
        digest: String,
    },
}
