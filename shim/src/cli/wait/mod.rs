//! `podshim wait`: until pods are ready, gone, or as a path says. With kubectl's texts and exit codes.

use std::time::{Duration, Instant};

use bundles::layout::Layout;
use clap::Args;
use clap_complete::ArgValueCompleter;

use self::condition::Condition;
use super::client::has_name;
use super::daemon::kind_of;
use super::selector::Selector;
use super::terminal::{Output, complain, printable, tell};
use super::watched::{Watched, speaking};
use super::{
    FAILED, PodRef, completion, duration, find_pod, is_pod_kind, one_line, pod_name, pods,
};
use crate::daemon::store::Kind;

mod condition;
mod kept;

/// `podshim wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// The pods (NAME or pod/NAME); of the daemon also KIND NAME or KIND/NAME of a job or deployment
    #[arg(
        required_unless_present_any = ["all", "selector"],
        value_name = "POD",
        value_parser = named,
        add = ArgValueCompleter::new(completion::pod_names)
    )]
    pods: Vec<String>,
    /// What for: condition=NAME[=VALUE], jsonpath='{PATH}'[=VALUE], delete or create
    #[arg(
        long = "for",
        value_name = "CONDITION",
        value_parser = |text: &str| Condition::parse(text).map_err(|e| one_line(&e))
    )]
    condition: Condition,
    /// How long at most (30s, 1m30s); 0 looks once, a negative time is a week
    #[arg(long, value_name = "DURATION", default_value = "30s", allow_hyphen_values = true)]
    timeout: String,
    /// All pods of the namespace
    #[arg(long, conflicts_with = "selector")]
    all: bool,
    /// Those whose labels fit (KEY=VALUE, KEY!=VALUE, KEY in (A,B), KEY notin (A,B), KEY, !KEY)
    #[arg(
        long,
        short = 'l',
        value_parser = |text: &str| Selector::parse(text).map_err(|e| one_line(&e))
    )]
    selector: Option<Selector>,
    /// The pods' namespace
    #[arg(long, short, default_value = "default")]
    namespace: String,
}

/// A negative `--timeout`.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// No longer one, so that it ends within what clocks can show.
const YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How often is looked for what has no process that could tell: a pod that is not there yet, and the
/// remains of one whose shim died.
const LOOK: Duration = Duration::from_millis(50);

/// Waits for all of them side by side.
pub fn wait(layout: &Layout, args: &WaitArgs) -> anyhow::Result<i32> {
    let limit = duration::parse(&args.timeout)?.unwrap_or(WEEK).min(YEARS);
    let mut wait = Wait {
        layout,
        condition: &args.condition,
        deadline: Instant::now() + limit,
        once: limit.is_zero(),
        output: Output::default(),
        code: 0,
    };
    if let Some(kept) = kept::find(layout, args)? {
        wait.until_kept(&args.namespace, kept)?;
        wait.output.end()?;
        return Ok(wait.code);
    }
    let names = names(args)?;
    if args.condition == Condition::Create && !names.is_empty() {
        wait.until_there(&args.namespace, names);
    } else {
        let (watched, silent) = wait.open(args, names)?;
        wait.until_met(watched, silent)?;
    }
    wait.output.end()?;
    Ok(wait.code)
}

/// NAME or pod/NAME; or what the daemon may have.
fn named(text: &str) -> Result<String, String> {
    let kind = text.split_once('/').and_then(|(word, _)| kind_of(word));
    if kind.is_some_and(|kind| kind != Kind::Pod) { Ok(text.to_owned()) } else { pod_name(text) }
}

/// kubectl has the word `pod` before the names, or before `--all`.
fn names(args: &WaitArgs) -> anyhow::Result<&[String]> {
    let chosen = args.all || args.selector.is_some();
    let names = match &args.pods[..] {
        [kind, names @ ..] if is_pod_kind(kind) && (chosen || !names.is_empty()) => names,
        names => names,
    };
    if chosen && !names.is_empty() {
        anyhow::bail!("pods are waited for by name, or by --all or --selector, not both");
    }
    Ok(names)
}

struct Wait<'a> {
    layout: &'a Layout,
    condition: &'a Condition,
    deadline: Instant,
    once: bool,
    output: Output,
    code: i32,
}

