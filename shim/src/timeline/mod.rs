//! What happened to a pod and when, as bars: pure, from the journal's facts.

use plan::{Fact, Kind, Life, Mono};
use runtime::journal::Record;
use serde::{Deserialize, Serialize};

use crate::pod::past::Beginning;

pub mod render;

/// What a container was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Doing {
    /// Its image was looked for or pulled.
    Image,
    /// It was created, or waited to be started.
    Created,
    /// It ran and was not yet `started`: a hook, a startup probe or its own word was still to come.
    Starting,
    /// It ran.
    Running,
    /// It was told to stop.
    Stopping,
}

impl Doing {
    /// A word for a legend.
    pub fn word(self) -> &'static str {
        match self {
            Doing::Image => "image",
            Doing::Created => "created",
            Doing::Starting => "not yet started",
            Doing::Running => "running",
            Doing::Stopping => "stopping",
        }
    }
}

/// A bar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    /// Which incarnation; none for its image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inc: Option<u32>,
    /// What it was doing.
    pub doing: Doing,
    /// From when, in milliseconds since the pod was accepted.
    pub from_ms: f64,
    /// Until when.
    pub to_ms: f64,
    /// How it ended, if the bar ends with the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

/// A container's bars.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Its name.
    pub container: String,
    /// `init`, `sidecar` or `main`.
    pub kind: String,
    /// In the order of time.
    pub spans: Vec<Span>,
    /// When its hooks ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookSpan>,
    /// Probes' failures, and successes that were news; the first [`MARKS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<ProbeMark>,
}

/// What is kept of a container's probes.
pub const MARKS_MAX: usize = 200;

/// A hook on its way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HookSpan {
    /// `postStart` or `preStop`.
    pub hook: String,
    /// Of which incarnation.
    pub inc: u32,
    /// From when, in milliseconds since the pod was accepted.
    pub from_ms: f64,
    /// Until when.
    pub to_ms: f64,
    /// Whether it failed.
    pub failed: bool,
}

/// One attempt of a probe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeMark {
    /// `startup`, `readiness` or `liveness`.
    pub probe: String,
    /// When it ended, in milliseconds since the pod was accepted.
    pub at_ms: f64,
    /// How.
    pub success: bool,
}

/// A pod's life so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeline {
    /// Its name.
    pub pod: String,
    /// Its length in milliseconds.
    pub length_ms: f64,
    /// When its sandbox was ready, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_ready_ms: Option<f64>,
    /// Its containers, inits first.
    pub rows: Vec<Row>,
}

/// One incarnation on its way.
#[derive(Clone, Copy, Debug)]
struct Open {
    inc: u32,
    doing: Doing,
    since: Mono,
}

/// Draws the bars, from where the pod's journal begins. What is still going on ends `now`.
pub fn of(beginning: Beginning, records: &[Record], now: Mono) -> Timeline {
    let Beginning { mut pod, mut state, at, .. } = beginning;
    let begun = at.filter(|_| state.has_begun());
    let begin = begun.or(records.first().map(Record::at)).map_or(now, |at| at.mono);
    let ms = |at: Mono| at.0.saturating_sub(begin.0) as f64 / 1e6;
    let mut rows: Vec<Row> = pod.containers.iter().map(row).collect();
    let mut open: Vec<Vec<Open>> =
        (0..rows.len()).map(|c| open_before(state.incarnations(c), begin)).collect();
    let mut images: Vec<Option<Mono>> = vec![None; rows.len()];
    let mut sandbox_ready_ms = None;
    for record in records {
        let at = record.mono;
        plan::fold(&pod, &mut state, record.at(), &record.fact);
        plan::change(&mut pod, &record.fact);
        note(&mut rows, &record.fact, ms(at));
        let mut turn = |c: usize, inc: u32, doing: Option<Doing>, exit_code: Option<i32>| {
            let (Some(row), Some(open)) = (rows.get_mut(c), open.get_mut(c)) else { return };
            if let Some(index) = open.iter().position(|o| o.inc == inc) {
                let before = open[index];
                if Some(before.doing) == doing {
                    return;
                }
                open.swap_remove(index);
                row.spans.push(span(Some(inc), before.doing, ms(before.since), ms(at), exit_code));
            }
            if let Some(doing) = doing {
                open.push(Open { inc, doing, since: at });
            }
        };
        match &record.fact {
            Fact::SandboxReady => sandbox_ready_ms = sandbox_ready_ms.or(Some(ms(at))),
            Fact::ImagePulling { c } => {
                if let Some(image) = images.get_mut(*c) {
                    *image = Some(at);
                }
            }
            Fact::ImageReady { c, .. } | Fact::ImageFailed { c, .. } => {
                let begun = images.get_mut(*c).and_then(Option::take);
                if let (Some(begun), Some(row)) = (begun, rows.get_mut(*c)) {
                    row.spans.push(span(None, Doing::Image, ms(begun), ms(at), None));
                }
            }
            Fact::Creating { c, inc } => turn(*c, *inc, Some(Doing::Created), None),
            Fact::CreateFailed { c, inc, .. } => turn(*c, *inc, None, None),
            Fact::Started { c, inc } => {
                let started = is_started(&state, *c, *inc);
                let doing = if started { Doing::Running } else { Doing::Starting };
                turn(*c, *inc, Some(doing), None);
            }
            Fact::Probed { c, inc, kind: plan::ProbeKind::Startup, .. }
            | Fact::HookEnded { c, inc, hook: plan::Hook::PostStart, .. }
            | Fact::Notified { c, inc }
                if is_started(&state, *c, *inc) =>
            {
                turn(*c, *inc, Some(Doing::Running), None);
            }
            Fact::Stopping { c, inc, .. } | Fact::Signalled { c, inc, .. } => {
                turn(*c, *inc, Some(Doing::Stopping), None);
            }
            Fact::SandboxLost => {
                for (row, open) in rows.iter_mut().zip(&mut open) {
                    let ended = |o: Open| span(Some(o.inc), o.doing, ms(o.since), ms(at), None);
                    row.spans.extend(open.drain(..).map(ended));
                }
            }
            Fact::Exited { c, inc, exit } => turn(*c, *inc, None, Some(exit.code)),
            _ => {}
        }
    }
    for (row, open) in rows.iter_mut().zip(open) {
        // What is not over yet goes on until now, and ends with its container at the latest.
        for hook in row.hooks.iter_mut().filter(|hook| hook.to_ms.is_nan()) {
            let mut ends = row.spans.iter().filter(|s| s.inc == Some(hook.inc));
            let over = ends.find(|s| s.exit_code.is_some()).map(|s| s.to_ms);
            hook.to_ms = over.unwrap_or(ms(now));
        }
        row.spans
            .extend(open.iter().map(|o| span(Some(o.inc), o.doing, ms(o.since), ms(now), None)));
        row.spans.sort_by(|a, b| a.from_ms.total_cmp(&b.from_ms));
    }
    let ends = rows.iter().flat_map(|row| &row.spans).map(|span| span.to_ms);
    let length_ms = ends.fold(0.0, f64::max);
    Timeline { pod: pod.name.clone(), length_ms, sandbox_ready_ms, rows }
}

