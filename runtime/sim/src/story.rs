//! Stories: a pod, what happens to it, and what the heart answers, as a text.
//!
//! A line `pod:` says what the pod is. A line that begins with a time happens then; indented lines below
//! it are the answer. Between two lines the world wakes the heart at each `wake_at`, and does at once
//! whatever the heart asks for, unless the story says otherwise (`fail`, `hold`, `probe`). Processes
//! ignore their stop signal unless the story says that they `obey`; SIGKILL always works.
//!
//! The stories of the heart's own tests are such texts, and a script of `podshim simulate` is one.

use plan::{Mono, Pod};

use crate::book::Broken;
use crate::pod_line;
use crate::table::Row;
use crate::world::Record;

mod show;
mod teller;
mod words;

use teller::Teller;

/// Why a text is no story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoryError {
    /// Which line of the text, from 1 on.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl std::fmt::Display for StoryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for StoryError {}

/// What came of a story.
#[derive(Clone, Debug)]
pub struct Played {
    /// The pod that it is about.
    pub pod: Pod,
    /// What was told to the heart.
    pub journal: Vec<Record>,
    /// What the story asked for (`status`, `waiting`, …) and was answered.
    pub answers: Vec<Row>,
    /// The story's own lines again, with the answers that come now.
    pub text: String,
    /// The promise that was broken, if one was.
    pub broken: Option<Broken>,
}

/// Plays a story, about `pod` if it names none of its own; the world goes on until `until`, if that is
/// later than its last line.
///
/// # Errors
/// A line that is none of a story's.
pub fn play(text: &str, pod: Option<&Pod>, until: Option<Mono>) -> Result<Played, StoryError> {
    let own = text.lines().enumerate().find_map(|(n, line)| Some((n, line.strip_prefix("pod: ")?)));
    let pod = match (own, pod) {
        (_, Some(pod)) => pod.clone(),
        (Some((n, line)), None) => {
            pod_line::read(line, "shop", "u1").map_err(|what| at(n, what))?
        }
        (None, None) => return Err(at(0, "it has no line `pod:`".to_owned())),
    };
    let mut teller = Teller::new(&pod);
    let mut out = String::new();
    for (n, line) in text.lines().enumerate() {
        if line.starts_with("    ") {
            continue;
        }
        out.push_str(line);
        out.push('\n');
        if line.starts_with(|c: char| c.is_ascii_digit()) {
            let (time, what) = line.split_once(' ').unwrap_or((line, ""));
            let answers = words::time(time).and_then(|time| teller.happens(time, what));
            for answer in answers.map_err(|what| at(n, what))? {
                out.push_str("    ");
                out.push_str(&answer);
                out.push('\n');
            }
        }
    }
    if let Some(until) = until {
        teller.wait_until(until).map_err(|what| at(text.lines().count(), what))?;
    }
    let (journal, answers, broken) = teller.into_parts();
    Ok(Played { pod, journal, answers, text: out, broken })
}

fn at(line: usize, what: String) -> StoryError {
    StoryError { line: line + 1, what }
}
