//! A container's or pod's limits as the values of files, for both versions.
//!
//! Only the translation; who gets which limit is `bundles::resources`' business.

use std::path::{Path, PathBuf};

use super::files::{self, is_gone};
use super::{CgroupError, CgroupValues, Result};

/// One file to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) controller: &'static str,
    pub(super) file: &'static str,
    pub(super) value: String,
    /// Whether a host without this file breaks a promise; otherwise it is passed over.
    pub(super) needed: bool,
}

impl Setting {
    /// Writes it into a cgroup; `None` where the controller is not there at all.
    pub(super) fn write(&self, cgroup: Option<PathBuf>) -> Result<()> {
        let Some(cgroup) = cgroup else {
            return self.missing(Path::new("any cgroup hierarchy"));
        };
        let path = cgroup.join(self.file);
        match files::write(&path, &self.value) {
            // The cgroup itself was made a moment ago: what is gone is the file.
            Err(error) if is_gone(&error) => self.missing(&cgroup),
            result => result.map_err(|source| CgroupError::Write {
                path,
                value: self.value.clone(),
                source,
            }),
        }
    }

    fn missing(&self, cgroup: &Path) -> Result<()> {
        if self.needed {
            return Err(CgroupError::MissingController {
                file: self.file,
                cgroup: cgroup.to_owned(),
            });
        }
        Ok(())
    }
}

fn setting(
    controller: &'static str,
    file: &'static str,
    value: impl ToString,
    needed: bool,
) -> Setting {
    Setting { controller, file, value: value.to_string(), needed }
}

/// The least that the kernel takes for `cpu.shares`.
const MIN_SHARES: u64 = 2;
/// The most.
const MAX_SHARES: u64 = 262_144;

/// The files of cgroup v1, in the order in which they must be written.
pub(super) fn v1(values: &CgroupValues) -> Vec<Setting> {
    let memory = values.memory_limit_bytes;
    let bytes = memory.unwrap_or(-1);
    vec![
        setting("cpu", "cpu.shares", values.cpu_shares.max(MIN_SHARES), false),
        setting("cpu", "cpu.cfs_period_us", values.cpu_period_us, values.cpu_quota_us.is_some()),
        setting(
            "cpu",
            "cpu.cfs_quota_us",
            values.cpu_quota_us.unwrap_or(-1),
            values.cpu_quota_us.is_some(),
        ),
        // Memory and swap together must never be below memory: out of the way first. The file is
        // absent where swap is not accounted for.
        setting("memory", "memory.memsw.limit_in_bytes", -1, false),
        setting("memory", "memory.limit_in_bytes", bytes, memory.is_some()),
        setting("memory", "memory.memsw.limit_in_bytes", bytes, false),
        setting("pids", "pids.max", or_max(values.pids_max), values.pids_max.is_some()),
    ]
}

/// The files of cgroup v2.
pub(super) fn v2(values: &CgroupValues) -> Vec<Setting> {
    let quota = or_max(values.cpu_quota_us);
    let memory = values.memory_limit_bytes;
    vec![
        setting("cpu", "cpu.weight", cpu_weight(values.cpu_shares), false),
        setting(
            "cpu",
            "cpu.max",
            format!("{quota} {}", values.cpu_period_us),
            values.cpu_quota_us.is_some(),
        ),
        setting("memory", "memory.max", or_max(memory), memory.is_some()),
        // Absent on kernels without swap.
        setting("memory", "memory.swap.max", 0, false),
        setting("pids", "pids.max", or_max(values.pids_max), values.pids_max.is_some()),
    ]
}

fn or_max(limit: Option<i64>) -> String {
    limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string())
}

/// CPU shares (2 to 262,144, usually 1,024) as a weight (1 to 10,000, usually 100): the curve
/// through these three points that runc has used since 1.3.2 (opencontainers/cgroups PR 20), so
/// that 1,024 is worth what a cgroup without a weight gets.
fn cpu_weight(shares: u64) -> u64 {
    let log = (shares.clamp(MIN_SHARES, MAX_SHARES) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // Between 1 and 10,000 after the clamp above.
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITED: CgroupValues = CgroupValues {
        cpu_shares: 512,
        cpu_quota_us: Some(50_000),
        cpu_period_us: 100_000,
        memory_limit_bytes: Some(64 << 20),
        pids_max: Some(100),
    };
    const UNLIMITED: CgroupValues = CgroupValues {
        cpu_shares: 0,
        cpu_quota_us: None,
        cpu_period_us: 100_000,
        memory_limit_bytes: None,
        pids_max: None,
    };

    fn lines(settings: Vec<Setting>) -> Vec<String> {
        settings
            .into_iter()
            .map(|s| format!("{}={}{}", s.file, s.value, if s.needed { "!" } else { "" }))
            .collect()
    }

    #[test]
    fn limits_on_v1_set_memory_before_memory_with_swap() {
        assert_eq!(
            lines(v1(&LIMITED)),
            [
                "cpu.shares=512",
                "cpu.cfs_period_us=100000!",
                "cpu.cfs_quota_us=50000!",
                "memory.memsw.limit_in_bytes=-1",
                "memory.limit_in_bytes=67108864!",
                "memory.memsw.limit_in_bytes=67108864",
                "pids.max=100!",
            ]
        );
    }

    #[test]
    fn limits_on_v2_leave_no_swap() {
        assert_eq!(
            lines(v2(&LIMITED)),
            [
                "cpu.weight=59",
                "cpu.max=50000 100000!",
                "memory.max=67108864!",
                "memory.swap.max=0",
                "pids.max=100!",
            ]
        );
    }

    #[test]
    fn without_limits_a_host_that_lacks_controllers_will_do() {
        assert!(v1(&UNLIMITED).iter().chain(&v2(&UNLIMITED)).all(|setting| !setting.needed));
        assert_eq!(
            lines(v2(&UNLIMITED)),
            [
                "cpu.weight=1",
                "cpu.max=max 100000",
                "memory.max=max",
                "memory.swap.max=0",
                "pids.max=max",
            ]
        );
        assert!(lines(v1(&UNLIMITED)).contains(&"memory.limit_in_bytes=-1".to_owned()));
    }

    #[test]
    fn weights_meet_the_ends_and_the_middle_of_shares() {
        assert_eq!([0, 2, 1024, 262_144, u64::MAX].map(cpu_weight), [1, 1, 100, 10_000, 10_000]);
    }

    #[test]
    fn a_limit_without_its_controller_is_an_error_and_no_limit_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let write = |setting: &Setting, cgroup| setting.write(cgroup);
        let needed = setting("pids", "pids.max", 1, true);
        let unneeded = setting("pids", "pids.max", "max", false);
        for cgroup in [None, Some(directory.path().to_owned())] {
            let error = write(&needed, cgroup.clone()).unwrap_err();
            assert!(error.to_string().contains("pids.max"), "{error}");
            write(&unneeded, cgroup).unwrap();
        }
    }
}
