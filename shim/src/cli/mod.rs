//! The command line: kubectl's words.

use std::path::PathBuf;

use bundles::layout::Layout;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::ArgValueCompleter;

use crate::pod::file::PullOverride;
use rollout::RolloutCommand;

mod api;
mod apply;
mod attach;
mod bundle;
mod check;
mod choose;
mod client;
mod completion;
mod cp;
mod daemon;
mod delete;
mod describe;
mod doctor;
pub mod duration;
mod ended;
mod events;
mod exec;
mod explain;
mod get;
mod images;
mod jsonpath;
mod logs;
mod prune;
pub mod registries;
mod relay;
mod restart;
mod rollout;
mod selector;
mod set_image;
mod simulate;
mod store;
pub mod table;
mod terminal;
mod timeline;
mod top;
mod upgrade;
mod wait;
mod watched;

pub use api::{Remote, path as api_path};
pub use choose::default_container;
pub use client::{Connection, PodRef, find_pod, pods};
pub use daemon::as_value as object_value;
pub use events::{collect as events_of, event_object, follow as follow_events};
pub use prune::names_in;
pub use selector::Selector;
pub use terminal::{colour_wanted, complain, printable, tell};

/// Exit code of `run` and `check` for whatever podshim itself could not do.
pub const CANNOT: i32 = 125;
/// Exit code of every other command for any failure, as kubectl has it.
pub const FAILED: i32 = 1;

/// Runs Kubernetes pod manifests with native sidecars on this host, with no cluster.
#[derive(Debug, Parser)]
#[command(name = "podshim", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    directories: Directories,
    #[command(subcommand)]
    command: Command,
}

/// Where an instance lives. Two instances with different directories know nothing of each other.
#[derive(Debug, Args)]
pub struct Directories {
    /// What outlives a reboot: images, volumes
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "PODSHIM_ROOT",
        default_value = "/var/lib/podshim"
    )]
    root: PathBuf,
    /// What dies with the boot: living pods
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "PODSHIM_STATE",
        default_value = "/run/podshim"
    )]
    state: PathBuf,
    /// Containers' logs
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "PODSHIM_LOG_DIR",
        default_value = "/var/log/podshim/pods"
    )]
    log_dir: PathBuf,
    /// Where the network of the host's pods is remembered
    #[arg(
        long,
        global = true,
        hide = true,
        value_name = "DIR",
        env = "PODSHIM_NETWORK_STATE",
        default_value = "/run/podshim-host/podshim0"
    )]
    network_state: PathBuf,
}