fn row(container: &plan::Container) -> Row {
    let kind = match container.kind {
        Kind::Init => "init",
        Kind::Sidecar => "sidecar",
        Kind::Main => "main",
    };
    Row {
        container: container.name.clone(),
        kind: kind.into(),
        spans: Vec::new(),
        hooks: Vec::new(),
        probes: Vec::new(),
    }
}

/// What was going on already.
fn open_before(incarnations: &[plan::Incarnation], since: Mono) -> Vec<Open> {
    let doing = |i: &plan::Incarnation| match i.phase {
        Life::Creating | Life::Created | Life::Starting => Some(Doing::Created),
        Life::Running if i.is_started() => Some(Doing::Running),
        Life::Running => Some(Doing::Starting),
        Life::Exited => None,
    };
    let open = |i: &plan::Incarnation| Some(Open { inc: i.inc, doing: doing(i)?, since });
    incarnations.iter().filter_map(open).collect()
}

fn is_started(state: &plan::State, c: usize, inc: u32) -> bool {
    state.incarnations(c).iter().any(|i| i.inc == inc && i.is_started())
}

/// Notes hooks and probes.
fn note(rows: &mut [Row], fact: &Fact, at_ms: f64) {
    match fact {
        Fact::HookRunning { c, inc, hook } => {
            let hook = match hook {
                plan::Hook::PostStart => "postStart".to_owned(),
                plan::Hook::PreStop => "preStop".to_owned(),
            };
            let (inc, from_ms, to_ms) = (*inc, at_ms, f64::NAN);
            let begun = HookSpan { hook, inc, from_ms, to_ms, failed: false };
            rows.get_mut(*c).into_iter().for_each(|row| row.hooks.push(begun.clone()));
        }
        Fact::HookEnded { c, failure, .. } => {
            let hooks = rows.get_mut(*c).into_iter().flat_map(|row| &mut row.hooks);
            if let Some(hook) = hooks.last() {
                (hook.to_ms, hook.failed) = (at_ms, failure.is_some());
            }
        }
        Fact::Probed { c, kind, success, .. } => {
            let Some(row) = rows.get_mut(*c) else { return };
            let probe = format!("{kind:?}").to_lowercase();
            let before = row.probes.iter().rfind(|mark| mark.probe == probe);
            let is_news = !success || before.is_none_or(|mark| !mark.success);
            if is_news && row.probes.len() < MARKS_MAX {
                row.probes.push(ProbeMark { probe, at_ms, success: *success });
            }
        }
        _ => {}
    }
}

fn span(inc: Option<u32>, doing: Doing, from_ms: f64, to_ms: f64, exit_code: Option<i32>) -> Span {
    Span { inc, doing, from_ms, to_ms, exit_code }
}

