//! `podshim simulate`: a pod's life in virtual time, in a world of a seed, as a script tells it, or as a
//! failure was found. Nothing is run.

use std::fs;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bundles::manifest::Object;
use bundles::objects::Objects;
use clap::{Args, ValueEnum};
use sim::{Case, Found, Outcome, Record, Row, Tally};

use super::table::columns;
use super::terminal::{Output, complain};
use super::{CANNOT, FAILED};
use crate::pod::compile::{compile, containers};
use crate::pod::file::PodFile;
use crate::pod::past::Beginning;
use crate::run;
use crate::timeline::{self, render};

mod scenario;

/// `podshim simulate`.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// A manifest with one pod, job or deployment; random pods if none is given
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Live so many lives, check each at every step, and print what was seen
    #[arg(long, value_name = "N", conflicts_with_all = ["script", "replay"])]
    lives: Option<u64>,
    /// What happens and when, in the words of runtime/plan/tests/stories; all else goes well
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "replay"])]
    script: Option<PathBuf>,
    /// What decides whatever is left to chance; else the operating system does
    #[arg(long)]
    seed: Option<u64>,
    /// How long the pod is left alone before it is deleted (5s, 2m, 1h); else the seed decides
    #[arg(long, value_name = "DURATION")]
    until: Option<String>,
    /// How to print it
    #[arg(long, short, value_enum, default_value = "table")]
    output: SimulateOutput,
    /// Live a scenario: a pod, what its containers do, and what must come of it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "lives", "script", "replay", "seed", "until"])]
    scenario: Option<PathBuf>,
    /// Judge what `podshim run -o json` printed of the scenario's manifest, instead of living it
    #[arg(long, value_name = "FILE", requires = "scenario")]
    observed: Option<PathBuf>,
    /// The image of the scenario's manifest; it has a shell
    #[arg(long, value_name = "IMAGE", requires = "scenario", default_value = "alpine:latest")]
    image: String,
    /// Step through the file of a failure
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    replay: Option<PathBuf>,
}

/// `-o` of `podshim simulate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SimulateOutput {
    /// Time, container, what happens.
    Table,
    /// Facts and events.
    Json,
    /// A picture.
    Svg,
    /// A scenario as a manifest that `podshim run` takes.
    Manifest,
}

/// What is shown of one life.
struct Life {
    pod: plan::Pod,
    seed: Option<u64>,
    journal: Vec<Record>,
    answers: Vec<Row>,
    broken: Option<String>,
}

impl Life {
    fn of(case: Case, seed: Option<u64>) -> Life {
        let Outcome { journal, broken, .. } = case.live(true);
        let broken = broken.map(|broken| broken.0);
        Life { pod: case.pod, seed, journal, answers: Vec::new(), broken }
    }
}

/// Simulates. The exit code is 0, or 1 if a promise was broken.
pub fn simulate(args: &SimulateArgs) -> anyhow::Result<i32> {
    if let Some(path) = &args.scenario {
        return live(args, path);
    }
    if args.output == SimulateOutput::Manifest {
        bail!("only a scenario is made into a manifest: --scenario FILE");
    }
    if let Some(path) = &args.replay {
        let found = Found::read(&read(path)?)
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("{} is no file of a failure", path.display()))?;
        return show(args.output, &Life::of(found.case, None));
    }
    let until_s = args.until.as_deref().map(seconds).transpose()?;
    let pod = match &args.file {
        Some(path) => match pod_of(path)? {
            Some(pod) => Some(pod),
            None => return Ok(CANNOT),
        },
        None => None,
    };
    if let Some(path) = &args.script {
        let until = until_s.map(|s| plan::Mono(s.saturating_mul(plan::Mono::SECOND)));
        let played = sim::play(&read(path)?, pod.as_ref(), until)
            .with_context(|| format!("{} is no story", path.display()))?;
        let broken = played.broken.map(|broken| broken.0);
        let (pod, journal, answers) = (played.pod, played.journal, played.answers);
        return show(args.output, &Life { pod, seed: None, journal, answers, broken });
    }
    let seed = match args.seed {
        Some(seed) => seed,
        None => getrandom::u64().map_err(|e| anyhow::anyhow!("no random numbers: {e}"))? >> 16,
    };
    let case = |seed: u64| match &pod {
        Some(pod) => Case::of_pod(pod.clone(), seed, until_s),
        None => Case { until_s, ..Case::of_seed(seed) },
    };
    match args.lives {
        Some(lives) => many(seed, lives, &case),
        None => show(args.output, &Life::of(case(seed), Some(seed))),
    }
}