impl Directories {
    fn layout(&self) -> anyhow::Result<Layout> {
        let absolute = |path: &PathBuf| std::path::absolute(path);
        Ok(Layout {
            root: absolute(&self.root)?,
            state: absolute(&self.state)?,
            logs: absolute(&self.log_dir)?,
            network: absolute(&self.network_state)?,
        })
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the pods, jobs and deployments of manifests in the foreground
    Run(RunArgs),
    /// Say all that is wrong with manifests; runs nothing and needs no root
    Check(CheckArgs),
    /// Play a pod's life in virtual time: a random one, one that a script tells, or very many
    Simulate(simulate::SimulateArgs),
    /// Write containers as OCI bundles that stand alone, for runc, crun or youki
    Bundle(bundle::BundleArgs),
    /// Show pods, jobs or deployments
    Get(get::GetArgs),
    /// Wait until pods are ready, gone, or as a path of theirs says
    Wait(wait::WaitArgs),
    /// Say for each thing of a pod that waits: for what, since when, until when
    #[command(visible_alias = "why")]
    Explain(explain::ExplainArgs),
    /// Print the output of a pod's container
    Logs(LogsArgs),
    /// Delete pods, or what the daemon has: containers are stopped in order, within the grace period
    Delete(DeleteArgs),
    /// Show what happened to pods
    Events(EventsArgs),
    /// Show all that is known of a pod, for people
    Describe(DescribeArgs),
    /// Show what pods and their containers use
    Top(TopArgs),
    /// Draw what happened to a pod, container by container
    Timeline(TimelineArgs),
    /// Show a container's output from now on, as it is
    Attach(AttachArgs),
    /// Copy files into a container or out of it (POD:PATH; takes `tar` in the container)
    Cp(CpArgs),
    /// Run a program in a container of a pod; its exit code is the command's
    Exec(ExecArgs),
    /// Restart one container of a pod; the others do not notice
    Restart(OneContainerArgs),
    /// Stop a sidecar of a pod, which then stays down; the others do not notice
    Stop(OneContainerArgs),
    /// Start a sidecar that was stopped
    Start(OneContainerArgs),
    /// Make pods what manifests say now: what changed restarts alone, limits change in place
    #[command(visible_alias = "replace")]
    Apply(ApplyArgs),
    /// Give the daemon what manifests say, which is not there yet
    Create(ApplyArgs),
    /// Change how many pods a deployment of the daemon has, or a job at a time
    Scale(ScaleArgs),
    /// Follow, undo and steer how a deployment of the daemon gets to another template
    #[command(subcommand)]
    Rollout(RolloutCommand),
    /// Change single things of a pod that runs, or of a deployment
    #[command(subcommand)]
    Set(SetCommand),
    /// Take images from an archive or an OCI layout (docker save, OCI; plain, gzip or zstd)
    Load(LoadArgs),
    /// Pull an image from its registry
    Pull(PullArgs),
    /// List the images that are here
    Images(store::ImagesArgs),
    /// Remove images, and the layers that nothing needs any more
    Rmi(store::RmiArgs),
    /// Make images
    #[command(subcommand)]
    Image(store::ImageCommand),
    /// Say what this host lacks, what will not work because of it, and what mends it
    Doctor(DoctorArgs),
    /// Make pods that live go on with this version of podshim, without a restart of anything
    Upgrade(UpgradeArgs),
    /// Serve pods, jobs and deployments that outlive this terminal
    Daemon(DaemonArgs),
    /// Remove what dead instances left behind, and the logs of pods that are gone
    Prune(PruneArgs),
    /// Print a shell's completion script, which completes names of pods and containers too
    Completion {
        /// Which shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write manual pages into a directory
    #[command(hide = true)]
    Man(ManArgs),
    /// List the points at which tests can kill a shim
    #[command(hide = true)]
    Failpoints,
    /// The process that is a pod; started by podshim itself
    #[command(hide = true)]
    Shim(ShimArgs),
}

/// `podshim run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Files, directories, or `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub pods: PodArgs,
    /// Draw the pod's life into this file (SVG); with several pods, a file each: FILE-POD.svg
    #[arg(long, value_name = "FILE")]
    pub timeline: Option<PathBuf>,
    /// Only the containers' output
    #[arg(long, short)]
    pub quiet: bool,
    /// One JSON object a line instead of text
    #[arg(long, short, value_enum)]
    pub output: Option<RunOutput>,
    /// Fields without effect are errors, not warnings
    #[arg(long)]
    pub strict: bool,
    /// Run them here also where a daemon is; they end with this command. (So it is, with a warning, if there
    /// is --timeline or an option for how pods are made, which are the daemon's own where it makes them)
    #[arg(long)]
    pub standalone: bool,
    /// With a daemon: go on with what it already has of this, changed as `apply` would
    #[arg(long, conflicts_with = "standalone")]
    pub resume: bool,
    /// The first option of those that a daemon cannot be given with its objects, if there is one.
    #[arg(skip)]
    pub own: Option<String>,
}

impl RunArgs {
    /// Options that a daemon cannot be given with its objects.
    const OWN: [&str; 8] = [
        "timeline",
        "pull",
        "network",
        "pod_cidr",
        "allowed_unsafe_sysctls",
        "max_container_restart_period",
        "container_log_max_size",
        "container_log_max_files",
    ];