#[cfg(test)]
mod tests {
    use plan::{Exit, Pod, ProbeKind, RestartPolicy, Wall};

    use super::*;

    pub(super) fn pod() -> Pod {
        let container = |name: &str, kind, startup| plan::Container {
            startup,
            ..plan::Container::new(name, kind, "i")
        };
        let probe = plan::Probe { period_s: 1, failure_threshold: 1, ..plan::Probe::default() };
        Pod {
            namespace: "default".into(),
            name: "p".into(),
            uid: "u".into(),
            restart_policy: RestartPolicy::Never,
            grace_s: 30,
            active_deadline_s: None,
            restart_delay_max_s: 300,
            gates: Vec::new(),
            containers: vec![
                container("side", Kind::Sidecar, Some(probe)),
                container("main", Kind::Main, None),
            ],
        }
    }

    pub(super) fn life() -> Vec<Record> {
        let exited = |c, inc, code| Fact::Exited { c, inc, exit: Exit { code, ..Exit::default() } };
        let created = |c, inc| {
            let container_id = "id".to_owned();
            Fact::Created { c, inc, pid: 1, inode: 1, container_id }
        };
        let kind = ProbeKind::Startup;
        [
            (10, Fact::Accepted),
            (20, Fact::SandboxReady),
            (21, Fact::Creating { c: 0, inc: 0 }),
            (22, Fact::Creating { c: 1, inc: 0 }),
            (25, created(0, 0)),
            (26, Fact::Starting { c: 0, inc: 0 }),
            (30, Fact::Started { c: 0, inc: 0 }),
            (31, Fact::Probing { c: 0, inc: 0, kind, early: false }),
            (
                35,
                Fact::Probed {
                    c: 0,
                    inc: 0,
                    kind,
                    success: false,
                    warned: false,
                    output: String::new(),
                },
            ),
            (36, Fact::Probing { c: 0, inc: 0, kind, early: true }),
            (
                40,
                Fact::Probed {
                    c: 0,
                    inc: 0,
                    kind,
                    success: true,
                    warned: false,
                    output: String::new(),
                },
            ),
            (40, created(1, 0)),
            (40, Fact::Starting { c: 1, inc: 0 }),
            (41, Fact::Started { c: 1, inc: 0 }),
            (50, exited(0, 0, 1)),
            (51, Fact::Creating { c: 0, inc: 1 }),
            (55, created(0, 1)),
            (55, Fact::Starting { c: 0, inc: 1 }),
            (60, Fact::Started { c: 0, inc: 1 }),
            (70, exited(1, 0, 0)),
            (70, Fact::HookRunning { c: 0, inc: 1, hook: plan::Hook::PreStop }),
            (71, Fact::Signalled { c: 0, inc: 1, signal: 15, handled: true }),
            (80, exited(0, 1, 143)),
        ]
        .into_iter()
        .map(|(ms, fact)| Record { mono: Mono(ms * 1_000_000), wall: Wall(0), fact })
        .collect()
    }

    #[test]
    fn a_life_becomes_bars_without_gaps() {
        let made = of(Beginning::of(pod()), &life(), Mono(99_000_000));
        assert_eq!((made.length_ms, made.sandbox_ready_ms), (70.0, Some(10.0)));
        let bars = |row: usize| -> Vec<_> {
            let spans = made.rows[row].spans.iter();
            spans.map(|s| (s.inc, s.doing, s.from_ms, s.to_ms, s.exit_code)).collect()
        };
        assert_eq!(
            bars(0),
            [
                (Some(0), Doing::Created, 11.0, 20.0, None),
                (Some(0), Doing::Starting, 20.0, 30.0, None),
                (Some(0), Doing::Running, 30.0, 40.0, Some(1)),
                (Some(1), Doing::Created, 41.0, 50.0, None),
                (Some(1), Doing::Starting, 50.0, 61.0, None),
                (Some(1), Doing::Stopping, 61.0, 70.0, Some(143)),
            ]
        );
        let hooks = &made.rows[0].hooks;
        assert_eq!(hooks.len(), 1);
        assert_eq!((hooks[0].from_ms, hooks[0].to_ms, hooks[0].failed), (60.0, 70.0, false));
        let marks: Vec<_> = made.rows[0].probes.iter().map(|p| (p.at_ms, p.success)).collect();
        assert_eq!(marks, [(25.0, false), (30.0, true)]);
        assert_eq!(
            bars(1),
            [
                (Some(0), Doing::Created, 12.0, 31.0, None),
                (Some(0), Doing::Running, 31.0, 60.0, Some(0)),
            ]
        );
    }

    #[test]
    fn what_goes_on_ends_now() {
        let made = of(Beginning::of(pod()), &life()[..15], Mono(99_000_000));
        let last = made.rows[1].spans.last().expect("a bar");
        assert_eq!((last.doing, last.to_ms, last.exit_code), (Doing::Running, 89.0, None));
    }
}
