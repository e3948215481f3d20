//! Which devices a container may open and make: the allow list, and its enforcement on cgroup v2.
//!
//! On cgroup v2 there is no file for this; a BPF program attached to the container's cgroup is
//! asked for each open and mknod of a device (`Documentation/admin-guide/cgroup-v2.rst`, "Device
//! controller"). On v1 the same rules are lines for `devices.allow`, which `crate::cgroup` writes.
//! This module makes no device nodes; it knows those of the host.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType};

use crate::sys::bpf::{self, Instruction};

/// What kind of device a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Block and character devices.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Char,
}

/// What may be done with a device. The numbers are the kernel's `BPF_DEVCG_ACC_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(u8);

impl Access {
    /// `mknod`.
    pub const MKNOD: Access = Access(1);
    /// Opening for reading.
    pub const READ: Access = Access(2);
    /// Opening for writing.
    pub const WRITE: Access = Access(4);
    /// All three.
    pub const ALL: Access = Access(7);

    /// Both this and `other`.
    #[must_use]
    pub const fn and(self, other: Access) -> Access {
        Access(self.0 | other.0)
    }

    /// Whether nothing of `other` is missing here.
    #[must_use]
    pub const fn covers(self, other: Access) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Allows `access` to the devices that match; what no rule allows is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Block, character or both. With [`DeviceKind::All`] the numbers must be `None`: cgroup v1
    /// takes an `a` rule for everything, whatever numbers it names.
    pub kind: DeviceKind,
    /// The major number; `None` is any.
    pub major: Option<u32>,
    /// The minor number; `None` is any.
    pub minor: Option<u32>,
    /// What is allowed.
    pub access: Access,
}

const fn char_device(major: u32, minor: Option<u32>) -> DeviceRule {
    DeviceRule { kind: DeviceKind::Char, major: Some(major), minor, access: Access::ALL }
}

const fn mknod(kind: DeviceKind) -> DeviceRule {
    DeviceRule { kind, major: None, minor: None, access: Access::MKNOD }
}

/// Every device: a privileged container's rule.
pub const EVERY_DEVICE: DeviceRule =
    DeviceRule { kind: DeviceKind::All, major: None, minor: None, access: Access::ALL };

/// What every container may use: containerd's and runc's default. Nodes of any device may be made,
/// as images' install scripts do; only opening them is what counts.
pub const DEFAULT: &[DeviceRule] = &[
    mknod(DeviceKind::Char),
    mknod(DeviceKind::Block),
    char_device(1, Some(3)), // /dev/null
    char_device(1, Some(5)), // /dev/zero
    char_device(1, Some(7)), // /dev/full
    char_device(1, Some(8)), // /dev/random
    char_device(1, Some(9)), // /dev/urandom
    char_device(5, Some(0)), // /dev/tty
    char_device(5, Some(1)), // /dev/console
    char_device(5, Some(2)), // /dev/ptmx
    char_device(136, None),  // /dev/pts/*
];

/// The device nodes of the host's `/dev`, for privileged containers: as containerd finds them, without
/// what every container has of its own (pts, shm, mqueue, console).
///
/// # Errors
/// Those of reading `/dev`; what vanishes meanwhile is left out.
pub fn of_host() -> io::Result<Vec<LinuxDevice>> {
    let mut found = Vec::new();
    collect(Path::new("/dev"), &mut found)?;
    Ok(found)
}

fn collect(dir: &Path, found: &mut Vec<LinuxDevice>) -> io::Result<()> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    const SKIPPED: [&str; 8] =
        ["pts", "shm", "fd", "mqueue", "console", ".lxc", ".lxd-mounts", ".udev"];
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if SKIPPED.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        // Not through links: what they lead to is found by itself, or is none of /dev.
        let Ok(metadata) = entry.metadata() else { continue };
        let kind = match metadata.file_type() {
            kind if kind.is_dir() => {
                // A directory that vanishes or cannot be read is left out.
                let _ = collect(&entry.path(), found);
                continue;
            }
            kind if kind.is_block_device() => LinuxDeviceType::B,
            kind if kind.is_char_device() => LinuxDeviceType::C,
            _ => continue,
        };
        let number = metadata.rdev();
        let device = LinuxDeviceBuilder::default()
            .path(entry.path())
            .typ(kind)
            .major(i64::from(rustix::fs::major(number)))
            .minor(i64::from(rustix::fs::minor(number)))
            .file_mode(metadata.mode() & 0o7777)
            .uid(metadata.uid())
            .gid(metadata.gid());
        found.extend(device.build().ok());
    }
    Ok(())
}