    /// The first of those that the command line has, as it stands there.
    fn own(matches: &ArgMatches) -> Option<String> {
        let given = |id: &&&str| matches.value_source(id) == Some(ValueSource::CommandLine);
        RunArgs::OWN.iter().find(given).map(|id| format!("--{}", id.replace('_', "-")))
    }
}

/// `podshim daemon`.
#[derive(Debug, Args)]
pub struct DaemonArgs {
    #[command(flatten)]
    pub pods: PodArgs,
}

/// What holds for all pods of a `podshim run`, or of a daemon.
#[derive(Debug, Args)]
pub struct PodArgs {
    /// When to pull images, whatever the manifests say
    #[arg(long, value_enum)]
    pub pull: Option<PullOverride>,
    /// The network of pods that do not use the host's
    #[arg(long, value_enum, default_value = "bridge", env = "PODSHIM_NETWORK")]
    pub network: NetworkKind,
    /// The addresses of the host's pods, when the first one starts (else one of 10.213.0.0/16 to
    /// 10.222.0.0/16 that no route of the host overlaps)
    #[arg(long, value_name = "CIDR")]
    pub pod_cidr: Option<String>,
    /// Kernel parameters that pods may set besides the safe ones; NAME may end with `*`
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub allowed_unsafe_sysctls: Vec<String>,
    /// The longest delay before a container that fails is restarted, from 1s to 300s (5m0s)
    #[arg(long, value_name = "DURATION")]
    pub max_container_restart_period: Option<String>,
    /// The size at which a container's log file is rotated
    #[arg(long, value_name = "SIZE", default_value = "10Mi")]
    pub container_log_max_size: String,
    /// How many log files a run of a container may have, at least 2; the oldest are removed
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub container_log_max_files: u32,
}

/// `--network` of `podshim run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NetworkKind {
    /// An address on a bridge of the host, and the host's ports that the manifests ask for
    Bridge,
    /// A loopback and nothing else
    None,
}

/// `-o` of `podshim run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RunOutput {
    /// Events as they happen, and at the end each Pod, Job and Deployment whole.
    Json,
}

/// `podshim check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Files, directories, or `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Fields without effect are errors, not warnings
    #[arg(long)]
    strict: bool,
}

/// `-o` of `podshim events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ObjectOutput {
    /// The whole object.
    Json,
    /// The whole object.
    Yaml,
    /// `event/NAME`.
    Name,
}

/// `podshim upgrade`.
#[derive(Debug, Args)]
pub struct UpgradeArgs {
    /// The pods' names
    #[arg(value_name = "POD", required_unless_present = "all", conflicts_with = "all")]
    pub pods: Vec<String>,
    /// All pods of this root, in every namespace
    #[arg(long)]
    pub all: bool,
    /// Their namespace
    #[arg(long, short, default_value = "default")]
    pub namespace: String,
}

/// `podshim logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The pod
    #[arg(value_parser = pod_name, add = ArgValueCompleter::new(completion::logged_pod_names))]
    pod: String,
    /// Which container
    #[arg(long, short, add = ArgValueCompleter::new(completion::container_names))]
    container: Option<String>,
    /// Go on printing
    #[arg(long, short)]
    follow: bool,
    /// The run before the current one
    #[arg(long, short)]
    previous: bool,
    /// Only the last lines
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
    /// With the time of each line
    #[arg(long)]
    timestamps: bool,
    /// Only what was written in the last DURATION (5s, 2m, 3h)
    #[arg(long, value_name = "DURATION", conflicts_with = "since_time")]
    since: Option<String>,
    /// Only what was written from then on (RFC 3339)
    #[arg(long, value_name = "TIME")]
    since_time: Option<String>,
    /// With pod and container before each line
    #[arg(long)]
    prefix: bool,
    /// Of all containers
    #[arg(long, conflicts_with = "container")]
    all_containers: bool,
    /// The pod's namespace
    #[arg(long, short, default_value = "default")]
    namespace: String,
}

/// `podshim delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// pod; job, deployment, configmap or secret of the daemon
    #[arg(value_name = "KIND")]
    kind: String,
    /// Their names
    #[arg(add = ArgValueCompleter::new(completion::pod_names))]
    names: Vec<String>,
    /// Seconds until what has not ended is killed; the pod's own if not given
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<u32>,
    /// Do not wait until they are gone
    #[arg(long)]
    no_wait: bool,
    /// Their namespace
    #[arg(long, short, default_value = "default")]
    namespace: String,
}

/// `podshim completion`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash
    Bash,
    /// elvish
    Elvish,
    /// fish
    Fish,
    /// PowerShell
    Powershell,
    /// zsh
    Zsh,
}

/// `podshim man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Where they go
    dir: PathBuf,
}

/// `podshim doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// A list of findings
    #[arg(long, short, value_enum)]
    output: Option<RunOutput>,
}

