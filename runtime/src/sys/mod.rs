//! The only module with `unsafe`: one system call or one raw memory operation a function, with
//! typed arguments and owned descriptors.

pub mod process;