/// The form of `devices.allow` (cgroup v1, `Documentation/admin-guide/cgroup-v1/devices.rst`).
impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DeviceKind::All => 'a',
            DeviceKind::Block => 'b',
            DeviceKind::Char => 'c',
        };
        write!(f, "{kind} {}:{} ", Number(self.major), Number(self.minor))?;
        for (letter, access) in [("r", Access::READ), ("w", Access::WRITE), ("m", Access::MKNOD)] {
            if self.access.covers(access) {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

struct Number(Option<u32>);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => write!(f, "{number}"),
            None => f.write_str("*"),
        }
    }
}

/// Why a cgroup has no device filter.
#[derive(Debug, thiserror::Error)]
pub enum DeviceFilterError {
    /// The cgroup's directory could not be opened.
    #[error("cannot open cgroup {}", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel did not take the program.
    #[error(
        "cannot load the device filter program; it needs a kernel with CONFIG_CGROUP_BPF, \
         and CAP_SYS_ADMIN or CAP_BPF with CAP_NET_ADMIN"
    )]
    Load(#[source] io::Error),
    /// The program could not be attached.
    #[error("cannot attach the device filter to {}", path.display())]
    Attach {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Denies every device but those of `rules` to the processes below a cgroup v2 directory.
///
/// Filters add up: a device must be allowed by each filter from the root down to the process.
///
/// # Errors
///
/// [`DeviceFilterError`]; the cgroup then has no filter and must not be used.
pub fn attach(cgroup: &Path, rules: &[DeviceRule]) -> Result<(), DeviceFilterError> {
    let open = |source| DeviceFilterError::Open { path: cgroup.to_owned(), source };
    let directory = File::open(cgroup).map_err(open)?;
    let program = bpf::load_device_program(&program(rules)).map_err(DeviceFilterError::Load)?;
    bpf::attach_device_program(directory.as_fd(), program.as_fd())
        .map_err(|source| DeviceFilterError::Attach { path: cgroup.to_owned(), source })
}

// Opcodes of eBPF (`Documentation/bpf/standardization/instruction-set.rst`).
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbf;
const MOVE_IMMEDIATE: u8 = 0xb7;
const AND_IMMEDIATE: u8 = 0x57;
const SHIFT_RIGHT_IMMEDIATE: u8 = 0x77;
const JUMP_IF_NOT_EQUAL: u8 = 0x56;
const EXIT: u8 = 0x95;

// Registers: the verdict, the context (`struct bpf_cgroup_dev_ctx`) and what is read from it.
const VERDICT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const fn with_register(code: u8, target: u8, source: u8, offset: i16) -> Instruction {
    Instruction { code, registers: target | source << 4, offset, immediate: 0 }
}

const fn with_number(code: u8, target: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: target, offset: 0, immediate }
}

/// The program: rule by rule, the first that matches allows; the end denies.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        // The context's first word is the kind in its low half and the access in its high half.
        with_register(LOAD_WORD, KIND, CONTEXT, 0),
        with_register(MOVE, ACCESS, KIND, 0),
        with_number(AND_IMMEDIATE, KIND, 0xffff),
        with_number(SHIFT_RIGHT_IMMEDIATE, ACCESS, 16),
        with_register(LOAD_WORD, MAJOR, CONTEXT, 4),
        with_register(LOAD_WORD, MINOR, CONTEXT, 8),
    ];
    for rule in rules {
        program.extend(rule_instructions(rule));
    }
    program.extend(returning(false));
    program
}

/// One rule: jumps to its own end where the device or the access is another.
fn rule_instructions(rule: &DeviceRule) -> Vec<Instruction> {
    let mut tests = Vec::new();
    // What is asked for and not allowed must be nothing.
    tests.push((VERDICT, 0));
    match rule.kind {
        DeviceKind::All => {}
        DeviceKind::Block => tests.push((KIND, 1)),
        DeviceKind::Char => tests.push((KIND, 2)),
    }
    tests.extend(rule.major.map(|major| (MAJOR, major.cast_signed())));
    tests.extend(rule.minor.map(|minor| (MINOR, minor.cast_signed())));

    let denied = i32::from(!rule.access.0 & Access::ALL.0);
    let mut body =
        vec![with_register(MOVE, VERDICT, ACCESS, 0), with_number(AND_IMMEDIATE, VERDICT, denied)];
    body.extend(tests.into_iter().map(|(register, n)| with_number(JUMP_IF_NOT_EQUAL, register, n)));
    body.extend(returning(true));
    let end = body.len();
    for (at, instruction) in body.iter_mut().enumerate() {
        if instruction.code == JUMP_IF_NOT_EQUAL {
            // A rule is at most eight instructions long.
            instruction.offset = (end - at - 1) as i16;
        }
    }
    body
}

