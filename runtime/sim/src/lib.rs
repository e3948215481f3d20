//! The heart in virtual time: `fold`, `plan`, `status` and `narrate` as they are, in a world that is
//! scripted or drawn from a seed, and checked after every step against book-keeping of its own.
//!
//! ```text
//! Case ── a pod and a seed (or a script: which choice comes out how)
//!  └ live() ── World: queue of what will happen, processes as they really are
//!               ├ the heart: State, plan() → actions, fold() ← facts
//!               ├ Book: what the pod owes, told the same facts
//!               └ checks: each action, each settled moment, each status
//! ```
//!
//! Like the heart it reads no clock, no file and no random source: a seed is an argument, and the same
//! seed gives the same life on every machine.

mod book;
mod chance;
mod check;
mod choice;
mod found;
mod life;
mod pod_line;
mod pods;
mod rng;
mod scenario;
mod schedule;
mod shrink;
mod small;
mod story;
mod table;
mod tally;
mod world;

pub use book::Broken;
pub use choice::{Choice, Deed, How, Key, Line};
pub use found::Found;
pub use life::{Case, Outcome};
pub use pods::{of_ten as pod_of_ten, random as random_pod};
pub use rng::Rng;
pub use scenario::{Cue, Happening, Scenario, Seen, ToContainer, UserAct, UserDeed, What};
pub use shrink::shrink;
pub use small::{Searched, search};
pub use story::{Played, StoryError, play};
pub use table::{Row, events, rows};
pub use tally::{FAULTS, Tally};
pub use world::Record;