/// Lives a scenario, or shows or judges it.
fn live(args: &SimulateArgs, path: &Path) -> anyhow::Result<i32> {
    let scenario = scenario::read(path)?;
    if args.output == SimulateOutput::Manifest {
        return scenario::manifest(&scenario, &args.image);
    }
    if let Some(observed) = &args.observed {
        return scenario::observed(&scenario, observed);
    }
    let case = scenario.case();
    let outcome = case.live(false);
    let (happened, phase) = (scenario.happenings(&outcome), outcome.phase(&case.pod));
    match show(args.output, &Life::of(case, None))? {
        0 => scenario::verdict(&scenario, &happened, phase),
        failed => Ok(failed),
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn seconds(text: &str) -> anyhow::Result<u64> {
    let duration = humantime::parse_duration(text)
        .with_context(|| format!("{text:?} is no length of time (5s, 2m, 1h)"))?;
    Ok(duration.as_secs())
}

/// The pod of a manifest, as the heart knows it; `None` if what is wrong with it has been told.
fn pod_of(path: &Path) -> anyhow::Result<Option<plan::Pod>> {
    let Some((objects, _)) = run::objects_of(std::slice::from_ref(&path.to_path_buf()), false)?
    else {
        return Ok(None);
    };
    let [object] = &objects[..] else {
        bail!("{} holds {} pods, jobs and deployments, not one", path.display(), objects.len());
    };
    let mut pod = match object {
        Object::Pod(pod) => (**pod).clone(),
        _ => {
            let template = object.template().cloned().context("it has no pod template")?;
            let metadata = template.metadata.unwrap_or_default();
            k8s_openapi::api::core::v1::Pod { metadata, spec: template.spec, status: None }
        }
    };
    if pod.metadata.name.is_none() {
        pod.metadata.name.clone_from(&object.metadata().name);
    }
    crate::workload::give_name(&mut pod.metadata)?;
    let spec = pod.spec.clone().unwrap_or_default();
    let which = |wanted: &dyn Fn(&k8s_openapi::api::core::v1::Container) -> bool| {
        let all = containers(&spec).enumerate();
        all.filter(|(_, c)| wanted(c)).map(|(index, _)| index).collect::<Vec<_>>()
    };
    let file = PodFile {
        life: String::new(),
        origin: None,
        changed: None,
        superseded: Vec::new(),
        objects: Objects::default(),
        root: PathBuf::new(),
        state: PathBuf::new(),
        logs: PathBuf::new(),
        network_state: PathBuf::new(),
        network: None,
        restart_delay_max_s: None,
        rotation: runtime::log::Rotation::default(),
        timeline: false,
        pull: None,
        always_written: which(&|c| c.image_pull_policy.as_deref() == Some("Always")),
        at_start: which(&|c| bundles::mounts::depend_on_others(&spec, c, &|p| p.exists())),
        pull_environment: Default::default(),
        owner: None,
        pod,
    };
    Ok(Some(compile(&file)))
}

/// Prints one life.
fn show(format: SimulateOutput, life: &Life) -> anyhow::Result<i32> {
    let mut output = Output::default();
    match format {
        SimulateOutput::Table => {
            if let Some(seed) = life.seed {
                output.line(format_args!("seed {seed}"));
            }
            output.write(table(life).as_bytes());
        }
        SimulateOutput::Json => output.line(serde_json::to_string_pretty(&json(life))?),
        // It has been refused, or is written elsewhere.
        SimulateOutput::Manifest => {}
        SimulateOutput::Svg => output.write(svg(life).as_bytes()),
    }
    output.end()?;
    match &life.broken {
        None => Ok(0),
        Some(broken) => {
            complain(&format!("a promise is broken: {broken}"));
            Ok(FAILED)
        }
    }
}

fn table(life: &Life) -> String {
    let mut rows = sim::rows(&life.pod, &life.journal);
    rows.extend(life.answers.iter().cloned());
    rows.sort_by_key(|row| row.at);
    let title = ["TIME", "CONTAINER", "WHAT"].map(str::to_owned).to_vec();
    let cells = rows.into_iter().map(|row| {
        let seconds = Duration::from_nanos(row.at.0).as_secs_f64();
        vec![format!("{seconds:.3}s"), row.who, row.what]
    });
    columns(&std::iter::once(title).chain(cells).collect::<Vec<_>>())
}

fn json(life: &Life) -> serde_json::Value {
    let events = sim::events(&life.pod, &life.journal);
    let event =
        |(at, event): &(plan::At, plan::Event)| serde_json::json!({"at": at, "event": event});
    serde_json::json!({
        "seed": life.seed,
        "pod": life.pod,
        "facts": life.journal,
        "events": events.iter().map(event).collect::<Vec<_>>(),
        "broken": life.broken,
    })
}

fn svg(life: &Life) -> String {
    let record = |record: &Record| runtime::journal::Record {
        mono: record.at.mono,
        wall: record.at.wall,
        fact: record.fact.clone(),
    };
    let records: Vec<_> = life.journal.iter().map(record).collect();
    let now = records.last().map_or(plan::Mono(0), |r| r.mono);
    render::svg(&timeline::of(Beginning::of(life.pod.clone()), &records, now))
}

/// Lives many lives, on all processors, and prints what was seen.
fn many(first: u64, lives: u64, case: &(impl Fn(u64) -> Case + Sync)) -> anyhow::Result<i32> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let begin = Instant::now();
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    say_the_seed_of_a_panic();
    let results: Vec<(Tally, Option<(Case, Outcome)>)> = thread::scope(|scope| {
        let work = || {
            let mut tally = Tally::default();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= lives || failed.load(Ordering::Relaxed) {
                    return (tally, None);
                }
                let case = case(first.wrapping_add(n));
                SEED.set(case.seed);
                let outcome = case.live(false);
                tally.add(&outcome.tally);
                if outcome.broken.is_some() {
                    failed.store(true, Ordering::Relaxed);
                    return (tally, Some((case, outcome)));
                }
            }
        };
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        handles.into_iter().filter_map(|handle| handle.join().ok()).collect()
    });
    let took = begin.elapsed();
    let mut tally = Tally::default();
    results.iter().for_each(|(part, _)| tally.add(part));
    let mut output = Output::default();
    output.write(summary(first, &tally, took).as_bytes());
    output.end()?;
    match results.into_iter().find_map(|(_, found)| found) {
        None => Ok(0),
        Some((case, outcome)) => keep(&case, &outcome),
    }
}