fn returning(allowed: bool) -> [Instruction; 2] {
    [with_number(MOVE_IMMEDIATE, VERDICT, i32::from(allowed)), with_number(EXIT, 0, 0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would, on one question.
    fn allows(program: &[Instruction], kind: u32, access: Access, major: u32, minor: u32) -> bool {
        let context = [kind | u32::from(access.0) << 16, major, minor];
        let mut registers = [0u64; 16];
        let mut at = 0usize;
        loop {
            let Instruction { code, registers: pair, offset, immediate } = program[at];
            let (target, source) = (usize::from(pair & 15), usize::from(pair >> 4));
            at += 1;
            match code {
                LOAD_WORD => registers[target] = u64::from(context[offset as usize / 4]),
                MOVE => registers[target] = registers[source],
                MOVE_IMMEDIATE => registers[target] = immediate as u64,
                AND_IMMEDIATE => registers[target] &= immediate as u64,
                SHIFT_RIGHT_IMMEDIATE => registers[target] >>= immediate,
                JUMP_IF_NOT_EQUAL => {
                    if registers[target] as u32 != immediate as u32 {
                        at += offset as usize;
                    }
                }
                EXIT => return registers[0] == 1,
                other => panic!("unknown opcode {other:#x}"),
            }
        }
    }

    const BLOCK: u32 = 1;
    const CHAR: u32 = 2;

    #[test]
    fn the_default_list_is_containerds_as_lines_for_cgroup_v1() {
        let lines: Vec<String> = DEFAULT.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "c *:* m",
                "b *:* m",
                "c 1:3 rwm",
                "c 1:5 rwm",
                "c 1:7 rwm",
                "c 1:8 rwm",
                "c 1:9 rwm",
                "c 5:0 rwm",
                "c 5:1 rwm",
                "c 5:2 rwm",
                "c 136:* rwm",
            ]
        );
    }

    #[test]
    fn without_rules_nothing_is_allowed() {
        let program = program(&[]);
        for access in 1..=7 {
            assert!(!allows(&program, CHAR, Access(access), 1, 3));
        }
    }

    #[test]
    fn the_default_list_allows_its_devices_and_nodes_and_no_other_opening() {
        let program = program(DEFAULT);
        let listed =
            |major, minor| matches!((major, minor), (1, 3 | 5 | 7 | 8 | 9) | (5, 0..=2) | (136, _));
        for kind in [BLOCK, CHAR] {
            for (major, minor) in (0..260).flat_map(|major| (0..12).map(move |n| (major, n))) {
                for access in 1..=7 {
                    let expected = access == 1 || (kind == CHAR && listed(major, minor));
                    let allowed = allows(&program, kind, Access(access), major, minor);
                    assert_eq!(allowed, expected, "kind {kind} {major}:{minor} access {access}");
                }
            }
        }
    }

    #[test]
    fn a_rule_for_reading_does_not_allow_reading_and_writing() {
        let rule = DeviceRule {
            kind: DeviceKind::Block,
            major: Some(8),
            minor: None,
            access: Access::READ,
        };
        let program = program(&[rule]);
        assert!(allows(&program, BLOCK, Access::READ, 8, 1));
        assert!(!allows(&program, BLOCK, Access::READ.and(Access::WRITE), 8, 1));
        assert!(!allows(&program, CHAR, Access::READ, 8, 1));
        assert!(!allows(&program, BLOCK, Access::READ, 9, 1));
    }

    #[test]
    fn the_rule_for_every_device_allows_everything() {
        let program = program(&[EVERY_DEVICE]);
        assert!(allows(&program, BLOCK, Access::ALL, 259, u32::MAX));
        assert!(allows(&program, CHAR, Access::WRITE, 10, 200));
        assert_eq!(EVERY_DEVICE.to_string(), "a *:* rwm");
    }
}
