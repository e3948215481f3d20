//! What a kubelet's configuration says of all its pods, as flags of `podshim run`.

use anyhow::ensure;
use bundles::quantity::Quantity;
use runtime::log::Rotation;

use crate::cli::RunArgs;

/// The range that a kubelet takes for `maxContainerRestartPeriod`.
pub(super) fn restart_period(text: &str) -> anyhow::Result<u32> {
    let period = crate::cli::duration::parse(text)?.map_or(0, |d| d.as_secs());
    let fits = u32::try_from(period).ok().filter(|s| (1..=plan::RESTART_DELAY_MAX_S).contains(s));
    fits.ok_or_else(|| {
        anyhow::anyhow!("--max-container-restart-period {text}: from 1s to 300s is allowed")
    })
}

/// `--container-log-max-size` and `--container-log-max-files`.
pub(super) fn rotation(args: &RunArgs) -> anyhow::Result<Rotation> {
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
