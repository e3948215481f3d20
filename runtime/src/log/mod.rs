//! Container logs: from the containers' output to files in CRI's log format, and back.
//!
//! ```text
//! container ──FIFO──▶ pump ──▶ <pod>/<container>/<restart>.log ──▶ reader ──▶ podshim logs, run
//! ```
//!
//! [`pump`] is the shim's part: it loses and doubles no byte, whenever it is killed. [`reader`] is
//! everybody else's. [`format`](mod@format) and [`parse`] are the line format, as pure functions.
//! Rotation and retention are not done here.

#[cfg(test)]
mod crash_tests;
mod failpoint;
mod files;
pub mod format;
mod lane;
pub mod parse;
pub mod pump;
pub mod reader;
mod record;

pub use files::FileError;
pub use format::Stream;
pub use pump::{Flow, Pump, PumpError, Taken, Token};
pub use reader::{Follower, Line, ReadError, Start};
