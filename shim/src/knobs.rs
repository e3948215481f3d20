//! What holds for all pods of a `podshim run` or of a daemon: their arguments, looked at before anything
//! runs.

use anyhow::{Context, bail, ensure};
use bundles::manifest::Object;
use bundles::quantity::Quantity;
use bundles::sysctl;
use runtime::log::Rotation;
use runtime::network::{Cidr, HostPort};

use crate::cli::{NetworkKind, PodArgs};
use crate::pod::file::PodNetwork;
use crate::spawn::Options;

/// What the arguments mean.
pub fn options(args: &PodArgs) -> anyhow::Result<Options> {
    if let Some(range) = &args.pod_cidr {
        range.parse::<Cidr>().context("--pod-cidr")?;
    }
    let network =
        (args.network == NetworkKind::Bridge).then(|| PodNetwork { range: args.pod_cidr.clone() });
    let restart_delay_max_s =
        args.max_container_restart_period.as_deref().map(restart_period).transpose()?;
    let rotation = rotation(args)?;
    Ok(Options { pull: args.pull, network, timeline: false, restart_delay_max_s, rotation })
}

/// Refuses what an object asks for and these arguments do not give.
pub fn check(args: &PodArgs, object: &Object) -> anyhow::Result<()> {
    let Some(spec) = object.pod_spec() else { return Ok(()) };
    if let Some(name) = sysctl::forbidden(spec, &args.allowed_unsafe_sysctls).first() {
        let flag = "--allowed-unsafe-sysctls";
        bail!(
            "forbidden sysctl: {name:?} not allowlisted: it is not among those that are safe; allow \
             it with {flag}={name}"
        );
    }
    let ports = HostPort::of_pod(spec)?;
    let on_host = spec.host_network == Some(true);
    if args.network == NetworkKind::None && !on_host && !ports.is_empty() {
        bail!("a pod asks for a hostPort, which takes `--network bridge`");
    }
    Ok(())
}

/// The range that a kubelet takes for `maxContainerRestartPeriod`.
fn restart_period(text: &str) -> anyhow::Result<u32> {
    let period = crate::cli::duration::parse(text)?.map_or(0, |d| d.as_secs());
    let fits = u32::try_from(period).ok().filter(|s| (1..=plan::RESTART_DELAY_MAX_S).contains(s));
    fits.ok_or_else(|| {
        anyhow::anyhow!("--max-container-restart-period {text}: from 1s to 300s is allowed")
    })
}

/// `--container-log-max-size` and `--container-log-max-files`.
fn rotation(args: &PodArgs) -> anyhow::Result<Rotation> {
    let (text, max_files) = (&args.container_log_max_size, args.container_log_max_files);
    let size: Quantity =
        text.parse().map_err(|e| anyhow::anyhow!("--container-log-max-size {text}: {e}"))?;
    let max_bytes = u64::try_from(size.ceil()).unwrap_or(0);
    ensure!(max_bytes > 0, "--container-log-max-size {text}: at least a byte is needed");
    ensure!(
        max_files >= 2,
        "--container-log-max-files {max_files}: at least 2 are needed, one to write and one that is full"
    );
    Ok(Rotation { max_bytes, max_files })
}