/// `podshim prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Leave the logs of pods that are gone
    #[arg(long, conflicts_with = "all")]
    keep_logs: bool,
    /// Also all images and logs, and the host's network of pods: what an uninstall needs. No pod may
    /// live
    #[arg(long)]
    all: bool,
}

/// `podshim exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// The pod
    #[arg(value_parser = pod_name, add = ArgValueCompleter::new(completion::pod_names))]
    pod: String,
    /// Which container
    #[arg(long, short, add = ArgValueCompleter::new(completion::container_names))]
    container: Option<String>,
    /// Pass standard input on
    #[arg(long, short = 'i')]
    stdin: bool,
    /// Give the program a terminal
    #[arg(long, short)]
    tty: bool,
    /// The pod's namespace
    #[arg(long, short, default_value = "default")]
    namespace: String,
    /// The program and its arguments, after `--`
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// `podshim events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only of this: a pod, or a job, deployment or replicaset as KIND/NAME
    #[arg(value_parser = events::Wanted::parse, add = ArgValueCompleter::new(completion::pod_names))]
    object: Option<events::Wanted>,
    /// The same, as kubectl has it
    #[arg(long = "for", value_name = "KIND/NAME", value_parser = events::Wanted::parse, conflicts_with = "object")]
    of: Option<events::Wanted>,
    /// Go on
    #[arg(long, short)]
    watch: bool,
    /// How to print them: v1 Events, one a line or document
    #[arg(long, short, value_enum)]
    output: Option<ObjectOutput>,
    /// Only of these types: Normal, Warning
    #[arg(long, value_name = "TYPE", value_delimiter = ',', ignore_case = true, value_parser = ["Normal", "Warning"])]
    types: Vec<String>,
    /// Without the line of headings
    #[arg(long)]
    no_headers: bool,
    /// Of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Their namespace
    #[arg(long, short, default_value = "default")]
    namespace: String,
}

/// `podshim describe`.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// pod, deployment, replicaset, job, configmap or secret, or KIND/NAME
    #[arg(value_name = "KIND")]
    kind: String,
    /// Their names; all if none is given
    #[arg(add = ArgValueCompleter::new(completion::pod_names))]
    names: Vec<String>,
    /// Their namespace
    #[arg(long, short, default_value = "default")]
    namespace: String,
}

/// `podshim top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Pods
    #[arg(value_name = "pod")]
    kind: String,
    /// One of them
    #[arg(add = ArgValueCompleter::new(completion::pod_names))]
    name: Option<String>,
    /// A line for each container
    #[arg(long)]
    containers: bool,
    /// Their namespace
    #[arg(long, short, default_value = "default")]
    namespace: String,
}

/// `podshim timeline`.
#[derive(Debug, Args)]
pub struct TimelineArgs {
    /// The pod
    #[arg(value_parser = pod_name, add = ArgValueCompleter::new(completion::pod_names))]
    pod: String,
    /// A picture, a list of bars, or a trace for ui.perfetto.dev; else lines for the terminal
    #[arg(long, short, value_enum)]
    output: Option<TimelineOutput>,
    /// The pod's namespace
    #[arg(long, short, default_value = "default")]
    namespace: String,
}

/// `-o` of `podshim timeline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TimelineOutput {
    /// A picture.
    Svg,
    /// A list of bars.
    Json,
    /// A trace.
    Perfetto,
}

/// `podshim attach`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// The pod
    #[arg(value_parser = pod_name, add = ArgValueCompleter::new(completion::pod_names))]
    pod: String,
    /// Which container
    #[arg(long, short, add = ArgValueCompleter::new(completion::container_names))]
    container: Option<String>,
    /// The pod's namespace
    #[arg(long, short, default_value = "default")]
    namespace: String,
}

/// `podshim cp`.
#[derive(Debug, Args)]
pub struct CpArgs {
    /// From where: a path, or POD:PATH
    from: String,
    /// To where: POD:PATH, or a path
    to: String,
    /// Which container
    #[arg(long, short)]
    container: Option<String>,
    /// The pod's namespace
    #[arg(long, short, default_value = "default")]
    namespace: String,
}

/// `podshim apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Files, directories, or `-` for standard input
    #[arg(long = "filename", short = 'f', required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Fields without effect are errors, not warnings
    #[arg(long)]
    strict: bool,
}