impl Wait<'_> {
    fn met(&mut self, name: &str) {
        self.output.line(format_args!("pod/{name} condition met"));
    }

    /// As kubectl says it, because scripts look for these.
    fn error(&mut self, text: &str) {
        tell(&format!("error: {}\n", printable(text)));
        self.code = FAILED;
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn timed_out(&mut self, name: &str) {
        self.error(&if self.once {
            format!("condition not met for pods/{name}")
        } else {
            format!("timed out waiting for the condition on pods/{name}")
        });
    }

    /// `--for=create`.
    fn until_there(&mut self, namespace: &str, names: &[String]) {
        let mut missing: Vec<&String> = names.iter().collect();
        loop {
            missing.retain(|name| {
                let found = find_pod(self.layout, namespace, name).is_ok();
                if found {
                    self.met(name);
                }
                !found
            });
            let left = self.left();
            if missing.is_empty() || left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(LOOK));
        }
        missing.into_iter().for_each(|name| self.timed_out(name));
    }

    /// The pods that are meant, and those of them whose shim does not answer.
    fn open(
        &mut self,
        args: &WaitArgs,
        names: &[String],
    ) -> anyhow::Result<(Vec<Watched>, Vec<PodRef>)> {
        let mut wanted = Vec::new();
        if names.is_empty() {
            wanted = pods(self.layout)?;
            wanted.retain(|pod| pod.namespace == args.namespace);
        }
        for name in names {
            match find_pod(self.layout, &args.namespace, name) {
                Ok(pod) => wanted.push(pod),
                Err(_) if *self.condition == Condition::Delete => {}
                Err(e) => {
                    complain(&one_line(&e));
                    self.code = FAILED;
                }
            }
        }
        let (mut watched, mut silent) = (Vec::new(), Vec::new());
        for pod in wanted {
            match Watched::open(self.layout, pod.clone()) {
                Ok(opened) if args.selector.as_ref().is_none_or(|s| s.fits(&opened.object)) => {
                    watched.push(opened);
                }
                Ok(_) => {}
                Err(_) if !has_name(self.layout, &pod) => self.has_ended(&pod.name, None),
                Err(_) if *self.condition == Condition::Delete => silent.push(pod),
                Err(e) => {
                    complain(&one_line(&e));
                    self.code = FAILED;
                }
            }
        }
        let nothing = watched.is_empty() && silent.is_empty() && names.is_empty();
        if nothing && self.code == 0 && *self.condition != Condition::Delete {
            self.error("no matching resources found");
        }
        Ok((watched, silent))
    }

    fn until_met(
        &mut self,
        mut watched: Vec<Watched>,
        mut silent: Vec<PodRef>,
    ) -> anyhow::Result<()> {
        watched.retain(|one| !self.is_decided(one));
        loop {
            silent.retain(|pod| {
                let stays = has_name(self.layout, pod);
                if !stays {
                    self.met(&pod.name);
                }
                stays
            });
            let left = self.left();
            if left.is_zero() || watched.is_empty() && silent.is_empty() {
                break;
            }
            let limit = if silent.is_empty() { left } else { left.min(LOOK) };
            // From the last one, so that the places of the others stay.
            for index in speaking(&watched, limit)?.into_iter().rev() {
                if watched[index].hear()?.is_none() {
                    let ended = watched.swap_remove(index);
                    if has_name(self.layout, &ended.pod) && *self.condition == Condition::Delete {
                        silent.push(ended.pod);
                    } else {
                        self.has_ended(&ended.pod.name, ended.object["status"]["phase"].as_str());
                    }
                } else if self.is_decided(&watched[index]) {
                    watched.swap_remove(index);
                }
            }
        }
        for one in watched {
            self.timed_out(&one.pod.name);
        }
        for pod in silent {
            self.timed_out(&pod.name);
            complain(&format!(
                "the shim of pod {} is dead: `podshim prune` removes what it left",
                pod.name
            ));
        }
        Ok(())
    }

    /// Whether nothing is left to wait for: it is met, or can never be told.
    fn is_decided(&mut self, watched: &Watched) -> bool {
        match self.condition.is_met(&watched.object) {
            Ok(met) => {
                if met {
                    self.met(&watched.pod.name);
                }
                met
            }
            Err(e) => {
                self.error(&format!("pods/{}: {}", watched.pod.name, one_line(&e)));
                true
            }
        }
    }

    fn has_ended(&mut self, name: &str, phase: Option<&str>) {
        if *self.condition == Condition::Delete {
            return self.met(name);
        }
        let phase = phase.map(|phase| format!("; its last phase was {phase}")).unwrap_or_default();
        self.error(&format!("pods/{name} ended before the condition was met{phase}"));
    }
}
