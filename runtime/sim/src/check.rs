//! What must hold, checked against the world's own book at every step.
//!
//! [`actions`] says of each action that the heart asks for whether it may be done now. [`settled`] says,
//! when the heart asks for nothing more, whether something that is due was left undone, and when the
//! next thing is due, so that nobody oversleeps. [`told`] compares what a user is told, and [`waiting`]
//! what is said to be waited for.

mod actions;
mod settled;
mod stop;
mod told;
mod waiting;

pub(crate) use told::Told;