/// `podshim scale`.
#[derive(Debug, Args)]
pub struct ScaleArgs {
    /// deployment or job
    #[arg(value_name = "KIND")]
    kind: String,
    /// Its name
    name: Option<String>,
    /// How many pods
    #[arg(long, value_name = "N")]
    replicas: u32,
    /// Its namespace
    #[arg(long, short, default_value = "default")]
    namespace: String,
}

/// `podshim set`.
#[derive(Debug, Subcommand)]
enum SetCommand {
    /// Give containers other images; they restart, the others do not notice
    Image(SetImageArgs),
}

/// `podshim set image`.
#[derive(Debug, Args)]
pub struct SetImageArgs {
    /// The pod, or `deployment/NAME`
    #[arg(add = ArgValueCompleter::new(completion::pod_names))]
    pod: String,
    /// Which container gets which image; `*` is all containers
    #[arg(required = true, value_name = "CONTAINER=IMAGE")]
    images: Vec<String>,
    /// The pod's namespace
    #[arg(long, short, default_value = "default")]
    namespace: String,
}

/// `podshim restart`, `stop` and `start`.
#[derive(Debug, Args)]
pub struct OneContainerArgs {
    /// The pod
    #[arg(value_parser = pod_name, add = ArgValueCompleter::new(completion::pod_names))]
    pod: String,
    /// Which container
    #[arg(long, short, add = ArgValueCompleter::new(completion::container_names))]
    container: String,
    /// The pod's namespace
    #[arg(long, short, default_value = "default")]
    namespace: String,
}

/// `podshim load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// The archive, or the directory of an OCI layout; `-` for standard input
    #[arg(long, short, value_name = "FILE")]
    input: PathBuf,
    /// Print nothing
    #[arg(long, short)]
    quiet: bool,
}

/// `podshim pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// The image's name
    image: String,
    /// No progress
    #[arg(long, short)]
    quiet: bool,
    /// Without TLS, for registries that have none; passwords then go over the network in the clear
    #[arg(long)]
    plain_http: bool,
    /// With TLS that is not verified, or without: anybody on the way can give another image
    #[arg(long, conflicts_with = "plain_http")]
    insecure: bool,
}

impl PullArgs {
    /// What `podshim pull IMAGE` is given.
    fn of(image: &str) -> PullArgs {
        PullArgs { image: image.to_owned(), quiet: false, plain_http: false, insecure: false }
    }
}

/// `podshim shim`.
#[derive(Debug, Args)]
pub struct ShimArgs {
    /// The pod's directory
    pod_dir: PathBuf,
    /// Standard input is the channel to the pod's owner
    #[arg(long)]
    owned: bool,
    /// The number of the socket to the pod's keeper
    #[arg(long)]
    keeper: i32,
    /// The same process was another version before
    #[arg(long)]
    upgraded: bool,
    /// A descriptor that the keeper holds for it
    #[arg(long, value_name = "LABEL=NUMBER")]
    held: Vec<String>,
}

/// Parses the command line and does it. Returns the exit code.
pub fn main() -> i32 {
    if completion::answer() {
        return 0;
    }
    let parsed = Cli::command().try_get_matches().and_then(|matches| {
        let mut cli = Cli::from_arg_matches(&matches)?;
        if let (Command::Run(args), Some((_, given))) = (&mut cli.command, matches.subcommand()) {
            args.own = RunArgs::own(given);
        }
        Ok(cli)
    });
    let cli = match parsed {
        Ok(cli) => cli,
        Err(e) => {
            // Printing to a closed terminal is nobody's loss.
            let _ = e.print();
            return if e.use_stderr() { usage_code() } else { 0 };
        }
    };
    let code_of_failure = match cli.command {
        Command::Run(_) | Command::Check(_) | Command::Bundle(_) => CANNOT,
        _ => FAILED,
    };
    let layout_of_run = match cli.command {
        Command::Run(_) if rustix::process::geteuid().is_root() => cli.directories.layout().ok(),
        _ => None,
    };
    let code = dispatch(cli).unwrap_or_else(|e| {
        complain(&one_line(&e));
        code_of_failure
    });
    if let Some(layout) = layout_of_run
        && code == CANNOT
    {
        doctor::after_a_failure(&layout);
    }
    code
}

