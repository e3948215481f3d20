//! What is known of a pod when somebody takes it on, or looks at it: its journal, folded.

use anyhow::Context;
use bundles::layout::PodDir;
use plan::{At, Fact, State};
use runtime::clock;
use runtime::journal::{self, Contents, FORMAT, Journal, Opening, Record};

use super::compile::compile;
use super::file::PodFile;
use super::machine::event_of;
use crate::history::History;

/// A journal whose records are longer than that opens anew.
const RECORDS_MAX: u64 = 256 << 10;
/// The same while all of the pod's life is to be drawn at its end.
const RECORDS_OF_TIMELINE_MAX: u64 = 16 << 20;

/// What is known.
#[derive(Debug)]
pub struct Past {
    /// The pod as it is now.
    pub pod: plan::Pod,
    /// Everything that was folded.
    pub state: State,
    /// What has been told.
    pub history: History,
}

/// How a pod is found by the shim that takes it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is new.
    New,
    /// A shim has had it before.
    Before,
    /// It has a past, but nothing of it lives, and its live directory is another one.
    Lost,
}

/// What a journal begins with.
pub struct Beginning {
    /// The pod as it was then.
    pub pod: plan::Pod,
    /// What was known then.
    pub state: State,
    /// What had been told.
    told: History,
    /// When that was, unless nothing had happened yet.
    pub at: Option<At>,
}

impl Beginning {
    /// Of a pod to which nothing has happened.
    pub fn of(pod: plan::Pod) -> Beginning {
        Beginning { state: State::new(&pod), pod, told: History::default(), at: None }
    }
}

/// That of a pod's journal.
pub fn beginning(file: &PodFile, contents: &Contents) -> Beginning {
    match &contents.opening {
        Some(Opening { past, at, .. }) => Beginning {
            pod: past.pod.clone(),
            state: past.state.clone(),
            told: History::recall(&past.told),
            at: Some(*at),
        },
        None => Beginning::of(file.origin.clone().unwrap_or_else(|| compile(file))),
    }
}

impl Past {
    /// Folds a journal.
    pub fn of(file: &PodFile, contents: &Contents) -> Past {
        let Beginning { pod, state, told, .. } = beginning(file, contents);
        let mut past = Past { pod, state, history: told };
        contents.records.iter().for_each(|record| past.fold(record));
        past
    }

    fn fold(&mut self, record: &Record) {
        for event in plan::narrate(&self.pod, &self.state, &record.fact) {
            self.history.add(event_of(&self.pod, record.at(), &event));
        }
        plan::fold(&self.pod, &mut self.state, record.at(), &record.fact);
        plan::change(&mut self.pod, &record.fact);
    }
}

/// Folds a pod's journal, and opens it to go on with it. The process' clock goes on with the journal's.
pub fn take_on(file: &PodFile, dir: &PodDir) -> anyhow::Result<(Journal, Past, Found)> {
    let path = dir.journal();
    let contents = journal::read(&path)?;
    let boot = clock::boot_id().context("cannot read which boot of the host this is")?;
    let before = contents.opening.as_ref();
    clock::set_ahead(match (before, contents.latest()) {
        (Some(before), Some(latest)) if before.boot != boot => clock::ahead_after(latest),
        _ => contents.ahead(),
    });
    let mut past = Past::of(file, &contents);
    let open = |past: &Past, first: &[Record]| {
        Journal::begin(&path, &opening(file, past, boot.clone()), first)
    };
    if past.state.has_begun() && before.is_none_or(|before| before.life == file.life) {
        let journal = match before {
            Some(_) => Journal::go_on(&path, &contents)?,
            None => open(&past, &[])?,
        };
        return Ok((journal, past, Found::Before));
    }
    // It may have been changed without the journal, and is made as it is now.
    let wanted = compile(file);
    let names = |pod: &plan::Pod| pod.containers.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
    if !past.state.has_begun() || names(&past.pod) != names(&wanted) {
        past = Past { state: State::new(&wanted), pod: wanted, history: past.history };
        return Ok((open(&past, &[])?, past, Found::New));
    }
    let at = clock::now();
    let lost = Record { mono: at.mono, wall: at.wall, fact: Fact::SandboxLost };
    let before = Past { pod: wanted, ..past };
    let journal = open(&before, std::slice::from_ref(&lost))?;
    let mut past = before;
    past.fold(&lost);
    Ok((journal, past, Found::Lost))
}

/// Opens a journal anew if it has become long.
pub fn shorten(
    journal: &mut Journal,
    file: &PodFile,
    dir: &PodDir,
    past: impl FnOnce() -> Past,
) -> anyhow::Result<()> {
    let most = if file.timeline { RECORDS_OF_TIMELINE_MAX } else { RECORDS_MAX };
    if !journal.is_longer_than(most) {
        return Ok(());
    }
    journal.put_off();
    let boot = clock::boot_id().context("cannot read which boot of the host this is")?;
    *journal = Journal::begin(&dir.journal(), &opening(file, &past(), boot), &[])?;
    Ok(())
}

fn opening(file: &PodFile, past: &Past, boot: String) -> Opening {
    Opening {
        journal: FORMAT,
        life: file.life.clone(),
        boot,
        ahead: clock::ahead(),
        at: clock::now(),
        past: Box::new(journal::Past {
            pod: past.pod.clone(),
            state: past.state.clone(),
            told: past.history.keep(),
        }),
    }
}
