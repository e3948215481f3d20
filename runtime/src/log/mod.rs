//! Container logs: from the containers' output to files in CRI's log format, and back.
//!
//! ```text
//! container ──FIFO──▶ pump ──▶ <pod>/<container>/<restart>.log ──▶ reader ──▶ podshim logs, run
//! ```
//!
//! [`pump`] is the shim's part: it loses and doubles no byte, whenever it is killed. [`reader`] is
//! everybody else's. [`format`](mod@format) and [`parse`] are the line format, as pure functions.
//! [`rotation`] bounds what a log takes, [`packing`] compresses what was rotated.

#[cfg(test)]
mod crash_tests;
mod failpoint;
mod files;
pub mod format;
mod lane;
pub mod packing;
pub mod parse;
pub mod pump;
pub mod reader;
mod record;
pub mod rotation;

pub use files::FileError;
pub use format::Stream;
pub use pump::{Flow, Pump, PumpError, Taken, Token};
pub use reader::{Follower, Line, ReadError, Start};
pub use rotation::Rotation;
