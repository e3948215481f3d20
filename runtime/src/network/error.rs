//! What can go wrong with the network, said to whoever must do something about it.

use std::io;

use super::cidr::{Cidr, RangeError};
use super::names::POD_INTERFACE;
use super::ports::PortError;
use super::{forwarding, netlink, program, state};

/// What can go wrong with the network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The bridge's name.
    #[error(
        "{0:?} cannot name a bridge: at most 13 letters, digits, `-`, `_` and `.`, a letter first"
    )]
    BridgeName(String),
    /// A uid that cannot be a file's name.
    #[error("{0:?} is no pod's uid")]
    Uid(String),
    /// The range.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// A range is asked for and the network has another one.
    #[error(
        "the network {bridge} has the range {has}, not {wanted}; end its pods and remove it with \
             `podshim prune --all`, or use another bridge"
    )]
    OtherRange {
        /// The bridge.
        bridge: String,
        /// Its range.
        has: Cidr,
        /// The one that was asked for.
        wanted: Cidr,
    },
    /// An interface of that name is somebody else's.
    #[error(
        "the interface {name} exists and is not of this network; remove it, or use another bridge"
    )]
    ForeignBridge {
        /// Which.
        name: String,
    },
    /// The pod's namespace is not as we left it.
    #[error("the pod's namespace has an {POD_INTERFACE} that podshim did not make")]
    ForeignInterface,
    /// A pod's interface is another pod's.
    #[error("the interface {name} is in use for {holder}")]
    LinkTaken {
        /// Which.
        name: String,
        /// By whom.
        holder: String,
    },
    /// The pod's namespace is the host's.
    #[error("the pod is on the host's network: there is nothing to attach")]
    HostNetwork,
    /// No address is left.
    #[error(
        "all {pods} addresses of {range} are in use; delete pods, or give the network a larger range"
    )]
    Full {
        /// The range.
        range: Cidr,
        /// How many pods it holds.
        pods: u64,
    },
    /// Somebody else uses up the bridge's ports.
    #[error(
        "the bridge {name} has no port left (Linux allows 1,023); remove interfaces that are not \
             podshim's from it"
    )]
    BridgeFull {
        /// Which.
        name: String,
        /// What the kernel said.
        #[source]
        source: netlink::NetlinkError,
    },
    /// The network is still in use.
    #[error("the network {bridge} is in use by {} of any root; delete them first: {}",
            if pods.len() == 1 { "a pod".into() } else { format!("{} pods", pods.len()) },
            pods.join(", "))]
    InUse {
        /// The bridge.
        bridge: String,
        /// The uids of the pods.
        pods: Vec<String>,
    },
    /// A host port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// A namespace could not be entered or left.
    #[error("cannot {what} network namespace")]
    Namespace {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] netlink::NetlinkError),
    /// A switch of the kernel.
    #[error(transparent)]
    Sysctl(#[from] forwarding::SysctlError),
    /// The records.
    #[error(transparent)]
    State(#[from] state::StateError),
    /// nft or another program.
    #[error(transparent)]
    Program(#[from] program::ProgramError),
}