thread_local! {
    /// Of the life that this thread is at.
    static SEED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// In a release a panic ends the process: then at least the seed is told.
fn say_the_seed_of_a_panic() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        complain(&format!("panic in the life of seed {}", SEED.get()));
        before(panic);
    }));
}

/// Makes a failure small and writes its file.
fn keep(case: &Case, outcome: &Outcome) -> anyhow::Result<i32> {
    let Some(broken) = &outcome.broken else { return Ok(0) };
    complain(&format!("seed {}: a promise is broken: {}", case.seed, broken.0));
    let found = Found::of(case, broken);
    let path = PathBuf::from(format!("podshim-simulate-{}.json", case.seed));
    fs::write(&path, found.write()?).with_context(|| format!("cannot write {}", path.display()))?;
    complain(&format!(
        "made small: {}; step through it with podshim simulate --replay {}",
        found.broken,
        path.display()
    ));
    Ok(FAILED)
}

fn summary(first: u64, tally: &Tally, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("first seed", first.to_string()),
        row("lives", tally.lives.to_string()),
        row("seconds", format!("{seconds:.1}")),
        row("lives a second", format!("{:.0}", tally.lives as f64 / seconds)),
        row("years of virtual time", format!("{:.1}", tally.seconds as f64 / 31_557_600.0)),
        row("facts", tally.facts.to_string()),
        row("plans", tally.plans.to_string()),
        row("checks", tally.checks.to_string()),
        row("ns a plan, 10 containers", format!("{:.0}", ns_per_plan())),
    ];
    rows.extend(tally.ends.iter().map(|(end, n)| row(&format!("end: {end}"), n.to_string())));
    rows.push(row("faults", tally.faults().to_string()));
    let faults = sim::FAULTS.iter().zip(tally.faults);
    rows.extend(faults.map(|(fault, n)| row(&format!("  {fault}"), n.to_string())));
    columns(&rows)
}

/// How long a plan takes for a pod of ten containers, over all moments of a few of its lives.
fn ns_per_plan() -> f64 {
    const LIVES: u64 = 20;
    const ROUNDS: u32 = 20;
    let pod = sim::pod_of_ten();
    let moments: Vec<_> =
        (0..LIVES).flat_map(|seed| Case::of_pod(pod.clone(), seed, None).moments()).collect();
    let begin = Instant::now();
    for _ in 0..ROUNDS {
        for (pod, state, now) in &moments {
            let _ = std::hint::black_box(plan::plan(pod, state, *now));
        }
    }
    let plans = moments.len() as f64 * f64::from(ROUNDS);
    begin.elapsed().as_nanos() as f64 / plans.max(1.0)
}