/// `run` must not exit with a code that a container could have had.
fn usage_code() -> i32 {
    let runs = std::env::args().nth(1).is_some_and(|first| first == "run" || first == "check");
    if runs { CANNOT } else { FAILED }
}

/// An error and its causes, each said once.
pub fn one_line(error: &anyhow::Error) -> String {
    runtime::chain(error.as_ref())
}

/// Whether it is the word for pods.
fn is_pod_kind(word: &str) -> bool {
    matches!(word.to_ascii_lowercase().as_str(), "pod" | "pods" | "po")
}

/// NAME, or `pod/NAME` as `get -o name` prints it.
fn pod_name(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        None => Ok(text.to_owned()),
        Some((kind, name)) if is_pod_kind(kind) => Ok(name.to_owned()),
        Some((kind, _)) => {
            Err(format!("only pods can be named here (NAME or pod/NAME), not {kind:?}"))
        }
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<i32> {
    let layout = cli.directories.layout()?;
    match cli.command {
        Command::Run(args) => {
            need_root("run")?;
            crate::run::run(layout, &args)
        }
        Command::Check(args) => check::check(&args.files, args.strict),
        Command::Simulate(args) => simulate::simulate(&args),
        Command::Bundle(args) => {
            need_root("bundle")?;
            bundle::bundle(&layout, &args)
        }
        Command::Get(args) => get::get(&layout, &args),
        Command::Wait(args) => wait::wait(&layout, &args),
        Command::Explain(args) => explain::explain(&layout, &args),
        Command::Logs(args) => logs::logs(&layout, &args),
        Command::Delete(args) => delete::delete(&layout, &args),
        Command::Events(args) => events::events(&layout, &args),
        Command::Describe(args) => describe::describe(&layout, &args),
        Command::Top(args) => top::top(&layout, &args),
        Command::Timeline(args) => timeline::timeline(&layout, &args),
        Command::Attach(args) => attach::attach(&layout, &args),
        Command::Cp(args) => cp::cp(&layout, &args),
        Command::Exec(args) => exec::exec(&layout, &args),
        Command::Upgrade(args) => {
            need_root("upgrade")?;
            upgrade::upgrade(&layout, &args)
        }
        Command::Restart(args) => restart::restart(&layout, &args),
        Command::Stop(args) => restart::stop(&layout, &args),
        Command::Start(args) => restart::start(&layout, &args),
        Command::Apply(args) => apply::apply(&layout, &args),
        Command::Create(args) => daemon::create(&layout, &args),
        Command::Scale(args) => daemon::scale(&layout, &args),
        Command::Rollout(command) => rollout::rollout(&layout, &command),
        Command::Set(SetCommand::Image(args)) => set_image::set_image(&layout, &args),
        Command::Load(args) => images::load(&layout, &args),
        Command::Pull(args) => images::pull(&layout, &args),
        Command::Images(args) => store::images(&layout, &args),
        Command::Rmi(args) => store::rmi(&layout, &args),
        Command::Image(store::ImageCommand::BuildRootfs(args)) => {
            store::build_rootfs(&layout, &args)
        }
        Command::Completion { shell } => completion::script(shell),
        Command::Man(args) => completion::man(&args),
        Command::Doctor(args) => doctor::doctor(&layout, &args),
        Command::Prune(args) => {
            need_root("prune")?;
            prune::prune(&layout, &args)
        }
        Command::Daemon(args) => {
            need_root("daemon")?;
            crate::daemon::run(layout, args)
        }
        Command::Failpoints => {
            let mut output = terminal::Output::default();
            crate::pod::failpoint::POINTS.iter().for_each(|p| output.line(format_args!("{p}")));
            output.end().map(|()| 0)
        }
        Command::Shim(args) => {
            let ShimArgs { pod_dir, owned, keeper, upgraded, held } = &args;
            let (owned, keeper, upgraded) = (*owned, *keeper, *upgraded);
            let start = crate::pod::Start { pod_dir, owned, upgraded, keeper, held };
            crate::pod::run(&start).map(|()| 0)
        }
    }
}

fn need_root(command: &str) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        anyhow::bail!(
            "`podshim {command}` needs root, to make namespaces and control groups: run it with \
             sudo (`podshim check` works without)"
        );
    }
    Ok(())
}
