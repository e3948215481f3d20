//! `podshim run`: pods, jobs and deployments of manifests, in the foreground.
//!
//! Where a daemon is, it is given them (`handed`), and `run` shows what becomes of them and removes them at
//! their end; without one, or if it is asked to, `run` is their controller itself (`standalone`).

use std::path::PathBuf;
use std::time::Duration;

use bundles::layout::Layout;
use bundles::manifest::{self, Object};
use plan::Mono;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::{CANNOT, RunArgs, RunOutput, colour_wanted, tell};
use crate::knobs;
use crate::spawn::{Options, Spawner};

mod handed;
mod host_notes;
mod news;
pub mod objects;
mod pods;
mod print;
mod standalone;
mod view;

use print::Printer;
use view::View;

/// How often a wait that has an end is told of.
const REMIND: Duration = Duration::from_secs(5);

/// Why everything ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ending {
    exit_code: i32,
    at_once: bool,
}

/// Runs the manifests to their end; returns the exit code.
pub fn run(layout: Layout, args: &RunArgs) -> anyhow::Result<i32> {
    runtime::cgroup::expect_moves();
    let Some((objects, read)) = objects_of(&args.files, args.strict)? else { return Ok(CANNOT) };
    let printer = || Printer::new(args.quiet, args.output == Some(RunOutput::Json));
    let several = objects.len() > 1 || objects.iter().any(|object| wanted_pods(object) > 1);
    // One thread: nothing here is slow.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let is_served = !args.standalone && runtime.block_on(handed::is_served(&layout));
    if let Some(own) = args.own.as_ref().filter(|_| is_served && args.resume) {
        anyhow::bail!(
            "{own} is for pods that run here, and --resume for those of the daemon: leave one of them out"
        );
    }
    if is_served && args.own.is_none() {
        return runtime.block_on(async {
            let view = View::new(printer(), several)?;
            handed::run(layout, view, objects, read, args.resume).await
        });
    }
    objects.iter().try_for_each(|object| knobs::check(&args.pods, object))?;
    let timeline = args.timeline.is_some();
    let options = Options { timeline, ..knobs::options(&args.pods)? };
    runtime.block_on(async {
        let spawner = Spawner::new(layout, read, options)?;
        let view = View::new(printer(), several)?;
        if let Some(own) = args.own.as_ref().filter(|_| is_served) {
            view.printer.warn(&format!(
                "with {own} the pods run here and end with this command: a daemon makes its pods as it was \
                 started (leave {own} out and it gets them; with --standalone this is not told)"
            ));
        }
        if let Some(note) = host_notes::cpu(&objects) {
            view.printer.warn(note);
        }
        let mut session = standalone::Session::new(spawner, view, args.timeline.clone());
        let code = session.run(objects).await;
        session.finish();
        code
    })
}

/// What manifests hold: objects that are run, and those that they read. `None` if there is something
/// wrong with them, which was told.
pub fn objects_of(
    files: &[PathBuf],
    strict: bool,
) -> anyhow::Result<Option<(Vec<Object>, Vec<Object>)>> {
    let report = manifest::read(&manifest::sources(files)?);
    tell(&report.render(colour_wanted(&std::io::stderr())));
    if !report.is_ok(strict) {
        return Ok(None);
    }
    let (objects, read): (Vec<Object>, Vec<Object>) =
        report.objects.into_iter().partition(Object::is_run);
    if objects.is_empty() {
        anyhow::bail!("the manifests hold nothing to run: add a Pod, a Deployment or a Job");
    }
    Ok(Some((objects, read)))
}

/// How many pods an object is to have at a time.
fn wanted_pods(object: &Object) -> usize {
    let wanted = match object {
        Object::Pod(_) => 1,
        Object::ConfigMap(_) | Object::Secret(_) => 0,
        Object::Deployment(d) => d.spec.replicas.unwrap_or(1),
        Object::Job(j) => {
            let spec = j.spec.clone().unwrap_or_default();
            let most = spec.parallelism.unwrap_or(1);
            spec.completions.map_or(most, |completions| completions.min(most))
        }
    };
    usize::try_from(wanted).unwrap_or(0)
}

async fn until(at: Option<Mono>) {
    match at {
        None => std::future::pending().await,
        Some(at) => {
            let left = at.0.saturating_sub(runtime::clock::mono().0);
            tokio::time::sleep(Duration::from_nanos(left)).await;
        }
    }
}

/// The signals that end `podshim run`, and their exit codes.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Option<Signal>,
}

impl Signals {
    /// INT and TERM are handled even if they were inherited as ignored (a script's background job);
    /// HUP stays ignored under nohup.
    fn new() -> anyhow::Result<Signals> {
        let hang_up = if hup_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up,
        })
    }

    async fn next(&mut self) -> i32 {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
            _ = hang_up => 129,
        }
    }
}

/// Bit 0 of `SigIgn` in `/proc/self/status`.
fn hup_is_ignored() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"))?.trim().to_owned();
            u64::from_str_radix(&mask, 16).ok()
        })
        .is_some_and(|mask| mask & 1 == 1)
}
